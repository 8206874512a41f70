"""What a file keeps of a classifier beside the weights of its network, and how a file that lacks it is completed."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from era_support_packages.datasets.decoding import BITS
from era_support_packages.datasets.fitting import FITS, Fit
from era_support_packages.datasets.image_dataset import Channels, ImageDataset
from era_support_packages.datasets.normalization import STATISTICS, are_statistics
from era_support_packages.models.catalog import MODELS, build_network, is_network
from era_support_packages.system.naming import class_names_problem, nearest_names
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


def network_of(described: dict[str, Any], weights: dict[str, torch.Tensor]) -> nn.Module:
    """The network that a file describes, with its weights. Raises `ValueError` where no name makes it."""
    if described["model"] is None:
        raise ValueError(
            "No name makes its network, such as one that was changed after it was built; make that again in Python, "
            "and give it the weights that training.Checkpoint.load(path).model has."
        )
    network = build_network(described["model"], len(described["classes"]))
    network.load_state_dict(weights)
    return network


def value_problems(values: Any) -> list[str]:
    """A sentence for each value that no classifier has; `values` has the fields of one as attributes."""
    problems = []
    for name, what in (
        ("resolution", "the px that the network is used to"),
        ("image_size", "the px that images had in training"),
    ):
        px = getattr(values, name)
        if isinstance(px, bool) or not isinstance(px, int) or px < 1:
            problems.append(f"{name} is {px!r}; give {what}, 1 or more.")
    if values.fit not in FITS:
        problems.append(f"fit is {values.fit!r}: {nearest_names(values.fit, FITS)}")
    if values.bits is not None and values.bits not in BITS:
        problems.append(f"bits is {values.bits!r}; give one of {', '.join(map(str, BITS))}, or None.")
    if not are_statistics(values.mean, values.std):
        problems.append(f"mean is {values.mean} and std {values.std}; give three numbers each, {STATISTICS}.")
    if sentence := class_names_problem(values.classes):
        problems.append(sentence)
    if values.precision not in ("fp32", "bf16", "fp16"):
        problems.append(f"precision is {values.precision!r}; give 'fp32', 'bf16' or 'fp16'.")
    if values.model is not None and not is_network(values.model):
        problems.append(f"model is {values.model!r}, or None for a network made elsewhere: {nearest_names(values.model, MODELS)}")
    return problems


def other_data(content: dict[str, Any], test: ImageDataset) -> str:
    """What shows that a run of format 2 was trained on other data than this, as far as its file tells; "" where nothing does.

    test: the test split of the data set of that name. Names of other classes would be a wrong answer for good.
    """
    classes = len(test.classes)
    try:
        build_network(content["config"]["model"], classes).load_state_dict(content["model"])
    except RuntimeError:
        return f"it has {classes} classes, and the network has not"
    logits, last = content["logits"], content["records"][-1]
    if not isinstance(logits, torch.Tensor) or not content["config"].get("final_test", True):
        return ""
    if len(logits) != len(test):
        return f"it has {len(test):,} test images, and the run had {len(logits):,}"
    right = int((logits.argmax(dim=1).numpy() == test.labels).sum())
    if right != last.get("test_correct", right):
        return f"by its labels {right:,} predictions of the run are right, and {last['test_correct']:,} were"
    return ""


def complete(file: Path, content: dict[str, Any], split: ImageDataset) -> dict[str, Any]:
    """Add to a file of format 2 what it lacks, from a split of its data set, and say so; returns the description.

    Where the file cannot be written it stays as it is, and a line says so.
    """
    described = description(content["config"]["model"], split, content["records"][-1]["resolution"])
    source = f"class names and statistics come from the data set {split.name!r}"
    try:
        write_tensors(file, {**content, "format": FORMAT, "classifier": described})
    except OSError as error:
        reason = error.strerror or str(error)
        print(f"{file} of an earlier version cannot be completed ({reason}): {source}, which is needed each time.")
        return described
    print(f"{file} of an earlier version was completed: {source}.")
    return described
