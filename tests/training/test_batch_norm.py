"""Short runs: the statistics of batch norm before each evaluation."""

import copy
from pathlib import Path

import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import nn

from era_support_packages.datasets.normalization import normalize
from era_support_packages.training.batch_norm import FEW_STEPS, has_batch_norm, refresh_statistics, statistics_images
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import flops_per_image, forward_flops, training_flops
from era_support_packages.training.loop import fit

CPU = torch.device("cpu")


def test_the_statistics_are_those_of_all_images_and_nothing_else_changes() -> None:
    train, network = colored_images(600), tiny_network(drop=0.5).train()  # three batches, whose means are averaged
    network.norm.running_mean.fill_(9)
    network.conv.eval()
    before, state = copy.deepcopy(dict(network.named_parameters())), torch.get_rng_state()
    refresh_statistics(network, train, 600, 8, seed=0, device=CPU, precision="fp32")
    with torch.no_grad():
        features = network.conv(normalize(torch.from_numpy(train.images), train.mean, train.std)).permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(network.norm.running_mean, features.mean(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(network.norm.running_var, features.var(1), rtol=0.02, atol=0)
    torch.testing.assert_close(dict(network.named_parameters()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert (network.training, network.norm.training, network.norm.momentum) == (True, True, 0.1)


def test_when_a_run_is_short() -> None:
    config = plan(epochs=2, batch_size=10)
    assert 2 * 99 < FEW_STEPS <= 2 * 100
    assert statistics_images(config, 999) == 999
    assert statistics_images(config, 1000) == 0
    assert statistics_images(plan(epochs=1, batch_size=100), 19_000) == 2048  # enough of them
    for name in ("fast", "best", "cpu", "original"):
        assert statistics_images(TrainingConfig.preset(name), 50_000) == 0


def test_their_work_is_counted_where_there_is_batch_norm() -> None:
    network, config = tiny_network(), plan(epochs=2, batch_size=5)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    without = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False))
    assert [has_batch_norm(one) for one in (network, plain, without)] == [True, False, False]
    assert forward_flops(network, 8) == 2 * 27 * 8 * 64 + 2 * 8 * 3  # convolution and linear layer
    both = flops_per_image(network, 8) + forward_flops(network, 8)
    assert training_flops(network, config, config.planned_epochs(10), 10) == 20 * both
    assert training_flops(plain, config, config.planned_epochs(10), 10) == 20 * flops_per_image(plain, 8)


def test_a_run_that_goes_on_equals_the_one_in_one_go(tmp_path: Path) -> None:
    config, train, test = plan(epochs=3), colored_images(24), colored_images(9, split="test", seed=1)
    whole = tiny_network(drop=0.3)
    fit(whole, train, test, config, quiet, lambda state: state.save(tmp_path / f"{len(state.records)}.pt"))
    resumed = tiny_network(drop=0.3, seed=1)
    fit(resumed, train, test, config, quiet, lambda state: None, Checkpoint.load(tmp_path / "1.pt"))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    fresh = tiny_network(drop=0.0)
    fresh.load_state_dict(whole.state_dict())
    refresh_statistics(fresh, train, 24, 8, seed=0, device=CPU, precision="fp32")
    assert not torch.equal(fresh.norm.running_mean, tiny_network().norm.running_mean)
    assert torch.allclose(fresh.norm.running_mean, whole.norm.running_mean, atol=1e-5)
