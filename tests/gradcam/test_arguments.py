"""What `explain` refuses: one sentence each, before the model runs where the model is not needed to know."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradcam_networks import OneConvolution, Passes, layers_for, red, small_images, small_network
from torch import Tensor, nn

from era_support_packages.gradcam.explanation import default_layers, explain, image_passes
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.models.custom_resnet import resnet_custom
from era_support_packages.models.resnet import ResNet18

IMAGES = "images must be a normalised float tensor (N, channels, height, width), not "
IDS = "targets must be integer class ids of shape (3,) or (3, T), not "
BAD_VALUES = [
    ({"method": "gradcan"}, "Unknown method 'gradcan': did you mean 'gradcam' or 'xgradcam' or 'gradcam++'?"),
    ({"targets": "actuall"}, "Unknown targets 'actuall': did you mean 'actual'? Integer class ids are targets too."),
    ({"layers": ["0", "20"]}, "Unknown layer '20': did you mean '2' or '0'?"),
    ({"layers": 2}, "Unknown layer 2: did you mean '2'?"),
    ({"layers": nn.Conv2d(1, 1, 1)}, "the Conv2d in layers is not a layer of this model; pass one of its own"),
    ({"layers": []}, "layers is empty; name at least one layer, or pass None for the last of each resolution"),
    (
        {"reshape": (8, 8)},
        "reshape is (8, 8); give a function that brings what a layer gives to (N, channels, height, width), or None",
    ),
    ({"images": torch.zeros(3, 8, 8)}, IMAGES + "(3, 8, 8) torch.float32"),
    ({"images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}, IMAGES + "(3, 3, 8, 8) torch.uint8"),
    ({"images": [1, 2]}, IMAGES + "list"),
    ({"images": torch.zeros(0, 3, 8, 8)}, "images of shape (0, 3, 8, 8) are empty; pass at least one image"),
    ({"images": torch.full((3, 3, 8, 8), math.nan)}, "images contain NaN or infinite values; check how they were normalised"),
    ({"targets": "actual"}, "targets 'actual' needs the labels; pass labels=, a class id for each image"),
    ({"targets": "actual", "labels": [1, 2]}, "labels must be integer class ids of shape (3,), not int64 of shape (2,)"),
    ({"targets": [0, 1, 2, 3]}, IDS + "int64 of shape (4,)"),
    ({"targets": torch.rand(3, 8)}, IDS + "float32 of shape (3, 8)"),
    ({"targets": np.zeros((3, 0), np.int64)}, IDS + "int64 of shape (3, 0)"),
    ({"targets": None}, IDS + "object of shape ()"),
    ({"targets": [[0], [1, 2], [3]]}, IDS + "lists of unequal lengths"),
    ({"targets": [0, -1, 2]}, "class id -1 is out of range: the class ids in targets must be 0 or more"),
    ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
    ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, not 2.5"),
    ({"method": "fullgrad"}, "method 'fullgrad' makes one map from all layers; leave layers out, or choose another method"),
]


def refuses(message: str, call: Callable[..., object], *arguments: object, **named: object) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(*arguments, **named)


@pytest.mark.parametrize(("arguments", "message"), BAD_VALUES)
def test_bad_values_are_refused_before_the_model_runs(arguments: dict[str, object], message: str) -> None:
    model = small_network()
    count = Passes(model)
    given = {"images": small_images(), "layers": ["0"], **arguments}
    refuses(message, explain, model, **given)
    if not {"targets", "labels", "batch_size"} & arguments.keys():
        refuses(message, image_passes, model, **given)
    assert count.forward == 0


def test_a_network_that_detaches_everything_is_refused() -> None:
    class WithoutGradients(OneConvolution):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).detach()

    model, image = WithoutGradients(), red([[1, 2], [3, 4]])
    message = "no gradient flows from the logits to layer 'conv'; choose a layer on the way to them"
    refuses(message, explain, model, image, layers="conv")
    message = "no gradient flows from the logits to the images, so fullgrad has nothing to show; try eigencam"
    refuses(message, explain, model, image, method="fullgrad")


@pytest.mark.parametrize("method", METHODS)
def test_class_ids_beyond_the_last_class_and_weights_that_diverged_are_refused_in_the_first_pass(method: str) -> None:
    model, layers = small_network(), layers_for(method, "0")
    count = Passes(model)
    message = "class id 8 is out of range: the model's classes are 0 to 7"
    refuses(message, explain, model, small_images(), [0, 1, 8], layers, method, batch_size=1, progress=False)
    assert count.forward == 1
    message = "class id 9 is out of range: the model's classes are 0 to 7"
    refuses(message, explain, model, small_images(), "actual", layers, method, labels=[9, 0, 0])
    nn.init.constant_(model[5].weight, math.nan)
    message = "the model's logits are NaN or infinite, so its weights are unusable; train it again"
    refuses(message, explain, model, small_images(), layers=layers, method=method, progress=False)


def test_unusable_models_are_refused() -> None:
    message = "the model has no parameters, so it has learnt nothing to explain; pass a trained network"
    refuses(message, explain, nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), small_images(), layers="0")
    message = "the model must return logits of shape (3, classes), not (3, 6, 8, 8)"
    refuses(message, explain, small_network()[:2], small_images(), layers="0")


def test_the_default_is_what_there_is_of_the_four_layers() -> None:
    assert default_layers(resnet_custom()) == ("layer1", "layer2", "layer3")
    assert default_layers(nn.DataParallel(ResNet18())) == ("layer1", "layer2", "layer3", "layer4")
