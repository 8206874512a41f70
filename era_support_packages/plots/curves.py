"""Figures of numbers: the training log, and the results by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

from era_support_packages.plots.panels import check_some
from era_support_packages.plots.style import (
    BLUE,
    FAINT,
    FONT,
    GRAY,
    INK,
    LINE,
    VERMILLION,
    WIDTH,
    new_figure,
    percent_text,
    styled,
    text_width,
)
from era_support_packages.training.history import log_header, log_row, result_line

if TYPE_CHECKING:
    from era_support_packages.evaluation.predictions import Predictions
    from era_support_packages.training.history import EpochRecord, History


# ---- curves ----------------------------------------------------------------------------------------------------------


@styled
def training_curves(history: History, title: str) -> Figure:
    """Loss at the left and accuracy at the right, by epoch, of training and of the split that was looked at after each epoch:
    the test split, or the validation split, and then the test split at the end alone. A change of resolution is marked.

    `history` has records, each with epoch, resolution, train_loss, test_loss, train_accuracy, test_accuracy (percent), and
    validation_loss, validation_accuracy where images are held out.
    Raises ValueError where there is no record.

    >>> from era_support_packages import TrainingConfig, plots
    >>> from era_support_packages.training import EpochRecord, History
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> records = tuple(EpochRecord(epoch, resolution=32, images=1000, seconds=3, **row) for epoch in (1, 2))
    >>> history = History(records, TrainingConfig.preset("cpu"), None, planned=2)  # as `training.fit` makes one
    >>> figure = plots.training_curves(history, "Two epochs")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'accuracy (percent)']
    """
    check_some(history.records, "history.records")
    figure = new_figure(WIDTH, 3.4, title)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    _draw_curves(loss_axes, accuracy_axes, history.records)
    return figure


@styled
def training_log(history: History, title: str) -> Figure:
    """The rows of the training log as printed, above the curves of loss and accuracy.

    `history` as for `training_curves`. Of more than thirty records the first ten and the last twenty are shown, and a line
    says how many are not. Raises ValueError where there is no record.

    >>> from era_support_packages import TrainingConfig, plots
    >>> from era_support_packages.training import EpochRecord, History
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> records = tuple(EpochRecord(epoch, resolution=32, images=1000, seconds=3, **row) for epoch in (1, 2))
    >>> history = History(records, TrainingConfig.preset("cpu"), None, planned=2)  # as `training.fit` makes one
    >>> figure = plots.training_log(history, "Two epochs")
    >>> len(figure.axes)  # the rows, and two panels of curves
    3
    """
    check_some(history.records, "history.records")
    header, lines = log_header(history.records[-1].watched), [log_row(record) for record in history.records]
    if len(lines) > 30:
        lines = [*lines[:10], f"... {len(lines) - 30} of {len(lines)} epochs not shown ...", *lines[-20:]]
    lines += [end] if (end := result_line(history.records)) else []
    size = FONT
    widest = max(text_width(line, size, "DejaVu Sans Mono") for line in [header, *lines])
    size *= min(1.0, 72 * (WIDTH - 1.0) / widest)  # a row too long to fit is shown smaller, not cut
    text_height = (len(lines) + 2.5) * 1.4 * size / 72
    figure = new_figure(WIDTH, text_height + 3.5, title)
    grid = GridSpec(2, 2, figure, height_ratios=[text_height, 3.0])
    axes = figure.add_subplot(grid[0, :])
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(lines) + 2.5, 0), xticks=[], yticks=[])
    axes.axhline(1.25, color=FAINT, linewidth=1)
    for row, line in enumerate([header, *lines]):
        text = axes.text(0, row + (1 if row else 0.6), line, va="center", size=size, family="DejaVu Sans Mono")
        text.set_fontweight("normal" if row else "bold")
        text.set_in_layout(False)
    _draw_curves(figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1]), history.records)
    return figure


# ---- per class -------------------------------------------------------------------------------------------------------


@styled
def confusion_matrix(predictions: Predictions, title: str) -> Figure:
    """Actual classes in rows, predicted ones in columns; the colour is the percentage of the actual class.

    Up to 12 classes a cell gives count and percentage, up to 20 the count, beyond that the colour alone. Raises ValueError
    where the predictions have no labels.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> figure = plots.confusion_matrix(said, "Cats and dogs")
    >>> figure.axes[0].get_xlabel()
    'predicted class'
    """
    counts, classes = predictions.confusion_matrix(), predictions.classes
    number = len(classes)
    percent = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(8.2, max(4.0, 0.72 * number))
    figure = new_figure(side + 1.8, side + 0.6, title)
    axes = figure.subplots()
    norm = PowerNorm(0.5, 0, 100)  # confusions of a few percent are what one looks for: a linear scale hides them
    drawn = axes.imshow(percent, cmap="Blues", norm=norm, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="actual class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _name_cells(axes, classes, side)
    if number <= 20:
        for (row, column), count in np.ndenumerate(counts):
            red, green, blue, _ = drawn.to_rgba(percent[row, column])
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.55
            text = f"{count}\n{percent_text(percent[row, column] / 100)}" if number <= 12 and count else f"{count}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, aspect=30, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("percent of the actual class (square-root scale)")
    bar.outline.set_visible(False)
    return figure


@styled
def class_accuracies(predictions: Predictions, title: str) -> Figure:
    """Accuracy per class as horizontal bars, best first, with the mean over classes.

    A class without images comes last. Raises ValueError where the predictions have no labels.

    >>> import numpy as np
    >>> from era_support_packages import Predictions, plots
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> figure = plots.class_accuracies(said, "Cats and dogs")
    >>> [name.get_text() for name in figure.axes[0].get_yticklabels()]
    ['cat', 'dog']
    """
    accuracies, classes = predictions.class_accuracies(), predictions.classes
    known = np.isfinite(accuracies)
    order = sorted(range(len(classes)), key=lambda index: -accuracies[index] if known[index] else math.inf)
    columns = min(3, math.ceil(len(classes) / 50))
    per_column = math.ceil(len(classes) / columns)
    figure = new_figure(8.0 if columns == 1 else WIDTH, 0.8 + per_column * (0.3 if per_column <= 20 else 0.17), title)
    for column, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = order[column * per_column : (column + 1) * per_column]
        lengths = np.nan_to_num(accuracies[part], nan=0.0)
        axes.barh(range(len(part)), lengths, height=0.8, color=BLUE)
        for row, index in enumerate(part):
            text = f"{accuracies[index]:.1f} %" if known[index] else "no images"
            inside = lengths[row] > 25  # percent: room for the text; at the foot, where the line of the mean is far
            axes.text(1 if inside else lengths[row] + 1, row, text, va="center", color="white" if inside else INK)
        if known.any():
            mean = accuracies[known].mean()
            axes.axvline(mean, color=VERMILLION, linewidth=1.4, label=f"mean {mean:.1f} %")
        axes.set_yticks(range(len(part)), [classes[index] for index in part])
        axes.set(xlim=(0, 100), ylim=(per_column - 0.4, -0.6), xlabel="accuracy (percent)")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    if known.any():
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower right")
    return figure


# ---- parts of figures ------------------------------------------------------------------------------------------------


def _draw_curves(loss_axes: Axes, accuracy_axes: Axes, records: Sequence[EpochRecord]) -> None:
    """Curves of loss and accuracy by epoch, with the resolution where it changes."""
    epochs = [record.epoch for record in records]
    marked = len(records) <= 30
    watched = "test" if getattr(records[-1], "validation_loss", None) is None else "validation"
    for axes, quantity, unit in ((loss_axes, "loss", ""), (accuracy_axes, "accuracy", " %")):
        for split, color, marker in (("train", BLUE, "o"), (watched, VERMILLION, "s")):
            values = [getattr(record, f"{split}_{quantity}") for record in records]
            last = f"{values[-1]:.2f}{unit}" if unit else f"{values[-1]:.3f}"
            look: dict[str, Any] = {"marker": marker if marked else "", "markersize": 4, "linewidth": 1.8, "color": color}
            axes.plot(epochs, values, label=f"{split}: {last} at the end", **look)
        if watched == "validation" and (value := getattr(records[-1], f"test_{quantity}")) is not None:
            last = f"{value:.2f}{unit}" if unit else f"{value:.3f}"
            axes.plot(epochs[-1:], [value], "D", color=INK, markersize=5, zorder=3, label=f"test: {last}, looked at once")
        axes.grid(True, axis="y")
        axes.set(xlabel="epoch", ylabel=f"{quantity} (percent)" if unit else quantity)
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        # One epoch is a point above another in the middle: "best" would lay the legend on one of them.
        legend = axes.legend(loc="best" if len(records) > 1 else "center right", frameon=True, framealpha=0.9)
        legend.get_frame().set_edgecolor("none")
        _mark_resolutions(axes, records)


def _mark_resolutions(axes: Axes, records: Sequence[EpochRecord]) -> None:
    """A faint line between two epochs of different resolution, and each resolution above where it begins."""
    starts = [i for i, record in enumerate(records) if i == 0 or record.resolution != records[i - 1].resolution]
    if len(starts) == 1:
        return
    level_ends: list[float] = []  # where the text of each level ends, in epochs: labels too close go a level up
    epochs_per_point = len(records) / (72 * 4.2)
    for start in starts:
        edge = records[start].epoch - 0.5
        text = f"{records[start].resolution} px"
        level = next((i for i, end in enumerate(level_ends) if end <= edge), len(level_ends))
        level_ends[level : level + 1] = [edge + (text_width(text) + 6) * epochs_per_point]
        if start:
            axes.axvline(edge, color=FAINT, linewidth=1, zorder=0.5)
        place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (edge, 1), (1, 2 + level * LINE * FONT), color=GRAY, va="bottom", ha="left", **place)


def _name_cells(axes: Axes, classes: Sequence[str], side: float) -> None:
    """Class names along the sides of a matrix; where they are too many, every second name goes to the opposite side."""
    number = len(classes)
    stride = math.ceil(number * 1.15 * FONT / (72 * side))
    rotation = 90 if stride > 1 else 45
    ha = "center" if stride > 1 else "right"
    near = range(0, number, stride)
    look: dict[str, Any] = {"ha": ha, "rotation_mode": "default" if stride > 1 else "anchor"}
    axes.set_xticks(near, [classes[index] for index in near], rotation=rotation, **look)
    axes.set_yticks(near, [classes[index] for index in near])
    if stride > 1:
        far = range(stride // 2, number, stride)
        names = [classes[index] for index in far]
        right, top = axes.secondary_yaxis("right"), axes.secondary_xaxis("top")
        right.set_yticks(far, names)
        top.set_xticks(far, names, rotation=90)
        for extra in (right, top):
            extra.tick_params(length=0)
            extra.spines[:].set_visible(False)
