"""Photos from the command line: which are read, what is written, what is left alone."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from era_support_packages.commands.command_line import main


@pytest.fixture
def photos(here):
    folder = here / "photos"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(47):
        place = folder / "more" if number % 2 else folder
        Image.fromarray(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)).save(place / f"{number // 2}.png")
    whole = (folder / "0.png").read_bytes()
    for name, content in (("cut.png", whole[:100]), ("empty.jpg", b""), ("text.jpg", b"no image")):
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("no photo, and not meant as one")
    return folder


@pytest.mark.unhurried
def test_the_broken_are_named_and_the_others_explained(photos, here, capsys):
    assert main(["explain", "runs/first", "photos", "--out", "out", "--layers", "layer3", "--maps"]) == 1
    said = capsys.readouterr()
    assert "3 of 50 photos could not be read" in said.err
    assert all(name in said.err for name in ("cut.png", "empty.jpg", "text.jpg"))
    panels = sorted((here / "out").glob("*.png"))
    assert len(panels) == 47
    assert "47 panels" in said.out
    rows = list(csv.DictReader((here / "out" / "predictions.csv").read_text().splitlines()))
    assert (len(rows), sum(bool(row["problem"]) for row in rows), rows[0]["file"]) == (50, 3, "photos/0.png")
    assert np.load(here / "out" / "0.npy").shape == (1, 8, 8)  # layers, and the pixels that the network saw
    before = {path.name: path.stat().st_mtime_ns for path in (here / "out").iterdir()}
    assert main(["explain", "runs/first", "photos", "--out", "out", "--layers", "layer3"]) == 2
    assert "--force" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (here / "out").iterdir()} == before


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_predictions_are_those_of_the_classifier_by_the_temperature_that_the_run_kept(temperature, photos, here, capsys):
    from era_support_packages import Classifier

    summary = here / "runs" / "first" / "summary.json"
    kept = json.loads(summary.read_text())
    assert kept["temperature"] > 0
    summary.write_text(json.dumps({**kept, "temperature": temperature}))
    assert main(["predict", "first", "photos/0.png", "photos/1.png", "--out", "said"]) == 0
    assert f"are {'uncalibrated' if temperature is None else 'calibrated: logits are divided by 2.00'}" in capsys.readouterr().out
    rows = list(csv.DictReader((here / "said" / "predictions.csv").read_text().splitlines()))
    said = Classifier.load("runs/first").predict(["photos/0.png", "photos/1.png"])
    assert [row["class_1"] for row in rows] == [said.classes[label] for label in said.predicted]
    sure = softmax(said.logits.astype(float) / (temperature or 1), axis=1).max(axis=1)
    assert [float(row["confidence_1"]) for row in rows] == pytest.approx(sure.tolist(), abs=1e-3)
    assert {row["temperature"] for row in rows} == {"" if temperature is None else "2.0"}
    assert float(rows[0]["confidence_1"]) >= float(rows[0]["confidence_2"]) >= float(rows[0]["confidence_3"])


def test_a_class_by_name_is_explained(photos, capsys):
    assert main(["explain", "runs/first", "photos/0.png", "--class", "7", "--layers", "layer3", "--quiet"]) == 0


def test_photos_of_one_name_get_panels_of_their_own_and_the_table_names_them(photos, here):
    for name in ("a/photo.png", "b/photo.png", "photo-2.png"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes((photos / "0.png").read_bytes())
    words = ["explain", "first", "a/photo.png", "b/photo.png", "photo-2.png", "--layers", "layer3", "--quiet"]
    assert main([*words, "--out", "out"]) == 0  # the run by its name
    panels = [row["panel"] for row in csv.DictReader((here / "out" / "predictions.csv").read_text().splitlines())]
    assert panels == ["photo.png", "photo-2.png", "photo-2-2.png"]
    assert all((here / "out" / name).is_file() for name in panels)


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_photo_is_never_overwritten(photos, here, capsys, force):
    before = (photos / "0.png").read_bytes()
    assert main(["explain", "runs/first", "photos/0.png", "--out", "photos", *force]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (photos / "0.png").read_bytes() == before


def test_a_name_that_is_no_text_is_read_too(photos, here, capsys):
    folder = here / "odd"
    folder.mkdir()
    try:
        (folder / b"bad\xff.png".decode("utf-8", "surrogateescape")).write_bytes((photos / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    assert main(["predict", "runs/first", "odd", "--out", "said"]) == 0
    (row,) = csv.DictReader((here / "said" / "predictions.csv").read_text().splitlines())
    assert row["file"] == r"odd/bad\udcff.png"


def test_where_no_folder_can_be_nothing_is_computed(photos, here, capsys):
    assert main(["explain", "runs/first", "photos/0.png", "--out", "photos/0.png/x"]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["explain", "runs/first", "photos/0.png", "--layers", "nope", "--out", "none"]) == 2
    assert "'nope'" in capsys.readouterr().err
    assert not (here / "none").exists()
