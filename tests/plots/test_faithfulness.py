"""Figures of faithfulness: what is drawn is what was measured."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from quadrant_networks import TopLeft, red_noise

from era_support_packages.evaluation.intervals import mean_interval
from era_support_packages.plots.faithfulness import COMPARISON_LOOKS, advantage_over_baselines, perturbation_curves
from era_support_packages.trust.faithfulness.metrics import RANKING_METRICS
from era_support_packages.trust.faithfulness.result import BASELINES, Faithfulness
from era_support_packages.trust.faithfulness.scores import judge

Check = Callable[[Callable[[], Figure]], Figure]
LONG_TITLE = (
    "CIFAR-10 (JPEG copy), run cpu-cifar10-jpeg-3f2a91, predicted class of 12 test images: are the maps better than nothing?"
)


@pytest.fixture(scope="module")
def result() -> Faithfulness:
    methods = ["gradcam", "hirescam", "layercam"]
    return judge(TopLeft(2, -16), red_noise(12), [0] * 12, methods=methods, layers=["conv", "norm"], percentiles=[50], steps=4)


def test_the_curves_are_the_means_with_their_areas_and_bands(result: Faithfulness) -> None:
    figure = perturbation_curves(result, "CIFAR-10, run x", layer="conv")
    rows = [row for row in result.baselines if row.layer in ("conv", "") and row.name != "another image's map"]
    rows += [row for row in result.methods if row.layer == "conv"]
    for axes, kind in zip(figure.axes, ("deletion", "insertion"), strict=True):
        curves = [getattr(row, f"{kind}_curves") for row in rows]
        lines = axes.get_lines()
        assert [line.get_label() for line in lines] == [f"{row.title} {row.scores[kind].mean():.3f}" for row in rows]
        for line, curve in zip(lines, curves, strict=True):
            np.testing.assert_allclose(line.get_xydata(), np.stack([result.shares, curve.mean(axis=0)], axis=1))
        # Bands: the random map and the three methods, in the lines' colours.
        for band, index in zip(axes.collections, [0, 3, 4, 5], strict=True):
            interval = mean_interval(curves[index][:, 2], seed=result.seed)
            heights = sorted({y for x, y in band.get_paths()[0].vertices if x == result.shares[2]})
            np.testing.assert_allclose([heights[0], heights[-1]], [interval.low, interval.high])
            assert tuple(band.get_facecolor()[0][:3]) == to_rgba(lines[index].get_color())[:3]
    assert figure.get_suptitle() == "CIFAR-10, run x"
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        *("deletion at conv (lower is better)", "insertion at conv (higher is better)")
    ]
    assert figure.get_supxlabel() == "mean of 12 images; bands: 95 % bootstrap interval at each point, not corrected"
    # HiResCAM and LayerCAM are the same map where all gradients and activations are positive.
    assert [line.get_linestyle() for line in figure.axes[0].get_lines()[-3:]] == ["-", "-", "--"], "gaps for the one below"


def test_the_last_layer_is_the_default_and_another_name_is_refused(result: Faithfulness, check_figure: Check) -> None:
    figure = check_figure(lambda: perturbation_curves(result, LONG_TITLE))
    assert figure.axes[0].get_title(loc="left") == "deletion at norm (lower is better)"
    with pytest.raises(ValueError, match=re.escape("There are no scores of layer 'cnov': did you mean 'conv' or 'norm'?") + "$"):
        perturbation_curves(result, "t", layer="cnov")


@pytest.mark.unhurried
def test_every_advantage_is_drawn_with_its_interval_and_filled_where_it_excludes_zero(
    result: Faithfulness, check_figure: Check
) -> None:
    figure = check_figure(lambda: advantage_over_baselines(result, LONG_TITLE))
    assert figure.get_suptitle().replace("\n", " ") == LONG_TITLE
    kinds = set()
    for axes, metric in zip(figure.axes, RANKING_METRICS, strict=True):
        colors = [color for color, _ in COMPARISON_LOOKS.values()]
        lines = [line for line in axes.get_lines() if line.get_color() in colors and len(line.get_xdata())]
        for place, row in enumerate(result.methods):
            for offset, (name, found) in zip((-0.25, 0, 0.25), result.over_baselines(row, metric).items(), strict=True):
                bar, mark = (line for line in lines if line.get_ydata()[0] == place + offset)
                assert list(bar.get_xdata()) == [found.low, found.high]
                assert list(mark.get_xdata()) == [found.estimate]
                color, marker = COMPARISON_LOOKS[name]
                assert (bar.get_color(), mark.get_color(), mark.get_marker()) == (color, color, marker)
                assert mark.get_markerfacecolor() == (color if found.excludes(0) else "white")
                kinds.add(found.excludes(0))
        assert axes.get_xlabel().endswith(": better by")
    assert kinds == {True, False}, "the fixture shows both"
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [row.label for row in result.methods]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"than {name}" for name in BASELINES]
    assert legend.get_title().get_text() == (
        "12 images, paired; 95 % bootstrap intervals, corrected for 18 comparisons; filled where zero is excluded"
    )
