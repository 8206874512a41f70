"""What the benchmarks share: ratios within rounds, the table, the file; and that the stored results are such files."""

import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW_KEYS = {"benchmark", "command", "versions", "rows"}  # each row names its own device
KEYS = ROW_KEYS | {"hardware", "ratio", "sentence"}


def stored(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def test_measures_alternate_and_the_ratio_is_the_median_within_the_rounds(bench):
    order: list[str] = []
    values = {"a": [1.0, 8.0, 3.0], "b": [1.0, 2.0, 1.5]}

    def once(name: str) -> float:
        order.append(name)
        return values[name].pop(0)

    found = bench.alternate({name: partial(once, name) for name in values}, 3)
    assert order == ["a", "b"] * 3
    assert found == {"a": [1.0, 8.0, 3.0], "b": [1.0, 2.0, 1.5]}
    assert bench.ratio(found["a"], found["b"]) == 2.0  # the median of 1, 4 and 2


def test_a_result_is_printed_as_a_table_and_written_as_it_is(bench, tmp_path, monkeypatch, capsys):
    file = tmp_path / "new" / "result.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks/speed.py", "--json", "result.json"])
    rows = [{"way": "ours", "ms": 1234.5}, {"way": "the library's", "ms": 0.012345}]
    bench.publish("speed", rows, 2.5, "Two and a half times.", str(file))
    lines = ["way                ms", "ours             1234", "the library's  0.0123", "Two and a half times."]
    assert capsys.readouterr().out.splitlines() == lines
    result = json.loads(file.read_text())
    assert set(result) == KEYS
    assert (result["benchmark"], result["command"]) == ("speed", "python benchmarks/speed.py --json result.json")
    assert (result["rows"], result["ratio"]) == (rows, 2.5)


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda file: file.stem)
def test_stored_results_name_how_they_were_made(file):
    result = json.loads(file.read_text())
    trained = file.stem in ("accuracy", "screening", "finetune", "learning_rate")
    assert set(result) == (ROW_KEYS | {"recipes"} if trained else KEYS)
    assert (ROOT / "benchmarks" / f"{result['benchmark']}.py").is_file()
    assert result["command"].startswith(f"python benchmarks/{result['benchmark']}.py")
    assert result["command"].endswith(f"--json benchmarks/results/{file.name}")
    assert result["versions"]["torch"]
    if trained:
        assert all(row["device"] and row["commit"] for row in result["rows"])
    else:
        assert result["sentence"].count(f"{result['ratio']:.2f}") == 1


def test_no_stored_result_names_a_folder_of_one_machine():
    import accuracy

    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert not re.search(r'[ "=]/\w+/', file.read_text()), file.name
    assert accuracy.here("digits") == "digits"
    assert accuracy.here("data/photos") == "data/photos"
    assert accuracy.here(str(ROOT / "data" / "photos")) == "data/photos"
    assert accuracy.here("/elsewhere/photos") == "photos"


def test_the_readmes_quote_the_stored_results():
    import accuracy
    import learning_rate
    import screening

    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "benchmarks/results"], cwd=ROOT, capture_output=True)
    if changed.returncode:
        pytest.skip("the benchmarks were run again here, or this is no git checkout")
    readme, text = ((ROOT / name).read_text() for name in ("README.md", "benchmarks/README.md"))
    ratio = stored("gradcam")["ratio"]
    assert f"({ratio:.1f} times as" in readme
    assert f"{ratio:.1f} times as fast" in text
    files = ("throughput", "throughput_16px", "throughput_batch64", "throughput_16px_fp32")
    for row in (row for file in files for row in stored(file)["rows"]):
        quoted = f"| {row['images/s (median)']:.0f} | {row['slowest']:.0f} to {row['fastest']:.0f} |"
        quoted += f""" {row["times the original's way"]:.2f} |"""
        assert f"| {row['variant']} {quoted}" in text
    sections = {row["section"].split(".")[0]: row["seconds"] for row in stored("notebook_sections_cpu")["rows"]}
    after = sum(seconds for number, seconds in sections.items() if int(number) > 7)
    page = " ".join(text.split())
    assert f"{sum(sections.values()):.0f} seconds; training takes {sections['7']:.0f} and all after it {after:.0f}" in page
    words = stored("step_layers")["sentence"]
    assert f"reaches {re.search(r'([0-9]+) GFLOP', words)[1]} GFLOP/s" in text
    assert f"runs at {re.search(r'runs at ([0-9.]+) of', words)[1]} of that" in page
    for row in stored("augmentation")["rows"]:
        assert f"| {row['way']} | {row['images/s (median)']:.0f} | {row['ms a batch']:.3g} |" in text
    for line in screening.compared(stored("screening")["rows"], stored("screening")["recipes"]):
        assert f"| {line['seeds']} | {line['without %']} % | {line['with %']} % | {line['difference']} |" in text
    lines = learning_rate.summarized(stored("learning_rate")["rows"])
    assert f"{accuracy.markdown(lines)}\n\n{learning_rate.conclusion(lines)}" in text
    lines = accuracy.summarized(stored("accuracy")["rows"])
    assert accuracy.markdown(lines) in text
    for line in (line for line in lines if line["recipe"] in ("cpu", "fast") and line["seeds"] >= 3):
        assert f"{line['test accuracy %']} %" in readme, line
        assert line["a new run"].replace(" to ", " and ") in readme.replace(" to ", " and "), line


def test_a_key_changes_with_every_value_that_decides_the_result_and_with_no_other():
    import keys
    from other_values import OTHER_VALUES, make

    plain = keys.key_of(make())
    assert set(keys.ALWAYS) | set(keys.NEVER) | {"muon_lr", "range_test_iterations"} <= set(OTHER_VALUES)
    for name, change in OTHER_VALUES.items():
        assert (keys.key_of(make(**change)) == plain) == (name in (*keys.NEVER, "muon_lr", "muon_outputs")), name
    assert keys.key_of(make(max_lr=1)) == keys.key_of(make(max_lr=1.0, range_test_iterations=300)) != plain
    muon = make(optimizer="muon")
    assert keys.key_of(muon) != keys.key_of(make(optimizer="muon", muon_lr=0.2))
    assert keys.key_of(muon) != keys.key_of(make(optimizer="muon", muon_outputs=256))
    assert keys.recipe_values(muon)["muon_iterations"] == 3
    devices = {"CPU (x, 2 threads)": "cpu", "Apple GPU (arm64)": "mps", "NVIDIA H200": "cuda"}
    assert {device: keys.kind_of(device) for device in devices} == devices


def test_stored_rows_carry_the_keys_of_what_they_were_trained_with():
    import keys

    for name in ("accuracy", "screening", "learning_rate"):
        content = stored(name)
        assert all(keys.digest(values) == key for key, values in content["recipes"].items())
        assert {row["key"] for row in content["rows"]} == set(content["recipes"])
        assert all(row["kind"] == keys.kind_of(row["device"]) for row in content["rows"] if "kind" in row)


def test_a_row_names_its_commit_and_whether_the_code_was_changed_since(bench, monkeypatch, tmp_path):
    results = tmp_path / "benchmarks" / "results" / "accuracy.json"
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    assert bench.commit() == "unknown"
    results.parent.mkdir(parents=True)
    code = tmp_path / "code.py"
    for file in (results, code):
        file.write_text("1")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    name = bench.commit()
    assert len(name) >= 7
    assert not name.endswith("+")
    results.write_text("2")
    assert bench.commit() == name
    code.write_text("2")
    assert bench.commit() == f"{name}+"


def test_stored_rows_can_be_written_elsewhere_too(bench, tmp_path):
    rows = bench.RowFile(tmp_path / "accuracy.json")
    rows.add({"key": "a", "seed": 0}, {"max_lr": 1})
    rows.add({"key": "a", "seed": 1}, {"max_lr": 1})
    rows.copy(str(tmp_path / "new" / "copy.json"))
    rows.copy(None)
    result = json.loads((tmp_path / "new" / "copy.json").read_text())
    assert result == json.loads(rows.path.read_text())
    assert (result["benchmark"], result["recipes"]) == ("accuracy", {"a": {"max_lr": 1}})
    assert result["rows"] == [{"key": "a", "seed": 0}, {"key": "a", "seed": 1}]
