"""Trials of learning rates: where they climb to, what they may cost, how sure they say they are."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from tiny import colored_images, plan, tiny_network
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.training import lr_finder, lr_trials, presets
from era_support_packages.training.config import PreparedConfig
from era_support_packages.training.lr_finder import RangeTest, choose_max_lr, range_test
from era_support_packages.training.lr_trials import Trials, trial_images, try_rates


def losses(mean: float, spread: float = 0.0, count: int = 4) -> np.ndarray:
    """That many losses with this mean, half of them `spread` above it and half below."""
    return mean + spread * np.where(np.arange(count) % 2, 1.0, -1.0)


def auto(**changes: object) -> PreparedConfig:
    return plan(max_lr="auto", range_test_iterations=20, **changes)


Tried = list[tuple[float, ImageDataset, ImageDataset]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Tried:
    """What was tried: the rate and the images. The loss is the distance to 0.1 in factors of four, above 2 infinite."""
    tried: Tried = []

    def trial(model, train, judges, config, *_):
        tried.append((config.max_lr, train, judges))
        return losses(abs(math.log(config.max_lr / 0.1, 4)) if config.max_lr <= 2 else math.inf)

    monkeypatch.setattr(lr_trials, "_trial", trial)
    return tried


@pytest.mark.parametrize(
    ("start", "images", "climbed", "best"),
    [
        (0.1, 100_000, [0.1, 0.4, 0.025], 0.1),
        (0.1 / 4, 100_000, [0.1 / 4, 0.1, 0.4], 0.1),
        (0.1 / 16, 100_000, [0.1 / 16, 0.1 / 4, 0.1, 0.4], 0.1),
        (1.6, 100_000, [1.6, 6.4, 0.4, 0.1, 0.025], 0.1),  # the first step upwards diverges
        (0.1 / 4**6, 1200, [0.1 / 4**6, 0.1 / 4**5, 0.1 / 4**4], 0.1 / 4**4),  # until the images are used up
    ],
)
def test_the_trials_climb_to_the_lowest_loss(start: float, images: int, climbed: list[float], best: float, tried: Tried) -> None:
    train = colored_images(240)
    train.images[:, 0, 0, 0] = np.arange(240)  # tells the images apart
    found = try_rates(tiny_network(), train, plan(), start, images)
    assert [rate for rate, *_ in tried] == pytest.approx(climbed)
    assert found.best == pytest.approx(best)
    assert list(found.losses) == sorted(found.losses)
    assert (found.images, found.held_out) == (images // (7 if images > 1200 else 3) // 8 * 8, 24)
    assert found.steps == len(climbed) * (found.images // 8 + 1)  # 24 forward passes are one step of eight images
    part, judges = ({int(image[0, 0, 0]) for image in split.images} for split in tried[0][1:])
    assert (len(judges), part | judges, part & judges) == (24, set(range(240)), set())  # none is trained on


@pytest.mark.parametrize(
    ("images", "batch_size", "allowed"),
    [
        (650_000, 512, 130_000),  # a fifth of the run
        (6_000, 32, 3_000),  # half of it, as 4,000 would be more
        (18_000, 32, 4_000),
        (1_024, 32, 0),  # half is 16 steps
        (6_000, 64, 3_000),  # 46 steps
        (6_000, 80, 0),  # 37
    ],
)
def test_what_curve_and_trials_may_cost(images: int, batch_size: int, allowed: int) -> None:
    assert trial_images(plan(train_images=images, batch_size=batch_size), 50_000) == allowed


def test_a_trial_learns_what_a_run_learns_and_leaves_the_network_as_it_was() -> None:
    network, train = tiny_network(), colored_images(240)
    before, random_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    found = try_rates(network, train, plan(), 0.0004, images=3 * 240)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert list(found.losses) == pytest.approx([0.0004, 0.0016, 0.0064])
    assert list(found.losses.values()) == sorted(found.losses.values(), reverse=True)  # the colors are learnt the faster
    assert try_rates(network, train, plan(), 0.0004, images=3 * 240) == found


def test_the_margin_by_hand_and_the_words_for_it() -> None:
    # differences of four images 0.4, 0.6, 0.4, 0.6: mean 0.5, deviation 0.1155, standard error 0.0577
    clear = lr_trials._told({0.4: losses(1.5, 0.1), 0.1: losses(1.0)}, 1200, 4, 10.0)
    assert (clear.margin, clear.error) == pytest.approx((0.5, 0.2 / math.sqrt(3) / 2))
    assert (clear.best, clear.sure, clear.steps) == (0.1, True, 20)
    assert "0.1 was clearly best" in clear.reading()
    assert "not clearly" in lr_trials._told({0.4: losses(1.05, 0.3), 0.1: losses(1.0)}, 1200, 4, 10.0).reading()
    one = lr_trials._told({0.4: losses(math.inf), 0.1: losses(1.0)}, 1200, 4, 10.0)
    assert "0.1 alone did not diverge" in one.reading()
    assert one.to_frame().shape == (2, 2)
    assert Trials.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_auto_takes_the_best_of_the_trials_whatever_the_presets_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    train = colored_images(240)
    result = range_test(tiny_network(), train, 10, auto(train_images=2400))
    assert result.trials is not None
    config, sentence = choose_max_lr(auto(train_images=2400), result)
    assert config.max_lr == result.trials.best
    assert result.trials.reading() in sentence
    monkeypatch.setitem(presets.PRESETS, "smoke", {**presets.PRESETS["smoke"], "max_lr": 77.0})
    again = range_test(tiny_network(), train, 10, auto(train_images=2400))
    assert choose_max_lr(auto(train_images=2400), again)[0].max_lr == config.max_lr
    assert range_test(tiny_network(), train, 10, plan(train_images=2400, max_lr=0.1)).trials is None  # a number needs none


def test_a_run_that_is_too_short_takes_the_presets_rate_or_asks_for_one_as_where_each_trial_diverges() -> None:
    short = auto(train_images=240)  # half of it is 15 steps
    result = range_test(tiny_network(), colored_images(240), 10, short)
    assert result.too_short
    config, sentence = choose_max_lr(short, result)
    assert config.max_lr == presets.PRESETS["smoke"]["max_lr"] == 0.01
    assert "too short to try learning rates" in sentence
    with pytest.raises(ValueError, match="Give max_lr as a number"):
        choose_max_lr(short, RangeTest(*[np.ones(3)] * 3, {"valley": 0.1}, too_short=True))
    diverged = Trials({0.1: math.inf, 0.4: math.inf}, math.inf, 0.0, 1200, 4, 20)
    with pytest.raises(ValueError, match=r"Each rate that was tried diverged: 0\.1, 0\.4\. Give max_lr as a number"):
        choose_max_lr(auto(), RangeTest(*[np.ones(3)] * 3, {"valley": 0.1}, diverged))


def test_with_muon_auto_is_the_presets_own_rate_and_no_trial_is_made() -> None:
    config = auto(train_images=2400, optimizer="muon", muon_lr=0.25)
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), tiny_network())
    result = range_test(network, colored_images(240), 10, config)
    assert (result.trials, len(result.lrs) > 0) == (None, True), "the curve is there"
    chosen, sentence = choose_max_lr(config, result)
    assert chosen.max_lr == presets.PRESETS["smoke"]["max_lr"]
    assert sentence == "max_lr = 0.01, the preset's own: no short test tells how high a rate Muon takes in a whole run."
    with pytest.raises(ValueError, match=r"Muon .* has no rate of its own\. Give max_lr as a number"):
        choose_max_lr(config, RangeTest(*[np.ones(3)] * 3, {"valley": 0.1}, too_short=True))


def test_a_curve_that_never_falls_is_not_followed_by_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lr_finder, "suggest", lambda lrs, losses: {})
    result = range_test(tiny_network(), colored_images(240), 10, auto(train_images=2400))
    assert result.trials is None
    with pytest.raises(ValueError, match="never fell"):
        choose_max_lr(auto(train_images=2400), result)
