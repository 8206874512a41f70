"""What the benchmarks share: ratios within rounds, the table, the file; and that the stored results are such files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from era_support_packages import config as config_module

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
    assert set(result) == (ROW_KEYS | {"recipes"} if trained else KEYS)
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
    for line in screening.compared(results["screening"]["rows"], results["screening"]["recipes"]):
        quoted = f"| {line['seeds']} | {line['without %']} % | {line['with %']} % | {line['difference']} |"
        assert quoted in text
    lines = accuracy.summarised(results["accuracy"]["rows"])
    assert accuracy.markdown(lines) in text
    named = ("cpu", "fast", "textbook at equal work", "original at equal work")
    for line in (line for line in lines if line["recipe"] in named and line["seeds"] >= 3):
        quoted = f"{line['test accuracy %']} %", f"{line['with mirror images %']} %"
        assert all(number in (ROOT / "README.md").read_text() for number in quoted), line


@pytest.fixture
def accuracy(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The benchmark with a store of its own and one recipe that takes a second, on eight-pixel images of three colours."""
    import accuracy
    from recipes import Recipe
    from tiny import coloured_images

    from era_support_packages import recording

    changes = {"train_images": 32, "resolutions": [[8, 1.0]], "model": "resnet_custom", "batch_size": 8, "device": "cpu"}
    changes["precision"] = "fp32"
    monkeypatch.setattr(accuracy, "STORED", bench.RowFile(tmp_path / "results" / "accuracy.json"))
    monkeypatch.setattr(accuracy, "RECIPES", {"cpu": Recipe("smoke", changes)})
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
    assert (row["kind"], row["precision"], row["shared"]) == ("cpu", "fp32", False)
    assert accuracy.STORED.recipes()[row["key"]]["max_lr"] == 0.01  # the preset expanded
    assert row["command"] == (
        "python -m era_support_packages --preset smoke --dataset colours --seed 0 --train-images 32 --resolutions '[[8, 1.0]]' "
        "--model resnet_custom --batch-size 8 --device cpu --precision fp32 --test-time-flip true"
    )
    monkeypatch.setattr(sys, "argv", [*command, "0", "1"])
    accuracy.main()
    assert [stored["seed"] for stored in accuracy.STORED.rows()] == [0, 1]
    assert accuracy.STORED.rows()[0] == row
    assert len(list(Path("runs").iterdir())) == 2
    heading, line, note, *_ = capsys.readouterr().out.splitlines()[-9:]
    assert heading.split()[:4] == ["recipe", "data", "device", "seeds"]
    assert line.startswith("cpu  ")
    assert note.startswith("Each mean is over so many seeds; 95 of 100 new runs fall between")


def test_a_changed_preset_is_trained_again_and_never_averaged_with_the_older_one(
    accuracy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["accuracy.py", "--full", "--data", "colours", "--recipes", "cpu", "--seeds", "0"]
    monkeypatch.setattr(sys, "argv", command)
    accuracy.main()
    monkeypatch.setitem(config_module.PRESETS["smoke"], "test_images", 7)  # how much is looked at on the way decides nothing
    accuracy.main()
    assert len(accuracy.STORED.rows()) == 1
    monkeypatch.setitem(config_module.PRESETS["smoke"], "momentum", 0.8)
    accuracy.main()
    accuracy.main()
    old, new = accuracy.STORED.rows()
    assert (old["recipe"], old["data"], old["seed"]) == (new["recipe"], new["data"], new["seed"])
    assert [accuracy.STORED.recipes()[row["key"]]["momentum"] for row in (old, new)] == [0.9, 0.8]
    first, second = accuracy.summarised([old, new])
    assert (first["recipe"], second["recipe"]) == ("cpu", f"cpu (older recipe {old['key']})")
    assert (first["seeds"], second["seeds"]) == (1, 1)
    assert f"cpu (older recipe {old['key']})" in capsys.readouterr().out
    assert accuracy.comparison([old, {**old, "recipe": "textbook at equal work"}]) is None  # neither is of a recipe of today


def test_a_row_of_a_gpu_does_not_stand_for_one_of_a_cpu(accuracy, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["accuracy.py", "--full", "--data", "colours", "--recipes", "cpu", "--seeds", "0", "--shared"]
    monkeypatch.setattr(sys, "argv", command)
    accuracy.main()
    (row,) = accuracy.STORED.rows()
    assert row["shared"] is True
    accuracy.STORED.path.unlink()
    accuracy.STORED.add({**row, "kind": "cuda", "device": "NVIDIA T4"}, accuracy.STORED.recipes())
    accuracy.main()
    assert [stored["kind"] for stored in accuracy.STORED.rows()] == ["cuda", "cpu"]


def test_rows_trained_elsewhere_are_taken_over_once(
    accuracy, tmp_path: Path, bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = bench.RowFile(tmp_path / "elsewhere.json")
    row = {"recipe": "cpu", "key": "abc", "kind": "cpu", "data": "x", "seed": 0, "device": "d", "images": 5, "pflops": 0.5}
    row |= {"test_accuracy": 70.0, "test_accuracy_tta": 71.0, "seconds": 3.0, "shared": True}
    elsewhere.add(row, {"max_lr": 1})
    elsewhere.add({**row, "seed": 1}, {"max_lr": 1})
    accuracy.STORED.add(row, {"max_lr": 1})
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["accuracy.py", "--merge", str(elsewhere.path)])
        accuracy.main()
    assert [stored["seed"] for stored in accuracy.STORED.rows()] == [0, 1]
    assert "1 rows taken over" in capsys.readouterr().err
    for text in ("{}", "no JSON", None):
        broken = tmp_path / f"broken {text}.json"
        if text is not None:
            broken.write_text(text)
        monkeypatch.setattr(sys, "argv", ["accuracy.py", "--merge", str(broken)])
        with pytest.raises(SystemExit):
            accuracy.main()
        assert "give a file of rows such as accuracy.json" in capsys.readouterr().err


def test_rows_of_one_recipe_become_a_line_with_mean_and_where_a_new_run_falls(accuracy) -> None:
    key = accuracy.current_key("cpu", "cpu")
    common = {"recipe": "cpu", "key": key, "kind": "cpu", "data": "x", "device": "d", "images": 5, "pflops": 0.5}
    common |= {"test_accuracy_tta": 75.0, "shared": False}
    rows = [{**common, "test_accuracy": value, "seconds": seconds} for value, seconds in ((70.0, 10), (74.0, 20), (72.0, 60))]
    rows[2]["shared"] = True  # its seconds do not count
    rows.append({**common, "recipe": "gone", "test_accuracy": 60.0, "seconds": 1, "shared": True})
    first, second = accuracy.summarised(rows)
    # s = 2 and t(0.975, 2) = 4.3027: 4.3027 * 2 * the root of 4 / 3 = 9.94
    assert (first["test accuracy %"], first["a new run"]) == ("72.00", "62.06 to 81.94")
    assert (first["seeds"], first["seconds"]) == (3, "15")
    assert (first["with mirror images %"], first["a new run "]) == ("75.00", "75.00 to 75.00")
    assert (second["recipe"], second["test accuracy %"]) == (f"gone (older recipe {key})", "60.00")
    assert (second["a new run"], second["seconds"]) == ("-", "shared")
    assert (
        accuracy.markdown([{"a": 650_000, "b": 1.297, "c": "x"}]) == "| a | b | c |\n| --- | --- | --- |\n| 650,000 | 1.3 | x |"
    )


def test_a_key_changes_with_every_value_that_decides_the_result_and_with_no_other(bench) -> None:
    import keys
    from test_config import OTHER_VALUES, make

    plain = keys.key_of(make())
    assert set(keys.ALWAYS) | set(keys.NEVER) | {"muon_lr", "range_test_iterations"} <= set(OTHER_VALUES)
    for name, change in OTHER_VALUES.items():
        assert (keys.key_of(make(**change)) == plain) == (name in (*keys.NEVER, "muon_lr")), name
    assert keys.key_of(make(max_lr=1)) == keys.key_of(make(max_lr=1.0, range_test_iterations=300)) != plain
    muon = make(optimizer="muon")
    assert keys.key_of(muon) != keys.key_of(make(optimizer="muon", muon_lr=0.2))
    assert keys.recipe_values(muon)["muon_iterations"] == 3
    devices = {"CPU (x, 2 threads)": "cpu", "Apple GPU (arm64)": "mps", "NVIDIA H200": "cuda"}
    assert {device: keys.kind_of(device) for device in devices} == devices


def test_stored_rows_carry_the_keys_of_what_they_were_trained_with(bench) -> None:
    import keys

    for name in ("accuracy", "screening"):
        content = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        assert all(keys.digest(values) == key for key, values in content["recipes"].items())
        assert {row["key"] for row in content["rows"]} == set(content["recipes"])
        assert all(row["kind"] == keys.kind_of(row["device"]) for row in content["rows"])


def test_the_published_recipes_cost_what_their_author_counts(bench) -> None:
    """Its own count: 4.35 PFLOP for 26 epochs and 13.35 for 80; the test split is not in ours."""
    from recipes import RECIPES

    from era_support_packages.batches import batch_count
    from era_support_packages.run_cost import training_flops
    from era_support_packages.training import build_model

    found = {}
    for epochs in (8, 26, 80):
        config = RECIPES[f"published, {epochs} epochs"].config("cpu")
        assert sum(batch_count(epoch.images, config.batch_size) for epoch in config.planned_epochs(50_000)) == 100 * epochs
        found[epochs] = training_flops(build_model(config, 10), config, config.planned_epochs(50_000), 50_000) / 1e15
    assert found == {8: pytest.approx(1.33, abs=0.005), 26: pytest.approx(4.33, abs=0.005), 80: pytest.approx(13.32, abs=0.005)}


def test_the_published_recipe_is_in_half_precision_on_a_gpu(bench) -> None:
    from recipes import RECIPES

    recipe = RECIPES["published, 26 epochs"]
    assert (recipe.config("cuda").precision, recipe.config("cpu").precision) == ("fp16", "auto")
    config = recipe.config("cuda")
    assert (config.batch_size, config.max_lr, config.warmup, config.warmup_start, config.anneal) == (500, 0.2, 0.2, 0.2, "linear")
    assert (config.optimizer, config.momentum, config.weight_decay, config.decay_norms_and_biases) == ("sgd", 0.9, 5e-4, True)
    assert (config.horizontal_flip, config.alternating_flip, config.cutout, config.cutout_first) == (0.5, False, 12, True)
    assert (config.crop_padding, config.label_smoothing, config.norm_bias_lr, config.whitening) == (4, 0.0, 1.0, False)
    assert (config.shift_scale_rotate, config.rgb_shift, config.brightness_contrast) == (0.0, 0.0, 0.0)


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


def test_equal_work_is_counted_in_pixels(bench) -> None:
    from recipes import Recipe, image_equivalents

    from era_support_packages.config import TrainingConfig

    plan = TrainingConfig("cpu", train_images=1000, resolutions=((16, 0.6), (24, 0.4)))
    assert image_equivalents(plan) == pytest.approx(600 / 4 + 400 * 9 / 16)
    cpu = image_equivalents(TrainingConfig.preset("cpu"))
    assert Recipe("original", equal_work=True).overrides("cpu") == {"test_time_flip": True, "train_images": round(cpu)}


def test_the_comparison_is_one_of_mean_errors_and_waits_for_both_recipes(accuracy, monkeypatch: pytest.MonkeyPatch) -> None:
    from recipes import Recipe

    monkeypatch.setitem(accuracy.RECIPES, "textbook at equal work", Recipe("original"))
    common = {"recipe": "cpu", "key": accuracy.current_key("cpu", "cpu"), "kind": "cpu"}
    cpu = [{**common, "seed": seed, "test_accuracy": value} for seed, value in enumerate((74.0, 76.0))]
    assert accuracy.comparison(cpu) is None
    textbook = {"recipe": "textbook at equal work", "kind": "cuda", "seed": 0, "test_accuracy": 60.0}
    textbook["key"] = accuracy.current_key("textbook at equal work", "cuda")
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
    (line,) = screening.compared(screening.STORED.rows(), screening.STORED.recipes())
    assert (line["seeds"], line["verdict"], line["change"]) == (2, "too few seeds", "norm_bias_lr=16")
    assert line["of"].endswith('device="cpu", colours, cpu')
    # another preset: both are trained again, and rows are compared with those that differ in the change alone
    monkeypatch.setitem(config_module.PRESETS["smoke"], "momentum", 0.8)
    monkeypatch.setattr(sys, "argv", [*command, "--changes", '{"norm_bias_lr": 16}', "--seeds", "0"])
    screening.main()
    assert seen[4:] == [(54, 6, 1.0, 0), (54, 6, 16, 0)]
    old, new = screening.compared(screening.STORED.rows(), screening.STORED.recipes())
    key = screening.STORED.rows()[1]["key"]
    assert (old["change"], old["seeds"]) == (f"norm_bias_lr=16 (older recipe {key})", 2)
    assert (new["change"], new["seeds"]) == ("norm_bias_lr=16", 1)


def test_a_change_pays_where_its_mean_exceeds_twice_its_standard_error(screening) -> None:
    # differences 1, 2, 3: mean 2, standard deviation 1, standard error 1 / root 3
    mean, error, verdict = screening.judged([1.0, 2.0, 3.0])
    assert (mean, error, verdict) == (2.0, pytest.approx(3**-0.5), "pays")
    assert screening.judged([-1.0, -2.0, -3.0])[2] == "harms"
    assert screening.judged([-1.0, 0.5, 1.0])[2] == "not shown"
    assert screening.judged([5.0, 5.0])[2] == "too few seeds"
    keys = {0: "without", 1: "with it", 2: "without on another base"}
    recipes = {keys[0]: {"a": 0, "b": 0}, keys[1]: {"a": 1, "b": 0}, keys[2]: {"a": 0, "b": 2}}
    common = {"preset": "cpu", "base": {}, "data": "x", "kind": "cpu"}
    values = {0: (70.0, 71.0), 1: (72.0, 74.0), 2: (71.0, 74.0)}
    changed = {**common, "change": {"a": 1}, "key": keys[1]}
    rows = [{**common, "change": {}, "key": keys[0], "seed": seed, "accuracy": value} for seed, (value, _) in values.items()]
    rows += [{**changed, "seed": seed, "accuracy": value} for seed, (_, value) in values.items()]
    rows += [{**changed, "seed": 9, "accuracy": 0.0}]  # without a partner
    rows += [{**changed, "base": {"b": 2}, "seed": 0, "accuracy": 0.0}]  # of another base
    rows += [{**common, "change": {}, "key": keys[2], "seed": 9, "accuracy": 0.0}]  # of an older preset
    rows += [{**common, "change": {}, "key": keys[0], "kind": "cuda", "seed": 9, "accuracy": 0.0}]  # of another device
    (line,) = screening.compared(rows, recipes)
    assert (line["change"], line["of"], line["seeds"]) == ("a=1 (older recipe with it)", "cpu unchanged, x, cpu", 3)
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
    rows.add({"key": "a", "seed": 0}, {"max_lr": 1})
    rows.add({"key": "a", "seed": 1}, {"max_lr": 1})
    rows.copy(str(tmp_path / "new" / "copy.json"))
    rows.copy(None)
    result = json.loads((tmp_path / "new" / "copy.json").read_text())
    assert result == json.loads(rows.path.read_text())
    assert (result["benchmark"], result["recipes"]) == ("accuracy", {"a": {"max_lr": 1}})
    assert result["rows"] == [{"key": "a", "seed": 0}, {"key": "a", "seed": 1}]
