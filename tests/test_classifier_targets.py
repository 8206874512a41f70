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
