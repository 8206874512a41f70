"""The figure of the planted shortcut: what it shows is asserted on the drawn objects."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from shortcut_results import made_up_maps, made_up_result

from era_support_packages.plots.panels import overlay
from era_support_packages.plots.shortcut import OPACITY, planted_shortcut
from era_support_packages.trust.shortcut.result import ShortcutTest

LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + "which heat maps would have found a planted shortcut, " * 3
METHODS = ("gradcam", "hirescam", "layercam", "gradcam++", "xgradcam")


def result(methods: int = 2, layers: int = 2) -> ShortcutTest:
    """Hits of 90, 80 ... percent in the first method's layers, one less in each further method's."""
    return made_up_result(
        *(
            made_up_maps(method, f"layer{layer}", 90 - 10 * layer - number, 100 - 5 * layer, control=4 + layer, near=95)
            for number, method in enumerate(METHODS[:methods])
            for layer in range(layers)
        )
    )


def charts(figure: Figure) -> tuple[Axes, Axes]:
    hits, energy = (axes for axes in figure.axes if axes.get_ylabel().startswith("percent"))
    return hits, energy


def points(axes: Axes, marker: str, full: bool = True) -> list[float]:
    """The heights of the points of one kind."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [float(line.get_ydata()[0]) for line in lines if (line.get_markerfacecolor() != "white") == full]


def test_the_charts_show_every_score_in_percent() -> None:
    hits, energy = charts(planted_shortcut(result(), "t"))
    assert points(hits, "o") == pytest.approx([90, 80, 89, 79])
    assert points(hits, "o", full=False) == pytest.approx([4, 5, 4, 5])
    assert points(hits, "s") == pytest.approx([1] * 4)
    assert points(energy, "o") == pytest.approx([50] * 4)
    assert points(energy, "o", full=False) == pytest.approx([3] * 4)
    for axes, random, gaussian, ceilings in ((hits, 3, 2, [100, 95]), (energy, 2, 4, [70, 70])):
        assert points(axes, "x") == pytest.approx([random] * 2)  # one a layer
        assert points(axes, "+") == pytest.approx([gaussian] * 2)
        segments = [segment for lines in axes.collections for segment in lines.get_segments()]
        assert [start[1] for start, end in segments if start[0] != end[0]] == pytest.approx(ceilings)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["layer0\n16x16", "layer1\n16x16"]
    assert [axes.get_title(loc="left") for axes in (hits, energy)] == ["maximum in the mark", "energy in the mark"]


def test_hits_have_their_intervals() -> None:
    shown = result(1, 1)
    hits, _ = charts(planted_shortcut(shown, "t"))
    segments = [segment for lines in hits.collections for segment in lines.get_segments()]
    [ends] = [segment[:, 1] for segment in segments if segment[0, 0] == segment[1, 0]]
    share = shown.maps[0].planted.hit_share
    assert tuple(ends) == pytest.approx((100 * share.low, 100 * share.high))


def test_a_row_of_panels_for_each_method_shows_the_example_under_its_maps() -> None:
    shown = result()
    figure = planted_shortcut(shown, "t")
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert [axes.get_title() for axes in panels] == ["input", "layer0: hit", "layer1: hit"] * 2
    assert [axes.get_ylabel() for axes in panels] == ["gradcam", "", "", "hirescam", "", ""]
    pictures = [np.asarray(axes.get_images()[0].get_array()) for axes in panels]
    np.testing.assert_array_equal(pictures[0], shown.example)
    np.testing.assert_array_equal(pictures[1], overlay(shown.example, shown.maps[0].example, OPACITY))
    outline = panels[1].patches[0]
    assert (outline.get_xy(), outline.get_width(), outline.get_height()) == ((3.5, 3.5), 4, 4)
    assert not panels[0].patches  # the mark itself is to be seen there
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == [
        *("gradcam", "hirescam", "untouched network (control)", "another image's mark"),
        *("random map", "centred Gaussian", "ceiling of the grid"),
    ]


@pytest.mark.parametrize(("near", "constant", "outcome"), [(100, 0, "near"), (0, 0, "miss"), (0, 100, "constant")])
def test_the_caption_says_what_the_map_scores(near: int, constant: int, outcome: str) -> None:
    missing = made_up_maps("gradcam", "layer1", 0, 100, near=near, constant=constant)
    figure = planted_shortcut(made_up_result(missing), "t")
    assert f"layer1: {outcome}" in [axes.get_title() for axes in figure.axes]


@pytest.mark.parametrize(("methods", "layers"), [(1, 1), (2, 4), (5, 6)])
def test_every_text_is_whole_legible_and_free(check_figure: Callable[..., Figure], methods: int, layers: int) -> None:
    check_figure(lambda: planted_shortcut(result(methods, layers), LONG_TITLE))


@pytest.mark.parametrize(
    ("methods", "layers", "message"),
    [
        ([], ["x"], "result.maps is empty; at least one is needed."),
        ("abcdef", ["x"], "The result has 6 methods; one figure takes from 1 to 5."),
        (["gradcam"], "abcdefg", "The result has 7 layers; one figure takes from 1 to 6."),
    ],
)
def test_too_much_or_nothing_is_refused(methods: list[str], layers: list[str], message: str) -> None:
    shown = made_up_result(*(made_up_maps(method, layer, 50, 90) for method in methods for layer in layers))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        planted_shortcut(shown, "t")
