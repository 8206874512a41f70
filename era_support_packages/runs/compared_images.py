"""Whether runs that name the same data set were trained and tested on the same images of it."""

from collections.abc import Sequence

from era_support_packages.datasets.fingerprint import DataFingerprint, Fingerprint

TRAINING, TEST = "training images", "test images"


def other_images(datasets: Sequence[str], kept: Sequence[DataFingerprint | None]) -> dict[str, tuple[str, ...]]:
    """The splits of which runs with the same `dataset` had other images: for each run how many, and how their digest begins.

    datasets: as each run names it. kept: the fingerprint of each, None where it is unknown, which says nothing of being another.
    """
    found = {}
    for name, part in ((TRAINING, "train"), (TEST, "test")):
        splits = [None if data is None else getattr(data, part) for data in kept]
        known = {(dataset, split.digest) for dataset, split in zip(datasets, splits, strict=True) if split is not None}
        if len(known) > len({dataset for dataset, _ in known}):
            found[name] = tuple(map(_text, splits))
    return found


def _text(split: Fingerprint | None) -> str:
    return "unknown" if split is None else f"{sum(count for count, _ in split.by_class.values()):,} ({split.digest[:8]})"
