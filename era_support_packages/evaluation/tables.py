"""Results to read: a table that is HTML in a notebook, text elsewhere, a pandas DataFrame on request; sentences that wrap."""

import html
import itertools
import math
import numbers
import re
import sys
import textwrap
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from era_support_packages.evaluation.intervals import Interval

WIDTH = 100
"""characters: no line of text is longer, unless one word or one cell is"""

# Colours are the page's own, light or dark: only what keeps numbers and words whole is set. Jupyter's style sheet would fix
# the columns' widths, center the table and break words.
_TABLE = "table-layout:auto;border-collapse:collapse;margin:0;font-variant-numeric:tabular-nums"
_AT_SPACES = "white-space:normal;word-break:normal;overflow-wrap:normal"
_CELL = {
    "left": f"text-align:left;{_AT_SPACES};padding:0.2em 0.7em",  # text, in two lines where the page is narrow
    "right": "text-align:right;white-space:nowrap;padding:0.2em 0.7em",
}
_HEADING = {side: f"text-align:{side};vertical-align:bottom;{_AT_SPACES};padding:0.2em 0.7em" for side in _CELL}
_HEADING["right"] += ";width:1px"  # as narrow as its numbers and words allow: the room is for the text
_LINE = ";border-top:1px solid"
_NO_BREAK = "\N{NO-BREAK SPACE}"
_TEXT = f"max-width:60em;margin:0.4em 0 1em 0;{_AT_SPACES}"
_CAPTION = f"{_TEXT};font-size:0.9em"


@dataclass(frozen=True)
class Column:
    """The heading of a column, and how its values are written."""

    name: str
    spec: str = ""
    """of numbers and of an interval's estimate, as `format` takes it: ".3f" """
    factor: float = 1
    """what they are multiplied by to be written; 100 for a share shown in percent"""
    ends: str = ""
    """spec of the ends of an interval; that of the estimate where empty"""
    unless: float | None = None
    """a star marks the intervals that exclude this value"""

    def text(self, value: Any) -> str:
        """A value as it is shown: "" for None, "-" for NaN, "0.21 [0.10, 0.32]" for an `Interval`."""
        if value is None:
            return ""
        if isinstance(value, Interval):
            if math.isnan(value.estimate):
                return "-"
            ends = self.ends or self.spec
            low, high = (format(self.factor * end, ends) for end in (value.low, value.high))
            star = "* " if self.unless is not None and value.excludes(self.unless) else ""
            return f"{star}{format(self.factor * value.estimate, self.spec)} [{low}, {high}]"
        if not _is_number(value):
            return _one_line(str(value))
        if isinstance(value, numbers.Integral) and self.factor == 1:
            return format(int(value), self.spec)
        return "-" if math.isnan(value) else format(self.factor * float(value), self.spec)


@dataclass(frozen=True)
class Table:
    """Rows of values under named columns: shows itself in a notebook, and is text for `print`.

    A value is a string, a number, an `Interval`, or None for an empty cell. Raises `ValueError` for a row that has not a value
    for each column.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""
    """what the columns mean"""
    footer: tuple[tuple[Any, ...], ...] = ()
    """rows below a line that sum the others up, such as their means"""

    def __post_init__(self) -> None:
        for row in (*self.rows, *self.footer):
            if len(row) != len(self.columns):
                names = ", ".join(column.name for column in self.columns)
                raise ValueError(
                    f"A row has {len(row)} values, {row!r}; give one for each of the {len(self.columns)} columns, {names}."
                )

    def __str__(self) -> str:
        """Fixed-width text of at most `WIDTH` characters a line; columns that find no room follow below, named again."""
        headings, cells = self._headings(), self._cells(self.rows) + self._cells(self.footer)
        right = self._aligned_right()
        blocks = []
        for chosen in _folded(headings, cells, right):
            shown = [[row[i] for i in chosen] for row in cells]
            blocks.append("\n".join(_text_block([headings[i] for i in chosen], shown, [right[i] for i in chosen])))
        caption = [wrapped(self.caption)] if self.caption else []
        return "\n".join(["\n\n".join(blocks), *caption] if blocks else caption)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython shows where it shows no HTML."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """An HTML table in the page's own colours; it scrolls where it is wider than the page, and breaks no word."""
        sides = ["right" if right else "left" for right in self._aligned_right()]

        def row(texts: list[str], tag: str, styles: dict[str, str], line: str = "") -> str:
            cells = (
                f'<{tag} style="{styles[side]}{line}">{text_html(text)}</{tag}>' for text, side in zip(texts, sides, strict=True)
            )
            return f"<tr>{''.join(cells)}</tr>"

        head = row(self._headings(), "th", _HEADING)
        body = "\n".join(row(texts, "td", _CELL) for texts in self._cells(self.rows))
        foot = "\n".join(row(texts, "td", _CELL, _LINE) for texts in self._cells(self.footer))
        table = f'<table style="{_TABLE}">\n<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>'
        table += f"\n<tfoot>\n{foot}\n</tfoot>\n</table>" if foot else "\n</table>"
        caption = f'\n<p style="{_CAPTION}">{text_html(self.caption)}</p>' if self.caption else ""
        return f'<div style="overflow-x:auto">\n{table}\n</div>{caption}'

    def markdown(self) -> str:
        """The table as Markdown, with its footer as the last rows and its caption below."""
        rows = [[text_markdown(text) for text in row] for row in (self._headings(), *self._cells(self.rows + self.footer))]
        rows.insert(1, ["---:" if right else "---" for right in self._aligned_right()])
        return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", text_markdown(self.caption)]).rstrip()

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame, with the values as they are: not rounded, shares from 0 to 1; no footer.

        A column of intervals becomes three: the estimates under its name, and `NAME low` and `NAME high`. A name that is there
        already gets a number: `NAME 2`. Raises `ImportError` where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_frame() needs pandas; install it with `pip install pandas`.") from error
        series: dict[str, list[Any]] = {}
        for column, values in zip(
            self.columns, zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns), strict=True
        ):
            intervals = any(isinstance(value, Interval) for value in values)
            name = _new_name(column.name, series)
            series[name] = [getattr(value, "estimate", value) for value in values]
            if intervals:
                for end in ("low", "high"):
                    series[_new_name(f"{name} {end}", series)] = [getattr(value, end, None) for value in values]
        return pandas.DataFrame(series)

    def _headings(self) -> list[str]:
        return [_one_line(column.name) for column in self.columns]

    def _cells(self, rows: tuple[tuple[Any, ...], ...]) -> list[list[str]]:
        return [[column.text(value) for column, value in zip(self.columns, row, strict=True)] for row in rows]

    def _aligned_right(self) -> list[bool]:
        """Which columns hold no text."""
        return [not any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]


class Readable:
    """A result that a person reads: it has a `table` and a `reading`, and from these shows itself."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # IPython takes the `__repr__` of a dataclass before what its base class has: so each class gets its own.
        cls._repr_pretty_ = Readable._repr_pretty_  # type: ignore[method-assign]  # the same method

    def table(self) -> Table:
        """The numbers."""
        raise NotImplementedError

    def reading(self) -> str:
        """What they say, in a few sentences."""
        raise NotImplementedError

    def to_frame(self) -> Any:
        """The rows of the table as a pandas DataFrame (see `Table.to_frame`)."""
        return self.table().to_frame()

    def __str__(self) -> str:
        return f"{self.table()}\n\n{wrapped(self.reading())}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        paragraphs = (f'<p style="{_TEXT}">{text_html(part)}</p>' for part in self.reading().split("\n\n"))
        return "\n".join([self.table()._repr_html_(), *paragraphs])


def show(*parts: Table | Readable | str) -> None:
    """Show tables and sentences one below the other: in a notebook tables as HTML and text as Markdown, elsewhere as text.

    Text is taken as it is: what has a meaning in Markdown or as a formula is shown, not obeyed.

    >>> from era_support_packages import show
    >>> from era_support_packages.evaluation.tables import Column, Table
    >>> show("Images of each class:", Table((Column("class"), Column("images", "d")), (("cat", 12), ("dog", 7))))
    Images of each class:
    <BLANKLINE>
    class  images
    cat        12
    dog         7
    """
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(*(wrapped(part) if isinstance(part, str) else part for part in parts), sep="\n\n")
        return
    for part in parts:
        if isinstance(part, str):
            ipython.display.display({"text/markdown": text_markdown(part), "text/plain": wrapped(part)}, raw=True)
        else:
            ipython.display.display(part)


def print_wrapped(text: str) -> None:
    """Print text in lines of at most `WIDTH` characters; shorter lines, such as a log's, stay as they are."""
    print(wrapped(text))


def wrapped(text: str) -> str:
    """Text broken at spaces, so that no line is longer than `WIDTH` characters; its own line ends stay."""
    fill = textwrap.TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(fill.fill(_glued(line)) for line in text.split("\n")).replace(_NO_BREAK, " ")


# ---- text ------------------------------------------------------------------------------------------------------------


def _glued(text: str) -> str:
    """Text in which "95 %" and "deletion area -" do not part at the line's end from what their last sign belongs to."""
    return re.sub(r" (?=%|[+-]$)", _NO_BREAK, text)


def _one_line(text: str) -> str:
    """Text without line breaks, which would tear a row of a table apart."""
    return " ".join(text.split()) if len(text.splitlines()) > 1 else text


def _new_name(name: str, taken: Container[str]) -> str:
    """The name, with the first free number from 2 on behind it where it is taken."""
    return next(new for new in itertools.chain([name], (f"{name} {number}" for number in itertools.count(2))) if new not in taken)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _heading_lines(heading: str, cells: list[str]) -> list[str]:
    """A heading on as many lines as keep its column narrow: no wider than its widest cell or its longest word."""
    glued = _glued(heading)
    width = max(map(len, (*glued.split(" "), *cells, "")))
    lines = textwrap.wrap(glued, max(1, width), break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines] or [""]


def _folded(headings: list[str], cells: list[list[str]], right: list[bool]) -> list[list[int]]:
    """The columns of each block of text, so that it is no wider than `WIDTH`; the first columns, of text, stand in every one."""
    columns = [[row[i] for row in cells] for i in range(len(headings))]
    widths = [
        max(map(len, (*_heading_lines(heading, column), *column))) for heading, column in zip(headings, columns, strict=True)
    ]
    if not headings:
        return []
    keys = next((i for i, is_right in enumerate(right) if is_right), 1) or 1
    blocks = [list(range(keys))]
    for i in range(keys, len(headings)):
        if len(blocks[-1]) > keys and sum(widths[k] + 2 for k in (*blocks[-1], i)) - 2 > WIDTH:
            blocks.append(list(range(keys)))
        blocks[-1].append(i)
    return blocks


def _text_block(headings: list[str], cells: list[list[str]], right: list[bool]) -> list[str]:
    columns = [[row[i] for row in cells] for i in range(len(headings))]
    tops = [_heading_lines(heading, column) for heading, column in zip(headings, columns, strict=True)]
    height = max(map(len, tops))
    filled = []
    for top, column, is_right in zip(tops, columns, right, strict=True):
        lines = [""] * (height - len(top)) + top + column
        width = max(map(len, lines))
        filled.append([line.rjust(width) if is_right else line.ljust(width) for line in lines])
    return ["  ".join(line).rstrip() for line in zip(*filled, strict=True)]


# ---- pages -----------------------------------------------------------------------------------------------------------


def text_html(text: str) -> str:
    """Text as HTML; a dollar sign in an element of its own is not taken for the beginning of a formula."""
    return html.escape(_glued(text)).replace("$", "<span>$</span>")


def text_markdown(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    escaped = re.sub(r"([\\`*_\[\]|~#])", r"\\\1", html.escape(_glued(text), quote=False))
    return escaped.replace("$", r"<span>\$</span>")
