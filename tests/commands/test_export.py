"""The network of a run as a file, and the card that says what it is."""

import json
import re

import pytest
from PIL import Image

from era_support_packages.commands.command_line import main
from era_support_packages.runs import model_card
from era_support_packages.runs.readings import keep_reading


def test_a_network_is_written_into_its_run_and_never_over_what_is_there(here, capsys):
    folder = here / "runs" / "first"
    assert main(["export", "first", "--to", "torch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": "runs/first/network.pt2", "to": "torch"}
    before = (folder / "network.pt2").read_bytes()
    assert main(["export", "runs/first", "--to", "torch"]) == 2
    assert "--force" in capsys.readouterr().err
    assert (folder / "network.pt2").read_bytes() == before
    assert main(["export", "first", "--to", "torch", "--out", "it.onnx"]) == 2
    assert ".pt2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "first"], "--to"),
        (["export", "frist", "--to", "onnx"], "'first'"),
        (["export", "first", "--to", "onxn"], "invalid choice"),
        (["export", "first", "--to", "onnx"], "pip install onnx"),
    ],
)
def test_a_bad_value_is_one_sentence(arguments, said, here, capsys, monkeypatch):
    monkeypatch.setattr("era_support_packages.runs.export_formats.is_installed", lambda name: "onnx" not in name)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_card_says_what_the_run_is_and_whether_its_maps_can_be_believed(here):
    folder = here / "runs" / "first"
    for name in ("sanity_check.png", "gradCAM.png"):
        Image.new("RGB", (40, 30), "white").save(folder / name)
    keep_reading(folder, "sanity_check.png", "Grad-CAM passes.\n\nEigen*CAM* does not.")
    keep_reading(folder, "faithfulness.png", "of a figure that is not there")
    assert main(["export", "first", "--to", "card", "--quiet"]) == 0
    card = (folder / "README.md").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert card.startswith("# first: a resnet\\_custom for ")
    assert f"{summary['test_accuracy']:.2f} % of 360 test images are right" in card
    assert "say nothing about photos" in card
    assert "python -m era_support_packages train --preset smoke --dataset digits --seed 0" in card
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        *("What it takes and says", "Data", "Recipe", "How good it is", "What it confuses"),
        *("Can its heat maps be believed?", "Figures"),
    ]
    table = card.split("Recall is the accuracy")[1].split("\n\n")[1].splitlines()
    assert table[0].startswith("| class | precision | recall |")
    assert len(table) == 2 + 10 + 1  # heading, line, classes, their mean
    assert "Grad-CAM passes.\n\nEigen\\*CAM\\* does not." in card
    assert "not there" not in card
    pictures = re.findall(r"!\[[^\]]{15,}\]\(<?([^)>]+)>?\)", card)
    assert pictures == ["gradCAM.png", "sanity_check.png"]
    elsewhere = model_card(folder, here / "cards" / "first.md")
    assert "(<../runs/first/gradCAM.png>)" in elsewhere


def test_a_card_without_checks_says_so_and_one_of_half_a_run_is_refused(here, capsys):
    assert "not tested" in model_card(here / "runs" / "second")
    (here / "runs" / "second" / "summary.json").unlink()
    assert main(["export", "second", "--to", "card"]) == 2
    assert "a model card is of a finished run" in capsys.readouterr().err
