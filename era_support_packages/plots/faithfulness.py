"""Figures of faithfulness: the deletion and insertion curves, and how much better each map is than its baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from era_support_packages.evaluation.intervals import CONFIDENCE, mean_interval
from era_support_packages.plots.style import (
    BLUE,
    FAINT,
    FONT,
    GRAY,
    GREEN,
    INK,
    LINE,
    ORANGE,
    PURPLE,
    VERMILLION,
    WIDTH,
    new_figure,
    styled,
)
from era_support_packages.system.naming import nearest_names
from era_support_packages.trust.faithfulness.metrics import METRICS, RANKING_METRICS
from era_support_packages.trust.faithfulness.result import (
    BASELINES,
    GAUSSIAN,
    OTHER_IMAGE,
    PIXEL_NOISE,
    RANDOM,
    Faithfulness,
    MapScores,
)

METHOD_LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"))
BASELINE_LOOKS = {
    RANDOM: {"color": INK, "linestyle": "--", "linewidth": 1.6},
    GAUSSIAN: {"color": GRAY, "linestyle": ":", "linewidth": 1.8},
    PIXEL_NOISE: {"color": GRAY, "linestyle": "-.", "linewidth": 1.2},
}
COMPARISON_LOOKS = {RANDOM: (BLUE, "o"), GAUSSIAN: (VERMILLION, "s"), OTHER_IMAGE: (GREEN, "^")}


@styled
def perturbation_curves(result: Faithfulness, title: str, layer: str | None = None) -> Figure:
    """Deletion at the left and insertion at the right: the methods at one layer beside a random map, a Gaussian and pixel noise.

    The mean confidence of the class explained over the images, by the share of pixels removed or inserted, the most relevant
    first; bands are 95 % bootstrap intervals of the mean at each point, around the methods and the random map. `layer` is one of
    the result's, None for the last. Raises ValueError for another layer.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load, plots
    >>> from era_support_packages.trust.faithfulness import evaluate
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> result = evaluate(classifier, test, count=2, layers=["1"], steps=2, percentiles=[50])
    >>> figure = plots.perturbation_curves(result, "Two digits", layer="1")
    >>> len(figure.axes)
    2
    """
    layers = list(dict.fromkeys(row.layer for row in result.methods))
    layer = layers[-1] if layer is None else layer
    if layer not in layers:
        raise ValueError(f"There are no scores of layer {layer!r}: {nearest_names(layer, layers)}")
    rows = [row for row in result.methods if row.layer == layer]
    baselines = [row for row in result.baselines if row.name in BASELINE_LOOKS and row.layer in ("", layer)]
    figure = new_figure(WIDTH, 4.3 + LINE * FONT / 72 * (len(rows) + len(baselines)) / 2, title)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)  # of every figure
    engine.set(wspace=0.05)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), strict=True):
        for row in baselines:
            _draw_curve(axes, result, row, kind, band=row.name == RANDOM, **BASELINE_LOOKS[row.name])
        for index, row in enumerate(rows):
            color, marker = METHOD_LOOKS[index % len(METHOD_LOOKS)]
            # Grad-CAM and HiResCAM agree at the last layer: the second of two equal curves leaves gaps for the first.
            equal = any(np.array_equal(_curves(row, kind), _curves(other, kind)) for other in rows[:index])
            look = {"color": color, "marker": marker, "markersize": 4, "linestyle": (0, (3, 3)) if equal else "-"}
            _draw_curve(axes, result, row, kind, band=True, linewidth=2, **look)
        better = "lower" if kind == "deletion" else "higher"
        axes.set_title(f"{kind} at {layer} ({better} is better)", loc="left")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=f"share of pixels {'removed' if kind == 'deletion' else 'inserted'}")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.grid(True)
        below = {"loc": "upper left", "bbox_to_anchor": (0, -0.13), "borderaxespad": 0}
        axes.legend(ncols=2, title="area under the curve", alignment="left", **below)
    figure.axes[0].set_ylabel("mean confidence of the class explained")
    note = f"mean of {len(result)} images; bands: {100 * CONFIDENCE:.0f} % bootstrap interval at each point, not corrected"
    figure.supxlabel(note, color=GRAY, fontsize=FONT, x=0.01, ha="left")
    return figure


@styled
def advantage_over_baselines(result: Faithfulness, title: str) -> Figure:
    """How much better each map is than its baselines: ROAD, deletion area, insertion area, with corrected intervals.

    Means of the paired differences over the images; right of zero the map is better, also where a small number is the better
    one. Filled marks: the interval excludes zero.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load, plots
    >>> from era_support_packages.trust.faithfulness import evaluate
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> result = evaluate(classifier, test, count=2, layers=["1"], steps=2, percentiles=[50])
    >>> figure = plots.advantage_over_baselines(result, "Two digits")
    >>> len(figure.axes)
    3
    """
    rows = result.methods
    row_height = 3 * 0.14 + 0.1
    figure = new_figure(WIDTH, len(rows) * row_height + 1.2, title)
    for axes, metric in zip(figure.subplots(1, len(RANKING_METRICS), sharey=True), RANKING_METRICS, strict=True):
        axes.axvline(0, color=INK, linewidth=1)
        for place, row in enumerate(rows):
            for offset, (name, found) in zip((-0.25, 0, 0.25), result.over_baselines(row, metric).items(), strict=True):
                color, marker = COMPARISON_LOOKS[name]
                axes.plot([found.low, found.high], [place + offset] * 2, color=color, linewidth=1.6)
                face = color if found.excludes(0) else "white"
                look = {"color": color, "markerfacecolor": face, "markersize": 5, "linestyle": ""}
                axes.plot([found.estimate], [place + offset], marker, **look)
            if place:
                axes.axhline(place - 0.5, color=FAINT, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(f"{METRICS[metric].label}: better by")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    handles = [
        figure.axes[0].plot([], [], marker, color=color, linestyle="-", label=f"than {name}")[0]
        for name, (color, marker) in COMPARISON_LOOKS.items()
    ]
    note = (
        f"{len(result)} images, paired; {100 * CONFIDENCE:.0f} % bootstrap intervals, corrected for "
        f"{len(rows) * len(BASELINES)} comparisons; filled where zero is excluded"
    )
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), title=note, alignment="left")
    return figure


def _curves(row: MapScores, kind: str) -> np.ndarray:
    """The curves (N, K) of "deletion" or "insertion"."""
    return row.deletion_curves if kind == "deletion" else row.insertion_curves


def _draw_curve(axes: Axes, result: Faithfulness, row: MapScores, kind: str, band: bool, **look: Any) -> None:
    """The mean curve of one map, with its area in the legend."""
    curves = _curves(row, kind)
    label = f"{row.title} {row.scores[kind].mean():.3f}"
    shares = result.shares_of(row)
    axes.plot(shares, curves.mean(axis=0), label=label, **look)
    if band:
        intervals = [mean_interval(point, seed=result.seed) for point in curves.T]
        low, high = np.array([(found.low, found.high) for found in intervals]).T
        axes.fill_between(shares, low, high, color=look["color"], alpha=0.13, linewidth=0)
