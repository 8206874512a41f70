"""The last layer first, norms that hold, AdamW, and the mean of the last weights: exact, and resumed bit for bit."""

import copy
import dataclasses

import numpy as np
import pytest
import several_jobs as jobs
import torch
from several import in_processes
from tiny import MEAN, STD, colored_images, plan, quiet, tiny_network
from torch.testing import assert_close

from era_support_packages.datasets import load
from era_support_packages.training import TrainingConfig, finetune, fit, prepare_config, range_test
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.cost import flops_per_image, predicted_seconds, training_flops
from era_support_packages.training.lr_finder import choose_max_lr
from era_support_packages.training.phases import Phases, WeightAverage, body_held
from era_support_packages.training.setup import build_optimizer

pytestmark = [pytest.mark.unhurried, pytest.mark.usefixtures("long_enough", "instant")]
TRAIN, TEST = colored_images(24), colored_images(9, split="test", seed=1)
RECIPE = {"optimizer": "adamw", "max_lr": 0.01, "head_lr": 10.0, "head_first": 0.34, "freeze_norms": True, "average": 0.3}


def states_of(config, model=None, train=TRAIN, **more):
    """The states that a run keeps after each epoch, and its network."""
    model, states = model or tiny_network(drop=0.3), []
    fit(model, train, TEST, config, quiet, lambda state: states.append(copy.deepcopy(state)), **more)
    return states, model


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ({"epochs": 4, "head_first": 0.25}, [(24, True), *[(24, False)] * 3]),
        ({"epochs": 4, "head_first": 0.01}, [(24, True), *[(24, False)] * 3]),  # one pass at least
        ({"epochs": 2, "head_first": 0.9}, [(24, True), (24, False)]),  # and never all of them
        ({"epochs": 1, "head_first": 0.9}, [(24, False)]),
        ({"epochs": 2}, [(24, False)] * 2),
        ({"train_images": 80, "head_first": 0.5}, [(24, True), (16, True), (24, False), (16, False)]),
        (
            {"train_images": 80, "head_first": 0.25, "resolutions": ((8, 0.5), (16, 0.5))},
            [(20, True), (20, False), (24, False), (16, False)],
        ),
    ],
)
def test_the_first_epochs_are_those_of_the_last_layer(values, rows):
    planned = plan(**values).planned_epochs(24)
    assert [(epoch.images, epoch.head_only) for epoch in planned] == rows
    assert [epoch.start for epoch in planned] == [sum(images for images, _ in rows[:number]) for number in range(len(rows))]


def test_the_last_layer_learns_alone_and_norms_hold_what_they_came_with():
    start = tiny_network(drop=0.3).state_dict()
    states, model = states_of(plan(epochs=3, **RECIPE))
    first, second = states[0].model, states[1].model
    moved = {name for name in start if not torch.equal(start[name], first[name])}
    assert moved == {"linear.weight", "linear.bias"}
    assert {name for name in start if not torch.equal(start[name], second[name])} == {
        *moved,
        "conv.weight",
        "norm.weight",
        "norm.bias",
    }
    assert all(parameter.requires_grad for parameter in model.parameters())
    free, _ = states_of(plan(epochs=2, **{**RECIPE, "freeze_norms": False}))
    assert torch.equal(free[0].model["norm.running_mean"], start["norm.running_mean"])  # a body that does not learn
    assert not torch.equal(free[1].model["norm.running_mean"], start["norm.running_mean"])


def test_adamw_has_the_last_layer_in_groups_of_its_own():
    config = plan(weight_decay=0.05, **RECIPE)
    groups = build_optimizer(tiny_network(), config).param_groups
    found = [(len(group["params"]), round(group["lr"], 6), group["weight_decay"]) for group in groups]
    assert found == [(1, 0.01, 0.05), (1, 0.01, 0.0), (1, 0.01, 0.0), (1, 0.1, 0.05), (1, 0.1, 0.0)]
    assert groups[0]["betas"] == (0.9, 0.999)
    plain = build_optimizer(tiny_network(), plan(optimizer="adamw")).param_groups
    assert [len(group["params"]) for group in plain] == [2, 2, 1]  # as before there was a rate for the last layer


def test_each_part_has_a_schedule_of_its_own():
    phases = Phases(tiny_network(), plan(epochs=3, warmup=0.5, **RECIPE), plan(epochs=3, **RECIPE).planned_epochs(24))
    for epoch, steps in ((phases.planned[0], 3), (phases.planned[1], 6)):
        step = phases.step_for(epoch)
        assert step is phases.step_for(epoch)
        assert step.scheduler.total_steps == steps
        rates = []
        for _ in range(steps):
            rates.append(step.rate)
            step.optimizer.step()
            step.scheduler.last_epoch < steps - 1 and step.scheduler.step()
        peak = 0.1 if epoch.head_only else 0.01
        assert (rates[0], max(rates)) == pytest.approx((0.04 * peak, peak))
        assert rates[-1] == pytest.approx(4e-6 * peak)
    phases.close()


def test_the_run_ends_with_the_mean_of_its_last_weights():
    config = plan(epochs=3, threads=1, **{**RECIPE, "average": 0.5})  # of 9 steps the last 4
    weights = []
    torch.manual_seed(0)
    model = tiny_network()
    model.register_forward_pre_hook(
        lambda module, _: weights.append(module.conv.weight.detach().clone()) if module.training else None
    )
    plain = tiny_network()
    fit(plain, TRAIN, TEST, config.replace(average=0.0), quiet)
    fit(model, TRAIN, TEST, config, quiet)
    mean = torch.stack([*weights[-3:], plain.conv.weight.detach()]).mean(0)  # before each step but the first of them, and the end
    assert_close(model.conv.weight.detach(), mean)


def test_an_average_begins_after_the_last_layers_own_steps():
    config = plan(epochs=3, **{**RECIPE, "average": 1.0})
    assert WeightAverage(tiny_network(), config, config.planned_epochs(24)).first == 3


@pytest.mark.parametrize(
    "change", [{}, {"freeze_norms": False}, {"optimizer": "sgd"}, {"optimizer": "muon"}, {"precision": "bf16"}]
)
def test_a_run_goes_on_bit_for_bit_from_either_part(change, tmp_path):
    config = plan(epochs=4, threads=1, crop_padding=1, **{**RECIPE, "head_first": 0.5, "average": 0.4, **change})
    states, model = states_of(config)
    for done in (1, 2, 3):
        states[done - 1].save(tmp_path / "checkpoint.pt")
        other = tiny_network(drop=0.3, seed=done)
        again, _ = states_of(config, other, resume=Checkpoint.load(tmp_path / "checkpoint.pt"))
        assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
        rows = [[dataclasses.replace(row, seconds=0) for row in run[-1].records] for run in (again, states)]
        assert rows[0] == rows[1]
    assert states[2].average is not None
    assert (states[3].average, states[3].optimizer) == (None, None)


def test_a_held_body_costs_a_third_and_less_work():
    model = tiny_network()
    whole, head = (flops_per_image(model, 8, head_only) for head_only in (False, True))
    conv = 2 * 8 * 8 * 27 * 8  # of the forward pass; its weight's gradient costs as much, and the images take none
    linear = 2 * 8 * 3
    assert (whole, head) == (2 * conv + 3 * linear, conv + 2 * linear)
    config = plan(epochs=2, head_first=0.5, freeze_norms=True)
    assert training_flops(model, config, config.planned_epochs(24), 24) == 24 * (whole + head)
    assert predicted_seconds(config, config.planned_epochs(24), 0, 3.0) == pytest.approx(24 * 3 * (1 + 1 / 3), rel=0.02)
    with body_held(model):
        assert [name for name, value in model.named_parameters() if value.requires_grad] == ["linear.weight", "linear.bias"]


def test_the_range_test_tries_what_the_run_will_do():
    config = plan(train_images=1200, threads=1, **{**RECIPE, "max_lr": "auto"})
    model, train = tiny_network(), colored_images(120)
    before = copy.deepcopy(model.state_dict())
    result = range_test(model, train, len(TEST), config)
    assert (result.lrs[0], result.lrs[-1]) == pytest.approx((1e-6, 0.1), rel=0.3)
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    found, _ = choose_max_lr(config, result)
    assert found.max_lr in result.trials.losses


@pytest.mark.parametrize(("shown", "device", "preset"), [(10_000, "cpu", "finetune"), (30_000, "cpu", "scratch")])
def test_how_many_images_are_shown_where_that_is_open(shown, device, preset):
    train, _ = load("digits")
    config = prepare_config(TrainingConfig.preset(preset, device=device), train)
    assert config.train_images == shown
    assert TrainingConfig.preset(preset).differences(config) == []
    assert {epoch.head_only for epoch in config.planned_epochs(len(train))} == (
        {True, False} if preset == "finetune" else {False}
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"pretrained": False},
            "preset 'finetune' starts from pretrained weights, and pretrained is False: give preset='scratch'",
        ),
        ({"model": "ResNet34"}, "and there are none of 'ResNet34': set model to one of torchvision's or timm's"),
    ],
)
def test_finetune_needs_weights(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainingConfig.preset("finetune", **values)
    assert TrainingConfig.preset("finetune", weights="w.pth", **values).weights == "w.pth"


def test_a_network_by_hand_gets_a_head_and_its_own_statistics():
    network = tiny_network(classes=7)
    values = {"train_images": 96, "batch_size": 8, "max_lr": 0.02, "device": "cpu", "validation": 0.25, "seed": 3}
    classifier, history = finetune(network, TRAIN, TEST, mean=(0.1, 0.2, 0.3), std=STD, report=quiet, **values)
    assert (classifier.network, classifier.classes, classifier.model) == (network, TRAIN.classes, None)
    assert (classifier.mean, classifier.std, network.linear.out_features) == ((0.1, 0.2, 0.3), STD, 3)
    assert (history.complete, history.watched, history.judged) == (True, "validation", "test")
    assert history.predictions.accuracy > 90


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mean": (0.1, 0.2)}, r"mean is \(0.1, 0.2\) and std"),
        ({"mean": (124, 116, 104)}, "give three numbers each, those of mean from 0 to 1"),
        ({"model": "torchvision/resnet18"}, "model names another network than the one that is given: leave it out"),
    ],
)
def test_what_cannot_be_right_of_a_network_by_hand_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        finetune(tiny_network(), TRAIN, TEST, **{"mean": MEAN, "std": STD, "report": quiet, **values})
    with pytest.raises(TypeError, match="'mean' and 'std'"):
        finetune(tiny_network(), TRAIN, TEST)


def test_two_processes_finetune_as_one_does():
    """Without batch norm the halves make no difference; the body is held, then let go, then averaged."""
    wanted = jobs.alone(jobs.tuned)
    for found in in_processes(2, jobs.tuned):
        assert [row.train_loss for row in found["rows"]] == pytest.approx([row.train_loss for row in wanted["rows"]], abs=1e-5)
        for name, values in wanted["state"].items():
            np.testing.assert_allclose(found["state"][name], values, atol=2e-5, err_msg=name)
