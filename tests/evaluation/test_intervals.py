"""Intervals: Wilson's formula by hand, the bootstrap against numpy and against the coverage it promises."""

import math
import re

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.stats import norm, t

from era_support_packages.evaluation.intervals import Interval, mean_interval, percent, share_interval

Z = 1.959963984540054  # between -z and z lie 95 % of the normal distribution


def skewed(count: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=count)


# ---- interval ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "outside"), [(0.99, True), (1, False), (1.5, False), (3, False), (3.01, True), (-2, True)])
def test_an_interval_excludes_what_lies_beyond_its_ends(value: float, outside: bool) -> None:
    assert Interval(2, 1, 3).excludes(value) is outside


# ---- means -------------------------------------------------------------------------------------------------------------


def bootstrap_by_numpy(values: np.ndarray, level: float, draws: int = 20_000) -> tuple[float, float]:
    """The percentile bootstrap at the level that makes its half width sqrt(n / (n - 1)) t / z times that of a plain one."""
    generator = np.random.default_rng(99)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(draws)]
    count = len(values)
    outer = norm.sf(t.isf((1 - level) / 2, count - 1) * math.sqrt(count / (count - 1)))
    low, high = np.quantile(means, [outer, 1 - outer])
    return float(low), float(high)


def test_the_ends_are_those_of_a_percentile_bootstrap_by_numpy() -> None:
    values = skewed()
    found = mean_interval(values, draws=20_000)
    assert found.estimate == pytest.approx(values.mean(), rel=1e-12)
    low, high = bootstrap_by_numpy(values, 0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02 * (high - low))
    assert found.high - found.estimate > found.estimate - found.low  # skewed as the values are, not symmetric


def test_the_interval_of_two_values_holds_all_their_resampled_means() -> None:
    # Of the means 0, 1/2 and 1, the outer ones come up in a quarter of the draws each: they are the ends, and cannot be passed.
    assert mean_interval([0, 1]) == Interval(0.5, 0, 1)


def test_the_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    for count in (8, 50):  # plain percentiles of 8 values would hold it in 88 %
        held = [not mean_interval(generator.normal(5, 2, count), seed=seed).excludes(5) for seed in range(300)]
        assert 0.92 <= np.mean(held) <= 0.98


def test_several_comparisons_widen_the_interval_after_bonferroni() -> None:
    values = skewed()
    one, ten = mean_interval(values), mean_interval(values, comparisons=10)
    assert ten.estimate == one.estimate
    assert ten.low < one.low < one.high < ten.high
    low, high = bootstrap_by_numpy(values, 0.995)
    assert (ten.low, ten.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_draws_are_raised_until_the_ends_can_be_told() -> None:
    values = skewed(100)
    # 100 comparisons ask for about the outer 0.02 %, of which 2,000 draws have less than one: some 100,000 are made.
    few, more, many = (mean_interval(values, comparisons=100, draws=draws) for draws in (10, 2000, 400_000))
    assert (few.low, few.high) == (more.low, more.high)
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.05 * (many.high - many.low))


def test_the_same_seed_gives_the_same_interval_and_the_global_state_stays() -> None:
    values = skewed()
    state = np.random.get_state()[1].tolist()
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("values", [[3.5], [2, 2, 2], np.full(7, -1.0, dtype=np.float32)])
def test_equal_values_are_an_interval_without_width(values: ArrayLike) -> None:
    first = float(np.asarray(values)[0])
    assert mean_interval(values) == Interval(first, first, first)


def test_whole_numbers_and_truth_values_are_taken_as_numbers() -> None:
    assert mean_interval(np.array([True, False, True, True])).estimate == 0.75
    assert mean_interval([1, 2, 4]).estimate == pytest.approx(7 / 3)


def test_the_values_are_not_changed() -> None:
    values = skewed()
    kept = values.copy()
    mean_interval(values, comparisons=3)
    np.testing.assert_array_equal(values, kept)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "an interval needs a sample of shape (N,) with at least one value, not (0,)."),
        (3.0, {}, "an interval needs a sample of shape (N,) with at least one value, not ()."),
        ([[1, 2]], {}, "an interval needs a sample of shape (N,) with at least one value, not (1, 2)."),
        ([1, np.nan], {}, "the sample holds NaN or infinite values; leave these out, and say how many they were."),
        ([1, np.inf], {}, "the sample holds NaN or infinite values; leave these out, and say how many they were."),
        ([1, 2], {"comparisons": 0}, "comparisons and draws must be at least 1, not 0 and 2000."),
        ([1, 2], {"draws": 0}, "comparisons and draws must be at least 1, not 1 and 0."),
    ],
)
def test_unusable_samples_get_one_sentence(values: ArrayLike, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        mean_interval(values, **options)


# ---- shares ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "trials"), [(1, 2), (15, 20), (3, 1000), (81, 263)])
def test_the_share_has_the_interval_of_wilson(hits: int, trials: int) -> None:
    share = hits / trials
    center = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    found = share_interval(hits, trials)
    assert found.estimate == share
    assert (found.low, found.high) == pytest.approx((center - half, center + half), rel=1e-12)


def test_the_value_that_wilsons_method_is_published_with() -> None:
    found = share_interval(81, 263)  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("trials", [1, 10, 360])
def test_at_0_and_at_1_the_interval_still_has_a_width(trials: int) -> None:
    none, all_of_them = share_interval(0, trials), share_interval(trials, trials)
    reach = Z**2 / (trials + Z**2)
    assert (none.estimate, none.low, none.high) == pytest.approx((0, 0, reach))
    assert (all_of_them.estimate, all_of_them.low, all_of_them.high) == pytest.approx((1, 1 - reach, 1))


def test_numpy_counts_are_taken() -> None:
    assert share_interval(np.int64(3), np.int64(4)) == share_interval(3, 4)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (3, 2), (-1, 5), (0, -1)])
def test_impossible_counts_get_one_sentence(hits: int, trials: int) -> None:
    message = f"{hits} hits in {trials} trials: there must be at least one trial, and no more hits than trials."
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        share_interval(hits, trials)


def test_a_share_is_told_to_a_tenth_of_a_percent() -> None:
    assert [percent(share) for share in (0, 0.834, 0.0004, 1)] == ["0.0 %", "83.4 %", "0.0 %", "100.0 %"]
