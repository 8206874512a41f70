"""A disk that is full, and a place where nothing can be written: what is said, what is left behind, and the exit code."""

import errno
import os

import pytest
from PIL import Image
from tiny_run import TINY

from era_support_packages.commands.command_line import main
from era_support_packages.commands.output import problem_of
from era_support_packages.runs.folder import RunError
from era_support_packages.system.atomic_file import write_atomically


def fail(number):
    """What stands in for a function of the system that fails so."""

    def failing(*_):
        raise OSError(number, os.strerror(number))

    return failing


@pytest.mark.unhurried
@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["compare", "first", "second", "second-again", "--figures", "new/cmp"], "new/cmp/curves.png"),
        (["report", "first", "--out", "new/page.html"], "new/page.html"),
        (["report", "first"], "runs/first/report.html"),
        (["predict", "first", "photo.png", "--out", "new"], "new/predictions.csv"),
        (["explain", "first", "photo.png", "--out", "new", "--maps"], "new/photo.png"),
    ],
)
def test_a_full_disk_is_named_with_its_place_and_nothing_is_left(arguments, file, here, capsys, monkeypatch):
    Image.new("RGB", (40, 30), "white").save("photo.png")
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    assert main(arguments) == 1
    said = f"error: {file} cannot be written (No space left on device): make room there, or give another place.\n"
    assert capsys.readouterr().err == said
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "first", "second", "--figures", "mine"], "mine is no folder): give another folder with --figures."),
        (
            ["compare", "first", "second", "--figures", "cmp"],
            "cmp/curves.png is there already: give another folder with --figures,",
        ),
        (["report", "first", "--out", "mine/page.html"], "mine is no folder): give another file with --out."),
        (["report", "first", "--out", "page.html"], "page.html is there already: give another file with --out, or --force"),
        (["export", "first", "--to", "card", "--out", "card.md"], "card.md is there already: give another file with --out,"),
    ],
)
def test_the_option_that_is_named_is_one_of_the_command(arguments, said, here, capsys):
    (here / "cmp").mkdir()
    for name in ("mine", "cmp/curves.png", "page.html", "card.md"):
        (here / name).write_text("mine")
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, 1),
        (errno.EDQUOT, 1),
        (errno.EIO, 1),
        (errno.EMFILE, 1),
        (errno.ENOENT, 2),
        (errno.EACCES, 2),
        (errno.EROFS, 2),
    ],
)
def test_the_machine_failed_or_a_value_cannot_be_used(number, code):
    error = OSError(number, os.strerror(number), "there")
    assert problem_of(error)[1] == code

    def in_other_words():
        try:
            raise error
        except OSError:
            raise RunError("The checkpoint cannot be written.") from None

    with pytest.raises(RunError) as found:
        in_other_words()
    assert problem_of(found.value) == ("The checkpoint cannot be written.", code)


@pytest.mark.parametrize("command", [["train", "--max-lr", "0.01", "--run-name", "new"], ["sweep", "-p", "max_lr", "0.01,0.02"]])
def test_training_on_a_full_disk_has_failed(command, here, capsys, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    assert main([*command, *TINY, "--quiet"]) == 1
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_an_error_of_the_system_names_the_file_and_not_the_temporary_one(number, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(number))
    with pytest.raises(OSError, match=os.strerror(number)) as found:
        write_atomically(tmp_path / "page.html", b"new")
    assert (found.value.errno, found.value.filename, list(tmp_path.iterdir())) == (number, str(tmp_path / "page.html"), [])
