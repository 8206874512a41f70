"""A tracker on the command line: its files lie in the run's folder, whatever is done with that."""

import json
from pathlib import Path

import jsonschema
import pytest
from tiny_run import TINY

from era_support_packages.commands.command_line import main

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "record.schema.json").read_text())


def test_a_package_that_is_missing_is_named_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("era_support_packages.training.config_checks.is_installed", lambda name: False)
    assert main(["train", *TINY, "--tracker", "wandb"]) == 2
    said = capsys.readouterr().err
    assert "--tracker is 'wandb'" in said
    assert "pip install wandb" in said
    assert main(["train", *TINY, "--tracker", "tensorbord"]) == 2
    assert "'tensorboard'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.unhurried
def test_a_run_with_event_files_is_renamed_pruned_and_deleted_as_any_other(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    assert main(["train", *TINY, "--tracker", "tensorboard", "--figures", "--run-name", "watched", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)  # nothing else was printed there
    jsonschema.validate(record, SCHEMA)
    assert record["config"]["tracker"] == "tensorboard"
    assert main(["runs", "rename", "watched", "kept"]) == 0
    assert main(["runs", "prune", "kept", "--weights", "none", "--yes"]) == 0
    read = EventAccumulator(str(tmp_path / "runs" / "kept" / "tensorboard")).Reload()
    assert [event.value for event in read.Scalars("test/accuracy")] == [pytest.approx(record["test_accuracy"])]
    assert "figures/gradCAM" in read.Tags()["images"]
    capsys.readouterr()
    assert main(["runs", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert "tracker" not in listed["changed"]
    assert main(["runs", "delete", "kept", "--yes"]) == 0
    assert list((tmp_path / "runs").iterdir()) == []
