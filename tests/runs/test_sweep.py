"""A sweep of tiny networks: each run once, judged on held-out images, and only the chosen values tested."""

import errno
import json
import os
import socket
import subprocess
import sys
from collections import Counter

import pytest
from tiny import colored_images, tiny_network

from era_support_packages.datasets import loading
from era_support_packages.runs import Run, RunStopped, list_runs, prepare, recording, sweep_locks, trials
from era_support_packages.runs.folder import RunError
from era_support_packages.runs.sweep import NothingTrainedError, run_sweep
from era_support_packages.runs.sweep_plan import SweepPlan
from era_support_packages.runs.sweep_result import Combination, SweepResult, TrialRun
from era_support_packages.runs.sweep_values import SweepError, read_space
from era_support_packages.training import loop

pytestmark = pytest.mark.usefixtures("small_sweeps")
SMALL = {"epochs": 2, "resolutions": ((8, 1.0),), "batch_size": 8, "crop_padding": 0, "device": "cpu", "precision": "fp32"}
SMALL |= {"validation": 0.25, "test_images": 4, "test_time_flip": True}


@pytest.fixture
def seen(monkeypatch):
    """(run, split) for each time that a network predicts a split."""
    found, now = [], []
    train, predict = recording.train_in_folder, loop.predict

    def training(model, prepared, *rest):
        now[:] = [prepared.run.name]
        return train(model, prepared, *rest)

    def predicting(model, split, *rest, **options):
        found.append((now[0], split.split))
        return predict(model, split, *rest, **options)

    monkeypatch.setattr(recording, "train_in_folder", training)
    for module in (loop, recording):
        monkeypatch.setattr(module, "predict", predicting)
    return found


def plan(root, *pairs, seeds=(0, 1), **fixed):
    pairs = pairs or (("max_lr", "0.05,0.2"),)
    return SweepPlan(read_space(pairs, False), seeds, {**SMALL, "output_dir": str(root), **fixed}, "smoke")


def test_the_best_on_held_out_images_is_trained_on_all_of_them_and_alone_is_tested(tmp_path, seen):
    lines = []
    result = run_sweep(plan(tmp_path), None, lines.append)
    assert [one.values for one in result.tried] == [{"max_lr": 0.05}, {"max_lr": 0.2}]
    finals = [run.run for run in result.finals]
    assert {name for name, split in seen if split == "test"} == {*finals}
    assert Counter(name for name, _ in seen if name not in finals) == {run.run: 2 for one in result.tried for run in one.runs}
    for one in result.tried:
        for run, seed in zip(one.runs, (0, 1), strict=True):
            summary = Run(tmp_path / run.run).summary()
            assert (summary["complete"], summary["test_accuracy"], summary["test_accuracy_tta"]) == (True, None, None)
            assert summary["validation_accuracy"] == run.validation_accuracy
            assert (summary["seed"], summary["images"]["train"]) == (seed, 18)
    for run in result.finals:
        config = Run(tmp_path / run.run).config()
        assert (config.validation, config.final_test, config.max_lr) == (0.0, True, result.chosen.values["max_lr"])
    assert lines[0] == "4 trials: 2 combinations, each with 2 seeds."
    assert "Trial 3 of 4: max_lr=0.2 seed=0" in lines
    assert json.loads((tmp_path / f"{result.name}.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    entries = {run.name: run for run in list_runs(tmp_path).entries}
    assert sum(run.test_accuracy is None for run in entries.values()) == 4
    again = []
    assert run_sweep(plan(tmp_path), None, again.append).to_dict() == result.to_dict()
    assert sum("trained before" in line for line in again) == 6
    assert len(entries) == len(list_runs(tmp_path).entries) == 6


def test_a_trial_is_an_ordinary_run_that_can_be_shown_again(tmp_path):
    result = run_sweep(plan(tmp_path, seeds=(0,)), None, lambda line: None)
    folder = tmp_path / result.tried[0].runs[0].run
    shown = prepare(finished_run=str(folder), report=lambda line: None)
    _, history = recording.train_in_folder(tiny_network(), shown, lambda line: None)
    assert (history.judged, len(history.predictions)) == ("validation", 6)
    assert history.predictions.accuracy == result.tried[0].accuracy
    assert shown.judged(history) is shown.validation
    assert "left unread" in history.choice


def test_a_sweep_that_was_stopped_goes_on_and_trains_nothing_twice(tmp_path, seen, monkeypatch):
    lines, save = [], recording.Checkpoint.save
    saved = []

    def stop(self, path):
        save(self, path)
        saved.append(path)
        if len(saved) == 5:  # the first epoch of the third run
            raise KeyboardInterrupt

    monkeypatch.setattr(recording.Checkpoint, "save", stop)
    with pytest.raises(RunStopped):
        run_sweep(plan(tmp_path), None, lines.append)
    assert lines[-1].startswith("The sweep was stopped. Give the same command again")
    monkeypatch.setattr(recording.Checkpoint, "save", save)
    result = run_sweep(plan(tmp_path), None, lines.append)
    counts = Counter(name for name, split in seen if split == "validation")
    assert counts == {run.run: 2 for one in result.tried for run in one.runs}  # an epoch each, none twice
    assert any(line.endswith("1 of 2 epochs are done.") for line in lines)


def test_a_trial_that_another_process_trains_is_left_to_it(tmp_path, seen, monkeypatch):
    asked, lines, pauses = plan(tmp_path), [], []
    other = prepare("smoke", report=lambda line: None, **asked.overrides({"max_lr": 0.05}, 0))
    held = other.run.locked()
    held.__enter__()

    def wait(seconds):
        pauses.append(seconds)
        assert not any(name == other.run.name for name, _ in seen)
        held.__exit__(None, None, None)

    monkeypatch.setattr(trials.time, "sleep", wait)
    result = run_sweep(asked, None, lines.append)
    assert len(pauses) == 1
    assert lines.index("Trial 1 of 4: max_lr=0.05 seed=0 is being trained by another process: left to that one.") == 1
    assert result.tried[0].runs[0].run == other.run.name
    assert [name for name, split in seen if split == "validation"][-1] == other.run.name


def test_a_trial_that_another_sweep_has_just_begun_is_not_called_stopped(tmp_path, monkeypatch):
    asked, lines = plan(tmp_path), []
    other = prepare("smoke", report=lambda line: None, **asked.overrides({"max_lr": 0.05}, 0))
    lock = sweep_locks.own_trial(tmp_path, other.run.name)  # it makes its range test, before it locks the folder
    before = []

    def wait(seconds):
        before.extend(lines)
        sweep_locks.give_back(lock)

    monkeypatch.setattr(trials.time, "sleep", wait)
    run_sweep(asked, None, lines.append)
    assert before[1] == "Trial 1 of 4: max_lr=0.05 seed=0 is being trained by another process: left to that one."
    assert not [line for line in before if line.startswith("Going on") or line == "Trial 1 of 4: max_lr=0.05 seed=0"]
    assert [line for line in lines if line.startswith(f"Going on with {other.run.folder}")]  # it was killed
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_trial_that_fails_is_part_of_the_result(tmp_path, monkeypatch):
    train = trials.train_prepared

    def failing(prepared, *rest):
        if prepared.config.max_lr > 0.1:
            raise trials.TrainingDivergedError("The loss became nan; lower max_lr and run again.")
        return train(prepared, *rest)

    monkeypatch.setattr(trials, "train_prepared", failing)
    result = run_sweep(plan(tmp_path), None, lambda line: None)
    assert [one.state for one in result.tried] == ["complete", "failed"]
    assert (result.chosen.values, result.table().rows[1][-1]) == ({"max_lr": 0.05}, "failed")
    assert "Failed: max_lr 0.2. The loss became nan" in result.reading()
    with pytest.raises(NothingTrainedError, match=r"No combination .* The loss became nan"):
        run_sweep(plan(tmp_path, ("max_lr", "0.2,0.3")), None, lambda line: None)


def test_a_value_that_this_data_cannot_serve_is_refused_before_any_folder_is_made(tmp_path):
    few = colored_images(24).take([0, 1, 2, 3, 4]), colored_images(10, split="test")
    loading.load = lambda *_, **__: few  # undone with the fixture's
    with pytest.raises(ValueError, match="'blue' has one training image"):
        run_sweep(plan(tmp_path / "runs"), None, lambda line: None)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("where", ["checkpoint", "summary"])
def test_a_full_disk_ends_it_in_a_sentence_and_it_goes_on(where, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        owner, name = (recording.Checkpoint, "save") if where == "checkpoint" else (Run, "write_summary")
        patched.setattr(owner, name, full)
        with pytest.raises((SweepError, RunError), match="No space left on device"):
            run_sweep(plan(tmp_path), None, lambda line: None)
    assert len(run_sweep(plan(tmp_path), None, lambda line: None).finals) == 2


# ---- one folder, several sweeps --------------------------------------------------------------------------------------


def unlockable(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)


def test_without_locks_a_folder_is_not_shared(tmp_path, monkeypatch):
    unlockable(monkeypatch)
    mark = tmp_path / ".sweep-alone.json"
    with sweep_locks.at_work(tmp_path):
        assert mark.exists()
        with pytest.raises(SweepError, match=r"two sweeps cannot share it, and process \d+ on .* seems to be at work"):
            run_sweep(plan(tmp_path), None, lambda line: None)
    assert not mark.exists()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    mark.write_text(json.dumps({"host": socket.gethostname(), "pid": int(gone.stdout)}))  # it was killed
    assert len(run_sweep(plan(tmp_path), None, lambda line: None).finals) == 2
    mark.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid()}))
    with pytest.raises(SweepError, match=r"process .* on elsewhere"):
        run_sweep(plan(tmp_path), None, lambda line: None)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == [mark.name]


def test_with_locks_two_sweeps_share_a_folder(tmp_path):
    with sweep_locks.at_work(tmp_path), sweep_locks.at_work(tmp_path):
        assert not (tmp_path / ".sweep-alone.json").exists()
    lock = sweep_locks.own_trial(tmp_path, "one-3")
    assert sweep_locks.own_trial(tmp_path, "one-3") is None
    sweep_locks.give_back(lock)
    assert list(tmp_path.iterdir()) == []


# ---- the choice ------------------------------------------------------------------------------------------------------


def combination(value, accuracies, losses=(1.0, 1.0), state="complete"):
    runs = [TrialRun(f"r{value}", seed, 1.0, *pair) for seed, pair in enumerate(zip(accuracies, losses, strict=True))]
    return Combination({"cutout": value}, tuple(runs), state)


def result(*tried):
    finals = (TrialRun("a", 0, test_accuracy=90.0), TrialRun("b", 1, test_accuracy=92.0))
    return SweepResult("sweep", None, 0.1, (0, 1), tried, finals)


def test_the_highest_mean_is_chosen_and_of_equal_ones_the_lowest_loss():
    found = result(combination(0, (80, 90)), combination(4, (84, 86), (0.5, 0.7)), combination(8, (99, 99), state="pruned"))
    assert found.chosen.values == {"cutout": 4}
    assert [row[0] for row in found.table().rows] == ["4", "0", "8"]
    assert [row[-1] for row in found.table().rows] == ["chosen", "", "pruned"]
    assert found.table().rows[0][1:4] == (85, pytest.approx(2**0.5), pytest.approx(0.6))
    said = found.reading()
    assert "mean validation accuracy over 2 seeds: cutout 4, with 85.00 %" in said
    assert "it may be chance" in said
    assert "a mean of 91.00 % (standard deviation 1.41) in 2 runs of the test split (a, b)" in said
    assert found.to_dict()["final"]["test_accuracy"] == 91
