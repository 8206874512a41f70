"""Tables and sentences: as text, as HTML, as Markdown and as a pandas DataFrame."""

import html.parser
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from era_support_packages.evaluation import tables
from era_support_packages.evaluation.intervals import Interval
from era_support_packages.evaluation.tables import WIDTH, Column, Readable, Table, show, wrapped

COLUMNS = (
    Column("map"),
    Column("images", "d"),
    Column("mean confidence", ".1f", factor=100),
    Column("advantage", "+.2f", unless=0),
)
ROWS = (
    ("Grad-CAM", 12, 0.5, Interval(0.25, 0.125, 0.375)),
    ("HiResCAM", np.int64(7), np.float32(0.0625), Interval(-0.5, -1.0, 0.25)),
    ("a <b> & $x$", None, math.nan, None),
)


@pytest.fixture
def table() -> Table:
    return Table(COLUMNS, ROWS, "In percent.", footer=(("mean", None, 0.28125, None),))


class Parser(html.parser.HTMLParser):
    """The cells of an HTML table with their styles, row by row, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows, self.styles, self.open = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.styles.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.styles[-1].append(dict(attributes)["style"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@dataclass(frozen=True)
class Fruit(Readable):
    weights: tuple[float, ...] = (0.125,) * 100

    def table(self) -> Table:
        return Table((Column("fruit"), Column("count", "d")), (("pear", 2),))

    def reading(self) -> str:
        return "Two pears."


def test_as_text_numbers_are_right_aligned_and_headings_break_between_words(table: Table) -> None:
    assert str(table).splitlines() == [
        "                           mean",
        "map          images  confidence               advantage",
        "Grad-CAM         12        50.0  * +0.25 [+0.12, +0.38]",
        "HiResCAM          7         6.2    -0.50 [-1.00, +0.25]",
        "a <b> & $x$                   -",
        "mean                       28.1",
        "In percent.",
    ]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        (Column("x"), None, ""),
        (Column("x", ".3f"), math.nan, "-"),
        (Column("x", ".3f"), Interval(math.nan, math.nan, math.nan), "-"),
        (Column("x", ".1f", factor=100), 1, "100.0"),
        (Column("x", ",d"), np.int64(1234), "1,234"),
        (Column("x", ".1f", factor=100, ends=".0f"), Interval(0.945, 0.9, 0.97), "94.5 [90, 97]"),
        (Column("x", "+.2f", unless=0), Interval(0.5, 0.0, 1.0), "+0.50 [+0.00, +1.00]"),
        (Column("x"), True, "True"),
    ],
)
def test_how_a_value_is_written(column: Column, value: Any, text: str) -> None:
    assert column.text(value) == text


def test_a_wide_table_goes_on_below_under_its_first_columns() -> None:
    names = [f"a column of number {number}" for number in range(12)]
    columns = (Column("map"), Column("layer"), *(Column(name, ".9f") for name in names))
    text = str(Table(columns, (("Grad-CAM", "layer4", *(number + 0.5 for number in range(12))),)))
    assert max(map(len, text.splitlines())) <= WIDTH
    blocks = text.split("\n\n")
    assert len(blocks) == 2
    assert all(block.splitlines()[-1].startswith("Grad-CAM  layer4  ") for block in blocks)
    assert re.findall(r"(\d+)\.5", text) == [str(number) for number in range(12)]


def test_no_line_is_longer_than_a_hundred_characters_and_no_sign_is_alone() -> None:
    text = ("word " * 19 + "100.5 % of " + "x" * 120 + "\n  short\n").rstrip()
    lines = wrapped(text).split("\n")
    assert lines == [" ".join(["word"] * 19), "100.5 % of", "x" * 120, "  short"]
    assert " ".join(lines) == text.replace("\n", " ")


def test_a_row_needs_a_value_for_each_column() -> None:
    with pytest.raises(ValueError, match=r"^A row has 1 values, \('a',\); give one for each of the 2 columns, x, y\.$"):
        Table((Column("x"), Column("y")), (("a",),))


def test_a_table_without_columns_is_its_caption() -> None:
    assert str(Table((), ())) == ""
    nothing = Table((), ((), ()), "Nothing was measured.")
    assert str(nothing) == "Nothing was measured."
    assert "Nothing was measured." in nothing._repr_html_()


def test_a_line_break_tears_no_row_apart() -> None:
    table = Table((Column("class\r\nname"), Column("count")), (("guinea\n pig", 2), ("cat", 3)))
    assert str(table).splitlines() == ["class name  count", "guinea pig      2", "cat             3"]
    assert Parser(table._repr_html_()).rows == [["class name", "count"], ["guinea pig", "2"], ["cat", "3"]]


def test_as_html_it_has_the_same_cells_and_no_number_or_word_breaks(table: Table) -> None:
    page = Parser(table._repr_html_())
    assert page.open == []
    assert page.rows == [
        ["map", "images", "mean confidence", "advantage"],
        ["Grad-CAM", "12", "50.0", "* +0.25 [+0.12, +0.38]"],
        ["HiResCAM", "7", "6.2", "-0.50 [-1.00, +0.25]"],
        ["a <b> & $x$", "", "-", ""],
        ["mean", "", "28.1", ""],
    ]
    for styles in page.styles[1:]:
        assert [re.search("text-align:(\\w+)", style).group(1) for style in styles] == ["left", "right", "right", "right"]
        assert "white-space:normal;word-break:normal;overflow-wrap:normal" in styles[0]  # text wraps at its spaces
        assert all("white-space:nowrap" in style for style in styles[1:])
    assert all("overflow-wrap:normal" in style for style in page.styles[0])
    assert not re.search(r"color|background", table._repr_html_())  # the page chooses them
    assert "$" not in table._repr_html_().replace("<span>$</span>", "")  # no dollar begins a formula


def test_a_readable_result_shows_its_table_and_its_reading() -> None:
    assert str(Fruit()) == "fruit  count\npear       2\n\nTwo pears."
    page = Fruit()._repr_html_()
    assert Parser(page).rows == [["fruit", "count"], ["pear", "2"]]
    assert page.index("</table>") < page.index("Two pears.")


def test_outside_of_ipython_everything_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    show(Fruit().table(), "word " * 30)
    assert capsys.readouterr().out == f"fruit  count\npear       2\n\n{'word ' * 19}word\n{'word ' * 9}word\n"


TRICKY = "us$ and b$: *a* _b_ `c` [d](e) <f> & \\g 95 % # ~~h~~ | i"


def test_in_a_notebook_tables_are_html_and_sentences_markdown(tmp_path: Path) -> None:
    capture = pytest.importorskip("IPython.utils.capture")
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    shell = interactive.InteractiveShell.instance(ipython_dir=str(tmp_path))
    try:
        with capture.capture_output() as captured:
            show(Fruit().table(), Fruit(), TRICKY)
    finally:
        shell.clear_instance()
    data = [output.data for output in captured.outputs]
    kinds = ["text/html", "text/html", "text/markdown"]
    assert [set(each) for each in data] == [{kind, "text/plain"} for kind in kinds]
    assert [each["text/plain"] for each in data] == [str(Fruit().table()), str(Fruit()), TRICKY]
    assert captured.stdout == ""


def test_markdown_shows_the_text_as_it_is() -> None:
    """Seen through the reader of Markdown that exports a notebook."""
    filters = pytest.importorskip("nbconvert.filters")
    page = filters.markdown2html(tables.text_markdown(TRICKY))
    assert re.findall(r"<(\w+)", page) == ["p", "span", "span"]
    assert "$" not in page.replace("<span>$</span>", "")
    text = html.unescape(re.sub(r"<[^>]*>", "", page)).strip()
    assert text.replace("\N{NO-BREAK SPACE}", " ") == TRICKY


def test_a_frame_holds_the_values_unrounded_and_the_ends_of_intervals(table: Table) -> None:
    pytest.importorskip("pandas")
    frame = table.to_frame()
    assert list(frame.columns) == ["map", "images", "mean confidence", "advantage", "advantage low", "advantage high"]
    assert frame["map"].tolist() == ["Grad-CAM", "HiResCAM", "a <b> & $x$"]
    expected = [[12, 0.5, 0.25, 0.125, 0.375], [7, 0.0625, -0.5, -1.0, 0.25], [math.nan] * 5]
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(float), expected)
    assert all(kind.kind == "f" for kind in frame.dtypes.iloc[1:])
    empty = Table(COLUMNS, ()).to_frame()
    assert (list(empty.columns), len(empty)) == (["map", "images", "mean confidence", "advantage"], 0)
    assert Fruit().to_frame()["count"].tolist() == [2]


def test_no_column_of_a_frame_hides_another_of_the_same_name() -> None:
    pytest.importorskip("pandas")
    columns = (Column("share"), Column("share low"), Column("share"), Column("share"))
    frame = Table(columns, ((Interval(0.5, 0.25, 0.75), 7, 8, Interval(1.5, 1.25, 1.75)),)).to_frame()
    assert frame.iloc[0].to_dict() == {
        **{"share": 0.5, "share low": 0.25, "share high": 0.75, "share low 2": 7, "share 2": 8},
        **{"share 3": 1.5, "share 3 low": 1.25, "share 3 high": 1.75},
    }


def test_without_pandas_the_remedy_is_named(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame\(\) needs pandas; install it with `pip install pandas`\.$"):
        table.to_frame()
