"""The range test: suggestions worked out by hand, and nothing of the caller's changed by it."""

import copy
import math
import random
import sys
import types
import warnings
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


def plan(**changes: Any) -> PreparedConfig:
    """A plain run on the CPU, long enough for the full number of iterations."""
    return tiny_plan(**{"train_images": 10_000, "max_lr": 0.1, "range_test_iterations": 20, **changes})


# ---- suggestions -----------------------------------------------------------------------------------------------------

LRS = 10.0 ** np.arange(-8, 4)  # twelve, so that index i is 1e-8 * 10**i
LOSSES = np.array([2.3, 2.29, 2.28, 2.2, 2.0, 1.9, 1.85, 1.2, 1.0, 0.9, 1.4, 3.0])
# steepest: central differences are largest at index 7, (1.0 - 1.85) / 2
# valley: the loss falls from index 0 to 9; a third is 3, half of that 1, so index 0 + 3 + 1
# minimum: index 9
SUGGESTIONS = {"steepest": 1e-1, "valley": 1e-4, "minimum/10": 1.0}


def test_suggestions_by_hand() -> None:
    assert suggest(LRS, LOSSES) == pytest.approx(SUGGESTIONS)
    assert tuple(suggest(LRS, LOSSES)) == lr_finder.SUGGESTIONS == ("steepest", "valley", "minimum/10")
    assert all(type(value) is float for value in suggest(LRS, LOSSES).values())


def test_values_that_are_not_finite_are_ignored() -> None:
    lrs = np.concatenate([LRS, [1e4, 1e5, 1e6]])
    losses = np.concatenate([LOSSES, [np.nan, np.inf, -np.inf]])
    assert suggest(lrs, losses) == pytest.approx(SUGGESTIONS)


def test_steepest_looks_only_before_the_minimum() -> None:
    losses = np.array([2.3, 2.2, 1.9, 1.5, 1.4, 1.3, 9.0, 1.35, 1.4, 1.5, 1.6, 1.7])
    # the fall from 9.0 to 1.35 is the steepest of all, but comes after the minimum at index 5;
    # before it, central differences are largest at index 2, (1.5 - 2.2) / 2; the valley is at index 0 + 5 // 3 + 0
    assert suggest(LRS, losses) == pytest.approx({"steepest": 1e-6, "valley": 1e-7, "minimum/10": 1e-4})


def test_steepest_is_measured_over_the_logarithm_of_the_learning_rate() -> None:
    lrs = np.array([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    losses = np.array([4.0, 3.8, 2.6, 1.8, 1.9])  # over lr itself, the slope would be steepest at the first step
    # over the logarithm: -0.1, -0.7, -1.0, -0.35
    assert suggest(lrs, losses)["steepest"] == pytest.approx(1e-2)


def test_valley_skips_values_and_starts_as_many_steps_before_its_end_as_it_is_long() -> None:
    losses = np.array([1.5, 3.0, 2.5, 2.6, 2.0, 2.1, 1.6, 1.4, 1.0, 0.5, 4.0, 5.0])
    # the longest falling run has seven values, 3.0 2.5 2.0 1.6 1.4 1.0 0.5 (or with 2.6, 2.1), up to index 9: 3 + 6 // 3 + 1
    assert suggest(LRS, losses)["valley"] == pytest.approx(LRS[6])


def test_valley_is_not_in_the_longer_fall_after_the_loss_has_exploded() -> None:
    losses = np.array([2.3, 2.2, 2.0, 1.8, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.5])
    assert suggest(LRS, losses)["valley"] == pytest.approx(LRS[1])  # the fall ends at the minimum, index 3: 0 + 3 // 3 + 0


@pytest.mark.parametrize("start", range(5))
def test_valley_is_in_the_middle_of_a_single_fall(start: int) -> None:
    losses = np.concatenate([np.linspace(1.0, 2.0, start + 1)[:-1], np.linspace(3.0, 0.0, 16), np.linspace(0.5, 9, 10)])
    lrs = np.geomspace(1e-5, 10, len(losses))
    assert suggest(lrs, losses)["valley"] == pytest.approx(lrs[start + 5 + 2])  # index start to start + 15


@pytest.mark.parametrize(
    "losses",
    [
        np.linspace(1.0, 5.0, 12),
        np.full(12, 2.0),
        np.array([2.0, *np.full(11, np.nan)]),
        np.array([2.0, 1.0, *np.full(10, np.nan)]),
        np.full(12, np.nan),
    ],
)
def test_a_curve_that_never_falls_suggests_nothing(losses: np.ndarray) -> None:
    assert suggest(LRS, losses) == {}
    result = RangeTest(LRS, losses, losses, suggest(LRS, losses))
    assert result.listed == "no suggestion"
    assert result.reading().endswith("the loss never fell, so that the test suggests nothing.")
    assert result.table().rows == ()
    for name in lr_finder.SUGGESTIONS:
        with pytest.raises(ValueError, match="never fell") as raised:
            result.suggestion(name)
        message = "The loss never fell in the range test, so it suggests nothing; give max_lr as a number."
        assert str(raised.value) == message


def test_no_losses_at_all_suggest_nothing() -> None:
    assert suggest(np.empty(0), np.empty(0)) == {}


def test_suggestion_by_name() -> None:
    result = RangeTest(LRS, LOSSES, LOSSES, suggest(LRS, LOSSES))
    assert result.suggestion() == result.suggestion("valley") == pytest.approx(1e-4)
    assert result.suggestion("steepest") == pytest.approx(1e-1)
    assert result.suggestion("minimum/10") == pytest.approx(1.0)
    assert result.listed == "steepest 0.1, valley 0.0001, minimum/10 1"
    assert result.reading().endswith(f" suggests a peak learning rate of {result.listed}.")
    assert dict(result.table().rows) == result.suggestions
    with pytest.raises(ValueError, match="suggestion is") as raised:
        result.suggestion("lowest")
    assert str(raised.value) == "suggestion is 'lowest'; choose one of 'steepest', 'valley', 'minimum/10'."


def test_choose_max_lr_takes_the_valley_or_keeps_a_number() -> None:
    result = RangeTest(LRS, LOSSES, LOSSES, {"steepest": 0.125, "valley": 0.03125, "minimum/10": 0.5})
    config, sentence = choose_max_lr(plan(max_lr="auto"), result)
    assert config == plan(max_lr="auto").resolved(0.03125)
    assert sentence == (
        "max_lr = 0.0312, the range test's suggestion 'valley' (all: steepest 0.125, valley 0.0312, minimum/10 0.5)."
    )
    config, sentence = choose_max_lr(plan(max_lr=0.2), result)
    assert config == plan(max_lr=0.2)
    assert sentence == (
        "max_lr = 0.2 is given, so the range test is only shown for comparison: steepest 0.125, valley 0.0312, minimum/10 0.5."
    )
    with pytest.raises(ValueError, match="never fell"):
        choose_max_lr(plan(max_lr="auto"), RangeTest(LRS, LOSSES, LOSSES, {}))


# ---- smoothing -------------------------------------------------------------------------------------------------------


def test_smoothing_is_a_centered_gaussian() -> None:
    losses = np.ones(121)
    losses[60] = 1.5
    offsets = np.arange(-60, 61)
    weights = np.exp(-(offsets**2) / (2 * (121 / 40) ** 2))
    expected = 1 + 0.5 * weights / weights.sum()
    smoothed = smooth(losses)
    assert smoothed == pytest.approx(expected, abs=1e-4)  # scipy cuts the bell at four standard deviations
    assert smoothed == pytest.approx(smoothed[::-1])  # no lag: the response is symmetric about the impulse
    assert smoothed.argmax() == 60
    assert smoothed.sum() == pytest.approx(losses.sum())


def test_smoothing_does_not_shift_a_valley() -> None:
    x = np.linspace(-1, 1, 101)
    assert smooth(1 + x**2).argmin() == 50


def test_short_curves_are_smoothed_over_their_neighbors() -> None:
    losses = np.array([1.0, 1.0, 1.0, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0])
    weights = np.exp(-(np.arange(-4, 5) ** 2) / 2)  # a standard deviation of one step at least
    assert smooth(losses) == pytest.approx(1 + 0.5 * weights / weights.sum(), abs=1e-9)


def test_an_explosion_is_cut_at_twice_the_first_loss() -> None:
    falling = np.linspace(2.0, 1.0, 60)
    exploded, cut = np.append(falling, [1e6] * 5), np.append(falling, [4.0] * 5)
    assert smooth(exploded).tolist() == smooth(cut).tolist()
    assert smooth(exploded).max() <= 4.0
    assert smooth(exploded)[:50] == pytest.approx(smooth(falling)[:50], abs=1e-2)
    assert exploded[-1] == 1e6  # the measured losses stay as they are


def test_smoothing_takes_any_length() -> None:
    assert smooth(np.empty(0)).shape == (0,)
    assert smooth([2.5]).tolist() == [2.5]
    assert smooth(np.full(7, 2)).dtype == np.float64
    assert smooth(np.full(7, 2)) == pytest.approx(np.full(7, 2.0))


# ---- the test itself -------------------------------------------------------------------------------------------------


def test_learning_rates_grow_exponentially_and_losses_are_those_of_real_steps() -> None:
    train, model = colored_images(60), tiny_network()
    config = plan(label_smoothing=0.1, weight_decay=0.01, momentum=0.9, range_test_iterations=16, seed=3)
    result = range_test(model, train, 30, config, start_lr=1e-3, end_lr=0.1)
    assert len(result.lrs) == 16
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
        return logits * {"nan": math.nan, "inf": math.inf}[self.action]


def prepared_model(**how: Any) -> Watched:
    """A network whose flags, buffers and gradients are all unlike a new one's."""
    model = Watched(**how).eval()
    model.network.linear.train()
    model.network.drop.train()
    with torch.no_grad():
        model.network.norm.running_mean.fill_(0.7)
        model.network.norm.num_batches_tracked.fill_(41)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    model.network.conv.weight.requires_grad_(False)
    return model


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


def test_nothing_of_the_callers_changes() -> None:
    model = prepared_model(drop=0.5)
    before = snapshot(model)
    result = range_test(model, colored_images(60), 30, plan(**AUGMENTED), end_lr=1e-2)
    assert len(model.shapes) > 20  # it really ran
    assert len(result.losses) > 1
    assert snapshot(model) == before


@pytest.mark.parametrize("step", [1, 9])  # in the timing, and in the test
def test_nothing_of_the_callers_changes_when_the_network_fails_midway(step: int) -> None:
    model = prepared_model(from_step=step, drop=0.5, action="raise")
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="out of memory, midway"):
        range_test(model, colored_images(60), 30, plan(**AUGMENTED))
    assert snapshot(model) == before


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that costs a second an image, without timing it."""
    monkeypatch.setattr(lr_finder, "seconds_per_image", lambda model, config: 1.0)


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("action", ["nan", "inf"])
def test_a_loss_that_is_not_a_number_stops_the_test(action: str) -> None:
    model = Watched(from_step=8, action=action)
    result = range_test(model, colored_images(60), 30, plan(range_test_iterations=30), end_lr=1e-2)
    assert len(model.shapes) == 8
    assert len(result.lrs) == len(result.losses) == len(result.smoothed) == 7
    assert np.isfinite(result.losses).all()
    assert np.isfinite(result.smoothed).all()
    assert result.lrs == pytest.approx(1e-4 * 100 ** (np.arange(7) / 29))


@pytest.mark.usefixtures("instant")
def test_a_network_that_never_gives_a_number_suggests_nothing() -> None:
    result = range_test(Watched(from_step=1), colored_images(60), 30, plan())
    assert (result.lrs.shape, result.losses.shape, result.smoothed.shape) == ((0,), (0,), (0,))
    assert result.suggestions == {}
    with pytest.raises(ValueError, match="never fell"):
        result.suggestion()


@pytest.mark.usefixtures("instant")
def test_an_exploding_loss_stops_the_test() -> None:
    class Exploding(Watched):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (100 if self.steps >= 10 else 1)

    model = Exploding()
    result = range_test(model, colored_images(60), 30, plan(range_test_iterations=30))
    assert len(result.losses) == len(model.shapes) < 30
    assert result.losses[-1] > 5 * result.losses.min()
    assert np.isfinite(result.losses).all()


@pytest.mark.parametrize(
    ("changes", "test_size", "iterations"),
    [
        # a fifth of (400 + 156 / 3) images in batches of two is 45.2
        ({"train_images": 400, "batch_size": 2, "range_test_iterations": 100}, 156, 45),
        # at 16 px an image costs four of the first resolution's: 5 * 200 + 5 * 159 / 3 = 1265, in batches of four
        (
            {"train_images": 400, "batch_size": 4, "range_test_iterations": 100, "resolutions": ((8, 0.5), (16, 0.5))},
            159,
            63,
        ),
        ({"train_images": 400, "batch_size": 2, "range_test_iterations": 30}, 156, 30),
        ({"train_images": 40, "batch_size": 2, "range_test_iterations": 100}, 156, 20),  # never below 20
        ({"train_images": 40, "batch_size": 2, "range_test_iterations": 16}, 156, 16),  # but no more than asked for
    ],
)
@pytest.mark.usefixtures("instant")
def test_on_a_cpu_it_takes_at_most_a_fifth_of_the_run(changes: dict[str, Any], test_size: int, iterations: int) -> None:
    model = Watched()
    result = range_test(model, colored_images(400), test_size, plan(**changes), end_lr=1e-2)
    assert len(result.lrs) == len(model.shapes) == iterations
    assert set(model.shapes) == {(changes["batch_size"], 3, 8, 8)}
    assert result.lrs[-1] == pytest.approx(1e-2)


@pytest.mark.usefixtures("instant")
def test_it_runs_at_the_first_resolution_of_the_plan() -> None:
    model = Watched()
    range_test(model, colored_images(60, size=16), 30, plan(resolutions=((12, 0.5), (16, 0.5))), end_lr=1e-2)
    assert set(model.shapes) == {(8, 3, 12, 12)}


@pytest.mark.usefixtures("instant")
def test_a_split_of_fewer_images_than_a_batch_is_one_batch() -> None:
    model = Watched()
    result = range_test(model, colored_images(6), 3, plan(batch_size=32), end_lr=1e-2)
    assert len(result.losses) == 20
    assert set(model.shapes) == {(6, 3, 8, 8)}


@pytest.mark.parametrize(("start", "end"), [(0, 1), (-1e-4, 1), (1, 1), (2, 1), (math.nan, 1), (1e-4, math.nan)])
def test_a_bad_range_is_refused(start: float, end: float) -> None:
    model = Watched()
    with pytest.raises(ValueError, match="range is") as raised:
        range_test(model, colored_images(6), 3, plan(), start_lr=start, end_lr=end)
    assert str(raised.value) == f"The range is {start!r} to {end!r}; give 0 < start_lr < end_lr."
    assert model.shapes == []


def test_it_prints_nothing_and_warns_of_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # as in a notebook without ipywidgets, where importing the library warns
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    notebook = types.ModuleType("IPython")
    notebook.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", types.ModuleType("ipykernel.zmqshell"))
    monkeypatch.setattr("tqdm.notebook.IProgress", None)
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_lr_finder"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "tqdm.autonotebook", raising=False)
    with pytest.warns(match="IProgress not found"):
        import torch_lr_finder  # noqa: F401
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_lr_finder"]:
        del sys.modules[name]
    del sys.modules["tqdm.autonotebook"]
    capsys.readouterr()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        range_test(tiny_network(), colored_images(60), 30, plan(), end_lr=1e-2)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.lstrip("\r").startswith("range test:")  # the bar
    assert "Learning rate search finished" not in output.err


def test_the_librarys_own_bar_and_lines_stay_as_they_are() -> None:
    import tqdm.autonotebook
    from torch_lr_finder import lr_finder as library

    range_test(tiny_network(), colored_images(60), 30, plan(), end_lr=1e-2)
    assert library.tqdm is tqdm.autonotebook.tqdm
    assert not hasattr(library, "print")


@pytest.mark.usefixtures("instant")
def test_bf16_gives_losses_close_to_fp32() -> None:
    results = {
        precision: range_test(tiny_network(), colored_images(60), 30, plan(precision=precision), end_lr=0.1)
        for precision in ("fp32", "bf16")
    }
    # 8 significant bits: each loss is off by up to about 1 %
    assert results["bf16"].losses == pytest.approx(results["fp32"].losses, rel=0.02)
    assert (results["bf16"].losses != results["fp32"].losses).any()


@pytest.mark.usefixtures("instant")
def test_the_same_seed_gives_the_same_curve() -> None:
    torch.manual_seed(1)
    one = range_test(tiny_network(), colored_images(60), 30, plan(**AUGMENTED, seed=1))
    np.random.seed(5)
    other = range_test(tiny_network(), colored_images(60), 30, plan(**AUGMENTED, seed=1))
    assert one.losses == pytest.approx(other.losses, rel=1e-4)
    different = range_test(tiny_network(), colored_images(60), 30, plan(**AUGMENTED, seed=2))
    assert different.losses[:5] != pytest.approx(one.losses[:5], rel=1e-4)
