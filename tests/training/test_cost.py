"""What a run will cost: seconds on this machine, and floating-point operations counted by hand."""

import collections
import copy
from types import SimpleNamespace

import pytest
import torch
from tiny import plan, tiny_network
from torch import nn
from torch.testing import assert_close

from era_support_packages.models.resnet import ResNet18
from era_support_packages.training import cost
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import (
    announce_duration,
    flops_per_image,
    predicted_seconds,
    seconds_per_image,
    training_flops,
)

TWO_SIZES = {"train_images": 300, "resolutions": ((8, 0.5), (16, 0.5))}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0 s"), (0.4, "0 s"), (45, "45 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s")],
        *[(3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"), (3900, "1 h 05 min"), (7199, "1 h 59 min"), (90_000, "25 h 00 min")],
    ],
)
def test_duration_is_read_by_people(seconds: float, text: str) -> None:
    assert cost.duration(seconds) == text


@pytest.mark.parametrize(
    ("device", "seconds", "text", "colab"),
    [("cpu", 600, "10 min 00 s", False), ("cpu", 601, "10 min 01 s", True), ("cuda:0", 7200, "2 h 00 min", False)],
)
def test_announcement_offers_colab_only_for_a_long_run_on_a_cpu(device: str, seconds: int, text: str, colab: bool) -> None:
    offer = " A free GPU on Colab (Runtime > Change runtime type > T4 GPU) would take a fraction of it." * colab
    assert announce_duration(plan(device=device), seconds) == f"This run will take about {text} on this machine.{offer}"


def test_seconds_per_image_times_a_few_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, calls, model = iter([10.0, 16.0]), [], tiny_network()
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    model.register_forward_pre_hook(lambda network, inputs: calls.append((tuple(inputs[0].shape), network.norm.training)))
    config = plan(batch_size=4, resolutions=((16, 0.5), (8, 0.5)), epochs=2)
    assert seconds_per_image(model, config, timed_steps=3) == 0.5  # 6 s for three batches of four
    assert calls == [((4, 3, 16, 16), True)] * 4


def test_what_is_measured_leaves_model_and_random_state_alone() -> None:
    model = tiny_network(drop=0.5).eval()
    model.linear.train()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert seconds_per_image(model, plan(max_lr=10.0)) > 0
    assert flops_per_image(model, 8) > 0
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == [False] * 7 + [True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_predicted_seconds_by_hand() -> None:
    config = plan(**TWO_SIZES, batch_size=50, test_images=30)
    planned = config.planned_epochs(100)  # at 8 px 100 and 50 images, then at 16 px
    # in images of 8 px: training 100 + 50 + 4 * 100 + 4 * 50 = 750; tests 30 / 3 * (1 + 1 + 4) + 60 / 3 * 4 = 140
    assert predicted_seconds(config, planned, 60, 0.01) == pytest.approx(8.9)
    # every epoch looks at all 60: 20 + 20 + 80 + 80
    assert predicted_seconds(config.replace(test_images=None), planned, 60, 0.01) == pytest.approx(9.5)
    # where the split is smaller than test_images: 20 / 3 * (1 + 1 + 4 + 4)
    assert predicted_seconds(config, planned, 20, 0.01) == pytest.approx((750 + 200 / 3) / 100)
    # what is left after two epochs, still in images of 8 px: 400 + 200, and 30 / 3 * 4 + 60 / 3 * 4
    assert predicted_seconds(config, planned[2:], 60, 0.01) == pytest.approx(7.2)


def test_flops_of_a_hand_made_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.Flatten())
    model.append(nn.Linear(5 * 4 * 4, 2))
    first, second, last = 8 * 8 * 4 * 3 * 9, 4 * 4 * 5 * 4 * 9, 80 * 2  # multiply-adds of one forward pass at 8 px
    # forward, gradient of the weights, gradient of the input: the last of them not for the first layer
    assert flops_per_image(model, 8) == 2 * (2 * first + 3 * second + 3 * last)


@pytest.mark.usefixtures("long_enough")
def test_training_flops_counts_the_images_that_are_really_shown() -> None:
    model = tiny_network()
    small, large = (2 * (2 * size**2 * 8 * 3 * 9 + 3 * 8 * 3) for size in (8, 16))
    config, few = plan(**TWO_SIZES, batch_size=40), plan(epochs=3, batch_size=64)
    planned = config.planned_epochs(100)
    # epochs of 100 and 50 images at each resolution: two full batches of 40, and one
    assert training_flops(model, config, planned, 100) == 120 * small + 120 * large
    # a range test runs at the first resolution
    assert training_flops(model, config, planned, 100, range_test_batches=25) == (120 + 25 * 40) * small + 120 * large
    # a run that was stopped after three epochs, or before its first was complete
    assert training_flops(model, config, planned[:3], 100, range_test_batches=25) == (120 + 25 * 40) * small + 80 * large
    assert training_flops(model, config, (), 100, range_test_batches=25) == 25 * 40 * small
    # a split of fewer images than a batch is one batch
    assert training_flops(model, few, few.planned_epochs(10), 10, range_test_batches=20) == (30 + 200) * small


@pytest.mark.usefixtures("long_enough")
def test_training_flops_counts_the_products_of_muon() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1))
    config = plan(train_images=150, batch_size=40, optimizer="muon", device="cpu")
    per_image, per_step = flops_per_image(model, 8), 2 * (20 + 9 * 8 + 20)  # as in test_muon.py
    counted = training_flops(model, config, config.planned_epochs(100), 100, range_test_batches=25)
    assert counted == (120 + 25 * 40) * per_image + (3 + 25) * per_step
    narrow = config.replace(muon_outputs=1)  # the second convolution has two
    assert training_flops(model, narrow, config.planned_epochs(100), 100) == 120 * per_image


@pytest.mark.parametrize(
    ("preset", "device", "epochs", "pflops"),
    [
        *[("fast", "cuda", {16: 4, 24: 6, 32: 3}, 1.298), ("best", "cuda:1", {24: 19, 32: 45}, 9.593)],
        *[("fast", "cpu", {16: 4, 24: 6, 32: 3}, 1.258), ("cpu", "cpu", {16: 1, 24: 1}, 0.1038)],
        # 97 batches of 512; ResNet18 takes 3.329 GFLOP an image of 32 px
        ("original", "cpu", {32: 25}, 25 * 97 * 512 * 3.329e-6),
    ],
)
def test_what_the_presets_cost_on_cifar10(preset: str, device: str, epochs: dict[int, int], pflops: float) -> None:
    config = TrainingConfig.preset(preset, device=device)
    planned = config.planned_epochs(50_000)
    assert collections.Counter(epoch.resolution for epoch in planned) == epochs
    assert training_flops(ResNet18(), config, planned, 50_000) == pytest.approx(pflops * 1e15, rel=1e-3)
