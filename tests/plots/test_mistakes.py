"""Figures of mistakes: what they show is asserted on the drawn objects, and every text has its room."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from figure_checks import outside_or_overlapping
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from era_support_packages.evaluation.calibration import Calibration, calibrate
from era_support_packages.evaluation.mistakes import LabelCandidates, class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.plots import mistakes as mistake_figures
from era_support_packages.plots.style import BLUE, INK, ORANGE, VERMILLION

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + "mistakes of the test split, the most confident ones first, " * 3


def random_predictions(count: int = 200, classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Right in about two of three images."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % len(classes)
    logits = generator.normal(size=(count, len(classes)))
    logits[np.arange(count), labels] += 2
    return Predictions(2 * logits, labels, classes)


def two_classes() -> Predictions:
    """Two cats and two dogs: a cat taken for a dog with 0.9, the others right with 0.8, 0.6 and 0.6."""
    of_cats = np.array([0.1, 0.8, 0.4, 0.4])
    return Predictions(np.log(np.stack([of_cats, 1 - of_cats], axis=1)), np.array([0, 0, 1, 1]), ("cat", "dog"))


def all_right(count: int = 12) -> Predictions:
    labels = np.arange(count) % 3
    return Predictions(3.0 * np.eye(3)[labels], labels, ("a", "b", "c"))


def some_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())


def line(axes: Axes, label: str) -> np.ndarray:
    [found] = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return found.get_xydata()


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- calibration -------------------------------------------------------------------------------------------------------


def test_the_reliability_diagram_shows_each_bin_before_and_after() -> None:
    calibration = calibrate(random_predictions(), draws=20)
    figure = mistake_figures.reliability_diagram(calibration, "Reliability")
    assert figure.get_suptitle() == "Reliability"
    before, after, gaps_before, gaps_after = figure.axes
    for above, below, result in (
        (before, gaps_before, calibration.before),
        (after, gaps_after, calibration.after),
    ):
        points = [drawn for drawn in above.lines if drawn.get_marker() == "o"]
        np.testing.assert_allclose(points[0].get_xydata(), 100 * np.stack([result.confidences, result.accuracies], axis=1))
        bars, whiskers = above.collections
        expected = 100 * np.stack([result.accuracies, result.confidences], axis=1)
        np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], expected)
        np.testing.assert_allclose([segment[:, 1] for segment in whiskers.get_segments()], 100 * result.accuracy_intervals)
        np.testing.assert_allclose([bar.get_height() for bar in below.patches], 100 * result.gaps)
        [ends] = below.collections
        low, high = 100 * (result.confidences - result.accuracy_intervals.T[::-1])
        np.testing.assert_allclose([segment[:, 1] for segment in ends.get_segments()], np.stack([low, high], axis=1))
    assert gaps_before.get_ylim() == gaps_after.get_ylim()
    assert legend_of(figure) == [
        "perfectly calibrated",
        "a bin, 95 % interval",
        "gap: overconfident",
        "gap: underconfident",
    ]
    colors = [handle.get_facecolor()[:3] for handle in figure.legends[0].legend_handles[2:]]
    np.testing.assert_allclose(colors, [[0xD5 / 255, 0x5E / 255, 0], [0, 0x72 / 255, 0xB2 / 255]])
    assert (VERMILLION, BLUE) == ("#D55E00", "#0072B2")


def test_the_reliability_diagram_gives_the_error_its_interval_and_the_bins() -> None:
    calibration = calibrate(random_predictions(), draws=20)
    figure = mistake_figures.reliability_diagram(calibration, "t")
    before, after = figure.axes[:2]
    first, second = calibration.temperatures
    for axes, result, name in (
        (before, calibration.before, "as predicted"),
        (after, calibration.after, f"after temperature scaling (T = {first:.2f} and {second:.2f})"),
    ):
        error, chance = (
            f"{100 * found.estimate:.1f} % (95 %: {100 * found.low:.1f} to {100 * found.high:.1f})"
            for found in (result.error, result.calibrated_error)
        )
        assert axes.get_title(loc="left") == f"{name}, cross entropy {result.cross_entropy:.3f}"
        assert axes.texts[0].get_text() == f"ECE {error}\nperfectly calibrated: {chance}\n15 bins of 13 or 14 images"


def test_bars_are_of_the_color_of_their_sign() -> None:
    given = two_classes()  # bins of one image: 0.6, 0.6 and 0.8 right, 0.9 wrong
    figure = mistake_figures.reliability_diagram(calibrate(given, draws=5), "t")
    below = figure.axes[1]
    assert [bar.get_height() > 0 for bar in below.patches] == [False, False, False, True]
    np.testing.assert_allclose(
        [bar.get_facecolor()[:3] for bar in below.patches], [[0, 0x72 / 255, 0xB2 / 255]] * 3 + [[0xD5 / 255, 0x5E / 255, 0]]
    )
    assert [label.get_text() for label in below.get_xticklabels()] == ["60", "60", "80", "90"]
    assert figure.axes[0].texts[0].get_text().endswith("\n4 bins of 1 image")


def without_after() -> Calibration:
    return calibrate(all_right(), draws=5)


def test_where_nothing_could_be_scaled_there_is_one_column() -> None:
    figure = mistake_figures.reliability_diagram(without_after(), "t")
    assert len(figure.axes) == 2
    assert figure.get_figwidth() == 5
    assert figure.axes[0].get_title(loc="left").startswith("as predicted, cross entropy ")


def test_many_bins_are_named_at_intervals() -> None:
    figure = mistake_figures.reliability_diagram(calibrate(random_predictions(), bins=40, draws=5), "t")
    assert len(figure.axes[2].patches) == 40
    assert len(figure.axes[2].get_xticks()) == 14  # every third


# ---- scores by class ---------------------------------------------------------------------------------------------------


def test_the_scores_are_rows_from_the_lowest_f1_to_the_highest() -> None:
    given = random_predictions()
    scores = class_scores(given)
    figure = mistake_figures.class_scores(scores, "Scores")
    [axes] = figure.axes
    order = scores.order()
    rows = np.arange(10)
    for name, values in (("precision", scores.precision), ("recall", scores.recall), ("F1", scores.f1)):
        np.testing.assert_allclose(line(axes, name), np.stack([100 * values[order], rows], axis=1))
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{CLASSES[index]} (20 images)" for index in order]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is at the top"
    mean = 100 * scores.f1.mean()
    assert legend_of(figure) == ["precision", "recall", "F1", f"mean F1 over classes {mean:.1f} %"]
    assert line(axes, f"mean F1 over classes {mean:.1f} %")[0, 0] == pytest.approx(mean)
    colors = [drawn.get_color() for drawn in axes.lines[:3]]
    assert colors == [BLUE, ORANGE, INK]
    assert axes.get_title(loc="right") == ""


def test_a_class_without_images_says_so() -> None:
    given = two_classes()
    scores = class_scores(
        Predictions(np.pad(given.logits, ((0, 0), (0, 1)), constant_values=-9), given.labels, ("cat", "dog", "x"))
    )
    [axes] = mistake_figures.class_scores(scores, "t").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat (2 images)", "dog (2 images)", "x (no images)"]


def test_of_many_classes_the_lowest_are_shown_and_it_says_so() -> None:
    classes = tuple(f"class_{index:02}" for index in range(60))
    scores = class_scores(random_predictions(300, classes))
    [axes] = mistake_figures.class_scores(scores, "t").axes
    assert len(axes.get_yticks()) == 50
    assert axes.get_title(loc="right") == "the 50 lowest of 60 classes"
    assert line(axes, "F1")[:, 0].max() <= 100 * np.sort(scores.f1)[50]


# ---- images ------------------------------------------------------------------------------------------------------------


def test_the_confused_pairs_are_rows_of_their_most_confident_mistakes() -> None:
    given, images = random_predictions(), some_images(200)
    confused = most_confused(given, count=3)
    figure = mistake_figures.confused_pairs(confused, images, "Pairs", examples=2)
    assert len(figure.axes) == 6
    for row, pair in enumerate(confused.pairs):
        for column in range(2):
            axes = figure.axes[2 * row + column]
            assert np.array_equal(pixels(axes), images[pair.indices[column]])
            assert axes.get_title() == f"{100 * pair.confidences[column]:.0f} % confident"
        label = figure.axes[2 * row].get_ylabel().replace("\n", " ")
        share = 100 * pair.share.estimate
        expected = f"{CLASSES[pair.actual]} taken for {CLASSES[pair.predicted]} {pair.count} of 20 ({share:.0f} %)"
        assert label == expected
        assert figure.axes[2 * row + 1].get_ylabel() == ""


def test_a_pair_with_fewer_mistakes_than_columns_leaves_the_rest_empty() -> None:
    figure = mistake_figures.confused_pairs(most_confused(two_classes()), some_images(4), "t")
    [axes] = figure.axes
    assert axes.get_title() == "90 % confident"
    assert np.array_equal(pixels(axes), some_images(4)[0])
    assert axes.get_ylabel() == "cat taken for\ndog\n1 of 2\n(50 %)"


def test_the_top_losses_come_with_loss_and_both_classes() -> None:
    images = some_images(4)
    figure = mistake_figures.top_losses(two_classes(), images, "Losses", count=2)
    assert [axes.get_title() for axes in figure.axes] == [
        "predicted dog (90 %)\nactual cat (10 %)\nloss 2.30",
        "predicted dog (60 %)\nactual dog (60 %)\nloss 0.51",
    ]
    assert np.array_equal(pixels(figure.axes[0]), images[0])
    assert np.array_equal(pixels(figure.axes[1]), images[2])


def candidates_of_two() -> LabelCandidates:
    """Of dogs at 0.6 the network says 0.6 on average: the cat taken for a dog with 0.9 is worth a look."""
    return suspicious_labels(two_classes())


def test_the_labels_worth_a_look_come_with_both_probabilities() -> None:
    figure = mistake_figures.suspicious_labels(candidates_of_two(), some_images(4), "Labels")
    [axes] = figure.axes
    assert axes.get_title() == "labelled cat (10 %)\nnetwork: dog (90 %)"
    assert np.array_equal(pixels(axes), some_images(4)[0])


def test_only_as_many_labels_as_asked_for_are_shown() -> None:
    given = random_predictions()
    candidates = suspicious_labels(given)
    assert len(candidates.indices) > 3
    figure = mistake_figures.suspicious_labels(candidates, some_images(200), "t", count=3)
    for axes, index in zip(figure.axes, candidates.indices[:3], strict=True):
        assert np.array_equal(pixels(axes), some_images(200)[index])


# ---- one style, and checks ---------------------------------------------------------------------------------------------


FIGURES: dict[str, Callable[[], Figure]] = {
    "reliability": lambda: mistake_figures.reliability_diagram(calibrate(random_predictions(), draws=5), LONG_TITLE),
    "reliability, one column": lambda: mistake_figures.reliability_diagram(without_after(), LONG_TITLE),
    "scores": lambda: mistake_figures.class_scores(class_scores(random_predictions()), LONG_TITLE),
    "pairs": lambda: mistake_figures.confused_pairs(most_confused(random_predictions()), some_images(200), LONG_TITLE),
    "pairs, many examples": lambda: mistake_figures.confused_pairs(
        most_confused(
            random_predictions(300, ("aquarium_fish", "caterpillar_tractor", "sweet_pepper")),
        ),
        some_images(300),
        "t",
        examples=8,
    ),
    "losses": lambda: mistake_figures.top_losses(random_predictions(), some_images(200), LONG_TITLE, 7),
    "labels": lambda: mistake_figures.suspicious_labels(suspicious_labels(random_predictions()), some_images(200), LONG_TITLE, 6),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_is_whole_legible_and_free(name: str) -> None:
    figure = FIGURES[name]()
    assert outside_or_overlapping(figure) == []
    assert figure.get_figwidth() <= 10
    assert min(text.get_size() for text in figure.findobj(Text)) >= 9


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: mistake_figures.top_losses(two_classes(), some_images(3), "t"),
            "images holds 3 images, but 4 were predicted; give all images of that split.",
        ),
        (
            lambda: mistake_figures.confused_pairs(most_confused(two_classes()), some_images(5), "t"),
            "images holds 5 images, but 4 were predicted; give all images of that split.",
        ),
        (
            lambda: mistake_figures.suspicious_labels(candidates_of_two(), some_images(5), "t"),
            "images holds 5 images, but 4 were predicted; give all images of that split.",
        ),
        (
            lambda: mistake_figures.top_losses(two_classes(), np.zeros((4, 3, 8, 8), np.float32), "t"),
            "images must be uint8 of shape (N, H, W, 3), not normalised; got float32 of shape (1, 3, 8, 8).",
        ),
        (
            lambda: mistake_figures.top_losses(two_classes(), some_images(4), "t", count=0),
            "count is 0; ask for at least 1 image.",
        ),
        (
            lambda: mistake_figures.suspicious_labels(candidates_of_two(), some_images(4), "t", count=0),
            "count is 0; ask for at least 1 image.",
        ),
        (
            lambda: mistake_figures.confused_pairs(most_confused(two_classes()), some_images(4), "t", examples=9),
            "examples is 9; it must be a whole number from 1 to 8.",
        ),
        (
            lambda: mistake_figures.confused_pairs(most_confused(all_right()), some_images(12), "t"),
            "there is no mistake to draw: all 12 images are classified correctly.",
        ),
        (
            lambda: mistake_figures.suspicious_labels(suspicious_labels(all_right()), some_images(12), "t"),
            "there is nothing to draw: no label of the 12 images is contradicted with confidence.",
        ),
    ],
)
def test_bad_values_get_one_sentence(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        draw()
