"""The figure of the learning-rate range test."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from era_support_packages.plots.panels import shape_text
from era_support_packages.plots.style import (
    BLUE,
    FAINT,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from era_support_packages.training.lr_finder import RangeTest


@styled
def range_test(result: RangeTest, title: str, chosen: float | None = None) -> Figure:
    """The learning-rate range test: raw loss faint, smoothed loss bold, each suggestion and the chosen rate marked.

    Rates that were tried by short trainings are ticks at the bottom, and the legend says how sure the choice among them is.
    `result` has lrs, losses, smoothed, each (K,) with K >= 2, and suggestions by name; losses may be NaN or infinite
    where training diverged. The loss axis is cut above the valley, and the figure says so. Raises ValueError where the
    three arrays do not match, a rate is not positive, or no loss is finite.

    >>> import numpy as np
    >>> from era_support_packages import plots
    >>> from era_support_packages.training import RangeTest
    >>> losses = np.array([2.3, 2.2, 1.8, 1.9, 4.0])
    >>> result = RangeTest(np.geomspace(0.0001, 1, 5), losses, losses, {"valley": 0.005})  # as `training.range_test` gives it
    >>> figure = plots.range_test(result, "Five steps", chosen=0.005)
    >>> figure.axes[0].get_xlabel()
    'learning rate (log scale)'
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
        raise ValueError("The range test has no finite loss to draw; start it at a smaller learning rate.")

    figure = new_figure(8.0, 4.2, title)
    axes = figure.subplots()
    axes.grid(True)
    axes.plot(lrs, np.where(np.isfinite(losses), losses, np.nan), color=BLUE, alpha=0.35, linewidth=1, label="raw loss")
    axes.plot(lrs, np.where(finite, smoothed, np.nan), color=BLUE, linewidth=2.2, label="smoothed loss")
    looks = [(GREEN, "o", 11), (ORANGE, "D", 9), (PURPLE, "s", 8), (VERMILLION, "^", 9)]
    for (name, lr), (color, marker, size) in zip(result.suggestions.items(), itertools.cycle(looks), strict=False):
        if not math.isfinite(lr):  # listed all the same, so that nobody looks for its mark
            axes.plot([], [], marker, color=color, markerfacecolor="none", label=f"{name}: none")
            continue
        height = np.interp(np.log(lr), np.log(lrs[finite]), smoothed[finite])
        axes.axvline(lr, color=color, linewidth=1, linestyle=":")
        look: dict[str, Any] = {"color": color, "markersize": size, "markeredgewidth": 2, "markerfacecolor": "white"}
        axes.plot([lr], [height], marker, zorder=4, label=f"{name} {lr:.3g}", **look)
    if chosen is not None:
        how = "" if result.trials is None else f", {'clearly' if result.trials.sure else 'not clearly'} best"
        axes.axvline(chosen, color=INK, linewidth=1.6, linestyle="--", zorder=1.5, label=f"chosen {chosen:.3g}{how}")

    bottom, top = _valley_limits(losses, smoothed)
    axes.set_ylim(bottom, top)
    if result.trials is not None:
        tried = list(result.trials.losses)
        axes.plot(
            tried, [bottom] * len(tried), "|", color=INK, markersize=16, markeredgewidth=2, label=f"tried: {len(tried)} rates"
        )
    notes = [] if result.suggestions else ["no suggestion: the loss never falls"]
    highest = max(values[np.isfinite(values)].max(initial=-np.inf) for values in (losses, smoothed))
    if highest > top:
        notes.append(f"cut at {top:.3g}: losses reach {highest:.3g}")
    if not np.isfinite(losses).all():
        diverged = lrs[np.flatnonzero(~np.isfinite(losses))[0]]
        axes.axvspan(diverged, lrs.max(), color=FAINT, alpha=0.5, linewidth=0)
        notes.append(f"shaded: no finite loss from {diverged:.3g} on")
    axes.set_title("; ".join(notes), loc="right", color=GRAY)
    axes.set_xscale("log")
    decades = np.log10(lrs.max() / lrs.min())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="learning rate (log scale)", ylabel="training loss")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


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
