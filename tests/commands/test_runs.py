"""Listing, renaming, deleting and pruning runs."""

import json
import shutil

import pytest

from era_support_packages import Classifier, load
from era_support_packages.commands.command_line import main
from era_support_packages.runs import ListingError, compare, list_runs
from era_support_packages.system.locks import file_lock
from era_support_packages.system.tensor_file import read_tensors, write_tensors


def listed(capsys, *options):
    capsys.readouterr()
    assert main(["runs", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_row_a_run_with_what_differs_from_its_preset(here, capsys):
    (here / "runs" / "lab").mkdir()
    found = listed(capsys)
    first, second, again = found["runs"]
    assert found["no_runs"] == ["lab"]
    assert [run["name"] for run in found["runs"]] == ["first", "second", "second-again"]
    assert "max_lr" not in first["changed"]
    assert (second["changed"]["max_lr"], again["seed"], first["state"], first["epochs"]) == (0.02, 1, "complete", 1)
    assert second["changed"]["model"] == "resnet_custom"
    summary = json.loads((here / "runs" / "first" / "summary.json").read_text())
    assert (first["test_accuracy"], first["pflops"]) == (summary["test_accuracy"], summary["pflops"])
    assert first["bytes"] == sum(file.stat().st_size for file in (here / "runs" / "first").iterdir())


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--where", "seed=1"], ["second-again"]),
        (["--where", "max_lr=0.02", "seed=0"], ["second"]),
        (["--where", "state=stopped"], []),
        (["--sort", "name"], ["first", "second", "second-again"]),
        (["--sort=-seed"], ["second-again", "first", "second"]),
    ],
)
def test_sorted_and_filtered(here, capsys, options, names):
    assert [run["name"] for run in listed(capsys, *options)["runs"]] == names


def test_strangers_broken_runs_and_runs_of_another_version_are_listed_with_a_word(here, capsys):
    runs = here / "runs"
    (runs / "half").mkdir()
    (runs / "half" / "config.json").write_text('{"preset_name": "smoke", "epo')
    shutil.copytree(runs / "first", runs / "newer")
    config = json.loads((runs / "newer" / "config.json").read_text())
    (runs / "newer" / "config.json").write_text(json.dumps({**config, "warp": 9}))
    shutil.copytree(runs / "first", runs / "no summary")
    (runs / "no summary" / "summary.json").unlink()
    shutil.copytree(runs / "first", runs / "odd summary")
    (runs / "odd summary" / "summary.json").write_text("[]")
    lock = file_lock(runs / "second" / ".lock")
    lock.acquire()
    (runs / "notes.txt").write_text("mine")
    try:
        found = {run["name"]: (run["state"], run["problem"]) for run in listed(capsys)["runs"]}
    finally:
        lock.release()
    assert found["half"][0] == found["newer"][0] == found["odd summary"][0] == "unreadable"
    assert "'warp'" in found["newer"][1]
    assert found["no summary"] == ("stopped", "")
    assert found["second"] == ("being trained", "")
    assert main(["runs"]) == 0
    assert "1 stopped" in capsys.readouterr().out


def test_no_folder_is_no_runs_and_a_file_is_refused(tmp_path, capsys):
    assert len(list_runs(tmp_path / "none")) == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(ListingError, match="file"):
        list_runs(tmp_path / "file")


def test_the_best_run(here, capsys):
    runs = here / "runs"
    for name, accuracy in (("first", 50.0), ("second", 60.0), ("second-again", 55.0)):
        values = json.loads((runs / name / "summary.json").read_text())
        (runs / name / "summary.json").write_text(json.dumps({**values, "test_accuracy": accuracy}))
    assert main(["runs", "best"]) == 0
    assert capsys.readouterr().out == "runs/second\n"
    data = json.loads((runs / "second" / "data.json").read_text())
    (runs / "second" / "data.json").write_text(json.dumps({**data, "name": "others"}))
    assert main(["runs", "best"]) == 2
    assert "different data" in capsys.readouterr().err
    assert main(["runs", "best", "--dataset", "digits"]) == 0
    assert capsys.readouterr().out == "runs/second-again\n"


def test_a_run_is_renamed_and_found_under_its_new_name(here, capsys):
    assert main(["runs", "rename", "first", "a name with spaces"]) == 0
    assert "a name with spaces" in [run.name for run in list_runs("runs").entries]
    assert json.loads((here / "runs" / "a name with spaces" / "config.json").read_text())["run_name"] == "a name with spaces"
    assert Classifier.load("runs/a name with spaces").classes[0] == "0"
    assert main(["runs", "rename", "second", "a name with spaces"]) == 2
    assert main(["runs", "rename", "second", "../outside"]) == 2
    assert (here / "runs" / "second" / "config.json").exists()


def test_only_runs_are_deleted_and_not_one_that_is_being_trained(here, capsys):
    runs = here / "runs"
    (runs / "lab").mkdir()
    assert main(["runs", "delete", "lab", "--yes"]) == 2
    lock = file_lock(runs / "second" / ".lock")
    lock.acquire()
    try:
        assert main(["runs", "delete", "second", "--yes"]) == 2
    finally:
        lock.release()
    assert main(["runs", "delete", "first", "runs/second-again", "--yes"]) == 0
    assert sorted(path.name for path in runs.iterdir()) == ["lab", "second"]


def test_weights_in_half_precision_predict_the_same(here, capsys):
    test = load("digits")[1]
    file = here / "runs" / "first" / "checkpoint.pt"
    content = read_tensors(
        file
    )  # a network of so few steps is sure of nothing: its weights are made ones that half precision has
    write_tensors(file, content | {"model": {name: value.half().to(value.dtype) for name, value in content["model"].items()}})
    before, said = file.stat().st_size, Classifier.load("runs/first").predict(test).predicted
    assert main(["runs", "prune", "first", "--yes"]) == 0
    assert file.stat().st_size < 0.6 * before
    assert (Classifier.load("runs/first").predict(test).predicted == said).all()
    assert main(["train", "--run-name", "first", "--preset", "smoke", "--json"]) == 2  # other values: refused as ever
    assert not list(file.parent.glob(".*.pt"))


def test_a_prediction_that_would_change_keeps_the_weights(here, capsys, monkeypatch):
    file = here / "runs" / "first" / "checkpoint.pt"
    before = file.read_bytes()
    monkeypatch.setattr("era_support_packages.runs.keeping._changed_predictions", lambda *_: 3)
    assert main(["runs", "prune", "first", "--yes"]) == 1
    assert "3 predictions would change" in capsys.readouterr().out
    assert file.read_bytes() == before


def test_without_weights_the_record_stays(here, capsys):
    (here / "runs" / "second-again" / "summary.json").unlink()  # as if it were stopped
    assert main(["runs", "prune", "--weights", "none", "--yes"]) == 0
    assert "second-again is left as it is" in capsys.readouterr().out
    assert (here / "runs" / "first" / "checkpoint.pt").stat().st_size < 200_000
    with pytest.raises(ValueError, match="no weights any more"):
        Classifier.load("runs/first")
    assert [run.state for run in list_runs("runs").sorted_by("name").entries] == ["complete", "complete", "stopped"]
    assert "points" in compare("first", "second").reading()  # the logits are still there


def test_a_run_beside_the_last_ones_on_the_same_data(here):
    runs, folder = here / "runs", here / "runs" / "first"
    summary = json.loads((runs / "second" / "summary.json").read_text())
    (runs / "second" / "summary.json").write_text(json.dumps({**summary, "data": "0" * 64}))
    found = list_runs("runs").beside(folder)
    assert sorted(run.name for run in found.entries) == ["first", "second-again"]
    assert [run.name for run in list_runs("runs").beside(folder, count=0).entries] == ["first"]
    with pytest.raises(ListingError, match="'first'"):
        list_runs("runs").beside(runs / "firts")


@pytest.mark.parametrize(
    "command", [["delete", "mine", "--yes"], ["rename", "mine", "other"], ["delete", "first", "mine", "--yes"]]
)
def test_a_folder_that_only_has_such_a_file_is_left_alone(here, capsys, command):
    mine = here / "runs" / "mine"
    (mine / "sub").mkdir(parents=True)
    (mine / "sub" / "thesis.tex").write_text("precious")
    (mine / "config.json").write_text('{"name": "my model"}')
    assert main(["runs", *command]) == 2
    assert "not known to be a run" in capsys.readouterr().err
    assert (mine / "sub" / "thesis.tex").read_text() == "precious"
    assert (mine / "config.json").read_text() == '{"name": "my model"}'
    assert (here / "runs" / "first" / "checkpoint.pt").is_file()  # all are looked at before one is deleted


def test_a_folder_of_runs_and_a_link_are_not_deleted_and_a_run_given_twice_is_once(here, capsys):
    runs = here / "runs"
    shutil.copy(runs / "first" / "config.json", runs / "config.json")
    assert main(["runs", "delete", ".", "--yes"]) == 2
    assert "holds other folders of that kind (first, second, second-again)" in capsys.readouterr().err
    (runs / "link").symlink_to(runs / "first")
    assert main(["runs", "delete", "link", "--yes"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert main(["runs", "delete", "second", "second", "--yes"]) == 0
    assert sorted(path.name for path in runs.iterdir() if path.is_dir()) == ["first", "link", "second-again"]


def test_numbers_that_are_none_and_a_missing_checkpoint_are_seen(here, capsys):
    summary = json.loads((here / "runs" / "first" / "summary.json").read_text())
    (here / "runs" / "first" / "summary.json").write_text(json.dumps({**summary, "test_accuracy": float("nan")}))
    (here / "runs" / "second" / "checkpoint.pt").unlink()
    found = {run["name"]: run for run in listed(capsys)["runs"]}
    assert found["first"]["test_accuracy"] is None
    assert (found["second"]["state"], found["second"]["problem"]) == ("unreadable", "checkpoint.pt is missing")
