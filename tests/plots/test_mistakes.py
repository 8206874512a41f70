"""Figures of mistakes: what they show is asserted on the drawn objects."""

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from era_support_packages.evaluation.calibration import calibrate
from era_support_packages.evaluation.mistakes import class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.plots import mistakes as figures
from era_support_packages.plots.style import BLUE, INK, ORANGE, VERMILLION

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Check = Callable[[Callable[[], Figure]], Figure]
LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + " ".join(["mistakes of the test split, the most confident first,"] * 3)


def random_predictions(count: int = 200, classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Right in about two of three images."""
    labels = np.arange(count) % len(classes)
    logits = np.random.default_rng(0).normal(size=(count, len(classes)))
    logits[np.arange(count), labels] += 2
    return Predictions(2 * logits, labels, classes)


def some_images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


MANY, IMAGES, FOUR = random_predictions(), some_images(200), some_images(4)
OF_CATS = np.array([0.1, 0.8, 0.4, 0.4])
TWO_CLASSES = Predictions(np.log(np.stack([OF_CATS, 1 - OF_CATS], axis=1)), np.array([0, 0, 1, 1]), ("cat", "dog"))
"""two cats and two dogs: a cat taken for a dog with 0.9, the others right with 0.8, 0.6 and 0.6"""
ALL_RIGHT = Predictions(3.0 * np.eye(3)[np.arange(12) % 3], np.arange(12) % 3, ("a", "b", "c"))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def shows(figure: Figure, images: np.ndarray) -> bool:
    """Whether it shows these images and no others."""
    return np.array_equal([axes.get_images()[0].get_array() for axes in figure.axes], images)


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_reliability_diagram_shows_each_bin_and_the_error_before_and_after(check_figure: Check) -> None:
    calibration = calibrate(MANY, draws=20)
    figure = check_figure(lambda: figures.reliability_diagram(calibration, LONG_TITLE))
    assert figure.get_suptitle().replace("\n", " ") == LONG_TITLE
    first, second = calibration.temperatures
    names = ("as predicted", f"after temperature scaling (T = {first:.2f} and {second:.2f})")
    results = (calibration.before, calibration.after)
    for above, below, result, name in zip(figure.axes[:2], figure.axes[2:], results, names, strict=True):
        [points] = [drawn for drawn in above.lines if drawn.get_marker() == "o"]
        np.testing.assert_allclose(points.get_xydata(), 100 * np.stack([result.confidences, result.accuracies], axis=1))
        heights = [[ends[:, 1] for ends in lines.get_segments()] for lines in (*above.collections, *below.collections)]
        np.testing.assert_allclose(heights[0], 100 * np.stack([result.accuracies, result.confidences], axis=1))
        np.testing.assert_allclose(heights[1], 100 * result.accuracy_intervals)
        np.testing.assert_allclose([bar.get_height() for bar in below.patches], 100 * result.gaps)
        np.testing.assert_allclose(heights[2], 100 * (result.confidences - result.accuracy_intervals.T[::-1]).T)
        error, chance = (
            f"{100 * found.estimate:.1f} % (95 %: {100 * found.low:.1f} to {100 * found.high:.1f})"
            for found in (result.error, result.calibrated_error)
        )
        assert above.get_title(loc="left") == f"{name}, cross entropy {result.cross_entropy:.3f}"
        assert above.texts[0].get_text() == f"ECE {error}\nperfectly calibrated: {chance}\n15 bins of 13 or 14 images"
    assert figure.axes[2].get_ylim() == figure.axes[3].get_ylim()
    assert legend_of(figure) == ["perfectly calibrated", "a bin, 95 % interval", "gap: overconfident", "gap: underconfident"]
    colors = [handle.get_facecolor()[:3] for handle in figure.legends[0].legend_handles[2:]]
    assert colors == [to_rgb("#D55E00"), to_rgb("#0072B2")] == [to_rgb(VERMILLION), to_rgb(BLUE)]


def test_bars_are_of_the_color_of_their_sign() -> None:
    figure = figures.reliability_diagram(calibrate(TWO_CLASSES, draws=5), "t")  # one image a bin; 0.9 is the wrong one
    below = figure.axes[1]
    assert [bar.get_height() > 0 for bar in below.patches] == [False, False, False, True]
    assert [bar.get_facecolor()[:3] for bar in below.patches] == [to_rgb(BLUE)] * 3 + [to_rgb(VERMILLION)]
    assert [label.get_text() for label in below.get_xticklabels()] == ["60", "60", "80", "90"]
    assert figure.axes[0].texts[0].get_text().endswith("\n4 bins of 1 image")


def test_where_nothing_could_be_scaled_there_is_one_column(check_figure: Check) -> None:
    figure = check_figure(lambda: figures.reliability_diagram(calibrate(ALL_RIGHT, draws=5), LONG_TITLE))
    assert (len(figure.axes), figure.get_figwidth()) == (2, 5)
    assert figure.axes[0].get_title(loc="left").startswith("as predicted, cross entropy ")


def test_many_bins_are_named_at_intervals() -> None:
    axes = figures.reliability_diagram(calibrate(MANY, bins=40, draws=5), "t").axes[2]
    assert (len(axes.patches), len(axes.get_xticks())) == (40, 14), "every third"


def test_the_scores_are_rows_from_the_lowest_f1_to_the_highest(check_figure: Check) -> None:
    scores = class_scores(MANY)
    figure = check_figure(lambda: figures.class_scores(scores, LONG_TITLE))
    [axes] = figure.axes
    order, mean = scores.order(), 100 * scores.f1.mean()
    for line, values in zip(axes.lines[:3], (scores.precision, scores.recall, scores.f1), strict=True):
        np.testing.assert_allclose(line.get_xydata(), np.stack([100 * values[order], np.arange(10)], axis=1))
    assert [line.get_color() for line in axes.lines[:3]] == [BLUE, ORANGE, INK]
    assert axes.lines[3].get_xdata()[0] == pytest.approx(mean)
    names = ["precision", "recall", "F1", f"mean F1 over classes {mean:.1f} %"]
    assert [line.get_label() for line in axes.lines] == legend_of(figure) == names
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"{CLASSES[index]} (20 images)" for index in order]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first row is at the top"
    assert axes.get_title(loc="right") == ""


@pytest.mark.parametrize(("wrong", "from_percent"), [(0, 95), (1, 50)])
def test_the_axis_of_the_scores_ends_at_100_percent(wrong: int, from_percent: float) -> None:
    """With one of two dogs taken for a cat, the recall of dogs is 50 %."""
    logits = np.eye(2)[[0, 0, 1, 1 - wrong]]
    [axes] = figures.class_scores(class_scores(Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))), "t").axes
    first, last = axes.get_xlim()
    assert from_percent - 3 < first < from_percent
    assert 100 < last < 102


def test_a_class_without_images_says_so() -> None:
    logits = np.pad(TWO_CLASSES.logits, ((0, 0), (0, 1)), constant_values=-9)
    [axes] = figures.class_scores(class_scores(Predictions(logits, TWO_CLASSES.labels, ("cat", "dog", "x"))), "t").axes
    assert np.isfinite(axes.get_xlim()).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat (2 images)", "dog (2 images)", "x (no images)"]


def test_of_many_classes_the_lowest_are_shown_and_it_says_so() -> None:
    scores = class_scores(random_predictions(300, tuple(f"class_{index:02}" for index in range(60))))
    [axes] = figures.class_scores(scores, "t").axes
    assert len(axes.get_yticks()) == 50
    assert axes.get_title(loc="right") == "the 50 lowest of 60 classes"
    assert axes.lines[2].get_xdata().max() <= 100 * np.sort(scores.f1)[50]


def test_the_confused_pairs_are_rows_of_their_most_confident_mistakes(check_figure: Check) -> None:
    confused = most_confused(MANY, count=3)
    figure = check_figure(lambda: figures.confused_pairs(confused, IMAGES, LONG_TITLE, examples=2))
    assert shows(figure, IMAGES[[index for pair in confused.pairs for index in pair.indices[:2]]])
    assert titles(figure) == [f"{100 * sure:.0f} % confident" for pair in confused.pairs for sure in pair.confidences[:2]]
    assert [axes.get_ylabel().replace("\n", " ") for axes in figure.axes[::2]] == [
        f"{CLASSES[pair.actual]} taken for {CLASSES[pair.predicted]} {pair.count} of 20 ({100 * pair.share.estimate:.0f} %)"
        for pair in confused.pairs
    ]
    assert [axes.get_ylabel() for axes in figure.axes[1::2]] == [""] * 3


def test_a_pair_with_fewer_mistakes_than_columns_leaves_the_rest_empty() -> None:
    figure = figures.confused_pairs(most_confused(TWO_CLASSES), FOUR, "t")
    assert titles(figure) == ["90 % confident"]
    assert shows(figure, FOUR[:1])
    assert figure.axes[0].get_ylabel() == "cat taken for\ndog\n1 of 2\n(50 %)"


def test_the_top_losses_come_with_loss_and_both_classes() -> None:
    figure = figures.top_losses(TWO_CLASSES, FOUR, "Losses", count=2)
    assert titles(figure) == [
        "predicted dog (90 %)\nactual cat (10 %)\nloss 2.30",
        "predicted dog (60 %)\nactual dog (60 %)\nloss 0.51",
    ]
    assert shows(figure, FOUR[[0, 2]])


def test_the_labels_worth_a_look_come_with_both_probabilities_as_many_as_asked_for() -> None:
    # Of dogs at 0.6 the network says 0.6 on average: the cat taken for a dog with 0.9 is worth a look.
    figure = figures.suspicious_labels(suspicious_labels(TWO_CLASSES), FOUR, "Labels")
    assert titles(figure) == ["labelled cat (10 %)\nnetwork: dog (90 %)"]
    assert shows(figure, FOUR[:1])
    candidates = suspicious_labels(MANY)
    assert len(candidates.indices) > 3
    assert shows(figures.suspicious_labels(candidates, IMAGES, "t", count=3), IMAGES[candidates.indices[:3]])


WIDE = most_confused(random_predictions(300, ("aquarium_fish", "caterpillar_tractor", "sweet_pepper")))


@pytest.mark.parametrize(
    "draw",
    [
        partial(figures.confused_pairs, WIDE, some_images(300), "t", examples=8),
        partial(figures.top_losses, MANY, IMAGES, LONG_TITLE, 7),
        partial(figures.suspicious_labels, suspicious_labels(MANY), IMAGES, LONG_TITLE, 6),
    ],
)
def test_every_text_is_whole_legible_and_free(check_figure: Check, draw: Callable[[], Figure]) -> None:
    check_figure(draw)


LOSSES = partial(figures.top_losses, TWO_CLASSES, title="t")
PAIRS = partial(figures.confused_pairs, most_confused(TWO_CLASSES), title="t")
LABELS = partial(figures.suspicious_labels, suspicious_labels(TWO_CLASSES), title="t")
NUMBER = "images holds {} images, but 4 were predicted; give all images of that split."
PIXELS = "images must be uint8 of shape (N, H, W, 3), not normalised; got float32 of shape (1, 3, 8, 8)."


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (partial(LOSSES, some_images(3)), NUMBER.format(3)),
        (partial(PAIRS, some_images(5)), NUMBER.format(5)),
        (partial(LABELS, some_images(5)), NUMBER.format(5)),
        (partial(LOSSES, np.zeros((4, 3, 8, 8), np.float32)), PIXELS),
        (partial(LOSSES, FOUR, count=0), "count is 0; ask for at least 1 image."),
        (partial(LABELS, FOUR, count=0), "count is 0; ask for at least 1 image."),
        (partial(PAIRS, FOUR, examples=9), "examples is 9; it must be a whole number from 1 to 8."),
        (
            lambda: figures.confused_pairs(most_confused(ALL_RIGHT), some_images(12), "t"),
            "There is no mistake to draw: all 12 images are classified correctly.",
        ),
        (
            lambda: figures.suspicious_labels(suspicious_labels(ALL_RIGHT), some_images(12), "t"),
            "There is nothing to draw: no label of the 12 images is contradicted with confidence.",
        ),
    ],
)
def test_bad_values_get_one_sentence(draw: Callable[[], Figure], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        draw()
