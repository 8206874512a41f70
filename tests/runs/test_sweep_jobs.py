"""A sweep whose trials are shared out over processes: the same result, nothing twice, and no process is left behind."""

import errno
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from era_support_packages.runs import sweep_jobs
from era_support_packages.runs.sweep import NothingTrainedError, run_sweep
from era_support_packages.runs.sweep_plan import SweepPlan
from era_support_packages.runs.sweep_values import SweepError, read_space
from era_support_packages.system.children import how_it_ended, portable, raise_told
from era_support_packages.system.interrupts import Terminated

SUPPORT = Path(__file__).parents[1] / "support"
SMALL = {"epochs": 2, "resolutions": ((8, 1.0),), "batch_size": 8, "crop_padding": 0, "device": "cpu", "precision": "fp32"}
SMALL |= {"validation": 0.25, "test_images": 4, "threads": 1}


@pytest.fixture
def log(tmp_path, monkeypatch, small_sweeps):
    """The file in which the processes write down what they train."""
    file = tmp_path / "log"
    monkeypatch.setattr(sweep_jobs, "WORKER", [sys.executable, str(SUPPORT / "sweep_process.py")])
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("SWEEP_LOG", str(file))
    return file


def sweep(root, lines, jobs=2, seeds=(0, 1), trials=None, space=(("max_lr", "0.05,0.2"),)):
    plan = SweepPlan(read_space(space, trials is not None), seeds, {**SMALL, "output_dir": str(root)}, "smoke", trials)
    return run_sweep(plan, None, lines.append, jobs)


def without_seconds(result):
    text = json.dumps(result.to_dict() | {"folder": ""})
    return json.loads(text, object_hook=lambda found: {name: value for name, value in found.items() if name != "seconds"})


def looks(log):
    return Counter(tuple(line.split()[1:]) for line in log.read_text().splitlines())


def assert_all_ended(log):
    """No process of those that wrote a line is there any more."""
    for pid in {int(line.split()[0]) for line in log.read_text().splitlines()}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.several
@pytest.mark.parametrize("fault", ["", "kill 0.2 1"])
def test_two_processes_train_each_epoch_once_to_the_result_of_one(fault, log, tmp_path, monkeypatch):
    """Also where one of them is killed after its first epoch: the trial goes on from there in another one."""
    monkeypatch.setenv("SWEEP_FAULT", fault or "none 0 0")
    lines = []
    result = sweep(tmp_path / "two", lines)
    assert without_seconds(result) == without_seconds(sweep(tmp_path / "one", [], jobs=1))
    trials = [run.run for one in result.tried for run in one.runs]
    finals = [run.run for run in result.finals]
    assert looks(log) == {**{(name, "validation"): 2 for name in trials}, **{(name, "test"): 2 for name in finals}}
    assert len({line.split()[0] for line in log.read_text().splitlines()}) == (3 if fault else 2)
    assert lines[0] == "2 processes train the trials, each with 1 thread."
    assert sum(line.startswith("Trial ") and " % of the validation images in " in line for line in lines) == 4
    named = [line for line in lines if "was killed (signal 9" in line]
    assert len(named) == bool(fault)
    assert all(line.endswith(": another one takes it.") and "max_lr=0.2 seed=" in line for line in named)
    assert_all_ended(log)


@pytest.mark.several
def test_a_trial_that_ends_two_processes_is_given_up(log, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_FAULT", "kill 0.2 9")
    lines = []
    result = sweep(tmp_path / "runs", lines, seeds=(0,))
    assert [one.state for one in result.tried] == ["complete", "failed"]
    assert result.chosen.values == {"max_lr": 0.05}
    assert "was killed (signal 9, as the system does where the memory is full), twice." in result.tried[1].runs[0].problem
    assert [line.split(": ")[-1] for line in lines if line.startswith("Process ")] == [
        "another one takes it.",
        "as that happened twice, the trial is given up.",
    ]


@pytest.mark.several
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_with_one_sentence(number, code, log, tmp_path):
    lines = []

    def stop():
        while not log.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt) as stopped:
        sweep(tmp_path / "runs", lines, space=(("max_lr", "0.01,0.02,0.03,0.04,0.05,0.06,0.07,0.08"),))
    assert isinstance(stopped.value, Terminated) == (code == 143)
    assert getattr(stopped.value, "exit_code", 130) == code
    assert lines[-1].startswith("The sweep was stopped. Give the same command again")
    assert_all_ended(log)


@pytest.mark.several
@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [("full", SweepError, "There is no room left"), ("device", sweep_jobs.NoProcessLeftError, "No GPU is left that works")],
)
def test_what_ends_the_sweep_in_one_process_ends_it_in_all(fault, error, said, log, tmp_path, monkeypatch):
    monkeypatch.setenv("SWEEP_FAULT", f"{fault} 0.2 9")
    lines = []
    with pytest.raises((error, ValueError), match=said if fault == "device" else "No space left on device"):
        sweep(tmp_path / "runs", lines)
    assert sum("cannot use its GPU any more" in line for line in lines) == (2 if fault == "device" else 0)
    assert_all_ended(log)


@pytest.mark.several
def test_a_search_by_two_processes(log, tmp_path):
    pytest.importorskip("optuna", reason='Optuna is not installed: pip install "optuna>=4"')
    lines = []
    result = sweep(tmp_path / "runs", lines, seeds=(0,), trials=4, space=(("max_lr", "0.01..1:log"),))
    assert len(result.tried) == 4
    assert max(looks(log).values()) == 2  # an epoch each
    assert {f"Trial {number} of 4" for number in range(1, 5)} <= {line.split(":")[0] for line in lines}
    assert_all_ended(log)


def test_where_files_cannot_be_locked_it_is_refused(tmp_path, monkeypatch, small_sweeps):
    def refuse(*_, **__):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(SweepError, match="several processes cannot share it: do without --jobs"):
        sweep(tmp_path, [])


# ---- what each process has of the machine ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "visible", "gpus", "each"),
    [
        ("all", "", ["0", "1", "2"], "a GPU"),
        (2, "", ["0", "1"], "a GPU"),
        ("all", "5,GPU-7", ["5", "GPU-7"], "a GPU"),
        (4, "5,GPU-7", ["5", "GPU-7", "5", "GPU-7"], "2 GPUs in turn"),
    ],
)
def test_each_process_sees_its_own_gpu(jobs, visible, gpus, each, monkeypatch):
    monkeypatch.setattr(sweep_jobs, "resolve_device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(sweep_jobs.torch, "cuda", SimpleNamespace(device_count=lambda: 3))
    found = sweep_jobs.share_machine(jobs, None, {"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    assert [values["CUDA_VISIBLE_DEVICES"] for values in found.environments] == gpus
    assert (found.count, found.each) == (len(gpus), each)
    with pytest.raises(SweepError, match="device is 'cuda:1', but --jobs"):
        sweep_jobs.share_machine(jobs, "cuda:1", {})
    assert sweep_jobs.share_machine(1, "cuda:1", {}).count == 1


@pytest.mark.parametrize(("jobs", "count", "threads"), [(2, 2, "4"), (3, 3, "2"), ("all", 8, "1"), (16, 16, "1"), (1, 1, "8")])
def test_on_a_cpu_the_threads_are_shared_out(jobs, count, threads, monkeypatch):
    monkeypatch.setattr(sweep_jobs.torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(sweep_jobs, "resolve_precision", lambda *_: "bf16")
    found = sweep_jobs.share_machine(jobs, "cpu", {"HOME": "here"})
    assert len(found.environments) == found.count == count
    assert {values["OMP_NUM_THREADS"] for values in found.environments} == {threads}
    assert {values["_ERA_BF16_IS_FASTER"] for values in found.environments} == {"1"}  # timed once
    assert {values["HOME"] for values in found.environments} == {"here"}


# ---- what processes tell each other ------------------------------------------------------------------------------------


class _Own(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)


def test_an_error_reaches_the_other_process_as_it_is_or_in_its_words():
    with pytest.raises(NothingTrainedError, match="nothing") as raised:
        raise_told(portable(NothingTrainedError("nothing")))
    assert "NothingTrainedError: nothing" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="_Own: ab"):
        raise_told(portable(_Own("a", "b")))


def test_how_a_process_ended():
    said = {3: "ended with exit code 3", -15: "was killed (signal 15)", None: "does not answer any more"}
    assert {code: how_it_ended(code) for code in said} == said
