"""Whitening of the first convolution: its outputs on training patches have the covariance the formula says."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset, make_splits
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.models.custom_resnet import resnet_custom
from era_support_packages.models.initialization import start_residual_blocks, whiten_first_convolution
from era_support_packages.models.resnet import BasicBlock, Bottleneck
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.setup import build_model

PATCH = 27  # values in a 3x3 patch of three channels


@pytest.fixture
def train() -> ImageDataset:
    """Smooth random images, so that neighbouring pixels are correlated as in photographs."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    noise = generator.integers(-8, 9, (64, 16, 16, 3))
    images = np.clip(coarse.repeat(4, axis=1).repeat(4, axis=2) + noise, 0, 255).astype(np.uint8)
    labels = np.arange(64, dtype=np.int64) % 2
    return make_splits((images, labels), (images, labels), ("a", "b"), "smooth", "smooth")[0]


def test_the_responses_are_uncorrelated_and_of_the_size_the_formula_gives(train: ImageDataset) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False))
    whiten_first_convolution(model, train, epsilon=1e-2)
    pixels = normalize_images(train, np.arange(len(train))).double()
    weight = model[0].weight[:PATCH].detach().double()
    responses = F.conv2d(pixels, weight, stride=2).permute(0, 2, 3, 1).reshape(-1, PATCH)  # on every second patch
    covariance = (responses.T @ responses / len(responses)).numpy()
    patches = F.unfold(pixels, 3, stride=2).transpose(1, 2).reshape(-1, PATCH).numpy()
    eigenvalues = np.sort(np.linalg.eigvalsh(patches.T @ patches / len(patches)))[::-1]
    assert eigenvalues[0] / eigenvalues[-1] > 50  # before, some directions are far stronger than others
    np.testing.assert_allclose(covariance, np.diag(eigenvalues / (eigenvalues + 1e-2)), atol=1e-4)


def test_build_model_starts_the_network_as_the_configuration_says(train: ImageDataset) -> None:
    config = TrainingConfig.preset("smoke", model="resnet_custom", device="cpu", whitening=True, residual_start="zero")
    plain = build_model(config.replace(whitening=False, residual_start="random"), 2, train)
    white = build_model(config, 2, train)
    before, weight = plain.prep[0].weight, white.prep[0].weight
    assert torch.equal(weight[PATCH : 2 * PATCH], -weight[:PATCH])
    assert torch.equal(weight[2 * PATCH :], before[2 * PATCH :])  # the rest is kept
    assert weight.requires_grad
    assert not torch.equal(before[PATCH : 2 * PATCH], -before[:PATCH])
    assert not white.layer3.residual[1][1].weight.any()
    assert plain.layer3.residual[1][1].weight.all()
    with pytest.raises(ValueError, match=r"^whitening starts from .*: pass them as train=, or set whitening=False\.$"):
        build_model(config, 2)


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Conv2d(3, 53, 3)), nn.Sequential(nn.Conv2d(1, 64, 3)), nn.Sequential(nn.Linear(3, 2))]
)
def test_a_network_that_cannot_be_whitened_is_refused(model: nn.Module, train: ImageDataset) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^whitening needs a first convolution of 3 channels .*; set whitening=False\.$"):
        whiten_first_convolution(model, train)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def changed(before: dict[str, torch.Tensor], model: nn.Module) -> list[str]:
    return [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]


@pytest.mark.parametrize(
    ("block", "convolution", "norm"),
    [(lambda: BasicBlock(4, 6, 2), "conv2", "bn2"), (lambda: Bottleneck(4, 2), "conv3", "bn3")],
    ids=["BasicBlock", "Bottleneck"],
)
def test_residual_blocks_start_as_asked_for_and_nothing_else_changes(block: Any, convolution: str, norm: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), block()).eval()
    before = copy.deepcopy(model.state_dict())
    start_residual_blocks(model, "random")
    assert changed(before, model) == []
    start_residual_blocks(model, "dirac")
    assert changed(before, model) == [f"1.{convolution}.weight"]
    last = getattr(model[1], convolution)
    images = torch.rand(1, last.in_channels, 3, 3)
    carried = min(last.in_channels, last.out_channels)  # the identity on these, nothing on the others
    assert torch.equal(last(images)[:, :carried], images[:, :carried])
    assert not last(images)[:, carried:].any()
    model.load_state_dict(before)
    start_residual_blocks(model, "zero")
    assert changed(before, model) == [f"1.{norm}.weight"]
    images = torch.rand(1, 4, 3, 3)
    assert torch.equal(model[1](images), model[1].shortcut(images).relu())  # the block is its shortcut


def test_the_residual_layers_of_the_originals_second_network_start_so_too() -> None:
    model = resnet_custom(drop=0.0).eval()
    before = copy.deepcopy(model.state_dict())
    start_residual_blocks(model, "dirac")
    assert changed(before, model) == ["layer1.residual.1.0.weight", "layer3.residual.1.0.weight"]
    features = torch.rand(1, 128, 3, 3)
    assert torch.equal(model.layer1.residual[1][0](features), features)
    start_residual_blocks(model, "zero")
    assert not model.layer1.residual[1][1].weight.any()
    images = torch.rand(1, 64, 4, 4)
    assert torch.equal(model.layer1(images), model.layer1.down(images))


def test_a_network_without_residual_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^residual_start is 'dirac', but Sequential has no .*; set residual_start='random'\.$"):
        start_residual_blocks(nn.Sequential(nn.Conv2d(3, 4, 1)), "dirac")
