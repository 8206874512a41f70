"""The table of the planted shortcut in the docs is that of the stored file, and the file says what the page says."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
STORED = "benchmarks/results/planted_shortcut.json"
PAGE = (ROOT / "docs" / "your-own-network.md").read_text(encoding="utf-8")
FOUND = json.loads((ROOT / STORED).read_text(encoding="utf-8"))


def test_the_table_of_the_page_is_that_of_the_stored_file() -> None:
    table = re.search(rf"<!-- rows of {re.escape(STORED)} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL).group(1).strip()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == list(FOUND["rows"][0])
    assert rows[2:] == [[str(value) for value in row.values()] for row in FOUND["rows"]]


def test_what_the_page_says_of_it_stands_in_the_file() -> None:
    best = max(FOUND["rows"], key=lambda row: row["hits %"] - row["control %"])
    text = re.sub(r"\s+", " ", PAGE)
    for number in (f"{best['hits %']:g} %", f"{best['ceiling %']:g} %", f"{best['control %']:g} %"):
        assert number in text
    for sentence in re.findall(r"\*([^*]*mark was[^*]*)\*", text):
        assert sentence in FOUND["sentence"], sentence
    assert "label was drawn at random" in FOUND["sentence"]


def test_the_control_stays_thirty_points_below_its_ceiling_where_the_grid_allows_that() -> None:
    for row in FOUND["rows"]:
        if row["ceiling %"] >= 50:
            assert row["control %"] <= row["ceiling %"] - 30, row


def test_a_map_hits_the_mark_in_over_nine_tenths_of_the_images() -> None:
    best = max(FOUND["rows"], key=lambda row: row["hits %"])
    assert best["hits %"] > 90
    assert best["verdict"] == "finds it"
