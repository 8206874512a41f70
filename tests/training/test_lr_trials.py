"""Trials of learning rates: where they climb to, what they may cost, how sure they say they are."""

import copy
import math

import numpy as np
import pytest
import torch
from tiny import colored_images, plan, tiny_network

from era_support_packages.training import lr_trials
from era_support_packages.training.lr_trials import Trial, Trials, trial_images, try_rates
from era_support_packages.training.setup import resolve


def losses(mean: float, spread: float = 0.0, count: int = 4) -> np.ndarray:
    """That many losses with this mean, half of them `spread` above it and half below."""
    return mean + spread * np.where(np.arange(count) % 2, 1.0, -1.0)


@pytest.fixture
def valley(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The loss is the distance to 0.1 in factors of four, and infinite above 2; the rates that were tried, in their order."""
    tried: list[float] = []

    def trial(model, train, judges, config, images):
        tried.append(config.max_lr)
        return losses(abs(math.log(config.max_lr / 0.1, 4)) if config.max_lr <= 2 else math.inf)

    monkeypatch.setattr(lr_trials, "_trial", trial)
    return tried


@pytest.mark.parametrize(
    ("start", "climbed"),
    [
        (0.1, [0.1, 0.4, 0.025]),
        (0.1 / 4, [0.1 / 4, 0.1, 0.4]),
        (0.1 / 16, [0.1 / 16, 0.1 / 4, 0.1, 0.4]),
        (1.6, [1.6, 6.4, 0.4, 0.1, 0.025]),  # the first step upwards diverges
    ],
)
def test_the_trials_climb_to_the_lowest_loss(start: float, climbed: list[float], valley: list[float]) -> None:
    found = try_rates(tiny_network(), colored_images(240), resolve(plan()), start, images=100_000)
    assert valley == pytest.approx(climbed)
    assert found.best.lr == pytest.approx(0.1)
    assert [trial.lr for trial in found.trials] == sorted(trial.lr for trial in found.trials)


def test_they_stop_when_the_images_are_used_up(valley: list[float]) -> None:
    found = try_rates(tiny_network(), colored_images(240), resolve(plan()), 0.1 / 4**6, images=1200)
    assert len(valley) == 3
    assert found.images == 400
    assert found.best.lr == pytest.approx(0.1 / 4**4)


@pytest.mark.parametrize(
    ("images", "batch_size", "spent", "allowed"),
    [
        (650_000, 512, 76_800, 53_200),  # a fifth of the run
        (6_000, 32, 640, 2_360),  # half of it, as 4,000 would be more
        (18_000, 32, 640, 3_360),  # 4,000
        (1_024, 32, 640, 0),  # half is 16 steps
        (6_000, 64, 4_000, 0),  # nothing is left
    ],
)
def test_what_the_trials_may_cost(images: int, batch_size: int, spent: int, allowed: int) -> None:
    assert trial_images(plan(train_images=images, batch_size=batch_size), 50_000, spent) == allowed


def test_a_trial_learns_what_a_run_learns_and_leaves_the_network_as_it_was() -> None:
    network, train = tiny_network(), colored_images(240)
    before, random_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    found = try_rates(network, train, resolve(plan()), 0.0004, images=3 * 240)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    rates = {trial.lr: trial.loss for trial in found.trials}
    assert list(rates) == pytest.approx([0.0004, 0.0016, 0.0064])
    assert list(rates.values()) == sorted(rates.values(), reverse=True)  # the colours are learnt the faster
    again = try_rates(network, train, resolve(plan()), 0.0004, images=3 * 240)
    assert [trial.loss for trial in again.trials] == [trial.loss for trial in found.trials]


def test_the_held_out_images_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        lr_trials, "_trial", lambda model, train, judges, config, images: seen.append((train, judges)) or losses(1)
    )
    train = colored_images(240)
    train.images[:, 0, 0, 0] = np.arange(240)  # tells the images apart
    try_rates(tiny_network(), train, resolve(plan()), 0.1, images=10_000)
    part, judges = ({int(image[0, 0, 0]) for image in split.images} for split in seen[0])
    assert len(judges) == 24
    assert part | judges == set(range(240))
    assert not part & judges


def test_the_reading_says_how_sure_it_is() -> None:
    # differences 0.5 +- 0.1 over four images: standard error 0.1155 / 2 = 0.0577
    clear = Trials((Trial(0.1, losses(1.0)), Trial(0.4, losses(1.5, 0.1))), images=1200)
    assert clear.runner_up[1:] == pytest.approx((0.5, 0.2 / math.sqrt(3) / 2))
    assert "0.1 was clearly the best" in clear.reading()
    assert "not clearly" in Trials((Trial(0.1, losses(1.0)), Trial(0.4, losses(1.05, 0.3))), images=1200).reading()
    assert "0.4 diverged" in Trials((Trial(0.1, losses(1.0)), Trial(0.4, losses(math.inf))), images=1200).reading()
    assert "Only 0.1" in Trials((Trial(0.1, losses(1.0)),), images=1200).reading()
    assert clear.to_frame().shape == (2, 2)
