"""Photos that somebody names: found, decoded in parts, and what cannot be read named."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from era_support_packages.datasets.decoding import depth_of, recognized, to_8_bits
from era_support_packages.datasets.scanning import ScannedFile, scan
from era_support_packages.system.paths import expanded, printable_path

PART = 64  # photos decoded at a time
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class Photo:
    """A file, its pixels uint8 (H, W, 3), or None and what is wrong with it.

    bits: as what a file of 16 bits was read, 0 for others.
    """

    file: Path
    pixels: np.ndarray | None
    problem: str = ""
    bits: int = 0


def photo_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The files that are named, and those images that lie in named folders and below, in order, each once.

    Raises `FileNotFoundError` for a path where nothing is, and `ValueError` where no image is found.
    """
    found: list[Path] = []
    for path in map(expanded, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
            found += [file for file in inside if recognized(os.fspath(file)) or file.suffix.lower() in _ENDINGS]
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path} is not there: give image files, or folders of them.")
    if not found:
        raise ValueError(f"No image is in {', '.join(os.fspath(path) for path in paths)}: give image files, or folders of them.")
    return list(dict.fromkeys(found))


def decoded_photos(files: Sequence[Path], bits: int | None) -> Iterator[list[Photo]]:
    """The photos in parts; `bits` as for `decode_images`."""
    for start in range(0, len(files), PART):
        part = files[start : start + PART]
        scanned = scan([os.fspath(file) for file in part], None)
        yield [_photo(file, found, bits) for file, found in zip(part, scanned, strict=True)]


def _photo(file: Path, found: ScannedFile, bits: int | None) -> Photo:
    if found.pixels is None:
        return Photo(file, None, found.problem)
    depth = depth_of(found.largest, bits)
    return Photo(file, to_8_bits(found.pixels, depth) if depth else found.pixels, bits=depth)


def named_depths(bits: Sequence[int], trained: int | None) -> str:
    """The sentence for those of the photos that have 16 bits, by what each was read as; "" where none has."""
    deep = [own for own in bits if own]
    if not deep:
        return ""
    how = f"{len(deep)} of {len(bits)} photos have 16 bits"
    if trained:
        return f"{how}; they are read as {trained} bits, as those of the training were."
    read = " or ".join(map(str, sorted(set(deep))))
    return f"{how}, and none of the training had: each is read as the fewest bits that hold its own largest value, {read}."


def panel_names(files: Sequence[Path]) -> list[str]:
    """A name for the panel of each file: its own without its ending, with the first free number where that is taken."""
    taken: set[str] = set()
    names = []
    for stem in (printable_path(Path(file.stem)).replace("\\", "_") for file in files):
        numbered = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        name = next(new for new in numbered if new.lower() not in taken)
        taken.add(name.lower())
        names.append(name)
    return names


def named_broken(broken: Sequence[tuple[str, str]], photos: int) -> str:
    """The sentence for those of so many photos that could not be read, each with its file and why; "" where all could."""
    if not broken:
        return ""
    named = "; ".join(f"{file} ({problem})" for file, problem in broken[:10])
    more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
    return f"{len(broken)} of {photos} photos could not be read: {named}{more}."
