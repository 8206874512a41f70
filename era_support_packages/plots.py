"""Every figure of the project: plain arrays and result values in, a `matplotlib.figure.Figure` out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from era_support_packages.figure_panels import (
    check_count,
    check_ids,
    check_images,
    check_some,
    check_unit_interval,
    extremes_text,
    fit_captions,
    nearest_text,
    overlay,
    panel_layout,
    panel_width,
    row_labels,
    shape_text,
)
from era_support_packages.figure_style import (
    BLUE,
    FAINT,
    FONT,
    GREEN,
    GREY,
    HEAT_COLORMAP,
    INK,
    LINE,
    MAX_BLOCK_COLUMNS,
    MAX_IMAGES,
    MAX_VARIANTS,
    ORANGE,
    PURPLE,
    VERMILLION,
    WIDTH,
    count_lines,
    new_figure,
    save,
    show,
    styled,
    text_width,
)

if TYPE_CHECKING:
    from era_support_packages.lr_finder import RangeTest
    from era_support_packages.training import EpochRecord, History

__all__ = [
    "HEAT_COLORMAP",
    "INK",
    "augmented_grid",
    "class_accuracies",
    "confusion_matrix",
    "gradcam_comparison",
    "gradcam_panels",
    "image_grid",
    "incorrect_predictions",
    "overlay",
    "range_test",
    "save",
    "show",
    "training_curves",
    "training_log",
]


# ---- image grids -----------------------------------------------------------------------------------------------------


@styled
def image_grid(images: np.ndarray, captions: Sequence[str], title: str, columns: int = 5) -> Figure:
    """Images in rows, each under its caption.

    `images` uint8 (N, H, W, 3) RGB with 1 <= N <= 400; `captions` N texts, "" for none; `columns` 1 to 10.
    Raises ValueError for anything else.
    """
    images = check_images(images, "images", limit=MAX_IMAGES)
    check_count(captions, len(images), "captions")
    if columns not in range(1, MAX_BLOCK_COLUMNS + 1):
        raise ValueError(f"columns is {columns}; it must be a whole number from 1 to {MAX_BLOCK_COLUMNS}.")
    columns = min(columns, len(images))
    panel = panel_width([1] * columns, largest=1.9)
    captions = fit_captions(captions, panel)
    rows = [captions[start : start + columns] for start in range(0, len(images), columns)]
    layout = panel_layout(title, panel, images.shape[1:3], [1] * columns, [max(map(count_lines, row)) for row in rows])
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        layout.draw(*divmod(index, columns), image, caption)
    return layout.figure


@styled
def augmented_grid(originals: np.ndarray, variants: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """A row per image: the original, then what augmentation made of it; its caption at the left.

    `originals` uint8 (N, H, W, 3); `variants` uint8 (N, V, H, W, 3) with 1 <= V <= 12; `captions` N texts.
    Raises ValueError for anything else.
    """
    originals = check_images(originals, "originals", limit=MAX_IMAGES)
    variants = np.asarray(variants)
    number, *size = originals.shape
    if variants.ndim != 5 or variants.dtype != np.uint8 or variants[:, 0:0].shape != (number, 0, *size):
        raise ValueError(
            f"variants must be uint8 of shape {shape_text((number, 'V', *size))}, for originals of shape "
            f"{shape_text(originals.shape)}; got {variants.dtype} of shape {shape_text(variants.shape)}."
        )
    if not 1 <= variants.shape[1] <= MAX_VARIANTS:
        raise ValueError(f"variants holds {variants.shape[1]} for each image; give from 1 to {MAX_VARIANTS}.")
    check_count(captions, len(originals), "captions")
    columns = 1 + variants.shape[1]
    labels, left = row_labels(captions)
    panel = panel_width([1] * columns, largest=1.3, left=left)
    headings = fit_captions(["original", *(f"variant {index}" for index in range(1, columns))], panel)
    caption_lines = [max(map(count_lines, headings))] + [0] * (len(originals) - 1)
    layout = panel_layout(title, panel, originals.shape[1:3], [1] * columns, caption_lines, left=left)
    for row, (original, changed, label) in enumerate(zip(originals, variants, labels, strict=True)):
        for column, image in enumerate([original, *changed]):
            layout.draw(row, column, image, headings[column] if row == 0 else "", label if column == 0 else "")
    return layout.figure


def incorrect_predictions(
    images: np.ndarray,
    predicted: np.ndarray,
    confidences: np.ndarray,
    actual: np.ndarray,
    classes: Sequence[str],
    title: str,
    columns: int = 5,
) -> Figure:
    """Wrong predictions, captioned "predicted cat (83 %)" and below it "actual dog".

    `images` uint8 (N, H, W, 3), not normalised; `predicted`, `actual` class ids (N,); `confidences` (N,) in [0, 1], of
    the predicted class. Raises ValueError for shapes, ids or confidences out of range, or a prediction that is right.
    """
    images = check_images(images, "images", limit=MAX_IMAGES)
    predicted = check_ids(predicted, len(images), classes, "predicted")
    actual = check_ids(actual, len(images), classes, "actual")
    confidences = check_unit_interval(confidences, (len(images),), "confidences")
    right = np.flatnonzero(predicted == actual)
    if right.size:
        raise ValueError(
            f"image {right[0]} is not a wrong prediction: predicted and actual are both {classes[actual[right[0]]]}; "
            "leave it out, or draw it with image_grid."
        )
    captions = [
        f"predicted {classes[guess]} ({_percent(confidence)})\nactual {classes[truth]}"
        for guess, confidence, truth in zip(predicted, confidences, actual, strict=True)
    ]
    return image_grid(images, captions, title, columns)


# ---- class activation maps ---------------------------------------------------------------------------------------------


@styled
def gradcam_panels(
    images: np.ndarray,
    maps: np.ndarray,
    layers: Sequence[str],
    predicted: np.ndarray,
    actual: np.ndarray,
    classes: Sequence[str],
    title: str,
    opacity: float = 0.5,
) -> Figure:
    """A column per image: the input, then the map of each layer over it; captions say actual and predicted class.

    `images` uint8 (N, H, W, 3), not normalised; `maps` (N, L, H, W) in [0, 1]; `layers` L labels for the rows;
    `predicted`, `actual` class ids (N,). More than ten images continue in further blocks of rows. Raises ValueError for
    anything else.
    """
    images = check_images(images, "images", limit=MAX_IMAGES // 4)
    check_some(layers, "layers")
    maps = check_unit_interval(maps, (len(images), len(layers), *images.shape[1:3]), "maps")
    predicted = check_ids(predicted, len(images), classes, "predicted")
    actual = check_ids(actual, len(images), classes, "actual")
    blocks = math.ceil(len(images) / MAX_BLOCK_COLUMNS)
    columns = math.ceil(len(images) / blocks)  # blocks of about the same size, instead of ten and a remainder
    labels, left = row_labels(["INPUT", *layers])
    panel = panel_width([1] * columns, largest=1.5, left=left)
    captions = fit_captions(
        [f"actual {classes[truth]}\npredicted {classes[guess]}" for truth, guess in zip(actual, predicted, strict=True)],
        panel,
    )
    caption_lines = ([max(map(count_lines, captions))] + [0] * len(layers)) * blocks
    layout = panel_layout(title, panel, images.shape[1:3], [1] * columns, caption_lines, left=left, colour_bar=True)
    for index, image in enumerate(images):
        block, column = divmod(index, columns)
        first_row = block * len(labels)
        layout.draw(first_row, column, image, captions[index], labels[0] if column == 0 else "")
        for layer, heat in enumerate(maps[index], start=1):
            layout.draw_map(first_row + layer, column, image, heat, opacity, "", labels[layer] if column == 0 else "")
    layout.draw_colour_bar(f"class activation map over the input, {_percent(opacity)} opaque")
    return layout.figure


@styled
def gradcam_comparison(
    images: np.ndarray,
    maps: np.ndarray,
    layers: Sequence[str],
    predicted: np.ndarray,
    actual: np.ndarray,
    confidences: np.ndarray,
    classes: Sequence[str],
    title: str,
    layer: str | None = None,
    opacity: float = 0.5,
) -> Figure:
    """For each image: the input, the map for the predicted class, and the map for the actual class, at one layer.

    `images` uint8 (N, H, W, 3), not normalised; `maps` (N, 2, L, H, W) in [0, 1], for the predicted and then the actual
    class; `layers` L names; `predicted`, `actual` class ids (N,); `confidences` (N, 2) in [0, 1], of the predicted and
    the actual class; `layer` one of `layers`, None for the last. Raises ValueError for anything else.
    """
    images = check_images(images, "images", limit=MAX_IMAGES // 4)
    check_some(layers, "layers")
    maps = check_unit_interval(maps, (len(images), 2, len(layers), *images.shape[1:3]), "maps")
    predicted = check_ids(predicted, len(images), classes, "predicted")
    actual = check_ids(actual, len(images), classes, "actual")
    confidences = check_unit_interval(confidences, (len(images), 2), "confidences")
    layer = layers[-1] if layer is None else layer
    if layer not in layers:
        raise ValueError(f"there is no map of layer {layer!r}; {nearest_text(layer, layers)}.")
    chosen = maps[:, :, list(layers).index(layer)]

    groups = min(len(images), 2 if len(images) <= 10 else 3)  # images side by side, each with its three panels
    ratios = [*[1, 1, 1, 0.25] * groups][:-1]  # a gap between two images
    panel = panel_width(ratios, largest=1.5)
    names = [
        (f"predicted {classes[guess]}\n{_percent(sure[0])}", f"actual {classes[truth]}\n{_percent(sure[1])}")
        for guess, truth, sure in zip(predicted, actual, confidences, strict=True)
    ]
    flat = fit_captions([caption for pair in names for caption in pair], panel)
    rows = math.ceil(len(images) / groups)
    caption_lines = [max(map(count_lines, flat))] * rows
    layout = panel_layout(title, panel, images.shape[1:3], ratios, caption_lines, colour_bar=True)
    for index, image in enumerate(images):
        row, group = divmod(index, groups)
        layout.draw(row, 3 * group, image, "INPUT")
        for target in range(2):
            caption = flat[2 * index + target]
            layout.draw_map(row, 3 * group + 1 + target, image, chosen[index, target], opacity, caption)
    layout.draw_colour_bar(f"class activation map of {layer} over the input, {_percent(opacity)} opaque")
    return layout.figure


# ---- curves ----------------------------------------------------------------------------------------------------------


@styled
def range_test(result: RangeTest, title: str, chosen: float | None = None) -> Figure:
    """The learning-rate range test: raw loss faint, smoothed loss bold, each suggestion and the chosen rate marked.

    `result` has lrs, losses, smoothed, each (K,) with K >= 2, and suggestions by name; losses may be NaN or infinite
    where training diverged. The loss axis is cut above the valley, and the figure says so. Raises ValueError where the
    three arrays do not match, a rate is not positive, or no loss is finite.
    """
    lrs, losses, smoothed = (np.asarray(a, dtype=float) for a in (result.lrs, result.losses, result.smoothed))
    if not (lrs.ndim == 1 and len(lrs) >= 2 and lrs.shape == losses.shape == smoothed.shape):
        raise ValueError(
            "lrs, losses and smoothed must be of one shape (K,) with K of at least 2; "
            f"got {shape_text(lrs.shape)}, {shape_text(losses.shape)} and {shape_text(smoothed.shape)}."
        )
    if not (np.isfinite(lrs).all() and (lrs > 0).all()):
        raise ValueError("lrs must be finite and greater than 0: the axis of learning rates is logarithmic.")
    if chosen is not None and not (math.isfinite(chosen) and chosen > 0):
        raise ValueError(f"chosen is {chosen}; it must be a finite learning rate greater than 0.")
    finite = np.isfinite(smoothed)
    if not finite.any():
        raise ValueError("the range test has no finite loss to draw; start it at a smaller learning rate.")

    figure = new_figure(8.0, 4.2, title)
    axes = figure.subplots()
    axes.grid(True)
    axes.plot(lrs, np.where(np.isfinite(losses), losses, np.nan), color=BLUE, alpha=0.35, linewidth=1, label="raw loss")
    axes.plot(lrs, np.where(finite, smoothed, np.nan), color=BLUE, linewidth=2.2, label="smoothed loss")
    looks = [(GREEN, "o", 11), (ORANGE, "D", 9), (PURPLE, "s", 8), (VERMILLION, "^", 9)]
    for (name, lr), (colour, marker, size) in zip(result.suggestions.items(), itertools.cycle(looks), strict=False):
        if not math.isfinite(lr):  # listed all the same, so that nobody looks for its mark
            axes.plot([], [], marker, color=colour, markerfacecolor="none", label=f"{name}: none")
            continue
        height = np.interp(np.log(lr), np.log(lrs[finite]), smoothed[finite])
        axes.axvline(lr, color=colour, linewidth=1, linestyle=":")
        look = {"color": colour, "markersize": size, "markeredgewidth": 2, "markerfacecolor": "white"}
        axes.plot([lr], [height], marker, zorder=4, label=f"{name} {lr:.3g}", **look)
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=1.6, linestyle="--", zorder=1.5, label=f"chosen {chosen:.3g}")

    bottom, top = _valley_limits(losses, smoothed)
    axes.set_ylim(bottom, top)
    notes = [] if result.suggestions else ["no suggestion: the loss never falls"]
    highest = max(values[np.isfinite(values)].max(initial=-np.inf) for values in (losses, smoothed))
    if highest > top:
        notes.append(f"cut at {top:.3g}: losses reach {highest:.3g}")
    if not np.isfinite(losses).all():
        diverged = lrs[np.flatnonzero(~np.isfinite(losses))[0]]
        axes.axvspan(diverged, lrs.max(), color=FAINT, alpha=0.5, linewidth=0)
        notes.append(f"shaded: no finite loss from {diverged:.3g} on")
    axes.set_title("; ".join(notes), loc="right", color=GREY)
    axes.set_xscale("log")
    decades = np.log10(lrs.max() / lrs.min())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="learning rate (log scale)", ylabel="training loss")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def training_curves(history: History, title: str) -> Figure:
    """Loss at the left and accuracy at the right, train and test, by epoch; a change of resolution is marked.

    `history` has records, each with epoch, resolution, train_loss, test_loss, train_accuracy, test_accuracy (percent).
    Raises ValueError where there is no record.
    """
    check_some(history.records, "history.records")
    figure = new_figure(WIDTH, 3.4, title)
    _draw_curves(*figure.subplots(1, 2), history.records)
    return figure


@styled
def training_log(history: History, rows: Sequence[str], title: str) -> Figure:
    """The rows of the training log as printed, above the curves of loss and accuracy.

    `history` as for `training_curves`; `rows` the header and then one text per record. Of more than thirty records the
    first ten and the last twenty are shown, and a line says how many are not. Raises ValueError where `rows` does not
    go with the records.
    """
    check_some(history.records, "history.records")
    if len(rows) != 1 + len(history.records):
        raise ValueError(f"rows must be a header and a row for each of the {len(history.records)} records; got {len(rows)} rows.")
    header, *lines = rows
    if len(lines) > 30:
        lines = [*lines[:10], f"... {len(lines) - 30} of {len(lines)} epochs not shown ...", *lines[-20:]]
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
        text.set_weight("normal" if row else "bold")
        text.set_in_layout(False)
    _draw_curves(figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1]), history.records)
    return figure


# ---- per class -------------------------------------------------------------------------------------------------------


@styled
def confusion_matrix(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Actual classes in rows, predicted ones in columns; the colour is the percentage of the actual class.

    `counts` integers (C, C), none negative. Up to 12 classes a cell gives count and percentage, up to 20 the count,
    beyond that the colour alone. Raises ValueError for anything else.
    """
    counts = np.asarray(counts)
    check_some(classes, "classes")
    number = len(classes)
    if counts.shape != (number, number) or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise ValueError(
            f"counts must be integers of 0 or more, of shape ({number}, {number}) for {number} classes; "
            f"got {counts.dtype} of shape {shape_text(counts.shape)} with {extremes_text(counts)}."
        )
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
            text = f"{count}\n{_percent(percent[row, column] / 100)}" if number <= 12 and count else f"{count}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, aspect=30, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("percent of the actual class (square-root scale)")
    bar.outline.set_visible(False)
    return figure


@styled
def class_accuracies(accuracies: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Accuracy per class as horizontal bars, best first, with the mean over classes.

    `accuracies` (C,) percent in [0, 100]; NaN for a class without images, which comes last. Raises ValueError for
    anything else.
    """
    check_some(classes, "classes")
    accuracies = np.asarray(accuracies, dtype=float)
    known = np.isfinite(accuracies)
    if accuracies.shape != (len(classes),) or not ((accuracies >= 0) & (accuracies <= 100) | np.isnan(accuracies)).all():
        raise ValueError(
            f"accuracies must be {len(classes)} percentages from 0 to 100, one per class; "
            f"got shape {shape_text(accuracies.shape)} with {extremes_text(accuracies)}."
        )
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


def _valley_limits(losses: np.ndarray, smoothed: np.ndarray) -> tuple[float, float]:
    """Bottom and top of a loss axis that shows the way down to the lowest loss and the first part of the way up."""
    finite = smoothed[np.isfinite(smoothed)]
    lowest = int(finite.argmin())
    low, high = finite[lowest], finite[: lowest + 1].max()
    if high - low < 0.02 * abs(low):  # the loss only rises: show its lower half
        high = max(float(np.median(finite)), low + 0.02 * abs(low) + 1e-9)
    span = high - low
    drawn = np.concatenate([finite, losses[np.isfinite(losses)]])
    top = min(high + 0.5 * span, drawn.max() + 0.05 * span)
    return max(drawn.min(), low - 0.6 * span) - 0.1 * span, top


def _draw_curves(loss_axes: Axes, accuracy_axes: Axes, records: Sequence[EpochRecord]) -> None:
    """Train and test curves of loss and accuracy by epoch, with the resolution where it changes."""
    epochs = [record.epoch for record in records]
    marked = len(records) <= 30
    for axes, quantity, unit in ((loss_axes, "loss", ""), (accuracy_axes, "accuracy", " %")):
        for split, colour, marker in (("train", BLUE, "o"), ("test", VERMILLION, "s")):
            values = [getattr(record, f"{split}_{quantity}") for record in records]
            last = f"{values[-1]:.2f}{unit}" if unit else f"{values[-1]:.3f}"
            look = {"marker": marker if marked else "", "markersize": 4, "linewidth": 1.8, "color": colour}
            axes.plot(epochs, values, label=f"{split}: {last} at the end", **look)
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
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (edge, 1), (1, 2 + level * LINE * FONT), color=GREY, va="bottom", ha="left", **place)


def _name_cells(axes: Axes, classes: Sequence[str], side: float) -> None:
    """Class names along the sides of a matrix; where they are too many, every second name goes to the opposite side."""
    number = len(classes)
    stride = math.ceil(number * 1.15 * FONT / (72 * side))
    rotation = 90 if stride > 1 else 45
    ha = "center" if stride > 1 else "right"
    near = range(0, number, stride)
    look = {"ha": ha, "rotation_mode": "default" if stride > 1 else "anchor"}
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


def _percent(fraction: float) -> str:
    """0.834 as "83 %", 0.0421 as "4.2 %": a decimal only where it says something."""
    value = 100 * float(fraction)
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"
