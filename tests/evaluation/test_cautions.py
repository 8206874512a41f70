"""What is warned of: once in each call, at the place of the caller."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import colored_images, tiny_network
from torch import nn

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.predictions import predict
from era_support_packages.gradcam import default_layers, explain, image_passes, layers
from era_support_packages.trust import faithfulness, sanity, shortcut

TRAIN, TEST = colored_images(60), colored_images(12, split="test")
NORMALIZES = "Layer 'norm' normalizes by the batch at hand"


def said_by(call: Callable[[], Any]) -> list[warnings.WarningMessage]:
    """What a call warns of itself."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    return [each for each in said if each.category is UserWarning]


def without_statistics() -> nn.Sequential:
    """Its batch norm goes by the batch."""
    network = tiny_network()
    network.norm = nn.BatchNorm2d(8, track_running_stats=False)
    return network.eval()


def classifier_of(network: nn.Module) -> Classifier:
    return Classifier(network, TEST.classes, TEST.mean, TEST.std, resolution=8)


def ways_to_logits(network: nn.Module) -> dict[str, Callable[[], Any]]:
    """Each call that reports what a network says, or its maps."""
    classifier = classifier_of(network)
    images = classifier.inputs(TEST)
    few: dict[str, Any] = {"methods": ["gradcam", "hirescam"], "layers": "relu"}
    return {
        "predict": lambda: classifier.predict(TEST, batch_size=4),
        "predict in training": lambda: predict(network, TEST, torch.device("cpu"), batch_size=4),
        "explain": lambda: explain(network, images, layers="relu", batch_size=4),
        "Classifier.explain": lambda: classifier.explain(TEST, layers="relu"),
        "contrast": lambda: classifier.explain(TEST.images, targets="contrast", layers="relu"),
        "explore": lambda: classifier.explore(TEST.images, methods=["gradcam", "eigencam"], layers=["relu"]),
        "faithfulness": lambda: faithfulness.judge(network, images, steps=2, percentiles=[50], **few),
        "sanity": lambda: sanity.check_network(network, images, images, draws=2, cascades=1, **few),
        "plant": lambda: shortcut.plant(classifier, TRAIN, steps=2, held_out=10),
    }


@pytest.mark.parametrize("way", ways_to_logits(tiny_network()))
def test_batch_norm_that_goes_by_its_batch_is_told_once_a_call_at_the_callers_place(way: str) -> None:
    said = said_by(ways_to_logits(without_statistics())[way])
    assert [each.filename for each in said] == [__file__]
    assert str(said[0].message).startswith(NORMALIZES)
    assert "compare results of the same batches only" in str(said[0].message)
    assert said_by(ways_to_logits(tiny_network().eval())[way]) == []


def test_what_is_warned_of_is_so() -> None:
    classifier = classifier_of(without_statistics())
    together, apart = (classifier.predict(TEST, batch_size=size).logits for size in (12, 1))
    assert np.abs(together - apart).max() > 0.1


def test_it_is_told_in_each_call_anew() -> None:
    classifier = classifier_of(without_statistics())
    assert len(said_by(lambda: [classifier.predict(TEST), classifier.predict(TEST)])) == 2


def test_batch_norm_that_stays_in_training_mode_is_told() -> None:
    class Stays(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> "Stays":
            return super().train(True)

    network = tiny_network()
    network.norm = Stays(8)
    (said,) = said_by(lambda: classifier_of(network).predict(TEST))
    assert f"{NORMALIZES} (it stays in training mode)" in str(said.message)
    held = tiny_network().train()  # in training mode as it is given: it predicts in evaluation mode
    assert said_by(lambda: classifier_of(held).predict(TEST)) == []


def test_what_does_not_rest_on_the_logits_says_nothing() -> None:
    network, images = without_statistics(), torch.rand(2, 3, 8, 8)
    calls = (
        lambda: default_layers(network, images),
        lambda: layers(network, images),
        lambda: image_passes(network, images, "relu", "scorecam"),
    )
    assert [said_by(call) for call in calls] == [[], [], []]
