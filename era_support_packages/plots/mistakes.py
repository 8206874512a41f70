"""Figures of mistakes and of calibration: what `mistakes` and `calibration` found, drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from era_support_packages.plots.images import image_grid
from era_support_packages.plots.panels import check_images, panel_layout, panel_width, row_labels
from era_support_packages.plots.style import (
    BLUE,
    FAINT,
    GRAY,
    GREEN,
    INK,
    MAX_IMAGES,
    ORANGE,
    VERMILLION,
    WIDTH,
    new_figure,
    percent_text,
    styled,
)

if TYPE_CHECKING:
    from era_support_packages.datasets.streaming import Pixels
    from era_support_packages.evaluation.calibration import Calibration, Reliability
    from era_support_packages.evaluation.intervals import Interval
    from era_support_packages.evaluation.mistakes import ClassScores, ConfusedPair, ConfusedPairs, LabelCandidates
    from era_support_packages.evaluation.predictions import Predictions

MAX_CLASSES = 50  # rows of scores that still fit on a page
MAX_EXAMPLES = 8  # in smaller panels the labels of two rows would meet

# ---- calibration -------------------------------------------------------------------------------------------------------


@styled
def reliability_diagram(calibration: Calibration, title: str) -> Figure:
    """Accuracy against confidence, and the gap between them bin by bin, before and after temperature scaling.

    Above, each bin of as many images lies at its mean confidence, with the 95 % interval of its accuracy and a bar to the
    diagonal, where the two are equal. Below, the same gaps side by side: near 100 % the bins lie too close to be told apart.
    Where no temperature could be fitted, there is no column for after.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> from era_support_packages.evaluation import calibrate
    >>> labels = np.arange(200) % 2
    >>> logits = np.random.default_rng(0).normal(1.5 * np.eye(2)[labels])
    >>> calibration = calibrate(Predictions(logits, labels, ("cat", "dog")), bins=4)
    >>> figure = plots.reliability_diagram(calibration, "Cats and dogs")
    >>> len(figure.axes)  # before and after temperature scaling, with the gaps below
    4
    """
    columns = [("as predicted", calibration.before)]
    if calibration.after is not None and calibration.temperatures is not None:
        first, second = calibration.temperatures
        columns.append((f"after temperature scaling (T = {first:.2f} and {second:.2f})", calibration.after))
    figure = new_figure(WIDTH if len(columns) == 2 else WIDTH / 2, 7.2, title)
    grid = figure.subplots(2, len(columns), squeeze=False, sharey="row", height_ratios=[2, 1])
    for (above, below), (name, result) in zip(grid.T, columns, strict=True):
        above.set_title(f"{name}, cross entropy {result.cross_entropy:.3f}", loc="left")
        _draw_reliability(above, result)
        _draw_gaps(below, result)
    grid[0, 0].set_ylabel("accuracy (percent)")
    grid[1, 0].set_ylabel("confidence minus\naccuracy (points)")
    reach = max(np.abs(_gap_ends(result)).max() for _, result in columns)
    grid[1, 0].set_ylim(-1.05 * reach, 1.05 * reach)
    handles = [
        Line2D([], [], color=GRAY, linestyle="--", label="perfectly calibrated"),
        Line2D([], [], color=INK, marker="o", markersize=4, linewidth=1, label="a bin, 95 % interval"),
        Patch(color=VERMILLION, label="gap: overconfident"),
        Patch(color=BLUE, label="gap: underconfident"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if len(columns) == 2 else 2)
    return figure


def _draw_reliability(axes: Axes, result: Reliability) -> None:
    """Accuracy of each bin at its mean confidence, in percent, with the expected calibration error (ECE)."""
    confidences, accuracies = 100 * result.confidences, 100 * result.accuracies
    axes.grid(True)
    axes.plot([0, 100], [0, 100], color=GRAY, linestyle="--", linewidth=1.2)
    axes.vlines(confidences, accuracies, confidences, colors=_gap_colors(result), linewidth=5, alpha=0.85)
    ends = 100 * result.accuracy_intervals.T
    axes.vlines(confidences, *ends, color=INK, linewidth=1)
    axes.plot(confidences, accuracies, "o", color=INK, markersize=4)
    axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence (percent)")
    fewest, most = int(result.counts.min()), int(result.counts.max())
    each = _image_count(most) if fewest == most else f"{fewest:,} or {_image_count(most)}"
    bins = len(result.counts)
    lines = [
        f"ECE {_percent_interval(result.error)}",
        f"perfectly calibrated: {_percent_interval(result.calibrated_error)}",
        f"{bins} bin{'s' * (bins > 1)} of {each}",
    ]
    box = {"facecolor": "white", "edgecolor": FAINT, "boxstyle": "round,pad=0.4"}
    if np.mean(accuracies - confidences) > 0:  # the points lie in the upper left half, so the box goes into the lower right
        place: dict[str, Any] = {"x": 0.97, "y": 0.03, "ha": "right", "va": "bottom"}
    else:
        place = {"x": 0.03, "y": 0.97, "ha": "left", "va": "top"}
    axes.text(**place, s="\n".join(lines), transform=axes.transAxes, bbox=box, zorder=3)


def _draw_gaps(axes: Axes, result: Reliability) -> None:
    """Confidence minus accuracy of each bin in points, bin beside bin, with the interval that the accuracy gives it."""
    places = np.arange(len(result.counts))
    axes.bar(places, 100 * result.gaps, color=_gap_colors(result), width=0.8)
    axes.vlines(places, *_gap_ends(result), color=INK, linewidth=1)
    axes.axhline(0, color=GRAY, linewidth=1)
    axes.grid(True, axis="y")
    named = places[:: math.ceil(len(places) / 15)]
    axes.set_xticks(named, [f"{100 * confidence:.0f}" for confidence in result.confidences[named]])
    axes.set(xlim=(-0.6, len(places) - 0.4), xlabel="mean confidence of the bin (percent)")


def _gap_ends(result: Reliability) -> np.ndarray:
    """The interval of each gap in points, (2, B)."""
    return 100 * (result.confidences[:, None] - result.accuracy_intervals[:, ::-1]).T


def _gap_colors(result: Reliability) -> list[str]:
    return [VERMILLION if gap > 0 else BLUE for gap in result.gaps]


def _percent_interval(interval: Interval) -> str:
    return f"{100 * interval.estimate:.1f} % (95 %: {100 * interval.low:.1f} to {100 * interval.high:.1f})"


# ---- scores by class ---------------------------------------------------------------------------------------------------


@styled
def class_scores(scores: ClassScores, title: str) -> Figure:
    """Precision, recall and F1 of every class, lowest F1 first, with the mean F1; of more than 50 classes the lowest 50.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> from era_support_packages.evaluation import class_scores
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> figure = plots.class_scores(class_scores(said), "Cats and dogs")
    >>> figure.get_suptitle()
    'Cats and dogs'
    """
    shown = scores.order()[:MAX_CLASSES]
    rows = np.arange(len(shown))
    figure = new_figure(8.0, 1.1 + 0.28 * len(shown), title)
    axes = figure.subplots()
    both = 100 * np.stack([scores.precision[shown], scores.recall[shown]])
    axes.hlines(rows, both.min(axis=0), both.max(axis=0), color=FAINT, linewidth=2, zorder=1)
    for name, values, marker, color in (
        ("precision", scores.precision, "<", BLUE),
        ("recall", scores.recall, ">", ORANGE),
        ("F1", scores.f1, "o", INK),
    ):
        axes.plot(100 * values[shown], rows, marker, color=color, markersize=6, label=name)
    mean = 100 * scores.macro[2]
    axes.axvline(mean, color=GREEN, linewidth=1.4, label=f"mean F1 over classes {mean:.1f} %", zorder=0.5)
    names = [f"{scores.classes[index]} ({_image_count(int(scores.support[index]))})" for index in shown]
    axes.set_yticks(rows, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    missing = max(5.0, 100 - both.min(where=np.isfinite(both), initial=100))  # at most, of 100 %, where the axis ends
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="percent", xlim=(100 - 1.05 * missing, 100 + 0.03 * missing))
    if len(shown) < len(scores.classes):
        axes.set_title(f"the {len(shown)} lowest of {len(scores.classes)} classes", loc="right", color=GRAY)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _image_count(count: int) -> str:
    return "no images" if count == 0 else "1 image" if count == 1 else f"{count:,} images"


# ---- images ------------------------------------------------------------------------------------------------------------


@styled
def confused_pairs(confused: ConfusedPairs, images: Pixels, title: str, examples: int = 6) -> Figure:
    """A row a pair, most frequent first: how many images of one class are taken for the other, and the most confident ones.

    `images` uint8 (N, H, W, 3), not normalised: all images of the split; `examples` 1 to 8 a row. Raises `ValueError` for
    anything else, or where there is no mistake.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> from era_support_packages.evaluation import most_confused
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> images = np.zeros((4, 8, 8, 3), np.uint8)
    >>> figure = plots.confused_pairs(most_confused(said), images, "Cats and dogs")
    >>> figure.get_suptitle()
    'Cats and dogs'
    """
    _check_split(images, confused.total)
    if not confused.pairs:
        raise ValueError(f"There is no mistake to draw: all {confused.total:,} images are classified correctly.")
    if examples not in range(1, MAX_EXAMPLES + 1):
        raise ValueError(f"examples is {examples}; it must be a whole number from 1 to {MAX_EXAMPLES}.")
    columns = min(examples, max(pair.count for pair in confused.pairs))
    labels, left = row_labels([_pair_label(pair, confused.classes) for pair in confused.pairs])
    panel = panel_width([1] * columns, largest=1.3, left=left)
    layout = panel_layout(title, panel, images.shape[1:3], [1] * columns, [1] * len(confused.pairs), left=left)
    for row, pair in enumerate(confused.pairs):
        shown = zip(pair.indices[:columns], pair.confidences[:columns], strict=True)
        for column, (index, confidence) in enumerate(shown):
            layout.draw(row, column, images[index], f"{percent_text(confidence)} confident", labels[row] if column == 0 else "")
    return layout.figure


def _pair_label(pair: ConfusedPair, classes: tuple[str, ...]) -> str:
    share = percent_text(pair.share.estimate)
    return f"{classes[pair.actual]} taken for {classes[pair.predicted]}\n{pair.count:,} of {pair.support:,}\n({share})"


@styled
def top_losses(predictions: Predictions, images: Pixels, title: str, count: int = 25) -> Figure:
    """The images with the highest loss, right or wrong, each with its loss, the predicted class and the actual one.

    `images` uint8 (N, H, W, 3), not normalised: all images of the split; `count` 1 to 400. Raises `ValueError` for anything
    else.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> images = np.zeros((4, 8, 8, 3), np.uint8)
    >>> figure = plots.top_losses(said, images, "The highest losses", count=2)
    >>> len(figure.axes)
    2
    """
    _check_split(images, len(predictions))
    shown = predictions.top_losses(count)
    names, probabilities = predictions.classes, predictions.probabilities
    captions = []
    for index in shown:
        predicted, actual = predictions.predicted[index], predictions.actual[index]
        captions.append(
            f"predicted {names[predicted]} ({percent_text(probabilities[index, predicted])})\n"
            f"actual {names[actual]} ({percent_text(probabilities[index, actual])})\n"
            f"loss {predictions.losses[index]:.2f}"
        )
    return image_grid(images[shown], captions, title)


@styled
def suspicious_labels(candidates: LabelCandidates, images: Pixels, title: str, count: int = 25) -> Figure:
    """Labels worth a look, the least probable first: each image with its label and what the network calls it instead.

    `images` uint8 (N, H, W, 3), not normalised: all images of the split; `count` 1 to 400. Raises `ValueError` for anything
    else, or where there is no candidate.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> from era_support_packages.evaluation import suspicious_labels
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> images = np.zeros((4, 8, 8, 3), np.uint8)
    >>> figure = plots.suspicious_labels(suspicious_labels(said), images, "Labels worth a look")
    >>> figure.get_suptitle()
    'Labels worth a look'
    """
    _check_split(images, candidates.total)
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least 1 image.")
    if not len(candidates.indices):
        raise ValueError(
            f"There is nothing to draw: no label of the {candidates.total:,} images is contradicted with confidence."
        )
    names = candidates.classes
    captions = [
        f"labelled {names[label]} ({percent_text(of_label)})\nnetwork: {names[suggested]} ({percent_text(of_suggested)})"
        for label, suggested, (of_label, of_suggested) in zip(
            candidates.labels[:count], candidates.suggested[:count], candidates.probabilities[:count], strict=True
        )
    ]
    return image_grid(images[candidates.indices[:count]], captions, title)


def _check_split(images: Pixels, expected: int) -> None:
    """`images` are the images of the split that was predicted, as pictures."""
    check_images(images[:1], "images", limit=MAX_IMAGES)
    if len(images) != expected:
        raise ValueError(f"images holds {len(images):,} images, but {expected:,} were predicted; give all images of that split.")
