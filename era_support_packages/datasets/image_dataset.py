"""The value that all data sets are: the images of a split, in memory or as files, with labels, class names and statistics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from era_support_packages.datasets.errors import DatasetError as DatasetError
from era_support_packages.datasets.fingerprint import DataFingerprint, Fingerprint
from era_support_packages.datasets.fitting import IMAGE_SIZE, LARGEST, Fit
from era_support_packages.datasets.statistics import Channels as Channels
from era_support_packages.datasets.streaming import Pixels, StreamedImages, channel_statistics as channel_statistics, taken
from era_support_packages.system.naming import class_names_problem

SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One split of a data set of colour images.

    images: uint8 (N, H, W, 3), RGB: an array, or `streaming.StreamedImages`, which are decoded when they are asked for.
    labels: int64 (N,), indices into `classes`.  split: "train", "test" or "validation".
    name: short, for file names, e.g. "cifar10".  title: for figures, e.g. "CIFAR-10".
    mean, std: per channel, of the pixels of the *training* split, on the scale [0, 1]; both splits carry the same.
    fingerprint: of what the split was read from, None where it was made from arrays (see `fingerprint_of`).
    bits: by which image files of 16 bits were scaled, None where there were none; both splits carry the same.
    fit: how images of another size were brought to this one, as in `fitting.Fitting`; both splits carry the same.
    held_out: how many images `hold_out` took out of a training split; its fingerprint is still that of all that was read.
    Raises ValueError where shapes, dtypes or label values do not fit, or a class has no name of its own.

    >>> from era_support_packages import load
    >>> train, test = load("digits")
    >>> few = test.take([0, 1, 2])
    >>> len(few), few.labels
    (3, array([4, 5, 6]))
    """

    images: Pixels
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    title: str
    split: str
    mean: Channels
    std: Channels
    fingerprint: Fingerprint | None = None
    bits: int | None = None
    held_out: int = 0
    fit: Fit = "squash"

    def __post_init__(self) -> None:
        if problem := class_names_problem(self.classes):
            raise ValueError(problem)
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

    @property
    def streamed(self) -> bool:
        """Whether the images are decoded when they are asked for, and not held in memory."""
        return isinstance(self.images, StreamedImages)

    @property
    def image_size(self) -> int:
        """Px of the square that a photo is brought to, to be like these images: their own side, within 32 to 512."""
        return min(max(self.images.shape[1], IMAGE_SIZE), LARGEST)

    @property
    def statistics(self) -> str:
        """Mean and standard deviation of each channel, in words."""
        return f"mean {np.round(self.mean, 4)} standard deviation {np.round(self.std, 4)}"

    def evenly_spread(self, count: int) -> np.ndarray:
        """The numbers of `count` images, from the first to the last: int64 (count,)."""
        return np.linspace(0, len(self) - 1, count).astype(np.int64)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageDataset":
        """The images at `indices` (K,), or where a boolean mask (N,) is true, in that order; statistics stay."""
        chosen = np.asarray(indices)
        if not chosen.size:
            chosen = chosen.astype(np.int64)  # numpy takes an empty list for floats
        return replace(self, images=taken(self.images, chosen), labels=self.labels[chosen], fingerprint=None)


def fingerprint_of(split: ImageDataset) -> Fingerprint:
    """The fingerprint of what a split was read from, or of its arrays where that is unknown.

    >>> from era_support_packages.datasets import fingerprint_of, load
    >>> train, test = load("digits")
    >>> fingerprint_of(train) == fingerprint_of(load("digits")[0])
    True
    """
    return split.fingerprint or Fingerprint.of_arrays(split.classes, split.images, split.labels)


def summary(train: ImageDataset, test: ImageDataset) -> str:
    """How many images, those held out for validation among them, and which classes, the first ten of them: one sentence.

    >>> from era_support_packages import load
    >>> from era_support_packages.datasets import summary
    >>> summary(*load("digits"))
    '1,437 training and 360 test images, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9'
    """
    names = ", ".join(train.classes[:10])
    counts = f"{len(train):,} training" + (f", {train.held_out:,} validation" if train.held_out else "")
    return f"{counts} and {len(test):,} test images, {len(train.classes)} classes: {names}"


def data_fingerprint(train: ImageDataset, test: ImageDataset) -> DataFingerprint:
    """The fingerprint of a data set, whose name is that of its training split."""
    return DataFingerprint(train.name, fingerprint_of(train), fingerprint_of(test))


def stratified_split(labels: np.ndarray, test_fraction: float = 0.2, seed: int = SPLIT_SEED) -> tuple[np.ndarray, np.ndarray]:
    """Split indices of int64 labels (N,) into train and test, each sorted, with every class in proportion.

    The test part holds ceil(N * test_fraction) images, shared out among the classes by largest remainder, at least one
    a class. The choice is fixed: the same labels and the same seed are split in the same way on every machine.
    """
    counts = np.bincount(labels)
    quotas = counts * test_fraction
    sizes = np.maximum(np.floor(quotas), counts > 0).astype(np.int64)
    missing = int(np.ceil(quotas.sum())) - int(sizes.sum())
    sizes[np.argsort(sizes - quotas, kind="stable")[: max(missing, 0)]] += 1
    # RandomState and not default_rng: numpy promises that its stream never changes.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = [order[labels[order] == label][:size] for label, size in enumerate(sizes)]
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[np.concatenate(chosen)] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def make_splits(
    train: tuple[Pixels, np.ndarray],
    test: tuple[Pixels, np.ndarray],
    classes: Sequence[str],
    name: str,
    title: str,
    fingerprints: Sequence[Fingerprint] | None = None,
    bits: int | None = None,
    fit: Fit = "squash",
) -> tuple[ImageDataset, ImageDataset]:
    """(train, test) from (images, labels) of each, with the statistics of the training images.

    fingerprints: of what each was read from; None takes them from the arrays.
    """
    mean, std = channel_statistics(train[0])
    shared: dict[str, Any] = {"classes": tuple(classes), "name": name, "title": title, "mean": mean, "std": std}
    shared |= {"bits": bits, "fit": fit}
    own = fingerprints or [Fingerprint.of_arrays(classes, *part) for part in (train, test)]
    return (
        ImageDataset(*train, split="train", fingerprint=own[0], **shared),
        ImageDataset(*test, split="test", fingerprint=own[1], **shared),
    )
