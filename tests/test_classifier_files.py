"""Files that a classifier is not taken from, or not written into: of an earlier version beside other data, of a run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from era_support_packages import Classifier, ResNet18, load
from era_support_packages.classifier import WITHOUT_CLASSIFIER, ClassifierError
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.system.tensor_file import write_tensors

HERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def split() -> ImageDataset:
    return load("digits")[1]


@pytest.fixture
def checkpoint(split: ImageDataset, tmp_path: Path) -> Path:
    """Of a run that an earlier version finished with all images right."""
    right = torch.nn.functional.one_hot(torch.from_numpy(split.labels), 10).float()
    record = {"resolution": 16, "test_correct": len(split)}
    config = {"model": "ResNet18", "dataset": "digits"}
    content = {"format": WITHOUT_CLASSIFIER, "config": config, "records": [record], "logits": right}
    write_tensors(tmp_path / "checkpoint.pt", {**content, "model": ResNet18().state_dict()})
    return tmp_path / "checkpoint.pt"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (lambda test: dataclasses.replace(test, classes=(*test.classes, "ten")), "it has 11 classes, and the network has not"),
        (lambda test: test.take(range(9)), "it has 9 test images, and the run had 360"),
        (
            lambda test: dataclasses.replace(test, labels=(test.labels + 1) % 10),
            "by its labels 0 predictions of the run are right",
        ),
    ],
)
def test_names_of_other_data_are_not_written_into_a_file_of_before(
    checkpoint: Path,
    split: ImageDataset,
    other: Callable[[ImageDataset], ImageDataset],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would stand in it for good, and each photo would be called by a wrong name."""
    before = checkpoint.read_bytes()
    monkeypatch.setattr("era_support_packages.classifier.load_dataset", lambda name: (other(split), other(split)))
    with pytest.raises(ClassifierError, match=f"is not what the run was trained on .{why}"):
        Classifier.load(checkpoint, **HERE)
    assert checkpoint.read_bytes() == before


def test_where_such_a_file_cannot_be_written_it_is_read_all_the_same(
    checkpoint: Path, split: ImageDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    before = checkpoint.read_bytes()
    monkeypatch.setattr("era_support_packages.models.classifier_file.write_tensors", refuse)
    assert Classifier.load(checkpoint, **HERE).classes == split.classes
    assert "cannot be completed (Permission denied)" in capsys.readouterr().out
    assert checkpoint.read_bytes() == before


def test_the_checkpoint_of_a_run_is_not_written_over(checkpoint: Path, split: ImageDataset) -> None:
    classifier = Classifier(ResNet18(), split.classes, split.mean, split.std, 16, model="ResNet18")
    checkpoint.with_name("config.json").write_text("{}")
    before = checkpoint.read_bytes()
    with pytest.raises(ClassifierError, match="is the checkpoint of a run, which holds more than a classifier"):
        classifier.save(checkpoint)
    assert checkpoint.read_bytes() == before
