"""The accuracy of the recipes: rows are trained once, by what was trained, and summed up; what the published recipes are."""

import sys
from pathlib import Path

import pytest

from era_support_packages.training import config as config_module

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import bench

    return bench


@pytest.fixture
def accuracy(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The benchmark with a store of its own and one recipe that takes a second, on eight-pixel images of three colours."""
    import accuracy
    from recipes import Recipe
    from tiny import colored_images

    from era_support_packages.datasets import loading as datasets

    changes = {"train_images": 32, "resolutions": [[8, 1.0]], "model": "resnet_custom", "batch_size": 8, "device": "cpu"}
    changes["precision"] = "fp32"
    monkeypatch.setattr(accuracy, "STORED", bench.RowFile(tmp_path / "results" / "accuracy.json"))
    monkeypatch.setattr(accuracy, "RECIPES", {"cpu": Recipe("smoke", changes)})
    monkeypatch.setattr(datasets, "load", lambda name, root: (colored_images(16), colored_images(8, split="test", seed=1)))
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
    first, second = accuracy.summarized([old, new])
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
    first, second = accuracy.summarized(rows)
    # s = 2 and t(0.975, 2) = 4.3027: 4.3027 * 2 * the root of 4 / 3 = 9.94
    assert (first["test accuracy %"], first["a new run"]) == ("72.00", "62.06 to 81.94")
    assert (first["seeds"], first["seconds"]) == (3, "15")
    assert (first["with mirror images %"], first["a new run "]) == ("75.00", "75.00 to 75.00")
    assert (second["recipe"], second["test accuracy %"]) == (f"gone (older recipe {key})", "60.00")
    assert (second["a new run"], second["seconds"]) == ("-", "shared")
    assert (
        accuracy.markdown([{"a": 650_000, "b": 1.297, "c": "x"}]) == "| a | b | c |\n| --- | --- | --- |\n| 650,000 | 1.3 | x |"
    )


def test_the_published_recipes_cost_what_their_author_counts(bench) -> None:
    """Its own count: 4.35 PFLOP for 26 epochs and 13.35 for 80; the test split is not in ours."""
    from recipes import RECIPES

    from era_support_packages.datasets.batches import batch_count
    from era_support_packages.training.cost import training_flops
    from era_support_packages.training.setup import build_model

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


def test_equal_work_is_counted_in_pixels(bench) -> None:
    from recipes import Recipe, image_equivalents

    from era_support_packages.training.config import TrainingConfig

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
