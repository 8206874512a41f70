"""The range test: suggestions worked out by hand, and nothing of the caller's changed by it."""

import copy
import importlib
import math
import random
import sys
import types
import warnings
from contextlib import nullcontext
from typing import Any

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MEAN, STD, colored_images, plan as tiny_plan, tiny_network
from torch import Tensor, nn

from era_support_packages.datasets.batches import shuffled_order
from era_support_packages.training import lr_finder
from era_support_packages.training.config import PreparedConfig
from era_support_packages.training.lr_finder import RangeTest, choose_max_lr, range_test, smooth, suggest
from era_support_packages.training.setup import build_optimizer

TRAIN, TWO, HUNDRED = colored_images(60), ((8, 0.5), (16, 0.5)), {"range_test_iterations": 100}


def plan(**changes: Any) -> PreparedConfig:
    """A plain run on the CPU, long enough for the full number of iterations."""
    return tiny_plan(**{"train_images": 10_000, "max_lr": 0.1, "range_test_iterations": 20, **changes})


# steepest by central differences, before the minimum; the valley a third and half of a third from the start of the longest fall
SUGGESTED: list[tuple[list[float], tuple[float, float, float]]] = [
    # steepest at index 7, (1.0 - 1.85) / 2; the fall from index 0 to 9: a third is 3, half of that 1, so index 0 + 3 + 1
    ([2.3, 2.29, 2.28, 2.2, 2.0, 1.9, 1.85, 1.2, 1.0, 0.9, 1.4, 3.0], (1e-1, 1e-4, 1.0)),
    # the same: values that are not finite are left out
    ([2.3, 2.29, 2.28, 2.2, 2.0, 1.9, 1.85, 1.2, 1.0, 0.9, 1.4, 3.0, np.nan, np.inf, -np.inf], (1e-1, 1e-4, 1.0)),
    # the fall from 9.0 to 1.35 is the steepest of all, but comes after the minimum at index 5
    ([2.3, 2.2, 1.9, 1.5, 1.4, 1.3, 9.0, 1.35, 1.4, 1.5, 1.6, 1.7], (1e-6, 1e-7, 1e-4)),
    # over the logarithm of the rate: -0.1, -0.7, -1.0, -0.35; over the rate itself the first would be the steepest
    ([4.0, 3.8, 2.6, 1.8, 1.9], (1e-6, 1e-7, 1e-6)),
    # the longest fall skips values, 3.0 2.5 2.0 1.6 1.4 1.0 0.5 (or with 2.6, 2.1), and ends at index 9: 3 + 6 // 3 + 1
    ([1.5, 3.0, 2.5, 2.6, 2.0, 2.1, 1.6, 1.4, 1.0, 0.5, 4.0, 5.0], (1.0, 1e-2, 1.0)),
    # a longer fall after the loss has exploded
    ([2.3, 2.2, 2.0, 1.8, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.5], (1e-6, 1e-7, 1e-6)),
]


@pytest.mark.parametrize(("losses", "expected"), SUGGESTED)
def test_suggestions_by_hand(losses: list[float], expected: tuple[float, float, float]) -> None:
    found = suggest(10.0 ** (np.arange(len(losses)) - 8), np.array(losses))  # index i is 1e-8 * 10**i
    assert tuple(found) == lr_finder.SUGGESTIONS == ("steepest", "valley", "minimum/10")
    assert tuple(found.values()) == pytest.approx(expected)
    assert all(type(value) is float for value in found.values())


NAN = float("nan")
LRS = 10.0 ** np.arange(-8, 4)


@pytest.mark.parametrize(
    "losses", [[*range(1, 13)], [2.0] * 12, [2.0, *[NAN] * 11], [2.0, 1.0, *[NAN] * 10], [NAN] * 12], ids=repr
)
def test_a_curve_that_never_falls_suggests_nothing(losses: list[float]) -> None:
    assert suggest(LRS, np.array(losses)) == suggest(np.empty(0), np.empty(0)) == {}
    result = RangeTest(LRS, losses, losses, {})
    assert result.listed == "no suggestion"
    assert result.reading().endswith("the loss never fell, so that the test suggests nothing.")
    assert result.table().rows == ()
    for name in lr_finder.SUGGESTIONS:
        with pytest.raises(ValueError, match=r"^The loss never fell in the range test, .*; give max_lr as a number\.$"):
            result.suggestion(name)


SUGGESTIONS = {"steepest": 0.125, "valley": 0.03125, "minimum/10": 0.5}
RESULT = RangeTest(LRS, LRS, LRS, SUGGESTIONS)


def test_suggestion_by_name() -> None:
    assert RESULT.suggestion() == RESULT.suggestion("valley") == 0.03125
    assert {name: RESULT.suggestion(name) for name in SUGGESTIONS} == dict(RESULT.table().rows) == SUGGESTIONS
    assert RESULT.listed == "steepest 0.125, valley 0.0312, minimum/10 0.5"
    assert RESULT.reading().endswith(f" suggests a peak learning rate of {RESULT.listed}.")
    with pytest.raises(ValueError, match=r"^suggestion is 'lowest'; choose one of 'steepest', 'valley', 'minimum/10'\.$"):
        RESULT.suggestion("lowest")


def test_choose_max_lr_takes_the_valley_or_keeps_a_number() -> None:
    config, sentence = choose_max_lr(plan(max_lr="auto"), RESULT)
    assert config == plan(max_lr="auto").resolved(0.03125)
    assert sentence == f"max_lr = 0.0312, the range test's suggestion 'valley' (all: {RESULT.listed})."
    config, sentence = choose_max_lr(plan(max_lr=0.2), RESULT)
    assert config == plan(max_lr=0.2)
    assert sentence == f"max_lr = 0.2 is given, so the range test is only shown for comparison: {RESULT.listed}."
    with pytest.raises(ValueError, match="never fell"):
        choose_max_lr(plan(max_lr="auto"), RangeTest(LRS, LRS, LRS, {}))


@pytest.mark.parametrize(
    ("length", "deviation", "tolerance"),
    [(121, 121 / 40, 1e-4), (9, 1.0, 1e-9)],  # scipy cuts the bell at four standard deviations; one step at least
)
def test_smoothing_is_a_centered_gaussian(length: int, deviation: float, tolerance: float) -> None:
    losses, offsets = np.ones(length), np.arange(length) - length // 2
    losses[length // 2] = 1.5
    weights = np.exp(-(offsets**2) / (2 * deviation**2))
    assert smooth(losses) == pytest.approx(1 + 0.5 * weights / weights.sum(), abs=tolerance)


def test_an_explosion_is_cut_at_twice_the_first_loss() -> None:
    falling = np.linspace(2.0, 1.0, 60)
    exploded = np.append(falling, [1e6] * 5)
    assert smooth(exploded).tolist() == smooth(np.append(falling, [4.0] * 5)).tolist()
    assert smooth(exploded)[:50] == pytest.approx(smooth(falling)[:50], abs=1e-2)
    assert exploded[-1] == 1e6  # the measured losses stay as they are


@pytest.mark.parametrize("losses", [[], [2.5], [2] * 7], ids=repr)
def test_smoothing_takes_any_length(losses: list[float]) -> None:
    assert smooth(losses).dtype == np.float64
    assert smooth(losses) == pytest.approx(np.array(losses))


def test_learning_rates_grow_exponentially_and_losses_are_those_of_real_steps() -> None:
    train, model = TRAIN, tiny_network()
    config = plan(label_smoothing=0.1, weight_decay=0.01, momentum=0.9, range_test_iterations=16, seed=3)
    result = range_test(model, train, 30, config, start_lr=1e-3, end_lr=0.1)
    assert result.lrs == pytest.approx(0.001 * 100 ** (np.arange(16) / 15))
    assert result.lrs.dtype == result.losses.dtype == result.smoothed.dtype == np.float64
    assert result.smoothed.tolist() == smooth(result.losses).tolist()
    assert result.suggestions == suggest(result.lrs, result.smoothed)

    twin = copy.deepcopy(model).train()
    order = np.concatenate([shuffled_order(60, 3, number) for number in range(3)])
    weights, plain = [twin.conv.weight, twin.linear.weight], [twin.norm.weight, twin.norm.bias, twin.linear.bias]
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], 0.1, momentum=0.9, nesterov=True
    )
    losses = []
    for step, lr in enumerate(result.lrs):
        indices = order[8 * step : 8 * step + 8]
        scaled = (train.images[indices] / 255 - np.array(MEAN)) / np.array(STD)
        images = torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = F.cross_entropy(twin(images), torch.from_numpy(train.labels[indices]), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result.losses == pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize("max_lr", [0.2, "auto"])
def test_the_groups_rise_in_the_proportions_of_the_recipe(max_lr: float | str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []

    def watched(model: nn.Module, config: PreparedConfig) -> torch.optim.Optimizer:
        optimizer = build_optimizer(model, config)
        optimizer.register_step_post_hook(lambda own, *_: rates.append([group["lr"] for group in own.param_groups]))
        return optimizer

    monkeypatch.setattr(lr_finder, "build_optimizer", watched)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), *tiny_network(width=4)[2:])
    network.insert(1, nn.Conv2d(4, 4, 1, bias=False))
    config = plan(optimizer="muon", muon_lr=0.25, max_lr=max_lr, norm_bias_lr=16, range_test_iterations=16)
    result = range_test(network, colored_images(60), 30, config, start_lr=1e-3, end_lr=0.1)
    steps = np.array(rates)[-len(result.lrs) :]  # the first ones were timed
    assert steps == pytest.approx(np.outer(result.lrs, [1, 1, 16, 0.25]))


class Watched(nn.Module):
    """Notes the size of each batch, also of its copies', and does as told from its n-th training step on."""

    def __init__(self, from_step: int = 10**9, drop: float = 0.0, action: str = "nan") -> None:
        super().__init__()
        self.network, self.from_step, self.action, self.steps = tiny_network(drop=drop), from_step, action, 0
        Watched.shapes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        Watched.shapes.append(tuple(images.shape))
        self.steps += 1
        logits = self.network(images)
        if self.steps < self.from_step:
            return logits
        if self.action == "raise":
            raise RuntimeError("out of memory, midway")
        return logits * {"nan": math.nan, "inf": math.inf, "explode": 100}[self.action]


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that the range test might have changed."""
    return {
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
        "flags": [(name, module.training) for name, module in model.named_modules()],
        "gradients": [(name, parameter.grad.tolist(), parameter.requires_grad) for name, parameter in model.named_parameters()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "steps": model.steps,
        "figures": matplotlib.pyplot.get_fignums(),
        "matplotlib": (matplotlib.get_backend(), dict(matplotlib.rcParams)),
    }


AUGMENTED = {"horizontal_flip": 0.5, "shift_scale_rotate": 0.5, "brightness_contrast": 0.5, "crop_padding": 1, "cutout": 2}


@pytest.mark.parametrize("step", [10**9, 1, 9], ids=["all goes well", "failing in the timing", "failing in the test"])
def test_nothing_of_the_callers_changes(step: int) -> None:
    model = Watched(from_step=step, drop=0.5, action="raise").eval()  # flags, buffers and gradients are unlike a new one's
    model.network.linear.train()
    model.network.drop.train()
    model.network.norm.running_mean.fill_(0.7)
    model.network.norm.num_batches_tracked.fill_(41)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    model.network.conv.weight.requires_grad_(False)
    before = snapshot(model)
    with nullcontext() if step > 9 else pytest.raises(RuntimeError, match="out of memory, midway"):
        range_test(model, TRAIN, 30, plan(**AUGMENTED), end_lr=1e-2)
    assert len(model.shapes) > 20 or step < 10  # it really ran
    assert snapshot(model) == before


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(("action", "step"), [("nan", 8), ("inf", 8), ("nan", 1)])
def test_a_loss_that_is_not_a_number_stops_the_test(action: str, step: int) -> None:
    model = Watched(from_step=step, action=action)
    result = range_test(model, TRAIN, 30, plan(range_test_iterations=30), end_lr=1e-2)
    assert len(model.shapes) == step
    assert result.lrs == pytest.approx(1e-4 * 100 ** (np.arange(step - 1) / 29))
    assert result.losses.shape == result.smoothed.shape == (step - 1,)
    assert np.isfinite([*result.losses, *result.smoothed]).all()
    assert step > 1 or result.suggestions == {}


@pytest.mark.usefixtures("instant")
def test_an_exploding_loss_stops_the_test() -> None:
    model = Watched(from_step=10, action="explode")
    result = range_test(model, TRAIN, 30, plan(range_test_iterations=30))
    assert len(result.losses) == len(model.shapes) < 30
    assert result.losses[-1] > 5 * result.losses.min()
    assert np.isfinite(result.losses).all()


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(
    ("images", "test_size", "changes", "iterations", "shape"),
    [
        # a fifth of (400 + 156 / 3) images in batches of two is 45.2
        (400, 156, {"train_images": 400, "batch_size": 2, **HUNDRED}, 45, (2, 8)),
        # at 16 px an image costs four of the first resolution's: 5 * 200 + 5 * 159 / 3 = 1265, in batches of four
        (400, 159, {"train_images": 400, "batch_size": 4, **HUNDRED, "resolutions": TWO}, 63, (4, 8)),
        (400, 156, {"train_images": 400, "batch_size": 2, "range_test_iterations": 30}, 30, (2, 8)),
        (400, 156, {"train_images": 40, "batch_size": 2, **HUNDRED}, 20, (2, 8)),  # never below 20
        (400, 156, {"train_images": 40, "batch_size": 2, "range_test_iterations": 16}, 16, (2, 8)),  # but no more than asked for
        (60, 30, {"resolutions": ((12, 0.5), (16, 0.5))}, 20, (8, 12)),  # at the first resolution of the plan
        (6, 3, {"batch_size": 32}, 20, (6, 8)),  # a split of fewer images than a batch is one batch
    ],
)
def test_on_a_cpu_it_takes_at_most_a_fifth_of_the_run(
    images: int, test_size: int, changes: dict[str, Any], iterations: int, shape: tuple[int, int]
) -> None:
    model = Watched()
    result = range_test(model, colored_images(images), test_size, plan(**changes), end_lr=1e-2)
    assert len(result.lrs) == len(result.losses) == len(model.shapes) == iterations
    assert set(model.shapes) == {(shape[0], 3, shape[1], shape[1])}
    assert result.lrs[-1] == pytest.approx(1e-2)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (-1e-4, 1), (1, 1), (2, 1), (math.nan, 1), (1e-4, math.nan)])
def test_a_bad_range_is_refused(start: float, end: float) -> None:
    model = Watched()
    with pytest.raises(ValueError, match=f"^The range is {start!r} to {end!r}; give 0 < start_lr < end_lr"):
        range_test(model, TRAIN, 3, plan(), start_lr=start, end_lr=end)
    assert model.shapes == []


def test_it_prints_nothing_and_warns_of_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # as in a notebook without ipywidgets, where importing the library warns
    notebook = types.ModuleType("IPython")
    notebook.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", types.ModuleType("ipykernel.zmqshell"))
    monkeypatch.setattr("tqdm.notebook.IProgress", None)

    def forget() -> None:
        for name in [name for name in sys.modules if name.startswith(("torch_lr_finder", "tqdm.autonotebook"))]:
            monkeypatch.delitem(sys.modules, name)

    forget()
    with pytest.warns(match="IProgress not found"):
        importlib.import_module("torch_lr_finder")
    forget()
    capsys.readouterr()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        range_test(tiny_network(), TRAIN, 30, plan(), end_lr=1e-2)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.lstrip("\r").startswith("range test:")  # the bar
    assert "Learning rate search finished" not in output.err
    from torch_lr_finder import lr_finder as library

    assert library.tqdm is sys.modules["tqdm.autonotebook"].tqdm  # the library's own bar and lines stay as they are
    assert not hasattr(library, "print")


@pytest.mark.usefixtures("instant")
def test_bf16_gives_losses_close_to_fp32() -> None:
    results = {
        precision: range_test(tiny_network(), TRAIN, 30, plan(precision=precision), end_lr=0.1) for precision in ("fp32", "bf16")
    }
    # 8 significant bits: each loss is off by up to about 1 %
    assert results["bf16"].losses == pytest.approx(results["fp32"].losses, rel=0.02)
    assert (results["bf16"].losses != results["fp32"].losses).any()
