"""A finished run whose small files were changed afterwards: nothing is told of it from these, in any command."""

import json

import pytest
import torch
from tiny_run import TINY

from era_support_packages.commands.command_line import main
from era_support_packages.runs.folder import RunError
from era_support_packages.runs.keeping import prune, rename
from era_support_packages.runs.preparation import prepare
from era_support_packages.system.tensor_file import read_tensors, write_tensors

pytestmark = pytest.mark.unhurried

READERS = {
    "report": ["report", "first", "--out", "page.html"],
    "card": ["export", "first", "--to", "card", "--out", "card.md"],
    "export": ["export", "first", "--to", "safetensors", "--out", "first.safetensors"],
    "train": ["train", *TINY, "--run-name", "first", "--max-lr", "5"],
}


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("reader", READERS)
def test_a_value_that_was_changed_is_named_with_both_readings(reader, here, capsys):
    change(here / "runs" / "first" / "config.json", max_lr=5)
    before = sorted(here.rglob("*"))
    assert main([*READERS[reader], "--quiet"]) != 0
    said = capsys.readouterr().err
    assert 'config.json was changed after the run: it says "max_lr": 5, but' in said
    assert "says 0.01; put 0.01 back into config.json" in said
    assert sorted(here.rglob("*")) == before


def test_a_changed_accuracy_is_named_and_so_is_a_changed_run_that_is_shown(here, capsys):
    run = here / "runs" / "first"
    true = json.loads((run / "summary.json").read_text())["test_accuracy"]
    change(run / "summary.json", test_accuracy=99.5)
    assert main(["report", "first"]) != 0
    assert f'"test_accuracy": 99.5, but checkpoint.pt, which is the run itself, says {true}; put' in capsys.readouterr().err
    change(run / "summary.json", test_accuracy=true)
    change(run / "config.json", seed=3)
    with pytest.raises(RunError, match='it says "seed": 3, but'):
        prepare(finished_run=str(run))


def test_what_may_differ_is_no_change(here):
    run = rename(here / "runs" / "first", "another")
    change(run / "config.json", threads=3, tracker="tensorboard", output_dir="elsewhere")
    for names in ((), ("validation", "fit"), ("muon_lr", "ema")):  # an older version wrote neither into either file
        kept = json.loads((run / "config.json").read_text())
        content = read_tensors(run / "checkpoint.pt")
        for name in names:
            kept.pop(name, None)
            content["config"].pop(name, None)
        (run / "config.json").write_text(json.dumps(kept))
        write_tensors(run / "checkpoint.pt", content)
        assert prepare(finished_run=str(run)).run.folder == run
    assert prune(run, "none") > 0
    assert not any(torch.is_tensor(value) for value in read_tensors(run / "checkpoint.pt")["model"].values())
    assert main(["export", "another", "--to", "card", "--out", "card.md", "--quiet"]) == 0
    change(run / "config.json", max_lr=5)
    assert main(["export", "another", "--to", "card", "--out", "other.md", "--quiet"]) != 0
