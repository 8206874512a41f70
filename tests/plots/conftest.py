"""What is asked of every figure."""

import itertools
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

CALLERS_STYLE = {"figure.facecolor": "black", "font.size": 4}
CALLERS_STYLE |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), "magenta")


def seen_texts(figure: Figure) -> list[Text]:
    """All but the empty ones, those of hidden axes, and the ticks beyond the ends, which old matplotlib has."""
    unseen = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        beyond = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        for part in beyond if axis.axes.axison else [axis]:
            unseen.update(part.findobj(Text))
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in unseen]


def outside_or_overlapping(figure: Figure, texts: list[Text]) -> list[tuple[str, ...]]:
    """Texts that leave the figure or lie on one another; slanted ones may do the latter, for their boxes always overlap."""
    boxes = [(text.get_text(), text.get_window_extent().extents, text.get_rotation() % 90) for text in texts]
    right, top = figure.bbox.max
    problems: list[tuple[str, ...]] = [
        (name,) for name, (x0, y0, x1, y1), _ in boxes if x0 < 0 or y0 < 0 or x1 > right or y1 > top
    ]
    upright = [(name, box) for name, box, slant in boxes if not slant]
    for (name, one), (other_name, other) in itertools.combinations(upright, 2):
        across, along = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
        if across > 1 and along > 1:  # a pixel is rounding
            problems.append((name, other_name))
    return problems


@pytest.fixture
def check_figure() -> Callable[[Callable[[], Figure]], Figure]:
    """Draws a figure for a caller of another style; every text is whole, free, legible, and of the project's own style."""

    def check(draw: Callable[[], Figure]) -> Figure:
        with matplotlib.rc_context(CALLERS_STYLE):
            before = dict(matplotlib.rcParams)
            figure = draw()
            figure.draw_without_rendering()
            assert dict(matplotlib.rcParams) == before
        texts = seen_texts(figure)
        assert len(texts) > 1
        assert outside_or_overlapping(figure, texts) == []
        assert min(text.get_size() for text in texts) >= 9
        assert [text.get_text() for text in texts if text.get_color() in ("magenta", "black")] == []
        assert (figure.get_figwidth() <= 10, figure.get_facecolor()) == (True, (1, 1, 1, 1))
        return figure

    return check
