"""One map of several layers, "layer3+layer4": the library's mean, wherever layers are named."""

import re
from typing import cast

import numpy as np
import pytest
import torch
from gradcam_networks import small_images, small_network
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from era_support_packages.gradcam import METHODS, explain, image_passes
from era_support_packages.gradcam.combining import combined
from era_support_packages.models.resnet import ResNet18


@pytest.mark.parametrize(("method", "library"), [("gradcam", GradCAM), ("hirescam", HiResCAM), ("layercam", LayerCAM)])
def test_several_layers_equal_the_library_given_them_together(method: str, library: type[BaseCAM]) -> None:
    torch.manual_seed(0)
    network = ResNet18().train()
    network.linear.weight.data *= 1000  # the library divides by the maximum and 1e-7 more, which then says nothing
    network(torch.randn(4, 3, 32, 32))
    network.eval()
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    found = explain(network, images, [3, 0, 7], layers=["layer2+layer4", "layer4", "layer4+layer1+layer2"], method=method)
    assert found.layers == ("layer2+layer4", "layer4", "layer4+layer1+layer2")
    assert found.grids == ((8, 8), (2, 2), (16, 16))
    for place, names in ((0, ("layer2", "layer4")), (2, ("layer1", "layer2", "layer4"))):
        with library(network, [network.get_submodule(name) for name in names]) as cam:
            expected = cam(images.clone(), [ClassifierOutputTarget(class_id) for class_id in (3, 0, 7)])
        np.testing.assert_allclose(found.maps[:, 0, place], expected, atol=1e-5)
    alone = explain(network, images, [3, 0, 7], layers="layer4", method=method)
    np.testing.assert_array_equal(found.maps[:, :, 1], alone.maps[:, :, 0])
    assert np.abs(found.maps[:, 0, 0] - found.maps[:, 0, 1]).max() > 0.1  # maps that are alike could not tell


def test_the_mean_of_two_maps_by_hand() -> None:
    """Each is scaled by itself: (0, 5) and (0, 10) to (0, 1); a constant one marks nothing and halves the other."""
    left, right = np.float32([[[5, 0]]]), np.float32([[[0, 10]]])
    np.testing.assert_allclose(combined([left, right], (1, 2)), [[[0.5, 0.5]]], atol=1e-6)
    np.testing.assert_allclose(combined([left * 1e-8, right], (1, 2)), [[[0.5, 0.5]]], atol=1e-6)  # however small its values
    np.testing.assert_allclose(combined([left, np.full((1, 1, 2), 3, np.float32)], (1, 2)), [[[0.5, 0]]], atol=1e-6)


def test_a_mean_that_is_the_same_everywhere_is_constant() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    nn.init.zeros_(cast(nn.Conv2d, network[0]).weight)
    found = explain(network, torch.rand(2, 3, 8, 8), layers="0+1")
    assert found.constant.all()
    assert not found.maps.any()


def test_passes_of_a_combined_map_are_those_of_its_layers_each_once() -> None:
    network, images = small_network(), small_images()
    for method in METHODS:
        if not METHODS[method].all_layers:
            asked = image_passes(network, images, ["0", "1"], method)
            assert image_passes(network, images, ["0+1", "1"], method) == asked
            assert explain(network, images, layers="0+1", method=method, progress=False).maps.shape[2] == 1


def test_a_layer_whose_own_name_has_a_plus_is_that_layer() -> None:
    network = nn.Sequential()
    for name, module in (("a", nn.Conv2d(3, 4, 3)), ("b", nn.ReLU()), ("a+b", nn.MaxPool2d(2))):
        network.add_module(name, module)
    network.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(4, 2))
    assert explain(network, torch.rand(1, 3, 8, 8), layers="a+b").grids == ((3, 3),)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("0+nine", "Unknown layer 'nine'"),
        ("0+", "Unknown layer ''"),
        (["0", "1+0+1"], "'1+0+1' has '1' twice; a combined map takes each layer once."),
    ],
)
def test_combined_layers_that_are_none_are_refused(layers: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(small_network(), small_images(), layers=layers)
