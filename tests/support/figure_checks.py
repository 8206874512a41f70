"""What is wrong with the texts of a drawn figure."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text


def outside_or_overlapping(figure: Figure) -> list[tuple[str, ...]]:
    """Texts that leave the figure or lie on one another; slanted ones are left out, for their boxes overlap always."""
    figure.draw_without_rendering()
    axes = [drawn for drawn in figure.findobj(Axes) if drawn.axison]
    ticks = [
        label
        for drawn in axes
        for axis in (drawn.xaxis, drawn.yaxis)
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]
    of_axes = [text for drawn in axes for text in (drawn.title, drawn._left_title, drawn._right_title)]
    of_axes += [axis.label for drawn in axes for axis in (drawn.xaxis, drawn.yaxis)]
    own = [text for drawn in figure.findobj(Axes) for text in drawn.texts]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    found = [text for text in [*ticks, *of_axes, *own, *legends, figure._suptitle] if isinstance(text, Text)]
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in found
        if text.get_visible() and text.get_text() and text.get_rotation() % 90 == 0
    ]
    assert len(boxes) > 1
    whole = figure.bbox
    problems: list[tuple[str, ...]] = [
        (name,) for name, box in boxes if box.x0 < whole.x0 or box.y0 < whole.y0 or box.x1 > whole.x1 or box.y1 > whole.y1
    ]
    for index, (name, box) in enumerate(boxes):
        for other_name, other in boxes[index + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            along = min(box.y1, other.y1) - max(box.y0, other.y0)
            if across > 1 and along > 1:  # a pixel is rounding
                problems.append((name, other_name))
    return problems
