"""The layers that can be explained, with the grid and the channels of each."""

import pytest
import torch
from torch import nn

from era_support_packages.gradcam import default_layers, explain, layers

torchvision = pytest.importorskip("torchvision")


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
    )


def token() -> nn.Module:
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=3)


@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        (convolutional, 16, [((16, 16), 4), ((8, 8), 6)]),
        (token, 32, [((4, 4), 16)]),
        (swin, 32, [((8, 8), 12), ((4, 4), 24)]),
    ],
)
def test_grid_and_channels_are_those_of_the_maps(make, size, expected):
    torch.manual_seed(0)
    network = make()
    images = torch.rand(2, 3, size, size)
    found = layers(network, images)
    assert [(layer.grid, layer.channels) for layer in found] == expected
    assert found.names == default_layers(network, images)
    assert explain(network, images, layers=found.names).grids == tuple(layer.grid for layer in found)
    assert found.size == (size, size)


def test_without_images_the_first_size_that_the_network_takes_is_tried():
    found = layers(token())
    assert (found.size, len(found), found[0].kind) == ((32, 32), 1, "LayerNorm")
    assert layers(convolutional()).size == (224, 224)
    assert str(found).splitlines()[0] == "for images of 32 x 32 px"
    assert str(found).splitlines()[2].split() == [found[0].name, "LayerNorm", "4x4", "16"]


def test_a_network_that_takes_none_of_the_sizes_asks_for_images():
    with pytest.raises(ValueError, match=r"takes no images of 224, 32, 299, 512 px .*: pass images="):
        layers(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 9 * 9, 2)))
