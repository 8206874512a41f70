"""What follows from a configuration: network, optimizer, schedule, batches, and a step with them."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MEAN, STD, colored_images, plan, tiny_network
from torch import nn
from torch.testing import assert_close

from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import shuffled_order
from era_support_packages.models.custom_resnet import CustomResNet
from era_support_packages.models.resnet import ResNet
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.muon import MuonWithSGD
from era_support_packages.training.setup import augmentation_policy, build_batches, build_model, build_optimizer, build_scheduler
from era_support_packages.training.sgd import SGD
from era_support_packages.training.step import TrainingStep


def test_the_network_of_that_name_has_the_same_weights_for_the_same_seed() -> None:
    config = plan(model="resnet_custom", seed=5)
    one = build_model(config, 7)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = build_model(config, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(one, CustomResNet)
    assert one.linear.weight.shape == (7, 512)
    assert one.prep[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    different = build_model(config.replace(seed=6), 7)
    assert not torch.equal(one.prep[0].weight, different.prep[0].weight)
    assert not torch.equal(one.linear.weight, different.linear.weight)
    assert isinstance(build_model(plan(model="ResNet18"), 10), ResNet)


def two_convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("muon", "momentum", "decay"),
    [(False, 0.6, 0.0), (False, 0.0, 0.03), (True, 0.6, 0.0), (True, 0.6, 0.03)],  # decay: of norms and biases
)
def test_groups_of_the_optimizer(muon: bool, momentum: float, decay: float) -> None:
    model, rates = two_convolutions(), {"max_lr": 0.5, "muon_lr": 0.4, "norm_bias_lr": 16, "momentum": momentum}
    values = {"optimizer": "muon" if muon else "sgd", "weight_decay": 0.03, "decay_norms_and_biases": decay > 0}
    config = plan(**rates, **values)
    optimizer = build_optimizer(model, config)
    assert type(optimizer) is (MuonWithSGD if muon else SGD)
    assert all((group["momentum"], group["nesterov"]) == (momentum, momentum > 0) for group in optimizer.param_groups)
    names = {parameter: name for name, parameter in model.named_parameters()}
    expected = [
        (["0.weight", "3.weight"] if muon else ["0.weight", "1.weight", "3.weight"], 0.5, 0.03, False),
        (["2.weight", "3.bias"], 0.5, decay, False),
        (["2.bias"], 8.0, decay, False),
        *([(["1.weight"], 0.2, 0.0, True)] if muon else []),  # what Muon turns keeps its length
    ]
    assert [
        ([names[one] for one in group["params"]], group["lr"], group["weight_decay"], group.get("orthogonal", False))
        for group in optimizer.param_groups
    ] == expected
    scheduled = build_scheduler(optimizer, config, 10).optimizer.param_groups
    assert [group["max_lr"] for group in scheduled] == [lr for _, lr, *_ in expected]


@pytest.mark.parametrize(("most", "turned"), [(10**6, ["1.weight", "3.weight"]), (5, ["1.weight"]), (4, [])])
def test_convolutions_of_more_outputs_than_muon_turns_go_by_sgd_with_its_weight_decay(most: int, turned: list[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Conv2d(5, 6, 1))
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optimizer(model, plan(optimizer="muon", muon_outputs=most, weight_decay=0.03)).param_groups
    found = [[names[one] for one in group["params"]] for group in groups if group["orthogonal"]]
    assert found == ([turned] if turned else [])
    decayed = [names[one] for group in groups if group["weight_decay"] == 0.03 for one in group["params"]]
    assert decayed == [name for name in ("0.weight", "1.weight", "3.weight") if name not in turned]


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_a_first_step_that_a_gradient_scaler_skips_leaves_no_trace(optimizer: str) -> None:
    """PyTorch's fused SGD allocates its momentum then and does not set it."""
    torch.manual_seed(0)
    model, images = two_convolutions()[:3].eval(), torch.rand(2, 3, 8, 8)
    twin = copy.deepcopy(model)
    for network, factors in ((model, (math.inf, 1.0)), (twin, (1.0,))):
        own, scaler = build_optimizer(network, plan(optimizer=optimizer)), torch.amp.GradScaler("cpu", init_scale=2.0)
        for factor in factors:
            own.zero_grad()
            scaler.scale((network(images) * factor).pow(2).sum()).backward()
            scaler.step(own)
            scaler.update()
    assert_close(dict(model.named_parameters()), dict(twin.named_parameters()), rtol=0, atol=0)


def test_compile_runs_the_compiled_network_while_training_and_leaves_the_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # "compiled", a network gives twice its logits, so that it shows which of the two ran
    monkeypatch.setattr(torch, "compile", lambda model: lambda images: 2 * model(images))
    images, labels = torch.ones(2, 3, 8, 8), torch.tensor([0, 1])
    for choice, factor in ((False, 1), (True, 2)):
        model = tiny_network()
        step = TrainingStep(model, build_optimizer(model, plan()), plan(compile=choice))
        assert step.model is model
        expected = F.cross_entropy(factor * tiny_network().train()(images), labels).item()
        assert step(images, labels)[0].item() == pytest.approx(expected)


def learning_rates(config: ResolvedConfig, steps: int) -> np.ndarray:
    """The learning rates (steps, groups) of that many real training steps."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, steps))
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        step(torch.ones(2, 3, 2, 2), torch.tensor([0, 1]))
    return np.array(rates)


@pytest.mark.parametrize(
    ("changes", "steps", "corners", "rates"),
    [  # from max_lr * warmup_start to max_lr at step steps * warmup - 1, then to max_lr / 250,000 at the last step
        ({"max_lr": 2.0, "warmup": 0.25}, 12, [0, 2, 11], [0.08, 2.0, 8e-6]),
        ({"max_lr": 0.5, "warmup": 0.5, "norm_bias_lr": 16}, 4, [0, 1, 3], [0.02, 0.5, 2e-6]),
        ({"max_lr": 2.0, "warmup": 0.5, "warmup_start": 1e-4}, 12, [0, 5, 11], [2e-4, 2.0, 8e-6]),
        ({"max_lr": 2.0, "warmup": 0.5, "warmup_start": 1}, 12, [0, 5, 11], [2.0, 2.0, 8e-6]),
        ({"max_lr": 0.2, "warmup": 0.2, "warmup_start": 0.2}, 260, [0, 51, 259], [0.04, 0.2, 8e-7]),  # as published
    ],
)
def test_the_rate_rises_to_max_lr_during_the_warmup_and_falls_to_zero(
    changes: dict[str, float], steps: int, corners: list[int], rates: list[float]
) -> None:
    expected = np.interp(np.arange(steps), corners, rates)
    shares = [1, 1, changes.get("norm_bias_lr", 1)]  # the biases of batch norm are the last group
    assert learning_rates(plan(**changes), steps) == pytest.approx(np.outer(expected, shares))


@pytest.mark.parametrize("anneal", ["linear", "cos"])
def test_the_schedule_is_pytorchs_to_the_last_bit(anneal: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.4, 40, pct_start=0.25, anneal_strategy=anneal)
    theirs = []
    for _ in range(40):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert learning_rates(plan(max_lr=0.4, anneal=anneal), 40)[:, 0].tolist() == theirs


@pytest.mark.parametrize("anneal", ["linear", "cos"])
@pytest.mark.parametrize("warmup", [0, 0.25, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_schedule_works_for_the_shortest_runs(steps: int, warmup: float, anneal: str) -> None:
    rates = learning_rates(plan(max_lr=1.0, warmup=warmup, anneal=anneal), steps)[:, 0]
    assert rates[0] == pytest.approx(0.04)
    assert rates.min() > 0
    assert rates.max() == pytest.approx(1.0 if steps > 1 else 0.04)
    if steps > 2:
        assert rates[-1] == pytest.approx(1.0 if warmup == 1 else 4e-6)
        assert warmup == 1 or rates[1] == pytest.approx(1.0)


def test_augmentation_policy_takes_its_values_from_the_configuration() -> None:
    config = plan(horizontal_flip=0.3, crop_padding=2, cutout=4, shift_scale_rotate=0.1, rgb_shift=0.2, brightness_contrast=0.4)
    assert augmentation_policy(config) == AugmentationPolicy(0.3, 2, 4, 0.1, 0.2, 0.4)
    assert augmentation_policy(plan(horizontal_flip=0.5, alternating_flip=True)) == AugmentationPolicy(alternating_flip=True)


def test_build_batches_follows_the_configuration() -> None:
    train = colored_images(20)
    assert build_batches(train, plan()).engine == "device"
    batches = build_batches(train, plan(batch_size=6, seed=9, engine="samples", workers=0))
    assert (batches.batch_size, batches.seed, batches.engine, batches.workers) == (6, 9, "samples", 0)
    assert batches.device == torch.device("cpu")
    images, labels = next(batches.epoch(8, 0, 20))
    order = shuffled_order(20, 9, 0)[:6]
    assert labels.tolist() == train.labels[order].tolist()
    expected = (train.images[order] / 255 - np.array(MEAN)) / np.array(STD)
    assert_close(images, torch.from_numpy(expected.transpose(0, 3, 1, 2).astype(np.float32)))
