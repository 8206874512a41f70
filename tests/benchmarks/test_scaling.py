"""The scaling benchmark, made small, and that the page says what it computes on paper."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


def test_what_each_process_sends_by_hand():
    import scaling

    assert scaling.ring_bytes(1000, 1) == 0
    assert scaling.ring_bytes(1000, 2) == 4000  # half of it out, half of the sum out
    assert scaling.ring_bytes(1000, 4) == 6000
    two, *_ = scaling.on_paper()
    assert two["MB sent"] == pytest.approx(44.7, abs=0.05)
    assert two["ms at 10 Gbit/s"] == pytest.approx(35.8, abs=0.05)


def test_the_page_quotes_the_arithmetic():
    import scaling

    page = (ROOT / "docs" / "scaling.md").read_text()
    for row in scaling.on_paper():
        count, *values = row.values()
        assert f"| {count} | {' | '.join(format(value, '.2g' if value < 10 else '.0f') for value in values)} |" in page
    stored = ROOT / "benchmarks" / "results" / "scaling.json"
    for row in json.loads(stored.read_text())["rows"] if stored.exists() else []:
        assert f"| {row['variant']} | {row['batch']} | {row['images/s (median)']:.0f} |" in page


@pytest.mark.parametrize(("gpus", "counts"), [(0, [1, 2]), (2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4])])
def test_what_is_measured(gpus, counts):
    import scaling

    found = scaling.variants(SimpleNamespace(batch_size=64), gpus)
    assert sorted({count for count, _, _ in found.values()}) == counts
    assert {batch for name, (_, batch, _) in found.items() if "weak" not in name} == {64}
    assert {batch for name, (count, batch, _) in found.items() if "weak" in name and batch != 64 * count} == set()
    assert sum(products is not None for _, _, products in found.values()) == (0 if gpus else 2)


@pytest.mark.several
def test_the_whole_on_a_tiny_batch(tmp_path, monkeypatch, capsys):
    import scaling

    file = tmp_path / "scaling.json"
    words = ["--rounds", "1", "--pixels", "8", "--batch-size", "4", "--steps", "1", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", ["benchmarks/scaling.py", *words])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    scaling.main()
    result = json.loads(file.read_text())
    assert [row["variant"] for row in result["rows"]][:3] == ["1 process", "2 processes, strong", "2 processes, weak"]
    assert [row["batch"] for row in result["rows"]] == [4, 4, 8, 4, 4]
    assert all(row["images/s (median)"] > 0 for row in result["rows"])
    assert result["ratio"] == result["rows"][1]["times one process"]
    said = capsys.readouterr().out
    assert said.count(f"{result['ratio']:.2f}") >= 1
    assert re.search(r"^processes +MB sent +ms at 1 Gbit/s", said)
