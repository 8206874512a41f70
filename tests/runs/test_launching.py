"""A run on several devices, started from here: as if torchrun had been typed, and it stops as a run of one process does."""

import errno
import multiprocessing
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kill_several
import pytest
import torch
from tiny import tiny_network
from tiny_run import TINY

from era_support_packages.commands.command_line import build_parser, main
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.notebook.parameters import ParameterError, Parameters
from era_support_packages.runs import RunStopped, launching, prepare, train_in_folder, train_or_stop
from era_support_packages.runs.card import recipe
from era_support_packages.runs.launching import LaunchError, why
from era_support_packages.system import tensor_file
from era_support_packages.training import build_model, sharing
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.sharing import process_count

SMALL = {"dataset": "digits", "train_images": 64, "batch_size": 32, "resolutions": ((8, 1.0),), "device": "cpu"}
SMALL |= {"precision": "fp32", "model": "resnet_custom", "threads": 1, "report": lambda _: None}
FOUR = {**SMALL, "validation": 0.5, "batch_size": 64, "test_images": 40, "train_images": None, "epochs": 4}
SLOWLY = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the processes are found by /proc")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Processes find the package, and wait long on a busy machine."""
    for name in ("PYTHONPATH", "ERA_COLLECTIVE_TIMEOUT", "TQDM_DISABLE"):
        monkeypatch.setenv(name, kill_several.ENVIRONMENT[name])


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The numbers of the processes that were started here and still run, the launcher first."""
    folder = tmp_path / "asked"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    def found():
        pids = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = file.read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words and words:
                pids.append((b"torch.distributed.run" not in words, int(file.parent.name)))
        return [pid for _, pid in sorted(pids)]

    return found


def network_of(prepared):
    return build_model(prepared.config, 10, prepared.train)


@pytest.mark.several
def test_it_equals_the_run_under_torchrun_bit_by_bit(tmp_path):
    prepared = prepare("smoke", devices=2, output_dir=str(tmp_path), run_name="here", **SMALL)
    network, lines = network_of(prepared), []
    classifier, history = train_or_stop(network, prepared, lines.append)
    assert lines[0] == "2 processes train this run together, each on its own slice of every batch."
    assert [line.split()[:2] for line in lines[-1:]] == [["1", "8"]]  # the row
    assert (history.complete, prepared.run.summary()["processes"]) == (True, 2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "era_support_packages", "train", *TINY, "--threads", "1", "--output-dir", str(tmp_path)]
    subprocess.run([*command, "--run-name", "there"], check=True, capture_output=True, env=kill_several.ENVIRONMENT)
    wanted = Checkpoint.load(tmp_path / "there" / "checkpoint.pt").model
    assert all(torch.equal(values, wanted[name]) for name, values in network.state_dict().items())
    assert classifier.resolution == 8
    again = []
    train_or_stop(network_of(prepared), prepared, again.append)
    assert again[0].startswith("Not trained now: this is the run here")


@pytest.mark.several
@SLOWLY
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_and_the_run_can_be_shown_and_goes_on(number, code, tmp_path, started):
    asked = {"output_dir": str(tmp_path / "runs"), "run_name": "run", **FOUR}
    prepared, lines, seen = prepare("smoke", devices=2, **asked), [], []

    def report(line):
        lines.append(line)
        if re.match(r" +1 ", line):
            seen.extend(started())
            os.kill(os.getpid(), number)

    network = network_of(prepared)
    with pytest.raises(RunStopped) as stopped:
        train_in_folder(network, prepared, report)
    assert (stopped.value.exit_code, len(seen), started()) == (code, 3, [])
    done = len(stopped.value.history.records)
    assert 1 <= done < 4
    assert [line for line in lines if line.startswith("Stopped")] == [lines[-1]]
    assert lines[-1].startswith(f"Stopped after epoch {done} of 4. ")
    kept = Checkpoint.load(prepared.run.checkpoint_file)
    assert all(torch.equal(values, kept.model[name]) for name, values in network.state_dict().items())
    assert (kept.processes, prepared.run.summary()["processes"], prepared.run.summary()["complete"]) == (2, 2, False)
    if number == signal.SIGINT:  # once is enough
        return
    again = prepare("smoke", devices=2, **asked)
    assert train_or_stop(network_of(again), again, lines.append).history.complete
    assert "bit-identical" not in " ".join(lines)


@pytest.mark.several
@SLOWLY
def test_a_process_that_is_killed_ends_all_in_a_sentence(tmp_path, started):
    prepared = prepare("smoke", devices=2, output_dir=str(tmp_path / "runs"), **FOUR)

    def report(line):
        if re.match(r" +1 ", line):
            os.kill(started()[-1], signal.SIGKILL)

    with pytest.raises(LaunchError, match=r"was killed .* The last checkpoint stays"):
        train_or_stop(network_of(prepared), prepared, report)
    assert started() == []
    assert len(Checkpoint.load(prepared.run.checkpoint_file).records) >= 1


@pytest.mark.several
def test_what_goes_wrong_there_is_said_here(tmp_path):
    prepared = prepare("smoke", devices=2, output_dir=str(tmp_path), **SMALL)
    data = prepared.run.folder / "data.json"
    data.write_text(re.sub(r'"digest": "\w{4}', '"digest": "0000', data.read_text()).replace('"images": 1437', '"images": 1438'))
    with pytest.raises((DatasetError, ValueError), match="data"):
        train_or_stop(network_of(prepared), prepared, lambda _: None)


RAISED = """Traceback (most recent call last):
ModuleNotFoundError: No module named 'own_network'
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
  exitcode  : 1 (pid: 12)
"""
LEFT = "ChildFailedError:\n  exitcode  : 1 (pid: 11)\n  exitcode  : -9 (pid: 12)\n"  # the first had missed the second
FORCED = "W1127 12:18:07 api.py:1047] Unable to shutdown process 12 via 15, forcefully exiting via 9\n" + LEFT  # it had hung
KILLED = "ChildFailedError:\n  exitcode  : -15 (pid: 11)\n  exitcode  : -9 (pid: 12)\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (RAISED, "failed (ModuleNotFoundError: No module named 'own_network')"),
        (KILLED, "was killed (signal 9, as the system does where the memory is full)"),
        (LEFT, "was killed (signal 9, as the system does where the memory is full)"),
        (FORCED, "ended with exit code 1"),
        ("", "ended with exit code 1"),
    ],
)
def test_how_one_ended_that_said_nothing(log, said):
    assert why(log, 1) == said


def test_processes_are_heard_where_the_path_of_the_temporary_folder_is_too_long_for_a_socket(tmp_path, monkeypatch):
    (folder := tmp_path / ("t" * 100)).mkdir()
    monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", str(folder))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))  # in place of torchrun
    with launching._Launched(2, tmp_path, {}) as launched:
        asked = pickle.loads((tmp_path / "asked").read_bytes())
        assert asked["address"] == launched._listener.address
        assert asked["address"][0] == "127.0.0.1"


def test_how_to_repeat_it_says_how_many_processes_there_were(tmp_path):
    config = prepare("smoke", output_dir=str(tmp_path), **SMALL).config
    said = {"seconds": 1.0, "hardware": "a CPU", "pflops": 0.1, "versions": {"torch": "2.6"}}
    run = SimpleNamespace(config=lambda: config, summary=lambda: said)
    assert "--devices" not in recipe(run)[0]
    said["processes"] = 2
    command = recipe(run)[0]
    assert build_parser("train").read(shlex.split(command)[4:])["devices"] == 2


# ---- what is refused -----------------------------------------------------------------------------------------------------


def test_a_network_of_another_kind_is_refused(tmp_path):
    prepared = prepare("smoke", devices=2, output_dir=str(tmp_path), **SMALL)
    with pytest.raises(LaunchError, match="not the 'resnet_custom' of the configuration"):
        train_or_stop(tiny_network(10), prepared, lambda _: None)
    changed = network_of(prepared)
    changed.register_forward_pre_hook(lambda module, given: given[0].flip(3).tanh())
    with pytest.raises(LaunchError, match="as its forward pass shows"):  # else its processes would train the one without
        train_or_stop(changed, prepared, lambda _: None)


def test_a_full_disk_for_temporary_files_is_said_before_any_process_is_started(tmp_path, monkeypatch):
    prepared = prepare("smoke", devices=2, output_dir=str(tmp_path), **SMALL)
    write = tensor_file.write_atomically

    def full(path, content):
        if path.name == "start.pt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(tensor_file, "write_atomically", full)
    with pytest.raises(LaunchError, match=r"No space left on device.* TMPDIR"):
        train_or_stop(network_of(prepared), prepared, lambda _: None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--devices", "0"], "give a whole number from 1 to 64, or 'all'"),
        (["--devices", "two"], "give a whole number from 1 to 64, or 'all'"),
        (["--devices", "2", "--batch-size", "15"], "give 14 or 16"),
        (["--devices", "2", "--sync-batch-norm", "true"], "on GPUs alone"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_made(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_notebook_takes_it_in_more(tmp_path):
    values = {"preset": "smoke", "output_dir": str(tmp_path)}
    values["more"] = {name: SMALL[name] for name in ("train_images", "device", "precision")} | {"devices": 2}
    prepared = Parameters.collect({**values, "dataset": "digits"}).prepare(lambda _: None)
    assert (prepared.devices, prepared.config.threads) == (2, max(1, torch.get_num_threads() // 2))
    with pytest.raises(ParameterError, match="devices is 'both'"):
        Parameters.collect({"more": {"devices": "both"}}).check()


@pytest.mark.parametrize(
    ("devices", "asked", "kind", "count"),
    [
        (1, "auto", "cpu", 1),
        ("all", "auto", "cpu", 1),
        (3, "cpu", "cpu", 3),
        ("all", "auto", "cuda", 4),
        (2, "cuda", "cuda", 2),
        (1, "cuda:1", "cuda", 1),
        (1, "mps", "mps", 1),
        (5, "auto", "cuda", "4 CUDA GPUs"),
        (2, "cuda:1", "cuda", "set device to 'cuda'"),
        (2, "mps", "mps", "'mps' is one device"),
    ],
)
def test_how_many_processes_that_is(devices, asked, kind, count, monkeypatch):
    monkeypatch.setattr(sharing.torch, "cuda", SimpleNamespace(device_count=lambda: 4))
    if isinstance(count, int):
        assert process_count(devices, asked, torch.device(kind)) == count
    else:
        with pytest.raises(ValueError, match=count):
            process_count(devices, asked, torch.device(kind))
