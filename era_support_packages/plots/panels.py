"""Figures made of image panels: their layout, heat maps over images, and the checks of what goes into them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from era_support_packages.plots.style import FONT, HEAT_COLORMAP, LINE, MARGIN, NARROW, PAD, WIDTH, new_figure, text_width, wrap
from era_support_packages.system.naming import nearest_names

if TYPE_CHECKING:
    from era_support_packages.datasets.streaming import Pixels

BAR = 3.6  # inches at the right of the row labels, which the words at a color bar take
BAR_HEIGHT = 0.12
CAPTION_PAD = 3  # points between a panel and its caption


def overlay(image: np.ndarray, heat: np.ndarray, opacity: float = 0.5, colormap: str = HEAT_COLORMAP) -> np.ndarray:
    """The colours of a heat map blended over an image, both in RGB: (1 - opacity) image + opacity colour, rounded.

    `image` uint8 (H, W, 3); `heat` (H, W) in [0, 1]; `opacity` in [0, 1]; `colormap` a name that matplotlib knows.
    Returns uint8 (H, W, 3). Raises ValueError for anything else.

    >>> import numpy as np
    >>> from era_support_packages import plots
    >>> gray = np.full((32, 32, 3), 128, np.uint8)
    >>> heat = np.eye(32)
    >>> blended = plots.overlay(gray, heat, opacity=0.5)
    >>> blended.shape, blended.dtype
    ((32, 32, 3), dtype('uint8'))
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 of shape (H, W, 3); got {image.dtype} of shape {shape_text(image.shape)}.")
    heat = check_unit_interval(heat, image.shape[:2], "heat")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}; it must be from 0 (only the image) to 1 (only the map).")
    if colormap not in matplotlib.colormaps:
        raise ValueError(f"There is no colormap {colormap!r}: {nearest_names(colormap, list(matplotlib.colormaps))}")
    colors = 255.0 * matplotlib.colormaps[colormap](heat)[..., :3]
    return np.rint((1 - opacity) * image + opacity * colors).astype(np.uint8)


class PanelLayout(NamedTuple):
    """A figure with a grid of image panels, whose places are known: to have matplotlib find them took most of its drawing.

    In inches, from the figure's lower left corner: `edges` are the left edges of the columns of the grid, gaps among them, and
    the right edge of the last; `bottoms` are the lower edges of the panels of each row; `bar` that of the color bar.
    """

    figure: Figure
    size: tuple[float, float]
    """width and height of a panel"""
    edges: list[float]
    bottoms: list[float]
    bar: float
    columns: list[int]
    """the column of the grid of each column of panels"""

    def draw(self, row: int, column: int, image: np.ndarray, caption: str, label: str = "") -> Axes:
        """One image with a caption above and a label at its left."""
        axes = self._axes(self.edges[self.columns[column]] + PAD, self.bottoms[row], *self.size)
        # A small image shows its pixels as they are; a large one is made smaller here and needs a filter.
        axes.imshow(image, interpolation="nearest" if max(image.shape[:2]) <= 64 else "antialiased")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(caption, pad=CAPTION_PAD)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
        return axes

    def draw_map(
        self, row: int, column: int, image: np.ndarray, heat: np.ndarray, opacity: float, caption: str, label: str = ""
    ) -> None:
        """One image under its heat map; a map that is zero everywhere has no strongest place, and the panel says so."""
        axes = self.draw(row, column, overlay(image, heat, opacity), caption, label)
        if not heat.any():
            axes.text(0.5, 0.5, "all zero", transform=axes.transAxes, ha="center", va="center", color="white")

    def draw_color_bar(self, label: str) -> None:
        """What the colours of the maps mean, in the last row of the grid."""
        middle = self.columns[(len(self.columns) - 1) // 2]
        left = self.edges[0] + PAD
        right = self.edges[: middle + 3][-1] - PAD  # all of a narrow figure, half of a wide one
        right = min(max(right, left + BAR - 2 * PAD), self.edges[-1] - PAD)  # and the words below it beside each other
        axes = self._axes(left, self.bar, right - left, BAR_HEIGHT)
        bar = self.figure.colorbar(
            ScalarMappable(Normalize(0, 1), HEAT_COLORMAP), cax=axes, orientation="horizontal", ticks=[0, 1]
        )
        bar.set_ticks([0, 1], labels=["0 = no contribution", "1 = this panel's strongest"])
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.set_title(label, loc="left")
        bar.outline.set_visible(False)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        across, up = self.figure.get_size_inches()
        return self.figure.add_axes((left / across, bottom / up, width / across, height / up))


def panel_width(ratios: Sequence[float], largest: float, left: float = 0.0) -> float:
    """Inches: as wide as columns of these ratios and row labels of `left` inches allow, up to `largest`."""
    return min(largest, (WIDTH - 2 * MARGIN - left - 2 * PAD * len(ratios)) / sum(ratios))


def panel_layout(
    title: str,
    panel: float,
    image_shape: tuple[int, int],
    ratios: Sequence[float],
    caption_lines: Sequence[int],
    left: float = 0.0,
    color_bar: bool = False,
) -> PanelLayout:
    """A figure just large enough for its rows of panels, with `caption_lines` lines of text above each row.

    `ratios` holds 1 for a column of panels and less for a gap.
    """
    ratios = list(ratios)
    places = [column for column, ratio in enumerate(ratios) if ratio == 1]
    width = left + sum(ratios) * panel + 2 * PAD * len(ratios) + 2 * MARGIN
    narrow = max(NARROW, left + BAR) if color_bar else NARROW
    if width < narrow:  # a title needs room, and what is written at a color bar: the rest stays empty at the right
        ratios.append((narrow - width) / panel)
        width = narrow
    height = panel * image_shape[0] / image_shape[1]
    tops = [(lines * LINE * FONT + CAPTION_PAD + 1) / 72 if lines else 0.0 for lines in caption_lines]
    above, below = (LINE * FONT + matplotlib.rcParams["axes.titlepad"]) / 72, (LINE * FONT + 8) / 72  # of the color bar
    bar = above + BAR_HEIGHT + below + 2 * PAD if color_bar else 0.0
    body = sum(top + height + 2 * PAD for top in tops) + bar
    figure = new_figure(width, body, title)
    figure.set_layout_engine("none")
    edges = MARGIN + left + np.cumsum([0.0, *(ratio * panel + 2 * PAD for ratio in ratios)])
    edges[-1] = width - MARGIN  # also where the rest stays empty
    bottoms = MARGIN + body + PAD - np.cumsum([top + height + 2 * PAD for top in tops])
    return PanelLayout(figure, (panel, height), edges.tolist(), bottoms.tolist(), MARGIN + PAD + below, places)


def fit_captions(captions: Sequence[str], panel: float) -> list[str]:
    """Captions broken so that none is wider than its panel.

    Where one line like "predicted automobile" is too wide, all such lines are broken after the first word, so that the
    captions of a row stay comparable.
    """
    room = 72 * (panel + 2 * PAD) - 4
    if any(text_width(line) > room for caption in captions for line in caption.split("\n")):
        captions = [
            re.sub(r"^(predicted|actual|right:|runner-up:) ", r"\1\n", caption, flags=re.MULTILINE) for caption in captions
        ]
    return [wrap(caption, room, FONT) for caption in captions]


def row_labels(labels: Sequence[str]) -> tuple[list[str], float]:
    """Labels for the left of rows, wrapped to at most 1.1 inches, and the inches they take."""
    wrapped = [wrap(label, 80, FONT) for label in labels]
    return wrapped, max(text_width(line) for label in wrapped for line in label.split("\n")) / 72 + 0.1


# ---- checks ----------------------------------------------------------------------------------------------------------


def shape_text(shape: Sequence[int | str]) -> str:
    """A shape as NumPy writes it, for a message."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def extremes_text(values: np.ndarray) -> str:
    """The range of values, for a message."""
    return f"values from {np.nanmin(values):.4g} to {np.nanmax(values):.4g}" if values.size else "no values"


def check_some(values: Sequence[Any], what: str) -> None:
    """Raise `ValueError` where there is none; `what` is the name in the message, as in every check here."""
    if len(values) == 0:
        raise ValueError(f"{what} is empty; at least one is needed.")


def check_count(values: Sequence[Any], expected: int, what: str) -> None:
    """Raise `ValueError` where there is not one for each of `expected` images."""
    if len(values) != expected:
        raise ValueError(f"{what} has {len(values)} entries for {expected} images; give one for each image.")


def check_images(images: "Pixels", what: str, limit: int) -> np.ndarray:
    """The images, uint8 (N, H, W, 3) with 1 to `limit` of them; `ValueError` for anything else."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:3] or images.dtype != np.uint8:
        raise ValueError(
            f"{what} must be uint8 of shape (N, H, W, 3), not normalised; got {images.dtype} of shape {shape_text(images.shape)}."
        )
    if not 1 <= len(images) <= limit:
        raise ValueError(f"{what} holds {len(images)} images; one figure takes from 1 to {limit}.")
    return images


def check_ids(ids: np.ndarray, shape: tuple[int, ...], classes: Sequence[str], what: str) -> np.ndarray:
    """The class ids, integers of that shape; `ValueError` for anything else."""
    ids = np.asarray(ids)
    if ids.shape != shape or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"{what} must be integer class ids of shape {shape_text(shape)}; got {ids.dtype} of shape {shape_text(ids.shape)}."
        )
    if ids.min() < 0 or ids.max() >= len(classes):
        raise ValueError(f"{what} must be class ids from 0 to {len(classes) - 1}; got {extremes_text(ids)}.")
    return ids


def check_unit_interval(values: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The values, of that shape and from 0 to 1; `ValueError` for anything else."""
    values = np.asarray(values)
    if values.shape != tuple(shape):
        raise ValueError(f"{what} must be of shape {shape_text(shape)}; got {shape_text(values.shape)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds NaN or infinite values; every value must be from 0 to 1.")
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"{what} must lie from 0 to 1; got {extremes_text(values)}.")
    return values
