"""The command line, from its options to its exit code."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import files, same_weights, untouched
from stopping import STOPS, Steps, own_sigterm_handler, press_stop, raising
from tiny import colored_images, tiny_network
from torch import nn

from era_support_packages.commands import command_line as command
from era_support_packages.datasets import cifar, loading as datasets
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset
from era_support_packages.models.custom_resnet import CustomResNet
from era_support_packages.runs import recording
from era_support_packages.runs.folder import Run
from era_support_packages.system.settings import choices, fields, setting_of
from era_support_packages.training import batch_norm, lr_finder
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import duration, flops_per_image, forward_flops
from era_support_packages.training.history import log_header, log_row
from era_support_packages.training.lr_finder import RangeTest
from era_support_packages.training.setup import build_model

ROOT = Path(__file__).parents[2]
SMALL = ["--preset", "smoke", "--resolutions", "[[8, 1.0]]", "--batch-size", "4", "--crop-padding", "0"]
SMALL += ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
TWO_EPOCHS = [*SMALL, "--train-images", "32", "--output-dir"]  # of four steps each
TEST = colored_images(6, split="test", seed=1)


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    with own_sigterm_handler():
        yield


@pytest.fixture
def loaded(monkeypatch) -> list[tuple[Any, Any]]:
    """16 and 6 small images in place of every data set; the list of what was asked for."""
    asked: list[tuple[Any, Any]] = []

    def load(name: str, root: str | None) -> tuple[ImageDataset, ImageDataset]:
        asked.append((name, root))
        return colored_images(16), TEST

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(datasets, "check", lambda *_: None)
    return asked


@pytest.fixture
def steps(loaded, monkeypatch) -> Steps:
    """A network of a few channels in place of every other; the steps of those that are built."""
    seen = Steps()

    def build(prepared: recording.PreparedRun, _: object) -> nn.Module:
        return seen.watch(tiny_network(len(prepared.train.classes), prepared.config.seed))

    monkeypatch.setattr(recording.PreparedRun, "build_model", build)
    return seen


@pytest.fixture
def range_tests(monkeypatch) -> list[tuple[Any, ...]]:
    """A made-up curve of three batches in place of every range test; what they were made for."""
    asked: list[tuple[Any, ...]] = []

    def range_test(model: nn.Module, train: ImageDataset, test_size: int, config: TrainingConfig) -> RangeTest:
        asked.append((len(train), test_size, config.max_lr))
        return CURVE

    monkeypatch.setattr(recording, "range_test", range_test)
    return asked


CURVE = RangeTest(*[np.array([2.0, 1.0, 1.5])] * 3, {"steepest": 0.5, "valley": 0.03125, "minimum/10": 0.25})


def only_run(root: Path) -> Run:
    (folder,) = root.iterdir()
    return Run.open(folder)


def test_a_run_from_end_to_end(tmp_path, loaded, capsys):
    options = ["--model", "resnet_custom", "--train-images", "16", "--max-lr", "0.01", "--seed", "6"]
    options += ["--dataset", "some/folder", "--data-root", "elsewhere", "--output-dir", str(tmp_path / "out")]
    assert command.main([*SMALL, *options]) == 0
    assert loaded == [("some/folder", "elsewhere")]
    run = only_run(tmp_path / "out")
    config, summary = run.config(), run.summary()
    given = {"model": "resnet_custom", "train_images": 16, "max_lr": 0.01, "seed": 6, "dataset": "some/folder"}
    given |= {"output_dir": str(tmp_path / "out"), "resolutions": [[8, 1.0]], "batch_size": 4, "crop_padding": 0}
    asked = TrainingConfig.preset("smoke", **given, device="cpu", precision="fp32", workers=0)
    assert run.name == asked.default_run_name("colours")
    answered = {"image_size": 32, "fit": "crop", "pretrained": False}
    answered |= {"engine": "device", "stream": False, "threads": torch.get_num_threads(), "horizontal_flip": 0.5}
    assert config.to_dict() == {**asked.to_dict(), **answered}
    expected = {"complete": True, "dataset": "colours", "preset": "smoke", "epochs": 1, "seed": 6}
    assert {name: summary[name] for name in expected} == expected
    model = build_model(config, 3)
    assert isinstance(model, CustomResNet)
    (record,) = run.load(model, TEST).records
    assert record.images == 16

    output = capsys.readouterr()
    (few, *lines), values = output.out.splitlines(), str(config).splitlines()
    assert few.startswith("colours: with 5 training images of 'green'")
    assert lines[: len(values) + 1] == [f"Run {run.folder}", *values]
    assert lines[-4].startswith("This run will take about ")
    done = f"{summary['test_accuracy']:.2f} % of the test split; written to {run.folder}"
    assert lines[-3:] == [log_header(), log_row(record), done]
    assert "error" not in output.err


def test_max_lr_comes_from_the_range_test_where_none_is_given(tmp_path, steps, range_tests, capsys):
    assert command.main([*TWO_EPOCHS, str(tmp_path), "--max-lr", "auto"]) == 0
    assert range_tests == [(16, 6, "auto")]
    run = only_run(tmp_path)
    config = run.config()
    assert (config.max_lr, config.train_images) == (0.03125, 32)
    _, sentence = lr_finder.choose_max_lr(config.replace(max_lr="auto"), CURVE)
    assert capsys.readouterr().out.splitlines()[0] == sentence
    # three batches of four images for the range test, 32 images for the run
    network = tiny_network()
    statistics = 2 * 16 * forward_flops(network, 8)  # of so short a run, from all 16 images after each of two epochs
    flops = (32 + 3 * 4) * flops_per_image(network, 8) + statistics
    assert run.summary()["pflops"] == pytest.approx(flops / 1e15)

    assert command.main([*TWO_EPOCHS, str(tmp_path), "--max-lr", "0.1", "--run-name", "given"]) == 0
    assert len(range_tests) == 1
    assert Run.open(tmp_path / "given").config().max_lr == 0.1


def test_a_range_test_that_suggests_nothing_ends_with_its_sentence(tmp_path, steps, monkeypatch, capsys):
    monkeypatch.setattr(recording, "range_test", lambda *_: dataclasses.replace(CURVE, suggestions={}))
    assert command.main([*SMALL, "--max-lr", "auto", "--output-dir", str(tmp_path)]) == 2
    message = "error: The loss never fell in the range test, so it suggests nothing; give --max-lr as a number.\n"
    assert capsys.readouterr().err == message
    (folder,) = tmp_path.iterdir()
    assert files(folder) == ["config.json", "data.json", "range_test.json"]


def test_every_parameter_is_an_option():
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    options = {action.dest: action.option_strings for action in command.build_parser()._actions}
    own = {"help", "preset", "data_root", "resume", "devices", "figures", "json", "quiet"}
    assert set(options) == {*own, *names} - {"preset_name"}
    assert [options[name] for name in ("train_images", "max_lr", "resume")] == [["--train-images"], ["--max-lr"], ["--no-resume"]]


def test_values_are_read_as_what_the_configuration_takes():
    arguments = ["--epochs", "3", "--max-lr", "1e-2", "--resolutions", "[[16, 0.5], [32, 0.5]]", "--test-time-flip", "true"]
    arguments += ["--workers", "auto", "--run-name", "2024", "--dataset", "data/cifar10-jpeg", "--test-images", "null"]
    options = command.build_parser().read(arguments)
    expected = {"preset": "auto", "resume": True, "epochs": 3, "max_lr": 0.01, "resolutions": [[16, 0.5], [32, 0.5]]}
    expected |= {"test_time_flip": True, "workers": "auto", "dataset": "data/cifar10-jpeg", "devices": 1}
    expected["run_name"] = "2024"  # text, though it looks like a number
    assert {name: value for name, value in options.items() if value not in (None, False)} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "fats"], "Unknown preset 'fats': did you mean 'fast' or 'auto'?"),
        (
            ["--preset", "quick"],
            "Unknown preset 'quick': choose one of 'auto', 'original', 'fast', 'best', 'cpu', 'finetune', 'scratch', 'smoke'.",
        ),
        (["--preset", "cpu", "--batch-size", "1"], "--batch-size is 1; give a whole number from 2 to 65536."),
        (["--preset", "cpu", "--batch-size", "many"], "--batch-size is 'many'; give a whole number from 2 to 65536."),
        (
            ["--preset", "cpu", "--max-lr", "-0.1", "--seed", "1.5"],
            "--max-lr is -0.1; give a number above 0 and up to 100, or 'auto' for the range test's suggestion. "
            "--seed is 1.5; give a whole number from 0 to 4294967295.",
        ),
        (["--max-lr", "-1e-3"], "--max-lr is -0.001; give a number above 0 and up to 100, or 'auto' for the range test's"),
        (["--preset", "cpu", "--model", "ResNet81"], "--model is 'ResNet81': did you mean 'ResNet18'"),
        (["--epoch", "3"], "Unknown option '--epoch': did you mean '--epochs'"),
        (["--batchsize=3"], "Unknown option '--batchsize': did you mean '--batch-size'"),
        (["--zzz", "3", "--qqq"], "Unknown option '--zzz': "),
        (["train", "cpu"], "'cpu' belongs to no option; --help lists them."),
        (["--epochs"], "Argument --epochs: expected one argument; --help lists what there is."),
    ],
)
def test_a_bad_value_ends_with_one_sentence_before_anything_is_loaded(arguments, message, tmp_path, loaded, capsys):
    assert command.main([*arguments, "--output-dir", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {message}")
    assert (output.err.count("\n"), output.out) == (1, "")
    assert (loaded, files(tmp_path)) == ([], [])


def test_the_help_names_every_option_with_what_it_is_for_its_range_and_its_default(capsys):
    with pytest.raises(SystemExit) as raised:
        command.main(["train", "--help"])
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in fields(TrainingConfig).values():
        assert f"--{field.name.replace('_', '-')} " in text
        assert " ".join(setting_of(field).help.split()) in text
        assert all(word in text for word in choices(field))
    for piece in (
        "--batch-size N images a step (2 to 65536; default 512)",
        "--anneal NAME how the learning rate falls to zero after the warm-up: linear, cos (default linear)",
        "--workers N",
        "(0 to 64 or auto; default auto)",
        "--whitening true|false start the first convolution",
        "augmentation of the training images: --horizontal-flip X",
    ):
        assert piece in text


def test_missing_data_ends_with_one_sentence(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    (photos / "train").mkdir(parents=True)
    monkeypatch.setattr(cifar, "_download", lambda *_: "the server cannot be reached")
    for dataset, root, message in (
        ("digits", "nowhere", "--data-root is 'nowhere', but there is no such folder: make it, or give one that is there.\n"),
        ("no/such/folder", str(tmp_path), "Unknown data set 'no/such/folder': give one of auto, cifar10,"),
        (str(photos), ".", f"{photos} has a folder train/ but no test/: give it both, or class folders alone, without train/.\n"),
        ("cifar10", str(tmp_path), f"CIFAR-10 is not in {tmp_path}"),
    ):
        options = ["--dataset", dataset, "--data-root", root, "--output-dir", str(tmp_path / "out")]
        assert command.main([*SMALL, *options]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {message}")
    assert 'choose dataset="digits"' in said
    assert not (tmp_path / "out").exists()


def test_corrupt_data_ends_with_one_sentence(loaded, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "load", raising(DatasetError("data_batch_1 is corrupt: delete it and run again.")))
    assert command.main([*SMALL]) == 2
    assert capsys.readouterr().err == "error: data_batch_1 is corrupt: delete it and run again.\n"


class NotANumber(nn.Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flatten(1)) * float("nan")


class TooLarge(nn.Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) == 4:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory")
        return super().forward(images.flatten(1))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NotANumber, "The loss became nan at step 1 of epoch 1, at a learning rate of 0.02; lower --max-lr and run again."),
        (
            TooLarge,
            "The memory of 'cpu' is full at --batch-size 4: give --batch-size 2 (and halve --max-lr with it) and run again.",
        ),
    ],
)
def test_training_that_fails_ends_with_one_sentence_and_another_exit_code(
    network, message, tmp_path, loaded, monkeypatch, capsys
):
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda run, _: network(192, len(run.train.classes)))
    assert command.main([*SMALL, "--max-lr", "0.5", "--output-dir", str(tmp_path), "--run-name", "broken"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].split("\r")[-1].strip() == f"error: {message}"
    assert files(tmp_path / "broken") == ["config.json", "data.json"]


def test_a_program_error_is_not_hidden(loaded, monkeypatch):
    monkeypatch.setattr(recording.PreparedRun, "build_model", raising(RuntimeError("a fault of ours")))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        command.main([*SMALL])


def test_the_module_runs_as_a_command():
    words = [sys.executable, "-m", "era_support_packages", "--preset", "fats"]
    finished = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: Unknown preset 'fats': did you mean 'fast' or 'auto'?\n"


def test_configuration_written_is_the_one_printed(tmp_path, steps, capsys):
    assert command.main([*SMALL, "--train-images", "8", "--output-dir", str(tmp_path), "--run-name", "2024"]) == 0
    written = json.loads((tmp_path / "2024" / "config.json").read_text())
    assert written["run_name"] == "2024"
    assert str(TrainingConfig.from_dict(written)) in capsys.readouterr().out


# ---- stopped and run again -------------------------------------------------------------------------------------------


@pytest.fixture
def no_statistics(monkeypatch) -> None:
    monkeypatch.setattr(batch_norm, "FEW_STEPS", 0)  # forward passes for statistics are no steps


@pytest.mark.parametrize(("stop", "exit_code"), STOPS.values(), ids=STOPS)
def test_a_stopped_run_ends_with_the_code_of_its_signal_and_goes_on_with_the_same_command(
    stop, exit_code, tmp_path, steps, no_statistics, capsys
):
    options = [*TWO_EPOCHS, str(tmp_path), "--max-lr", "0.1"]
    steps.actions[6] = stop
    assert command.main(options) == exit_code
    (folder,) = tmp_path.iterdir()
    output = capsys.readouterr()
    stopped = f"Stopped after epoch 1 of 2. Run again with the same values to go on from there ({folder})."
    assert output.out.splitlines()[-1] == stopped
    assert "error" not in output.err
    assert 6 <= steps.count <= 7
    assert Run(folder).summary()["complete"] is False

    steps.count, steps.actions = 0, {}
    assert command.main(options) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [f"Going on with {folder}: 1 of 2 epochs are done.", f"Run {folder}"]
    assert steps.count == 4
    run = only_run(tmp_path)
    summary, finished = run.summary(), Checkpoint.load(run.checkpoint_file)
    assert (run.folder, summary["complete"]) == (folder, True)

    with untouched(folder):
        assert command.main(options) == 0
        assert steps.count == 4
        assert capsys.readouterr().out.splitlines() == [
            f"Run {folder}",
            *str(run.config()).splitlines(),
            f"Not trained now: this is the run {run.name}, trained in {duration(summary['seconds'])} on {summary['hardware']}.",
            log_header(),
            *map(log_row, finished.records),
            f"{summary['test_accuracy']:.2f} % of the test split; written to {folder}",
        ]
        assert command.main([*options, "--no-resume"]) == 0
    assert steps.count == 4 + 8
    assert files(tmp_path) == [folder.name, f"{folder.name}-2"]
    in_one_go = Checkpoint.load(tmp_path / f"{folder.name}-2" / "checkpoint.pt")
    assert same_weights(finished.model, in_one_go.model)
    assert torch.equal(finished.logits, in_one_go.logits)


def test_a_run_that_goes_on_keeps_the_max_lr_of_its_range_test(tmp_path, steps, no_statistics, range_tests):
    steps.actions = {2: press_stop, 8: press_stop}
    assert [command.main([*TWO_EPOCHS, str(tmp_path), "--max-lr", "auto"]) for _ in range(3)] == [130, 130, 0]
    assert len(range_tests) == 1
    assert only_run(tmp_path).config().max_lr == 0.03125


def test_a_folder_that_cannot_be_gone_on_with_ends_with_one_sentence(tmp_path, steps, no_statistics, capsys):
    options = [*TWO_EPOCHS, str(tmp_path), "--max-lr", "0.1", "--run-name", "mine"]
    steps.actions[6] = press_stop
    assert command.main(options) == 130
    capsys.readouterr()
    folder = tmp_path / "mine"
    with untouched(folder):
        assert command.main([*options, "--seed", "7"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {folder} holds a run of another configuration: seed 0 (here 7). Give another --run-name,")
    assert (said.err.count("\n"), said.out) == (1, "")
    (folder / "checkpoint.pt").write_bytes(b"")
    with untouched(folder):
        assert command.main(options) == 2
    assert capsys.readouterr().err.startswith(f"error: {folder / 'checkpoint.pt'} is empty; the file is left as it is: move it")
