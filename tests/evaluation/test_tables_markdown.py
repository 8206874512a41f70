"""Tables as Markdown, for pages that are read as text or by a renderer."""

from era_support_packages.evaluation.intervals import Interval
from era_support_packages.evaluation.tables import Column, Table


def test_a_table_as_markdown_keeps_its_columns_whatever_its_texts_hold():
    columns = (Column("class"), Column("share", ".1f", factor=100))
    table = Table(columns, (("a|b*", Interval(0.5, 0.25, 0.75)), ("c", None)), "in percent", (("mean", 0.5),))
    assert table.markdown().splitlines() == [
        "| class | share |",
        "| --- | ---: |",
        r"| a\|b\* | 50.0 \[25.0, 75.0\] |",
        "| c |  |",
        "| mean | 50.0 |",
        "",
        "in percent",
    ]


def test_without_a_caption_nothing_is_below():
    assert Table((Column("n", "d"),), ((1,),)).markdown() == "| n |\n| ---: |\n| 1 |"
