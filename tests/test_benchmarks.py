"""What the benchmarks share: ratios within rounds, the table, the file; and that the stored results are such files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEYS = {"benchmark", "command", "hardware", "versions", "rows", "ratio", "sentence"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import bench

    return bench


def test_measures_alternate_and_the_ratio_is_the_median_within_the_rounds(bench) -> None:
    order: list[str] = []

    def measure(name: str, values: list[float]):
        def once() -> float:
            order.append(name)
            return values.pop(0)

        return once

    found = bench.alternate({"a": measure("a", [1.0, 8.0, 3.0]), "b": measure("b", [1.0, 2.0, 1.5])}, 3)
    assert order == ["a", "b"] * 3
    assert found == {"a": [1.0, 8.0, 3.0], "b": [1.0, 2.0, 1.5]}
    assert bench.ratio(found["a"], found["b"]) == 2.0  # the median of 1, 4 and 2


def test_a_result_is_printed_as_a_table_and_written_as_it_is(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "result.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks/speed.py", "--json", "result.json"])
    rows = [{"way": "ours", "ms": 1234.5}, {"way": "the library's", "ms": 0.012345}]
    bench.publish("speed", rows, 2.5, "Two and a half times.", str(file))
    assert capsys.readouterr().out.splitlines() == [
        "way                ms",
        "ours             1234",
        "the library's  0.0123",
        "Two and a half times.",
    ]
    result = json.loads(file.read_text())
    assert set(result) == KEYS
    assert (result["benchmark"], result["command"]) == ("speed", "python benchmarks/speed.py --json result.json")
    assert (result["rows"], result["ratio"]) == (rows, 2.5)


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda file: file.stem)
def test_stored_results_name_how_they_were_made(file: Path) -> None:
    result = json.loads(file.read_text())
    assert set(result) == KEYS
    assert (ROOT / "benchmarks" / f"{result['benchmark']}.py").is_file()
    assert result["command"].startswith(f"python benchmarks/{result['benchmark']}.py")
    assert result["command"].endswith(f"--json benchmarks/results/{file.name}")
    assert result["sentence"].count(f"{result['ratio']:.2f}") == 1


def test_the_readmes_quote_the_stored_results() -> None:
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "benchmarks/results"], cwd=ROOT, capture_output=True)
    if changed.returncode:
        pytest.skip("the benchmarks were run again here, or this is no git checkout")
    results = {file.stem: json.loads(file.read_text()) for file in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert f"({results['gradcam']['ratio']:.1f} times as" in (ROOT / "README.md").read_text()
    text = (ROOT / "benchmarks" / "README.md").read_text()
    for name in ("throughput", "throughput_16px"):
        for row in results[name]["rows"]:
            quoted = f"| {row['images/s (median)']:.0f} | {row['slowest']:.0f} to {row['fastest']:.0f} |"
            assert f"| {row['variant']} {quoted}" in text
