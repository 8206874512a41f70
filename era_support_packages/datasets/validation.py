"""The splits of one data set: training images held out for validation, by class and by seed, and which ones go together."""

from dataclasses import replace
from typing import Any

import numpy as np

from era_support_packages.datasets.image_dataset import ImageDataset, channel_statistics, fingerprint_of, stratified_split
from era_support_packages.datasets.streaming import taken
from era_support_packages.system.settings import is_number

MOST = 0.5  # of the training images


def hold_out(
    train: ImageDataset, test: ImageDataset, share: float, seed: int = 0
) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
    """A data set with a validation split: (train, validation, test), where `share` of the training images are held out.

    Their number is rounded up and shared out among the classes in proportion, at least one of each. The same seed draws the
    same images on every machine. All three splits carry the mean and standard deviation of the images that remain for training,
    so that it knows nothing of the others; pass all three on.

    Raises `ValueError` where not 0 < share <= 0.5, for a seed that is not in 0 ... 2**32 - 1, where a class has a single training
    image, which cannot be on both sides, and for a test split that has other classes, or images of another size.

    >>> from era_support_packages import datasets
    >>> train, test = datasets.load("digits")
    >>> train, validation, test = datasets.hold_out(train, test, 0.1)
    >>> len(train), len(validation), len(test)
    (1293, 144, 360)
    >>> train.mean == validation.mean == test.mean
    True
    """
    if not is_number(share, whole=False) or not 0 < share <= MOST:
        raise ValueError(f"The share of the validation split is {share!r}; give a number above 0 and up to {MOST}.")
    if not is_number(seed, whole=True) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; give a whole number from 0 to {2**32 - 1}.")
    require_same_kind(train, test, statistics=False)
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if alone := [name for name, count in zip(train.classes, counts, strict=True) if count == 1]:
        names = ", ".join(map(repr, alone[:4])) + f" and {len(alone) - 4} more" * (len(alone) > 4)
        raise ValueError(
            f"validation is {share}, but {names} {'has' if len(alone) == 1 else 'have'} one training image each, which cannot be "
            "both trained on and held out; add images, or set validation=0."
        )
    kept, held = stratified_split(train.labels, share, int(seed))
    mean, std = channel_statistics(taken(train.images, kept))
    statistics: dict[str, Any] = {"mean": mean, "std": std}
    rest = replace(train.take(kept), held_out=train.held_out + len(held), fingerprint=fingerprint_of(train), **statistics)
    return rest, replace(train.take(held), split="validation", **statistics), replace(test, **statistics)


def require_same_kind(train: ImageDataset, *others: ImageDataset, statistics: bool = True) -> None:
    """Raise `ValueError` where another split does not go with the training images, with what differs and what to do.

    It has the same classes in the same order, else its labels mean others. Its images were brought to the same size in the same
    way, and with `statistics` it carries the same mean and standard deviation, else a network would see them otherwise.
    """
    for other in others:
        split = "split given beside them" if other.split == train.split else f"{other.split} split"
        if tuple(other.classes) != tuple(train.classes):
            raise ValueError(
                f"The classes of the training images and of the {split} differ ({_classes_apart(train, other)}), so that its "
                "labels mean others: give both the same classes in the same order, as datasets.load does."
            )
        if problem := _made_otherwise(train, other):
            raise ValueError(
                f"The images of the {split} are not made as the training images are ({problem}): load both by the same "
                "datasets.load, with the same image_size and fit."
            )
        if statistics and (*other.mean, *other.std) != (*train.mean, *train.std):
            raise ValueError(
                f"The {split} carries other statistics than the training images ({other.statistics}, and there "
                f"{train.statistics}), and a network is used to one: take all splits from one datasets.load or "
                "datasets.hold_out, or give it those of training by dataclasses.replace(split, mean=train.mean, std=train.std)."
            )


def _classes_apart(train: ImageDataset, other: ImageDataset) -> str:
    """How the class names of a split differ from those of the training images, in words."""
    for names, where in ((set(train.classes) - set(other.classes), "training"), (set(other.classes) - set(train.classes), "it")):
        if names:
            few = ", ".join(map(repr, sorted(names)[:4])) + f" and {len(names) - 4} more" * (len(names) > 4)
            return f"only {where} has {few}"
    return "the same names in another order"


def _made_otherwise(train: ImageDataset, other: ImageDataset) -> str:
    """How the pixels of a split were made otherwise than those of training, in words; "" where they were not."""
    (rows, columns), (own_rows, own_columns) = train.images.shape[1:3], other.images.shape[1:3]
    if (rows, columns) != (own_rows, own_columns):
        return f"{own_columns}x{own_rows} px instead of {columns}x{rows}"
    if other.fit != train.fit:
        return f"fit={other.fit!r} instead of {train.fit!r}"
    if None not in (other.bits, train.bits) and other.bits != train.bits:
        return f"files of 16 bits scaled by {other.bits} bits instead of {train.bits}"
    return ""
