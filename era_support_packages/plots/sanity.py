"""Figures of the sanity check: similarity by stage of redrawn weights, and the maps themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from era_support_packages.evaluation.intervals import Interval
from era_support_packages.plots.panels import (
    check_count,
    check_images,
    fit_captions,
    panel_layout,
    panel_width,
    row_labels,
)
from era_support_packages.plots.style import (
    BLUE,
    FONT,
    GRAY,
    GREEN,
    INK,
    LINE,
    ORANGE,
    PURPLE,
    VERMILLION,
    WIDTH,
    count_lines,
    new_figure,
    percent_text,
    styled,
    wrap,
)
from era_support_packages.system.naming import nearest_names
from era_support_packages.trust.sanity.verdict import MAX_CORRELATION, MAX_EXCESS

if TYPE_CHECKING:
    from era_support_packages.trust.sanity.verdict import SanityCheck, Verdict

LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (GRAY, "P"))
MAX_PANEL_IMAGES = 10


@styled
def sanity_curves(check: SanityCheck, title: str) -> Figure:
    """A panel per layer: the rank correlation with the trained network's maps as the weights are redrawn, by method.

    Bands are 95 % intervals. At the right, apart: the correlation between two fully random networks; the dotted line
    `MAX_EXCESS` above it and the dashed line at `MAX_CORRELATION` are the limits of the verdicts, which stand above.
    Raises ValueError for more than six methods.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load, plots
    >>> from era_support_packages.trust.sanity import sanity_check
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> check = sanity_check(classifier, test, train, count=4, train_count=16, draws=2)
    >>> figure = plots.sanity_curves(check, "Four digits")
    >>> figure.get_suptitle()
    'Four digits'
    """
    methods = list(dict.fromkeys(check.methods))
    if len(methods) > len(LOOKS):
        raise ValueError(f"The check has {len(methods)} methods; one figure shows up to {len(LOOKS)}: check fewer at a time.")
    layers = list(dict.fromkeys(check.layers))
    columns = min(2, len(layers))
    rows = -(-len(layers) // columns)
    room = 72 * (WIDTH / columns - 0.7)
    headings = [wrap(_heading(check, layer), room, FONT) for layer in layers]
    lines = max(map(count_lines, headings))
    figure = new_figure(WIDTH, rows * (2.9 + lines * LINE * FONT / 72) + 0.4, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes in list(panels)[len(layers) :]:
        axes.remove()
    ticks = ["trained", *check.stages, "two random\nnetworks"]
    for index, (axes, layer, heading) in enumerate(zip(figure.axes, layers, headings, strict=True)):
        for row in (row for row in range(len(check.methods)) if check.layers[row] == layer):
            _draw_row(axes, check, row, methods.index(check.methods[row]), len(methods))
        axes.axhline(MAX_CORRELATION, color=INK, linestyle="--", linewidth=1)
        axes.axhline(0, color=GRAY, linewidth=0.8, zorder=0.5)
        axes.grid(True, axis="y")
        axes.set_title(heading, loc="left")
        lowest = index + columns >= len(layers)
        axes.set_xticks(_places(check), ticks if lowest else [], rotation=40, ha="right", rotation_mode="anchor")
        axes.set(ylim=(min(-0.3, axes.get_ylim()[0]), 1.05), xlim=(-0.3, _places(check)[-1] + 0.5))
    for axes in figure.axes[::columns]:
        axes.set_ylabel("rank correlation with\nthe trained network's maps")
    _draw_legend(figure, methods)
    return figure


@styled
def sanity_maps(
    check: SanityCheck,
    title: str,
    *,
    layer: str | None = None,
    count: int = 3,
    methods: Sequence[str] | None = None,
    opacity: float = 0.5,
) -> Figure:
    """A row per image and method: the input, the trained network's map at one layer, then the map after each stage.

    Above each map after redrawing: its rank correlation with the trained network's, of that image, in the first draw.

    The images are the first `count` of those checked, 1 to 10; `check` holds them, as `trust.sanity.sanity_check` makes it.
    `layer` and `methods` as in the check, None for its last layer, and for all methods that have the layer. Raises ValueError
    for anything else.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load, plots
    >>> from era_support_packages.trust.sanity import sanity_check
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> check = sanity_check(classifier, test, train, count=4, train_count=16, draws=2)
    >>> figure = plots.sanity_maps(check, "Two digits", count=2, methods=["gradcam"])
    >>> figure.get_suptitle()
    'Two digits'
    """
    if check.images is None:
        raise ValueError("This check holds no images to show; take trust.sanity.sanity_check.")
    if not isinstance(count, int) or not 1 <= count <= MAX_PANEL_IMAGES:
        raise ValueError(f"count is {count!r}; it must be a whole number from 1 to {MAX_PANEL_IMAGES}.")
    images = check_images(check.images[:count], "images", limit=MAX_PANEL_IMAGES)
    captions = check.names[:count]
    check_count(captions, len(images), "names")
    layer = check.layers[-1] if layer is None else layer
    if layer not in check.layers:
        raise ValueError(f"There is no map of layer {layer!r}: {nearest_names(layer, list(dict.fromkeys(check.layers)))}")
    rows = {method: row for row, (method, own) in enumerate(zip(check.methods, check.layers, strict=True)) if own == layer}
    methods = list(rows) if methods is None else list(methods)
    for method in methods:
        if method not in rows:
            raise ValueError(f"There is no map of method {method!r} at layer {layer}: {nearest_names(method, list(rows))}")
    if check.maps.shape[-2:] != images.shape[1:3]:
        size = "x".join(map(str, check.maps.shape[-2:]))
        raise ValueError(f"images are {images.shape[1]}x{images.shape[2]} px, but the maps {size}; give the images at that size.")

    headings = ["INPUT", "trained", *check.stages]
    labels, left = row_labels([f"{caption}\n{method}" for caption in captions for method in methods])
    panel = panel_width([1] * len(headings), largest=1.3, left=left)
    values = [check.correlations[rows[method], :, 0, index] for index in range(len(images)) for method in methods]
    texts = [["", "", *("constant" if np.isnan(value) else f"{value:.2f}" for value in row)] for row in values]
    texts[0] = [f"{heading}\n{text}" for heading, text in zip(fit_captions(headings, panel), texts[0], strict=True)]
    lines = [max(map(count_lines, row)) for row in texts]
    layout = panel_layout(title, panel, images.shape[1:3], [1] * len(headings), lines, left=left, color_bar=True)
    for place, (row, label) in enumerate(zip(texts, labels, strict=True)):
        index, number = divmod(place, len(methods))
        layout.draw(place, 0, images[index], row[0], label)
        for stage, heat in enumerate(check.maps[rows[methods[number]], :, index], start=1):
            layout.draw_map(place, stage, images[index], heat, opacity, row[stage])
    what = f"map of {layer}" if layer else "map"
    layout.draw_color_bar(
        f"{what} over the input, {percent_text(opacity)} opaque; above it, its rank correlation with the trained network's"
    )
    return layout.figure


def _places(check: SanityCheck) -> list[float]:
    """Where the trained network, the stages and, a little apart, the random networks stand on the axis."""
    return [*range(len(check.stages) + 1), len(check.stages) + 1.5]


def _draw_row(axes: Axes, check: SanityCheck, row: int, number: int, methods: int) -> None:
    """The `number`-th of the methods at one layer, moved a little sideways, so that equal curves do not hide each other."""
    color, marker = LOOKS[number]
    aside = 0.1 * (number - (methods - 1) / 2)
    intervals, between = (Interval(1.0, 1.0, 1.0), *check.curve(row)), check.between_random(row)
    *places, apart = (place + aside for place in _places(check))
    look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 4}
    axes.plot(places, [interval.estimate for interval in intervals], linewidth=1.8, label=check.methods[row], **look)
    low, high = [interval.low for interval in intervals], [interval.high for interval in intervals]
    axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    axes.errorbar([apart], [between.estimate], [[between.estimate - between.low], [between.high - between.estimate]], **look)
    axes.plot([places[-1], apart], [between.estimate + MAX_EXCESS] * 2, color=color, linewidth=1.2, linestyle=":")


def _heading(check: SanityCheck, layer: str) -> str:
    """The name of a layer with the verdicts on its maps."""
    verdicts = [verdict for verdict in check.verdicts if verdict.layer == layer]
    lines = [layer or "methods without a layer"]
    for outcome in ("passes", "fails", "undecided"):
        named = [_marked(verdict) for verdict in verdicts if verdict.outcome == outcome]
        if named:
            lines.append(f"{outcome}: {', '.join(named)}")
    return "\n".join(lines)


def _marked(verdict: Verdict) -> str:
    return verdict.method if verdict.class_specific else f"{verdict.method} (not class-specific)"


def _draw_legend(figure: Figure, methods: Sequence[str]) -> None:
    """Methods and limits, below the panels."""
    found = {}
    for axes in figure.axes:
        found.update(dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)))
    handles = [found[method] for method in methods]
    [example] = figure.axes[0].plot([], [], color=GRAY, linewidth=1.2, linestyle=":")
    [limit] = figure.axes[0].plot([], [], color=INK, linewidth=1, linestyle="--")
    handles += [example, limit]
    names = [*methods, f"limit: {MAX_EXCESS} above two random networks", f"limit: {MAX_CORRELATION}"]
    figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)))
