"""Loading a data set by name or path.

train, test = load("cifar10")        also "cifar100", "digits", "auto", or a path to a folder of images
"""

import os
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from era_support_packages.datasets.archives import default_root
from era_support_packages.datasets.cifar import load_cifar
from era_support_packages.datasets.digits import load_digits
from era_support_packages.datasets.fitting import IMAGE_SIZE, LARGEST, Fit, Fitting, fitted
from era_support_packages.datasets.folder_listing import check_folder
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, channel_statistics
from era_support_packages.datasets.image_folder import load_image_folder
from era_support_packages.datasets.sizing import Stream, auto_image_size, check_memory
from era_support_packages.system.naming import nearest
from era_support_packages.system.paths import expanded, unusable

NAMES = ("auto", "cifar10", "cifar100", "digits")
__all__ = ["NAMES", "DatasetError", "ImageDataset", "check", "default_root", "load", "load_digits"]


def load(
    name_or_path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    skip_broken: bool = False,
    image_size: int | Literal["auto"] = IMAGE_SIZE,
    fit: Fit = "squash",
    stream: Stream = "auto",
) -> tuple[ImageDataset, ImageDataset]:
    """Load a data set: (train, test).

    name_or_path: "cifar10" or "cifar100", read from `root` or downloaded into it; "digits", which scikit-learn brings
        along; "auto", CIFAR-10 if it is there or can be downloaded, else the digits, announced loudly; or a folder of
        images (see `image_folder.load_image_folder`), as a path or as the name of a folder in `root`.
        A string that is one of the names means the name: write "./digits" for a folder called so.
    root: where data lies; None is `default_root()`. skip_broken: of a folder, leave out damaged images, and say how many.
    image_size: px of the square that each image is brought to, 32 to 512; "auto" is 32 for the named data sets, and for a folder
        what its median image and this machine allow, said in a line. fit: "crop" or "pad", which keep the aspect ratio, or
        "squash" (see `fitting.Fitting`).
    stream: of a folder, decode each image when it is used instead of holding all in memory; "auto" does where they would take
        more than a third of the free memory.

    Raises ValueError (unknown name, a size or fit that is none), FileNotFoundError (no data, and no way to download it),
    DatasetError (a corrupt file, images that do not fit into memory and are not to be streamed); for a folder also what
    `load_image_folder` raises.

    >>> from era_support_packages import load
    >>> train, test = load("digits")
    >>> train.images.shape, train.images.dtype
    ((1437, 32, 32, 3), dtype('uint8'))
    >>> test.classes[:3]
    ('0', '1', '2')
    """
    root = _root(root)
    folder = _image_folder(name_or_path, root)
    if stream not in (True, False, "auto"):
        raise ValueError(f"stream is {stream!r}; give True, False or 'auto'.")
    if stream is True and folder is None:
        raise ValueError(f"stream is True, but {name_or_path!r} is no folder of images and lies in memory: leave stream out.")
    if image_size == "auto":
        image_size = IMAGE_SIZE if folder is None else _announced_size(folder, stream)
    fitting = Fitting(image_size, fit)
    if not IMAGE_SIZE <= image_size <= LARGEST:
        raise ValueError(f"image_size is {image_size}; give a whole number of px from {IMAGE_SIZE} to {LARGEST}, or 'auto'.")
    if folder is not None:
        return load_image_folder(folder, skip_broken=skip_broken, image_size=image_size, fit=fit, stream=stream)
    if name_or_path == "auto":
        train, test = _load_auto(root)
    else:
        train, test = load_digits() if name_or_path == "digits" else load_cifar(os.fspath(name_or_path), root)
    return resized(train, test, fitting)


def resized(train: ImageDataset, test: ImageDataset, fitting: Fitting) -> tuple[ImageDataset, ImageDataset]:
    """Two splits with their images brought to another size, and the statistics of these; as they are where they have it."""
    if train.images.shape[1:3] != (fitting.size, fitting.size):
        check_memory(train.name, len(train) + len(test), fitting.size)
        images = [np.stack([fitted(image, fitting) for image in np.asarray(part.images)]) for part in (train, test)]
        train, test = replace(train, images=images[0]), replace(test, images=images[1])
        mean, std = channel_statistics(train.images)
        train, test = replace(train, mean=mean, std=std), replace(test, mean=mean, std=std)
    return replace(train, fit=fitting.fit), replace(test, fit=fitting.fit)


def folder_of(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder of images that is meant, None for one of the names. Raises `ValueError` for what is neither."""
    return _image_folder(name_or_path, _root(root))


def _announced_size(folder: Path, stream: Stream) -> int:
    from era_support_packages.system.machine import resolve_device

    size, sentence = auto_image_size(folder, resolve_device("auto").type, stream)
    print(sentence)
    return size


def check(name_or_path: str | os.PathLike[str], root: str | None = None) -> None:
    """Refuse what cannot be loaded, before anything is read or downloaded.

    Raises `ValueError` for an unknown name, for a path or a root where no folder is, and for a folder of one class, and
    `FileNotFoundError` for one without class folders.
    """
    if root is not None and not os.path.isdir(expanded(root)):
        raise ValueError(f"data_root is {root!r}, but there is no such folder: make it, or give one that is there.")
    if (folder := _image_folder(name_or_path, _root(root))) is not None:
        check_folder(folder.resolve())


def _root(root: str | os.PathLike[str] | None) -> Path:
    """Where data lies or will lie. Raises `ValueError` for a path at which nothing can be."""
    folder = default_root() if root is None else expanded(root)
    if reason := unusable(folder):
        raise ValueError(f"Data cannot lie in {str(folder)!r} ({reason}): name another folder as root or in ERA_DATA_ROOT.")
    return folder


def _image_folder(name_or_path: str | os.PathLike[str], root: Path) -> Path | None:
    """The folder of images that is meant, None for one of the names. Raises `ValueError` for what is neither."""
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ValueError(f"Unknown data set {name_or_path!r}: {_allowed()}.")
    if isinstance(name_or_path, str) and name_or_path in NAMES:
        return None
    given = os.fspath(name_or_path)
    for folder in (expanded(given), root / given):
        if given and os.path.isdir(folder):
            return folder
    raise ValueError(_unknown(given, root))


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
    path = expanded(given)
    if os.path.isfile(path):
        return f"{given!r} is a file, not a data set: {_allowed()}."
    beside = [str(path.parent / folder) for folder in _folders(path.parent)] if path.parent != Path() else []
    near = nearest(given, (*beside, *_folders(root), *NAMES), cutoff=0.6)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    if path.is_absolute() or not given:
        return f"Unknown data set {given!r}{hint}: {_allowed()}."
    return f"Unknown data set {given!r}{hint}: {_allowed()}. No such folder is in {Path.cwd()} or in {Path.cwd() / root}."


def _folders(parent: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(parent) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:  # no folder, or one that may not be read
        return []
