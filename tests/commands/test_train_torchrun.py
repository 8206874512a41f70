"""`train` under torchrun itself, as a person starts it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import kill_several
import pytest
from tiny_run import TINY

from era_support_packages.commands.command_line import main

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
MODULE = ["-m", "era_support_packages"]
PASSES = ["--train-images"]  # over 1437 digits, in 44 steps each


def begin(arguments: list[str], folder: Path) -> subprocess.Popen:
    command = [*TORCHRUN, *arguments, "--output-dir", str(folder), "--run-name", "run", "--precision", "fp32"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=kill_several.ENVIRONMENT, **pipes)


def torchrun(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    process = begin(arguments, folder)
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


@pytest.mark.several
def test_two_processes_make_one_record(tmp_path):
    code, out, err = torchrun([*MODULE, "train", *TINY, "--json"], tmp_path)
    assert code == 0, err
    record = json.loads(out)  # printed once
    assert (record["processes"], record["complete"], record["config"]["device"]) == (2, True, "cpu")
    assert err.count("2 processes train this run together") == 1
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, record["epochs"] + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    code, out, err = torchrun([*MODULE, "train", *TINY], tmp_path)  # the finished run is shown
    assert (code, out.count("Not trained now: this is the run run")) == (0, 1), err


@pytest.mark.several
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", *TINY, "--batch-size", "15"], "give 14 or 16"),
        (["train", "--epoch", "3"], "--epochs"),
        (["runs"], "runs runs in one process: start it without torchrun"),
    ],
)
def test_what_cannot_be_used_is_said_once_and_nothing_is_made(arguments, sentence, tmp_path):
    if "train" in arguments:
        code, _, err = torchrun([*MODULE, *arguments], tmp_path)
    else:
        process = subprocess.run(
            [*TORCHRUN, *MODULE, *arguments], env=kill_several.ENVIRONMENT, capture_output=True, text=True, timeout=500
        )
        code, err = process.returncode, process.stderr
    assert code == 1
    errors = [line for line in err.splitlines() if line.startswith("error")]
    assert len(errors) == 1, err
    assert sentence in errors[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.several
def test_killed_processes_are_started_again_and_end_as_the_undisturbed_run_bit_by_bit(tmp_path):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, none, _ = kill_several.run(tmp_path / "whole", [])
    moments = [[1, 2, 3, None], [0, 3, None, "flushed to disk"]]
    killed, moments_of, said = kill_several.run(tmp_path / "killed", moments)
    assert (none, len(moments_of)) == ([], 2)
    assert "Another process of this run has ended, or does not answer" in said
    assert kill_several.differences(whole, killed) == []


@pytest.mark.several
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_ends_all_with_one_sentence_and_the_run_goes_on_in_one_process(number, tmp_path, capsys):
    process = begin([*MODULE, "train", *TINY, *PASSES, "11496"], tmp_path)
    for line in process.stdout:
        if line.strip().startswith("1 "):  # the first row
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=500)
    assert process.returncode != 0
    assert out.count("Stopped after epoch") == 1, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["complete"], summary["processes"]) == (False, 2)
    rest = ["--output-dir", str(tmp_path), "--run-name", "run", "--precision", "fp32"]
    assert main(["train", *TINY, *PASSES, "11496", *rest]) == 0
    assert capsys.readouterr().out.count("This goes on with 1 process instead of 2: ") == 1
