"""Networks of torchvision and timm by name, the sizes they take, and the statistics of their weights."""

import importlib.util

import pytest
import torch

from era_support_packages.models import libraries
from era_support_packages.models.catalog import build_network, differing_weight, is_network
from era_support_packages.training.config import TrainingConfig

pytest.importorskip("torchvision")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *[("ResNet18", True), ("torchvision/resnet18", True), ("timm/convnext_tiny.in12k_ft_in1k", True)],
        *[("resnet18", False), ("torchvision/", False), ("keras/resnet50", False), ("torchvision/a b", False), (None, False)],
    ],
)
def test_what_is_written_as_a_network(name, good):
    assert is_network(name) is good
    if good:
        assert TrainingConfig.preset("cpu", model=name).model == name


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("torchvision/resnet81", "did you mean .*'torchvision/resnet18'"),
        ("torchvision/fasterrcnn_resnet50_fpn", "did you mean"),  # no classifier
        pytest.param(
            "timm/resnet81", "did you mean", marks=pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="no timm")
        ),
    ],
)
def test_an_unknown_one_is_refused_with_what_was_meant(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_network(name, 3)


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="timm is not installed: install it"):
        build_network("timm/resnet18", 3)


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "timm/mobilenetv3_small_050"])
def test_a_network_is_built_for_its_classes(name):
    if name.startswith("timm"):
        pytest.importorskip("timm")
    network = build_network(name, 4).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 4)
    assert differing_weight(network, name, 4) is None
    assert differing_weight(network, name, 5) is not None


def test_the_auxiliary_heads_are_not_there_and_pixels_are_left_alone():
    with libraries.on_meta():
        network = build_network("torchvision/googlenet", 4)
    assert (network.aux1, network.transform_input) == (None, False)
    assert libraries.statistics("torchvision/googlenet") == ((0.5,) * 3, (0.5,) * 3)  # what that transformation gives
    assert libraries.statistics("torchvision/resnet18") == IMAGENET


def test_timm_says_its_own_statistics():
    pytest.importorskip("timm")
    assert libraries.statistics("timm/resnet18") == IMAGENET
    assert libraries.statistics("timm/vit_tiny_patch16_224") == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.unhurried
@pytest.mark.parametrize(
    ("name", "size", "way_out"),
    [
        ("alexnet", 32, "give an image_size and resolutions of 64 px or more"),
        ("inception_v3", 64, "give an image_size and resolutions of 80 px or more"),
        ("vit_b_32", 128, r"it takes 224 px only: give image_size=224 and resolutions=\[\[1, 1\]\]"),
    ],
)
def test_images_that_are_too_small_are_refused_with_a_size_that_is_not(name, size, way_out):
    with pytest.raises(ValueError, match=rf"torchvision/{name} cannot take images of {size} px \(.*\): {way_out}"):
        libraries.check_sizes(f"torchvision/{name}", [size])
    libraries.check_sizes(f"torchvision/{name}", [224])
    libraries.check_sizes("torchvision/resnet18", [32])
