"""Folders of photos on the command line: what `data` says of them, and few photos; stdout belongs to the result."""

import json

import numpy as np
import pytest
from PIL import Image

from era_support_packages.commands.command_line import main

pytestmark = pytest.mark.unhurried


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """So many photos of 120 x 90 px of each of two classes."""
    monkeypatch.chdir(tmp_path)

    def made(each):
        generator = np.random.default_rng(0)
        for name in ("cat", "coffee"):
            (tmp_path / "photos" / name).mkdir(parents=True)
            for number in range(each):
                pixels = generator.integers(0, 255, (90, 120, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")

    return made


def test_data_says_the_size_that_auto_takes_and_why_and_counts_at_that_size(photos, capsys):
    photos(25)
    assert main(["data", "photos"]) == 0
    said = capsys.readouterr().out
    assert "photos: --image-size is 64 px (the median image's shorter side is 90 px); give --image-size for another." in said
    assert "resized to 64 px on their shorter side and cropped at the center to 64x64" in said
    assert "40 training and 10 test images, 2 classes: cat, coffee" in said
    assert "little is learned" not in said
    assert main(["data", "photos", "--image-size", "32", "--fit", "pad", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["image_size"], found["fit"], found["images"]) == (32, "pad", {"train": 40, "test": 10})
    assert "padded with gray to 32x32" in said.err
    assert main(["data", "photos", "--image-size", "20"]) == 2
    assert "--image-size is 20; give a whole number from 32 to 512" in capsys.readouterr().err


def test_a_broken_photo_is_named_with_the_flag_that_this_command_has(photos, tmp_path, capsys):
    photos(3)
    (tmp_path / "photos" / "cat" / "broken.png").write_bytes((tmp_path / "photos" / "cat" / "0.png").read_bytes()[:99])
    assert main(["data", "photos"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("run again, or give --skip-broken to leave it out.")
    assert main(["data", "photos", "--skip-broken", "--quiet"]) == 0


TRAIN = ["train", "--preset", "smoke", "--dataset", "photos", "--model", "resnet_custom", "--image-size", "32", "--device", "cpu"]


def test_very_few_photos_are_trained_on_for_a_while_and_called_few(photos, capsys):
    photos(2)
    assert main(["data", "photos"]) == 0
    few = "photos: with 1 training image of 'cat' everything can be tried out, but little is learned"
    assert f"{few}; give 20 or more of each class." in capsys.readouterr().out
    assert main([*TRAIN, "--precision", "fp32"]) == 0
    said = capsys.readouterr().out
    assert few in said
    assert "\n   10   " in said  # not the 512 passes that 1,024 images would take
    assert "\n   11   " not in said


def test_one_photo_of_a_class_is_refused_with_what_is_missing(photos, capsys):
    photos(1)
    for command in (["data", "photos"], TRAIN):
        assert main(command) == 2
        assert "cat holds one image: it needs two, one to train and one to test." in capsys.readouterr().err


@pytest.mark.parametrize(("option", "lines"), [("--quiet", 1), ("--json", 0)])
def test_nothing_but_the_result_is_on_stdout(option, lines, photos, capsys):
    """What the reading of a folder says is no result."""
    photos(2)
    assert main([*TRAIN, "--train-images", "8", "--batch-size", "4", "--precision", "fp32", option]) == 0
    said = capsys.readouterr()
    if option == "--json":
        assert json.loads(said.out)["complete"] is True
        assert "photos: images of 120x90 are resized" in said.err
    else:
        assert len(said.out.splitlines()) == lines
        assert "resized" not in said.out + said.err
        assert "image-size" not in said.out + said.err
