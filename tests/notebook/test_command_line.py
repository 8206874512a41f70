"""The command line, from its options to its exit code."""

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
from tiny import colored_images, tiny_network
from torch import nn

from era_support_packages import __main__ as command
from era_support_packages.datasets import cifar, loading as datasets
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset
from era_support_packages.models.custom_resnet import CustomResNet
from era_support_packages.runs import recording
from era_support_packages.runs.folder import Run
from era_support_packages.system.settings import choices, fields, setting_of
from era_support_packages.training import batch_norm, loop as training, lr_finder
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import duration, flops_per_image, forward_flops
from era_support_packages.training.lr_finder import RangeTest
from era_support_packages.training.setup import build_model

ROOT = Path(command.__file__).parent.parent
SMALL = ["--preset", "smoke", "--resolutions", "[[8, 1.0]]", "--batch-size", "4", "--crop-padding", "0"]
SMALL += ["--device", "cpu", "--precision", "fp32", "--workers", "0"]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """16 and 6 small images in place of every data set; the list of what was asked for."""
    asked: list[tuple[Any, Any]] = []

    def load(name: str, root: str | None) -> tuple[ImageDataset, ImageDataset]:
        asked.append((name, root))
        return colored_images(16), colored_images(6, split="test", seed=1)

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(datasets, "check", lambda *_: None)
    return asked


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """A network of a few channels in place of every other; the list of those built."""
    built: list[nn.Module] = []

    def build(config: TrainingConfig, classes: int, train: ImageDataset | None = None) -> nn.Module:
        built.append(tiny_network(classes, config.seed))
        return built[-1]

    monkeypatch.setattr(recording, "build_model", build)
    return built


def only_run(root: Path) -> Run:
    (folder,) = root.iterdir()
    return Run.open(folder)


def test_a_run_from_end_to_end(tmp_path: Path, loaded: list[tuple[Any, Any]], capsys: pytest.CaptureFixture[str]) -> None:
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
    answered = {"engine": "device", "threads": torch.get_num_threads(), "horizontal_flip": 0.5}
    assert config.to_dict() == {**asked.to_dict(), **answered}
    assert summary["complete"] is True
    assert (summary["dataset"], summary["preset"], summary["epochs"], summary["seed"]) == ("colours", "smoke", 1, 6)
    model = build_model(config, 3)
    assert isinstance(model, CustomResNet)
    history = run.load(model, colored_images(6, split="test", seed=1))
    assert history.records[0].images == 16

    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert lines[0] == f"Run {run.folder}"
    assert lines[1 : len(str(config).splitlines()) + 1] == str(config).splitlines()
    assert lines[-4].startswith("This run will take about ")
    assert lines[-3:] == [
        training.log_header(),
        training.log_row(history.records[0]),
        f"{summary['test_accuracy']:.2f} % of the test split; written to {run.folder}",
    ]
    assert "error" not in output.err


def test_max_lr_comes_from_the_range_test_where_none_is_given(
    tmp_path: Path,
    loaded: list[tuple[Any, Any]],
    tiny: list[nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    losses, asked = np.array([2.0, 1.0, 1.5]), []
    result = RangeTest(losses, losses, losses, {"steepest": 0.5, "valley": 0.03125, "minimum/10": 0.25})

    def range_test(model: nn.Module, train: ImageDataset, test_size: int, config: TrainingConfig) -> RangeTest:
        asked.append((model, len(train), test_size, config.max_lr))
        return result

    monkeypatch.setattr(recording, "range_test", range_test)
    options = [*SMALL, "--train-images", "32", "--output-dir", str(tmp_path)]
    assert command.main([*options, "--max-lr", "auto"]) == 0
    assert asked == [(tiny[0], 16, 6, "auto")]
    run = only_run(tmp_path)
    config = run.config()
    assert config.max_lr == 0.03125
    assert config.train_images == 32
    _, sentence = lr_finder.choose_max_lr(config.replace(max_lr="auto"), result)
    assert capsys.readouterr().out.splitlines()[0] == sentence
    # three batches of four images for the range test, 32 images for the run
    per_image = flops_per_image(tiny[0], 8)
    statistics = 2 * 16 * forward_flops(tiny[0], 8)  # of so short a run, from all 16 images after each of two epochs
    assert run.summary()["pflops"] == pytest.approx(((32 + 3 * 4) * per_image + statistics) / 1e15)

    assert command.main([*options, "--max-lr", "0.1", "--run-name", "given"]) == 0
    assert len(asked) == 1
    assert Run.open(tmp_path / "given").config().max_lr == 0.1


def test_a_range_test_that_suggests_nothing_ends_with_its_sentence(
    tmp_path: Path,
    loaded: list[tuple[Any, Any]],
    tiny: list[nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nothing = RangeTest(np.ones(3), np.ones(3), np.ones(3), {})
    monkeypatch.setattr(recording, "range_test", lambda *_: nothing)
    assert command.main([*SMALL, "--max-lr", "auto", "--output-dir", str(tmp_path)]) == 2
    message = "error: The loss never fell in the range test, so it suggests nothing; give --max-lr as a number.\n"
    assert capsys.readouterr().err == message
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "data.json", "range_test.json"]


def test_every_parameter_is_an_option() -> None:
    names = [field.name for field in dataclasses.fields(TrainingConfig)]
    options = {action.dest: action for action in command.build_parser()._actions}
    assert set(options) == {"help", "preset", "data_root", "resume", *names} - {"preset_name"}
    assert options["train_images"].option_strings == ["--train-images"]
    assert options["max_lr"].option_strings == ["--max-lr"]
    assert options["resume"].option_strings == ["--no-resume"]


def test_values_are_read_as_what_the_configuration_takes() -> None:
    arguments = ["--epochs", "3", "--max-lr", "1e-2", "--resolutions", "[[16, 0.5], [32, 0.5]]", "--test-time-flip", "true"]
    arguments += ["--workers", "auto", "--run-name", "2024", "--dataset", "data/cifar10-jpeg", "--test-images", "null"]
    options = command.build_parser().read(arguments)
    given = {name: value for name, value in options.items() if value is not None}
    assert given == {
        "preset": "auto",
        "resume": True,
        "epochs": 3,
        "max_lr": 0.01,
        "resolutions": [[16, 0.5], [32, 0.5]],
        "test_time_flip": True,
        "workers": "auto",
        "run_name": "2024",  # text, though it looks like a number
        "dataset": "data/cifar10-jpeg",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "fats"], "Unknown preset 'fats': did you mean 'fast' or 'auto'?"),
        (
            ["--preset", "quick"],
            "Unknown preset 'quick': choose one of 'auto', 'original', 'fast', 'best', 'cpu', 'smoke'.",
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
        (["cpu"], "'cpu' belongs to no option; --help lists them."),
        (["--epochs"], "Argument --epochs: expected one argument; --help lists what there is."),
    ],
)
def test_a_bad_value_ends_with_one_sentence_before_anything_is_loaded(
    arguments: list[str], message: str, tmp_path: Path, loaded: list[tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*arguments, "--output-dir", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {message}")
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert loaded == []
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_option_with_what_it_is_for_its_range_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(["--help"])
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for field in fields(TrainingConfig).values():
        assert f"--{field.name.replace('_', '-')} " in text
        assert " ".join(setting_of(field).help.split()) in text
        assert all(word in text for word in choices(field))
    assert "--batch-size N images a step (2 to 65536; default 512)" in text
    assert "--anneal NAME how the learning rate falls to zero after the warm-up: linear, cos (default linear)" in text
    assert "--workers N" in text
    assert "(0 to 64 or auto; default auto)" in text
    assert "--whitening true|false start the first convolution" in text
    assert "augmentation of the training images: --horizontal-flip X" in text


def test_missing_data_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output-dir", str(tmp_path / "out")]
    assert command.main([*SMALL, *out, "--dataset", "digits", "--data-root", "nowhere"]) == 2
    message = "error: --data-root is 'nowhere', but there is no such folder: make it, or give one that is there.\n"
    assert capsys.readouterr().err == message
    assert command.main([*SMALL, *out, "--dataset", "no/such/folder", "--data-root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: Unknown data set 'no/such/folder': give one of auto, cifar10,")

    (tmp_path / "photos" / "train").mkdir(parents=True)
    assert command.main([*SMALL, *out, "--dataset", str(tmp_path / "photos")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'photos'} has a folder train/ but no test/: give it both, or class folders alone, without train/.\n"
    )

    monkeypatch.setattr(cifar, "_download", lambda *_: "the server cannot be reached")
    assert command.main([*SMALL, *out, "--dataset", "cifar10", "--data-root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: CIFAR-10 is not in {tmp_path}")
    assert 'choose dataset="digits"' in message
    assert not (tmp_path / "out").exists()


def test_corrupt_data_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(name: str, root: str | None) -> None:
        raise DatasetError("data_batch_1 is corrupt: delete it and run again.")

    monkeypatch.setattr(datasets, "load", load)
    monkeypatch.setattr(datasets, "check", lambda *_: None)
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
    network: type[nn.Module],
    message: str,
    tmp_path: Path,
    loaded: list[tuple[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recording, "build_model", lambda config, classes, train: network(192, classes))
    options = ["--max-lr", "0.5", "--output-dir", str(tmp_path), "--run-name", "broken"]
    assert command.main([*SMALL, *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1].split("\r")[-1].strip()
    assert error == f"error: {message}"
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == ["config.json", "data.json"]


def test_a_program_error_is_not_hidden(loaded: list[tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    def build(config: TrainingConfig, classes: int, train: ImageDataset | None = None) -> nn.Module:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(recording, "build_model", build)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        command.main([*SMALL])


def test_the_module_runs_as_a_command() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "era_support_packages", "--preset", "fats"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: Unknown preset 'fats': did you mean 'fast' or 'auto'?\n"


def test_configuration_written_is_the_one_printed(
    tmp_path: Path, loaded: list[tuple[Any, Any]], tiny: list[nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "--train-images", "8", "--output-dir", str(tmp_path), "--run-name", "2024"]
    assert command.main(options) == 0
    written = json.loads((tmp_path / "2024" / "config.json").read_text())
    assert written["run_name"] == "2024"
    assert str(TrainingConfig.from_dict(written)) in capsys.readouterr().out


# ---- stopped and run again -------------------------------------------------------------------------------------------


def press_stop() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@dataclasses.dataclass
class Steps:
    """The training steps of all networks that are built: how many there were, and what happens within the one of a number."""

    count: int = 0
    actions: dict[int, Callable[[], None]] = dataclasses.field(default_factory=dict)


@pytest.fixture
def steps(tiny: list[nn.Module], monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setattr(batch_norm, "FEW_STEPS", 0)  # forward passes for statistics are no steps
    seen, build = Steps(), recording.build_model  # the tiny one

    def watched(config: TrainingConfig, classes: int, train: ImageDataset) -> nn.Module:
        model = build(config, classes, train)

        def begin(module: nn.Module, _: Any) -> None:
            if module is model and module.training:  # and not a copy, which measures the speed of the machine
                seen.count += 1
                seen.actions.get(seen.count, lambda: None)()

        model.register_forward_pre_hook(begin)
        return model

    monkeypatch.setattr(recording, "build_model", watched)
    return seen


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """A handler of our own for SIGTERM: a signal that the package does not catch then fails a test and does not end pytest."""

    def unexpected(number: int, frame: FrameType | None) -> None:
        raise AssertionError("SIGTERM reached the handler of before")

    before = signal.signal(signal.SIGTERM, unexpected)
    yield
    restored = signal.signal(signal.SIGTERM, before) is unexpected
    assert restored


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Names, contents and times of the files of a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize(("stop", "exit_code"), [(press_stop, 130), (terminate, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_ends_with_the_code_of_its_signal_and_goes_on_with_the_same_command(
    stop: Callable[[], None],
    exit_code: int,
    tmp_path: Path,
    loaded: list[tuple[Any, Any]],
    steps: Steps,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*SMALL, "--train-images", "32", "--max-lr", "0.1", "--output-dir", str(tmp_path)]  # two epochs of four steps
    steps.actions[6] = stop
    assert command.main(options) == exit_code
    (folder,) = tmp_path.iterdir()
    output = capsys.readouterr()
    assert output.out.splitlines()[-1] == (
        f"Stopped after epoch 1 of 2. Run again with the same values to go on from there ({folder})."
    )
    assert "error" not in output.err
    assert 6 <= steps.count <= 7
    assert Run(folder).summary()["complete"] is False

    steps.count, steps.actions = 0, {}
    assert command.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"Going on with {folder}: 1 of 2 epochs are done.", f"Run {folder}"]
    assert steps.count == 4
    assert list(tmp_path.iterdir()) == [folder]
    run = Run.open(folder)
    assert run.summary()["complete"] is True

    before = contents(folder)
    steps.count = 0
    assert command.main(options) == 0
    assert steps.count == 0
    summary, finished = run.summary(), Checkpoint.load(run.checkpoint_file)
    assert capsys.readouterr().out.splitlines() == [
        f"Run {folder}",
        *str(run.config()).splitlines(),
        f"Not trained now: this is the run {run.name}, trained in {duration(summary['seconds'])} on {summary['hardware']}.",
        training.log_header(),
        *map(training.log_row, finished.records),
        f"{summary['test_accuracy']:.2f} % of the test split; written to {folder}",
    ]
    assert contents(folder) == before

    assert command.main([*options, "--no-resume"]) == 0
    assert steps.count == 8
    other = tmp_path / f"{folder.name}-2"
    assert sorted(tmp_path.iterdir()) == [folder, other]
    assert contents(folder) == before
    in_one_go = Checkpoint.load(other / "checkpoint.pt")
    assert finished.model.keys() == in_one_go.model.keys()
    assert all(torch.equal(finished.model[name], in_one_go.model[name]) for name in finished.model)
    assert torch.equal(finished.logits, in_one_go.logits)


def test_a_run_that_goes_on_keeps_the_max_lr_of_its_range_test(
    tmp_path: Path, loaded: list[tuple[Any, Any]], steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def range_test(*arguments: Any) -> RangeTest:
        made.append(arguments)
        return RangeTest(np.ones(3), np.ones(3), np.ones(3), {"valley": 0.03125})

    monkeypatch.setattr(recording, "range_test", range_test)
    options = [*SMALL, "--train-images", "32", "--max-lr", "auto", "--output-dir", str(tmp_path)]
    steps.actions = {2: press_stop, 8: press_stop}
    assert command.main(options) == 130
    assert command.main(options) == 130
    assert command.main(options) == 0
    assert len(made) == 1
    assert only_run(tmp_path).config().max_lr == 0.03125


def test_a_folder_that_cannot_be_gone_on_with_ends_with_one_sentence(
    tmp_path: Path, loaded: list[tuple[Any, Any]], steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "--train-images", "32", "--max-lr", "0.1", "--output-dir", str(tmp_path), "--run-name", "mine"]
    steps.actions[6] = press_stop
    assert command.main(options) == 130
    capsys.readouterr()
    folder = tmp_path / "mine"
    before = contents(folder)
    assert command.main([*options, "--seed", "7"]) == 2
    output = capsys.readouterr()
    assert output.err == (
        f"error: {folder} holds a run of another configuration: seed 0 (here 7). Give another --run-name, or give --no-resume to "
        "train in a new folder.\n"
    )
    assert output.out == ""
    assert contents(folder) == before

    (folder / "checkpoint.pt").write_bytes(b"")
    before = contents(folder)
    assert command.main(options) == 2
    assert capsys.readouterr().err == (
        f"error: {folder / 'checkpoint.pt'} is empty; the file is left as it is: move it away, or give --no-resume to train in "
        "a new folder.\n"
    )
    assert contents(folder) == before
