"""What is warned of: once in each call, at the place of the caller."""

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import colored_images, tiny_network
from torch import Tensor, nn

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


class Drops(nn.Module):
    """Dropout by a function, which eval() does not switch off."""

    def __init__(self, own: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.own = own

    def forward(self, values: Tensor) -> Tensor:
        return self.own(values)


def dropping(own: Callable[[Tensor], Tensor] = F.dropout) -> nn.Sequential:
    network = tiny_network()
    network.drop = Drops(own)
    return network.eval()


@pytest.mark.parametrize("way", ways_to_logits(tiny_network()))
def test_dropout_that_is_left_on_is_told_once_a_call_at_the_callers_place(way: str) -> None:
    said = said_by(ways_to_logits(dropping())[way])
    assert [each.filename for each in said] == [__file__]
    assert "draws random numbers in evaluation mode" in str(said[0].message)
    assert "pass training=self.training" in str(said[0].message)


@pytest.mark.parametrize(
    "own",
    [
        lambda z: z + torch.randn_like(z),
        lambda z: z * torch.bernoulli(torch.full_like(z, 0.5)),
        lambda z: z.clone().add_(torch.empty_like(z).uniform_()),
        lambda z: z * float(np.random.random()),
        lambda z: z * random.random(),
        lambda z: F.scaled_dot_product_attention(*[z[:, None]] * 3, dropout_p=0.5)[:, 0],
        nn.Dropout().train().forward,  # no part of the network, so that eval() does not reach it
    ],
)
def test_chance_of_any_kind_is_told(own: Callable[[Tensor], Tensor]) -> None:
    classifier = classifier_of(dropping(own))
    assert len(said_by(lambda: classifier.predict(TEST, batch_size=4))) == 1


def test_to_look_for_chance_moves_no_random_state_and_takes_no_pass() -> None:
    passes: list[int] = []
    network = tiny_network(drop=0.5).train()  # whose own dropout eval() switches off
    network.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    before = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    assert said_by(lambda: classifier_of(network).predict(TEST, batch_size=8)) == []
    after = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    assert torch.equal(before[0], after[0])
    assert (before[1:], passes) == (after[1:], [8, 4])


def test_attention_without_dropout_draws_nothing() -> None:
    class Tokens(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values.flatten(2).transpose(1, 2)

    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    network = nn.Sequential(nn.Conv2d(3, 32, 4, 4), Tokens(), layer, nn.Flatten(), nn.Linear(128, 3))
    assert said_by(lambda: classifier_of(network).predict(TEST)) == []


def test_what_does_not_rest_on_the_logits_says_nothing() -> None:
    images = torch.rand(2, 3, 8, 8)
    for network in (without_statistics(), dropping()):
        assert said_by(lambda network=network: default_layers(network, images)) == []
        assert said_by(lambda network=network: layers(network, images)) == []
        assert said_by(lambda network=network: image_passes(network, images, "relu", "scorecam")) == []
