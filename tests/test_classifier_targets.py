"""Targets that are none: the sentence names all that there are."""

import re

import numpy as np
import pytest
from gradcam_networks import small_images, small_network

from era_support_packages.classifier import Classifier
from era_support_packages.gradcam import explain

PHOTO = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (
            "hund",
            "Unknown targets 'hund': choose one of 'predicted', 'actual', 'contrast'. Integer class ids are targets too.",
        ),
        ("kontrast", "Unknown targets 'kontrast': did you mean 'contrast'? Integer class ids are targets too."),
        ("dog", "Classes are given by their ids: targets=[[1]] is 'dog'."),
    ],
)
def test_unknown_words(targets: str, sentence: str) -> None:
    classes = ("cat", "dog", *"abcdef")
    classifier = Classifier(small_network(), classes, (0.5,) * 3, (0.25,) * 3, resolution=8)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        classifier.explain(PHOTO, targets=targets, layers="0")
    assert classifier.explain(PHOTO, targets="contrast", layers="0").targets.shape == (1, 2)


def test_without_a_classifier_there_is_no_contrast() -> None:
    with pytest.raises(ValueError, match=r"'hund': choose one of 'predicted', 'actual'\. Integer class ids are targets too\."):
        explain(small_network(), small_images(), "hund", "0")


def test_an_image_has_the_percentage_that_its_prediction_has() -> None:
    classifier = Classifier(small_network().bfloat16(), ("cat", "dog", *"abcdef"), (0.5,) * 3, (0.25,) * 3, 8, precision="bf16")
    said = classifier.predict(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    for targets in ("predicted", "contrast", [[1, 2]]):
        found = classifier.explain(said, targets=targets, layers="0")
        rows = np.arange(4)[:, None]
        assert np.array_equal(found.confidences, said.probabilities[rows, found.targets].astype(np.float32))
    alone = classifier.explain(said, layers="0", confidence="sigmoid").confidences
    sigmoid = 1 / (1 + np.exp(-said.logits.max(axis=1)))
    assert np.allclose(alone[:, 0], sigmoid, atol=0.02), "each class by itself, in float32"
