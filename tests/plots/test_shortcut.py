"""The figure of the planted shortcut: what it shows is asserted on the drawn objects."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from shortcut_results import made_up_maps, made_up_result

from era_support_packages.plots.panels import overlay
from era_support_packages.plots.shortcut import OPACITY, planted_shortcut
from era_support_packages.trust.shortcut.result import ShortcutTest

LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + "which heat maps would have found a planted shortcut, " * 3
METHODS = ("gradcam", "hirescam", "layercam", "gradcam++", "xgradcam")


def result(methods: int = 2, layers: int = 2) -> ShortcutTest:
    """Hits of 90, 70, 50 ... percent in the first method's layers, one less in each further method's."""
    return made_up_result(
        *(
            made_up_maps(method, f"layer{layer}", 90 - 20 * layer - number, 100 - 10 * layer, control=4 + layer, near=95)
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
    assert points(hits, "o") == pytest.approx([90, 70, 89, 69])
    assert points(hits, "o", full=False) == pytest.approx([4, 5, 4, 5])
    assert points(hits, "s") == pytest.approx([1] * 4)
    assert points(energy, "o") == pytest.approx([50] * 4)
    assert points(energy, "o", full=False) == pytest.approx([3] * 4)
    for axes, random, gaussian, ceilings in ((hits, 3, 2, [100, 90]), (energy, 2, 4, [70, 70])):
        assert points(axes, "x") == pytest.approx([random] * 2)  # one a layer
        assert points(axes, "+") == pytest.approx([gaussian] * 2)
        segments = [segment for lines in axes.collections for segment in lines.get_segments()]
        levels = [start[1] for start, end in segments if start[0] != end[0]]
        assert levels == pytest.approx(ceilings)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["layer0\n16x16", "layer1\n16x16"]
    assert hits.get_title(loc="left") == "maximum in the mark"
    assert energy.get_title(loc="left") == "energy in the mark"


def test_hits_have_their_intervals() -> None:
    hits, _ = charts(planted_shortcut(result(1, 1), "t"))
    (bars,) = [lines for lines in hits.collections if lines.get_segments()[0][0][0] == lines.get_segments()[0][1][0]]
    low, high = bars.get_segments()[0][:, 1]
    share = result(1, 1).maps[0].planted.hit_share
    assert (low, high) == pytest.approx((100 * share.low, 100 * share.high))


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


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [({"hits": 0, "near": 100}, "near"), ({"hits": 0, "near": 0}, "miss"), ({"hits": 0, "constant": 100}, "constant")],
)
def test_the_caption_says_what_the_map_scores(changes: dict[str, int], outcome: str) -> None:
    hits = changes.pop("hits")
    figure = planted_shortcut(made_up_result(made_up_maps("gradcam", "layer1", hits, 100, **changes)), "t")
    assert f"layer1: {outcome}" in [axes.get_title() for axes in figure.axes]


def test_the_legend_names_the_methods_and_what_else_is_drawn() -> None:
    figure = planted_shortcut(result(), "t")
    (legend,) = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == [
        "gradcam",
        "hirescam",
        "untouched network (control)",
        "another image's mark",
        "random map",
        "centred Gaussian",
        "ceiling of the grid",
    ]


@pytest.mark.parametrize(("methods", "layers"), [(1, 1), (2, 4), (5, 6)])
def test_every_text_is_whole_legible_and_free(methods: int, layers: int) -> None:
    figure = planted_shortcut(result(methods, layers) if layers < 5 else wide(), LONG_TITLE)
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 10
    hidden = [axis for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)]
    unseen = {text for axis in hidden for text in axis.findobj(Text)}
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):  # old matplotlib has ticks beyond the ends
        low, high = sorted(axis.get_view_interval())
        unseen |= {text for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high for text in tick.findobj(Text)}
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in unseen]
    assert min(text.get_size() for text in texts) >= 9
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    for name, box in boxes:
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, name
    for index, (name, box) in enumerate(boxes):
        for other_name, other in boxes[index + 1 :]:
            apart = min(box.x1, other.x1) - max(box.x0, other.x0) <= 1 or min(box.y1, other.y1) - max(box.y0, other.y0) <= 1
            assert apart, (name, other_name)


def wide() -> ShortcutTest:
    """As many methods and layers as a figure takes."""
    return made_up_result(*(made_up_maps(method, f"layer{layer}", 50, 90) for method in METHODS for layer in range(6)))


def test_the_callers_style_neither_shows_nor_changes() -> None:
    with matplotlib.rc_context({"figure.facecolor": "black", "text.color": "white", "font.size": 4}):
        before = dict(matplotlib.rcParams)
        figure = planted_shortcut(result(), "t")
        figure.draw_without_rendering()
        assert dict(matplotlib.rcParams) == before
    assert figure.get_facecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "result.maps is empty; at least one is needed."),
        ([(f"method{number}", "x") for number in range(6)], "the result has 6 methods; one figure takes from 1 to 5."),
        ([("gradcam", f"layer{number}") for number in range(7)], "the result has 7 layers; one figure takes from 1 to 6."),
    ],
)
def test_too_much_or_nothing_is_refused(rows: list[tuple[str, str]], message: str) -> None:
    shown = made_up_result(*(made_up_maps(method, layer, 50, 90) for method, layer in rows))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        planted_shortcut(shown, "t")
