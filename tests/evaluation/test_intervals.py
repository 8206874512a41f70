"""Intervals: Wilson's formula by hand, the bootstrap against numpy and against the coverage it promises."""

import math
import re

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import norm, t

from era_support_packages.evaluation.intervals import Interval, mean_interval, paired_share_interval, percent, share_interval

Z = 1.959963984540054  # between -z and z lie 95 % of the normal distribution


def skewed(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).exponential(size=count)


@pytest.mark.parametrize(("value", "outside"), [(0.99, True), (1, False), (1.5, False), (3, False), (3.01, True), (-2, True)])
def test_an_interval_excludes_what_lies_beyond_its_ends(value: float, outside: bool) -> None:
    assert Interval(2, 1, 3).excludes(value) is outside


def test_a_share_is_told_to_a_tenth_of_a_percent() -> None:
    assert [percent(share) for share in (0, 0.834, 0.0004, 1)] == ["0.0 %", "83.4 %", "0.0 %", "100.0 %"]


def bootstrap_by_numpy(values: np.ndarray, level: float) -> tuple[float, float]:
    """The percentile bootstrap at the level that makes its half width sqrt(n / (n - 1)) t / z times that of a plain one."""
    generator, count = np.random.default_rng(99), len(values)
    means = [values[generator.integers(0, count, count)].mean() for _ in range(20_000)]
    outer = norm.sf(t.isf((1 - level) / 2, count - 1) * math.sqrt(count / (count - 1)))
    low, high = np.quantile(means, [outer, 1 - outer])
    return float(low), float(high)


@pytest.mark.parametrize(("comparisons", "level", "draws", "off"), [(1, 0.95, 20_000, 0.02), (10, 0.995, 2000, 0.05)])
def test_the_ends_are_those_of_a_percentile_bootstrap_by_numpy(comparisons: int, level: float, draws: int, off: float) -> None:
    values, kept = skewed(), skewed()
    found = mean_interval(values, comparisons, draws)
    low, high = bootstrap_by_numpy(values, level)
    assert found.estimate == pytest.approx(values.mean(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=off * (high - low))
    assert found.high - found.estimate > found.estimate - found.low  # skewed as the values are, not symmetric
    np.testing.assert_array_equal(values, kept)


def test_the_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    for count in (8, 50):  # plain percentiles of 8 values would hold it in 88 %
        held = [not mean_interval(generator.normal(5, 2, count), seed=seed).excludes(5) for seed in range(300)]
        assert 0.92 <= np.mean(held) <= 0.98


def test_the_draws_are_raised_until_the_ends_can_be_told() -> None:
    # 100 comparisons ask for about the outer 0.02 %, of which 2,000 draws have less than one: some 100,000 are made.
    few, more, many = (mean_interval(skewed(100), comparisons=100, draws=draws) for draws in (10, 2000, 400_000))
    assert (few.low, few.high) == (more.low, more.high)
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.05 * (many.high - many.low))


def test_the_same_seed_gives_the_same_interval_and_the_global_state_stays() -> None:
    state = np.random.get_state()[1].tolist()
    assert mean_interval(skewed(), seed=1) == mean_interval(skewed(), seed=1) != mean_interval(skewed(), seed=2)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1], Interval(0.5, 0, 1)),  # of the means 0, 1/2 and 1 the outer ones come up in a quarter of the draws each
        ([3.5], Interval(3.5, 3.5, 3.5)),
        ([2, 2, 2], Interval(2, 2, 2)),
        (np.full(7, -1.0, dtype=np.float32), Interval(-1, -1, -1)),
    ],
)
def test_intervals_by_hand(values: ArrayLike, expected: Interval) -> None:
    assert mean_interval(values) == expected


def test_whole_numbers_and_truth_values_are_taken_as_numbers() -> None:
    assert mean_interval(np.array([True, False, True, True])).estimate == 0.75
    assert mean_interval([1, 2, 4]).estimate == pytest.approx(7 / 3)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "An interval needs a sample of shape (N,) with at least one value, not (0,)."),
        (3.0, {}, "An interval needs a sample of shape (N,) with at least one value, not ()."),
        ([[1, 2]], {}, "An interval needs a sample of shape (N,) with at least one value, not (1, 2)."),
        ([1, np.nan], {}, "The sample holds NaN or infinite values; leave these out, and say how many they were."),
        ([1, np.inf], {}, "The sample holds NaN or infinite values; leave these out, and say how many they were."),
        ([1, 2], {"comparisons": 0}, "comparisons and draws must be at least 1, not 0 and 2000."),
        ([1, 2], {"draws": 0}, "comparisons and draws must be at least 1, not 1 and 0."),
    ],
)
def test_unusable_samples_get_one_sentence(values: ArrayLike, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mean_interval(values, **options)


@pytest.mark.parametrize(("hits", "trials"), [(1, 2), (15, 20), (3, 1000), (81, 263), (0, 1), (0, 360), (10, 10), (360, 360)])
def test_the_share_has_the_interval_of_wilson(hits: int, trials: int) -> None:
    share = hits / trials
    center = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    found = share_interval(np.int64(hits), np.int64(trials))
    assert found.estimate == share
    assert (found.low, found.high) == pytest.approx((center - half, center + half), rel=1e-12, abs=1e-12)


def test_the_value_that_wilsons_method_is_published_with() -> None:
    found = share_interval(81, 263)  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (3, 2), (-1, 5), (0, -1), (2.7, 10), (2, 10.5)])
def test_impossible_counts_get_one_sentence(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match=rf"^{hits} hits in {trials} trials: there must be at least one trial, and no more hits"):
        share_interval(hits, trials)


def pairs(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (both, only_first, only_second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("counts", "change", "low", "high"),
    [
        ((36, 12, 2, 0), -0.2, -0.3404, -0.0569),  # Newcombe 1998, table II, method 10; here as second less first
        # Fagerland, Lydersen and Laake 2017, "Statistical Analysis of Contingency Tables", tables 8.7 and 8.8
        ((1, 1, 7, 12), 0.2857, 0.0256, 0.5069),
        ((59, 6, 16, 80), 0.0621, 0.0046, 0.1186),
    ],
)
def test_the_values_that_newcombes_method_is_published_with(counts, change, low, high) -> None:
    found = paired_share_interval(*pairs(*counts))
    assert (round(found.estimate, 4), round(found.low, 4), round(found.high, 4)) == (change, low, high)


def test_shares_that_do_not_change_have_an_interval_with_a_width() -> None:
    # None of 40 images is wrong before or after: Wilson leaves z^2 / (40 + z^2) to each, and there is no correlation to find.
    found, one = paired_share_interval(*pairs(40, 0, 0, 0)), Z**2 / (40 + Z**2)
    assert (found.estimate, found.low, found.high) == (0, pytest.approx(-one), pytest.approx(one))
    # All of 30 change: one share goes from 0 to 1, so that only the lower end has room, by the root of two squares.
    found, one = paired_share_interval(*pairs(0, 0, 30, 0)), Z**2 / (30 + Z**2)
    assert (found.estimate, found.low, found.high) == (1, pytest.approx(1 - math.sqrt(2) * one), 1)


def test_the_paired_interval_turns_round_with_its_samples_and_widens_with_the_comparisons() -> None:
    first, second = pairs(50, 9, 3, 8)
    found, back = paired_share_interval(first, second), paired_share_interval(second, first)
    assert (found.low, found.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    wide = paired_share_interval(first, second, comparisons=9)
    assert wide.low < found.low < found.high < wide.high


@pytest.mark.parametrize(("images", "lost", "won"), [(300, 0.005, 0), (300, 0.01, 0.005), (40, 0.01, 0), (100, 0.1, 0.02)])
def test_the_paired_interval_holds_a_small_change_as_often_as_it_says(images: int, lost: float, won: float) -> None:
    """Of 300 images of which half a percent is lost, the bootstrap of the differences holds the change in 79 %."""
    generator, held = np.random.default_rng(0), []
    for _ in range(1000):
        drawn, right = generator.random(images), generator.random(images) < 0.9
        first = np.where(drawn < lost, True, np.where(drawn < lost + won, False, right))
        second = np.where(drawn < lost, False, np.where(drawn < lost + won, True, right))
        found = paired_share_interval(first, second)
        assert found.low < found.high
        held.append(not found.excludes(won - lost))
    assert np.mean(held) >= 0.94


@pytest.mark.parametrize(
    ("first", "second", "comparisons", "message"),
    [
        ([], [], 1, "at least one value"),
        ([True], [True, False], 1, "bool (1,) and bool (2,)"),
        ([[True]], [[True]], 1, "of the same shape (N,)"),
        ([1, 0], [0, 1], 1, "truth values"),
        ([True], [True], 0, "comparisons must be at least 1, not 0"),
    ],
)
def test_what_is_no_pair_of_samples_gets_one_sentence(first, second, comparisons: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        paired_share_interval(
            np.array(first, dtype=None if first else bool), np.array(second, dtype=None if second else bool), comparisons
        )
