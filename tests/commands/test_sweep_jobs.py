"""era sweep --jobs: what is refused, and that no process outlives the one that prints."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import TINY

from era_support_packages.commands.command_line import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("jobs", ["0", "65", "two", "1.5", "-1"])
def test_a_bad_number_is_refused_before_anything_runs(jobs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *TINY, "-p", "cutout", "0,2", "--jobs", jobs]) == 2
    assert capsys.readouterr().err.count("give a whole number from 1 to 64, or all") == 1
    assert list(tmp_path.iterdir()) == []


def children_of(pid: int) -> list[int]:
    return [int(text) for file in Path(f"/proc/{pid}/task").glob("*/children") for text in file.read_text().split()]


def is_there(pid: int) -> bool:
    """Whether it still runs; one that ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.several
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the children of a process are read from /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_the_one_that_prints(number, code, tmp_path):
    command = [sys.executable, "-m", "era_support_packages", "sweep", *TINY, "--train-images", "60000"]
    command += ["-p", "max_lr", "0.01,0.02", "--jobs", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    sweep = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
    for line in sweep.stdout:
        if line.startswith("Trial 2 of 2"):
            break
    children = children_of(sweep.pid)
    sweep.send_signal(number)
    out, err = sweep.communicate(timeout=100)
    assert (sweep.returncode, len(children)) == (code, 2), err
    assert out.count("The sweep was stopped. Give the same command again") == (number == signal.SIGINT)
    assert "Traceback" not in err
    until = time.monotonic() + 60
    while any(map(is_there, children)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(is_there, children))
