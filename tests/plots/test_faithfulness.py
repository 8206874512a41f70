"""Figures of faithfulness: what is drawn is what was measured, and every text is whole."""

import re

import numpy as np
import pytest
from figure_checks import outside_or_overlapping
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from quadrant_networks import TopLeft, red_noise

from era_support_packages.evaluation.intervals import mean_interval
from era_support_packages.plots.faithfulness import COMPARISON_LOOKS, advantage_over_baselines, perturbation_curves
from era_support_packages.trust.faithfulness.metrics import RANKING_METRICS
from era_support_packages.trust.faithfulness.result import BASELINES, Faithfulness
from era_support_packages.trust.faithfulness.scores import judge

LONG_TITLE = (
    "CIFAR-10 (JPEG copy), run cpu-cifar10-jpeg-3f2a91, predicted class of 12 test images: are the maps better than nothing?"
)


@pytest.fixture(scope="module")
def result() -> Faithfulness:
    methods = ["gradcam", "hirescam", "layercam"]
    return judge(TopLeft(2, -16), red_noise(12), [0] * 12, methods=methods, layers=["conv", "norm"], percentiles=[50], steps=4)


@pytest.fixture(scope="module")
def advantages(result: Faithfulness) -> Figure:
    """Drawn once: its 54 bootstrap intervals take longer than all else here."""
    return advantage_over_baselines(result, LONG_TITLE)


def legend_texts_outside(figure: Figure) -> list[str]:
    """Texts of the axes' legends that leave the figure."""
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes if (legend := axes.get_legend()) for text in legend.findobj(Text) if text.get_text()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [name for name, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1]


def title_of(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def test_the_curves_are_the_means_with_their_areas_and_bands(result: Faithfulness) -> None:
    figure = perturbation_curves(result, "CIFAR-10, run x", layer="conv")
    deletion, insertion = figure.axes
    rows = [row for row in result.baselines if row.layer in ("conv", "") and row.name != "another image's map"]
    rows += [row for row in result.methods if row.layer == "conv"]
    for axes, kind in ((deletion, "deletion"), (insertion, "insertion")):
        curves = [row.deletion_curves if kind == "deletion" else row.insertion_curves for row in rows]
        lines = axes.get_lines()
        assert [line.get_label() for line in lines] == [f"{row.title} {row.scores[kind].mean():.3f}" for row in rows]
        for line, curve in zip(lines, curves, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), result.shares)
            np.testing.assert_allclose(line.get_ydata(), curve.mean(axis=0))
        # Bands: the random map and the three methods, in the lines' colours.
        banded = [0, 3, 4, 5]
        assert len(axes.collections) == len(banded)
        for band, index in zip(axes.collections, banded, strict=True):
            interval = mean_interval(curves[index][:, 2], seed=result.seed)
            points = band.get_paths()[0].vertices
            heights = sorted({y for x, y in points if x == result.shares[2]})
            np.testing.assert_allclose([heights[0], heights[-1]], [interval.low, interval.high])
            assert band.get_facecolor()[0][:3].tolist() == list(to_rgba(lines[index].get_color())[:3])
    assert title_of(figure) == "CIFAR-10, run x"
    assert deletion.get_title(loc="left") == "deletion at conv (lower is better)"
    assert insertion.get_title(loc="left") == "insertion at conv (higher is better)"
    assert figure.get_supxlabel() == "mean of 12 images; bands: 95 % bootstrap interval at each point, not corrected"


def test_a_curve_on_another_leaves_gaps_for_it(result: Faithfulness) -> None:
    # HiResCAM and LayerCAM are the same map where all gradients and activations are positive.
    styles = [line.get_linestyle() for line in perturbation_curves(result, "t", "conv").axes[0].get_lines()[-3:]]
    assert styles == ["-", "-", "--"]


def test_the_last_layer_is_the_default_and_another_name_is_refused(result: Faithfulness) -> None:
    assert perturbation_curves(result, "t").axes[0].get_title(loc="left") == "deletion at norm (lower is better)"
    with pytest.raises(ValueError, match=re.escape("There are no scores of layer 'cnov': did you mean 'conv' or 'norm'?") + "$"):
        perturbation_curves(result, "t", layer="cnov")


def test_every_advantage_is_drawn_with_its_interval_and_filled_where_it_excludes_zero(
    result: Faithfulness, advantages: Figure
) -> None:
    kinds = set()
    for axes, metric in zip(advantages.axes, RANKING_METRICS, strict=True):
        colors = [color for color, _ in COMPARISON_LOOKS.values()]
        lines = [line for line in axes.get_lines() if line.get_color() in colors and len(line.get_xdata())]
        for place, row in enumerate(result.methods):
            for offset, (name, found) in zip((-0.25, 0, 0.25), result.over_baselines(row, metric).items(), strict=True):
                bar, mark = (line for line in lines if line.get_ydata()[0] == place + offset)
                np.testing.assert_array_equal(bar.get_xdata(), [found.low, found.high])
                np.testing.assert_array_equal(mark.get_xdata(), [found.estimate])
                color, marker = COMPARISON_LOOKS[name]
                assert (bar.get_color(), mark.get_color(), mark.get_marker()) == (color, color, marker)
                assert mark.get_markerfacecolor() == (color if found.excludes(0) else "white")
                kinds.add(found.excludes(0))
        assert axes.get_xlabel().endswith(": better by")
    assert kinds == {True, False}, "the fixture shows both"
    assert [text.get_text() for text in advantages.axes[0].get_yticklabels()] == [row.label for row in result.methods]
    (legend,) = advantages.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"than {name}" for name in BASELINES]
    assert legend.get_title().get_text() == (
        "12 images, paired; 95 % bootstrap intervals, corrected for 18 comparisons; filled where zero is excluded"
    )


@pytest.mark.parametrize("name", ["curves", "advantages"])
def test_every_text_is_whole_and_legible(result: Faithfulness, advantages: Figure, name: str) -> None:
    figure = advantages if name == "advantages" else perturbation_curves(result, LONG_TITLE)
    assert outside_or_overlapping(figure) == []
    assert legend_texts_outside(figure) == []
    assert figure.get_figwidth() <= 10
    assert min(text.get_size() for text in figure.findobj(Text)) >= 9
    assert title_of(figure) == LONG_TITLE
