"""What trackers get to see of a run, and that none of them decides anything about it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hosted_trackers import install
from PIL import Image
from run_folders import same_weights
from stopping import Steps, own_sigterm_handler, press_stop
from tiny import asking, colored_images, plan, quiet, tiny_network

from era_support_packages.datasets.image_dataset import data_fingerprint
from era_support_packages.runs.folder import Run
from era_support_packages.runs.preparation import PreparedRun, prepare
from era_support_packages.runs.recording import RunStopped, train_in_folder
from era_support_packages.runs.tracking import FIGURES, scalars, track_figures
from era_support_packages.system.extras import is_installed
from era_support_packages.training import batch_norm, config_checks
from era_support_packages.training.history import EpochRecord

TRAIN, TEST = colored_images(24), colored_images(10, split="test", seed=1)  # three steps an epoch
DATA = data_fingerprint(TRAIN, TEST)
WITHOUT = "needs TensorBoard: pip install tensorboard"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batch_norm, "FEW_STEPS", 0)  # the steps of the training alone are counted
    with own_sigterm_handler():
        yield


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., PreparedRun]:
    """`start(tracker)` makes the folder of a run of four epochs."""

    def begin(tracker: str | None, name: str = "tracked") -> PreparedRun:
        values: dict[str, Any] = {"dataset": "colours", "epochs": 4, "output_dir": str(tmp_path / "runs"), "run_name": name}
        config = plan(**values, tracker=tracker)
        return PreparedRun(Run.create(asking(**values), "colours", config, DATA), config, TRAIN, TEST)

    return begin


def stopped_in_epoch(number: int, prepared: PreparedRun) -> None:
    """Train until the stop button is pressed in the second step of that epoch."""
    network = Steps({3 * (number - 1) + 2: press_stop}).watch(tiny_network())
    with pytest.raises(RunStopped):
        train_in_folder(network, prepared, quiet)


def warnings_of(prepared: PreparedRun) -> tuple[list[str], Any]:
    """Train to the end; the warnings about the tracker, and the history."""
    said: list[str] = []
    history = train_in_folder(tiny_network(), prepared, said.append).history
    assert history.complete
    assert prepared.run.finished
    return [line for line in said if "tracker" in line], history


def events(run: Run) -> Any:
    """What TensorBoard itself reads of a run."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=WITHOUT)
    return accumulator.EventAccumulator(str(run.folder / "tensorboard")).Reload()


def rows_of(run: Run) -> dict[str, list[tuple[int, float]]]:
    found = events(run)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def rows_in(history: Any) -> dict[str, list[tuple[int, float]]]:
    """The same as the run has them, in the 32 bits of an event file."""
    names = scalars(history.records[0])
    return {name: [(record.epoch, float(np.float32(scalars(record)[name]))) for record in history.records] for name in names}


def draw_figures(run: Run) -> None:
    for name in (*FIGURES, "confusion_matrix.png"):
        Image.new("RGB", (40, 30), "white").save(run.folder / name)


# ---- TensorBoard -------------------------------------------------------------------------------------------------------


def test_tensorboards_own_reader_finds_the_rows_the_values_and_the_figures(start):
    prepared = start("tensorboard")
    pytest.importorskip("tensorboard", reason=WITHOUT)
    warned, history = warnings_of(prepared)
    assert warned == []
    found = rows_of(prepared.run)
    assert found == rows_in(history)
    assert {"train/loss", "train/accuracy", "test/loss", "test/accuracy", "lr", "px", "seconds"} == found.keys()
    draw_figures(prepared.run)
    for _ in range(2):  # a cell may be run again
        track_figures(prepared, quiet)
    read = events(prepared.run)
    assert sorted(read.Tags()["images"]) == sorted(f"figures/{Path(name).stem}" for name in FIGURES)
    assert [(image.step, image.width, image.height) for image in read.Images("figures/gradCAM")] == [(4, 40, 30)]
    text = read.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| max_lr | 0.1 |" in text
    assert read.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name == "hparams"
    assert rows_of(prepared.run) == rows_in(history)  # the figures did not take their place
    train_in_folder(tiny_network(), prepared, quiet)  # shown again: the same rows, and the figures stay
    assert rows_of(prepared.run) == rows_in(history)
    assert "figures/gradCAM" in events(prepared.run).Tags()["images"]


def test_a_run_that_was_stopped_goes_on_without_a_step_twice_and_with_the_same_numbers(start):
    pytest.importorskip("tensorboard", reason=WITHOUT)
    reference = start(None, "plain")
    expected = train_in_folder(tiny_network(), reference, quiet)
    prepared = start("tensorboard")
    stopped_in_epoch(3, prepared)
    assert [step for step, _ in rows_of(prepared.run)["lr"]] == [1, 2]
    draw_figures(prepared.run)
    track_figures(prepared, quiet)
    stopped_in_epoch(4 - 2, prepared)  # steps are counted anew: in the second epoch of what is left, the last
    (lost,) = [file for file in (prepared.run.folder / "tensorboard").iterdir() if not file.name.endswith(".figures")]
    lost.unlink()  # as after a process was killed before it wrote them
    warned, history = warnings_of(prepared)
    assert warned == []
    assert rows_of(prepared.run) == rows_in(history)
    assert len(list((prepared.run.folder / "tensorboard").iterdir())) == 1  # the figures showed the run as it was stopped
    assert [record.test_loss for record in history.records] == [record.test_loss for record in expected.history.records]
    weights = [Run(one.run.folder).checkpoint(tiny_network(), TEST).model for one in (prepared, reference)]
    assert same_weights(*weights)


@pytest.mark.parametrize("place", ["a file", "the start", "the middle"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_event_writer_that_fails_stops_no_run_and_is_named_once(place, start, monkeypatch):
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer", reason=WITHOUT)
    prepared = start("tensorboard")
    real, written = writer.RecordWriter.write, []

    def write(self: Any, data: bytes) -> None:
        written.append(data)
        if len(written) > {"the start": 0, "the middle": 20}[place]:
            raise OSError(28, "No space left on device")
        real(self, data)

    if place == "a file":
        (prepared.run.folder / "tensorboard").write_text("mine")
    else:
        monkeypatch.setattr(writer.RecordWriter, "write", write)
    warned, history = warnings_of(prepared)
    assert len(warned) == 1
    assert warned[0].startswith("Warning: the tracker 'tensorboard' failed (")
    if place == "a file":
        assert (prepared.run.folder / "tensorboard").read_text() == "mine"
    else:
        assert "No space left on device" in warned[0]
    assert len(history.records) == len((prepared.run.folder / "metrics.csv").read_text().splitlines()) - 1 == 4


# ---- trackio and Weights & Biases --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_run_of_theirs_gets_each_epoch_once_and_the_figures(name, start, tmp_path, monkeypatch, capsys):
    module = install(name, tmp_path, monkeypatch)
    prepared = start(name)
    stopped_in_epoch(3, prepared)
    draw_figures(prepared.run)
    track_figures(prepared, quiet)
    warned, history = warnings_of(prepared)
    track_figures(prepared, quiet)
    assert (warned, module.OPEN) == ([], [])
    (rows,) = module.RUNS.values()
    numbers = [(step, values) for step, values in rows if "lr" in values]
    epochs = [values["epoch"] if name == "wandb" else step for step, values in numbers]
    assert epochs == [1, 2, 3, 4]
    assert [values["test/loss"] for _, values in numbers] == [record.test_loss for record in history.records]
    pictures = [values["figures/gradCAM"] for _, values in rows if "figures/gradCAM" in values]
    assert [Path(picture.path).name for picture in pictures] == ["gradCAM.png"] * 2
    assert "synced" not in capsys.readouterr().out  # what a tracker prints is no result of a command
    other = start(name, "tracked")  # the folder of that name is taken: it is tracked-2
    warnings_of(other)
    assert len(module.RUNS) == 2


@pytest.mark.parametrize("name", ["trackio", "wandb"])
@pytest.mark.parametrize("at", ["init", "the second epoch", "finish"])
def test_theirs_that_fail_stop_no_run_and_are_named_once(name, at, start, tmp_path, monkeypatch):
    module = install(name, tmp_path, monkeypatch)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    if at == "the second epoch":
        module.FAIL_AT.append(2)
    else:
        monkeypatch.setattr(*((module, "init") if at == "init" else (module.Run, "finish")), fail)
    warned, _ = warnings_of(start(name))
    said = "the network is gone" if at == "the second epoch" else "offline"
    expected = f"Warning: the tracker {name!r} failed ({said}): the run goes on without it, and its own files are whole."
    assert warned == [expected]


# ---- before a run ------------------------------------------------------------------------------------------------------


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_checks, "is_installed", lambda name: False)
    with pytest.raises(ValueError, match=r"^tracker is 'trackio', .*pip install trackio"):
        prepare("smoke", dataset="digits", tracker="trackio")
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_renames_no_run_and_the_same_values_go_on_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_checks, "is_installed", lambda name: True)
    plain = prepare("smoke", dataset="digits", report=quiet)
    tracked = prepare("smoke", dataset="digits", tracker="wandb", report=quiet)
    assert (tracked.run, tracked.config.tracker, plain.config.tracker) == (plain.run, "wandb", None)
    assert json.loads((plain.run.folder / "config.json").read_text())["tracker"] is None


def test_a_package_is_more_than_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "no_such_tracker").mkdir()  # as Weights & Biases makes one where it is used
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (is_installed("no_such_tracker"), is_installed("json")) == (False, True)


def test_what_was_not_looked_at_is_left_out():
    record = EpochRecord(1, 8, 24, 0.05, 1.0, 50.0, None, None, None, None, 1.5, 2.0, 40.0, 4, 10)
    assert list(scalars(record)) == [
        *("train/loss", "train/accuracy", "validation/loss", "validation/accuracy", "lr", "px", "seconds"),
    ]
