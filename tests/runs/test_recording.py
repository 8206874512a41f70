"""A recorded run: found again by the same values, stopped and continued without a difference, and never overwritten."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from tiny import asking, colored_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset
from era_support_packages.datasets.normalization import normalize
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.runs import preparation, recording
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.preparation import PreparedRun, prepare
from era_support_packages.runs.recording import (
    NotTrainedError,
    RunStopped,
    Untrained,
    choose_learning_rate,
    require_complete,
    train_in_folder,
    train_or_stop,
)
from era_support_packages.system import machine
from era_support_packages.system.machine import resolve_device
from era_support_packages.training import batch_norm
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import PreparedConfig, TrainingConfig
from era_support_packages.training.failures import DeviceFailedError, OutOfMemoryError, TrainingDivergedError, is_device_failure
from era_support_packages.training.history import EpochRecord, History, log_header, log_row
from era_support_packages.training.loop import fit
from era_support_packages.training.lr_finder import RangeTest

FLOPS_PER_IMAGE = 55_440  # 8 px; the convolution twice (its input needs no gradient): 2*2*3*9*8*64; the layer thrice: 3*2*8*3


@pytest.fixture(autouse=True, scope="module")
def _long_enough() -> Iterator[None]:
    """Forward passes are counted here; those for the statistics of short runs are the matter of test_batch_norm.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm, "FEW_STEPS", 0)
        yield


@pytest.fixture(autouse=True)
def handler() -> Iterator[Callable[[int, FrameType | None], None]]:
    """A handler of our own for SIGTERM, which must be there again after each test."""

    def unexpected(number: int, frame: FrameType | None) -> None:
        raise AssertionError("SIGTERM reached the handler of before")

    before = signal.signal(signal.SIGTERM, unexpected)
    yield unexpected
    restored = signal.signal(signal.SIGTERM, before) is unexpected
    assert restored


def snapshot(root: Path) -> dict[str, tuple[bytes, int] | None]:
    """Names, contents and times of everything below a folder."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


# ---- prepare ---------------------------------------------------------------------------------------------------------

SMALL = {"epochs": 4, "resolutions": [(8, 1.0)], "batch_size": 8, "max_lr": 0.1}
MACHINE = {"device": "cpu", "precision": "fp32"}
GOING_ON = "Going on with {}: {} of {} epochs are done."
NOT_BEGUN = "Going on with {}: it was stopped before its first epoch was complete."
NOT_IDENTICAL = "This goes on with {}: the result will not be bit-identical to that of a run in one go."


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """24 and 10 small images in place of every data set; the list of what was asked for."""
    asked: list[tuple[Any, Any]] = []

    def load(name: str, root: str | None = None) -> tuple[ImageDataset, ImageDataset]:
        asked.append((name, root))
        return colored_images(24), colored_images(10, split="test", seed=1)

    monkeypatch.setattr(datasets, "load", load)
    return asked


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("this was resolved anew")


def set_machine(
    monkeypatch: pytest.MonkeyPatch, gpus: int = 0, cores: int | None = 4, threads: int = 2, bf16: Any = lambda: False
) -> None:
    """What the machine has, as far as the package asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine, "_bf16_is_faster", bf16)


def records(count: int) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord(epoch, 8, 24, 0.05, 1.0, 50.0, 1.0, 50.0, 5, 10, 1.5) for epoch in range(1, count + 1))


def keep_epochs(run: Run, count: int, planned: int = 4) -> None:
    """A checkpoint after that many epochs, complete where they are all."""
    logits = torch.zeros(10, 3) if count == planned else None
    Checkpoint(run.config(), planned, records(count), {}, None, None, None, {}, logits).save(run.checkpoint_file)


def test_a_new_run_gets_a_folder_with_everything_resolved_in_it(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, threads=3, bf16=lambda: True)
    lines: list[str] = []
    root = tmp_path / "deep" / "runs"
    values = {**SMALL, "max_lr": "auto", "output_dir": str(root)}
    prepared = prepare("smoke", data_root="there", report=lines.append, **values)
    requested = TrainingConfig.preset("smoke", **values)
    found = {"dataset": "colours", "device": "cpu", "precision": "bf16", "engine": "device", "workers": 0, "threads": 3}
    assert prepared.config.to_dict() == {**requested.to_dict(), **found, "horizontal_flip": 0.5}
    assert prepared.config.max_lr == "auto"  # the range test needs the model
    assert prepared.run.folder == root / requested.default_run_name("colours")
    assert json.loads((prepared.run.folder / "config.json").read_text()) == prepared.config.to_dict()
    assert files(prepared.run.folder) == ["config.json", "data.json"]
    assert (prepared.train.split, len(prepared.train), prepared.test.split, len(prepared.test)) == ("train", 24, "test", 10)
    assert loaded == [("auto", "there")]
    assert lines == []


@pytest.mark.parametrize("name", [None, "mine"])
def test_the_same_values_again_find_their_folder(name: str | None, tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    lines: list[str] = []
    values = {**SMALL, "run_name": name, "output_dir": str(tmp_path)}
    first = prepare("smoke", report=lines.append, **values)
    before = snapshot(tmp_path)
    second = prepare("smoke", report=lines.append, **values)
    assert second.run == first.run
    assert second.run.name == (name or TrainingConfig.preset("smoke", **values).default_run_name("colours"))
    assert second.config == first.config
    assert lines == [NOT_BEGUN.format(first.run.folder)]
    assert snapshot(tmp_path) == before
    other = prepare("smoke", report=lines.append, **{**values, "run_name": None, "seed": 1})
    assert other.run != first.run
    assert len(lines) == 1


@pytest.mark.parametrize("done", [1, 2])
def test_a_stopped_run_is_announced_with_its_planned_epochs(done: int, tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    values = {**SMALL, "epochs": None, "train_images": 60, "output_dir": str(tmp_path), **MACHINE}  # 24 + 24 + 12 images
    run = prepare("smoke", report=quiet, **values).run
    keep_epochs(run, done, planned=3)
    before = snapshot(tmp_path)
    lines: list[str] = []
    assert prepare("smoke", report=lines.append, **values).run == run
    assert lines == [GOING_ON.format(run.folder, done, 3)]
    assert snapshot(tmp_path) == before


def test_a_finished_run_is_found_without_a_word_and_not_touched(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, threads=2)
    values = {**SMALL, "run_name": "mine", "output_dir": str(tmp_path), **MACHINE}
    first = prepare("smoke", report=quiet, **values)
    keep_epochs(first.run, 4)
    first.run.write_summary(records(4), first.config, "colours", 0)
    before = snapshot(tmp_path)
    set_machine(monkeypatch, threads=1, cores=1)
    lines: list[str] = []
    again = prepare("smoke", report=lines.append, **values)
    assert again.run == first.run
    assert again.run.finished
    assert lines == []
    assert again.config.replace(threads=2) == first.config
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", [None, "mine"])
def test_without_resume_a_run_starts_in_a_new_folder_and_the_old_one_is_left(
    name: str | None, tmp_path: Path, loaded: list[tuple[Any, Any]]
) -> None:
    lines: list[str] = []
    values = {**SMALL, "run_name": name, "output_dir": str(tmp_path), **MACHINE}
    first = prepare("smoke", resume=False, report=lines.append, **values)
    keep_epochs(first.run, 2)
    before = snapshot(first.run.folder)
    second = prepare("smoke", resume=False, report=lines.append, **values)
    third = prepare("smoke", resume=False, report=lines.append, **values)
    assert [prepared.run.name for prepared in (second, third)] == [f"{first.run.name}-2", f"{first.run.name}-3"]
    assert files(second.run.folder) == files(third.run.folder) == ["config.json", "data.json"]
    assert second.run.config() == second.config == first.config.replace(run_name=second.run.name)
    assert snapshot(first.run.folder) == before
    assert lines == []
    prepare("smoke", report=lines.append, **{**values, "run_name": f"{first.run.name}-2"})  # how that one goes on
    assert lines == [NOT_BEGUN.format(second.run.folder)]


def test_an_automatic_preset_is_the_one_that_was_stored(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    values = {"run_name": "mine", "output_dir": str(tmp_path), **MACHINE}
    first = prepare("auto", report=quiet, **values)
    assert first.config.preset_name == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert TrainingConfig.preset("auto").preset_name == "fast"
    monkeypatch.setattr(torch.cuda, "is_available", never)
    lines: list[str] = []
    second = prepare("auto", report=lines.append, **values)
    assert second.config == first.config
    assert second.run == first.run
    assert lines == [NOT_BEGUN.format(first.run.folder)]


def test_a_small_data_set_gets_the_preset_that_suits_it(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    values = {"output_dir": str(tmp_path), **MACHINE}
    lines: list[str] = []
    assert prepare("auto", report=lines.append, **values).config.preset_name == "cpu"
    assert prepare("auto", report=lines.append, epochs=200, **values).config.preset_name == "fast"  # a step each
    assert lines == []
    asked = prepare("fast", report=lines.append, **values)
    assert (asked.config.preset_name, asked.config.epochs) == ("fast", 13)
    assert lines == [
        "Note: the preset 'fast' takes only 13 steps on these 24 images; preset='cpu' suits a small data set better."
    ]


def test_an_automatic_data_set_is_the_one_that_was_stored(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**SMALL, "run_name": "mine", "output_dir": str(tmp_path), **MACHINE}
    first = prepare("smoke", data_root="there", report=quiet, **values)
    prepare("smoke", data_root="there", report=quiet, **values)
    assert loaded == [("auto", "there"), ("colours", "there")]
    prepare("smoke", report=quiet, dataset="auto", **values)
    prepare("smoke", report=quiet, dataset="colours", **values)
    assert loaded[2:] == [("colours", None), ("colours", None)]
    assert first.run.config().dataset == "colours"
    prepare("smoke", report=quiet, resume=False, **values)
    assert loaded[4:] == [("auto", None)]


@pytest.mark.parametrize("name", [None, "mine"])
def test_what_the_machine_decided_is_taken_from_what_was_stored(
    name: str | None, tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, threads=2, bf16=lambda: True)
    values = {**SMALL, "run_name": name, "output_dir": str(tmp_path)}
    first = prepare("smoke", report=quiet, **values)
    stored = (first.config.device, first.config.precision, first.config.workers, first.config.threads)
    assert stored == ("cpu", "bf16", 0, 2)
    assert first.config.horizontal_flip == 0.5

    set_machine(monkeypatch, gpus=1, cores=64, threads=32, bf16=never)  # now "auto" would be cuda:0, 2 workers, 32 threads
    monkeypatch.setattr(preparation, "prepare_config", never)
    monkeypatch.setattr(torch.cuda, "get_device_capability", never)
    lines: list[str] = []
    second = prepare("smoke", report=lines.append, **values)
    assert second.config == first.config
    assert second.run == first.run
    assert lines == [NOT_BEGUN.format(first.run.folder)]


def test_a_chosen_max_lr_is_taken_from_what_was_stored(tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    values = {**SMALL, "max_lr": "auto", "output_dir": str(tmp_path), **MACHINE}
    first = prepare("smoke", report=quiet, **values)
    assert first.config.max_lr == "auto"
    first.run.write_config(first.config.replace(max_lr=0.03125))
    again = prepare("smoke", report=quiet, **values)
    assert again.run == first.run
    assert again.config == first.config.replace(max_lr=0.03125)


def test_a_folder_that_was_moved_goes_on_where_it_is_now(tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    values = {**SMALL, **MACHINE}
    first = prepare("smoke", report=quiet, output_dir=str(tmp_path / "old"), run_name="mine", **values)
    (tmp_path / "new").mkdir()
    first.run.folder.rename(tmp_path / "new" / "renamed")
    again = prepare("smoke", report=quiet, output_dir=str(tmp_path / "new"), run_name="renamed", **values)
    assert again.run.folder == tmp_path / "new" / "renamed"
    assert again.config == first.config.replace(output_dir=str(tmp_path / "new"), run_name="renamed")


DIFFERENT = [
    ({"seed": 1}, "seed 0 (here 1)"),
    (
        {"seed": 1, "label_smoothing": 0.2, "batch_size": 16, "resolutions": [(8, 0.5), (10, 0.5)], "test_time_flip": True},
        "resolutions [[8, 1.0]] (here [[8, 0.5], [10, 0.5]]), batch_size 8 (here 16), label_smoothing 0.0 (here 0.2), "
        "test_time_flip False (here True), seed 0 (here 1)",
    ),
    ({"epochs": None, "train_images": 60}, "epochs 4 (here None), train_images None (here 60)"),
    ({"precision": "bf16", "max_lr": 0.5}, "max_lr 0.1 (here 0.5), precision 'fp32' (here 'bf16')"),
]


@pytest.mark.parametrize(("changes", "differences"), DIFFERENT, ids=[differences for _, differences in DIFFERENT])
def test_a_name_that_belongs_to_another_configuration_is_refused_with_all_differences(
    changes: dict[str, Any], differences: str, tmp_path: Path, loaded: list[tuple[Any, Any]]
) -> None:
    values = {**SMALL, **MACHINE, "run_name": "mine", "output_dir": str(tmp_path)}
    run = prepare("smoke", report=quiet, **values).run
    keep_epochs(run, 2)
    before = snapshot(tmp_path)
    lines: list[str] = []
    with pytest.raises(RunError) as raised:
        prepare("smoke", report=lines.append, **{**values, **changes})
    assert str(raised.value) == (
        f"{run.folder} holds a run of another configuration: {differences}. Give another run_name, or set resume=False to train "
        "in a new folder."
    )
    assert snapshot(tmp_path) == before
    # both ways out lead out
    assert prepare("smoke", report=lines.append, **{**values, **changes, "run_name": "other"}).run.name == "other"
    assert prepare("smoke", resume=False, report=lines.append, **{**values, **changes}).run.name == "mine-2"
    assert {name: value for name, value in snapshot(tmp_path).items() if name.split(os.sep)[0] == "mine"} == before
    assert lines == []


NO_PRESET = "A configuration needs preset_name: choose one of 'original', 'fast', 'best', 'cpu', 'smoke'."
BROKEN = {
    "missing": (None, "[Errno 2] No such file or directory: {!r}"),
    "empty": ("", "Expecting value: line 1 column 1 (char 0)"),
    "cut short": ('{"seed": ', "Expecting value: line 1 column 10 (char 9)"),
    "nothing": ("null", "A configuration is a table of names and values, not None."),
    "of another kind": ('{"seed": 1}', NO_PRESET),
    "an unknown name": ('{"preset_name": "smoke", "sed": 1}', "Unknown parameter 'sed': did you mean 'seed'?"),
    "a bad value": (
        '{"preset_name": "smoke", "epochs": 0}',
        "epochs is 0; give a whole number from 1 to 10000.",
    ),
}


@pytest.mark.parametrize(("text", "problem"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("preset", ["smoke", "auto"])
def test_a_folder_without_a_usable_configuration_is_refused(
    preset: str, text: str | None, problem: str, tmp_path: Path, loaded: list[tuple[Any, Any]]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    if text is not None:
        (folder / "config.json").write_text(text)
    before = snapshot(tmp_path)
    values = {**SMALL, **MACHINE, "run_name": "mine", "output_dir": str(tmp_path)}
    with pytest.raises(RunError) as raised:
        prepare(preset, report=quiet, **values)
    assert str(raised.value) == (
        f"{folder} is there, but its config.json cannot be used ({problem.format(str(folder / 'config.json'))}): move the folder "
        "away, give another run_name, or set resume=False to train in a new folder."
    )
    assert snapshot(tmp_path) == before
    assert prepare(preset, resume=False, report=quiet, **values).run.name == "mine-2"


@pytest.mark.parametrize("name", [None, "mine"])
def test_an_empty_folder_is_used_and_one_without_a_configuration_is_not(
    name: str | None, tmp_path: Path, loaded: list[tuple[Any, Any]]
) -> None:
    values = {**SMALL, **MACHINE, "run_name": name, "output_dir": str(tmp_path)}
    folder = tmp_path / (name or TrainingConfig.preset("smoke", **values).default_run_name("colours"))
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(RunError, match=r"is there, but its config\.json cannot be used \(\[Errno 2\]"):
        prepare("smoke", report=quiet, **values)
    assert files(folder) == ["notes.txt"]
    (folder / "notes.txt").unlink()
    (folder / ".config.json.1-2.tmp").write_text("{")  # of a process that was killed while it made the folder
    prepared = prepare("smoke", report=quiet, **values)
    assert prepared.run.folder == folder
    assert prepared.run.config() == prepared.config


BROKEN_CHECKPOINTS = {"empty": (b"", "is empty"), "no checkpoint": (b"PK\x03\x04 half", "is cut short or is no checkpoint")}


@pytest.mark.parametrize(("content", "problem"), BROKEN_CHECKPOINTS.values(), ids=BROKEN_CHECKPOINTS)
def test_a_run_whose_checkpoint_is_broken_is_refused(
    content: bytes, problem: str, tmp_path: Path, loaded: list[tuple[Any, Any]]
) -> None:
    values = {**SMALL, **MACHINE, "output_dir": str(tmp_path)}
    run = prepare("smoke", report=quiet, **values).run
    run.checkpoint_file.write_bytes(content)
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        prepare("smoke", report=quiet, **values)
    assert str(raised.value) == (
        f"{run.checkpoint_file} {problem}; the file is left as it is: move it away, or set resume=False to train in a new folder."
    )
    assert snapshot(tmp_path) == before


def test_a_device_that_this_machine_lacks_is_replaced_and_said(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, threads=2)
    values = {**SMALL, "output_dir": str(tmp_path)}
    first = prepare("smoke", report=quiet, **values)
    first.run.write_config(first.config.replace(device="cuda:0", precision="fp16", workers=2))
    before = snapshot(tmp_path)
    lines: list[str] = []
    second = prepare("smoke", report=lines.append, **values)
    assert second.run == first.run
    assert second.config == first.config.replace(workers=2)
    assert lines == [
        NOT_IDENTICAL.format("device 'cpu' instead of 'cuda:0', precision 'fp32' instead of 'fp16'"),
        NOT_BEGUN.format(first.run.folder),
    ]
    assert snapshot(tmp_path) == before


def test_a_device_asked_for_replaces_the_stored_one_and_is_said(
    tmp_path: Path, loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_machine(monkeypatch, gpus=2)
    values = {**SMALL, "precision": "fp32", "output_dir": str(tmp_path)}
    first = prepare("smoke", report=quiet, device="cuda:1", **values)
    lines: list[str] = []
    second = prepare("smoke", report=lines.append, device="cpu", **values)
    assert second.run == first.run
    assert (first.config.device, second.config.device) == ("cuda:1", "cpu")
    assert lines[0] == NOT_IDENTICAL.format("device 'cpu' instead of 'cuda:1'")


@pytest.mark.parametrize(
    ("cores", "asked", "threads"),
    [
        (4, "auto", 3),  # fewer cores than threads: what PyTorch finds
        (None, "auto", 3),  # not known how many
        (8, "auto", 8),
        (64, "auto", 8),
        (64, 5, 5),  # another number asked for
        (4, 6, 6),  # even one beyond the cores
        (4, 8, 8),  # or the old one
    ],
)
def test_the_stored_threads_are_used_where_there_are_cores_for_them_and_a_change_is_said(
    cores: int | None,
    asked: int | str,
    threads: int,
    tmp_path: Path,
    loaded: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_machine(monkeypatch, threads=8, cores=8)
    values = {**SMALL, **MACHINE, "output_dir": str(tmp_path)}
    first = prepare("smoke", report=quiet, **values)
    assert first.config.threads == 8
    set_machine(monkeypatch, threads=3, cores=cores)
    lines: list[str] = []
    second = prepare("smoke", report=lines.append, threads=asked, **values)
    assert second.run == first.run
    assert second.config == first.config.replace(threads=threads)
    said = [] if threads == 8 else [NOT_IDENTICAL.format(f"threads {threads} instead of 8")]
    assert lines == [*said, NOT_BEGUN.format(first.run.folder)]


def test_a_finished_run_is_shown_whatever_the_other_values_are(tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    values = {**SMALL, **MACHINE, "run_name": "mine", "output_dir": str(tmp_path / "runs")}
    first = prepare("smoke", report=quiet, **values)
    keep_epochs(first.run, 4)
    first.run.write_summary(records(4), first.config, "colours", 0)
    before = snapshot(tmp_path)
    lines: list[str] = []
    others = {"seed": 9, "dataset": "digits", "output_dir": str(tmp_path / "elsewhere"), "run_name": "another", "epochs": 1}
    for resume in (True, False):
        shown = prepare(
            "cpu", data_root="there", resume=resume, finished_run=str(first.run.folder), report=lines.append, **others
        )
        assert (shown.run, shown.config) == (first.run, first.config)
        assert loaded[-1] == ("colours", "there")
    assert snapshot(tmp_path) == before
    assert lines == []


def test_a_finished_run_that_is_none_is_refused(tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    run = prepare("smoke", report=quiet, output_dir=str(tmp_path), **SMALL, **MACHINE).run
    loaded.clear()
    for folder, missing in ((run.folder, "checkpoint.pt"), (tmp_path / "nowhere", "checkpoint.pt")):
        with pytest.raises(FileNotFoundError) as raised:
            prepare("smoke", finished_run=str(folder), report=quiet)
        assert str(raised.value) == (
            f"{folder} is not the folder of a finished run: it has no {missing}; give one that has, or train a new one."
        )
    assert loaded == []
    assert files(tmp_path) == [run.name]


@pytest.mark.parametrize(
    ("preset", "values", "message"),
    [
        ("fats", {}, "Unknown preset 'fats': did you mean 'fast' or 'auto'?"),
        ("smoke", {"bach_size": 8}, "Unknown parameter 'bach_size': did you mean 'batch_size'?"),
        (
            "smoke",
            {"batch_size": 1, "seed": -1},
            "batch_size is 1; give a whole number from 2 to 65536. seed is -1; give a whole number from 0 to 4294967295.",
        ),
        ("smoke", {"device": "cuda:7"}, "device is 'cuda:7', but this machine has 0 CUDA GPUs; use 'auto' or 'cpu'."),
        ("smoke", {"device": "mps"}, "device is 'mps', but PyTorch finds no Apple GPU here; use 'auto' or 'cpu'."),
        ("smoke", {"resume": "yes"}, "resume is 'yes'; give True or False."),
        ("smoke", {"resume": None}, "resume is None; give True or False."),
        ("smoke", {"resume": 1, "finished_run": "somewhere"}, "resume is 1; give True or False."),
        (
            "smoke",
            {"run_name": "a/b"},
            "run_name is 'a/b'; give a folder name of at most 200 bytes without slashes, quotes, line breaks and : * ? < > |, "
            "with no space at its ends and no dot at its start.",
        ),
        (
            "smoke",
            {"run_name": 7},
            "run_name is 7; give a folder name of at most 200 bytes without slashes, quotes, line breaks and : * ? < > |, "
            "with no space at its ends and no dot at its start.",
        ),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_bad_value_is_refused_before_any_data_is_loaded_and_leaves_no_folder(
    preset: str,
    values: dict[str, Any],
    message: str,
    resume: bool,
    tmp_path: Path,
    loaded: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_machine(monkeypatch)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared below
        prepare(preset, **{"output_dir": str(tmp_path / "runs"), "report": quiet, "resume": resume, **values})
    assert str(raised.value) == message
    assert loaded == []
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [FileNotFoundError("no such data"), DatasetError("data_batch_1 is corrupt")])
def test_data_that_cannot_be_used_leaves_no_folder(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, root: str | None) -> None:
        raise error

    monkeypatch.setattr(datasets, "load", load)
    with pytest.raises(type(error)) as raised:
        prepare("smoke", report=quiet, output_dir=str(tmp_path / "runs"))
    assert raised.value is error
    assert files(tmp_path) == []


def test_the_announcement_is_printed_where_nothing_else_is_said(
    tmp_path: Path, loaded: list[tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    values = {**SMALL, **MACHINE, "output_dir": str(tmp_path)}
    run = prepare("smoke", **values).run
    assert capsys.readouterr().out == ""
    prepare("smoke", **values)
    printed = capsys.readouterr().out
    assert printed.split() == NOT_BEGUN.format(run.folder).split()
    assert all(len(line) <= 100 or " " not in line for line in printed.splitlines())


# ---- the learning rate -----------------------------------------------------------------------------------------------

CURVE = RangeTest(
    np.array([0.001, 0.01, 0.1]),
    np.array([1.1, 1 / 3, 0.7]),
    np.array([1.0, 0.5, 0.6]),
    {"steepest": 0.5, "valley": 0.03125, "minimum/10": 0.25},
)
SUGGESTED = "max_lr = 0.0312, the range test's suggestion 'valley' (all: steepest 0.5, valley 0.0312, minimum/10 0.25)."
GIVEN = "max_lr = 0.1 is given, so the range test is only shown for comparison: steepest 0.5, valley 0.0312, minimum/10 0.25."


@pytest.fixture
def range_tests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """`CURVE` in place of a range test; the list of what it was made for."""
    made: list[tuple[Any, ...]] = []

    def range_test(*arguments: Any) -> RangeTest:
        made.append(arguments)
        return CURVE

    monkeypatch.setattr(recording, "range_test", range_test)
    return made


def a_run(tmp_path: Path, **changes: Any) -> tuple[PreparedConfig, Run]:
    """A plan of batches of 8 of the 24 coloured images, and its folder."""
    values = {"dataset": "colours", "output_dir": str(tmp_path), **changes}
    config = plan(**values)
    return config, Run.create(asking(**values), "colours", config)


@pytest.mark.parametrize(("asked", "chosen", "sentence"), [("auto", 0.03125, SUGGESTED), (0.1, 0.1, GIVEN)])
def test_the_range_test_is_made_once_and_kept(
    asked: float | str,
    chosen: float,
    sentence: str,
    tmp_path: Path,
    range_tests: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, run = a_run(tmp_path, max_lr=asked)
    model, train = tiny_network(), colored_images(24)
    prepared = PreparedRun(run, config, train, colored_images(10, split="test"))
    first, curve, first_sentence = choose_learning_rate(model, prepared)
    assert (first.config, first.run, first.test) == (config.resolved(chosen), run, prepared.test)
    assert (curve, first_sentence) == (CURVE, sentence)
    assert range_tests == [(model, train, 10, config)]
    assert json.loads((run.folder / "range_test.json").read_text()) == {
        "used": asked == "auto",
        "suggestions": {"steepest": 0.5, "valley": 0.03125, "minimum/10": 0.25},
        "lrs": [0.001, 0.01, 0.1],
        "losses": [1.1, 1 / 3, 0.7],
        "smoothed": [1.0, 0.5, 0.6],
    }
    before = snapshot(run.folder)

    monkeypatch.setattr(recording, "range_test", never)
    for now in (prepared, first):  # stopped before and after the number was written down
        again, curve, sentence_again = choose_learning_rate(model, now)
        assert (again.config, sentence_again) == (config.resolved(chosen), sentence)
        for name in ("lrs", "losses", "smoothed"):
            assert getattr(curve, name).tolist() == getattr(CURVE, name).tolist()
            assert getattr(curve, name).dtype == np.float64
        assert curve.suggestions == CURVE.suggestions
    assert snapshot(run.folder) == before


@pytest.mark.parametrize("content", ["", "[]", "null", '{"used": true}'])
def test_a_kept_range_test_that_is_damaged_is_made_again(
    content: str, tmp_path: Path, range_tests: list[tuple[Any, ...]]
) -> None:
    config, run = a_run(tmp_path, max_lr="auto")
    (run.folder / "range_test.json").write_text(content)
    chosen, result, sentence = choose_learning_rate(tiny_network(), PreparedRun(run, config, TRAIN, TEST))
    assert (chosen.config.max_lr, result, sentence) == (0.03125, CURVE, SUGGESTED)
    assert len(range_tests) == 1
    assert run.range_test()[1] is True


def test_a_range_test_that_suggests_nothing_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, run = a_run(tmp_path, max_lr="auto")
    monkeypatch.setattr(recording, "range_test", lambda *_: dataclasses.replace(CURVE, suggestions={}))
    message = "The loss never fell in the range test, so it suggests nothing; give max_lr as a number."
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            choose_learning_rate(tiny_network(), PreparedRun(run, config, TRAIN, TEST))
        monkeypatch.setattr(recording, "range_test", never)


@pytest.mark.parametrize(("asked", "batches"), [("auto", 3), (0.1, 0)])
def test_the_cost_of_a_resumed_run_includes_the_range_test_that_its_max_lr_came_from(
    asked: float | str, batches: int, tmp_path: Path, range_tests: list[tuple[Any, ...]]
) -> None:
    config, run = a_run(tmp_path, max_lr=asked, epochs=3)
    train, test = colored_images(24), colored_images(10, split="test", seed=1)
    for step, done in ((5, 1), (4, 2)):  # steps of this attempt; an epoch has three
        model, _ = watched(tiny_network(), {step: press_stop})
        chosen, _, _ = choose_learning_rate(model, PreparedRun(run, config, train, test))
        with pytest.raises(RunStopped):
            train_in_folder(model, chosen, quiet)
        assert run.summary()["pflops"] == pytest.approx((24 * done + 8 * batches) * FLOPS_PER_IMAGE / 1e15, rel=1e-12)
    train_in_folder(tiny_network(), chosen, quiet)
    assert run.summary()["pflops"] == pytest.approx((24 * 3 + 8 * batches) * FLOPS_PER_IMAGE / 1e15, rel=1e-12)
    assert run.config().max_lr == (0.03125 if asked == "auto" else 0.1)
    assert len(range_tests) == 1


# ---- training into a folder ------------------------------------------------------------------------------------------


def watched(model: nn.Module, actions: dict[int, Callable[[], None]] | None = None) -> tuple[nn.Module, list[int]]:
    """The model, and the numbers of its training steps as they begin; `actions` happen within the step of that number.

    Steps of copies (which measure the speed of the machine) do not count.
    """
    steps: list[int] = []

    def begin(module: nn.Module, _: Any) -> None:
        if module is model and module.training:
            steps.append(len(steps) + 1)
            (actions or {}).get(len(steps), lambda: None)()

    model.register_forward_pre_hook(begin)
    return model, steps


def press_stop() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    raise RuntimeError("a fault")


STOPS = {"exception": (fail, None), "stop button": (press_stop, 130), "SIGTERM": (terminate, 143)}
TRAIN, TEST = colored_images(24), colored_images(10, split="test", seed=1)
HARD = {  # whatever could differ after a stop: order, augmentation, dropout, momentum, schedule, two resolutions
    "epochs": 4,
    "resolutions": ((8, 0.5), (10, 0.5)),
    "horizontal_flip": 0.5,
    "crop_padding": 2,
    "cutout": 3,
    "label_smoothing": 0.1,
    "test_images": 5,
    "seed": 3,
}


def network(seed: int = 0) -> nn.Module:
    return tiny_network(drop=0.3, seed=seed)


@dataclasses.dataclass(frozen=True)
class Reference:
    """An uninterrupted run that was not recorded: after each epoch its weights, and at the end the rest."""

    weights: list[dict[str, Tensor]]
    history: History


@pytest.fixture(scope="module")
def reference() -> Reference:
    weights: list[dict[str, Tensor]] = []

    def keep(state: Checkpoint) -> None:
        weights.append({name: value.clone() for name, value in state.model.items()})

    _, history = fit(network(), TRAIN, TEST, plan(dataset="colours", **HARD), quiet, keep)
    assert [record.resolution for record in history.records] == [8, 8, 10, 10]
    assert len({record.train_loss for record in history.records}) == 4
    return Reference(weights, history)


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_seconds(history: History) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in history.records]


def table(run: Run) -> list[list[str]]:
    """The rows of metrics.csv below its heading."""
    heading, *rows = (run.folder / "metrics.csv").read_text().splitlines()
    assert heading == "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds"
    return [row.split(",") for row in rows]


def rows_of(history: History) -> list[list[str]]:
    """What metrics.csv should say of a history."""
    names = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
    return [[str(getattr(record, name)) for name in names] for record in history.records]


def check_complete(run: Run, model: nn.Module, history: History, reference: Reference) -> None:
    """Everything that the run leaves is, but for the seconds, what a run in one go leaves."""
    assert same_weights(model.state_dict(), reference.weights[-1])
    assert without_seconds(history) == without_seconds(reference.history)
    assert history.predictions.logits.tolist() == reference.history.predictions.logits.tolist()
    assert history.complete
    assert files(run.folder) == ["checkpoint.pt", "config.json", "data.json", "metrics.csv", "summary.json"]
    checkpoint = Checkpoint.load(run.checkpoint_file)
    assert same_weights(checkpoint.model, reference.weights[-1])
    assert checkpoint.records == history.records
    assert checkpoint.logits.tolist() == reference.history.predictions.logits.tolist()
    assert [row[0] for row in table(run)] == ["1", "2", "3", "4"]
    assert table(run) == rows_of(history)
    summary = run.summary()
    assert (summary["complete"], summary["epochs"]) == (True, 4)
    assert summary["test_accuracy"] == reference.history.predictions.accuracy
    assert summary["seconds"] == pytest.approx(history.seconds)
    assert run.finished


def test_after_each_epoch_its_files_are_there(tmp_path: Path, reference: Reference) -> None:
    config, run = a_run(tmp_path, **HARD)
    seen, lines = [], []

    def report(line: str) -> None:
        lines.append(line)
        if line.lstrip()[0].isdigit():
            checkpoint = Checkpoint.load(run.checkpoint_file)
            same = same_weights(checkpoint.model, reference.weights[len(checkpoint.records) - 1])
            visible = [name for name in files(run.folder) if name != ".lock"]
            seen.append((visible, len(checkpoint.records), same, checkpoint.complete, len(table(run))))

    model, steps = watched(network())
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), report)
    names = ["checkpoint.pt", "config.json", "data.json", "metrics.csv"]
    assert seen == [(names, epoch, True, epoch == 4, epoch) for epoch in (1, 2, 3, 4)]
    assert steps == list(range(1, 13))
    check_complete(run, model, history, reference)
    assert lines[0].startswith("This run will take about ")
    told = [line for line in lines[1:] if not line.startswith("Warning: ")]
    assert told == [log_header(), *map(log_row, history.records)]


@pytest.mark.parametrize("step", [4, 5, 12], ids=["first step of epoch 2", "within epoch 2", "last step"])
@pytest.mark.parametrize(("stop", "exit_code"), STOPS.values(), ids=STOPS)
def test_a_run_that_was_stopped_goes_on_to_what_it_would_have_been(
    stop: Callable[[], None], exit_code: int | None, step: int, tmp_path: Path, reference: Reference
) -> None:
    done = (step - 1) // 3
    config, run = a_run(tmp_path, **HARD)
    model, steps = watched(network(), {step: stop})
    lines: list[str] = []
    with pytest.raises(RuntimeError if exit_code is None else RunStopped) as raised:
        train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), lines.append)
    assert step <= len(steps) <= step + 1  # within a batch or two
    kept = Checkpoint.load(run.checkpoint_file)
    assert same_weights(kept.model, reference.weights[done - 1])
    assert not kept.complete
    assert [row[0] for row in table(run)] == ["1", "2", "3"][:done]
    assert not run.finished
    if exit_code is None:
        assert str(raised.value) == "a fault"
        assert files(run.folder) == ["checkpoint.pt", "config.json", "data.json", "metrics.csv"]
    else:
        stopped = raised.value
        assert isinstance(stopped, KeyboardInterrupt)
        assert (str(stopped), stopped.exit_code) == (f"stopped after epoch {done} of 4", exit_code)
        assert without_seconds(stopped.history) == without_seconds(reference.history)[:done]
        assert stopped.history.records == kept.records
        assert (stopped.history.planned, stopped.history.complete, stopped.history.predictions) == (4, False, None)
        assert stopped.history.config == run.config().resolved()
        assert lines[-1] == (
            f"Stopped after epoch {done} of 4. Run again with the same values to go on from there ({run.folder})."
        )
        assert same_weights(model.state_dict(), reference.weights[done - 1])
        assert files(run.folder) == ["checkpoint.pt", "config.json", "data.json", "metrics.csv", "summary.json"]
        summary = run.summary()
        assert (summary["complete"], summary["epochs"]) == (False, done)
        assert (summary["test_accuracy"], summary["test_accuracy_tta"]) == (None, None)
        assert summary["seconds"] == sum(record.seconds for record in kept.records)
        assert table(run) == rows_of(stopped.history)

    again, steps = watched(network(seed=5))  # its weights must come from the checkpoint
    lines.clear()
    _, history = train_in_folder(again, PreparedRun(run, config, TRAIN, TEST), lines.append)
    assert len(steps) == 12 - 3 * done
    assert history.records[:done] == kept.records  # with their seconds
    check_complete(run, again, history, reference)
    told = [line for line in lines[1:] if not line.startswith("Warning: ")]
    assert told[0].splitlines() == [log_header(), *map(log_row, kept.records)]
    assert told[1:] == list(map(log_row, history.records[done:]))


def test_a_run_may_be_stopped_again_and_again(tmp_path: Path, reference: Reference) -> None:
    config, run = a_run(tmp_path, **HARD)
    counts = []
    for step, stop in ((5, press_stop), (2, fail), (4, terminate), (1, press_stop), (4, fail)):
        model, steps = watched(network(seed=step), {step: stop}) if counts else watched(network(), {step: stop})
        with pytest.raises((RunStopped, RuntimeError)):
            train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
        counts.append((run.complete_epochs(), len(steps)))
    assert [epochs for epochs, _ in counts] == [1, 1, 2, 2, 3]
    model, steps = watched(network(seed=9))
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert len(steps) == 3
    check_complete(run, model, history, reference)


@pytest.mark.parametrize(("stop", "exit_code"), [(press_stop, 130), (terminate, 143)], ids=["stop button", "SIGTERM"])
def test_a_run_stopped_before_its_first_epoch_is_complete_starts_again(
    stop: Callable[[], None], exit_code: int, tmp_path: Path, reference: Reference
) -> None:
    config, run = a_run(tmp_path, **HARD)
    lines: list[str] = []
    with pytest.raises(RunStopped) as raised:
        train_in_folder(watched(network(), {2: stop})[0], PreparedRun(run, config, TRAIN, TEST), lines.append)
    assert (str(raised.value), raised.value.exit_code) == ("stopped after epoch 0 of 4", exit_code)
    assert raised.value.history.records == ()
    assert lines[-1] == f"Stopped after epoch 0 of 4. Run again with the same values to go on from there ({run.folder})."
    assert files(run.folder) == ["config.json", "data.json", "metrics.csv", "summary.json"]
    assert table(run) == []
    summary = run.summary()
    assert {name: summary[name] for name in ("complete", "epochs", "test_accuracy", "pflops", "seconds")} == {
        "complete": False,
        "epochs": 0,
        "test_accuracy": None,
        "pflops": 0.0,
        "seconds": 0,
    }
    model, steps = watched(network())
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert len(steps) == 12
    check_complete(run, model, history, reference)


def with_mirror_images(model: nn.Module) -> float:
    """Percent of the test images that the mean over each and its mirror image gets right, by hand."""
    images = normalize(torch.from_numpy(TEST.images), TEST.mean, TEST.std, 10)
    model.eval()
    with torch.no_grad():
        logits = model(images) + model(images.flip(3))
    return 10 * int((logits.argmax(dim=1).numpy() == TEST.labels).sum())


@pytest.mark.parametrize(("stop", "exit_code"), [(press_stop, 130), (terminate, 143)], ids=["stop button", "SIGTERM"])
def test_a_run_stopped_in_its_final_test_trains_nothing_again(
    stop: Callable[[], None], exit_code: int, tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = a_run(tmp_path, **HARD, test_time_flip=True)

    def stopped_predict(*_: Any, **__: Any) -> Predictions:
        stop()
        raise AssertionError("it was not stopped")

    monkeypatch.setattr(recording, "predict", stopped_predict)
    with pytest.raises(RunStopped) as raised:
        train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    assert (str(raised.value), raised.value.exit_code) == ("stopped after epoch 4 of 4", exit_code)
    assert run.complete_epochs() == 4
    assert not run.finished
    summary = run.summary()
    assert (summary["complete"], summary["epochs"], summary["test_accuracy"]) == (False, 4, None)

    monkeypatch.undo()
    model, steps = watched(network(seed=5))
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert steps == []
    check_complete(run, model, history, reference)
    assert run.summary()["test_accuracy_tta"] == with_mirror_images(model)


def test_a_run_killed_before_its_summary_gets_one_without_training(tmp_path: Path, reference: Reference) -> None:
    config, run = a_run(tmp_path, **HARD)
    train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    summary = run.summary()
    (run.folder / "summary.json").unlink()
    (run.folder / "metrics.csv").unlink()
    assert not run.finished
    model, steps = watched(network(seed=5))
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert steps == []
    check_complete(run, model, history, reference)
    assert run.summary() == summary


def test_a_stop_between_checkpoint_and_table_loses_no_row(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = a_run(tmp_path, **HARD)
    write, calls = Run.write_metrics, []

    def write_metrics(self: Run, records: tuple[EpochRecord, ...]) -> None:
        calls.append(len(records))
        if calls == [1, 2]:
            raise KeyboardInterrupt
        write(self, records)

    monkeypatch.setattr(Run, "write_metrics", write_metrics)
    with pytest.raises(RunStopped, match="stopped after epoch 2 of 4"):
        train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    assert [row[0] for row in table(run)] == ["1", "2"]
    assert run.summary()["epochs"] == run.complete_epochs() == 2
    monkeypatch.undo()
    model, steps = watched(network(seed=5))
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert len(steps) == 6
    check_complete(run, model, history, reference)


def test_a_stop_while_a_checkpoint_is_written_keeps_the_one_of_before(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = a_run(tmp_path, **HARD)
    replace, checkpoints = os.replace, []

    def stopped_replace(source: Path, target: Path) -> None:
        if Path(target).name == "checkpoint.pt":
            checkpoints.append(Path(source).stat().st_size)
            if len(checkpoints) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped_replace)
    model = network()
    with pytest.raises(RunStopped, match="stopped after epoch 1 of 4"):
        train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert same_weights(model.state_dict(), reference.weights[0])
    assert files(run.folder) == ["checkpoint.pt", "config.json", "data.json", "metrics.csv", "summary.json"]
    monkeypatch.undo()
    model, steps = watched(network(seed=5))
    _, history = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert len(steps) == 9
    check_complete(run, model, history, reference)


@pytest.mark.parametrize("action", [lambda: None, press_stop, terminate, fail], ids=["done", "stop button", "SIGTERM", "fault"])
def test_sigterm_is_caught_in_training_only(
    action: Callable[[], None], tmp_path: Path, handler: Callable[[int, FrameType | None], None]
) -> None:
    config, run = a_run(tmp_path)
    seen = []

    def look() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        action()

    try:
        train_in_folder(watched(tiny_network(), {2: look})[0], PreparedRun(run, config, TRAIN, TEST), quiet)
        ended = "done"
    except (RunStopped, RuntimeError) as error:
        ended = type(error).__name__
    assert ended == {press_stop: "RunStopped", terminate: "RunStopped", fail: "RuntimeError"}.get(action, "done")
    assert len(seen) == 1
    assert callable(seen[0])
    assert seen[0] is not handler
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_finished_run_is_loaded_and_said_to_be(tmp_path: Path, reference: Reference) -> None:
    config, run = a_run(tmp_path, **HARD)
    _, history = train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    run.write_json("summary.json", {**run.summary(), "seconds": 200.4, "hardware": "an abacus"})
    before = snapshot(run.folder)
    model, steps = watched(network(seed=5))
    lines: list[str] = []
    _, shown = train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), lines.append)
    assert steps == []
    assert same_weights(model.state_dict(), reference.weights[-1])
    assert shown.records == history.records
    assert shown.predictions.logits.tolist() == history.predictions.logits.tolist()
    assert shown.complete
    assert "\n".join(lines).splitlines() == [
        f"Not trained now: this is the run {run.name}, trained in 3 min 20 s on an abacus.",
        log_header(),
        *map(log_row, history.records),
    ]
    assert snapshot(run.folder) == before


# ---- faults and what lies in the folder ------------------------------------------------------------------------------


def test_divergence_keeps_the_checkpoint_of_the_epoch_before(tmp_path: Path, reference: Reference) -> None:
    config, run = a_run(tmp_path, **HARD)
    model, steps = watched(network())
    model.register_forward_hook(lambda module, _, output: output * float("nan") if len(steps) == 7 else None)
    kept: list[bytes] = []

    def report(line: str) -> None:
        if line.lstrip()[0] in "12":
            kept.append(run.checkpoint_file.read_bytes())

    with pytest.raises(TrainingDivergedError) as raised:
        train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), report)
    # twelve steps, up to 0.1 at the third and down to 0.1 / 25 / 10,000 at the last: 0.1 - 4/9 * 0.0999996 at the seventh
    assert str(raised.value) == (
        "The loss became nan at step 1 of epoch 3, at a learning rate of 0.05556; lower max_lr and run again."
    )
    assert run.checkpoint_file.read_bytes() == kept[1]
    assert same_weights(Checkpoint.load(run.checkpoint_file).model, reference.weights[1])
    assert [row[0] for row in table(run)] == ["1", "2"]
    assert files(run.folder) == ["checkpoint.pt", "config.json", "data.json", "metrics.csv"]


@pytest.mark.parametrize(("content", "problem"), BROKEN_CHECKPOINTS.values(), ids=BROKEN_CHECKPOINTS)
@pytest.mark.parametrize("finished", [False, True])
def test_a_broken_checkpoint_is_refused_and_left(finished: bool, content: bytes, problem: str, tmp_path: Path) -> None:
    config, run = a_run(tmp_path)
    run.checkpoint_file.write_bytes(content)
    (run.folder / "metrics.csv").write_text("precious")
    run.write_summary(records(1), config, "colours", 0, complete=finished)
    before = snapshot(run.folder)
    model, steps = watched(tiny_network())
    with pytest.raises(CheckpointError) as raised:
        train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert str(raised.value) == (
        f"{run.checkpoint_file} {problem}; the file is left as it is: move it away, or set resume=False to train in a new folder."
    )
    assert steps == []
    assert same_weights(model.state_dict(), tiny_network().state_dict())
    assert snapshot(run.folder) == before


def test_a_checkpoint_of_another_network_is_refused_and_left(tmp_path: Path) -> None:
    config, run = a_run(tmp_path, epochs=2)
    with pytest.raises(RunStopped):
        train_in_folder(watched(tiny_network(), {5: press_stop})[0], PreparedRun(run, config, TRAIN, TEST), quiet)
    before = snapshot(run.folder)
    wider = tiny_network(width=9)
    with pytest.raises(CheckpointError) as raised:
        train_in_folder(wider, PreparedRun(run, config, TRAIN, TEST), quiet)
    assert str(raised.value) == (
        f"{run.checkpoint_file} holds the weights of another network; build the model of its config.json."
    )
    assert same_weights(wider.state_dict(), tiny_network(width=9).state_dict())
    assert snapshot(run.folder) == before


def test_temporary_files_of_writers_that_were_killed_are_removed_at_the_start(tmp_path: Path) -> None:
    config, run = a_run(tmp_path)
    for name in (".checkpoint.pt.123-456.tmp", ".metrics.csv.9-7.tmp", ".mine", "notes.tmp"):
        (run.folder / name).write_text("half a file")
    with pytest.raises(RuntimeError, match="a fault"):
        train_in_folder(watched(tiny_network(), {1: fail})[0], PreparedRun(run, config, TRAIN, TEST), quiet)
    assert files(run.folder) == [".mine", "config.json", "data.json", "notes.tmp"]


@pytest.mark.parametrize("damage", ["garbage\n", "epoch,lr\n1,2\n1,2\n2,3\n", None], ids=["garbage", "other rows", "missing"])
def test_a_damaged_table_is_made_again_from_the_checkpoint(damage: str | None, tmp_path: Path) -> None:
    config, run = a_run(tmp_path, epochs=3)
    with pytest.raises(RuntimeError, match="a fault"):
        train_in_folder(watched(tiny_network(), {7: fail})[0], PreparedRun(run, config, TRAIN, TEST), quiet)
    before = (run.folder / "metrics.csv").read_bytes()
    assert [row[0] for row in table(run)] == ["1", "2"]
    (run.folder / "metrics.csv").unlink()
    if damage is not None:
        (run.folder / "metrics.csv").write_text(damage)
    with pytest.raises(RuntimeError, match="a fault"):  # before another epoch is complete
        train_in_folder(watched(tiny_network(), {1: fail})[0], PreparedRun(run, config, TRAIN, TEST), quiet)
    assert (run.folder / "metrics.csv").read_bytes() == before


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks on Windows")
def test_a_folder_that_another_process_trains_into_is_refused(tmp_path: Path) -> None:
    config, run = a_run(tmp_path)
    (run.folder / ".checkpoint.pt.123-456.tmp").write_text("being written")
    command = [sys.executable, "-c", HOLD, str(run.folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        before = snapshot(run.folder)
        with pytest.raises(RunError) as raised:
            train_in_folder(tiny_network(), PreparedRun(run, config, TRAIN, TEST), quiet)
        names, after = before.keys(), snapshot(run.folder)
        process.stdin.close()
    assert str(raised.value) == (
        f"{run.folder} is being trained by another process: wait until it is done, give another run_name, or set resume=False to "
        "train in a new folder."
    )
    assert names == after.keys()
    assert {name: after[name] for name in names if name != ".lock"} == {name: before[name] for name in names if name != ".lock"}
    assert train_in_folder(
        tiny_network(), PreparedRun(run, config, TRAIN, TEST), quiet
    ).history.complete  # the other one has ended
    assert files(run.folder) == ["checkpoint.pt", "config.json", "data.json", "metrics.csv", "summary.json"]


# ---- in a notebook ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "done", "resolution"), [(8, 2, 8), (11, 3, 10)])
@pytest.mark.parametrize("stop", [press_stop, terminate], ids=["stop button", "SIGTERM"])
def test_after_the_stop_button_the_complete_epochs_are_shown(
    stop: Callable[[], None], step: int, done: int, resolution: int, tmp_path: Path, reference: Reference
) -> None:
    config, run = a_run(tmp_path, **HARD)
    model, lines = network(), []
    _, history = train_or_stop(watched(model, {step: stop})[0], PreparedRun(run, config, TRAIN, TEST), lines.append)
    assert without_seconds(history) == without_seconds(reference.history)[:done]
    assert (history.planned, history.complete) == (4, False)
    assert history.stopped == f", stopped after epoch {done} of 4"
    assert history.config == run.config().resolved()
    assert lines[-2:] == [
        f"Stopped after epoch {done} of 4. Run again with the same values to go on from there ({run.folder}).",
        "What follows shows the run as it was then.",
    ]
    by_hand = network(seed=5)
    by_hand.load_state_dict(reference.weights[done - 1])
    by_hand.eval()
    with torch.no_grad():
        logits = by_hand(normalize(torch.from_numpy(TEST.images), TEST.mean, TEST.std, resolution))
    assert history.predictions.logits.shape == (10, 3)  # the whole test split, not the 5 images looked at between epochs
    np.testing.assert_allclose(history.predictions.logits, logits.numpy(), rtol=1e-6, atol=1e-7)
    assert history.predictions.labels.tolist() == TEST.labels.tolist()
    assert history.predictions.classes == TEST.classes
    assert same_weights(model.state_dict(), reference.weights[done - 1])  # what the pictures that follow explain

    again = network(seed=5)
    _, finished = train_or_stop(again, PreparedRun(run, config, TRAIN, TEST), quiet)
    check_complete(run, again, finished, reference)


def test_without_a_complete_epoch_there_is_nothing_to_show(tmp_path: Path) -> None:
    config, run = a_run(tmp_path)
    lines: list[str] = []
    with pytest.raises(RunStopped, match="stopped after epoch 0 of 1") as raised:
        train_or_stop(watched(tiny_network(), {2: press_stop})[0], PreparedRun(run, config, TRAIN, TEST), lines.append)
    assert raised.value.exit_code == 130
    assert lines[-1].startswith("Stopped after epoch 0 of 1. ")
    assert " ".join(raised.value._render_traceback_()) == (
        "Training was stopped after epoch 0 of 1. There is nothing to show before the first epoch is complete: run the training "
        "cell again, then those after it."
    )


def test_faults_are_not_taken_for_the_stop_button(tmp_path: Path) -> None:
    config, run = a_run(tmp_path, epochs=2)
    with pytest.raises(RuntimeError, match="a fault"):
        train_or_stop(watched(tiny_network(), {5: fail})[0], PreparedRun(run, config, TRAIN, TEST), quiet)


def test_a_run_that_was_stopped_fails_at_the_end_of_the_notebook(tmp_path: Path, reference: Reference) -> None:
    run = Run(tmp_path)
    with pytest.raises(RunError) as raised:
        require_complete(run, dataclasses.replace(reference.history, records=reference.history.records[:3]))
    assert str(raised.value) == "The run was stopped after epoch 3 of 4: run again to go on."
    assert raised.value._render_traceback_() == [str(raised.value)]
    run.checkpoint_file.write_bytes(b"x")
    run.write_json("summary.json", {"complete": True})
    assert require_complete(run, reference.history) is None


def test_a_person_is_told_that_a_run_was_stopped_and_nothing_fails(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "is_interactive", lambda: True)
    require_complete(Run(tmp_path), dataclasses.replace(reference.history, records=reference.history.records[:3]))
    assert capsys.readouterr().out == "The run was stopped after epoch 3 of 4: run again to go on.\n"


@pytest.mark.parametrize(
    "use",
    [
        lambda history: history.records,
        lambda history: history.stopped,
        lambda history: history.predictions.wrong(order="loss"),
        len,
        list,
        bool,
        lambda worst: int(worst[0]),
    ],
)
def test_what_is_not_trained_says_so_when_it_is_used(use: Callable[[Any], Any]) -> None:
    with pytest.raises(NotTrainedError) as raised:
        use(Untrained())
    assert " ".join(raised.value._render_traceback_()) == (
        "This cell shows a trained network. There is nothing to show before the first epoch is complete: run the training cell "
        "again, then those after it."
    )
    assert not hasattr(Untrained(), "_repr_html_")  # Jupyter looks for it and must not fail


# ---- what a review found --------------------------------------------------------------------------------------------


def test_a_run_stopped_in_its_first_epoch_starts_again_with_the_same_model_as_at_first(tmp_path, reference):
    """The training cell of a notebook is run again after the stop button, with the network that is there."""
    config, run = a_run(tmp_path, **HARD)
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RunStopped):
        train_in_folder(watched(model, {3: press_stop})[0], PreparedRun(run, config, TRAIN, TEST), quiet)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    check_complete(run, model, train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet).history, reference)


def test_a_device_asked_for_is_used_where_the_stored_precision_does_not_fit_it(tmp_path, loaded, monkeypatch):
    set_machine(monkeypatch, gpus=1)
    values = {**SMALL, "output_dir": str(tmp_path)}
    first = prepare("smoke", report=quiet, device="cpu", precision="fp32", **values)
    first.run.write_config(first.config.replace(device="cuda:0", precision="fp16"))
    lines = []
    second = prepare("smoke", report=lines.append, device="cpu", **{**values, "run_name": first.run.name})
    assert (second.config.device, second.config.precision) == ("cpu", "fp32")
    assert lines[0].startswith("This goes on with device 'cpu' instead of 'cuda:0', precision 'fp32' instead of 'fp16': ")


@pytest.mark.parametrize("by_name", [True, False])
def test_a_finished_run_is_shown_on_a_machine_without_its_device(by_name, tmp_path, loaded, monkeypatch):
    set_machine(monkeypatch, threads=2)
    values = {**SMALL, "output_dir": str(tmp_path)}
    first = prepare("smoke", report=quiet, **values)
    first.run.write_config(first.config.replace(device="cuda:0", precision="fp16", workers=2))
    keep_epochs(first.run, 4)
    first.run.write_summary(records(4), first.config, "colours", 0)
    lines = []
    asked = values if by_name else {"finished_run": str(first.run.folder)}
    shown = prepare("smoke", report=lines.append, **asked)
    assert resolve_device(shown.config.device) == torch.device("cpu")  # build_model and gradcam work there
    assert shown.config.precision == "fp32"
    assert lines == []


def test_a_run_that_was_stopped_is_no_finished_run(tmp_path, loaded):
    first = prepare("smoke", report=quiet, output_dir=str(tmp_path), **SMALL, **MACHINE)
    keep_epochs(first.run, 2)
    first.run.write_summary(records(2), first.config, "colours", 0, complete=False)
    with pytest.raises(FileNotFoundError, match="is not the folder of a finished run"):
        prepare("smoke", finished_run=str(first.run.folder), report=quiet)


def test_a_stop_in_the_final_test_fails_at_the_end_of_the_notebook(tmp_path, monkeypatch):
    config, run = a_run(tmp_path, **HARD, test_time_flip=True)
    predict = recording.predict

    def stopped_predict(*arguments, flip=False):
        if flip:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(recording, "predict", stopped_predict)
    _, history = train_or_stop(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    assert run.summary()["complete"] is False
    with pytest.raises(RunError):
        require_complete(run, history)


@pytest.mark.parametrize("resume", [True, False])
def test_a_precision_that_the_device_lacks_is_refused_before_any_data_is_loaded(resume, tmp_path, loaded):
    with pytest.raises(ValueError, match="precision is 'fp16' on cpu; it needs a CUDA GPU"):
        prepare("smoke", device="cpu", precision="fp16", resume=resume, output_dir=str(tmp_path / "runs"), report=quiet)
    assert loaded == []
    assert files(tmp_path) == []


def test_a_tilde_in_output_dir_is_the_home_folder(tmp_path: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    first = prepare("smoke", report=quiet, output_dir="~/runs", **SMALL, **MACHINE)
    assert first.run.folder.parent == tmp_path / "home" / "runs"
    assert prepare("smoke", report=quiet, output_dir="~/runs", **SMALL, **MACHINE).run == first.run
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_an_output_dir_that_no_system_takes_is_named(tmp_path: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"^output_dir 'x{300}' cannot be used \(.*\): give a folder"):
        prepare("smoke", report=quiet, output_dir="x" * 300, **SMALL, **MACHINE)
    assert (loaded, list(tmp_path.iterdir())) == ([], [])


def test_a_name_too_long_for_a_folder_is_a_bad_value(tmp_path, loaded):
    with pytest.raises(ValueError, match="run_name"):
        prepare("smoke", run_name="x" * 300, output_dir=str(tmp_path), report=quiet)


def test_the_summary_names_the_threads_that_were_used(tmp_path):
    config, run = a_run(tmp_path, threads=2 if torch.get_num_threads() != 2 else 1)
    train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    assert run.summary()["hardware"].endswith(f", {config.threads} threads)")


def test_a_stop_while_the_checkpoint_is_read_says_so_too(tmp_path, monkeypatch):
    config, run = a_run(tmp_path, **HARD)
    write = type(run).write_config
    monkeypatch.setattr(type(run), "write_config", lambda *_: press_stop())
    with pytest.raises(RunStopped):
        train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    monkeypatch.setattr(type(run), "write_config", write)


@pytest.mark.parametrize("graph", [True, False])
def test_a_gpu_that_stops_working_is_named_and_the_run_goes_on_after_its_last_epoch(
    graph: bool, tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA error: unspecified launch failure.\nSearch for cudaErrorLaunchFailure in the manual.")

    config, run = a_run(tmp_path, **HARD, cuda_graph=graph)
    model, _ = watched(network(), {8: broken})
    monkeypatch.setattr(model, "load_state_dict", lambda *_: fail())  # nothing can be copied to it any more
    with pytest.raises(DeviceFailedError) as raised:
        train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
    again = " If it happens again, set cuda_graph=False." if graph else ""
    assert str(raised.value) == (
        "'cpu' stopped working (CUDA error: unspecified launch failure), and this process cannot use it any more. Restart it (on "
        "Colab: Runtime > Restart session) and run again with the same values: the run goes on after epoch 2 of 4." + again
    )
    model = network(seed=1)
    check_complete(run, model, train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet).history, reference)


def test_a_gpu_that_stops_working_before_the_first_epoch_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("Caught an error in a thread.\nCUDA error: an illegal memory access was encountered\nmore")

    expected = (
        "'cpu' stopped working (CUDA error: an illegal memory access was encountered), and this process cannot use it any more. "
        "Restart it (on Colab: Runtime > Restart session) and run again with the same values and run_name='mine': nothing was "
        "finished that could be lost. If it happens again, set cuda_graph=False."
    )
    config, run = a_run(tmp_path, max_lr="auto", run_name="mine")
    monkeypatch.setattr(recording, "range_test", broken)
    with pytest.raises(DeviceFailedError) as raised:
        choose_learning_rate(tiny_network(), PreparedRun(run, config, TRAIN, TEST))
    assert str(raised.value) == expected
    model, _ = watched(network(), {1: broken})
    with pytest.raises(DeviceFailedError) as raised:
        train_in_folder(model, PreparedRun(run, config.replace(max_lr=0.1), TRAIN, TEST), quiet)
    assert str(raised.value) == expected


@pytest.mark.parametrize("text", ["CUDA error: no kernel image is available", "CUDA error: out of memory", "a fault"])
def test_other_errors_are_not_taken_for_a_gpu_that_stopped_working(text: str) -> None:
    assert not is_device_failure(RuntimeError(text))


def test_a_run_goes_on_without_a_graph_where_that_is_asked_for(tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    values = {"output_dir": str(tmp_path), **SMALL, **MACHINE}
    first = prepare("smoke", report=quiet, **values)
    assert first.config.cuda_graph
    second = prepare("smoke", report=quiet, cuda_graph=False, **values)
    assert (second.run.folder, second.config.cuda_graph) == (first.run.folder, False)


def test_a_run_with_muon_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    def two_convolutions(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        first, norm, second = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, bias=False)
        return nn.Sequential(first, norm, nn.ReLU(), second, nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    weights = []
    for name, actions in (("in one go", {}), ("stopped", {8: press_stop})):
        config, run = a_run(tmp_path / name, **HARD, optimizer="muon")
        model, _ = watched(two_convolutions(0), actions)
        if actions:
            with pytest.raises(RunStopped):
                train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
            model = two_convolutions(1)
        train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet)
        weights.append({key.replace("module.", ""): value for key, value in model.state_dict().items()})
    assert same_weights(*weights)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory")])
def test_a_range_test_that_does_not_fit_says_what_to_do(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise error

    config, run = a_run(tmp_path, max_lr="auto")
    monkeypatch.setattr(recording, "range_test", full)
    with pytest.raises(OutOfMemoryError) as raised:
        choose_learning_rate(tiny_network(), PreparedRun(run, config, TRAIN, TEST))
    assert str(raised.value) == (
        "The memory of 'cpu' is full at batch_size=8: set batch_size=4 (and halve max_lr with it) and run again."
    )
    assert raised.value.__context__ is None  # nothing holds on to the step that did not fit
    monkeypatch.setattr(recording, "range_test", lambda *_: fail())
    with pytest.raises(RuntimeError, match="a fault"):
        choose_learning_rate(tiny_network(), PreparedRun(run, config, TRAIN, TEST))
    assert run.range_test() is None


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_output_folder_that_cannot_be_made_is_refused(below: str, tmp_path: Path, loaded: list[tuple[Any, Any]]) -> None:
    (tmp_path / "taken").write_text("precious")
    root = tmp_path / "taken" / below
    with pytest.raises(RunError) as raised:
        prepare("smoke", report=quiet, output_dir=str(root), **SMALL, **MACHINE)
    reason = "Not a directory" if below else "File exists"
    assert str(raised.value) == f"output_dir {str(root)!r} cannot be used ({reason}): give a folder that can be written."
    assert (tmp_path / "taken").read_text() == "precious"
    assert files(tmp_path) == ["taken"]


def test_a_disk_that_fills_up_in_epoch_two_leaves_epoch_one_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Reference
) -> None:
    config, run = a_run(tmp_path, **HARD)
    save = Checkpoint.save

    def full(self: Checkpoint, path: Path) -> None:
        if len(self.records) == 2:
            raise OSError(28, "No space left on device")
        save(self, path)

    monkeypatch.setattr(Checkpoint, "save", full)
    with pytest.raises(RunError) as raised:
        train_in_folder(network(), PreparedRun(run, config, TRAIN, TEST), quiet)
    assert str(raised.value) == (
        f"The checkpoint cannot be written into {run.folder} (No space left on device): the previous one is still there. "
        "Make room, and run again with the same values to go on from it."
    )
    assert run.complete_epochs() == 1
    monkeypatch.setattr(Checkpoint, "save", save)
    model = network()
    check_complete(run, model, train_in_folder(model, PreparedRun(run, config, TRAIN, TEST), quiet).history, reference)
