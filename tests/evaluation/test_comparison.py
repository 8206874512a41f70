"""Two networks on the same images, against statsmodels."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from era_support_packages import Predictions
from era_support_packages.evaluation import PairedComparison, paired_share_interval


def paired(first_right, second_right):
    """Two networks of two classes that are right on these images."""
    labels = np.zeros(len(first_right), dtype=np.int64)
    said = [Predictions(np.eye(2)[np.where(right, 0, 1)], labels, ("a", "b")) for right in (first_right, second_right)]
    return PairedComparison("one", "two", *said)


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_test_is_that_of_statsmodels_and_the_interval_that_of_paired_shares(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 200)) < [[0.8], [0.7]]
    found = paired(first, second)
    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    assert found.p_value == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-12)
    assert found.difference == paired_share_interval(first, second)
    assert found.difference.estimate == pytest.approx(second.mean() - first.mean(), abs=1e-12)
    assert [row[1:] for row in found.table().rows] == [(table[0][0], table[1][0]), (table[0][1], table[1][1])]


def test_networks_that_agree_everywhere_part_by_chance_alone():
    right = np.array([True, False, True])
    found = paired(right, right)
    assert (found.p_value, found.difference.estimate) == (1.0, 0)
    assert found.difference.low < -0.3
    assert found.difference.high > 0.3
    assert "p = 1. Both get the same images right, so that nothing tells them apart; other images may" in found.reading()


def test_where_all_images_differ_the_interval_still_has_a_width():
    found = paired(np.zeros(30, bool), np.ones(30, bool)).difference
    assert (found.estimate, found.high) == (1, 1)
    assert found.low == pytest.approx(0.8395, abs=1e-4)  # 1 - sqrt(2) z^2 / (30 + z^2)


@pytest.mark.parametrize(
    ("only_first", "only_second", "points", "said"),
    [
        (
            0,
            5,
            "+1.39 points [+0.07, +3.21], p = 0.062. They cannot be told apart from chance.",
            "for the 5 images that only one",
        ),
        (5, 0, "-1.39 points [-3.21, -0.07], p = 0.062. They cannot be told apart from chance.", "believe p"),
        (2, 4, "+0.56 points [-1.05, +2.32], p = 0.69. They cannot be told apart from chance.", ""),
        (0, 6, "+1.67 points [+0.28, +3.59], p = 0.031. That is more than chance;", ""),
    ],
)
def test_interval_and_p_never_contradict_each_other_without_a_word(only_first, only_second, points, said):
    first, second = np.ones(360, bool), np.ones(360, bool)
    second[:only_first] = False
    first[only_first : only_first + only_second] = False
    reading = paired(first, second).reading()
    assert f"two against one on the same 360 test images: {points}" in reading
    assert said in reading
    assert ("approximation" in reading) == bool(said)


def test_the_surest_mistake_of_the_other_comes_first():
    labels = np.zeros(4, dtype=np.int64)
    one = Predictions(np.array([[1.0, 0], [1, 0], [0, 1], [1, 0]]), labels, ("a", "b"))
    two = Predictions(np.array([[0.0, 1], [0, 5], [1, 0], [1, 0]]), labels, ("a", "b"))
    found = PairedComparison("one", "two", one, two)
    assert (found.only_first.tolist(), found.only_second.tolist()) == ([1, 0], [2])


@pytest.mark.parametrize("change", ["labels", "classes", "none"])
def test_other_images_are_not_compared(change):
    labels = np.array([0, 1])
    one = Predictions(np.eye(2), labels, ("a", "b"))
    other = {
        "labels": Predictions(np.eye(2), labels[::-1], ("a", "b")),
        "classes": Predictions(np.eye(2), labels, ("a", "c")),
        "none": Predictions(np.eye(2)[:0], labels[:0], ("a", "b")),
    }[change]
    with pytest.raises(ValueError, match="at least one" if change == "none" else "same images"):
        PairedComparison("one", "two", other if change == "none" else one, other)


def test_other_images_with_the_same_labels_are_not_compared():
    labels, pixels = np.array([0, 1]), np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    said = Predictions(np.eye(2), labels, ("a", "b"), pixels)
    assert PairedComparison("one", "two", said, Predictions(np.eye(2), labels, ["a", "b"], pixels.copy())).p_value == 1
    with pytest.raises(ValueError, match="not tested on the same images"):
        PairedComparison("one", "two", said, Predictions(np.eye(2), labels, ("a", "b"), pixels[::-1]))


def test_logits_that_are_not_finite_are_not_compared():
    labels = np.array([0, 1])
    one, diverged = Predictions(np.eye(2), labels, ("a", "b")), Predictions(np.eye(2) * np.nan, labels, ("a", "b"))
    with pytest.raises(ValueError, match=r"^two cannot be compared\. The logits of 2 of 2 images are NaN"):
        PairedComparison("one", "two", one, diverged)
