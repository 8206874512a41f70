"""The validation split: training images held out by class and by seed, so that values are not chosen by the test images."""

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

    Raises `ValueError` where not 0 < share <= 0.5, for a seed that is not in 0 ... 2**32 - 1, and where a class has a single
    training image, which cannot be on both sides.

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
