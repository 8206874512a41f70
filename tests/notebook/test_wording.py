"""Sentences that name parameters say what can be typed where they are read."""

import pytest
from tiny import colored_images

from era_support_packages.commands import command_line as command
from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.notebook import execution, parameters
from era_support_packages.notebook.parameters import Parameters, as_typed
from era_support_packages.runs import preparation

FOLDER = "wait, give another run_name, or set resume=False to train in a new folder."
BROKEN = "x.jpg cannot be decoded as an image (it is empty): replace it, or set skip_broken=True to leave it out."


@pytest.mark.parametrize(
    ("sentence", "options", "pairs", "cell"),
    [
        (
            FOLDER,
            "wait, give another --run-name, or give --no-resume to train in a new folder.",
            "wait, give another run_name, or give -p resume False to train in a new folder.",
            "wait, give another run_name, or set resume = False to train in a new folder.",
        ),
        (
            BROKEN,
            BROKEN.replace("set skip_broken=True", "give --skip-broken true"),
            BROKEN.replace("set skip_broken=True", "give -p skip_broken True"),
            BROKEN.replace("skip_broken=True", 'more = {"skip_broken": True}'),
        ),
        (
            "The memory is full: set batch_size=32 (and halve max_lr with it).",
            "The memory is full: give --batch-size 32 (and halve --max-lr with it).",
            "The memory is full: give -p batch_size 32 (and halve max_lr with it).",
            "The memory is full: set batch_size = 32 (and halve max_lr with it).",
        ),
        (
            "these images; preset='cpu' suits a small data set better.",
            "these images; --preset cpu suits a small data set better.",
            "these images; -p preset cpu suits a small data set better.",
            "these images; preset = 'cpu' suits a small data set better.",
        ),
        ("seed is -1; give 0.", "--seed is -1; give 0.", "seed is -1; give 0.", "seed is -1; give 0."),
        *((text, text, text, text) for text in ("/runs/run_name/x is not there.", "a model of that method")),
    ],
)
def test_each_place_has_its_words(sentence: str, options: str, pairs: str, cell: str) -> None:
    assert (as_typed(sentence, "options"), as_typed(sentence, "-p"), as_typed(sentence, "cell")) == (options, pairs, cell)


def fails(*_: object, **__: object) -> None:
    raise DatasetError(BROKEN)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "check", lambda *_: None)
    monkeypatch.setattr(datasets, "load", fails)


def test_the_command_lines_say_what_they_take(broken: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--preset", "smoke", "--dataset", "digits"]) == 2
    assert "or give --skip-broken true to leave it out." in capsys.readouterr().err
    assert command.main(["--batch-size", "0"]) == 2
    assert "error: --batch-size is 0; give a whole number" in capsys.readouterr().err

    def work() -> str:
        raise ValueError(FOLDER)

    assert execution.ended(work) == 2
    assert "or give -p resume False to train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("interactive", "words"), [(True, 'set more = {"skip_broken": True}'), (False, "give -p skip_broken True")]
)
def test_the_notebook_says_what_its_cell_takes(
    interactive: bool, words: str, broken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parameters, "is_interactive", lambda: interactive)
    with pytest.raises(DatasetError) as caught:
        Parameters({"preset": "smoke", "dataset": "digits"}).prepare()
    assert words in str(caught.value)


def test_lines_on_the_way_are_put_the_same_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def prepare(*_: object, report: object, **__: object) -> None:
        report("Note: preset='cpu' suits a small data set better.")  # type: ignore[operator]
        report("Run x\nbatch_size  128")
        raise ValueError("enough")

    monkeypatch.setattr(preparation, "prepare", prepare)
    monkeypatch.setattr(datasets, "load", lambda *_: (colored_images(4), colored_images(4)))
    command.main(["--preset", "smoke", "--dataset", "digits"])
    said = capsys.readouterr().out
    assert "Note: --preset cpu suits" in said
    assert "batch_size  128" in said  # a table names values as config.json does
