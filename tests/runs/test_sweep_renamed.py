"""What becomes of a sweep whose trials were renamed or deleted, or have no weights any more: as docs/command-line.md says."""

import pytest
from tiny import colored_images, tiny_network

from era_support_packages.datasets import loading
from era_support_packages.runs import list_runs, recording
from era_support_packages.runs.keeping import delete, prune, rename
from era_support_packages.runs.sweep import run_sweep
from era_support_packages.runs.sweep_plan import SweepPlan
from era_support_packages.runs.sweep_values import read_space

SMALL = {"epochs": 1, "resolutions": ((8, 1.0),), "batch_size": 8, "crop_padding": 0, "device": "cpu", "precision": "fp32"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """24 and 10 images in place of every data set, and a network of a few channels."""
    data = colored_images(24), colored_images(10, split="test", seed=1)
    monkeypatch.setattr(loading, "load", lambda *_, **__: data)
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda *_: tiny_network())


CHANGES = {
    "renamed": lambda folder: rename(folder, "mine"),
    "deleted": delete,
    "without weights": lambda folder: prune(folder, "none"),
}


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_grid_trains_again_what_it_does_not_find_and_a_search_does_not(change, searched, tmp_path, monkeypatch):
    if searched:
        pytest.importorskip("optuna", reason='Optuna is not installed: pip install "optuna>=4"')
    trained, train = [], recording.train_in_folder

    def training(model, prepared, *rest):
        trained.append(prepared.run.name)
        return train(model, prepared, *rest)

    monkeypatch.setattr(recording, "train_in_folder", training)
    fixed = {**SMALL, "validation": 0.25, "output_dir": str(tmp_path)}
    asked = SweepPlan(read_space((("max_lr", "0.05,0.2"),), searched), (0,), fixed, "smoke", 2 if searched else None)
    first = run_sweep(asked, None, lambda line: None)
    name, before = first.tried[0].runs[0].run, len(list_runs(tmp_path))
    trained.clear()
    CHANGES[change](tmp_path / name)
    left = len(list_runs(tmp_path))
    assert left == before - (change == "deleted")
    again = run_sweep(asked, None, lambda line: None)
    expected = [] if searched or change == "without weights" else [name]
    assert trained == expected
    assert again.chosen.values == first.chosen.values
    assert len(list_runs(tmp_path)) == left + len(expected)
