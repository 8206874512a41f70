"""Training: every number of the log against one worked out by hand, on networks of a few channels."""

import collections
import copy
import dataclasses
import gc
import itertools
import math
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MEAN, STD, asking, colored_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import batch_count, shuffled_order
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.predictions import predict
from era_support_packages.models.custom_resnet import CustomResNet
from era_support_packages.models.resnet import ResNet, ResNet18
from era_support_packages.training import batch_norm, cost as run_cost, loop as training
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import ConfigValues, ResolvedConfig, TrainingConfig
from era_support_packages.training.cost import (
    announce_duration,
    duration,
    flops_per_image,
    predicted_seconds,
    seconds_per_image,
    training_flops,
)
from era_support_packages.training.failures import OutOfMemoryError, TrainingDivergedError, out_of_memory
from era_support_packages.training.history import EpochRecord, log_header, log_row
from era_support_packages.training.loop import fit
from era_support_packages.training.muon import MuonWithSGD
from era_support_packages.training.resolution import resolve
from era_support_packages.training.setup import (
    augmentation_policy,
    build_batches,
    build_model,
    build_optimizer,
    build_scheduler,
)
from era_support_packages.training.step import TrainingStep

CPU = torch.device("cpu")


# ---- comparisons -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def _long_enough() -> Iterator[None]:
    """Forward passes are counted here; those for the statistics of short runs are the matter of test_batch_norm.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm, "FEW_STEPS", 0)
        yield


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def normalized(dataset: ImageDataset, indices: list[int] | np.ndarray) -> Tensor:
    """Images (N, 3, H, W) as the network should see them, worked out in numpy."""
    scaled = (dataset.images[indices] / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """(1 - s) times the negative log-probability of the label, plus s times its mean over the classes."""
    log_probabilities = logits - logits.exp().sum(dim=1, keepdim=True).log()
    actual = -log_probabilities[torch.arange(len(labels)), labels]
    return ((1 - smoothing) * actual - smoothing * log_probabilities.mean(dim=1)).mean()


# ---- parts of a run --------------------------------------------------------------------------------------------------


def changed(before: TrainingConfig, after: TrainingConfig) -> dict[str, Any]:
    """The values of `after` that differ from `before`."""
    old = before.to_dict()
    return {name: value for name, value in after.to_dict().items() if value != old[name]}


def test_build_model_gives_the_same_weights_for_the_same_seed() -> None:
    config = plan(model="resnet_custom", seed=5)
    torch.manual_seed(1)
    one = build_model(config, 7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = build_model(config, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(one, CustomResNet)
    assert one.linear.weight.shape == (7, 512)
    assert same_weights(one.state_dict(), other.state_dict())
    assert one.prep[0].weight.is_contiguous(memory_format=torch.channels_last)
    different = build_model(config.replace(seed=6), 7)
    assert not torch.equal(one.prep[0].weight, different.prep[0].weight)
    assert not torch.equal(one.linear.weight, different.linear.weight)


def test_build_model_finds_the_resnets_by_name() -> None:
    model = build_model(plan(model="ResNet18"), 10)
    assert isinstance(model, ResNet)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962


def test_optimizer_decays_only_convolutions_and_the_output_layer() -> None:
    model = tiny_network()
    optimizer = build_optimizer(model, plan(weight_decay=0.03, momentum=0.8, max_lr=0.7))
    assert isinstance(optimizer, torch.optim.SGD)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [([names[id(parameter)] for parameter in group["params"]], group) for group in optimizer.param_groups]
    assert [(members, group["weight_decay"]) for members, group in groups] == [
        (["conv.weight", "linear.weight"], 0.03),
        (["norm.weight", "linear.bias"], 0.0),
        (["norm.bias"], 0.0),
    ]
    assert all((group["lr"], group["momentum"], group["nesterov"]) == (0.7, 0.8, True) for _, group in groups)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_norms_and_biases_decay_where_asked_for(optimizer: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 2))
    config = plan(optimizer=optimizer, weight_decay=0.03, decay_norms_and_biases=True)
    groups = build_optimizer(model, config).param_groups
    decays = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    filters = 0.0 if optimizer == "muon" else 0.03  # what Muon turns keeps its length
    assert [decays[parameter] for parameter in model.parameters()] == [0.03, filters, 0.03, 0.03, 0.03, 0.03]


def test_batch_norm_biases_learn_at_a_multiple_of_the_rate_all_along_the_schedule() -> None:
    model = tiny_network()
    config = plan(max_lr=0.5, norm_bias_lr=16, warmup=0.5)
    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, 4))
    images, labels = torch.ones(2, 3, 8, 8), torch.tensor([0, 1])
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        step(images, labels)
    # from max_lr / 25 to max_lr at step 4 * 0.5 - 1 = 1, then to max_lr / 250,000 at step 3
    expected = np.interp(np.arange(4), [0, 1, 3], [0.02, 0.5, 2e-6])
    assert np.array(rates) == pytest.approx(np.outer(expected, [1, 1, 16]))


def test_compile_runs_the_compiled_network_while_training_and_leaves_the_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def spy(model: nn.Module) -> Any:
        compiled.append(model)
        return lambda images: 2 * model(images)  # so that it shows which of the two ran

    monkeypatch.setattr(torch, "compile", spy)
    images, labels = torch.ones(2, 3, 8, 8), torch.tensor([0, 1])
    losses = {}
    for choice in (False, True):
        model = tiny_network()
        step = TrainingStep(model, build_optimizer(model, plan()), plan(compile=choice))
        assert step.model is model
        losses[choice] = step(images, labels)[0].item()
    assert len(compiled) == 1
    logits = tiny_network().train()(images)
    assert losses[False] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert losses[True] == pytest.approx(torch.nn.functional.cross_entropy(2 * logits, labels).item())


def test_muon_turns_the_filters_of_all_convolutions_but_the_first() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 2))
    config = plan(optimizer="muon", muon_lr=0.4, max_lr=0.5, norm_bias_lr=16, momentum=0.6, weight_decay=0.03)
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, MuonWithSGD)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        ([names[id(parameter)] for parameter in group["params"]], group["orthogonal"], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    ]
    assert groups == [
        (["0.weight", "3.weight"], False, 0.5, 0.03),
        (["2.weight", "3.bias"], False, 0.5, 0.0),
        (["2.bias"], False, 8.0, 0.0),
        (["1.weight"], True, 0.2, 0.0),
    ]
    assert all((group["momentum"], group["nesterov"]) == (0.6, True) for group in optimizer.param_groups)
    scheduler = build_scheduler(optimizer, config, 10)
    assert [group["max_lr"] for group in scheduler.optimizer.param_groups] == [0.5, 0.5, 8.0, 0.2]


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_first_step_that_a_gradient_scaler_skips_leaves_no_trace(optimizer: str) -> None:
    """PyTorch's fused SGD allocates its momentum then and does not set it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5))
    twin = copy.deepcopy(model)
    config = plan(optimizer=optimizer, max_lr=0.1)
    images = torch.rand(2, 3, 8, 8)
    for network, overflows in ((model, True), (twin, False)):
        own, scaler = build_optimizer(network, config), torch.amp.GradScaler("cpu", init_scale=2.0)
        for first in (True, False) if overflows else (False,):
            own.zero_grad()
            scaler.scale((network(images) * (math.inf if first else 1.0)).pow(2).sum()).backward()
            for norm in (network[2],):  # its running statistics are not the optimizer's
                norm.reset_running_stats()
            scaler.step(own)
            scaler.update()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_optimizer_without_momentum_is_plain_gradient_descent() -> None:
    optimizer = build_optimizer(tiny_network(), plan(momentum=0))
    assert all((group["momentum"], group["nesterov"]) == (0, False) for group in optimizer.param_groups)


def learning_rates(config: ResolvedConfig, steps: int) -> list[float]:
    """The learning rate of each of that many real training steps."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, steps))
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        step(torch.ones(2, 3, 2, 2), torch.tensor([0, 1]))
    assert all(len(set(step_rates)) == 1 for step_rates in rates)  # the same in all groups
    return [step_rates[0] for step_rates in rates]


def test_schedule_rises_to_max_lr_during_the_warmup_and_falls_to_zero() -> None:
    rates = learning_rates(plan(max_lr=2.0, warmup=0.25), 12)
    # from max_lr / 25 at step 0 to max_lr at step 12 * 0.25 - 1 = 2, then to max_lr / 250,000 at step 11
    assert rates == pytest.approx(np.interp(np.arange(12), [0, 2, 11], [0.08, 2.0, 8e-6]))
    assert rates[2] == 2.0
    assert rates[-1] == pytest.approx(8e-6)


def test_cosine_schedule() -> None:
    rates = learning_rates(plan(max_lr=2.0, warmup=0.25, anneal="cos"), 12)
    rising = [0.08 + (2.0 - 0.08) * (1 - math.cos(math.pi * step / 2)) / 2 for step in (0, 1, 2)]
    falling = [8e-6 + (2.0 - 8e-6) * (1 + math.cos(math.pi * step / 9)) / 2 for step in range(1, 10)]
    assert rates == pytest.approx([*rising, *falling])


def test_the_default_schedule_is_pytorchs_to_the_last_bit() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    named = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=40, pct_start=0.25, anneal_strategy="linear", cycle_momentum=False
    )
    theirs = []
    for step in range(40):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 39:
            named.step()
    assert learning_rates(plan(max_lr=0.4), 40) == theirs


def test_the_published_schedule_at_its_corners() -> None:
    """From a fifth of 0.2 up to 0.2 at a fifth of the run, then linearly to zero: by hand, for 26 epochs of 100 steps."""
    rates = learning_rates(plan(max_lr=0.2, warmup=0.2, warmup_start=0.2), 2600)
    assert rates[0] == pytest.approx(0.04)
    assert rates[519] == pytest.approx(0.2)  # step 520 of 2,600
    assert rates.index(max(rates)) == 519
    assert rates[1559] == pytest.approx(0.1, abs=1e-6)  # half of the way down: (519 + 2599) / 2
    assert rates[2599] == pytest.approx(0.2 / 250_000)
    # the published code is a step later at each corner, the last of which is behind the last step: a step's change at most
    published = np.interp(np.arange(2600), [0, 520, 2600], [0.04, 0.2, 0.0])
    assert np.abs(np.array(rates) - published).max() < 0.16 / 519


@pytest.mark.parametrize("warmup_start", [1e-4, 0.04, 1])
def test_the_schedule_ends_with_the_same_rate_wherever_it_begins(warmup_start: float) -> None:
    rates = learning_rates(plan(max_lr=2.0, warmup=0.5, warmup_start=warmup_start), 12)
    assert (rates[0], rates[5], rates[11]) == pytest.approx((2 * warmup_start, 2.0, 8e-6))


@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize("warmup", [0, 0.25, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_schedule_works_for_the_shortest_runs(steps: int, warmup: float, anneal: str) -> None:
    rates = learning_rates(plan(max_lr=1.0, warmup=warmup, anneal=anneal), steps)
    assert rates[0] == pytest.approx(0.04)
    assert all(0 < rate <= 1 for rate in rates)
    if steps > 1:
        assert max(rates) == pytest.approx(1.0)
    if steps > 2:
        assert rates[-1] == pytest.approx(1.0 if warmup == 1 else 4e-6)
    if steps > 2 and warmup < 1:
        assert rates[1] == pytest.approx(1.0)


def test_augmentation_policy_takes_its_values_from_the_configuration() -> None:
    config = plan(horizontal_flip=0.3, crop_padding=2, cutout=4, shift_scale_rotate=0.1, rgb_shift=0.2, brightness_contrast=0.4)
    assert augmentation_policy(config) == AugmentationPolicy(0.3, 2, 4, 0.1, 0.2, 0.4)
    assert augmentation_policy(plan(horizontal_flip=0.5, alternating_flip=True)) == AugmentationPolicy(alternating_flip=True)


def test_build_batches_follows_the_configuration() -> None:
    train = colored_images(20)
    assert build_batches(train, plan()).engine == "device"
    batches = build_batches(train, plan(batch_size=6, seed=9, engine="samples", workers=0))
    assert (batches.batch_size, batches.seed, batches.engine, batches.workers, batches.device) == (6, 9, "samples", 0, CPU)
    images, labels = next(batches.epoch(8, 0, 20))
    order = shuffled_order(20, 9, 0)[:6]
    assert labels.tolist() == train.labels[order].tolist()
    torch.testing.assert_close(images, normalized(train, order))


# ---- what a run will cost --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (7199, "1 h 59 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_duration_is_read_by_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_announcement_offers_colab_only_for_a_long_run_on_a_cpu() -> None:
    cpu = plan()
    assert announce_duration(cpu, 45) == "This run will take about 45 s on this machine."
    assert announce_duration(cpu, 600) == "This run will take about 10 min 00 s on this machine."
    assert announce_duration(cpu, 601) == (
        "This run will take about 10 min 01 s on this machine. "
        "A free GPU on Colab (Runtime > Change runtime type > T4 GPU) would take a fraction of it."
    )
    assert announce_duration(plan(device="cuda:0"), 7200) == "This run will take about 2 h 00 min on this machine."
    assert "Colab" not in announce_duration(plan(device="cuda"), 7200)


class Recording(nn.Module):
    """A network that notes the shape and the training flag of each forward pass, also those of its copies."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.network = tiny_network(drop=drop)
        self.calls = Recording.calls = []

    def __deepcopy__(self, memo: dict) -> "Recording":
        twin = Recording.__new__(Recording)
        memo[id(self)] = twin
        nn.Module.__init__(twin)
        twin.network = copy.deepcopy(self.network, memo)
        twin.training = self.training
        return twin

    def forward(self, images: Tensor) -> Tensor:
        Recording.calls.append((tuple(images.shape), self.network.norm.training))
        return self.network(images)


def test_seconds_per_image_times_a_few_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([10.0, 16.0])
    monkeypatch.setattr(run_cost, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    model = Recording()
    config = plan(batch_size=4, resolutions=((16, 0.5), (8, 0.5)), epochs=2)
    assert seconds_per_image(model, config, timed_steps=3) == 0.5  # 6 s for three batches of four
    assert model.calls == [((4, 3, 16, 16), True)] * 4


def test_seconds_per_image_leaves_model_and_random_state_alone() -> None:
    model = tiny_network(drop=0.5).eval()
    model.linear.train()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert seconds_per_image(model, plan(max_lr=10.0)) > 0
    assert same_weights(model.state_dict(), before)
    assert [module.training for module in model.modules()] == [False] * 7 + [True]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_predicted_seconds_by_hand() -> None:
    config = plan(train_images=300, resolutions=((8, 0.5), (16, 0.5)), batch_size=50, test_images=30)
    planned = config.planned_epochs(100)
    assert [(epoch.resolution, epoch.images) for epoch in planned] == [(8, 100), (8, 50), (16, 100), (16, 50)]
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
    model.append(nn.Linear(5 * 4 * 4, 2)).eval()
    first, second, last = 8 * 8 * 4 * 3 * 9, 4 * 4 * 5 * 4 * 9, 80 * 2  # multiply-adds of one forward pass at 8 px
    # forward, gradient of the weights, gradient of the input: the last of them not for the first layer
    assert flops_per_image(model, 8) == 2 * (2 * first + 3 * second + 3 * last)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_flops_of_resnet18() -> None:
    model = ResNet18()
    per_image = flops_per_image(model, 32)
    assert per_image == pytest.approx(3.34e9, rel=0.01)
    assert 50_000 * per_image / 1e15 == pytest.approx(0.167, rel=0.01)


def test_flops_leave_model_and_random_state_alone() -> None:
    model = tiny_network(drop=0.5)
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    flops_per_image(model.eval(), 8)
    assert same_weights(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_training_flops_counts_the_images_that_are_really_shown() -> None:
    model = tiny_network()
    small = 2 * (2 * 8 * 8 * 8 * 3 * 9 + 3 * 8 * 3)
    large = 2 * (2 * 16 * 16 * 8 * 3 * 9 + 3 * 8 * 3)
    assert (flops_per_image(model, 8), flops_per_image(model, 16)) == (small, large)
    config = plan(train_images=300, resolutions=((8, 0.5), (16, 0.5)), batch_size=40)
    planned = config.planned_epochs(100)
    # epochs of 100 and 50 images at each resolution: two full batches of 40, and one
    assert training_flops(model, config, planned, 100) == 120 * small + 120 * large
    # a range test runs at the first resolution
    assert training_flops(model, config, planned, 100, range_test_batches=25) == (120 + 25 * 40) * small + 120 * large
    # a run that was stopped after three epochs, or before its first was complete
    assert training_flops(model, config, planned[:3], 100, range_test_batches=25) == (120 + 25 * 40) * small + 80 * large
    assert training_flops(model, config, (), 100, range_test_batches=25) == 25 * 40 * small
    # the products of Muon's steps: 2 + 1 batches, and those of the range test
    two = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 3, 1), second=nn.Conv2d(3, 2, 1), pool=nn.AdaptiveAvgPool2d(1)))
    per_image, per_step = flops_per_image(two, 8), 3 * 2 * (12 + 8 + 12)  # as in test_muon.py
    short = plan(train_images=150, batch_size=40, optimizer="muon")
    counted = training_flops(two, short, short.planned_epochs(100), 100, range_test_batches=25)
    assert counted == (120 + 25 * 40) * per_image + (3 + 25) * per_step
    # a split of fewer images than a batch is one batch
    few = plan(epochs=3, batch_size=64)
    assert training_flops(model, few, few.planned_epochs(10), 10) == 30 * small
    assert training_flops(model, few, few.planned_epochs(10), 10, range_test_batches=20) == (30 + 200) * small


@pytest.mark.parametrize(
    ("preset", "epochs", "most_pflops"),
    [
        ("fast", {16: 4, 24: 6, 32: 3}, 1.34),
        ("best", {24: 19, 32: 45}, 10.0),
        ("cpu", {16: 2, 24: 1}, 0.11),
        ("original", {32: 25}, 4.2),
    ],
)
def test_what_the_presets_cost_on_cifar10(preset: str, epochs: dict[int, int], most_pflops: float) -> None:
    config = TrainingConfig.preset(preset)
    planned = config.planned_epochs(50_000)
    assert collections.Counter(epoch.resolution for epoch in planned) == epochs
    assert training_flops(ResNet18(), config, planned, 50_000) <= most_pflops * 1e15


def test_it_returns_the_network_with_all_that_its_predictions_depend_on():
    train, test = colored_images(24), colored_images(6, split="test", seed=1)
    model = tiny_network()
    config = plan(epochs=2, resolutions=((8, 0.5), (12, 0.5)), batch_size=12)
    classifier, history = fit(model, train, test, config, quiet)
    assert classifier.network is model
    assert (classifier.classes, classifier.mean, classifier.std) == (test.classes, test.mean, test.std)
    assert (classifier.resolution, classifier.precision, classifier.model) == (12, "fp32", config.model)
    assert np.array_equal(classifier.predict(test).logits, history.predictions.logits)


@pytest.mark.parametrize("preset", ["original", "fast", "best", "cpu"])
def test_the_whole_plan_of_each_preset_runs(preset: str) -> None:
    train, test = colored_images(60), colored_images(30, split="test", seed=1)
    config = TrainingConfig.preset(preset, device="cpu", batch_size=20, max_lr=0.1, cutout=2)
    config = resolve(config, train)
    _, history = fit(tiny_network(), train, test, config, quiet)
    planned = config.planned_epochs(len(train))
    assert [record.resolution for record in history.records] == [epoch.resolution for epoch in planned]
    assert history.records[-1].test_accuracy == 100


# ---- the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [asking(), plan(max_lr="auto")], ids=["asked for", "without a rate"])
def test_fit_refuses_what_is_not_resolved_before_anything_happens(config: ConfigValues) -> None:
    model = tiny_network()
    before, reported = copy.deepcopy(model.state_dict()), []
    with pytest.raises(TypeError, match="A ResolvedConfig is needed") as raised:
        fit(model, colored_images(8), colored_images(4), config, reported.append)
    assert "training.resolve(config, train)" in str(raised.value)
    assert reported == []
    assert same_weights(model.state_dict(), before)


def test_fit_learns_a_separable_set() -> None:
    train, test = colored_images(60), colored_images(30, split="test", seed=1)
    _, history = fit(tiny_network(), train, test, plan(epochs=10, batch_size=10, max_lr=0.3), quiet)
    assert history.records[0].train_accuracy < 90  # it had something to learn
    last = history.records[-1]
    assert (last.epoch, last.train_accuracy, last.test_accuracy, last.test_correct, last.test_total) == (10, 100, 100, 30, 30)
    assert last.test_loss < 0.3
    assert [record.train_loss for record in history.records[:4]] == sorted(
        (record.train_loss for record in history.records[:4]), reverse=True
    )


def test_numbers_of_a_one_step_run_by_hand() -> None:
    train, test = colored_images(8), colored_images(20, split="test", seed=1)
    model = tiny_network()
    twin = copy.deepcopy(model)
    config = plan(label_smoothing=0.2, weight_decay=0.05, momentum=0.8, max_lr=5.0, test_images=4)
    _, history = fit(model, train, test, config, quiet)

    logits = twin(normalized(train, range(8)))
    loss = smoothed_cross_entropy(logits, torch.from_numpy(train.labels), 0.2)
    loss.backward()
    record = history.records[0]
    assert record.train_loss == pytest.approx(loss.item(), rel=1e-5)
    assert record.train_accuracy == 12.5 * int((logits.argmax(dim=1).numpy() == train.labels).sum())
    assert record.lr == pytest.approx(5.0 / 25)
    # SGD with Nesterov momentum, from rest: the buffer is the gradient, and the step is gradient + momentum * buffer
    for name, parameter in twin.named_parameters():
        decay = 0.05 if parameter.ndim > 1 else 0.0
        expected = parameter.detach() - 0.2 * (1 + 0.8) * (parameter.grad + decay * parameter.detach())
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=1e-4, atol=1e-6)

    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(normalized(test, range(20)))
    assert record.test_loss == pytest.approx(smoothed_cross_entropy(logits, torch.from_numpy(test.labels), 0).item(), rel=1e-4)
    assert record.test_correct == int((logits.argmax(dim=1).numpy() == test.labels).sum())
    assert record.test_accuracy == 5 * record.test_correct
    assert (record.epoch, record.resolution, record.images, record.test_total) == (1, 8, 8, 20)
    assert record.seconds > 0


def test_training_numbers_are_means_over_the_images_of_all_full_batches() -> None:
    train = colored_images(20)
    model = tiny_network(seed=3)
    twin = copy.deepcopy(model)
    _, history = fit(model, train, train, plan(max_lr=1e-12, weight_decay=0.0, seed=4), quiet)  # the weights stand still
    order = shuffled_order(20, 4, 0)
    losses, hits = [], 0
    for batch in (order[:8], order[8:16]):  # four of the twenty are left over
        labels = torch.from_numpy(train.labels[batch])
        logits = twin(normalized(train, batch))
        losses.append(F.cross_entropy(logits, labels).item())
        hits += int((logits.argmax(dim=1) == labels).sum())
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert history.records[0].train_loss == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert history.records[0].train_accuracy == pytest.approx(100 * hits / 16)


def test_rows_follow_the_plan_and_test_numbers_equal_predictions() -> None:
    train, test = colored_images(24, size=16), colored_images(21, size=16, split="test", seed=1)
    config = plan(train_images=60, resolutions=((8, 0.4), (16, 0.6)), batch_size=6, test_images=5)
    models: list[nn.Module] = []
    model = tiny_network()
    _, history = fit(model, train, test, config, quiet, lambda state: models.append(copy.deepcopy(model)))

    rows = [(record.epoch, record.resolution, record.images) for record in history.records]
    assert rows == [(1, 8, 24), (2, 16, 24), (3, 16, 12)]
    assert rows == [(epoch.epoch, epoch.resolution, epoch.images) for epoch in config.planned_epochs(24)]

    spread = [0, 5, 10, 15, 20]
    looked_at = [test.take(spread), test.take(spread), test]
    assert [record.test_total for record in history.records] == [5, 5, 21]
    for record, snapshot, images in zip(history.records, models, looked_at, strict=True):
        expected = predict(snapshot, images, CPU, "fp32", record.resolution)
        labels = torch.from_numpy(images.labels)
        assert record.test_correct == int((expected.logits.argmax(axis=1) == images.labels).sum())
        assert record.test_accuracy == pytest.approx(100 * record.test_correct / len(images))
        assert record.test_loss == pytest.approx(F.cross_entropy(torch.from_numpy(expected.logits), labels).item(), rel=1e-5)

    at_the_end = predict(model, test, CPU, "fp32", 16)
    np.testing.assert_allclose(history.predictions.logits, at_the_end.logits, rtol=1e-5, atol=1e-6)
    assert history.predictions.labels is test.labels
    assert history.predictions.classes == ("red", "green", "blue")


def test_last_epoch_is_tested_at_the_plans_last_resolution() -> None:
    train, test = colored_images(12, size=16), colored_images(9, size=16, split="test", seed=1)
    model = tiny_network()
    _, history = fit(model, train, test, plan(), quiet)
    np.testing.assert_allclose(history.predictions.logits, predict(model, test, CPU, resolution=8).logits, rtol=1e-5, atol=1e-6)
    assert not np.allclose(history.predictions.logits, predict(model, test, CPU, resolution=16).logits, rtol=1e-3)


def test_scheduler_is_stepped_every_batch_over_the_whole_run() -> None:
    train = colored_images(26)
    _, history = fit(tiny_network(), train, train, plan(epochs=2, warmup=0.5, max_lr=0.1), quiet)
    # three batches an epoch: six steps, the peak at step 6 * 0.5 - 1 = 2, the last of epoch 1
    assert [record.lr for record in history.records] == pytest.approx([0.1, 0.1 / 250_000])
    _, three = fit(tiny_network(), train, train, plan(epochs=3, warmup=1 / 3, max_lr=0.1), quiet)
    assert [record.lr for record in three.records] == pytest.approx([0.1, 0.1 / 2 + 0.1 / 500_000, 0.1 / 250_000])


@pytest.mark.parametrize(("images", "warmup"), [(8, 0.25), (16, 0.25), (24, 0.25), (40, 1.0)])
def test_fit_survives_the_shortest_runs(images: int, warmup: float) -> None:
    train = colored_images(images)
    _, history = fit(tiny_network(), train, train, plan(warmup=warmup), quiet)
    assert len(history.records) == 1
    assert math.isfinite(history.records[0].train_loss)


EVERY_AUGMENTATION = {
    "horizontal_flip": 0.5,
    "crop_padding": 1,
    "cutout": 2,
    "shift_scale_rotate": 0.5,
    "rgb_shift": 0.5,
    "brightness_contrast": 0.5,
}


def without_times(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    """The rows but for what no run can repeat."""
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def fingerprint(seed: int, disturb: Callable[[], Any]) -> tuple[list[EpochRecord], dict[str, Tensor], np.ndarray]:
    """Rows without their times, weights, and logits of a run with dropout and every augmentation."""
    disturb()
    model = tiny_network(drop=0.3)
    config = plan(epochs=2, seed=seed, threads=1, **EVERY_AUGMENTATION)
    _, history = fit(model, colored_images(24), colored_images(9, seed=1), config, quiet)
    return without_times(history.records), model.state_dict(), history.predictions.logits


def test_two_identical_runs_agree_bit_for_bit() -> None:
    records, weights, logits = fingerprint(1, lambda: (torch.manual_seed(3), np.random.seed(3)))
    again_records, again_weights, again_logits = fingerprint(1, lambda: (torch.manual_seed(4), np.random.seed(4)))
    assert records == again_records
    assert same_weights(weights, again_weights)
    assert (logits == again_logits).all()
    other_records, other_weights, _ = fingerprint(2, lambda: None)
    assert other_records != records
    assert not same_weights(weights, other_weights)


def test_fit_computes_with_the_threads_and_algorithms_of_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model, noted = tiny_network(), []
    model.register_forward_pre_hook(
        lambda *_: noted.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
    )
    threads = torch.get_num_threads()
    other = 2 if threads == 1 else 1
    fit(model, colored_images(8), colored_images(3), plan(threads=other, deterministic=True), quiet)
    assert len(noted) == 5  # three timed steps, a step, a batch of the test split
    assert set(noted) == {(other, True)}
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)


# ---- what is reported ------------------------------------------------------------------------------------------------


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """No steps are timed before the run: an image costs two seconds."""
    monkeypatch.setattr(training, "seconds_per_image", lambda model, config: 2.0)


LEARNS = {"max_lr": 0.3, "momentum": 0.9}


@pytest.mark.usefixtures("instant")
def test_announcement_header_and_rows_are_reported_in_order_each_row_after_its_state_is_kept() -> None:
    events: list[Any] = []
    config = plan(epochs=2, test_images=6, **LEARNS)
    _, history = fit(
        tiny_network(),
        colored_images(24),
        colored_images(12),
        config,
        events.append,
        lambda state: events.append(len(state.records)),
    )
    first, second = history.records
    assert events == [
        "This run will take about 1 min 48 s on this machine.",  # 2 * (24 + 6 / 3 + 24 + 12 / 3)
        log_header(),
        1,
        log_row(first),
        2,
        log_row(second),
    ]


class Hopeless(nn.Module):
    """A network that names the first class, whatever it has learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_network()

    def forward(self, images: Tensor) -> Tensor:
        return 0 * self.network(images)


WARNING = (
    "Warning: after the warm-up the training accuracy is 33.33 %, no better than always naming the largest class (33.33 %); "
    "a lower max_lr may help."
)


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(
    ("warmup", "after_row"),
    [
        (0, 1),
        (0.25, 2),  # 18 of the 72 images: the first epoch that begins after them is the second
        (1 / 3, 2),  # exactly the first epoch
        (0.34, 3),
        (0.9, 3),  # no epoch begins after them: the last one is looked at
        (1, 3),
    ],
)
def test_a_network_no_better_than_the_largest_class_after_the_warmup_is_warned_of_once(warmup: float, after_row: int) -> None:
    reported: list[str] = []
    train = colored_images(24)
    _, history = fit(Hopeless(), train, train, plan(epochs=3, warmup=warmup), reported.append)
    rows = [log_row(record) for record in history.records]
    assert reported[1:] == [log_header(), *rows[:after_row], WARNING, *rows[after_row:]]
    assert history.complete


@pytest.mark.usefixtures("instant")
def test_the_warning_names_the_share_of_the_largest_class_of_an_unbalanced_set() -> None:
    reported: list[str] = []
    train = dataclasses.replace(colored_images(8), labels=np.array([1, 0, 1, 1, 2, 1, 0, 1]))
    fit(Hopeless(), train, train, plan(), reported.append)
    assert reported[-1] == (
        "Warning: after the warm-up the training accuracy is 25.00 %, no better than always naming the largest class (62.50 %); "
        "a lower max_lr may help."
    )


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("warmup", [0, 0.25, 1])
def test_a_network_that_learns_is_not_warned_of(warmup: float) -> None:
    reported: list[str] = []
    train = colored_images(60)
    config = plan(epochs=6, batch_size=10, warmup=warmup, max_lr=0.3)
    _, history = fit(tiny_network(), train, train, config, reported.append)
    judged = {0: 0, 0.25: 2, 1: 5}[warmup]
    assert history.records[judged].train_accuracy > 34
    assert reported[1:] == [log_header(), *map(log_row, history.records)]


def test_fit_prints_nothing_but_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    reported: list[str] = []
    train, config = colored_images(24), plan(epochs=2, **LEARNS)
    fit(tiny_network(), train, train, config, reported.append)
    assert capsys.readouterr().out == ""
    assert [len(line) for line in reported][1:] == [len(log_header())] * 3
    fit(tiny_network(), train, train, config)
    assert [len(line) for line in capsys.readouterr().out.splitlines()][1:] == [len(log_header())] * 3


def test_model_is_in_training_mode_while_it_trains_and_holds_the_last_weights() -> None:
    model = Recording().eval()
    train, test = colored_images(16), colored_images(6)
    _, history = fit(model, train, test, plan(epochs=2), quiet)
    in_epochs = [training_flag for shape, training_flag in model.calls[3:]]  # three steps of the timing before
    assert in_epochs == [True, True, False, True, True, False]
    assert all(module.training for module in model.modules())
    np.testing.assert_allclose(history.predictions.logits, predict(model, test, CPU).logits, rtol=1e-5, atol=1e-6)
    assert model.network.norm.num_batches_tracked == 4  # the timed steps went to a copy


# ---- divergence ------------------------------------------------------------------------------------------------------


class Diverging(nn.Module):
    """A network with a poisoned logit from its n-th training step on."""

    def __init__(self, step: int, poison: float) -> None:
        super().__init__()
        self.network, self.step, self.poison, self.steps = tiny_network(), step, poison, 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        if not self.training:
            return logits
        self.steps += 1
        return logits + torch.tensor([self.poison if self.steps >= self.step else 0.0, 0.0, 0.0])


class Kept:
    """What `keep` got: how many epochs were done, and whether the state was all finite."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.finite: list[bool] = []

    def __call__(self, state: Checkpoint) -> None:
        self.epochs.append(len(state.records))
        tensors = [*state.model.values()]
        if state.optimizer is not None:
            tensors += [entry["momentum_buffer"] for entry in state.optimizer["state"].values()]
        self.finite.append(all(bool(tensor.isfinite().all()) for tensor in tensors))


# Three steps an epoch; the learning rate rises from 0.02 to 0.5 at the third, and falls to nearly 0 at the sixth.
@pytest.mark.parametrize(
    ("step", "where", "finished"),
    [
        (1, "step 1 of epoch 1, at a learning rate of 0.02", []),
        (2, "step 2 of epoch 1, at a learning rate of 0.26", []),
        (3, "step 3 of epoch 1, at a learning rate of 0.5", []),
        (4, "step 1 of epoch 2, at a learning rate of 0.3333", [1]),
        (6, "step 3 of epoch 2, at a learning rate of 2e-06", [1]),
    ],
)
@pytest.mark.parametrize(("poison", "loss"), [(math.nan, "nan"), (-math.inf, "inf")])  # -inf: the label is impossible
def test_a_loss_that_is_no_number_ends_the_run_and_its_state_is_not_kept(
    poison: float, loss: str, step: int, where: str, finished: list[int]
) -> None:
    train, kept = colored_images(24), Kept()
    config = plan(epochs=2, warmup=0.5, max_lr=0.5, seed=1)  # an order in which every batch has an image of the first class
    with pytest.raises(TrainingDivergedError) as raised:
        fit(Diverging(step, poison), train, train, config, quiet, kept)
    assert str(raised.value) == f"The loss became {loss} at {where}; lower max_lr and run again."
    assert kept.epochs == finished
    assert all(kept.finite)


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(("seconds_a_look", "steps"), [(0.0, 6), (2.0, 3)])
def test_the_loss_is_looked_at_when_the_bar_refreshes_and_at_the_end_of_an_epoch(
    seconds_a_look: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: seconds_a_look * next(clock)))
    model = Diverging(3, math.nan)
    with pytest.raises(TrainingDivergedError, match=r"^The loss became nan at step 3 of epoch 1, at a learning rate of "):
        fit(model, colored_images(48), colored_images(3), plan(), quiet)
    assert model.steps == steps  # six an epoch


class Spoiling(nn.Module):
    """A network one of whose weights becomes infinite after the forward pass of its n-th training step: that loss is fine."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.network, self.step, self.steps = tiny_network(), step, 0

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        self.steps += self.training
        if self.training and self.steps == self.step:
            self.network.conv.weight.data[0, 0, 0, 0] = math.inf
        return logits


class SpoilingStatistics(Spoiling):
    """The same with a running mean, which no loss of the training depends on."""

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        self.steps += self.training
        if self.training and self.steps == self.step:
            self.network.norm.running_mean.data[2] = math.nan
        return logits


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(
    ("model", "where", "finished"),
    [
        (Spoiling(3), "step 3 of epoch 1, at a learning rate of 0.5", []),
        (Spoiling(6), "step 3 of epoch 2, at a learning rate of 2e-06", [1]),
        (SpoilingStatistics(1), "step 3 of epoch 1, at a learning rate of 0.5", []),
        (SpoilingStatistics(4), "step 3 of epoch 2, at a learning rate of 2e-06", [1]),
    ],
)
def test_weights_that_are_not_finite_end_the_run_although_its_losses_are_and_are_not_kept(
    model: Spoiling, where: str, finished: list[int]
) -> None:
    train, kept, reported = colored_images(24), Kept(), []
    config = plan(epochs=2, warmup=0.5, max_lr=0.5)
    with pytest.raises(TrainingDivergedError) as raised:
        fit(model, train, train, config, reported.append, kept)
    assert str(raised.value) == f"The weights are no longer finite at {where}; lower max_lr and run again."
    assert kept.epochs == finished
    assert all(kept.finite)
    assert len([line for line in reported[2:] if not line.startswith("Warning")]) == len(finished)


def test_a_learning_rate_far_too_high_ends_the_run() -> None:
    class Unnormalized(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(192, 64), nn.Linear(64, 64), nn.Linear(64, 3))

    sentence = (
        r"^(The loss became (nan|inf)|The weights are no longer finite) at step \d of epoch \d, "
        r"at a learning rate of \d[\d.e+-]*; lower max_lr and run again\.$"
    )
    with pytest.raises(TrainingDivergedError, match=sentence):
        fit(Unnormalized(), colored_images(64), colored_images(3), plan(epochs=5, max_lr=100), quiet)


# ---- memory that is full ---------------------------------------------------------------------------------------------


def fail_at(model: nn.Module, number: int, failure: Callable[[], object]) -> list[weakref.ref]:
    """Let the forward pass of that number fail; returns where a reference to what it computed until then will be."""
    passes, computed = itertools.count(1), []

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if next(passes) == number:
            computed.append(weakref.ref(output))
            failure()

    model.relu.register_forward_hook(hook)
    return computed


def raising(error: type[Exception], text: str) -> Callable[[], None]:
    """A function that raises a new error each time, so that none is held by the test."""

    def failure() -> None:
        raise error(text)

    return failure


FULL = {
    "on a GPU": raising(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity ..."),
    "on a CPU": raising(
        RuntimeError,
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    ),
    "on Windows": raising(RuntimeError, "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "really": lambda: torch.empty(1 << 60, dtype=torch.uint8),
}


@pytest.mark.parametrize("failure", FULL.values(), ids=FULL)
@pytest.mark.parametrize(
    ("batch_size", "sentence"),
    [
        (8, "The memory of 'cpu' is full at batch_size=8: set batch_size=4 (and halve max_lr with it) and run again."),
        (2, "The memory of 'cpu' is full at batch_size=2: choose a smaller model and run again."),
    ],
    ids=["8 images", "2 images"],
)
@pytest.mark.parametrize(("number", "trained"), [(1, False), (5, True)], ids=["while steps are timed", "in the second step"])
def test_full_memory_names_a_batch_size_that_may_fit_and_frees_what_the_step_held(
    number: int, trained: bool, batch_size: int, sentence: str, failure: Callable[[], object]
) -> None:
    model = tiny_network()
    before = copy.deepcopy(model.state_dict())
    computed = fail_at(model, number, failure)
    with pytest.raises(OutOfMemoryError) as raised:
        fit(model, colored_images(24), colored_images(6), plan(batch_size=batch_size), quiet)
    assert str(raised.value) == sentence
    assert raised.value.__cause__ is raised.value.__context__ is None  # a chained error would keep its frames
    assert same_weights(model.state_dict(), before) is not trained
    assert all(parameter.grad is None for parameter in model.parameters())
    gc.collect()
    assert [reference() for reference in computed] == [None]


@pytest.mark.parametrize(
    ("batch_size", "way_out"),
    [
        (512, "set batch_size=256 (and halve max_lr with it)"),
        (5, "set batch_size=2 (and halve max_lr with it)"),
        (4, "set batch_size=2 (and halve max_lr with it)"),
        (3, "choose a smaller model"),
    ],
)
def test_the_batch_size_that_may_fit_is_half_and_never_below_two(batch_size: int, way_out: str) -> None:
    config = plan(batch_size=batch_size, device="cuda:1")
    expected = f"The memory of 'cuda:1' is full at batch_size={batch_size}: {way_out} and run again."
    assert str(out_of_memory(tiny_network(), config)) == expected


@pytest.mark.usefixtures("instant")
def test_the_epochs_before_memory_was_full_are_kept() -> None:
    model, kept = tiny_network(), Kept()
    fail_at(model, 5, FULL["on a CPU"])  # three steps and a batch of the test split, then the second epoch
    with pytest.raises(OutOfMemoryError):
        fit(model, colored_images(24), colored_images(6), plan(epochs=2), quiet, kept)
    assert kept.epochs == [1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x8 and 9x3)"),
        RuntimeError("CUDA error: device-side assert triggered"),
        NotImplementedError("no kernel"),
        ValueError("can't allocate memory"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("instant")
def test_any_other_error_passes_through_unchanged(error: BaseException) -> None:
    def failure() -> None:
        raise error

    model = tiny_network()
    fail_at(model, 2, failure)
    with pytest.raises(type(error)) as raised:
        fit(model, colored_images(24), colored_images(6), plan(), quiet)
    assert raised.value is error
    assert all(parameter.grad is not None for parameter in model.parameters())  # nothing was tidied up


# ---- states that are kept, and runs that are resumed -----------------------------------------------------------------


@pytest.mark.usefixtures("instant")
def test_keep_gets_all_that_is_needed_to_go_on_and_after_the_last_epoch_the_predictions_instead() -> None:
    model, states, generators = tiny_network(drop=0.3), [], []

    def keep(state: Checkpoint) -> None:
        generators.append(torch.equal(state.random_state["cpu"], torch.get_rng_state()))
        states.append(copy.deepcopy(state))

    config = plan(epochs=3, warmup=1 / 3, max_lr=0.1, test_images=5)
    _, history = fit(model, colored_images(24), colored_images(9), config, quiet, keep)
    assert [state.records for state in states] == [history.records[:number] for number in (1, 2, 3)]
    assert [(state.config, state.planned, state.complete) for state in states] == [
        (history.config, 3, False),
        (history.config, 3, False),
        (history.config, 3, True),
    ]
    assert [list(state.random_state) for state in states] == [["cpu"]] * 3
    assert generators == [True] * 3
    for number, state in enumerate(states[:2], start=1):
        assert state.logits is None
        assert state.scheduler["last_epoch"] == 3 * number  # three steps an epoch
        assert state.scaler == {}  # fp32 needs none
        assert len(state.optimizer["state"]) == 5  # the momentum of each parameter
        # at the next step: from the peak at step 2 to nearly 0 at step 8
        expected = np.interp(3 * number, [2, 8], [0.1, 4e-7])
        assert [group["lr"] for group in state.optimizer["param_groups"]] == pytest.approx([expected] * 3)
    last = states[-1]
    assert (last.optimizer, last.scheduler, last.scaler) == (None, None, None)
    assert (last.logits.dtype, tuple(last.logits.shape)) == (torch.float32, (9, 3))
    assert (last.logits.numpy() == history.predictions.logits).all()
    assert same_weights(last.model, model.state_dict())
    assert not same_weights(states[0].model, states[1].model)
    assert not same_weights(states[1].model, states[2].model)


RESUMED = {
    "linear schedule": plan(epochs=4, threads=1, weight_decay=0.01, label_smoothing=0.1, max_lr=0.3, test_images=5, seed=3),
    "cosine schedule, several resolutions": plan(
        train_images=80, resolutions=((8, 0.4), (12, 0.35), (16, 0.25)), threads=1, anneal="cos", warmup=0.3, max_lr=0.3
    ),
    "no momentum, every augmentation": plan(epochs=3, threads=1, momentum=0.0, max_lr=0.3, **EVERY_AUGMENTATION),
    "bf16": plan(epochs=3, threads=1, precision="bf16", max_lr=0.1),
}


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("config", RESUMED.values(), ids=RESUMED)
def test_a_run_resumed_after_any_epoch_equals_the_run_in_one_go_bit_for_bit(config: ResolvedConfig, tmp_path: Path) -> None:
    train, test = colored_images(24, size=16), colored_images(11, size=16, split="test", seed=1)
    planned = config.planned_epochs(24)
    model = tiny_network(drop=0.3)
    _, whole = fit(model, train, test, config, quiet, lambda state: state.save(tmp_path / f"{len(state.records)}.pt"))
    random_state = torch.get_rng_state()
    assert whole.complete
    assert len(whole.records) == len(planned) >= 3

    def check_resumed_after(done: int) -> None:
        torch.manual_seed(100 + done)
        resumed = tiny_network(drop=0.3, seed=done)  # other weights: all must come from the file
        images: list[int] = []
        resumed.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0]) if module.training else 0))
        kept: list[int] = []
        checkpoint = Checkpoint.load(tmp_path / f"{done}.pt")
        _, history = fit(resumed, train, test, config, quiet, lambda state: kept.append(len(state.records)), checkpoint)
        assert kept == list(range(done + 1, len(planned) + 1))  # no epoch that was done is trained again
        assert sum(images) == sum(8 * batch_count(epoch.images, 8) for epoch in planned[done:])
        assert without_times(history.records) == without_times(whole.records)
        assert history.records[:done] == whole.records[:done]  # with their times
        assert same_weights(resumed.state_dict(), model.state_dict())
        assert (history.predictions.logits == whole.predictions.logits).all()
        assert (history.config, history.planned) == (whole.config, whole.planned)
        if done < len(planned):
            assert torch.equal(torch.get_rng_state(), random_state)

    for done in range(1, len(planned) + 1):
        check_resumed_after(done)


class Stop(Exception):
    """Ends a run as if it had been killed right after a state was kept."""


@pytest.mark.usefixtures("instant")
def test_a_run_that_is_stopped_after_every_epoch_equals_the_run_in_one_go_bit_for_bit(tmp_path: Path) -> None:
    train, test = colored_images(24, size=16), colored_images(11, size=16, split="test", seed=1)
    config, file = RESUMED["cosine schedule, several resolutions"], tmp_path / "checkpoint.pt"
    model = tiny_network(drop=0.3)
    _, whole = fit(model, train, test, config, quiet)

    def keep(state: Checkpoint) -> None:
        state.save(file)
        raise Stop

    for done in range(len(whole.records)):
        stopped = tiny_network(drop=0.3, seed=done)
        with pytest.raises(Stop):
            fit(stopped, train, test, config, quiet, keep, Checkpoint.load(file) if done else None)
        assert len(Checkpoint.load(file).records) == done + 1
    last = Checkpoint.load(file)
    assert last.complete
    assert without_times(last.records) == without_times(whole.records)
    assert same_weights(last.model, model.state_dict())
    assert (last.logits.numpy() == whole.predictions.logits).all()


@pytest.mark.usefixtures("instant")
def test_a_resumed_run_reports_the_earlier_rows_again_under_the_header_and_announces_only_what_is_left(tmp_path: Path) -> None:
    train, test, config = colored_images(24), colored_images(12), plan(epochs=3, test_images=6, **LEARNS)
    _, whole = fit(tiny_network(), train, test, config, quiet, lambda state: state.save(tmp_path / f"{len(state.records)}.pt"))
    rows = [log_row(record) for record in whole.records]
    announced = {
        1: "This run will take about 1 min 48 s on this machine.",  # 2 * (24 + 6 / 3 + 24 + 12 / 3)
        2: "This run will take about 56 s on this machine.",
    }
    for done, sentence in announced.items():
        reported: list[str] = []
        _, history = fit(tiny_network(), train, test, config, reported.append, resume=Checkpoint.load(tmp_path / f"{done}.pt"))
        new = [log_row(record) for record in history.records[done:]]
        assert reported == [sentence, "\n".join([log_header(), *rows[:done]]), *new]


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(("done", "warned"), [(1, True), (2, False)])
def test_a_run_resumed_after_it_was_warned_of_is_not_warned_of_again(done: int, warned: bool, tmp_path: Path) -> None:
    train, config, reported = colored_images(24), plan(epochs=3, warmup=0.25), []
    fit(Hopeless(), train, train, config, quiet, lambda state: state.save(tmp_path / f"{len(state.records)}.pt"))
    fit(Hopeless(), train, train, config, reported.append, resume=Checkpoint.load(tmp_path / f"{done}.pt"))
    assert reported.count(WARNING) == warned
    assert len(reported) == 2 + (3 - done) + warned


def test_a_finished_checkpoint_is_returned_without_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test, config, file = colored_images(24), colored_images(9, split="test", seed=1), plan(epochs=2), tmp_path / "c.pt"
    model = tiny_network()
    _, whole = fit(model, train, test, config, quiet, lambda state: state.save(file))
    other = tiny_network(seed=1)
    other.register_forward_pre_hook(lambda *_: pytest.fail("there is nothing left to compute"))
    _, history = fit(
        other, train, test, config, quiet, lambda state: pytest.fail("there is nothing new to keep"), Checkpoint.load(file)
    )
    assert history.records == whole.records
    assert (history.config, history.planned, history.complete) == (whole.config, 2, True)
    assert same_weights(other.state_dict(), model.state_dict())
    assert (history.predictions.logits == whole.predictions.logits).all()
    assert history.predictions.labels is test.labels
    assert history.predictions.classes == ("red", "green", "blue")


def test_a_finished_checkpoint_is_refused_for_a_longer_run(tmp_path: Path) -> None:
    train, test, file = colored_images(24), colored_images(6), tmp_path / "c.pt"
    fit(tiny_network(), train, test, plan(epochs=1), quiet, lambda state: state.save(file))
    other = tiny_network(seed=1)
    with pytest.raises(ValueError, match=r"a finished run .*train from the start"):
        fit(other, train, test, plan(epochs=2), quiet, resume=Checkpoint.load(file))
    assert same_weights(other.state_dict(), tiny_network(seed=1).state_dict())


@pytest.mark.parametrize("saved", [{}, {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9}])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_goes_on_in_another_precision(precision: str, saved: dict[str, Any]) -> None:
    model, states = tiny_network(), []
    fit(model, colored_images(24), colored_images(6), plan(epochs=2), quiet, lambda state: states.append(copy.deepcopy(state)))
    config = plan(epochs=2, precision=precision)
    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, 6))
    scaler = {**saved, "_growth_tracker": 4} if saved else {}
    training._restore(step, dataclasses.replace(states[0], scaler=scaler))
    scale = 1.0 if precision == "fp32" else 1024.0 if saved else 65_536.0  # none; as it was; a new one
    assert step.scaler.get_scale() == scale
    assert step.scheduler.last_epoch == 3


# ---- other parts -----------------------------------------------------------------------------------------------------


def test_bf16_is_close_to_fp32_and_keeps_the_weights_in_fp32() -> None:
    train, test = colored_images(24), colored_images(9, seed=1)
    histories, models = {}, {}
    for precision in ("fp32", "bf16"):
        models[precision] = tiny_network()
        histories[precision] = fit(
            models[precision], train, test, plan(epochs=2, max_lr=0.05, precision=precision), quiet
        ).history
    assert all(parameter.dtype == torch.float32 for parameter in models["bf16"].parameters())
    for exact, rounded in zip(histories["fp32"].records, histories["bf16"].records, strict=True):
        for name in ("train_loss", "test_loss"):
            # bf16 has 8 significant bits: each product is off by up to 2**-9 = 0.2 %, a loss by no more than 1 %
            assert getattr(rounded, name) == pytest.approx(getattr(exact, name), rel=0.01)
            assert getattr(rounded, name) != getattr(exact, name)
    assert histories["bf16"].predictions.logits.dtype == np.float32


def test_evenly_spread_images_keep_the_share_of_each_class() -> None:
    labels = np.repeat(np.arange(3), 10)
    ordered = dataclasses.replace(colored_images(30), labels=labels)
    spread = training._evenly_spread(ordered, 6)
    assert spread.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert training._evenly_spread(ordered, None) is ordered
    assert training._evenly_spread(ordered, 30) is ordered
    assert training._evenly_spread(ordered, 31) is ordered
