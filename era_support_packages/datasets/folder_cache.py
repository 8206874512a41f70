"""What reading a folder of images has brought, kept in one file beside the runs; only files that changed are read again."""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from era_support_packages.datasets.decoding import BITS
from era_support_packages.datasets.fitting import Fitting
from era_support_packages.datasets.scanning import ScannedFile, scan

CACHE_FORMAT = 4  # count up when the same files would be read otherwise
KEEP_EVERY = 60  # seconds, while files are read
_WITHOUT_A_NAME = Fitting()  # of the caches of before sizes could be chosen


@dataclass(frozen=True, eq=False)
class FolderScan:
    """The files of a folder as they were read, N in all.

    problems: why a file gives no picture, "" where it does. damaged bool, sha256 uint8 (N, 32), sizes int64 (N, 2) height and
    width, largest int64, pictures int64: as in `ScannedFile`. shallow: uint8 (S, size, size, 3), the pictures of 8 bits in
    order; deep: uint16 (D, size, size, 4), the others, as in `decoding.Picture`. Where only sums were kept, these are int64
    (S, 3, 2) and (D, 5, 3, 2), as in `ScannedFile`.
    """

    problems: list[str]
    damaged: np.ndarray
    sha256: np.ndarray
    sizes: np.ndarray
    largest: np.ndarray
    pictures: np.ndarray
    shallow: np.ndarray
    deep: np.ndarray

    @property
    def fine(self) -> np.ndarray:
        """Which files give a picture, bool (N,)."""
        return np.array([not problem for problem in self.problems], dtype=bool)

    @classmethod
    def of(cls, found: Sequence[ScannedFile], size: int, sums: bool = False) -> "FolderScan":
        """From what each file brought, with pixels of that size, or the sums of them."""
        fine = [(file.pixels, bool(file.largest)) for file in found if file.pixels is not None]
        shallow, deep = ([pixels for pixels, is_deep in fine if is_deep is kind] for kind in (False, True))
        return cls(
            problems=[file.problem for file in found],
            damaged=np.array([file.damaged for file in found], dtype=bool),
            sha256=np.frombuffer(b"".join(file.sha256 for file in found), dtype=np.uint8).reshape(-1, 32),
            sizes=np.array([file.size for file in found], dtype=np.int64).reshape(-1, 2),
            largest=np.array([file.largest for file in found], dtype=np.int64),
            pictures=np.array([file.pictures for file in found], dtype=np.int64),
            shallow=np.stack(shallow) if shallow else np.empty((0, *_shapes(size, sums)[0]), np.int64 if sums else np.uint8),
            deep=np.stack(deep) if deep else np.empty((0, *_shapes(size, sums)[1]), np.int64 if sums else np.uint16),
        )

    def file(self, index: int, row: int) -> ScannedFile:
        """What the file of that number brought; `row` is its place in `shallow` or `deep`."""
        fine = not self.problems[index]
        pixels = (self.deep if self.largest[index] else self.shallow)[row] if fine else None
        size = (int(self.sizes[index, 0]), int(self.sizes[index, 1]))
        numbers = int(self.largest[index]), int(self.pictures[index])
        return ScannedFile(self.problems[index], bool(self.damaged[index]), self.sha256[index].tobytes(), size, *numbers, pixels)

    def rows(self) -> np.ndarray:
        """For each file its place in `shallow` or `deep`, int64 (N,); of no meaning where it gives no picture."""
        rows = np.zeros(len(self.problems), dtype=np.int64)
        for kind in (self.largest == 0, self.largest > 0):
            chosen = self.fine & kind
            rows[chosen] = np.arange(chosen.sum())
        return rows


def _shapes(size: int, sums: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of what is kept of a shallow file and of a deep one."""
    return ((3, 2), (len(BITS), 3, 2)) if sums else ((size, size, 3), (size, size, 4))


def cache_file(folder: Path, cache_dir: Path, fitting: Fitting, sums: bool = False) -> Path:
    """The file for what was read in a folder (an absolute path), its pixels brought to one size, or their sums."""
    end = ("" if fitting == _WITHOUT_A_NAME else f"-{fitting.size}-{fitting.fit}") + "-sums" * sums
    return cache_dir / f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:10]}{end}.npz"


def scan_folder(
    files: Sequence[str], keys: Sequence[str], cache: Path, name: str, fitting: Fitting, sums: bool = False
) -> tuple[FolderScan, OSError | None]:
    """What the files hold: from the cache where their key is the same, else read now and kept there.

    keys: one a file, which changes with it. sums: keep the sums of the pixels alone. Also returns why the cache could not be
    written, if so.
    """
    read = _read(cache, fitting, sums)
    if read is not None and list(keys) == read[0]:
        return read[1], None
    known_keys, known = read or ([], FolderScan.of([], fitting.size, sums))
    places = {key: index for index, key in enumerate(known_keys)}
    rows = known.rows()
    new = [file for file, key in zip(files, keys, strict=True) if key not in places]
    kept = time.monotonic()

    def together(found: Sequence[ScannedFile]) -> tuple[list[str], FolderScan]:
        """The known files and the new ones that were read, in order, with their keys."""
        left, pairs = iter(found), []
        for key in keys:
            file = known.file(places[key], int(rows[places[key]])) if key in places else next(left, None)
            if file is not None:
                pairs.append((key, file))
        return [key for key, _ in pairs], FolderScan.of([file for _, file in pairs], fitting.size, sums)

    def keep(found: Sequence[ScannedFile]) -> None:
        nonlocal kept
        if sums and time.monotonic() - kept > KEEP_EVERY:  # a long reading that is interrupted goes on; pixels are too many
            with contextlib.suppress(OSError):  # said at the end
                _write(cache, *together(found), fitting)
            kept = time.monotonic()

    _, result = together(scan(new, fitting=fitting, name=name, sums=sums, so_far=keep) if new else [])
    try:
        _write(cache, keys, result, fitting)
    except OSError as error:
        return result, error
    return result, None


def _read(file: Path, fitting: Fitting, sums: bool) -> tuple[list[str], FolderScan] | None:
    try:
        with np.load(file, allow_pickle=False) as cache:
            texts = json.loads(cache["texts"].tobytes())
            if texts["format"] != CACHE_FORMAT or texts.get("fit", _WITHOUT_A_NAME.fit) != fitting.fit:
                return None
            names = ("damaged", "sha256", "sizes", "largest", "pictures", "shallow", "deep")
            found = FolderScan(texts["problems"], **{name: cache[name] for name in names})
        fine, deep = found.fine, found.largest > 0
        whole = len(texts["keys"]) == len(found.problems) == len(found.sha256) == len(found.damaged) == len(found.sizes)
        counts = int((fine & ~deep).sum()), int((fine & deep).sum())
        shapes = tuple((count, *shape) for count, shape in zip(counts, _shapes(fitting.size, sums), strict=True))
        return (texts["keys"], found) if whole and (found.shallow.shape, found.deep.shape) == shapes else None
    except Exception:  # absent, cut short or changed (a zip file carries checksums): in any case it can be made again
        return None


def _write(file: Path, keys: Sequence[str], found: FolderScan, fitting: Fitting) -> None:
    about = {"format": CACHE_FORMAT, "fit": fitting.fit, "keys": list(keys), "problems": found.problems}
    texts = json.dumps(about).encode()
    arrays: dict[str, Any] = {name: value for name, value in vars(found).items() if name != "problems"}
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}-", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.savez(stream, texts=np.frombuffer(texts, dtype=np.uint8), **arrays)
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
