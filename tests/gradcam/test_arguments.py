"""What `explain` refuses: one sentence each, before the model runs where the model is not needed to know."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradcam_networks import OneConvolution, Passes, layers_for, red, small_images, small_network, state
from torch import Tensor, nn

from era_support_packages.gradcam.explanation import default_layers, explain, image_passes
from era_support_packages.gradcam.methods import GRADIENT_METHODS, METHODS
from era_support_packages.models.custom_resnet import resnet_custom
from era_support_packages.models.resnet import ResNet18

BAD_VALUES = {
    "unknown method": (
        {"method": "gradcan"},
        "Unknown method 'gradcan': did you mean 'gradcam' or 'xgradcam' or 'gradcam++'?",
    ),
    "unknown targets": (
        {"targets": "actuall"},
        "Unknown targets 'actuall': did you mean 'actual'? Integer class ids are targets too.",
    ),
    "unknown layer": ({"layers": ["0", "20"]}, "Unknown layer '20': did you mean '2' or '0'?"),
    "layer of a wrong type": ({"layers": 2}, "Unknown layer 2: did you mean '2'?"),
    "foreign module": (
        {"layers": nn.Conv2d(1, 1, 1)},
        "The Conv2d in layers is not a layer of this model; pass one of its own",
    ),
    "no layers": ({"layers": []}, "layers is empty; name at least one layer, or pass None for the last of each resolution"),
    "no function": (
        {"reshape": (8, 8)},
        "reshape is (8, 8); give a function that brings what a layer gives to (N, channels, height, width), or None",
    ),
    "one image": (
        {"images": torch.zeros(3, 8, 8)},
        "images must be a normalised float tensor (N, channels, height, width), not (3, 8, 8) torch.float32; "
        "images[None] makes a batch of a single image",
    ),
    "raw pixels": (
        {"images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)},
        "images must be a normalised float tensor (N, channels, height, width), not (3, 3, 8, 8) torch.uint8; "
        "datasets.normalize makes one of uint8 pixels (N, height, width, 3), and Classifier.explain takes them as they are",
    ),
    "list of images": ({"images": [1, 2]}, "images must be a normalised float tensor (N, channels, height, width), not list"),
    "empty batch": (
        {"images": torch.zeros(0, 3, 8, 8)},
        "images of shape (0, 3, 8, 8) are empty; pass at least one image",
    ),
    "NaN": (
        {"images": torch.full((3, 3, 8, 8), math.nan)},
        "images contain NaN or infinite values; check how they were normalised",
    ),
    "labels missing": (
        {"targets": "actual"},
        "targets 'actual' needs the labels; pass labels=, a class id for each image",
    ),
    "too few labels": (
        {"targets": "actual", "labels": [1, 2]},
        "labels must be integer class ids of shape (3,), not int64 of shape (2,)",
    ),
    "too many targets": (
        {"targets": [0, 1, 2, 3]},
        "targets must be integer class ids of shape (3,) or (3, T), not int64 of shape (4,)",
    ),
    "probabilities": (
        {"targets": torch.rand(3, 8)},
        "targets must be integer class ids of shape (3,) or (3, T), not float32 of shape (3, 8)",
    ),
    "no columns": (
        {"targets": np.zeros((3, 0), np.int64)},
        "targets must be integer class ids of shape (3,) or (3, T), not int64 of shape (3, 0)",
    ),
    "no targets": ({"targets": None}, "targets must be integer class ids of shape (3,) or (3, T), not object of shape ()"),
    "ragged targets": (
        {"targets": [[0], [1, 2], [3]]},
        "targets must be integer class ids of shape (3,) or (3, T), not lists of unequal lengths",
    ),
    "negative target": (
        {"targets": [0, -1, 2]},
        "Class id -1 is out of range: the class ids in targets must be 0 or more",
    ),
    "no batch": ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
    "half a batch": ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, not 2.5"),
    "layers for a method that has none": (
        {"method": "fullgrad"},
        "Method 'fullgrad' makes one map from all layers; leave layers out, or choose another method",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values_are_refused_before_the_model_runs(arguments: dict[str, object], message: str) -> None:
    model = small_network()
    count = Passes(model)
    given = {"images": small_images(), "layers": ["0"], **arguments}
    refuses(message, explain, model, **given)
    if not {"targets", "labels", "batch_size"} & arguments.keys():
        refuses(message, image_passes, model, **given)
    assert count.forward == 0


def refuses(message: str, call: Callable[..., object], *arguments: object, **named: object) -> None:
    """The call raises this very sentence."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        call(*arguments, **named)
    assert str(caught.value).rstrip(".") == message.rstrip(".")


class Branches(nn.Module):
    """Layers that never run, run twice, give two tensors, see more images than were given, do not reach the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.never, self.twice, self.doubled, self.cut_off = (nn.Conv2d(3, 3, 1) for _ in range(5))
        self.pair = nn.LSTM(3, 3)
        self.linear = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        before = self.twice(self.twice(self.stem(images)))
        features = self.doubled(torch.cat([before, before]))[: len(images)]
        sequence, _ = self.pair(features.mean(dim=(2, 3)))
        return self.linear(sequence + self.cut_off(before).detach().mean(dim=(2, 3)))


NO_PLACES = "but a class activation map needs (2, channels, height, width); choose an earlier layer"
OTHER_AXES = (
    "axes that are not images, channels, height and width; choose another layer, or pass reshape=, a function that brings this "
    "to (2, channels, height, width)"
)
BAD_LAYERS = {
    "never": "Layer 'never' does not run in the model's forward pass; choose a layer that does",
    "twice": "Layer 'twice' runs more than once in a forward pass; choose a layer that runs once",
    "pair": "Layer 'pair' gives tuple and no tensor; choose a layer inside of it",
    "linear": f"Layer 'linear' gives (2, 2), which has no places, {NO_PLACES}",
    "doubled": f"Layer 'doubled' gives (4, 3, 8, 8): {OTHER_AXES}",
}


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "scorecam", "ablationcam"])
@pytest.mark.parametrize("layer", BAD_LAYERS)
def test_layers_without_a_map_are_refused_and_the_model_is_restored(layer: str, method: str) -> None:
    model = Branches()
    before = state(model)
    refuses(BAD_LAYERS[layer], explain, model, small_images(2), layers=["stem", layer], method=method, progress=False)
    assert state(model) == before


def test_a_layer_that_no_gradient_reaches_is_refused_where_a_gradient_is_needed() -> None:
    model = Branches()
    before = state(model)
    message = "No gradient flows from the logits to layer 'cut_off'; choose a layer on the way to them"
    for method in GRADIENT_METHODS:
        refuses(message, explain, model, small_images(2), layers=["stem", "cut_off"], method=method)
    assert state(model) == before


def test_fullgrad_refuses_a_bias_layer_that_does_not_see_the_images_one_by_one() -> None:
    message = (
        "fullgrad shows each bias at its place in the image, and layer 'doubled' gives (4, 3, 8, 8): axes that are not images, "
        "channels, height and width; choose another method"
    )
    refuses(message, explain, Branches(), small_images(2), method="fullgrad")


def test_a_network_that_detaches_everything_is_refused() -> None:
    class WithoutGradients(OneConvolution):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).detach()

    model, image = WithoutGradients(), red([[1, 2], [3, 4]])
    message = "No gradient flows from the logits to layer 'conv'; choose a layer on the way to them"
    refuses(message, explain, model, image, layers="conv")
    message = "No gradient flows from the logits to the images, so fullgrad has nothing to show; try eigencam"
    refuses(message, explain, model, image, method="fullgrad")


@pytest.mark.parametrize("method", METHODS)
def test_class_ids_beyond_the_last_class_are_refused_in_the_first_pass(method: str) -> None:
    model, layers = small_network(), layers_for(method, "0")
    count = Passes(model)
    message = "Class id 8 is out of range: the model's classes are 0 to 7"
    refuses(message, explain, model, small_images(), [0, 1, 8], layers, method, batch_size=1, progress=False)
    assert count.forward == 1
    message = "Class id 9 is out of range: the model's classes are 0 to 7"
    refuses(message, explain, model, small_images(), "actual", layers, method, labels=[9, 0, 0])


def test_unusable_models_are_refused() -> None:
    message = "The model has no parameters, so it has learnt nothing to explain; pass a trained network"
    refuses(message, explain, nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), small_images(), layers="0")
    message = "The model must return logits of shape (3, classes), not (3, 6, 8, 8)"
    refuses(message, explain, small_network()[:2], small_images(), layers="0")
    diverged = small_network()
    nn.init.constant_(diverged[5].weight, math.nan)
    message = "The model's logits are NaN or infinite, so its weights are unusable; train it again"
    for method in METHODS:
        refuses(message, explain, diverged, small_images(), layers=layers_for(method, "0"), method=method, progress=False)


def test_the_default_is_what_there_is_of_the_four_layers() -> None:
    assert default_layers(resnet_custom()) == ("layer1", "layer2", "layer3")
    assert default_layers(nn.DataParallel(ResNet18())) == ("layer1", "layer2", "layer3", "layer4")
