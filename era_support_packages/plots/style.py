"""One style for all figures, and what it takes to show and to keep them.

Figures are built without pyplot, so nothing is kept open and no global setting changes. At most ten inches wide with 9 pt
text (legible where a notebook shows a figure at 900 pixels), white background, the colours of Okabe and Ito 2008, "Color
Universal Design", which colour-blind readers tell apart, and perceptually uniform heat maps.
"""

import base64
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from era_support_packages.evaluation.tables import wrapped
from era_support_packages.system.atomic_file import write_atomically

WIDTH = 10.0  # inches: the widest figure, and the narrowest that has room for a title
NARROW = 4.2
FONT, TITLE_FONT = 9.0, 12.0  # points
PAD = 0.04  # inches around every panel
MARGIN = 0.08  # inches around a figure
LINE = 1.2  # height of a line of text in font sizes, matplotlib's own default
HEAT_COLORMAP = "inferno"
MAX_IMAGES = 400  # beyond it a figure is larger than a PNG may be and takes minutes to lay out
MAX_VARIANTS = 12
MAX_BLOCK_COLUMNS = 10

BLUE, VERMILLION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
INK, GRAY, FAINT = "#222222", "#666666", "#CCCCCC"

FAMILY = "DejaVu Sans"  # comes with matplotlib: the same figure on every machine
OTHER_FAMILIES = (  # for the signs that it lacks, where they are installed: Chinese, Japanese and Korean, then emoji
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans"),
    *("Yu Gothic", "Meiryo", "Malgun Gothic", "Apple SD Gothic Neo", "Noto Emoji", "Symbola", "Segoe UI Emoji"),
)

STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "legend.frameon": False,
    "figure.titlesize": TITLE_FONT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "text.parse_math": False,  # a class may be called "us$"
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under the project's style, whatever the caller's settings; they are put back after it."""

    @functools.wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.style.context(["default", STYLE, {"font.family": families()}]):
            figure = draw(*args, **kwargs)
            for axis in figure.findobj(Axis):  # ticks are made when first asked for: ask under this style
                axis.get_ticklabels()
            return figure

    return styled


def new_figure(width: float, body_height: float, title: str) -> Figure:
    """A figure of `width` inches whose height is that of its body and of its title, wrapped to the width."""
    room = 72 * (width - 2 * MARGIN)
    wrapped = [wrap(title, part * room, TITLE_FONT) for part in (1.0, 0.9, 0.8, 0.7, 0.6)]
    fewest = count_lines(wrapped[0])
    title = [text for text in wrapped if count_lines(text) == fewest][-1]  # narrow: no last line of a single word
    top = text_height(title, TITLE_FONT) + 2 * PAD + MARGIN
    height = top + body_height + MARGIN
    body = (MARGIN / width, MARGIN / height, 1 - 2 * MARGIN / width, 1 - (top + MARGIN) / height)
    engine = ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD, wspace=0.0, hspace=0.0, rect=body)
    figure = Figure(figsize=(width, height), layout=engine)
    heading = figure.suptitle(title, x=(MARGIN + PAD) / width, y=1 - MARGIN / height, ha="left", va="top")
    heading.set_in_layout(False)  # its room is taken off already: the layout would centre it
    return figure


@functools.lru_cache(maxsize=1)
def families() -> list[str]:
    """The font families of a figure's texts: the first that has a sign draws it."""
    installed = set(fontManager.get_font_names())
    return [FAMILY, *(family for family in OTHER_FAMILIES if family in installed)]


@contextmanager
def missing_glyphs_told(aloud: bool = True) -> Iterator[None]:
    """Within the block matplotlib draws or measures text. Where no font has a sign, one sentence says so instead of a warning for
    each sign and text; `aloud=False`: none does.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    missing = [said for said in caught if re.match(r"Glyph \d+ .*missing from", str(said.message))]
    for said in caught:
        if said not in missing:
            warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
    if missing and aloud:
        _warn_of_missing_glyphs()


@functools.lru_cache(maxsize=1)  # once
def _warn_of_missing_glyphs() -> None:
    warnings.warn(
        "Figures show boxes for signs that no installed font has: install one that has them, such as Noto Sans CJK "
        "(fonts-noto-cjk on Debian, Ubuntu and Colab), and start again.",
        stacklevel=4,
    )


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float = FONT, family: str = "") -> float:
    """Points that one line of text takes at most: a little more than its outlines, for rounding to pixels."""
    font = FontProperties(family=family or families(), size=size)
    with missing_glyphs_told(aloud=False):
        return 1.04 * text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]


def text_height(text: str, size: float) -> float:
    """Inches that the lines of a text take."""
    return count_lines(text) * LINE * size / 72


def count_lines(text: str) -> int:
    """How many lines a text has, 0 where it is empty."""
    return text.count("\n") + 1 if text else 0


def wrap(text: str, points: float, size: float) -> str:
    """Text broken at spaces, and in a word only where the word alone is too wide, so that no line exceeds `points`."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.split(" (?!%)", paragraph):  # "83 %" stays together
            joined = f"{line} {word}" if line else word
            if text_width(joined, size) <= points:
                line = joined
                continue
            if line:
                lines.append(line)
            while text_width(word, size) > points:
                fits = max((end for end in range(1, len(word)) if text_width(word[:end], size) <= points), default=1)
                # A name like aquarium_fish breaks where its parts meet, that of several layers between these.
                joints = (max(word.rfind(mark, 0, fits) for mark in marks) for marks in ("+", "_-./"))
                end = next((joint + 1 for joint in joints if joint > 0), fits)
                lines.append(word[:end])
                word = word[end:]
                if len(word) <= 1:
                    break
            line = word
        lines.append(line)
    return "\n".join(lines)


def percent_text(fraction: float) -> str:
    """0.834 as "83 %", 0.0421 as "4.2 %": a decimal only where it says something."""
    value = 100 * float(fraction)
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def save(figure: Figure, path: str | Path, dpi: float = 150) -> Path:
    """Write a figure as PNG, whole or not at all; missing folders are created. Returns the path.

    Raises ValueError where the name does not end in .png.

    >>> import numpy as np
    >>> from era_support_packages import plots
    >>> figure = plots.image_grid(np.zeros((2, 8, 8, 3), np.uint8), ["black", "black too"], "Two images")
    >>> plots.save(figure, "figures/black.png").name
    'black.png'
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path.name} cannot be written: figures are saved as PNG, so the name must end in .png.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png(figure, dpi))
    return path


def show(figure: Figure, dpi: float | None = None, picture: bytes | None = None) -> None:
    """Display a figure as PNG in a notebook, with its title as alternative text; without IPython running, do nothing.

    `display` has no picture of a figure made without pyplot before `%matplotlib inline` is run; this needs neither.
    `picture` is the figure's PNG where it was drawn before: it is shown as wide as one of `dpi` would be.

    >>> import numpy as np
    >>> from era_support_packages import plots
    >>> figure = plots.image_grid(np.zeros((2, 8, 8, 3), np.uint8), ["black", "black too"], "Two images")
    >>> plots.show(figure)  # a picture in a notebook, nothing elsewhere
    """
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is None:
        return
    data, metadata = picture_bundle(figure, dpi, picture)
    display(data, metadata=metadata, raw=True)


def picture_bundle(
    figure: Figure, dpi: float | None = None, picture: bytes | None = None
) -> tuple[dict[str, str], dict[str, Any]]:
    """The data and the metadata of a figure's output in a notebook: its PNG as base64 text, its title as alternative text, and
    its width in pixels of the page, as `show` describes them.

    Written out because `IPython.display.Image` takes `alt` from IPython 8 on only, and Colab has 7.34.
    """
    title = figure.get_suptitle().replace("\n", " ")
    dpi = dpi or figure.dpi
    encoded = base64.b64encode(png(figure, dpi) if picture is None else picture).decode()
    width = int(figure.bbox.width / figure.dpi * dpi)
    return {"text/plain": wrapped(title), "image/png": encoded}, {"image/png": {"alt": title, "width": width}}


def png(figure: Figure, dpi: float) -> bytes:
    """The figure as a PNG file, with the pixels of `Figure.savefig` but without its second drawing, which nobody sees.

    >>> from era_support_packages.plots import style
    >>> style.png(style.new_figure(4, 1, "A title"), dpi=50)[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    own_dpi, own_canvas = figure.dpi, figure.canvas
    try:
        figure.set_dpi(dpi)
        with missing_glyphs_told():
            FigureCanvasAgg(figure).print_png(buffer)
    finally:
        figure.set_dpi(own_dpi)
        figure.set_canvas(own_canvas)
    return buffer.getvalue()
