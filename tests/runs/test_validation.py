"""A recorded run with a validation split: its files, going on, showing it again, and every way to ask for one."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tiny import colored_images, quiet, tiny_network

from era_support_packages.commands import command_line as command
from era_support_packages.datasets import loading
from era_support_packages.notebook.parameters import ParameterError, Parameters, parse
from era_support_packages.runs import PreparedRun, Run, RunError, RunStopped, prepare, recording, train_in_folder, train_or_stop
from era_support_packages.training import Checkpoint, EpochRecord

VALUES = {"epochs": 3, "resolutions": [[8, 1.0]], "batch_size": 8, "max_lr": 0.2, "test_images": 4, "crop_padding": 0}
MACHINE = {"device": "cpu", "precision": "fp32"}
HEAD = "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds,px,correct,total"


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """24 and 10 small images in place of every data set; the names that were asked for."""
    asked: list[str] = []

    def load(name: str, root: str | None = None) -> tuple[Any, Any]:
        asked.append(name)
        return colored_images(24), colored_images(10, split="test", seed=1)

    monkeypatch.setattr(loading, "load", load)
    return asked


def prepared(root: Path, **changes: Any) -> PreparedRun:
    return prepare("smoke", report=quiet, output_dir=str(root), **{**VALUES, **MACHINE, "validation": 0.25, **changes})


def rows(run: Run) -> list[dict[str, str]]:
    with open(run.folder / "metrics.csv") as file:
        return list(csv.DictReader(file))


def untimed(records: tuple[EpochRecord, ...]) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def stop_after(epoch: int) -> Any:
    def report(line: str) -> None:
        if line.split()[0] == str(epoch):
            raise KeyboardInterrupt

    return report


def test_the_files_of_a_run_with_validation(tmp_path: Path) -> None:
    start = prepared(tmp_path)
    assert start.images == {"train": 18, "validation": 6, "test": 10}
    _, history = train_in_folder(tiny_network(), start, quiet)
    table, last = rows(start.run), history.records[-1]
    assert list(table[0]) == [*HEAD.split(","), "validation_loss", "validation_accuracy"]
    assert [(row["test_loss"], row["test_accuracy"]) for row in table[:2]] == [("", "")] * 2
    assert float(table[2]["test_accuracy"]) == last.test_accuracy == history.predictions.accuracy
    assert [float(row["validation_loss"]) for row in table] == [record.validation_loss for record in history.records]
    summary = start.run.summary()
    assert (summary["validation"], summary["images"]) == (0.25, start.images)
    assert (summary["test_accuracy"], summary["validation_accuracy"]) == (last.test_accuracy, last.validation_accuracy)
    plain = prepared(tmp_path, validation=None)
    assert (plain.validation, plain.images, len(plain.train)) == (None, None, 24)
    train_in_folder(tiny_network(), plain, quiet)
    assert (plain.run.folder / "metrics.csv").read_text().splitlines()[0] == HEAD
    assert not {"validation", "images", "validation_accuracy"} & plain.run.summary().keys()
    assert plain.run.data() == start.run.data()  # the same data, whatever is held out of it


def test_a_stopped_run_goes_on_bit_by_bit_and_is_shown_again(tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole")
    _, reference = train_in_folder(tiny_network(), whole, quiet)
    start = prepared(tmp_path / "stopped")
    with pytest.raises(RunStopped):
        train_in_folder(tiny_network(), start, stop_after(2))
    assert [(row["test_accuracy"], row["validation_accuracy"] != "") for row in rows(start.run)] == [("", True)] * 2
    summary = start.run.summary()
    assert (summary["complete"], summary["test_accuracy"], summary["validation_accuracy"]) == (False, None, None)
    again = prepared(tmp_path / "stopped")
    assert again.run == start.run
    _, history = train_in_folder(tiny_network(seed=9), again, quiet)
    assert untimed(history.records) == untimed(reference.records)
    assert history.predictions.logits.tolist() == reference.predictions.logits.tolist()
    weights, expected = (Checkpoint.load(run.checkpoint_file).model for run in (again.run, whole.run))
    assert all(weights[name].equal(value) for name, value in expected.items())

    lines: list[str] = []
    shown = prepare(finished_run=str(again.run.folder), report=quiet)
    assert shown.images == {"train": 18, "validation": 6, "test": 10}
    classifier, found = train_in_folder(tiny_network(seed=7), shown, lines.append)
    assert found.records == history.records
    assert found.predictions.logits.tolist() == history.predictions.logits.tolist()
    assert classifier.mean == start.train.mean
    assert "Test split, looked at once" in lines[-1]


def test_the_notebook_shows_a_stopped_run_on_its_validation_images(tmp_path: Path) -> None:
    start = prepared(tmp_path)
    _, history = train_or_stop(tiny_network(), start, stop_after(1))
    split = start.judged(history)
    assert split is start.validation
    assert len(history.predictions) == len(split) == 6
    assert history.predictions.labels.tolist() == split.labels.tolist()
    _, history = train_or_stop(tiny_network(), prepared(tmp_path), quiet)
    assert start.judged(history) is start.test
    assert len(history.predictions) == 10


def test_another_share_is_another_run(tmp_path: Path) -> None:
    names = {prepared(tmp_path, validation=share).run.name for share in (None, 0.25, 0.5)}
    assert len(names) == 3
    prepared(tmp_path, run_name="mine")
    with pytest.raises(RunError, match=r"validation 0\.25 \(here 0\.0\)"):
        prepared(tmp_path, run_name="mine", validation=None)


@pytest.mark.parametrize("share", [0.6, -1])
def test_a_bad_share_is_named_before_anything_is_read(share: float, tmp_path: Path, loaded: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^validation is .* to 0\.5\."):
        prepared(tmp_path / "runs", validation=share)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ParameterError, match=r"^validation is "):
        Parameters.collect({"more": {"validation": share}, "dataset": "digits"}).check()
    assert command.main(["--dataset", "digits", "--validation", str(share)]) == 2
    assert loaded == []


def test_a_class_too_small_is_named_before_a_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = colored_images(24).take([0, 1, 2, 3, 4])  # of the third class one image alone
    monkeypatch.setattr(loading, "load", lambda name, root: (few, colored_images(10, split="test")))
    with pytest.raises(ValueError, match="'blue' has one training image"):
        prepared(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_every_command_line_and_the_notebook_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse([("validation", "0.1")]) == {"validation": 0.1}
    given = Parameters.collect({"validation": 0.1})
    assert (given.overrides["validation"], given.for_papermill()) == (0.1, {"more": {"validation": 0.1}})
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda *_: tiny_network())
    options = ["--preset", "smoke", "--dataset", "digits", "--epochs", "1", "--batch-size", "8", "--validation", "0.25"]
    options += ["--resolutions", "[[8, 1.0]]", "--output-dir", str(tmp_path), "--device", "cpu", "--precision", "fp32"]
    assert command.main(options) == 0
    (folder,) = tmp_path.iterdir()
    assert Run.open(folder).summary()["images"] == {"train": 18, "validation": 6, "test": 10}
    assert "val loss" in capsys.readouterr().out
