"""A run of a folder of photos: its size, its photos afterwards, and a run of before sizes could be chosen."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_network

from era_support_packages.classifier import Classifier
from era_support_packages.datasets import decode_image, load
from era_support_packages.datasets.fitting import Fitting, fitted
from era_support_packages.runs import preparation, prepare, train_in_folder

SMALL = {"epochs": 1, "batch_size": 4, "max_lr": 0.01, "device": "cpu", "precision": "fp32"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(generator.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(f"photos/{label}/{number}.png")
    return "photos"


def test_a_photo_is_predicted_as_the_run_saw_it(photos):
    lines = []
    prepared = prepare("smoke", dataset=photos, report=lines.append, **SMALL)
    config = prepared.config
    assert (config.image_size, config.fit, config.resolutions, config.crop_padding) == (64, "crop", ((32, 1.0),), 4)
    assert "image_size is 64 px (the median image's shorter side is 64 px)" in lines[0]
    assert lines[1] == "For ResNet18 and images of 64 px: resolutions [32] instead of [16], crop_padding 4 instead of 2."
    network = tiny_network(2)
    classifier, _ = train_in_folder(network, prepared, report=lambda line: None)
    assert (classifier.image_size, classifier.fit) == (64, "crop")
    file = "photos/cat/0.png"
    expected = cv2.resize(decode_image(file)[:, 8:72], (64, 64), interpolation=cv2.INTER_AREA)
    assert np.array_equal(fitted(decode_image(file), classifier.fitting), expected)
    assert np.allclose(classifier.predict(file).logits, classifier.predict(expected).logits)
    checkpoint = prepared.run.checkpoint(network, prepared.test)
    assert (checkpoint.classifier["image_size"], checkpoint.classifier["fit"]) == (64, "crop")
    again = prepare("smoke", dataset=photos, report=lambda line: None, **SMALL)
    assert (again.run, again.config.image_size) == (prepared.run, 64)


def test_a_run_of_before_goes_on_with_squashed_images_of_32_px(photos, monkeypatch):
    with monkeypatch.context() as patch:  # as the version of before made it
        patch.setattr(preparation, "fitting_for", lambda *_: (Fitting(), ""))
        before = prepare("smoke", dataset=photos, **SMALL)
    file = before.run.folder / "config.json"
    values = json.loads(file.read_text())
    assert (values.pop("image_size"), values.pop("fit")) == (32, "squash")
    file.write_text(json.dumps(values))
    lines = []
    again = prepare("smoke", dataset=photos, report=lines.append, **SMALL)
    assert again.run == before.run
    assert (again.config.image_size, again.config.fit, again.train.fit) == (32, "squash", "squash")
    assert np.array_equal(again.train.images, load(photos)[0].images)
    assert "squashed to 32 px: give an image_size" in lines[0]
    larger = prepare("smoke", dataset=photos, image_size=48, report=lines.append, **SMALL)
    assert (larger.run == before.run, larger.config.image_size) == (False, 48)


def test_a_file_of_before_is_read_as_32_px_squashed(tmp_path):
    classifier = Classifier(tiny_network(2), ("a", "b"), (0.5,) * 3, (0.2,) * 3, 32)
    assert classifier.fitting == Fitting(32, "squash")
    assert {"image_size": 32, "fit": "squash"}.items() <= classifier.description().items()


@pytest.mark.parametrize(("values", "word"), [({"image_size": 0}, "image_size is 0"), ({"fit": "corp"}, "'crop'")])
def test_a_classifier_without_a_size_is_refused(values, word):
    with pytest.raises(ValueError, match=word):
        Classifier(tiny_network(2), ("a", "b"), (0.5,) * 3, (0.2,) * 3, 32, **values)
