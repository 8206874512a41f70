"""What a file keeps of a classifier beside the weights of its network, and how a file that lacks it is completed."""

from pathlib import Path
from typing import Any, Protocol

from era_support_packages.datasets.fitting import Fit
from era_support_packages.datasets.image_dataset import Channels, ImageDataset
from era_support_packages.system.tensor_file import write_tensors

FORMAT = 3  # of the files; count up when their contents change
WITHOUT_CLASSIFIER = 2  # the format of before, which kept neither class names nor statistics
WITHOUT_WEIGHTS = "they were removed from this run; its record is still there. Train a new one with resume=False."


class Described(Protocol):
    """What a description is made of: a split of a data set, or a `Classifier`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def mean(self) -> Channels:
        """Of the training pixels."""

    @property
    def std(self) -> Channels:
        """Of the training pixels."""

    @property
    def bits(self) -> int | None:
        """By which files of 16 bits were scaled."""

    @property
    def image_size(self) -> int:
        """Px of the square that a photo is brought to."""

    @property
    def fit(self) -> Fit:
        """How it is brought to it."""


def description(model: str | None, source: Described, resolution: int) -> dict[str, Any]:
    """`Classifier.description` of a network with the class names and statistics of a data set, at a resolution in px.

    A file of before sizes could be chosen has no image_size and no fit: 32 px and "squash".
    """
    return {
        "model": model,
        "classes": list(source.classes),
        "mean": list(source.mean),
        "std": list(source.std),
        "resolution": resolution,
        "bits": source.bits,
        "image_size": source.image_size,
        "fit": source.fit,
    }


def complete(file: Path, content: dict[str, Any], split: ImageDataset) -> dict[str, Any]:
    """Add to a file of format 2 what it lacks, from a split of its data set, and say so; returns the description."""
    described = description(content["config"]["model"], split, content["records"][-1]["resolution"])
    write_tensors(file, {**content, "format": FORMAT, "classifier": described})
    print(f"{file} of an earlier version was completed: class names and statistics come from the data set {split.name!r}.")
    return described
