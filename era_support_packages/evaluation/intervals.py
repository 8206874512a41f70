"""Intervals for what is measured on images: percentile bootstrap for means, Wilson for shares, Newcombe for paired ones."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
DRAWN_AT_ONCE = 200_000
"""values that the bootstrap draws before it takes their means: as many as a core's own memory holds"""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the unit of what was measured.

    >>> from era_support_packages.evaluation import Interval
    >>> Interval(0.5, low=0.1, high=0.9).excludes(0)
    True
    """

    estimate: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside of the interval."""
        return value < self.low or value > self.high


def percent(share: float) -> str:
    """A share in words, to a tenth: 0.834 as "83.4 %"."""
    return f"{100 * share:.1f} %"


def mean_interval(values: ArrayLike, comparisons: int = 1, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean of a sample of independent values (N,) with its 95 % percentile bootstrap interval.

    The percentiles are expanded for the size of the sample (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
    section 5.3): the plain ones miss the mean of 16 values in 8 instead of 5 % of the cases. For a paired comparison, `values`
    are the differences within the pairs; for hits and misses there are `share_interval` and `paired_share_interval`. With
    `comparisons` above 1 the interval is widened after Bonferroni, so that the chance of any of that many intervals missing its
    value is about 5 % at most; `draws` is raised so that at least 10 of them lie beyond each end. The same seed gives the same
    interval; a single value is an interval of width 0.

    Raises `ValueError` for an empty sample, values that are not finite, or `comparisons` or `draws` below 1.

    >>> from era_support_packages.evaluation import mean_interval
    >>> interval = mean_interval([1.0, 2.0, 3.0, 4.0])
    >>> interval.estimate, interval.excludes(0)
    (2.5, True)
    """
    from scipy.stats import bootstrap, norm, t  # here, because it is slow to import

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"An interval needs a sample of shape (N,) with at least one value, not {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("The sample holds NaN or infinite values; leave these out, and say how many they were.")
    if comparisons < 1 or draws < 1:
        raise ValueError(f"comparisons and draws must be at least 1, not {comparisons} and {draws}.")
    mean = float(values.mean())
    if np.ptp(values) == 0:  # one value, or all of them equal: nothing to draw
        return Interval(mean, mean, mean)
    reach = np.sqrt(values.size / (values.size - 1)) * t.ppf(1 - (1 - CONFIDENCE) / comparisons / 2, values.size - 1)
    outside = max(2 * norm.cdf(-reach), 1e-5)  # beyond both ends; below it the ends are the extremes in any case
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=max(draws, int(np.ceil(20 / outside))),
        confidence_level=1 - outside,
        method="percentile",
        vectorized=True,
        batch=max(1, DRAWN_AT_ONCE // values.size),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def share_interval(hits: int, trials: int) -> Interval:
    """The share of hits, in [0, 1], with its 95 % interval after Wilson 1927, which stays meaningful at 0 and at 1.

    Raises `ValueError` where there are no trials, more hits than trials, or numbers that are not whole.

    >>> from era_support_packages.evaluation import share_interval
    >>> found = share_interval(hits=8, trials=10)
    >>> f"{found.estimate} [{found.low:.2f}, {found.high:.2f}]"
    '0.8 [0.49, 0.94]'
    """
    whole = all(isinstance(count, int | np.integer) for count in (hits, trials))
    if not whole or not 0 <= hits <= trials or trials < 1:
        raise ValueError(
            f"{hits} hits in {trials} trials: there must be at least one trial, and no more hits than trials, both whole numbers."
        )
    return _wilson(int(hits), int(trials), _reach(1))


def paired_share_interval(first: ArrayLike, second: ArrayLike, comparisons: int = 1) -> Interval:
    """The share of hits in `second` less that in `first`, in [-1, 1], with its 95 % interval after Newcombe.

    first, second: bool (N,), hit or no hit of the same N images, such as whether two networks are right. The interval is method
    10 of Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data"
    (Statistics in Medicine 17, 2635-2650): the Wilson intervals of the two shares, squared and added with their correlation. It
    has a width also where no image changed, where a bootstrap of the differences has none. `comparisons` as for `mean_interval`.

    Raises `ValueError` where the two are not truth values of the same shape (N,), N at least 1, or `comparisons` is below 1.

    >>> from era_support_packages.evaluation import paired_share_interval
    >>> found = paired_share_interval([True] * 40, [True] * 40)
    >>> f"{found.estimate} [{found.low:.2f}, {found.high:.2f}]"
    '0.0 [-0.09, 0.09]'
    """
    one, two = np.asarray(first), np.asarray(second)
    if one.dtype != bool or two.dtype != bool or one.ndim != 1 or one.shape != two.shape or one.size == 0:
        raise ValueError(
            "An interval of a paired difference needs two samples of truth values of the same shape (N,), with at least one "
            f"value, not {one.dtype} {one.shape} and {two.dtype} {two.shape}."
        )
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, not {comparisons}.")
    total, reach = one.size, _reach(comparisons)
    a, b = _wilson(int(one.sum()), total, reach), _wilson(int(two.sum()), total, reach)
    both, neither = int((one & two).sum()), int((~one & ~two).sum())
    only_first, only_second = int((one & ~two).sum()), int((~one & two).sum())
    together = float(both * neither - only_first * only_second)
    if together > 0:  # the continuity correction: else images that all stay the same would leave no width
        together = max(together - total / 2, 0.0)
    spread = math.sqrt(one.sum() * (~one).sum()) * math.sqrt(two.sum() * (~two).sum())
    correlation = together / spread if spread else 0.0

    def squared_and_added(x: float, y: float) -> float:
        return math.sqrt(max(x**2 - 2 * correlation * x * y + y**2, 0.0))

    change = (only_second - only_first) / total
    down = squared_and_added(a.high - a.estimate, b.estimate - b.low)
    up = squared_and_added(a.estimate - a.low, b.high - b.estimate)
    return Interval(change, change - down, change + up)


def _reach(comparisons: int) -> float:
    """How many standard deviations the ends of one of so many intervals lie from its middle."""
    from scipy.special import ndtri

    return -float(ndtri((1 - CONFIDENCE) / comparisons / 2))


def _wilson(hits: int, trials: int, z: float) -> Interval:
    # As `proportion_ci` of `scipy.stats.binomtest` has it, which takes its time for a test that nobody asks for.
    share, scale = hits / trials, 2 * (trials + z**2)
    middle = (2 * trials * share + z**2) / scale
    reach = z / scale * math.sqrt(4 * trials * share * (1 - share) + z**2)
    return Interval(share, 0.0 if hits == 0 else middle - reach, 1.0 if hits == trials else middle + reach)
