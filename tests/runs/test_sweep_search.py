"""A search: what Optuna draws, what is given up, and how it goes on after it was killed."""

import json
from collections import Counter

import pytest

optuna = pytest.importorskip("optuna", reason='Optuna is not installed: pip install "optuna>=4"')


from era_support_packages.runs import Run, list_runs, recording, search, trials  # noqa: E402
from era_support_packages.runs.entry import PRUNED  # noqa: E402
from era_support_packages.runs.sweep import run_sweep  # noqa: E402
from era_support_packages.runs.sweep_plan import SweepPlan  # noqa: E402
from era_support_packages.runs.sweep_values import SweepError, read_space  # noqa: E402

pytestmark = pytest.mark.usefixtures("small_sweeps")
SMALL = {"epochs": 3, "resolutions": ((8, 1.0),), "batch_size": 8, "crop_padding": 0, "device": "cpu", "precision": "fp32"}
SPACE = (("max_lr", "0.01..0.5:log"), ("cutout", "0,2"), ("resolutions", "[[[8, 1.0]], [[8, 0.5], [9, 0.5]]]"))


def plan(root, count, seeds=(0,), pairs=SPACE):
    return SweepPlan(read_space(pairs, True), seeds, {**SMALL, "validation": 0.25, "output_dir": str(root)}, "smoke", count)


def studied(root):
    (file,) = root.glob("sweep-*.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
    return optuna.load_study(study_name=file.stem, storage=storage)


@pytest.fixture
def trained(monkeypatch):
    """(run, epoch) for each checkpoint that is written."""
    found, save = [], recording.Checkpoint.save

    def saving(self, path):
        save(self, path)
        found.append((path.parent.name, len(self.records)))

    monkeypatch.setattr(recording.Checkpoint, "save", saving)
    return found


def test_a_search_is_kept_in_its_journal_and_a_larger_one_goes_on(tmp_path, trained):
    result = run_sweep(plan(tmp_path, 3, seeds=(0, 1)), None, lambda line: None)
    study = studied(tmp_path)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    for trial in study.trials:
        values = trial.user_attrs["values"]
        assert values["max_lr"] == pytest.approx(trial.params["max_lr"], rel=1e-3)
        assert len(f"{values['max_lr']:g}".replace("0.", "").lstrip("0")) <= 4
        assert values["resolutions"] in ([[8, 1.0]], [[8, 0.5], [9, 0.5]])
        runs = [Run(tmp_path / name) for name in trial.user_attrs["runs"]]
        assert [(run.config().max_lr, run.config().seed, run.config().final_test) for run in runs] == [
            (values["max_lr"], seed, False) for seed in (0, 1)
        ]
        assert trial.value == pytest.approx(sum(run.summary()["validation_accuracy"] for run in runs) / 2)
    assert result.chosen.accuracy == pytest.approx(study.best_value)
    before = len(trained)
    again = run_sweep(plan(tmp_path, 3, seeds=(0, 1)), None, lambda line: None)
    assert (len(trained), json.dumps(again.to_dict())) == (before, json.dumps(result.to_dict()))
    run_sweep(plan(tmp_path, 4, seeds=(0, 1)), None, lambda line: None)
    assert len(studied(tmp_path).trials) == 4
    assert max(Counter(trained).values()) == 1


def test_a_trial_left_running_goes_on_in_its_folder(tmp_path, trained, monkeypatch):
    train, calls = trials.train_prepared, []

    def killed(prepared, *rest):
        calls.append(prepared.run.name)
        if len(calls) == 2:  # as after SIGKILL: nobody tells the study
            raise SystemExit
        return train(prepared, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(trials, "train_prepared", killed)
        with pytest.raises(SystemExit):
            run_sweep(plan(tmp_path, 2), None, lambda line: None)
    left = studied(tmp_path).trials[1]
    assert (left.state.name, left.user_attrs["runs"]) == ("RUNNING", [calls[1]])
    with open(next(tmp_path.glob("*.journal")), "ab") as journal:
        journal.write(b'{"op_code": 4, "wor')  # it was killed as it wrote
    run_sweep(plan(tmp_path, 2), None, lambda line: None)
    found = studied(tmp_path).trials
    assert [(trial.number, trial.state.name) for trial in found] == [(0, "COMPLETE"), (1, "COMPLETE")]
    assert (found[1].params, found[1].user_attrs["runs"]) == (left.params, [calls[1]])
    assert max(Counter(trained).values()) == 1


def test_a_trial_that_another_process_has_is_left_to_it(tmp_path, monkeypatch):
    free, lines, pauses = search.own_trial, [], []
    monkeypatch.setattr(trials.time, "sleep", pauses.append)
    run_sweep(plan(tmp_path, 1), None, lines.append)
    study = studied(tmp_path)
    study.ask()
    held = [False, False, True]  # another process has it for two looks, and dies
    monkeypatch.setattr(search, "own_trial", lambda *where: free(*where) if held.pop(0) else None)
    run_sweep(plan(tmp_path, 2), None, lines.append)
    assert len(pauses) == 2
    assert [trial.state.name for trial in studied(tmp_path).trials] == ["COMPLETE"] * 2


def test_what_falls_behind_is_pruned_and_never_trained_again(tmp_path, trained, monkeypatch):
    should_prune = optuna.trial.Trial.should_prune
    asked = []

    def behind(trial):
        asked.append((trial.number, should_prune(trial)))
        return trial.number == 1

    monkeypatch.setattr(optuna.trial.Trial, "should_prune", behind)
    result = run_sweep(plan(tmp_path, 2), None, lambda line: None)
    study = studied(tmp_path)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert [len(trial.intermediate_values) for trial in study.trials] == [3, 1]
    assert asked == [(0, False), (0, False), (1, False)]  # not after the last epoch
    (name,) = study.trials[1].user_attrs["runs"]
    assert (name, 1) in trained
    assert (name, 2) not in trained
    (entry,) = (run for run in list_runs(tmp_path).entries if run.name == name)
    assert (entry.state, entry.test_accuracy) == (PRUNED, None)
    assert [one.state for one in result.tried] == ["complete", "pruned"]
    # the same values once more, as a sampler may draw them
    study.enqueue_trial(study.trials[1].params)
    run_sweep(plan(tmp_path, 3), None, lambda line: None)
    assert [trial.state.name for trial in studied(tmp_path).trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert (name, 2) not in trained


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    asked = plan(tmp_path, 1)
    run_sweep(asked, None, lambda line: None)
    (file,) = tmp_path.glob("*.journal")
    file.write_text("nonsense\nnonsense\n")
    with pytest.raises(SweepError, match=r"\.journal cannot be used .* finished runs stay"):
        run_sweep(asked, None, lambda line: None)
