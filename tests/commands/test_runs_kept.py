"""Runs that are found by what they have, judged alike, and kept where a folder cannot be changed."""

import errno
import json
import os
import shutil

import pytest

from era_support_packages.commands import output
from era_support_packages.commands.command_line import main
from era_support_packages.runs import ListingError, entry, keeping, list_runs
from era_support_packages.runs.folder import RunBusyError
from era_support_packages.runs.listing import find_runs


def changed(folder, name, /, **values):
    """Some values of a file of a run, written."""
    before = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**before, **values}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["preset=smoke", "max_lr=0.02,0.1"], "None of the 3 runs in the folder runs has preset smoke, max_lr 0.02,0.1."),
        (["seed=1"], "1 of the 3 runs in the folder runs has seed 1: 1 complete."),
        (["max_lr=0.02"], "2 of the 3 runs in the folder runs have max_lr 0.02: 2 complete."),
        (["seed=true"], "None of the 3 runs in the folder runs has seed True."),
        (["whitening=0"], "None of the 3 runs in the folder runs has whitening 0."),
        (["resolutions=((8, 1.0),)", "seed=1"], "1 of the 3 runs in the folder runs has resolutions ((8, 1.0),), seed 1"),
    ],
)
def test_what_is_asked_for_is_said_with_how_many_have_it(here, capsys, options, said):
    assert main(["runs", "--where", *options]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


def test_data_is_found_by_its_name_and_by_its_folder(here, capsys):
    changed(here / "runs" / "first", "config.json", dataset=str(here / "photos"))
    changed(here / "runs" / "first", "data.json", name="pets")
    for asked in ("pets", str(here / "photos"), f"{here}/runs/../photos", "./photos"):
        assert [run.name for run in list_runs("runs").where(dataset=asked).entries] == ["first"]
        assert main(["runs", "best", "--quiet", "--dataset", asked]) == 0
        assert capsys.readouterr().out == "runs/first\n"


def test_accuracies_on_other_validation_images_are_not_compared(here, capsys):
    for name, share, seed in (("first", 0.1, 0), ("second", 0.4, 1), ("second-again", 0.1, 0)):
        changed(here / "runs" / name, "config.json", validation=share, seed=seed)
        changed(here / "runs" / name, "summary.json", validation_accuracy=30.0 + 10 * len(name))
    assert main(["runs", "best"]) == 2
    error = capsys.readouterr().err
    assert "a share of 0.1 by the seed 0 and a share of 0.4 by the seed 1" in error
    assert "--where" in error
    assert main(["runs", "best", "--where", "validation=0.1", "seed=0"]) == 0
    said = capsys.readouterr()
    assert said.out == "runs/second-again\n"
    assert "The highest accuracy on the validation split, 150.00 %." in said.err
    with pytest.raises(ListingError, match="different validation images"):
        list_runs("runs").best()


def test_the_best_says_by_what_it_judges(here, capsys):
    changed(here / "runs" / "first", "summary.json", test_accuracy=99.0)
    assert main(["runs", "best"]) == 0
    said = capsys.readouterr()
    assert (said.out, "on the test split, 99.00 %" in said.err, "several seeds" in said.err) == ("runs/first\n", True, True)
    assert main(["runs", "best", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["judged_by"] == "test"


def test_a_file_that_is_gone_while_a_run_is_looked_at_counts_nothing(here, monkeypatch):
    walk, folder = os.walk, here / "runs" / "first"
    size = entry.read_entry(folder).size
    monkeypatch.setattr(entry.os, "walk", lambda top: [*walk(top), (str(top), [], [".summary.json.1-2.tmp"])])
    assert entry.read_entry(folder).size == size > 0


def test_a_folder_without_permission_is_left_out(here, monkeypatch):
    (here / "runs" / "lost+found").mkdir()
    stat = os.stat

    def refused(path, *rest, **more):
        if isinstance(path, str | os.PathLike) and "lost+found/" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *rest, **more)

    monkeypatch.setattr(os, "stat", refused)
    found = list_runs("runs")
    assert (len(found), found.strangers) == (3, ("lost+found",))
    with pytest.raises(ListingError, match="'lost\\+found'"):
        find_runs(["lost+found"])


def test_a_link_to_a_run_is_no_second_one(here):
    (here / "runs" / "a-link").symlink_to(here / "runs" / "first")
    shutil.move(here / "runs" / "second", here / "elsewhere")
    (here / "runs" / "linked").symlink_to(here / "elsewhere")
    assert {run.name for run in list_runs("runs").entries} == {"first", "linked", "second-again"}


def test_a_name_does_not_steer_the_terminal(here, capsys):
    (here / "runs" / "first").rename(here / "runs" / "red\x1b[31m\udcff")
    (here / "runs" / "strange\x1b]0;title\x07").mkdir()
    assert main(["runs"]) == 0
    assert main(["runs", "delete", "red\x1b[31m\udcff", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "red\\x1b[31m\\udcff" in out
    assert "strange\\x1b]0;title\\x07" in out
    assert output.printable("a\tb\nc d é") == "a\tb\nc d é"


COMMANDS = [["rename", "first", "other"], ["delete", "first", "--yes"], ["prune", "first", "--yes"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_in_a_folder_that_cannot_be_written_stays_as_it_is(here, capsys, monkeypatch, command):
    class Refused:
        def acquire(self):
            raise OSError(errno.EROFS, "Read-only file system")

    before = {file.name: file.read_bytes() for file in (here / "runs" / "first").iterdir()}
    monkeypatch.setattr("era_support_packages.runs.folder.file_lock", lambda path: Refused())
    assert main(["runs", *command]) == (1 if command[0] == "prune" else 2)
    said = " ".join("".join(capsys.readouterr()).split())
    assert "(Read-only file system): see that it and the folder around it can be written" in said
    assert "run_name" not in said.replace("-", "_")
    assert said.count("runs/first") == 1
    assert {file.name: file.read_bytes() for file in (here / "runs" / "first").iterdir()} == before


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_nothing_is_lost_where_the_folder_around_cannot_be_changed(here, capsys, monkeypatch, command):
    before = (here / "runs" / "first" / "config.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(keeping.os, "access", lambda path, mode: path != here / "runs")
        assert main(["runs", *command]) == 2
    assert f"({here / 'runs'} is read-only)" in capsys.readouterr().err

    def refused(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(keeping.os, "rename", refused)
    monkeypatch.setattr(keeping.shutil, "rmtree", refused)
    assert main(["runs", *command]) == 2
    assert "Permission denied" in capsys.readouterr().err
    assert (here / "runs" / "first" / "config.json").read_bytes() == before


def test_a_run_that_another_process_trains_is_named_without_advice_for_training(here, monkeypatch):
    def busy(self):
        raise RunBusyError("give another run_name")

    monkeypatch.setattr("era_support_packages.runs.folder.Run.locked", busy)
    with pytest.raises(ValueError, match="wait until it is done") as caught:
        keeping.delete(here / "runs" / "first")
    assert "run_name" not in str(caught.value)
