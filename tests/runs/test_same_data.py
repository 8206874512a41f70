"""A run belongs to the data that it was trained on: changed data has a run of its own, moved data keeps its run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import asking, colored_images, plan, quiet, tiny_network

from era_support_packages.datasets import loading
from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, data_fingerprint
from era_support_packages.runs import recording
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.preparation import PreparedRun, prepare
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import TrainingConfig

TINY = {"epochs": 1, "resolutions": [(8, 1.0)], "batch_size": 4, "max_lr": 0.1, "whitening": False, "device": "cpu"}
DIGITS = colored_images(24), colored_images(10, split="test", seed=1)


@pytest.fixture
def letters(image_folder, tmp_path, monkeypatch) -> Path:
    """train/ with four images each of a and b, test/ with two each, in data/letters of the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ERA_CACHE_DIR", raising=False)
    monkeypatch.delenv("ERA_DATA_ROOT", raising=False)
    reds = {"train/a": range(4), "train/b": range(200, 204), "test/a": range(10, 12), "test/b": range(210, 212)}
    return image_folder(reds, "data/letters", "png")


@pytest.fixture(autouse=True)
def small_networks(monkeypatch) -> None:
    """A network of a second in place of ResNet18."""
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda run, _: tiny_network(len(run.train.classes)))


def prepared(*, said: list[str] | None = None, **values: Any) -> PreparedRun:
    report = quiet if said is None else lambda line: None if "little is learned" in line else said.append(line)
    return prepare("smoke", report=report, **{"dataset": "letters", **TINY, **values})


def trained(**values: Any) -> Run:
    """A finished run."""
    start = prepared(**values)
    recording.train_prepared(start, quiet)
    return start.run


def move(folder: Path, names: dict[str, str]) -> None:
    for before, after in names.items():
        (folder / before).rename(folder / after)


def paint(folder: Path, reds: dict[str, int]) -> None:
    for file, red in reds.items():
        Image.new("RGB", (32, 32), (red, 0, 0)).save(folder / file)


OTHER_LABEL = {"train/a/3.png": "train/b/3.png"}
OTHER_PIXELS = {"train/b/202.png": 77}


@pytest.mark.parametrize(
    ("moved", "painted", "words"),
    [
        ({"train/a": "train/c", "test/a": "test/c"}, {}, "the classes are b, c (before a, b)"),
        (OTHER_LABEL, {}, "3 training images of 'a' (before 4), 5 training images of 'b' (before 4)"),
        ({}, OTHER_PIXELS, "other files or names among the 4 training images of 'b'"),
        ({}, {f"train/a/{red}.png": red for red in range(4, 40)}, "40 training images of 'a' (before 4)"),
        ({}, {"test/a/50.png": 50}, "3 test images of 'a' (before 2)"),
    ],
)
def test_changed_data_has_a_run_of_its_own_and_that_of_before_is_not_shown_over_it(moved, painted, words, letters):
    before, said = trained(), []
    content = before.checkpoint_file.read_bytes()
    assert prepared(finished_run=str(before.folder)).run == before
    move(letters, moved)
    paint(letters, painted)
    with pytest.raises(RunError) as caught:
        prepared(finished_run=str(before.folder))
    other = f"{before.folder} was trained on other data than is loaded: {words}. Give the data_root of"
    assert str(caught.value).startswith(other)
    now = prepared(said=said)
    assert now.run.folder != before.folder
    assert now.run.name == f"{before.name}-data-{data_fingerprint(now.train, now.test).digest[:6]}"
    assert said[0] == f"{before.folder} belongs to other data ({words}); this data has a run of its own, {now.run.folder}."
    assert not now.run.finished
    recording.train_prepared(now, quiet)
    assert prepared().run == prepared(run_name=now.run.name).run == now.run  # found again
    assert before.checkpoint_file.read_bytes() == content
    if moved:
        move(letters, {after: before for before, after in moved.items()})
        assert prepared().run == before


def test_a_stopped_run_does_not_go_on_over_other_data(letters):
    start, said = prepared(epochs=2), []
    data = data_fingerprint(start.train, start.test).to_dict()
    Checkpoint(start.config, 2, (), {}, None, None, None, {}, None, None, data).save(start.run.checkpoint_file)
    move(letters, OTHER_LABEL)
    now = prepared(epochs=2, said=said)
    assert now.run.folder != start.run.folder
    assert not any(line.startswith("Going on") for line in said)
    with pytest.raises(RunError, match="was trained on other data than is loaded: 3 training images of 'a'"):
        recording.train_in_folder(tiny_network(2), PreparedRun(start.run, start.config, now.train, now.test), quiet)


def test_a_run_that_was_given_a_name_has_a_second_one(letters):
    before = trained(run_name="mine")
    paint(letters, OTHER_PIXELS)
    now = trained(run_name="mine")
    assert now.name.startswith("mine-data-")
    assert prepared(run_name="mine").run == now
    with pytest.raises(RunError, match="holds a run of another configuration: seed 0"):
        prepared(run_name=before.name, seed=1)


def test_the_same_data_keeps_its_run_wherever_it_lies(letters, tmp_path, monkeypatch):
    run = trained()
    for values in ({"dataset": "data/letters"}, {"dataset": str(letters)}, {"data_root": str(letters.parent)}):
        assert prepared(**values).run == run
    moved = tmp_path / "elsewhere" / "alphabet"
    shutil.copytree(letters, moved)
    said = []
    assert prepared(dataset=str(moved), finished_run=str(run.folder), said=said).run == run
    assert f"these values are not used: dataset {str(moved)!r} (the run has " in said[0]
    assert prepared(dataset=f"{letters}/", finished_run=str(run.folder), said=said).run == run
    assert len(said) == 1  # that is where it lies
    shutil.rmtree(letters)
    for values in ({}, {"run_name": run.name}, {"finished_run": str(run.folder)}):
        assert prepared(dataset=str(moved), **values).run == run
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setenv("ERA_DATA_ROOT", str(moved.parent))
    values = {"dataset": "alphabet", "output_dir": str(tmp_path / "runs")}
    assert prepared(**values).run.name == run.name
    assert prepared(**values, seed=1).run.name != run.name


def test_the_data_of_a_finished_run_that_moved_is_found_below_data_root_by_its_fingerprint(letters, tmp_path):
    run, moved = trained(dataset=str(letters)), tmp_path / "elsewhere" / "alphabet"
    shutil.copytree(letters, moved)
    shutil.copytree(letters, tmp_path / "kept" / "letters")
    shutil.rmtree(letters)
    for root in (moved, tmp_path / "kept"):  # the folder itself under another name, and one that holds it under its own
        said = []
        assert prepared(dataset="auto", finished_run=str(run.folder), data_root=str(root), said=said).run == run
        assert said == []
    for root in (None, str(tmp_path / "elsewhere")):
        with pytest.raises(RunError, match="give the folder that it is now, or that is in, as data_root"):
            prepared(dataset="auto", finished_run=str(run.folder), data_root=root)
    move(moved, OTHER_LABEL)
    with pytest.raises(RunError, match="was trained on other data than is loaded"):
        prepared(dataset="auto", finished_run=str(run.folder), data_root=str(moved))
    (run.folder / "data.json").unlink()
    state = Checkpoint.load(run.checkpoint_file)
    object.__setattr__(state, "data", None)
    state.save(run.checkpoint_file)
    with pytest.raises(RunError, match="is not at"):  # nothing tells whether that is its data
        prepared(dataset="auto", finished_run=str(run.folder), data_root=str(moved))


def test_the_same_folder_name_under_another_root(letters, tmp_path):
    run, other = trained(), tmp_path / "root" / "letters"
    shutil.copytree(letters, other)
    assert prepared(data_root=str(other.parent)).run == run
    move(other, OTHER_LABEL)
    shutil.rmtree(letters)
    assert prepared(data_root=str(other.parent)).run != run


def test_digits_by_their_name_and_by_auto_are_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", lambda *_: DIGITS)
    assert prepared(dataset="auto").run == prepared(dataset="digits").run


def test_a_run_from_before_is_shown_with_a_word(letters):
    run, said = trained(), []
    (run.folder / "data.json").unlink()
    state = Checkpoint.load(run.checkpoint_file)
    assert prepared(said=said).run == run
    assert said == []  # the checkpoint keeps it too
    object.__setattr__(state, "data", None)
    state.save(run.checkpoint_file)
    paint(letters, OTHER_PIXELS)
    for values in ({}, {"finished_run": str(run.folder)}):
        said.clear()
        assert prepared(said=said, **values).run == run
        assert said == [
            f"{run.folder} was trained before runs kept a fingerprint of their data: whether it belongs to the data that is "
            "loaded cannot be told."
        ]
    assert not (run.folder / "data.json").exists()


def test_what_a_run_keeps(letters):
    start = prepared()
    assert start.run.name == TrainingConfig.preset("smoke", dataset="letters", **TINY).default_run_name("letters")
    recording.train_prepared(start, quiet)
    data = data_fingerprint(start.train, start.test)
    assert DataFingerprint.from_dict(json.loads((start.run.folder / "data.json").read_text())) == data
    assert Checkpoint.load(start.run.checkpoint_file).data == data.to_dict()
    assert start.run.summary()["data"] == data.digest


def test_a_run_made_by_hand_keeps_the_fingerprint_of_its_arrays(tmp_path):
    train, test = DIGITS
    config = plan(output_dir=str(tmp_path))
    run = Run.create(asking(output_dir=str(tmp_path)), "colors", config)
    recording.train_in_folder(tiny_network(), PreparedRun(run, config, train, test), quiet)
    assert run.data() == data_fingerprint(train, test)
    changed = ImageDataset(**{**vars(test), "images": np.roll(test.images, 1, axis=0)})
    with pytest.raises(RunError, match="other files or names among the 4 test images of 'red'"):
        recording.train_in_folder(tiny_network(), PreparedRun(run, config, train, changed), quiet)
    with pytest.raises(CheckpointError, match="was trained on other data than is loaded: other files or names among"):
        run.load(tiny_network(), changed)


def test_damaged_images_are_skipped_on_request(letters):
    run = trained()
    (letters / "train" / "a" / "9.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="skip_broken=True"):
        prepared()
    assert prepared(skip_broken=True).run == run  # the same images are left
