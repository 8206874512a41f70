"""What the benchmarks share: ratios within rounds, the table, the file; and that the stored results are such files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW_KEYS = {"benchmark", "command", "versions", "rows"}  # each row names its own device
KEYS = ROW_KEYS | {"hardware", "ratio", "sentence"}


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
    trained = file.stem in ("accuracy", "screening")
    assert set(result) == (ROW_KEYS if trained else KEYS)
    assert (ROOT / "benchmarks" / f"{result['benchmark']}.py").is_file()
    assert result["command"].startswith(f"python benchmarks/{result['benchmark']}.py")
    assert result["command"].endswith(f"--json benchmarks/results/{file.name}")
    assert result["versions"]["torch"]
    if trained:
        assert all(row["device"] and row["commit"] for row in result["rows"])
    else:
        assert result["sentence"].count(f"{result['ratio']:.2f}") == 1


def test_the_readmes_quote_the_stored_results(bench) -> None:
    import accuracy
    import screening

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
    for row in results["augmentation"]["rows"]:
        assert f"| {row['way']} | {row['images/s (median)']:.0f} | {row['ms a batch']:.3g} |" in text
    assert f"{results['gradcam']['ratio']:.1f} times as fast" in text
    for line in screening.compared(results["screening"]["rows"]):
        quoted = f"| {line['seeds']} | {line['without %']} % | {line['with %']} % | {line['difference']} |"
        assert quoted in text
    for line in accuracy.summarised(results["accuracy"]["rows"]):
        for page in (text, (ROOT / "README.md").read_text()):
            assert f"{line['test accuracy %']} %" in page
            assert f"{line['with flips averaged %']} %" in page


@pytest.fixture
def accuracy(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The benchmark with a store of its own and one recipe that takes a second, on eight-pixel images of three colours."""
    import accuracy
    from tiny import coloured_images

    from era_support_packages import recording

    changes = {"train_images": 32, "resolutions": [[8, 1.0]], "model": "resnet_custom", "batch_size": 8, "device": "cpu"}
    monkeypatch.setattr(accuracy, "STORED", bench.RowFile(tmp_path / "results" / "accuracy.json"))
    monkeypatch.setattr(accuracy, "RECIPES", {"cpu": accuracy.Recipe("smoke", changes)})
    monkeypatch.setattr(
        recording.datasets, "load", lambda name, root: (coloured_images(16), coloured_images(8, split="test", seed=1))
    )
    monkeypatch.chdir(tmp_path)
    return accuracy


def test_missing_rows_are_trained_and_stored_and_no_row_twice(
    accuracy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["accuracy.py", "--full", "--data", "colours", "--recipes", "cpu", "--seeds"]
    monkeypatch.setattr(sys, "argv", [*command, "0"])
    accuracy.main()
    (row,) = accuracy.STORED.rows()
    assert (row["recipe"], row["preset"], row["data"], row["seed"], row["images"]) == ("cpu", "smoke", "colours", 0, 32)
    assert row["epochs at 32 px"] == round(32 * 8 * 8 / (32 * 32) / 16, 2)
    assert 0 <= row["test_accuracy"] <= 100
    assert 0 <= row["test_accuracy_tta"] <= 100
    assert row["pflops"] > 0
    assert row["command"] == (
        "python -m era_support_packages --preset smoke --dataset colours --seed 0 --train-images 32 --resolutions '[[8, 1.0]]' "
        "--model resnet_custom --batch-size 8 --device cpu --test-time-flip true"
    )
    monkeypatch.setattr(sys, "argv", [*command, "0", "1"])
    accuracy.main()
    assert [stored["seed"] for stored in accuracy.STORED.rows()] == [0, 1]
    assert accuracy.STORED.rows()[0] == row
    assert len(list(Path("runs").iterdir())) == 2
    heading, line = capsys.readouterr().out.splitlines()[-2:]
    assert heading.split()[:4] == ["recipe", "data", "device", "seeds"]
    assert line.startswith("cpu")


def test_rows_of_one_recipe_become_a_line_with_mean_and_deviation(accuracy) -> None:
    common = {"recipe": "cpu", "data": "x", "device": "d", "images": 5, "pflops": 0.5, "test_accuracy_tta": 75.0}
    rows = [{**common, "test_accuracy": value, "seconds": seconds} for value, seconds in ((70.0, 10), (74.0, 20))]
    rows.append({**common, "recipe": "other", "test_accuracy": 60.0, "seconds": 1})
    first, second = accuracy.summarised(rows)
    assert first["test accuracy %"] == "72.00 ± 2.83"  # the root of ((2^2 + 2^2) / 1)
    assert (first["seeds"], first["seconds"], first["with flips averaged %"]) == (2, 15, "75.00 ± 0.00")
    assert (second["recipe"], second["test accuracy %"]) == ("other", "60.00")


def test_a_row_names_its_commit_and_whether_the_code_was_changed_since(
    bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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


def test_equal_work_is_counted_in_pixels(accuracy) -> None:
    from era_support_packages.config import TrainingConfig

    plan = TrainingConfig("cpu", train_images=1000, resolutions=((16, 0.6), (24, 0.4)))
    assert accuracy.image_equivalents(plan) == pytest.approx(600 / 4 + 400 * 9 / 16)
    cpu = accuracy.image_equivalents(TrainingConfig.preset("cpu"))
    assert accuracy.Recipe("original", equal_work=True).overrides() == {"test_time_flip": True, "train_images": round(cpu)}


def test_the_comparison_is_one_of_mean_errors_and_waits_for_both_recipes(accuracy) -> None:
    cpu = [{"recipe": "cpu", "seed": seed, "test_accuracy": value} for seed, value in enumerate((74.0, 76.0))]
    assert accuracy.comparison(cpu) is None
    textbook = {"recipe": "textbook at equal work", "seed": 0, "test_accuracy": 60.0}
    sentence = accuracy.comparison([*cpu, textbook])
    assert sentence == "At equal work a textbook recipe makes 1.60 times the errors of the preset cpu."


@pytest.fixture
def screening(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The benchmark with a store of its own, on eight-pixel images of three colours."""
    import screening
    from tiny import coloured_images

    monkeypatch.setattr(screening, "STORED", bench.RowFile(tmp_path / "results" / "screening.json"))
    test = coloured_images(8, split="test", seed=1)
    monkeypatch.setattr(screening.datasets, "load", lambda name: (coloured_images(60), test))
    return screening


def test_a_change_is_screened_on_held_out_training_images_with_paired_seeds(
    screening, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int, float, int]] = []
    fit = screening.training.fit

    def watched(model, train, test, config, **options):
        seen.append((len(train), len(test), config.norm_bias_lr, config.seed))
        assert test.split == "train"
        return fit(model, train, test, config, **options)

    monkeypatch.setattr(screening.training, "fit", watched)
    base = '{"train_images": 32, "resolutions": [[8, 1.0]], "model": "resnet_custom", "batch_size": 8, "device": "cpu"}'
    command = ["screening.py", "--full", "--data", "colours", "--preset", "smoke", "--base", base]
    monkeypatch.setattr(sys, "argv", [*command, "--changes", '{"norm_bias_lr": 16}', "--seeds", "0"])
    screening.main()
    assert seen == [(54, 6, 1.0, 0), (54, 6, 16, 0)]
    assert "norm_bias_lr=16" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--changes", '{"norm_bias_lr": 16}', "--seeds", "0", "1"])
    screening.main()
    assert seen[2:] == [(54, 6, 1.0, 1), (54, 6, 16, 1)]  # none of seed 0 again
    (line,) = screening.compared(screening.STORED.rows())
    assert (line["seeds"], line["verdict"], line["data"]) == (2, "too few seeds", "colours")


def test_a_change_pays_where_its_mean_exceeds_twice_its_standard_error(screening) -> None:
    # differences 1, 2, 3: mean 2, standard deviation 1, standard error 1 / root 3
    mean, error, verdict = screening.judged([1.0, 2.0, 3.0])
    assert (mean, error, verdict) == (2.0, pytest.approx(3**-0.5), "pays")
    assert screening.judged([-1.0, -2.0, -3.0])[2] == "harms"
    assert screening.judged([-1.0, 0.5, 1.0])[2] == "not shown"
    assert screening.judged([5.0, 5.0])[2] == "too few seeds"
    common = {"preset": "cpu", "base": {}, "data": "x"}
    values = {0: (70.0, 71.0), 1: (72.0, 74.0), 2: (71.0, 74.0)}
    rows = [{**common, "change": {}, "seed": seed, "accuracy": without} for seed, (without, _) in values.items()]
    rows += [{**common, "change": {"a": 1}, "seed": seed, "accuracy": with_it} for seed, (_, with_it) in values.items()]
    rows += [{**common, "change": {"a": 1}, "seed": 9, "accuracy": 0.0}]  # without a partner
    rows += [{**common, "base": {"b": 2}, "change": {"a": 1}, "seed": 0, "accuracy": 0.0}]  # of another base
    (line,) = screening.compared(rows)
    assert (line["change"], line["of"], line["seeds"]) == ("a=1", "cpu unchanged", 3)
    assert (line["without %"], line["with %"], line["difference"]) == ("71.00", "73.00", "+2.00")
    assert (line["standard error"], line["verdict"]) == ("0.58", "pays")


def test_screening_says_what_to_do_where_nothing_is_stored(screening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["screening.py"])
    with pytest.raises(SystemExit, match=r"No two rows to compare are stored yet: train them with --full and --changes\."):
        screening.main()


@pytest.mark.parametrize("text", ["30000", "{train_images: 3}", '{"seed": 1}'])
def test_screening_takes_tables_of_values(
    screening, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["screening.py", "--changes", text])
    with pytest.raises(SystemExit):
        screening.main()
    said = f'{text!r} must be a JSON object like {{"norm_bias_lr": 16}}; seeds are given with --seeds.'
    assert said in capsys.readouterr().err


def test_screening_names_a_bad_value_before_any_work(
    screening, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screening, "trained", None)
    monkeypatch.setattr(sys, "argv", ["screening.py", "--full", "--changes", '{"norm_bias_rate": 16}'])
    with pytest.raises(SystemExit):
        screening.main()
    assert "Unknown parameter 'norm_bias_rate': did you mean 'norm_bias_lr'" in capsys.readouterr().err


def test_stored_rows_can_be_written_elsewhere_too(bench, tmp_path: Path) -> None:
    rows = bench.RowFile(tmp_path / "accuracy.json")
    rows.add({"seed": 0})
    rows.add({"seed": 1})
    rows.copy(str(tmp_path / "new" / "copy.json"))
    rows.copy(None)
    result = json.loads((tmp_path / "new" / "copy.json").read_text())
    assert result == json.loads(rows.path.read_text())
    assert (result["benchmark"], result["rows"]) == ("accuracy", [{"seed": 0}, {"seed": 1}])
