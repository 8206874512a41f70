"""Verdicts from given similarities: the limits, what is left out, and every sentence."""

import dataclasses
import math

import numpy as np
import pytest

from era_support_packages.evaluation.intervals import Interval
from era_support_packages.trust.sanity.verdict import SanityCheck, Verdict

NAN = math.nan


def found(final: object, between: object, first: float = 0.5, method: str = "gradcam", layer: str = "layer4") -> SanityCheck:
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
    ("final", "between", "first", "outcome", "why"),
    [
        (0.0, 0.0, 0.5, "passes", "changes with the weights"),
        (0.25, 0.125, 0.5, "fails", "more alike than by chance"),  # 0.125 more
        (0.25, 0.1875, 0.5, "passes", "changes with the weights"),  # 0.0625 more
        (-0.5, 0.5, 0.5, "passes", "changes with the weights"),
        (0.6875, 0.6875, 1.0, "passes", "changes, but has no class"),
        (0.75, 0.75, 0.5, "fails", "image decides its ranks"),  # and yet no more than by chance
        (1.0, 1.0, 0.5, "fails", "image decides its ranks"),
    ],
)
def test_both_limits_must_be_kept(final: float, between: float, first: float, outcome: str, why: str) -> None:
    result = verdict(final, between, first)
    assert (result.outcome, result.why) == (outcome, why)
    assert result.correlation == Interval(final, final, final)
    assert result.between_random == Interval(between, between, between)
    assert result.excess.estimate == pytest.approx(final - between)
    assert (result.usable, result.count) == (6, 6)


WIDE, WIDE_AND_HIGH = [0.0, 0.4] * 8, [0.5, 0.9] * 8  # a mean of 0.2 with an interval of about 0.1 to 0.3


@pytest.mark.parametrize(
    ("final", "between", "outcome"),
    [
        (WIDE, [0.125] * 16, "undecided"),
        (WIDE, [-0.5] * 16, "fails"),
        (WIDE, [0.5] * 16, "passes"),
        (WIDE_AND_HIGH, WIDE_AND_HIGH, "undecided"),
        ([0.0] * 16, [0.0] * 16, "passes"),
    ],
)
def test_an_interval_that_reaches_across_a_limit_decides_nothing(final: list[float], between: list[float], outcome: str) -> None:
    [result] = found([final] * 2, [between]).verdicts
    assert result.outcome == outcome
    if final is between:
        assert result.excess == Interval(0, 0, 0)
    elif outcome == "undecided":
        assert result.excess.low < 0.1 < result.excess.high


def test_means_are_over_images_and_networks() -> None:
    final, between = np.random.default_rng(0).uniform(-1, 1, (2, 3, 10))
    check = found(final, between)
    [result] = check.verdicts
    assert result.correlation.estimate == pytest.approx(final.mean())
    assert result.between_random.estimate == pytest.approx(between.mean())
    assert result.excess.estimate == pytest.approx(final.mean() - between.mean())
    assert [interval.estimate for interval in check.curve(0)] == pytest.approx([0.5, final.mean()])
    assert check.curve(0)[1].high == pytest.approx(result.correlation.high, abs=0.05), "the verdict leaves out what has no pair"
    assert check.between_random(0) == result.between_random


def test_intervals_are_over_images_and_networks() -> None:
    images_differ = found([WIDE] * 2, [[0.0] * 16]).verdicts[0].excess
    networks_differ = found(np.tile([[0.0], [0.2], [0.4], [0.6]], 8), np.zeros((6, 8))).verdicts[0].excess
    # A mean of 16 images of 0 or 0.4 has a standard deviation of 0.2 / 4, one of four networks of 0 to 0.6 has 0.224 / 2.
    for excess, mean, half in ((images_differ, 0.2, 0.1), (networks_differ, 0.3, 0.2)):
        assert excess.estimate == pytest.approx(mean)
        assert (excess.low, excess.high) == pytest.approx((mean - half, mean + half), abs=0.051)


def test_pairs_of_networks_count_as_often_as_both_were_drawn() -> None:
    # Networks 0 and 1 resemble each other, network 2 neither: pairs (0, 1), (0, 2), (1, 2). Of the 27 samples of three
    # networks, 3 hold one network only and are left out; the others have a share of 1 (6 of 24: only 0 and 1), 0 (12: one
    # of them and network 2) or a third (6: all three).
    between = found(np.zeros((3, 8)), np.tile([[1.0], [0.0], [0.0]], 8)).between_random(0)
    assert between == Interval(pytest.approx(1 / 3), 0, 1)


def test_constant_maps_are_left_out_of_means_and_of_pairs() -> None:
    final = [[0.2, 0.4, NAN, 0.5, 0.1, 0.1, 0.1], [NAN, 0.2, NAN, 0.5, 0.1, 0.1, 0.1]]
    check = found(final, [[0.1, 0.1, 0.9, NAN, 0.1, 0.1, 0.1]])
    [result] = check.verdicts
    # Images 2 and 3 have no pair; the five left have 0.2, 0.3, 0.1, 0.1, 0.1, and 0.1 each between random networks.
    assert result.usable == 5
    assert result.correlation.estimate == pytest.approx(0.16)
    assert result.between_random.estimate == pytest.approx(0.1)
    assert result.excess.estimate == pytest.approx(0.06)
    assert [interval.estimate for interval in check.curve(0)] == pytest.approx([0.5, (0.2 + 0.3 + 0.5 + 0.3) / 6])


@pytest.mark.parametrize(
    ("count", "constant", "outcome"),
    [(5, 0, "passes"), (4, 0, "undecided"), (12, 6, "passes"), (12, 7, "undecided"), (6, 6, "undecided")],
)
def test_few_images_decide_nothing(count: int, constant: int, outcome: str) -> None:
    values = [NAN] * constant + [0.0] * (count - constant)
    check = found([values] * 2, [values])
    [result] = check.verdicts
    assert (result.outcome, result.usable, result.count) == (outcome, count - constant, count)
    assert result.why == ("too many constant maps" if outcome == "undecided" else "changes with the weights")
    if outcome == "undecided":
        images = f"only {count - constant} of {count} images have maps that are not constant."
        assert result.reading() == f"gradcam at layer4 is undecided: {images}"
    if constant == count:
        assert np.isnan([result.excess.estimate, check.between_random(0).low]).all()


@pytest.mark.parametrize(("first", "specific"), [(1.0, False), (0.9921875, False), (0.984375, True), (0.0, True), (NAN, True)])
def test_maps_that_the_output_layer_does_not_change_are_not_class_specific(first: float, specific: bool) -> None:
    result = verdict(0.0, 0.0, first)
    assert result.class_specific is specific
    assert result.reading().endswith("redrawing only the output layer leaves its maps as they were.") is not specific


def test_sentences_say_the_verdict_with_its_numbers() -> None:
    assert verdict(0.25, 0.1875).reading() == (
        "gradcam at layer4 passes: random networks' maps have a rank correlation of 0.25 (95 % interval 0.25 to 0.25, limit 0.7) "
        "with the trained network's and of 0.19 with each other, a difference of 0.06 (95 % interval 0.06 to 0.06, limit 0.1)."
    )
    unspecific = verdict(1.0, 1.0, 1.0, method="edges", layer="").reading()
    assert unspecific.startswith("edges fails: random networks' maps have a rank correlation of 1.00 (95 % interval 1.00 to")
    assert unspecific.endswith(
        "limit 0.1). It is not class-specific: redrawing only the output layer leaves its maps as they were."
    )
    result = dataclasses.replace(verdict(0.25, 0.25), outcome="undecided", excess=Interval(0.05, -0.125, 0.25))
    assert result.reading().startswith("gradcam at layer4 is undecided: random networks' maps have")
    assert result.reading().endswith(
        "a difference of 0.05 (95 % interval -0.12 to 0.25, limit 0.1). An interval reaches across its limit: take more draws or "
        "images."
    )


def test_the_table_says_each_verdict_with_its_numbers_and_why() -> None:
    table = found([WIDE] * 2, [[0.125] * 16]).table()
    [(method, layer, outcome, correlation, excess, why)] = table.rows
    assert (method, layer, outcome, why) == ("gradcam", "layer4", "undecided", "limit inside the interval")
    assert (correlation.estimate, excess.estimate) == (pytest.approx(0.2), pytest.approx(0.075))
    assert [column.name for column in table.columns] == ["method", "layer", "verdict", "correlation", "excess", "why"]


def test_the_reading_counts_the_verdicts_and_names_those_that_do_not_pass() -> None:
    passing, failing = verdict(0.0, 0.0), verdict(1.0, 1.0, 1.0, method="edges")
    undecided = verdict(NAN, NAN, method="flat")
    check = found([[0.0] * 6] * 2, [[0.0] * 6])
    check.__dict__["verdicts"] = (passing, passing)  # where the cached property keeps them
    assert check.reading() == "2 of 2 maps pass."
    check.__dict__["verdicts"] = (passing, failing, undecided)
    assert check.reading() == (
        "1 of 3 maps passes; 1 is undecided (flat at layer4), for which more draws or images are needed; 1 fails (edges at "
        "layer4); edges is not class-specific: redrawing only the output layer changes no map."
    )
