"""A run's folder: what is written, that nothing is overwritten, that it loads again, and that one process at a time uses it."""

import copy
import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny import asking, colored_images, plan, tiny_network
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.system.machine import describe, versions
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.history import EpochRecord
from era_support_packages.training.lr_finder import RangeTest

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
RECORDS = (
    EpochRecord(1, 16, 24, 0.05, 2.25, 12.5, 2.125, 33.5, 67, 200, 1.5),
    EpochRecord(2, 16, 24, 4e-06, 1.0 / 3, 100.0, 0.1, 66.0, 132, 200, 2.25),
)
CONFIG = plan(epochs=2, seed=3)
TEST = colored_images(10, split="test", seed=1)
LOGITS = torch.linspace(-3, 5, 30).reshape(10, 3)
BROKEN = (
    "is cut short or is no checkpoint; the file is left as it is: move it away, or set resume=False to train in a new folder."
)


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def checkpoint(model: nn.Module, records: tuple[EpochRecord, ...] = RECORDS, logits: Tensor | None = LOGITS) -> Checkpoint:
    """The state of a run of two epochs; without logits it is not complete."""
    state = {} if logits is None else None
    return Checkpoint(CONFIG, 2, records, model.state_dict(), state, state, state, {"cpu": torch.get_rng_state()}, logits)


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_create_makes_a_folder_named_after_the_configuration(tmp_path: Path) -> None:
    given = {"output_dir": str(tmp_path / "deep" / "runs")}
    config = plan(**given)
    run = Run.create(asking(**given), "colours", config)
    assert run.folder == tmp_path / "deep" / "runs" / asking(**given).default_run_name("colours")
    assert re.fullmatch(r"smoke-colours-[0-9a-f]{6}", run.name)
    assert files(run.folder) == ["config.json"]
    assert json.loads((run.folder / "config.json").read_text()) == config.to_dict()
    assert run.config().resolved() == config
    assert not run.finished


def created(root: Path, **values: Any) -> Run:
    """A run's folder below that one."""
    values["output_dir"] = str(root)
    return Run.create(asking(**values), "colours", plan(**values))


def test_a_name_that_is_taken_is_counted_up_and_nothing_is_overwritten(tmp_path: Path) -> None:
    first = created(tmp_path, run_name="mine", seed=3)
    (first.folder / "metrics.csv").write_text("precious")
    second = created(tmp_path, run_name="mine", seed=9)
    third = created(tmp_path, run_name="mine", seed=3)
    assert [run.name for run in (first, second, third)] == ["mine", "mine-2", "mine-3"]
    assert files(first.folder) == ["config.json", "metrics.csv"]
    assert (first.folder / "metrics.csv").read_text() == "precious"
    assert (first.config().seed, second.config().seed) == (3, 9)
    assert files(tmp_path) == ["mine", "mine-2", "mine-3"]


def test_a_changed_value_gives_a_new_folder_and_a_file_in_the_way_stays(tmp_path: Path) -> None:
    one, other = created(tmp_path), created(tmp_path, seed=4)
    assert one.name != other.name
    assert not other.name.endswith("-2")
    (tmp_path / "taken").write_text("a file")
    assert created(tmp_path, run_name="taken").name == "taken-2"
    assert (tmp_path / "taken").read_text() == "a file"


def test_listing_names_each_file_and_its_size(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(bytes(5 * 1024 + 7))
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")
    assert Run(tmp_path).listing().splitlines() == [
        "Everything is in",
        f"{tmp_path}",
        "  checkpoint.pt       1 KiB",
        "  log.txt             5 KiB",
    ]


def test_listing_of_an_empty_folder(tmp_path: Path) -> None:
    assert Run(tmp_path).listing() == f"Everything is in\n{tmp_path}"


# ---- what is in the files --------------------------------------------------------------------------------------------


def test_metrics_csv_to_the_character(tmp_path: Path) -> None:
    run, header = Run(tmp_path), "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds\n"
    run.write_metrics(())
    assert (tmp_path / "metrics.csv").read_bytes().decode() == header
    run.write_metrics(RECORDS)
    assert (tmp_path / "metrics.csv").read_bytes().decode() == (
        f"{header}1,0.05,2.25,12.5,2.125,33.5,1.5\n2,4e-06,0.3333333333333333,100.0,0.1,66.0,2.25\n"
    )
    run.write_metrics(RECORDS[:1])  # rewritten as a whole
    assert (tmp_path / "metrics.csv").read_bytes().decode() == f"{header}1,0.05,2.25,12.5,2.125,33.5,1.5\n"
    assert files(tmp_path) == ["metrics.csv"]


def test_summary_json(tmp_path: Path) -> None:
    run = Run(tmp_path)
    values = run.write_summary(RECORDS, CONFIG, "colours", flops=167 * 10**12, test_accuracy_tta=67.5)
    assert list(values) == [
        "dataset",
        "preset",
        "complete",
        "epochs",
        "test_accuracy",
        "test_accuracy_tta",
        "pflops",
        "seconds",
        "seed",
        "versions",
        "hardware",
        "data",
    ]
    assert values == {
        "dataset": "colours",
        "preset": "smoke",
        "complete": True,
        "epochs": 2,
        "test_accuracy": 66.0,
        "test_accuracy_tta": 67.5,
        "pflops": 0.167,
        "seconds": 3.75,
        "seed": 3,
        "versions": versions(),
        "hardware": describe(CPU),
        "data": None,
    }
    assert run.summary() == json.loads((tmp_path / "summary.json").read_text()) == values
    assert run.write_summary(RECORDS, CONFIG, "colours", flops=0)["test_accuracy_tta"] is None
    assert json.loads((tmp_path / "summary.json").read_text())["test_accuracy_tta"] is None


@pytest.mark.parametrize(("records", "seconds"), [(RECORDS[:1], 1.5), ((), 0)])
def test_the_summary_of_a_stopped_run_has_no_test_accuracy(
    records: tuple[EpochRecord, ...], seconds: float, tmp_path: Path
) -> None:
    Run(tmp_path).write_summary(records, CONFIG, "colours", flops=0, complete=False)
    values = json.loads((tmp_path / "summary.json").read_text())
    assert (values["complete"], values["epochs"], values["seconds"]) == (False, len(records), seconds)
    assert (values["test_accuracy"], values["test_accuracy_tta"]) == (None, None)


# ---- the range test --------------------------------------------------------------------------------------------------

CURVE = RangeTest(
    np.array([1e-4, 1 / 3, 10.0]),
    np.array([2.3, 0.1 + 0.2, 7.0]),
    np.array([2.25, 1e-17, 6.5]),
    {"steepest": 0.1, "valley": 1 / 7},
)


@pytest.mark.parametrize(("used", "batches"), [(True, 3), (False, 0)])
def test_the_range_test_comes_back_to_the_bit(used: bool, batches: int, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_range_test(CURVE, used)
    result, came_from_it = run.range_test()
    for name in ("lrs", "losses", "smoothed"):
        assert getattr(result, name).dtype == np.float64
        assert getattr(result, name).tolist() == getattr(CURVE, name).tolist()
    assert result.suggestions == {"steepest": 0.1, "valley": 1 / 7}
    assert came_from_it is used
    assert run.range_test_batches() == batches
    assert files(tmp_path) == ["range_test.json"]


def test_range_test_json_is_plain(tmp_path: Path) -> None:
    Run(tmp_path).write_range_test(CURVE, True)
    assert json.loads((tmp_path / "range_test.json").read_text()) == {
        "used": True,
        "suggestions": {"steepest": 0.1, "valley": 1 / 7},
        "lrs": [1e-4, 1 / 3, 10.0],
        "losses": [2.3, 0.1 + 0.2, 7.0],
        "smoothed": [2.25, 1e-17, 6.5],
    }


def test_a_range_test_that_suggests_nothing_comes_back_too(tmp_path: Path) -> None:
    Run(tmp_path).write_range_test(RangeTest(np.array([0.1]), np.array([2.0]), np.array([2.0]), {}), True)
    result, _ = Run(tmp_path).range_test()
    assert result.suggestions == {}
    assert Run(tmp_path).range_test_batches() == 1


def test_without_a_range_test_there_is_none(tmp_path: Path) -> None:
    assert Run(tmp_path).range_test() is None
    assert Run(tmp_path).range_test_batches() == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"used": true, "sugg',
        "null",
        "[1, 2]",
        "3",
        "{}",
        '{"used": true, "suggestions": {}, "lrs": [0.1], "losses": [2.0]}',
        '{"used": true, "lrs": [0.1], "losses": [2.0], "smoothed": [2.0]}',
        '{"suggestions": {}, "lrs": [0.1], "losses": [2.0], "smoothed": [2.0]}',
        '{"used": true, "suggestions": {}, "lrs": ["low"], "losses": [2.0], "smoothed": [2.0]}',
        '{"used": true, "suggestions": {}, "lrs": [[0.1], 2], "losses": [2.0], "smoothed": [2.0]}',
    ],
)
def test_a_broken_range_test_counts_as_none_and_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "range_test.json").write_text(text)
    assert Run(tmp_path).range_test() is None
    assert Run(tmp_path).range_test_batches() == 0
    assert (tmp_path / "range_test.json").read_text() == text


# ---- the configuration -----------------------------------------------------------------------------------------------


def test_config_json_comes_back(tmp_path: Path) -> None:
    config = plan(epochs=4, resolutions=((8, 0.75), (10, 0.25)), max_lr=1 / 3, run_name="mine", threads=2)
    Run(tmp_path).write_config(config)
    assert Run(tmp_path).config().resolved() == config
    Run(tmp_path).write_config(config.replace(max_lr=0.5))
    assert Run(tmp_path).config().max_lr == 0.5
    assert files(tmp_path) == ["config.json"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("null", "A configuration is a table of names and values, not None."),
        ("3", "A configuration is a table of names and values, not 3."),
        ("[]", "A configuration is a table of names and values, not []."),
        ('{"epochs": 3}', "A configuration needs preset_name: choose one of 'original', 'fast', 'best', 'cpu', 'smoke'."),
        ('{"preset_name": "cpu", "epohcs": 3}', "Unknown parameter 'epohcs': did you mean 'epochs' or 'max_epochs'?"),
        ('{"preset_name": "cpu", "epochs": 0}', "epochs is 0; give a whole number from 1 to 10000."),
    ],
)
def test_a_broken_configuration_is_refused_and_left_alone(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError) as raised:
        Run(tmp_path).config()
    assert str(raised.value) == (
        f"{tmp_path} is there, but its config.json cannot be used ({problem}): move the folder away, give another run_name, or "
        "set resume=False to train in a new folder."
    )
    assert (tmp_path / "config.json").read_text() == text


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        Run(tmp_path).config()
    assert str(raised.value) == (
        f"{tmp_path} is there, but its config.json cannot be used ([Errno 2] No such file or directory: "
        f"{str(tmp_path / 'config.json')!r}): move the folder away, give another run_name, or set resume=False to train in a new "
        "folder."
    )
    assert files(tmp_path) == []


# ---- whether it is finished ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("summary", "finished"),
    [
        ('{"complete": true}', True),
        ('{"seed": 1}', True),  # without the key: written before a run could be stopped
        ('{"complete": false, "epochs": 1}', False),
        (None, False),
        ("", False),
        ('{"complete": tr', False),
        ("[true]", False),
        ("null", False),
        ("1", False),
    ],
)
def test_a_run_is_finished_where_its_summary_does_not_deny_it(summary: str | None, finished: bool, tmp_path: Path) -> None:
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary)
    assert not Run(tmp_path).finished  # there are no weights
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    assert Run(tmp_path).finished is finished


def test_a_written_summary_says_whether_the_run_is_finished(tmp_path: Path) -> None:
    run = Run(tmp_path)
    checkpoint(tiny_network()).save(run.checkpoint_file)
    assert run.checkpoint_file == tmp_path / "checkpoint.pt"
    assert not run.finished
    run.write_summary(RECORDS[:1], CONFIG, "colours", flops=0, complete=False)
    assert not run.finished
    run.write_summary(RECORDS, CONFIG, "colours", flops=0)
    assert run.finished


@pytest.mark.parametrize("records", [(), RECORDS[:1], RECORDS])
def test_complete_epochs_are_those_of_the_checkpoint(records: tuple[EpochRecord, ...], tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.complete_epochs() == 0
    run.write_metrics(RECORDS)  # says nothing
    assert run.complete_epochs() == 0
    checkpoint(tiny_network(), records, logits=None).save(run.checkpoint_file)
    assert run.complete_epochs() == len(records)


@pytest.mark.parametrize("ask", [Run.complete_epochs, lambda run: run.checkpoint(tiny_network(), TEST)], ids=["count", "state"])
def test_a_broken_checkpoint_is_refused(ask: Callable[[Run], Any], tmp_path: Path) -> None:
    run = Run(tmp_path)
    checkpoint(tiny_network()).save(run.checkpoint_file)
    half = run.checkpoint_file.read_bytes()[:5000]
    run.checkpoint_file.write_bytes(half)
    with pytest.raises(CheckpointError) as raised:
        ask(run)
    assert str(raised.value) == f"{run.checkpoint_file} {BROKEN}"
    assert run.checkpoint_file.read_bytes() == half


# ---- opening and loading ---------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_is_not_finished(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.checkpoint_file.write_bytes(b"x")
    run.write_json("summary.json", {"complete": False})
    with pytest.raises(FileNotFoundError) as raised:
        Run.open(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} is not the folder of a finished run: it was stopped before its end; run it again with the same values, or "
        "train a new one."
    )


def test_only_a_finished_run_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        Run(tmp_path).load(tiny_network(), colored_images(10, split="test"))
    assert str(raised.value) == f"{tmp_path} holds no finished run: run it again with the same values to finish it."


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


@pytest.fixture
def recorded(tmp_path: Path) -> Run:
    """The folder of a complete run."""
    run = created(tmp_path, epochs=2, seed=3)
    checkpoint(tiny_network()).save(run.checkpoint_file)
    run.write_metrics(RECORDS)
    run.write_summary(RECORDS, CONFIG, "colours", flops=0)
    return run


def test_a_run_loads_again(recorded: Run) -> None:
    model = tiny_network(seed=5)
    loaded = Run.open(recorded.folder).load(model, TEST)
    assert same_weights(model.state_dict(), tiny_network().state_dict())
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert (loaded.records, loaded.config, loaded.planned) == (RECORDS, CONFIG, 2)
    assert (loaded.complete, loaded.seconds) == (True, 3.75)
    assert loaded.predictions.logits.dtype == np.float32
    assert loaded.predictions.logits.tolist() == LOGITS.tolist()
    assert loaded.predictions.labels.tolist() == TEST.labels.tolist()
    assert loaded.predictions.classes == TEST.classes


def test_the_state_before_the_first_epoch_is_none(tmp_path: Path) -> None:
    assert Run(tmp_path).checkpoint(tiny_network(), TEST) is None


def test_the_state_of_a_stopped_run_fits_any_number_of_test_images(tmp_path: Path) -> None:
    run = Run(tmp_path)
    checkpoint(tiny_network(), RECORDS[:1], logits=None).save(run.checkpoint_file)
    model = tiny_network(seed=5)
    state = run.checkpoint(model, TEST.take(range(4)))
    assert (state.records, state.complete) == (RECORDS[:1], False)
    assert same_weights(state.model, tiny_network().state_dict())
    assert same_weights(model.state_dict(), tiny_network(seed=5).state_dict())  # looking loads nothing


@pytest.mark.parametrize("logits", [LOGITS, None], ids=["complete", "stopped"])
@pytest.mark.parametrize(
    "other",
    [tiny_network(width=5, seed=5), tiny_network(classes=4, seed=5), nn.Sequential(tiny_network())],
    ids=["width", "classes", "names"],
)
def test_weights_of_another_network_are_refused(other: nn.Module, logits: Tensor | None, tmp_path: Path) -> None:
    run, before = Run(tmp_path), copy.deepcopy(other.state_dict())
    checkpoint(tiny_network(), logits=logits).save(run.checkpoint_file)
    content = run.checkpoint_file.read_bytes()
    for ask in (run.checkpoint, run.load):
        with pytest.raises(CheckpointError) as raised:
            ask(other, TEST)
        assert str(raised.value) == (
            f"{run.checkpoint_file} holds the weights of another network; build the model of its config.json."
        )
    assert same_weights(other.state_dict(), before)  # also the layers that would have fitted
    assert run.checkpoint_file.read_bytes() == content


@pytest.mark.parametrize(
    ("test", "has"),
    [
        (colored_images(9, split="test"), "9 of 3"),
        (colored_images(11, split="test"), "11 of 3"),
        (colored_images(10, split="test", classes=("a", "b", "c", "d")), "10 of 4"),
    ],
)
def test_another_test_split_is_refused(test: ImageDataset, has: str, recorded: Run) -> None:
    model = tiny_network(len(test.classes), seed=5)
    before, content = copy.deepcopy(model.state_dict()), recorded.checkpoint_file.read_bytes()
    for ask in (recorded.checkpoint, recorded.load):
        with pytest.raises(CheckpointError) as raised:
            ask(model, test)
        assert str(raised.value) == (
            f"{recorded.folder} was tested on 10 images of 3 classes, but the data set has {has}; "
            "give that data again, or set resume=False to train in a new folder."
        )
    assert same_weights(model.state_dict(), before)
    assert recorded.checkpoint_file.read_bytes() == content


# ---- one process at a time -------------------------------------------------------------------------------------------


def busy(folder: Path) -> str:
    """What a second process is told."""
    return (
        f"{folder} is being trained by another process: wait until it is done, give another run_name, or set "
        "resume=False to train in a new folder."
    )


def refused(run: Run) -> str:
    """What is said where the lock is not given."""
    with pytest.raises(RunError) as raised, run.locked():
        pytest.fail("the folder was given to two at once")
    return str(raised.value)


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_ended(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    code = """
import sys
from pathlib import Path
from era_support_packages.runs.folder import Run
with Run(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout.readline() == "locked\n"
            run = Run(tmp_path)
            assert refused(run) == busy(tmp_path)
            assert refused(run) == busy(tmp_path)  # a refusal takes nothing from the first
            assert files(tmp_path) == [".lock"]
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    taken = False
    with run.locked():
        taken = True
    assert taken
    assert files(tmp_path) == []


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for error in (ValueError("broke off"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, run.locked():
            raise error
        assert raised.value is error
        assert files(tmp_path) == []


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EACCES])  # POSIX allows either
def test_a_lock_that_is_held_is_refused(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", raising(OSError(error, "held")))
    assert refused(Run(tmp_path)) == busy(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_where_the_file_system_knows_no_locks_it_goes_on(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", raising(OSError(error, "no locks here")))
    went_on = False
    with Run(tmp_path).locked():
        went_on = True
    assert went_on
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_named(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLock, "acquire", raising(OSError(error, "cannot be written")))
    assert re.match(rf"{re.escape(str(tmp_path))} cannot be written \(.*\): give another run_name", refused(Run(tmp_path)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_what_a_killed_process_leaves_running_holds_no_lock(tmp_path: Path) -> None:
    """As the loading processes that go on for some seconds."""
    code = """
import os, signal, sys, time
from pathlib import Path
from era_support_packages.runs.folder import Run
with Run(Path(sys.argv[1])).locked():
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    time.sleep(60)
"""
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        try:
            assert refused(Run(tmp_path)) == busy(tmp_path)
            parent.kill()
            parent.wait()
            taken = False
            with Run(tmp_path).locked():
                taken = True
            assert taken
        finally:
            os.kill(child, signal.SIGKILL)
            parent.kill()


def raising(error: OSError) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail
