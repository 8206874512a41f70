"""A run's folder: what is written, that nothing is overwritten, that it loads again, and that one process at a time uses it."""

import copy
import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from run_folders import files, same_weights
from stopping import raising
from tiny import asking, colored_images, plan, tiny_network
from torch import Tensor, nn

from era_support_packages.runs.folder import Run, RunError
from era_support_packages.system.machine import describe, versions
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.history import EpochRecord
from era_support_packages.training.lr_finder import RangeTest

ROOT = Path(__file__).resolve().parents[2]
RECORDS = (
    EpochRecord(1, 16, 24, 0.05, 2.25, 12.5, 2.125, 33.5, 67, 200, 1.5),
    EpochRecord(2, 16, 24, 4e-06, 1.0 / 3, 100.0, 0.1, 66.0, 132, 200, 2.25),
)
CONFIG = plan(epochs=2, seed=3)
TEST = colored_images(10, split="test", seed=1)
LOGITS = torch.linspace(-3, 5, 30).reshape(10, 3)


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


def checkpoint(records: tuple[EpochRecord, ...] = RECORDS, logits: Tensor | None = LOGITS) -> Checkpoint:
    """The state of a run of two epochs; without logits it is not complete."""
    state = {} if logits is None else None
    rng_state = {"cpu": torch.get_rng_state()}
    return Checkpoint(CONFIG, 2, records, tiny_network().state_dict(), state, state, state, rng_state, logits)


def created(root: Path, **values: Any) -> Run:
    """A run's folder below that one."""
    values["output_dir"] = str(root)
    return Run.create(asking(**values), "colours", plan(**values))


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_create_makes_a_folder_named_after_the_configuration(tmp_path):
    root = tmp_path / "deep" / "runs"
    run, config = created(root), plan(output_dir=str(root))
    assert run.folder == root / asking(output_dir=str(root)).default_run_name("colours")
    assert re.fullmatch(r"smoke-colours-[0-9a-f]{6}", run.name)
    assert files(run.folder) == ["config.json"]
    assert json.loads((run.folder / "config.json").read_text()) == config.to_dict()
    assert run.config().resolved() == config
    assert not run.finished
    other = created(root, seed=4)
    assert other.name != run.name
    assert not other.name.endswith("-2")


def test_a_name_that_is_taken_is_counted_up_and_nothing_is_overwritten(tmp_path):
    first = created(tmp_path, run_name="mine", seed=3)
    (first.folder / "metrics.csv").write_text("precious")
    second, third = created(tmp_path, run_name="mine", seed=9), created(tmp_path, run_name="mine", seed=3)
    (tmp_path / "taken").write_text("a file")
    assert created(tmp_path, run_name="taken").name == "taken-2"
    assert [run.name for run in (first, second, third)] == ["mine", "mine-2", "mine-3"]
    assert files(first.folder) == ["config.json", "metrics.csv"]
    assert (first.folder / "metrics.csv").read_text() == "precious"
    assert (first.config().seed, second.config().seed) == (3, 9)
    assert files(tmp_path) == ["mine", "mine-2", "mine-3", "taken", "taken-2"]
    assert (tmp_path / "taken").read_text() == "a file"


def test_listing_names_each_file_and_its_size(run):
    assert run.listing() == f"Everything is in\n{run.folder}"
    for name, size in (("log.txt", 5 * 1024 + 7), ("checkpoint.pt", 1), (".hidden", 1)):
        (run.folder / name).write_bytes(bytes(size))
    lines = ["Everything is in", str(run.folder), "  checkpoint.pt       1 KiB", "  log.txt             5 KiB"]
    assert run.listing().splitlines() == lines


# ---- what is in the files --------------------------------------------------------------------------------------------


def test_metrics_csv_to_the_character(run):
    header = "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds,px,correct,total\n"
    first = "1,0.05,2.25,12.5,2.125,33.5,1.5,16,67,200\n"
    second = "2,4e-06,0.3333333333333333,100.0,0.1,66.0,2.25,16,132,200\n"
    for records, rows in (((), ""), (RECORDS, first + second), (RECORDS[:1], first)):  # rewritten as a whole
        run.write_metrics(records)
        assert (run.folder / "metrics.csv").read_bytes().decode() == header + rows
        assert files(run.folder) == ["metrics.csv"]


def test_summary_json(run):
    expected = {
        "dataset": "colours",
        "preset": "smoke",
        "complete": True,
        "epochs": 2,
        "test_accuracy": 66.0,
        "test_accuracy_tta": 67.5,
        "temperature": 1.25,
        "start": "random weights",
        "pflops": 0.167,
        "seconds": 3.75,
        "seed": 3,
        "versions": versions(),
        "hardware": describe(torch.device("cpu")),
        "processes": 1,
        "data": None,
    }
    values = run.write_summary(RECORDS, CONFIG, "colours", flops=167 * 10**12, test_accuracy_tta=67.5, temperature=1.25)
    assert list(values.items()) == list(expected.items())
    assert run.summary() == json.loads((run.folder / "summary.json").read_text()) == expected
    assert run.write_summary(RECORDS, CONFIG, "colours", flops=0)["test_accuracy_tta"] is None
    for records, seconds in ((RECORDS[:1], 1.5), ((), 0)):  # a stopped run has no test accuracy
        run.write_summary(records, CONFIG, "colours", flops=0, complete=False)
        changed = {"complete": False, "epochs": len(records), "seconds": seconds, "pflops": 0}
        assert run.summary() == {**expected, **changed, "test_accuracy": None, "test_accuracy_tta": None, "temperature": None}


def test_config_json_comes_back(run):
    config = plan(epochs=4, resolutions=((8, 0.75), (10, 0.25)), max_lr=1 / 3, run_name="mine", threads=2)
    run.write_config(config)
    assert run.config().resolved() == config
    run.write_config(config.replace(max_lr=0.5))
    assert run.config().max_lr == 0.5
    assert files(run.folder) == ["config.json"]


@pytest.mark.parametrize(("used", "batches"), [(True, 3), (False, 0)])
def test_the_range_test_comes_back_to_the_bit(used, batches, run):
    assert (run.range_test(), run.range_test_batches()) == (None, 0)
    curve = {"lrs": [1e-4, 1 / 3, 10.0], "losses": [2.3, 0.1 + 0.2, 7.0], "smoothed": [2.25, 1e-17, 6.5]}
    suggestions = {"steepest": 0.1, "valley": 1 / 7}
    run.write_range_test(RangeTest(*map(np.array, curve.values()), suggestions), used)
    content = json.loads((run.folder / "range_test.json").read_text())
    assert content == {"used": used, "suggestions": suggestions, **curve}
    result, came_from_it = run.range_test()
    for name, values in curve.items():
        assert getattr(result, name).dtype == np.float64
        assert getattr(result, name).tolist() == values
    assert (result.suggestions, came_from_it, run.range_test_batches()) == (suggestions, used, batches)
    run.write_range_test(RangeTest(np.array([0.1]), np.array([2.0]), np.array([2.0]), {}), True)  # it suggests nothing
    assert (run.range_test()[0].suggestions, run.range_test_batches()) == ({}, 1)
    assert files(run.folder) == ["range_test.json"]


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
def test_a_broken_range_test_counts_as_none_and_is_left_alone(text, run):
    (run.folder / "range_test.json").write_text(text)
    assert (run.range_test(), run.range_test_batches()) == (None, 0)
    assert (run.folder / "range_test.json").read_text() == text


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
def test_a_run_is_finished_where_its_summary_does_not_deny_it(summary, finished, run):
    if summary is not None:
        (run.folder / "summary.json").write_text(summary)
    assert not run.finished  # there are no weights
    run.checkpoint_file.write_bytes(b"x")
    assert run.finished is finished


def test_what_is_written_says_whether_the_run_is_finished(run):
    run.write_metrics(RECORDS)  # says nothing
    assert (run.complete_epochs(), run.finished, run.checkpoint(tiny_network(), TEST)) == (0, False, None)
    for records in ((), RECORDS[:1], RECORDS):
        checkpoint(records, logits=None).save(run.checkpoint_file)
        assert (run.complete_epochs(), run.finished) == (len(records), False)
    assert run.checkpoint_file == run.folder / "checkpoint.pt"
    for complete in (False, True):
        run.write_summary(RECORDS, CONFIG, "colours", flops=0, complete=complete)
        assert run.finished is complete


# ---- opening and loading ---------------------------------------------------------------------------------------------


def test_open_wants_a_finished_run(run, tmp_path):
    def refusal(folder: str | Path = tmp_path) -> str:
        with pytest.raises(FileNotFoundError) as raised:
            Run.open(folder)
        return str(raised.value)

    none = "{} is not the folder of a finished run: it "
    ways_out = "; give one that has, or train a new one."
    assert refusal(tmp_path / "nowhere") == f"{none.format(tmp_path / 'nowhere')}has no checkpoint.pt{ways_out}"
    assert refusal(str(tmp_path)) == f"{none.format(tmp_path)}has no checkpoint.pt{ways_out}"
    run.checkpoint_file.write_bytes(b"x")
    assert refusal() == f"{none.format(tmp_path)}has no summary.json{ways_out}"
    run.write_json("summary.json", {"complete": False})
    stopped = "was stopped before its end; run it again with the same values, or train a new one."
    assert refusal() == none.format(tmp_path) + stopped
    run.write_json("summary.json", {"seed": 1})
    assert "checkpoint.pt is empty, cut short, or no checkpoint; put back a copy" in refusal()
    checkpoint().save(run.checkpoint_file)
    assert Run.open(tmp_path) == Run.open(str(tmp_path)) == run
    assert Run.open(tmp_path).summary() == {"seed": 1}


def test_only_a_finished_run_is_loaded(run):
    with pytest.raises(RunError) as raised:
        run.load(tiny_network(), TEST)
    assert str(raised.value) == f"{run.folder} holds no finished run: run it again with the same values to finish it."


def test_a_run_loads_again(run):
    checkpoint().save(run.checkpoint_file)
    run.write_summary(RECORDS, CONFIG, "colours", flops=0)
    model = tiny_network(seed=5)
    loaded = Run.open(run.folder).load(model, TEST)
    assert same_weights(model.state_dict(), tiny_network().state_dict())
    assert model.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert (loaded.records, loaded.config, loaded.planned) == (RECORDS, CONFIG, 2)
    assert (loaded.complete, loaded.seconds) == (True, 3.75)
    assert loaded.predictions.logits.dtype == np.float32
    assert loaded.predictions.logits.tolist() == LOGITS.tolist()
    assert loaded.predictions.labels.tolist() == TEST.labels.tolist()
    assert loaded.predictions.classes == TEST.classes


def test_the_state_of_a_stopped_run_fits_any_number_of_test_images(run):
    checkpoint(RECORDS[:1], logits=None).save(run.checkpoint_file)
    model = tiny_network(seed=5)
    state = run.checkpoint(model, TEST.take(range(4)))
    assert (state.records, state.complete) == (RECORDS[:1], False)
    assert same_weights(state.model, tiny_network().state_dict())
    assert same_weights(model.state_dict(), tiny_network(seed=5).state_dict())  # looking loads nothing


def test_a_broken_checkpoint_is_refused(run):
    checkpoint().save(run.checkpoint_file)
    half = run.checkpoint_file.read_bytes()[:5000]
    run.checkpoint_file.write_bytes(half)
    broken = "is cut short or is no checkpoint; the file is left as it is: move it away, or set resume=False to train in a new"
    for ask in (run.complete_epochs, lambda: run.checkpoint(tiny_network(), TEST)):
        with pytest.raises(CheckpointError, match=f"^{re.escape(f'{run.checkpoint_file} {broken}')} folder\\.$"):
            ask()
    assert run.checkpoint_file.read_bytes() == half


def refusals(run: Run, model: nn.Module, test: Any) -> set[str]:
    """What is said where weights are refused, which must leave the network and the file as they are."""
    before, content, said = copy.deepcopy(model.state_dict()), run.checkpoint_file.read_bytes(), set()
    for ask in (run.checkpoint, run.load):
        with pytest.raises(CheckpointError) as raised:
            ask(model, test)
        said.add(str(raised.value))
    assert same_weights(model.state_dict(), before)  # also the layers that would have fitted
    assert run.checkpoint_file.read_bytes() == content
    return said


@pytest.mark.parametrize("logits", [LOGITS, None], ids=["complete", "stopped"])
@pytest.mark.parametrize(
    "other",
    [tiny_network(width=5, seed=5), tiny_network(classes=4, seed=5), nn.Sequential(tiny_network())],
    ids=["width", "classes", "names"],
)
def test_weights_of_another_network_are_refused(other, logits, run):
    checkpoint(logits=logits).save(run.checkpoint_file)
    message = f"{run.checkpoint_file} holds the weights of another network; build the model of its config.json."
    assert refusals(run, other, TEST) == {message}


@pytest.mark.parametrize(
    ("images", "classes", "has"),
    [(9, ("a", "b", "c"), "9 of 3"), (11, ("a", "b", "c"), "11 of 3"), (10, tuple("abcd"), "10 of 4")],
)
def test_another_test_split_is_refused(images, classes, has, run):
    checkpoint().save(run.checkpoint_file)
    test = colored_images(images, split="test", classes=classes)
    assert refusals(run, tiny_network(len(classes), seed=5), test) == {
        f"{run.folder} was tested on 10 images of 3 classes, but the data set has {has}; give that data again, or set "
        "resume=False to train in a new folder."
    }


# ---- one process at a time -------------------------------------------------------------------------------------------


def refused(run: Run) -> str:
    """What is said where the lock is not given."""
    with pytest.raises(RunError) as raised, run.locked():
        pytest.fail("the folder was given to two at once")
    return str(raised.value)


def is_free(run: Run) -> bool:
    with run.locked():
        return True


def busy(run: Run) -> str:
    """What a second process is told."""
    return (
        f"{run.folder} is being trained by another process: wait until it is done, give another run_name, or set "
        "resume=False to train in a new folder."
    )


HOLD = """
import os, sys, time
from pathlib import Path
from era_support_packages.system.locks import file_lock
with file_lock(Path(sys.argv[1], ".lock")):
    child = os.fork() if "fork" in sys.argv else 0
    if child == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("leaves_a_child", [False, True])
def test_a_second_process_is_refused_until_the_first_is_killed(leaves_a_child, run):
    """Whatever a killed process leaves running, as the loading processes that go on for some seconds, holds no lock."""
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(run.folder), *(["fork"] if leaves_a_child else [])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        holder = int(first.stdout.readline())  # itself or its child
        try:
            assert refused(run) == busy(run)
            assert refused(run) == busy(run)  # a refusal takes nothing from the first
            assert files(run.folder) == [".lock"]
            first.kill()
            first.wait()
            assert is_free(run)
            assert files(run.folder) == []
        finally:
            first.kill()
            if leaves_a_child:
                os.kill(holder, signal.SIGKILL)


def test_the_lock_is_given_back_after_an_error(run):
    for error in (ValueError("broke off"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, run.locked():
            raise error
        assert raised.value is error
        assert files(run.folder) == []


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.EACCES])  # POSIX allows either
def test_a_lock_that_is_held_is_refused(error, run, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", raising(OSError(error, "held")))
    assert refused(run) == busy(run)


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_where_the_file_system_knows_no_locks_it_goes_on(error, run, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", raising(OSError(error, "no locks here")))
    assert is_free(run)
    assert files(run.folder) == []


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_named(error, run, monkeypatch):
    monkeypatch.setattr(FileLock, "acquire", raising(OSError(error, "cannot be written")))
    assert re.match(rf"{re.escape(str(run.folder))} cannot be written \(.*\): give another run_name", refused(run))
