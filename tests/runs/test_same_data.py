"""A run belongs to the data that it was trained on: changed data has a run of its own, moved data keeps its run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import asking, colored_images, plan, quiet, tiny_network

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, data_fingerprint
from era_support_packages.runs import preparation, recording
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.preparation import PreparedRun, prepare
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import TrainingConfig

TINY = {"epochs": 1, "resolutions": [(8, 1.0)], "batch_size": 4, "max_lr": 0.1, "whitening": False, "device": "cpu"}


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train/ with four images each of a and b, test/ with two each, in data/letters of the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ERA_CACHE_DIR", raising=False)
    monkeypatch.delenv("ERA_DATA_ROOT", raising=False)
    folder = tmp_path / "data" / "letters"
    for split, count in (("train", 4), ("test", 2)):
        for label, value in (("a", 10), ("b", 200)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (32, 32), (value, number, 0)).save(folder / split / label / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a second in place of ResNet18."""
    monkeypatch.setattr(recording, "build_model", lambda config, classes, train: tiny_network(classes))


def prepared(*, said: list[str] | None = None, **values: Any) -> PreparedRun:
    report = quiet if said is None else said.append
    return prepare("smoke", report=report, **{"dataset": "letters", **TINY, **values})


def trained(**values: Any) -> Run:
    """A finished run."""
    start = prepared(**values)
    recording.train_prepared(start, quiet)
    return start.run


def flip_the_classes(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "a").rename(folder / split / "c")


def correct_a_label(folder: Path) -> None:
    (folder / "train" / "a" / "3.png").rename(folder / "train" / "b" / "4.png")


def replace_pixels(folder: Path) -> None:
    Image.new("RGB", (32, 32), (77, 77, 77)).save(folder / "train" / "b" / "2.png")


def more_images(folder: Path) -> None:
    for number in range(4, 40):
        Image.new("RGB", (32, 32), (10, number, 0)).save(folder / "train" / "a" / f"{number}.png")


def one_more_test_image(folder: Path) -> None:
    Image.new("RGB", (32, 32), (10, 50, 0)).save(folder / "test" / "a" / "2.png")


CHANGES = pytest.mark.parametrize(
    ("change", "words"),
    [
        (flip_the_classes, "the classes are b, c (before a, b)"),
        (correct_a_label, "3 training images of 'a' (before 4), 5 training images of 'b' (before 4)"),
        (replace_pixels, "other files or names among the 4 training images of 'b'"),
        (more_images, "40 training images of 'a' (before 4)"),
        (one_more_test_image, "3 test images of 'a' (before 2)"),
    ],
)


@CHANGES
def test_changed_data_has_a_run_of_its_own(change: Callable[[Path], None], words: str, letters: Path) -> None:
    before = trained()
    content = before.checkpoint_file.read_bytes()
    change(letters)
    said: list[str] = []
    now = prepared(said=said)
    assert now.run.folder != before.folder
    assert now.run.name == f"{before.name}-data-{data_fingerprint(now.train, now.test).digest[:6]}"
    assert said[0] == f"{before.folder} belongs to other data ({words}); this data has a run of its own, {now.run.folder}."
    assert not now.run.finished
    recording.train_prepared(now, quiet)
    assert prepared().run.folder == now.run.folder  # found again
    assert prepared(run_name=now.run.name).run.folder == now.run.folder
    assert before.checkpoint_file.read_bytes() == content


def test_the_data_of_before_finds_its_run_again(letters: Path) -> None:
    before = trained()
    flip_the_classes(letters)
    assert trained().folder != before.folder
    for split in ("train", "test"):
        (letters / split / "c").rename(letters / split / "a")
    assert prepared().run.folder == before.folder


def test_a_stopped_run_does_not_go_on_over_other_data(letters: Path) -> None:
    start = prepared(epochs=2)
    state = Checkpoint(
        start.config, 2, (), {}, None, None, None, {}, None, None, data_fingerprint(start.train, start.test).to_dict()
    )
    state.save(start.run.checkpoint_file)
    correct_a_label(letters)
    said: list[str] = []
    now = prepared(epochs=2, said=said)
    assert now.run.folder != start.run.folder
    assert not any(line.startswith("Going on") for line in said)
    with pytest.raises(RunError, match="was trained on other data than is loaded: 3 training images of 'a'"):
        recording.train_in_folder(tiny_network(2), PreparedRun(start.run, start.config, now.train, now.test), quiet)


def test_a_run_that_was_given_a_name_has_a_second_one(letters: Path) -> None:
    before = trained(run_name="mine")
    replace_pixels(letters)
    now = trained(run_name="mine")
    assert now.name.startswith("mine-data-")
    assert prepared(run_name="mine").run.folder == now.folder
    with pytest.raises(RunError, match="holds a run of another configuration: seed 0"):
        prepared(run_name=before.name, seed=1)


@CHANGES
def test_a_finished_run_is_not_shown_over_other_data(change: Callable[[Path], None], words: str, letters: Path) -> None:
    run = trained()
    assert prepared(finished_run=str(run.folder)).run == run
    change(letters)
    with pytest.raises(RunError) as caught:
        prepared(finished_run=str(run.folder))
    assert str(caught.value).startswith(f"{run.folder} was trained on other data than is loaded: {words}. Give the dataset or")


def test_the_same_data_keeps_its_run_wherever_it_lies(letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained()
    assert prepared(dataset="data/letters").run.folder == run.folder
    assert prepared(dataset=str(letters)).run.folder == run.folder
    assert prepared(data_root=str(letters.parent)).run.folder == run.folder
    moved = tmp_path / "elsewhere" / "alphabet"
    shutil.copytree(letters, moved)
    shutil.rmtree(letters)
    assert prepared(dataset=str(moved)).run.folder == run.folder
    assert prepared(dataset=str(moved), run_name=run.name).run.folder == run.folder
    assert prepared(dataset=str(moved), finished_run=str(run.folder)).run == run
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setenv("ERA_DATA_ROOT", str(moved.parent))
    assert prepared(dataset="alphabet", output_dir=str(tmp_path / "runs")).run.name == run.name
    assert prepared(dataset="alphabet", output_dir=str(tmp_path / "runs"), seed=1).run.name != run.name


def test_the_same_folder_name_under_another_root(letters: Path, tmp_path: Path) -> None:
    run = trained()
    other = tmp_path / "root" / "letters"
    shutil.copytree(letters, other)
    assert prepared(dataset="letters", data_root=str(other.parent)).run.folder == run.folder
    correct_a_label(other)
    shutil.rmtree(letters)
    assert prepared(dataset="letters", data_root=str(other.parent)).run.folder != run.folder


def test_digits_by_their_name_and_by_auto_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preparation.datasets, "load", lambda *_: small_digits())
    first = prepared(dataset="auto").run
    assert prepared(dataset="digits").run == first


def small_digits() -> tuple[ImageDataset, ImageDataset]:
    return colored_images(24), colored_images(10, split="test", seed=1)


def test_names_of_runs_are_as_they_were(letters: Path) -> None:
    config = TrainingConfig.preset("smoke", dataset="letters", **TINY)
    assert prepared().run.name == config.default_run_name("letters")


def test_a_run_from_before_is_shown_with_a_word(letters: Path) -> None:
    run = trained()
    (run.folder / "data.json").unlink()
    state = Checkpoint.load(run.checkpoint_file)
    said: list[str] = []
    assert prepared(said=said).run == run
    assert not said  # the checkpoint keeps it too
    object.__setattr__(state, "data", None)
    state.save(run.checkpoint_file)
    replace_pixels(letters)
    for values in ({}, {"finished_run": str(run.folder)}):
        said = []
        assert prepared(said=said, **values).run == run
        assert said == [
            f"{run.folder} was trained before runs kept a fingerprint of their data: whether it belongs to the data that is "
            "loaded cannot be told."
        ]
    assert not (run.folder / "data.json").exists()


def test_what_a_run_keeps(letters: Path) -> None:
    start = prepared()
    recording.train_prepared(start, quiet)
    data = data_fingerprint(start.train, start.test)
    kept = json.loads((start.run.folder / "data.json").read_text())
    assert DataFingerprint.from_dict(kept) == data
    assert Checkpoint.load(start.run.checkpoint_file).data == data.to_dict()
    assert start.run.summary()["data"] == data.digest


def test_a_run_made_by_hand_keeps_the_fingerprint_of_its_arrays(tmp_path: Path) -> None:
    train, test = small_digits()
    config = plan(output_dir=str(tmp_path))
    start = PreparedRun(Run.create(asking(output_dir=str(tmp_path)), "colors", config), config, train, test)
    recording.train_in_folder(tiny_network(), start, quiet)
    assert start.run.data() == data_fingerprint(train, test)
    changed = ImageDataset(**{**vars(test), "images": np.roll(test.images, 1, axis=0)})
    with pytest.raises(RunError, match="other files or names among the 4 test images of 'red'"):
        recording.train_in_folder(tiny_network(), PreparedRun(start.run, config, train, changed), quiet)
    with pytest.raises(CheckpointError, match="was trained on other data than is loaded: other files or names among"):
        start.run.load(tiny_network(), changed)


def test_damaged_images_are_skipped_on_request(letters: Path) -> None:
    run = trained()
    (letters / "train" / "a" / "9.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="skip_broken=True"):
        prepared()
    assert prepared(skip_broken=True).run.folder == run.folder  # the same images are left
