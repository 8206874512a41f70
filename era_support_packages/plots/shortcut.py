"""The figure of the planted shortcut: an example with its maps, and how often each map finds the mark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from era_support_packages.evaluation.intervals import Interval
from era_support_packages.plots.panels import check_some, fit_captions, overlay
from era_support_packages.plots.style import (
    BLUE,
    FONT,
    GRAY,
    GREEN,
    INK,
    LINE,
    MARGIN,
    ORANGE,
    PAD,
    PURPLE,
    VERMILLION,
    WIDTH,
    count_lines,
    new_figure,
    styled,
    text_width,
    wrap,
)
from era_support_packages.trust.shortcut.mark import Score
from era_support_packages.trust.shortcut.result import ShortcutTest
from era_support_packages.trust.shortcut.scores import MarkScores

COLORS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE)  # of the methods, of which one figure shows no more
OPACITY = 0.6
CHARTS = 3.4  # inches
PANEL = 1.3  # inches: the largest example
LEGEND = 2.8  # inches, at the right of the examples
MAX_LAYERS = 6
TICKS = 290  # points, for the names of all layers below a chart
SPREAD = 0.45  # of a layer's width on the axis: room for its methods side by side
BASELINES_AT = 0.38  # of the same, right of the middle


@styled
def planted_shortcut(result: ShortcutTest, title: str) -> Figure:
    """An example with its maps, the mark outlined; below, the hits and the energy in the mark by layer.

    Full points are the maps of the network that the mark was planted in, with 95 % intervals; hollow ones those of the
    untouched network. `result` has from one to five methods and from one to six layers. Raises ValueError for more.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages import Classifier, load, plots
    >>> from era_support_packages.trust.shortcut import find, plant
    >>> train, test = load("digits")
    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Conv2d(3, 32, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> found = find(plant(classifier, train, held_out=20), test, layers="1", count=20)
    >>> figure = plots.planted_shortcut(found, "A mark in twenty digits")
    >>> figure.get_suptitle()
    'A mark in twenty digits'
    """
    check_some(result.maps, "result.maps")
    methods = list(dict.fromkeys(maps.method for maps in result.maps))
    layers = list(dict.fromkeys(maps.layer for maps in result.maps))
    for what, names, limit in (("methods", methods, len(COLORS)), ("layers", layers, MAX_LAYERS)):
        if len(names) > limit:
            raise ValueError(f"The result has {len(names)} {what}; one figure takes from 1 to {limit}.")

    left = max(map(text_width, methods)) / 72 + 0.1
    columns = 1 + len(layers)
    panel = min(PANEL, (WIDTH - 2 * MARGIN - left - LEGEND) / columns - 2 * PAD)
    captions = fit_captions([f"{maps.layer}: {_outcome(maps.planted)}" for maps in result.maps], panel)
    row = panel + 2 * PAD + (max(map(count_lines, captions)) * LINE * FONT + 4) / 72
    figure = new_figure(WIDTH, len(methods) * row + CHARTS, title)
    outer = GridSpec(2, 1, figure, height_ratios=[len(methods) * row, CHARTS])
    rest = (WIDTH - 2 * MARGIN - left) / (panel + 2 * PAD) - columns
    upper = outer[0].subgridspec(len(methods), columns + 1, width_ratios=[*[1] * columns, rest])
    for number, method in enumerate(methods):
        _draw_panel(figure.add_subplot(upper[number, 0]), result.example, "input", method)
        for maps, caption in zip(result.maps, captions, strict=True):
            if maps.method == method:
                axes = figure.add_subplot(upper[number, 1 + layers.index(maps.layer)])
                _draw_map(axes, result, maps, caption)
    _draw_legend(figure.add_subplot(upper[:, -1]), methods)
    lower = outer[1].subgridspec(1, 2)
    for column, (name, unit, share) in enumerate(
        (("maximum in the mark", "percent of the images", _hits), ("energy in the mark", "percent of the map's sum", _energy))
    ):
        axes = figure.add_subplot(lower[column])
        _draw_scores(axes, result.maps, methods, layers, share)
        axes.set_title(name, loc="left", pad=8)
        axes.set_ylabel(unit)
    return figure


# ---- parts -----------------------------------------------------------------------------------------------------------


def _hits(score: Score) -> Interval:
    return score.hit_share


def _energy(score: Score) -> Interval:
    return score.energy


def _draw_panel(axes: Axes, image: np.ndarray, caption: str, label: str = "") -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(caption, pad=3)
    axes.set_ylabel(label, rotation=0, ha="right", va="center")


def _outcome(score: Score) -> str:
    """What a map scores in the example."""
    return "hit" if score.hits[0] else "near" if score.near[0] else "constant" if score.constant[0] else "miss"


def _draw_map(axes: Axes, result: ShortcutTest, maps: MarkScores, caption: str) -> None:
    """The example under one of its maps, with the mark's outline."""
    _draw_panel(axes, overlay(result.example, maps.example, OPACITY), caption)
    marks = result.marks
    corner = marks.lefts[0] - 0.5, marks.tops[0] - 0.5
    axes.add_patch(Rectangle(corner, marks.size, marks.size, fill=False, edgecolor="white", linewidth=1.5))


def _draw_scores(
    axes: Axes,
    rows: Sequence[MarkScores],
    methods: Sequence[str],
    layers: Sequence[str],
    share: Callable[[Score], Interval],
) -> None:
    """One share by layer, in percent: the methods side by side, the baselines at their right, the ceiling across."""
    for maps in rows:
        place = layers.index(maps.layer)
        number = methods.index(maps.method)
        beside = place - 0.1 + (SPREAD * (number / (len(methods) - 1) - 0.5) if len(methods) > 1 else 0)
        color = COLORS[number]
        found = share(maps.planted)
        ends = [[100 * (found.estimate - found.low)], [100 * (found.high - found.estimate)]]
        axes.errorbar(beside, 100 * found.estimate, ends, fmt="o", color=color, markersize=6, capsize=3, zorder=4)
        axes.plot(beside, 100 * share(maps.control).estimate, "o", color=color, markerfacecolor="white", zorder=3)
        axes.plot(beside, 100 * share(maps.other_image).estimate, "s", color=color, markersize=3, zorder=3)
        if maps.layer not in [other.layer for other in rows[: rows.index(maps)]]:  # the layer's own, drawn once
            axes.hlines(100 * share(maps.ceiling).estimate, place - 0.45, place + 0.45, color=INK, linewidth=1.5, zorder=2)
            axes.plot(place + BASELINES_AT, 100 * share(maps.random).estimate, "x", color=GRAY)
            axes.plot(place + BASELINES_AT, 100 * share(maps.gaussian).estimate, "+", color=GRAY, markersize=8)
    axes.grid(True, axis="y")
    grids = {maps.layer: maps.grid for maps in rows}
    room = min(72, TICKS / len(layers))
    names = [wrap(f"{layer}\n{grids[layer][0]}x{grids[layer][1]}", room, FONT) for layer in layers]
    axes.set_xticks(range(len(layers)), names)
    axes.set(xlim=(-0.6, len(layers) - 0.4), ylim=(-3, 105))


def _draw_legend(axes: Axes, methods: Sequence[str]) -> None:
    """What the marks of the charts mean."""
    axes.axis("off")
    handles = [Line2D([], [], color=color, marker="o", label=method) for method, color in zip(methods, COLORS, strict=False)]
    hollow: dict[str, Any] = {"color": GRAY, "linestyle": "none"}
    handles += [
        Line2D([], [], marker="o", markerfacecolor="white", label="untouched network (control)", **hollow),
        Line2D([], [], marker="s", markersize=3, label="another image's mark", **hollow),
        Line2D([], [], marker="x", label="random map", **hollow),
        Line2D([], [], marker="+", markersize=8, label="centred Gaussian", **hollow),
        Line2D([], [], color=INK, linewidth=1.5, label="ceiling of the grid"),
    ]
    axes.legend(handles=handles, loc="upper right", borderaxespad=0)
