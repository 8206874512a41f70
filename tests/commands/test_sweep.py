"""era sweep: what is refused before anything runs, what it prints, and that a killed one goes on."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tiny import tiny_network
from tiny_run import TINY

from era_support_packages.commands.command_line import main
from era_support_packages.runs import list_runs, recording, sweep_plan

ROOT = Path(__file__).parents[2]
SWEEP = ["sweep", *TINY]


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """An empty working folder, and a network of a few channels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda *_: tiny_network(classes=10))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to choose"),
        (["-p", "cutout", "8"], "nothing to choose"),
        (["-p", "cutuot", "0,8"], "'cutout'"),
        (["-p", "cutout", "0,33"], "cutout is 33"),
        (["-p", "cutout", "[]"], "cutout has no value"),
        (["-p", "seed", "0,1"], "--seeds 0,1,2"),
        (["-p", "max_lr", "0.01..1"], "--search N"),
        (["-p", "cutout", "0,8", "--cutout", "4"], "given twice"),
        (["-p", "cutout", "0,8", "--seeds", "0,x"], "--seeds has 'x'"),
        (["-p", "cutout", "0,8", "--seeds", ""], "such as --seeds 1,2"),
        (["-p", "max_lr", "0.01,,0.02"], "error: max_lr 0.01,,0.02 has a comma"),
        (["-p", "max_lr", "0.01,-1"], "error: max_lr is -1"),
        (["-p", "cutout", "0,8", "--max-lr", "-1"], "error: --max-lr is -1"),
        (["-p", "cutout", "0,8", "--seed", "1"], "'--seeds'"),
        (["-p", "cutout", "0,8", "--validation", "0"], "validation is 0"),
        (["-p", "cutout", "0,8", "--validation", "0.9"], "validation is 0.9"),
        (["-p", "cutout", "0,8", "--search", "0"], "from 1 to 10000"),
        (["-p", "cutout", "0,8", "--momentum", "2"], "momentum is 2"),
        (["-p", "cutout", "0,8", "--dataset", "digit"], "'digits'"),
        (["-p", "cutout", "0,8", "--run-name", "mine"], "Unknown option '--run-name'"),
        (["-p", "cutout"], "expected 2 arguments"),
    ],
)
def test_a_bad_value_of_any_trial_is_refused_before_anything_runs(options, said, tmp_path, capsys):
    assert main([*SWEEP, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_line_to_type_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sweep_plan, "has_optuna", lambda: False)
    assert main([*SWEEP, "-p", "max_lr", "0.01..1:log", "--search", "3"]) == 2
    assert 'pip install "optuna>=4"' in capsys.readouterr().err


def test_it_ends_with_the_choice_its_test_and_the_comparison(tmp_path, capsys):
    assert main([*SWEEP, "-p", "max_lr", "0.01,0.1", "--seeds", "0,1"]) == 0
    said = capsys.readouterr().out
    assert "Trial 2 of 4: --max-lr 0.01 --seed 1" in said
    assert "Last training 2 of 2: " in said
    assert "Chosen by mean validation accuracy over 2 seeds: max_lr " in said
    assert "They differ in seed." in said.split("Chosen by")[1]
    (file,) = (tmp_path / "runs").glob("sweep-digits-*.json")
    found = json.loads(file.read_text())
    capsys.readouterr()
    assert main([*SWEEP, "-p", "max_lr", "0.01,0.1", "--seeds", "0,1", "--json"]) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == found
    assert again.err.count("trained before") == 6
    assert main([*SWEEP, "-p", "max_lr", "0.01,0.1", "--seeds", "0,1", "--quiet"]) == 0
    assert "Trial" not in capsys.readouterr().out
    assert main(["runs", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert (len(runs["runs"]), runs["no_runs"]) == (6, [])
    assert sum(run["test_accuracy"] is None for run in runs["runs"]) == 4


def test_a_search_from_the_command_line(capsys):
    pytest.importorskip("optuna", reason='Optuna is not installed: pip install "optuna>=4"')
    assert main([*SWEEP, "-p", "max_lr", "0.01..1:log", "-p", "cutout", "0..2", "--search", "2", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert len(found["tried"]) == 2
    assert all(0.01 <= one["values"]["max_lr"] <= 1 and one["values"]["cutout"] in (0, 1, 2) for one in found["tried"])
    assert "Trial 2 of 2" in said.err


def test_ctrl_c_ends_quietly_and_says_how_to_go_on(monkeypatch, capsys):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("era_support_packages.training.loop.predict", pressed)
    assert main([*SWEEP, "-p", "max_lr", "0.01,0.1"]) == 130
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].startswith("The sweep was stopped. Give the same command again")
    assert "Traceback" not in said.err


# Each time that a network predicts a split is a line in the file: the run and the split. It is killed in the second epoch of a
# run, whose first is on the disk.
DRIVER = """
import os, signal, sys
from era_support_packages.runs import recording
from era_support_packages.training import loop
from era_support_packages.commands.command_line import main

log, kill_at = sys.argv[1], int(sys.argv[2])
now, count = [], [0]
train, predict = recording.train_in_folder, loop.predict

def training(model, prepared, *rest):
    now[:] = [prepared.run.name]
    return train(model, prepared, *rest)

def predicting(model, split, *rest, **options):
    count[0] += 1
    if count[0] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    with open(log, "a") as file:
        file.write(f"{now[0]} {split.split}\\n")
    return predict(model, split, *rest, **options)

recording.train_in_folder = training
loop.predict = recording.predict = predicting
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.several
def test_a_killed_sweep_goes_on_trains_nothing_twice_and_tests_the_winner_alone(tmp_path):
    log = tmp_path / "log"
    options = [*SWEEP, "--resolutions", "[[8, 0.5], [9, 0.5]]", "--seeds", "0,1", "--json"]
    options += ["-p", "max_lr", "0.01,0.1", "-p", "cutout", "0,2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}

    def sweep(kill_at):
        command = [sys.executable, "-c", DRIVER, str(log), str(kill_at), *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert sweep(kill_at=10).returncode == -signal.SIGKILL
    assert len(log.read_text().splitlines()) == 9
    done = sweep(kill_at=0)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    trials = [run["run"] for one in result["tried"] for run in one["runs"]]
    finals = [run["run"] for run in result["final"]["runs"]]
    assert (len(set(trials)), len(finals), len(list_runs(tmp_path / "runs"))) == (8, 2, 10)
    assert done.stderr.count("trained before") == 4
    looks = Counter(tuple(line.split()) for line in log.read_text().splitlines())
    assert looks == {**{(name, "validation"): 2 for name in trials}, **{(name, "test"): 2 for name in finals}}  # an epoch each
