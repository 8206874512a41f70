"""A data set in memory: all images of a split as one uint8 array, with labels, class names and channel statistics.

    train, test = load("cifar10")        also "cifar100", "digits", "auto", or a path to a folder of images

CIFAR-10 and CIFAR-100: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". Handwritten digits:
the test part of Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), as in scikit-learn.
"""

import difflib
import hashlib
import http.client
import os
import pickle
import socket
import textwrap
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("auto", "cifar10", "cifar100", "digits")
IMAGE_SIZE = 32
SPLIT_SEED = 0
PROBE_SECONDS = 10.0

Channels = tuple[float, float, float]


class DatasetError(RuntimeError):
    """The data is there but cannot be used, e.g. a corrupt file; the message names the file and the remedy."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One split of a data set of colour images, in memory.

    images: uint8 (N, H, W, 3), RGB.  labels: int64 (N,), indices into `classes`.  split: "train" or "test".
    name: short, for file names, e.g. "cifar10".  title: for figures, e.g. "CIFAR-10".
    mean, std: per channel, of the pixels of the *training* split, on the scale [0, 1]; both splits carry the same.
    Raises ValueError where shapes, dtypes or label values do not fit.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    title: str
    split: str
    mean: Channels
    std: Channels

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(f"images are {self.images.dtype} {self.images.shape}; they must be uint8 (N, H, W, 3).")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are {self.labels.dtype} {self.labels.shape}; they must be int64 ({len(self.images)},), one an image."
            )
        if len(self.labels) and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(
                f"labels reach from {self.labels.min()} to {self.labels.max()}; "
                f"with {len(self.classes)} classes they must lie in 0 ... {len(self.classes) - 1}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """The images at `indices` (K,), or where a boolean mask (N,) is true, in that order; statistics stay."""
        chosen = np.asarray(indices)
        if not chosen.size:
            chosen = chosen.astype(np.int64)  # numpy takes an empty list for floats
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


def load(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> tuple[ImageDataset, ImageDataset]:
    """Load a data set: (train, test).

    name_or_path: "cifar10" or "cifar100", read from `root` or downloaded into it; "digits", which scikit-learn brings
        along; "auto", CIFAR-10 if it is there or can be downloaded, else the digits, announced loudly; or a folder of
        images (see `image_folder.load_image_folder`), as a path or as the name of a folder in `root`.
        A string that is one of the names means the name: write "./digits" for a folder called so.
    root: where data lies; None is `default_root()`.

    Raises ValueError (unknown name), FileNotFoundError (no data, and no way to download it), DatasetError (a corrupt
    file); for a folder of images also what `load_image_folder` raises.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(f"Unknown data set {name_or_path!r}: {_allowed()}.")
    root = default_root() if root is None else Path(root).expanduser()
    if name_or_path == "auto":
        return _load_auto(root)
    if name_or_path == "digits":
        return load_digits()
    if isinstance(name_or_path, str) and name_or_path in NAMES:
        return load_cifar(name_or_path, root)

    from era_support_packages.image_folder import load_image_folder  # here, because it builds on this module

    given = os.fspath(name_or_path)
    for folder in (Path(given).expanduser(), root / given):
        if given and folder.is_dir():
            return load_image_folder(folder)
    raise ValueError(_unknown(given, root))


def default_root() -> Path:
    """The folder that the environment variable ERA_DATA_ROOT names, else `data` in the current folder."""
    return Path(os.environ.get("ERA_DATA_ROOT") or "data").expanduser()


def channel_statistics(images: np.ndarray) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel over all pixels of uint8 (N, H, W, 3), on the scale [0, 1].

    Exact: computed in float64 from histograms of the 256 values. A channel that is constant gets standard deviation 1,
    so that normalising by it is harmless.
    """
    if not images.size:
        raise ValueError(f"images are empty, of shape {images.shape}: statistics need at least one image.")
    import cv2

    pixels = images.reshape(-1, 1, 3)
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(pixels), 2**22):  # OpenCV counts in float32, which is exact up to 2^24
        block = pixels[start : start + 2**22]
        for channel in range(3):
            counts[channel] += cv2.calcHist([block], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    std = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / counts.sum(axis=1))
    std[(counts > 0).sum(axis=1) == 1] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())


def stratified_split(labels: np.ndarray, test_fraction: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Split indices of int64 labels (N,) into train and test, each sorted, with every class in proportion.

    The test part holds ceil(N * test_fraction) images, shared out among the classes by largest remainder, at least one
    a class. The choice is fixed: the same labels are split in the same way on every machine.
    """
    counts = np.bincount(labels)
    quotas = counts * test_fraction
    sizes = np.maximum(np.floor(quotas), counts > 0).astype(np.int64)
    missing = int(np.ceil(quotas.sum())) - int(sizes.sum())
    sizes[np.argsort(sizes - quotas, kind="stable")[: max(missing, 0)]] += 1
    # RandomState and not default_rng: numpy promises that its stream never changes.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(labels))
    chosen = [order[labels[order] == label][:size] for label, size in enumerate(sizes)]
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[np.concatenate(chosen)] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def make_splits(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: Sequence[str],
    name: str,
    title: str,
) -> tuple[ImageDataset, ImageDataset]:
    """(train, test) from (images, labels) of each, with the statistics of the training images."""
    mean, std = channel_statistics(train[0])
    shared: dict[str, Any] = {"classes": tuple(classes), "name": name, "title": title, "mean": mean, "std": std}
    return ImageDataset(*train, split="train", **shared), ImageDataset(*test, split="test", **shared)


def load_digits() -> tuple[ImageDataset, ImageDataset]:
    """The 1,797 handwritten digits of scikit-learn: 1,437 to train, 360 to test. Needs no network.

    Their 8x8 values 0 ... 16 become 0 ... 255, enlarged to 32x32 (bicubic, clipped) and repeated in three channels.
    """
    import cv2
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    small = (digits.images * (255 / 16)).astype(np.float32)
    large = [cv2.resize(image, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC) for image in small]
    grey = np.clip(np.rint(large), 0, 255).astype(np.uint8)
    images, labels = np.repeat(grey[..., None], 3, axis=-1), digits.target.astype(np.int64)
    train, test = stratified_split(labels)
    title = "handwritten digits (embedded default, not CIFAR-10)"
    classes = [str(digit) for digit in range(10)]
    return make_splits((images[train], labels[train]), (images[test], labels[test]), classes, "digits", title)


def load_cifar(name: str, root: Path) -> tuple[ImageDataset, ImageDataset]:
    """CIFAR-10 or CIFAR-100 in the official python version, from `root`; downloaded into it where it is missing.

    Every file is compared with the md5 that torchvision knows before it is read.
    Raises FileNotFoundError (no data, and no way to download it), DatasetError (a corrupt file).
    """
    from torchvision import datasets as torchvision_datasets  # here, because it is slow to import

    source, title = {
        "cifar10": (torchvision_datasets.CIFAR10, "CIFAR-10"),
        "cifar100": (torchvision_datasets.CIFAR100, "CIFAR-100"),
    }[name]
    folder = root / source.base_folder
    files = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    if missing := [file for file, _ in files if not (folder / file).is_file()]:
        _fetch(source, title, root, missing)
    train = _read_batches(folder, source.train_list)
    test = _read_batches(folder, source.test_list)
    classes = _read_pickle(folder / source.meta["filename"], source.meta["md5"])[source.meta["key"]]
    return make_splits(train, test, classes, name, title)


def _load_auto(root: Path) -> tuple[ImageDataset, ImageDataset]:
    try:
        return load_cifar("cifar10", root)
    except FileNotFoundError as error:
        notice = (
            "NOT CIFAR-10: THIS RUN USES HANDWRITTEN DIGITS",
            *textwrap.wrap(str(error), 96),
            "Accuracies on the digits say nothing about CIFAR-10.",
        )
        print("=" * 100, *(f"  {line}" for line in notice), "=" * 100, sep="\n", flush=True)
    return load_digits()


def _allowed() -> str:
    return f"give one of {', '.join(NAMES)}, or a path to a folder of images"


def _unknown(given: str, root: Path) -> str:
    """The sentence for a name that is none and a path that leads to no folder, with what was perhaps meant."""
    path = Path(given).expanduser()
    if path.is_file():
        return f"{given!r} is a file, not a data set: {_allowed()}."
    beside = [str(path.parent / folder) for folder in _folders(path.parent)] if path.parent != Path() else []
    candidates = {name.lower(): name for name in (*beside, *_folders(root), *NAMES)}
    near = difflib.get_close_matches(given.lower(), candidates, n=3)
    hint = f" (did you mean {' or '.join(repr(candidates[name]) for name in near)}?)" if near else ""
    return f"Unknown data set {given!r}{hint}: {_allowed()}."


def _folders(parent: Path) -> list[str]:
    if not parent.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(parent) if entry.is_dir() and not entry.name.startswith("."))


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numbers, strings, containers and numpy arrays, and refuses everything else."""

    ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise DatasetError(f"A batch file asks to load {module}.{name}, which no CIFAR file holds: delete it and run again.")
        return super().find_class(module, name)


def _read_pickle(file: Path, md5: str) -> dict[str, Any]:
    with open(file, "rb") as stream:
        found = hashlib.md5(stream.read(), usedforsecurity=False).hexdigest()
        if found != md5:
            raise DatasetError(f"{file} is corrupt (md5 {found}, expected {md5}): delete it and run again.")
        stream.seek(0)
        return _ArrayUnpickler(stream, encoding="latin1").load()


def _read_batches(folder: Path, files: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    batches = [_read_pickle(folder / file, md5) for file, md5 in files]
    planes = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    labels = [batch["labels"] if "labels" in batch else batch["fine_labels"] for batch in batches]
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(labels).astype(np.int64)


def _fetch(source: Any, title: str, root: Path, missing: Sequence[str]) -> None:
    """Unpack the archive in `root`, after downloading it if it is not there or not whole."""
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    archive = root / source.filename
    problem = None if check_integrity(archive, source.tgz_md5) else _probe(source.url)
    if problem is None:
        try:
            with _socket_timeout(60):  # the server may still fall silent in the middle
                return download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            problem = f"fetching {source.filename} failed ({error})"
    has_folder = (root / source.base_folder).is_dir()
    found = (
        f"{source.base_folder}/ lacks {missing[0]}" if has_folder else f"there is no {source.base_folder}/",
        f"{source.filename} is incomplete or corrupt" if archive.exists() else f"there is no {source.filename}",
    )
    raise FileNotFoundError(
        f"{title} is not in {root.resolve()} ({' and '.join(found)}), and {problem}. "
        f"Put {source.filename} from {source.url} into that folder, name the folder it lies in by ERA_DATA_ROOT, "
        f'or choose dataset="digits", which works without a download.'
    )


def _probe(url: str) -> str | None:
    """None if the server (through the proxy, if one is set) answers within PROBE_SECONDS, else what went wrong."""
    host = urllib.parse.urlsplit(url).hostname
    outcome: list[str | None] = [f"{host} did not answer within {PROBE_SECONDS:g} s"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS).close()
            outcome[0] = None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if not isinstance(reason, TimeoutError):
                outcome[0] = f"{host} cannot be reached ({reason})"

    # In a thread, because the time limit of urlopen does not cover looking up the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0]


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
