"""Short runs: the statistics of batch norm before each evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import colored_images, plan, quiet, tiny_network
from torch import nn

from era_support_packages.datasets.image_folder import load_image_folder
from era_support_packages.datasets.normalization import normalize
from era_support_packages.training.batch_norm import FEW_STEPS, has_batch_norm, refresh_statistics, statistics_images
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import flops_per_image, forward_flops, training_flops
from era_support_packages.training.loop import fit
from era_support_packages.training.resolution import resolve
from era_support_packages.training.setup import build_model

CPU = torch.device("cpu")


def test_the_statistics_are_those_of_all_images() -> None:
    train = colored_images(600)  # three batches, whose means are averaged
    network = tiny_network()
    network.norm.running_mean.fill_(9)
    refresh_statistics(network, train, 600, 8, seed=0, device=CPU, precision="fp32")
    with torch.no_grad():
        features = network.conv(normalize(torch.from_numpy(train.images), train.mean, train.std)).permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(network.norm.running_mean, features.mean(1), atol=1e-5)
    assert torch.allclose(network.norm.running_var, features.var(1), rtol=0.02)
    assert network.norm.momentum == 0.1


def test_nothing_else_changes() -> None:
    network = tiny_network(drop=0.5).train()
    network.conv.eval()
    before, state = {name: value.clone() for name, value in network.named_parameters()}, torch.get_rng_state()
    refresh_statistics(network, colored_images(30), 20, 8, seed=0, device=CPU, precision="fp32")
    assert all(torch.equal(value, before[name]) for name, value in network.named_parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert (network.training, network.norm.training) == (True, True)


def test_when_a_run_is_short() -> None:
    config = plan(epochs=2, batch_size=10)
    assert 2 * 99 < FEW_STEPS <= 2 * 100
    assert statistics_images(config, 999) == 999
    assert statistics_images(config, 1000) == 0
    assert statistics_images(plan(epochs=1, batch_size=100), 19_000) == 2048  # enough of them


@pytest.mark.parametrize("name", ["fast", "best", "cpu", "original"])
def test_on_cifar10_no_preset_is_short(name: str) -> None:
    assert statistics_images(TrainingConfig.preset(name), 50_000) == 0


def test_a_network_without_batch_norm_is_left_alone() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    assert not has_batch_norm(plain)
    assert not has_batch_norm(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))
    assert has_batch_norm(tiny_network())
    config = plan(epochs=2, batch_size=5)
    assert training_flops(plain, config, config.planned_epochs(10), 10) == 20 * flops_per_image(plain, 8)


def test_their_work_is_counted() -> None:
    network, config = tiny_network(), plan(epochs=2, batch_size=5)
    assert forward_flops(network, 8) == 2 * 27 * 8 * 64 + 2 * 8 * 3  # convolution and linear layer
    expected = 20 * flops_per_image(network, 8) + 20 * forward_flops(network, 8)
    assert training_flops(network, config, config.planned_epochs(10), 10) == expected


def test_a_run_that_goes_on_equals_the_one_in_one_go(tmp_path: Path) -> None:
    config, train, test = plan(epochs=3), colored_images(24), colored_images(9, split="test", seed=1)
    whole = tiny_network(drop=0.3)
    fit(whole, train, test, config, quiet, lambda state: state.save(tmp_path / f"{len(state.records)}.pt"))
    resumed = tiny_network(drop=0.3, seed=1)
    fit(resumed, train, test, config, quiet, lambda state: None, Checkpoint.load(tmp_path / "1.pt"))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    fresh = tiny_network(drop=0.0)
    fresh.load_state_dict(whole.state_dict())
    refresh_statistics(fresh, train, 24, 8, seed=0, device=CPU, precision="fp32")
    assert not torch.equal(fresh.norm.running_mean, tiny_network().norm.running_mean)
    assert torch.allclose(fresh.norm.running_mean, whole.norm.running_mean, atol=1e-5)


@pytest.mark.slow
def test_the_test_loss_of_160_photos_is_sane(tmp_path: Path) -> None:
    """On the way to 100 % it was thousands of times the training loss, which at this rate is itself far from small."""
    generator = np.random.default_rng(0)
    for label, base in (("dark", 60), ("light", 180)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(80):
            pixels = np.clip(generator.normal(base, 30, (48, 48, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:02d}.png")
    train, test = load_image_folder(tmp_path / "photos", tmp_path / "cache")
    config = resolve(TrainingConfig.preset("cpu", device="cpu", precision="fp32", engine="device"), train)
    network = build_model(config, 2, train)
    history = fit(network, train, test, config, quiet).history
    assert max(record.test_loss for record in history.records) < 10 * max(record.train_loss for record in history.records)
    assert history.records[-1].test_loss < 0.1
    assert history.predictions.accuracy == 100
