"""Whitening of the first convolution: its outputs on training patches have the covariance the formula says."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from era_support_packages.batches import normalize_images
from era_support_packages.config import TrainingConfig
from era_support_packages.custom_resnet import resnet_custom
from era_support_packages.image_dataset import ImageDataset, make_splits
from era_support_packages.initialisation import whiten_first_convolution
from era_support_packages.training_setup import build_model

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


def first_responses(weight: torch.Tensor, train: ImageDataset) -> torch.Tensor:
    """The filters' responses on every second patch, float64 (patches, filters)."""
    pixels = normalize_images(train, np.arange(len(train))).double()
    return F.conv2d(pixels, weight.double(), stride=2).permute(0, 2, 3, 1).reshape(-1, len(weight))


def test_the_responses_are_uncorrelated_and_of_the_size_the_formula_gives(train: ImageDataset) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False))
    whiten_first_convolution(model, train, epsilon=1e-2)
    responses = first_responses(model[0].weight[:PATCH].detach(), train)
    covariance = (responses.T @ responses / len(responses)).numpy()
    pixels = normalize_images(train, np.arange(len(train))).double()
    patches = F.unfold(pixels, 3, stride=2).transpose(1, 2).reshape(-1, PATCH).numpy()
    eigenvalues = np.sort(np.linalg.eigvalsh(patches.T @ patches / len(patches)))[::-1]
    assert eigenvalues[0] / eigenvalues[-1] > 50  # before, some directions are far stronger than others
    np.testing.assert_allclose(covariance, np.diag(eigenvalues / (eigenvalues + 1e-2)), atol=1e-4)


def test_the_second_half_is_the_negative_and_the_rest_is_kept(train: ImageDataset) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False))
    before = copy.deepcopy(model[0].weight.detach())
    whiten_first_convolution(model, train)
    weight = model[0].weight.detach()
    assert torch.equal(weight[PATCH : 2 * PATCH], -weight[:PATCH])
    assert torch.equal(weight[2 * PATCH :], before[2 * PATCH :])
    assert model[0].weight.requires_grad


def test_every_network_of_the_package_can_start_whitened(train: ImageDataset) -> None:
    model = resnet_custom()
    whiten_first_convolution(model, train)
    weight = model.prep[0].weight.detach()
    assert torch.equal(weight[PATCH : 2 * PATCH], -weight[:PATCH])


def test_build_model_whitens_where_the_configuration_says_so(train: ImageDataset) -> None:
    config = TrainingConfig.preset("smoke", model="resnet_custom", device="cpu")
    plain = build_model(config, 2, train).prep[0].weight.detach()
    white = build_model(config.replace(whitening=True), 2, train).prep[0].weight.detach()
    assert torch.equal(white[2 * PATCH :], plain[2 * PATCH :])
    assert torch.equal(white[PATCH : 2 * PATCH], -white[:PATCH])
    assert not torch.equal(plain[PATCH : 2 * PATCH], -plain[:PATCH])
    with pytest.raises(
        ValueError, match=r"^whitening starts from the training images: pass them as train=, or set whitening=False\.$"
    ):
        build_model(config.replace(whitening=True), 2)


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Conv2d(3, 53, 3)), nn.Sequential(nn.Conv2d(1, 64, 3)), nn.Sequential(nn.Linear(3, 2))]
)
def test_a_network_that_cannot_be_whitened_is_refused(model: nn.Module, train: ImageDataset) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"^whitening needs a first convolution of 3 channels .*; set whitening=False\.$"):
        whiten_first_convolution(model, train)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
