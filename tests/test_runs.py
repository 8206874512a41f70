"""A run's folder: what is written, that nothing is overwritten or left half-written, and that it loads again."""

import copy
import csv
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from era_support_packages import runs
from era_support_packages.batches import normalize
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import describe, versions
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.predictions import Predictions
from era_support_packages.run_cost import training_flops
from era_support_packages.runs import Run, train_and_record, train_or_show, write_atomically
from era_support_packages.training import EpochRecord, TrainingDivergedError, log_header, log_row

CPU = torch.device("cpu")
RECORDS = (
    EpochRecord(1, 16, 24, 0.05, 2.25, 12.5, 2.125, 33.5, 67, 200, 1.5),
    EpochRecord(2, 16, 24, 4e-06, 1.0 / 3, 100.0, 0.1, 66.0, 132, 200, 2.25),
)


def tiny_network(classes: int = 3, width: int = 8, seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, ReLU, global pooling, linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 8, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(8),
                relu=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                linear=nn.Linear(8, classes) if width == 8 else nn.Sequential(nn.Linear(8, width), nn.Linear(width, classes)),
            )
        ).to(memory_format=torch.channels_last)


def random_images(count: int, split: str = "train", classes: tuple[str, ...] = ("a", "b", "c"), seed: int = 0) -> ImageDataset:
    """Noise, the class of image i being i modulo the number of classes."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(classes)
    return ImageDataset(images, labels, classes, "noise", "noise", split, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def plan(output_dir: Path | str = "runs", **changes: Any) -> TrainingConfig:
    """Two epochs of three small batches on the CPU."""
    values = {
        "epochs": 2,
        "resolutions": ((8, 1.0),),
        "batch_size": 8,
        "max_lr": 0.05,
        "dataset": "noise",
        "horizontal_flip": 0.0,
        "device": "cpu",
        "precision": "fp32",
        "workers": 0,
        "seed": 3,
        "output_dir": str(output_dir),
    }
    return TrainingConfig("smoke", **{**values, **changes})


def quiet(_: str) -> None:
    """A report that goes nowhere."""


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_create_makes_a_folder_named_after_the_configuration(tmp_path: Path) -> None:
    config = plan(tmp_path / "deep" / "runs")
    run = Run.create(config, "noise")
    assert run.folder == tmp_path / "deep" / "runs" / config.default_run_name("noise")
    assert re.fullmatch(r"smoke-noise-[0-9a-f]{6}", run.name)
    assert files(run.folder) == ["config.json"]
    assert json.loads((run.folder / "config.json").read_text()) == config.to_dict()
    assert run.config() == config
    assert not run.finished


def test_a_name_that_is_taken_is_counted_up_and_nothing_is_overwritten(tmp_path: Path) -> None:
    config = plan(tmp_path, run_name="mine")
    first = Run.create(config, "noise")
    (first.folder / "metrics.csv").write_text("precious")
    second = Run.create(config.replace(seed=9), "noise")
    third = Run.create(config, "noise")
    assert [run.name for run in (first, second, third)] == ["mine", "mine-2", "mine-3"]
    assert files(first.folder) == ["config.json", "metrics.csv"]
    assert (first.folder / "metrics.csv").read_text() == "precious"
    assert (first.config().seed, second.config().seed) == (3, 9)
    assert files(tmp_path) == ["mine", "mine-2", "mine-3"]


def test_a_changed_value_gives_a_new_folder_and_a_file_in_the_way_stays(tmp_path: Path) -> None:
    one, other = Run.create(plan(tmp_path), "noise"), Run.create(plan(tmp_path, seed=4), "noise")
    assert one.name != other.name
    assert not other.name.endswith("-2")
    (tmp_path / "taken").write_text("a file")
    assert Run.create(plan(tmp_path, run_name="taken"), "noise").name == "taken-2"
    assert (tmp_path / "taken").read_text() == "a file"


def test_listing_names_each_file_and_its_size(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(bytes(5 * 1024 + 7))
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")
    assert Run(tmp_path).listing().splitlines() == [
        f"Everything is in {tmp_path}",
        "  checkpoint.pt       1 KiB",
        "  log.txt             5 KiB",
    ]


# ---- files written whole or not at all -------------------------------------------------------------------------------


def failing(message: str) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise OSError(message)

    return fail


def test_write_atomically_replaces_the_content(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    write_atomically(file, b"old")
    assert file.read_bytes() == b"old"
    write_atomically(file, b"new, and longer")
    assert file.read_bytes() == b"new, and longer"
    assert files(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_fails_midway_leaves_the_old_content_and_no_other_file(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, function, failing("disk full"))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, b"new")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "another.txt", b"new")
    assert file.read_bytes() == b"old"
    assert files(tmp_path) == ["file.txt"]


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "file.txt", []
    file.write_bytes(b"old")
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        seen.append(("fsync", os.fstat(descriptor).st_size, file.read_bytes()))
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        seen.append(("replace", Path(source).parent == tmp_path, Path(source).read_bytes(), target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomically(file, b"newer")
    assert seen == [("fsync", 5, b"old"), ("replace", True, b"newer", file)]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, predictions = Run(tmp_path), Predictions(np.zeros((2, 3), np.float32), np.zeros(2, np.int64), ("a", "b", "c"))
    run.save_checkpoint(tiny_network(), plan(), RECORDS, predictions)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def half_a_save(content: Any, buffer: Any) -> None:
        buffer.write(b"half a checkpoint")
        raise RuntimeError("cannot pickle")

    monkeypatch.setattr(torch, "save", half_a_save)
    with pytest.raises(RuntimeError, match="cannot pickle"):
        run.save_checkpoint(tiny_network(seed=1), plan(), RECORDS, predictions)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert files(tmp_path) == ["checkpoint.pt"]


# ---- what is in the files --------------------------------------------------------------------------------------------


def test_metrics_csv_to_the_character(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_metrics(RECORDS[:1])
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
    run.write_metrics(RECORDS)
    assert (tmp_path / "metrics.csv").read_bytes().decode() == (
        "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds\n"
        "1,0.05,2.25,12.5,2.125,33.5,1.5\n"
        "2,4e-06,0.3333333333333333,100.0,0.1,66.0,2.25\n"
    )


def test_summary_json(tmp_path: Path) -> None:
    run = Run(tmp_path)
    values = run.write_summary(RECORDS, plan(), "noise", flops=167 * 10**12, test_accuracy_tta=67.5)
    assert list(values) == [
        "dataset",
        "preset",
        "epochs",
        "test_accuracy",
        "test_accuracy_tta",
        "pflops",
        "seconds",
        "seed",
        "versions",
        "hardware",
    ]
    assert values == {
        "dataset": "noise",
        "preset": "smoke",
        "epochs": 2,
        "test_accuracy": 66.0,
        "test_accuracy_tta": 67.5,
        "pflops": 0.167,
        "seconds": 3.75,
        "seed": 3,
        "versions": versions(),
        "hardware": describe(CPU),
    }
    assert run.summary() == json.loads((tmp_path / "summary.json").read_text()) == values
    assert run.finished
    assert run.write_summary(RECORDS, plan(), "noise", flops=0)["test_accuracy_tta"] is None
    assert json.loads((tmp_path / "summary.json").read_text())["test_accuracy_tta"] is None


def test_checkpoint_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    model, logits = tiny_network(), np.arange(6, dtype=np.float32).reshape(2, 3)
    Run(tmp_path).save_checkpoint(model, plan(), RECORDS, Predictions(logits, np.zeros(2, np.int64), ("a", "b", "c")))
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert sorted(content) == ["config", "logits", "model", "records"]
    assert same_weights(content["model"], model.state_dict())
    assert not model.conv.weight.is_contiguous()  # channels_last in the model,
    assert all(value.is_contiguous() for value in content["model"].values())  # but not in the file
    assert TrainingConfig.from_dict(content["config"]) == plan()
    assert [EpochRecord(**record) for record in content["records"]] == list(RECORDS)
    assert content["logits"].tolist() == logits.tolist()


# ---- opening and loading ---------------------------------------------------------------------------------------------


def test_open_wants_a_finished_run(tmp_path: Path) -> None:
    def refusal() -> str:
        with pytest.raises(FileNotFoundError) as raised:
            Run.open(str(tmp_path))
        return str(raised.value)

    sentence = "{} is not the folder of a finished run: it has no {}; give one that has, or train a new one."
    assert refusal() == sentence.format(tmp_path, "checkpoint.pt")
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    assert refusal() == sentence.format(tmp_path, "summary.json")
    (tmp_path / "summary.json").write_text('{"seed": 1}')
    assert Run.open(tmp_path) == Run.open(str(tmp_path)) == Run(tmp_path)
    assert Run.open(tmp_path).summary() == {"seed": 1}
    with pytest.raises(FileNotFoundError, match="is not the folder of a finished run"):
        Run.open(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, nn.Module, Any, list[str]]:
    """A finished run with its model, its history and its reported lines."""
    config = plan(tmp_path_factory.mktemp("runs"), test_time_flip=True)
    model, lines = tiny_network(), []
    run = Run.create(config, "noise")
    history = train_and_record(model, random_images(24), random_images(10, "test", seed=1), config, run, 5, lines.append)
    return run, model, history, lines


def test_a_recorded_run_is_complete(recorded: tuple[Run, nn.Module, Any, list[str]]) -> None:
    run, _, history, lines = recorded
    assert files(run.folder) == ["checkpoint.pt", "config.json", "metrics.csv", "summary.json"]
    assert lines[1:] == [log_header(), *map(log_row, history.records)]
    with open(run.folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == [
        {name: getattr(record, name) for name in runs.METRICS} for record in history.records
    ]
    summary = Run.open(run.folder).summary()
    assert summary["test_accuracy"] == history.records[-1].test_accuracy == history.predictions.accuracy
    assert summary["pflops"] == training_flops(tiny_network(), run.config(), 24, 5) / 1e15
    assert (summary["dataset"], summary["epochs"], summary["seed"]) == ("noise", 2, 3)
    assert summary["seconds"] == pytest.approx(history.seconds)
    assert run.config() == history.config


def test_accuracy_with_mirrored_images_by_hand(recorded: tuple[Run, nn.Module, Any, list[str]]) -> None:
    run, model, _, _ = recorded
    test = random_images(10, "test", seed=1)
    images = normalize(torch.from_numpy(test.images), test.mean, test.std)
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits = twin(images) + twin(images.flip(3))
    assert run.summary()["test_accuracy_tta"] == 10 * int((logits.argmax(dim=1).numpy() == test.labels).sum())


def test_a_run_loads_again(recorded: tuple[Run, nn.Module, Any, list[str]]) -> None:
    run, model, history, _ = recorded
    test = random_images(10, "test", seed=1)
    other = tiny_network(seed=5)
    assert not same_weights(other.state_dict(), model.state_dict())
    loaded = Run.open(run.folder).load(other, test)
    assert same_weights(other.state_dict(), model.state_dict())
    assert other.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert loaded.records == history.records
    assert loaded.config == history.config
    assert loaded.seconds == history.seconds
    assert loaded.predictions.logits.tolist() == history.predictions.logits.tolist()
    assert loaded.predictions.labels.tolist() == test.labels.tolist()
    assert loaded.predictions.classes == ("a", "b", "c")
    assert loaded.predictions.accuracy == history.records[-1].test_accuracy


@pytest.mark.parametrize("other", [tiny_network(classes=4, seed=5), tiny_network(width=5, seed=5)], ids=["shape", "layers"])
def test_weights_of_another_network_are_refused(other: nn.Module, recorded: tuple[Run, nn.Module, Any, list[str]]) -> None:
    run = recorded[0]
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="another network") as raised:
        run.load(other, random_images(10, "test", seed=1))
    assert str(raised.value) == f"{run.folder} holds the weights of another network; build the model of its config.json."
    assert same_weights(other.state_dict(), before)  # also the layers that would have fitted


@pytest.mark.parametrize(
    ("test", "has"),
    [
        (random_images(9, "test"), "9 of 3"),
        (random_images(10, "test", ("a", "b", "c", "d")), "10 of 4"),
    ],
)
def test_another_test_split_is_refused(test: ImageDataset, has: str, recorded: tuple[Run, nn.Module, Any, list[str]]) -> None:
    run, model = recorded[0], tiny_network(len(test.classes), seed=5)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="was tested on") as raised:
        run.load(model, test)
    assert str(raised.value) == (
        f"{run.folder} was tested on 10 images of 3 classes, but the data set has {has}; load the data set of its config.json."
    )
    assert same_weights(model.state_dict(), before)


# ---- training into a folder ------------------------------------------------------------------------------------------


def test_an_unresolved_configuration_is_written_down_resolved(tmp_path: Path) -> None:
    config = plan(tmp_path, dataset="auto", device="auto", workers="auto", epochs=1, test_time_flip=True)
    run = Run.create(config, "noise")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("the automatic device is a GPU here")
    history = train_and_record(tiny_network(), random_images(8), random_images(5, "test"), config, run, report=quiet)
    assert (history.config.dataset, history.config.device, history.config.workers) == ("noise", "cpu", 0)
    assert run.config() == history.config
    assert run.load(tiny_network(), random_images(5, "test")).config == history.config
    assert run.summary()["hardware"] == describe(CPU)


class DivergesInEpochTwo(nn.Module):
    """The loss becomes NaN at the fourth training step."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.steps = tiny_network(), 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        return self.network(images) * (float("nan") if self.steps > 3 else 1.0)


def test_a_run_that_breaks_off_keeps_its_finished_rows_and_counts_as_unfinished(tmp_path: Path) -> None:
    run = Run.create(plan(tmp_path), "noise")
    with pytest.raises(TrainingDivergedError, match="in epoch 2"):
        train_and_record(DivergesInEpochTwo(), random_images(24), random_images(5, "test"), plan(tmp_path), run, report=quiet)
    assert files(run.folder) == ["config.json", "metrics.csv"]
    assert [row.split(",")[0] for row in (run.folder / "metrics.csv").read_text().splitlines()] == ["epoch", "1"]
    assert not run.finished
    with pytest.raises(FileNotFoundError, match=r"it has no checkpoint\.pt"):
        Run.open(run.folder)


def test_train_or_show_trains_once_and_then_shows(tmp_path: Path) -> None:
    train, test, config = random_images(24), random_images(10, "test", seed=1), plan(tmp_path)
    run, model = Run.create(config, "noise"), tiny_network()
    history = train_or_show(model, train, test, config, run, report=quiet)
    assert run.finished
    summary = {**run.summary(), "seconds": 200.4, "hardware": "an abacus"}
    run.write_json("summary.json", summary)
    before = {name: (run.folder / name).stat().st_mtime_ns for name in files(run.folder)}

    fresh, lines = tiny_network(seed=5), []
    shown = train_or_show(fresh, train, test, config, run, report=lines.append)
    assert same_weights(fresh.state_dict(), model.state_dict())
    assert shown.records == history.records
    assert "\n".join(lines).splitlines() == [
        f"Not trained now: this is the run {run.name}, trained in 3 min 20 s on an abacus.",
        log_header(),
        *map(log_row, history.records),
    ]
    assert {name: (run.folder / name).stat().st_mtime_ns for name in files(run.folder)} == before
