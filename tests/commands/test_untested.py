"""A run that is not to look at the test split: what is written, said, compared and refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from tiny import tiny_network
from tiny_run import TINY

from era_support_packages.commands.command_line import main
from era_support_packages.runs import RunError, compare, keeping, list_runs, recording

pytestmark = pytest.mark.unhurried

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "record.schema.json").read_text())
UNTESTED = ["train", *TINY, "--validation", "0.1", "--final-test", "false", "--test-time-flip", "true"]


@pytest.fixture
def runs(tmp_path, monkeypatch, capsys):
    """Two runs that were never tested, `one` and `two`, and `tested`, with the record that the first printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda *_: tiny_network(classes=10))
    assert main([*UNTESTED, "--run-name", "one", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert main([*UNTESTED, "--run-name", "two", "--seed", "1"]) == 0
    assert "% of the validation split; written to" in capsys.readouterr().out
    assert main(["train", *TINY, "--run-name", "tested", "--quiet"]) == 0
    capsys.readouterr()
    return record


def test_everywhere_its_test_column_is_empty(runs, capsys, monkeypatch):
    jsonschema.validate(runs, SCHEMA)
    assert (runs["test_accuracy"], runs["test_accuracy_tta"], runs["config"]["final_test"]) == (None, None, False)
    assert {run.name: run.test_accuracy is None for run in list_runs().entries} == {"one": True, "two": True, "tested": False}
    rows = Path("runs/one/metrics.csv").read_text().splitlines()
    head, last = rows[0].split(","), rows[-1].split(",")
    assert last[head.index("test_accuracy")] == last[head.index("test_loss")] == ""
    assert last[head.index("validation_accuracy")] != ""
    found = compare("one", "two")
    assert [column.name for column in found.table().columns][1:4] == ["seeds", "validation accuracy", "its standard deviation"]
    assert "Never tested, as final_test is False: one, two." in found.reading()
    assert main(["compare", "one", "two", "--figures", "curves"]) == 0
    with pytest.raises(RunError, match="never tested"):
        found.predictions(0)
    assert "Never tested, as final_test is False: one." in compare("one", "tested").reading()
    assert list_runs().best().name == "tested"
    capsys.readouterr()
    assert main(["report", "one"]) == 2
    assert "never tested" in capsys.readouterr().err
    assert main([*UNTESTED, "--run-name", "one", "--figures", "--quiet"]) == 0  # of its validation images
    seen = []

    def predict(split):
        seen.append((split.split, len(split)))
        return SimpleNamespace(predicted=split.labels)

    monkeypatch.setattr(keeping.Classifier, "load", lambda path: SimpleNamespace(predict=predict))
    assert main(["runs", "prune", "one", "--yes"]) == 0
    assert seen == [("validation", 144)] * 2
    assert Path("runs/one/training_log.png").is_file()


def test_it_takes_a_validation_share(capsys):
    assert main(["train", *TINY, "--final-test", "false"]) == 2
    assert "give --validation 0.1" in capsys.readouterr().err
