"""Verdicts from given similarities: the limits, what is left out, and every sentence."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from era_support_packages.evaluation.intervals import Interval
from era_support_packages.trust.sanity.verdict import LIMITS, SanityCheck, Verdict


def found(
    final: list[list[float]], between: list[list[float]], first: float = 0.5, method: str = "gradcam", layer: str = "layer4"
) -> SanityCheck:
    """A check of one method: its correlations after the last stage (D, N), between random networks (P, N), after the first."""
    correlations = np.stack([np.full(np.shape(final), first), np.array(final, float)])[None]
    images = np.shape(final)[1]
    return SanityCheck(
        methods=(method,),
        layers=(layer,),
        stages=("linear", "conv"),
        targets=np.zeros(images, np.int64),
        correlations=correlations,
        ssim=correlations,
        random_correlations=np.array(between, float)[None],
        constant=np.zeros((1, 3)),
        maps=np.zeros((1, 3, images, 4, 4), np.float32),
        ssim_window=3,
        training_images=100,
        seed=0,
    )


def verdict(final: float, between: float, first: float = 0.5, **names: str) -> Verdict:
    """Of six images with the same correlations, so that the intervals have no width."""
    [result] = found([[final] * 6] * 2, [[between] * 6], first, **names).verdicts
    return result


@pytest.mark.parametrize(
    ("final", "between", "outcome"),
    [
        (0.0, 0.0, "passes"),
        (0.25, 0.125, "fails"),  # 0.125 more than by chance
        (0.25, 0.1875, "passes"),  # 0.0625 more
        (-0.5, 0.5, "passes"),
        (0.6875, 0.6875, "passes"),
        (0.75, 0.75, "fails"),  # no more than by chance, but decided by the image
        (1.0, 1.0, "fails"),
    ],
)
def test_both_limits_must_be_kept(final: float, between: float, outcome: str) -> None:
    result = verdict(final, between)
    assert result.outcome == outcome
    assert result.correlation == Interval(final, final, final)
    assert result.between_random == Interval(between, between, between)
    assert result.excess.estimate == pytest.approx(final - between)
    assert (result.usable, result.count) == (6, 6)


def test_an_interval_that_reaches_across_a_limit_decides_nothing() -> None:
    wide = [0.0, 0.4] * 8  # a mean of 0.2 with an interval of about 0.1 to 0.3
    low = [0.0] * 16
    [crossing] = found([wide] * 2, [[0.125] * 16]).verdicts
    assert crossing.excess.low < 0.1 < crossing.excess.high
    assert crossing.outcome == "undecided"
    [above] = found([wide] * 2, [[-0.5] * 16]).verdicts
    assert above.outcome == "fails"
    [below] = found([wide] * 2, [[0.5] * 16]).verdicts
    assert below.outcome == "passes"
    absolute = [0.5, 0.9] * 8
    [reaching] = found([absolute] * 2, [absolute]).verdicts
    assert (reaching.excess, reaching.outcome) == (Interval(0, 0, 0), "undecided")
    [zero] = found([low] * 2, [low]).verdicts
    assert zero.outcome == "passes"


def test_means_are_over_images_and_networks_and_intervals_over_both() -> None:
    generator = np.random.default_rng(0)
    final, between = generator.uniform(-1, 1, (3, 10)), generator.uniform(-1, 1, (3, 10))
    check = found(final.tolist(), between.tolist())
    [result] = check.verdicts
    assert result.correlation.estimate == pytest.approx(final.mean())
    assert result.between_random.estimate == pytest.approx(between.mean())
    assert result.excess.estimate == pytest.approx(final.mean() - between.mean())
    assert [interval.estimate for interval in check.curve(0)] == pytest.approx([0.5, final.mean()])
    assert check.curve(0)[1].high == pytest.approx(result.correlation.high, abs=0.05), "the verdict leaves out what has no pair"
    assert check.between_random(0) == result.between_random
    for interval, expected in zip((result.correlation, result.excess), pigeonhole(final, between), strict=True):
        assert (interval.low, interval.high) == pytest.approx(expected, abs=0.04)


def pigeonhole(final: np.ndarray, between: np.ndarray) -> np.ndarray:
    """The ends of the intervals of correlation and excess, sample by sample."""
    generator = np.random.default_rng(5)
    pairs = dict(zip(itertools.combinations(range(len(final)), 2), between, strict=True))
    samples = []
    while len(samples) < 2000:
        networks, images = (generator.integers(0, size, size) for size in final.shape)
        drawn = [tuple(sorted(pair)) for pair in itertools.combinations(networks.tolist(), 2) if len(set(pair)) == 2]
        if drawn:  # not one network over and over
            correlation = final[networks][:, images].mean()
            samples.append((correlation, correlation - np.mean([pairs[pair][images] for pair in drawn])))
    return np.percentile(samples, [2.5, 97.5], axis=0).T


def test_networks_that_differ_widen_the_interval_where_images_agree() -> None:
    agree = np.tile([[0.0], [0.2], [0.4], [0.6]], 8)  # each network treats all eight images alike
    result = found(agree.tolist(), np.zeros((6, 8)).tolist()).verdicts[0]
    assert result.excess.estimate == pytest.approx(0.3)
    # The mean of four draws of 0, 0.2, 0.4 and 0.6 has a standard deviation of 0.224 / 2.
    assert result.excess.low == pytest.approx(0.3 - 0.2, abs=0.051)
    assert result.excess.high == pytest.approx(0.3 + 0.2, abs=0.051)


def test_pairs_of_networks_count_as_often_as_both_were_drawn() -> None:
    # Networks 0 and 1 resemble each other, network 2 neither: pairs (0, 1), (0, 2), (1, 2). Of the 27 samples of three
    # networks, 3 hold one network only and are left out; the others have a share of 1 (6 of 24: only 0 and 1), 0 (12: one
    # of them and network 2) or a third (6: all three).
    between = np.tile([[1.0], [0.0], [0.0]], 8)
    check = found(np.zeros((3, 8)).tolist(), between.tolist())
    assert check.between_random(0).estimate == pytest.approx(1 / 3)
    assert (check.between_random(0).low, check.between_random(0).high) == (0, 1)


def test_constant_maps_are_left_out_of_means_and_of_pairs() -> None:
    nan = math.nan
    final = [[0.2, 0.4, nan, 0.5, 0.1, 0.1, 0.1], [nan, 0.2, nan, 0.5, 0.1, 0.1, 0.1]]
    between = [[0.1, 0.1, 0.9, nan, 0.1, 0.1, 0.1]]
    [result] = found(final, between).verdicts
    # Images 2 and 3 have no pair; the five left have 0.2, 0.3, 0.1, 0.1, 0.1, and 0.1 each between random networks.
    assert result.usable == 5
    assert result.correlation.estimate == pytest.approx(0.16)
    assert result.between_random.estimate == pytest.approx(0.1)
    assert result.excess.estimate == pytest.approx(0.06)
    means = [interval.estimate for interval in found(final, between).curve(0)]
    assert means == pytest.approx([0.5, (0.2 + 0.3 + 0.5 + 0.3) / 6])


@pytest.mark.parametrize(
    ("count", "constant", "outcome"), [(5, 0, "passes"), (4, 0, "undecided"), (12, 6, "passes"), (12, 7, "undecided")]
)
def test_few_images_decide_nothing(count: int, constant: int, outcome: str) -> None:
    values = [math.nan] * constant + [0.0] * (count - constant)
    [result] = found([values] * 2, [values]).verdicts
    assert (result.usable, result.count) == (count - constant, count)
    assert result.outcome == outcome


def test_maps_that_are_all_constant_are_undecided_and_have_no_numbers() -> None:
    check = found([[math.nan] * 6] * 2, [[math.nan] * 6])
    [result] = check.verdicts
    assert (result.outcome, result.usable) == ("undecided", 0)
    assert math.isnan(result.excess.estimate)
    assert math.isnan(check.between_random(0).low)
    assert result.reading() == "gradcam at layer4 is undecided: only 0 of 6 images have maps that are not constant."


@pytest.mark.parametrize(
    ("first", "specific"), [(1.0, False), (0.9921875, False), (0.984375, True), (0.0, True), (math.nan, True)]
)
def test_maps_that_the_output_layer_does_not_change_are_not_class_specific(first: float, specific: bool) -> None:
    result = verdict(0.0, 0.0, first)
    assert result.class_specific is specific
    assert result.reading().endswith("redrawing only the output layer leaves its maps as they were.") is not specific


def test_sentences_say_the_verdict_with_its_numbers() -> None:
    assert verdict(0.25, 0.1875).reading() == (
        "gradcam at layer4 passes: random networks' maps have a rank correlation of 0.25 (95 % interval 0.25 to 0.25, limit 0.7) "
        "with the trained network's and of 0.19 with each other, a difference of 0.06 (95 % interval 0.06 to 0.06, limit 0.1)."
    )
    assert verdict(1.0, 1.0, 1.0, method="edges", layer="").reading() == (
        "edges fails: random networks' maps have a rank correlation of 1.00 (95 % interval 1.00 to 1.00, limit 0.7) with the "
        "trained network's and of 1.00 with each other, a difference of 0.00 (95 % interval 0.00 to 0.00, limit 0.1). It is not "
        "class-specific: redrawing only the output layer leaves its maps as they were."
    )
    result = dataclasses.replace(verdict(0.25, 0.25), outcome="undecided", excess=Interval(0.05, -0.125, 0.25))
    assert result.reading() == (
        "gradcam at layer4 is undecided: random networks' maps have a rank correlation of 0.25 (95 % interval 0.25 to 0.25, "
        "limit 0.7) with the trained network's and of 0.25 with each other, a difference of 0.05 (95 % interval -0.12 to 0.25, "
        "limit 0.1). An interval reaches across its limit: take more draws or images."
    )


def test_the_table_says_each_verdict_with_its_numbers_and_why() -> None:
    table = found([[0.0, 0.4] * 8] * 2, [[0.125] * 16]).table()
    [(method, layer, outcome, correlation, excess, why)] = table.rows
    assert (method, layer, outcome, why) == ("gradcam", "layer4", "undecided", "limit inside the interval")
    assert (correlation.estimate, excess.estimate) == (pytest.approx(0.2), pytest.approx(0.075))
    assert [column.name for column in table.columns] == ["method", "layer", "verdict", "correlation", "excess", "why"]


@pytest.mark.parametrize(
    ("final", "between", "first", "why"),
    [
        (0.25, 0.125, 0.5, "more alike than by chance"),
        (0.75, 0.75, 0.5, "image decides its ranks"),
        (0.25, 0.25, 0.5, "changes with the weights"),
        (0.25, 0.25, 1.0, "changes, but has no class"),
        (math.nan, math.nan, 0.5, "too many constant maps"),
    ],
)
def test_the_reason_of_a_verdict_in_at_most_five_words(final: float, between: float, first: float, why: str) -> None:
    assert verdict(final, between, first).why == why
    assert len(why.split()) <= 5


def several(*outcomes: tuple[float, float, float, str]) -> SanityCheck:
    """One check with a row for each (final, between, first, method), of six images in two draws."""
    rows = [found([[final] * 6] * 2, [[between] * 6], first, method) for final, between, first, method in outcomes]
    joined = {
        name: np.concatenate([getattr(row, name) for row in rows])
        for name in ("correlations", "ssim", "random_correlations", "constant", "maps")
    }
    methods, layers = (tuple(getattr(row, name)[0] for row in rows) for name in ("methods", "layers"))
    return dataclasses.replace(rows[0], methods=methods, layers=layers, **joined)


def test_the_reading_counts_the_verdicts_and_names_those_that_do_not_pass() -> None:
    passing, failing, undecided = (0.0, 0.0, 0.5, "gradcam"), (1.0, 1.0, 1.0, "edges"), (math.nan, math.nan, 0.5, "flat")
    assert several(passing, passing).reading() == "2 of 2 maps pass."
    assert several(passing, failing, undecided).reading() == (
        "1 of 3 maps passes; 1 is undecided (flat at layer4), for which more draws or images are needed; 1 fails (edges at "
        "layer4); edges is not class-specific: redrawing only the output layer changes no map."
    )


def test_the_limits_of_the_test_are_told() -> None:
    assert "not that it is right" in LIMITS
    assert "Binder et al. 2023" in LIMITS
