"""The accuracy of the recipes: rows are trained once, by what was trained, and summed up; what the published recipes are."""

from pathlib import Path

import pytest
from tiny import colored_images

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.batches import batch_count
from era_support_packages.models.resnet import ResNet18
from era_support_packages.training import config as config_module
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import flops_per_image, training_flops
from era_support_packages.training.setup import build_model

FULL = ("--full", "--data", "colours", "--recipes", "cpu", "--seeds")


@pytest.fixture
def accuracy(bench, tmp_path, monkeypatch):
    """The benchmark with a store of its own and one recipe that takes a second, on eight-pixel images of three colours."""
    import accuracy
    from recipes import Recipe

    changes = {"train_images": 32, "resolutions": [[8, 1.0]], "model": "resnet_custom", "batch_size": 8, "device": "cpu"}
    changes["precision"] = "fp32"
    monkeypatch.setattr(accuracy, "STORED", bench.RowFile(tmp_path / "results" / "accuracy.json"))
    monkeypatch.setattr(accuracy, "RECIPES", {"cpu": Recipe("smoke", changes)})
    monkeypatch.setattr(datasets, "load", lambda name, root: (colored_images(16), colored_images(8, split="test", seed=1)))
    monkeypatch.chdir(tmp_path)
    return accuracy


@pytest.mark.unhurried
def test_missing_rows_are_trained_and_stored_and_no_row_twice(accuracy, call, capsys):
    call(accuracy, *FULL, "0", "--shared")
    (row,) = accuracy.STORED.rows()
    expected = {"recipe": "cpu", "preset": "smoke", "data": "colours", "seed": 0, "images": 32}
    expected |= {"epochs at 32 px": round(32 * 8 * 8 / (32 * 32) / 16, 2), "kind": "cpu", "precision": "fp32", "shared": True}
    expected["command"] = (
        "python -m era_support_packages --preset smoke --dataset colours --seed 0 --train-images 32 --resolutions '[[8, 1.0]]' "
        "--model resnet_custom --batch-size 8 --device cpu --precision fp32 --test-time-flip true"
    )
    assert {name: row[name] for name in expected} == expected
    assert 0 <= row["test_accuracy"] <= 100
    assert 0 <= row["test_accuracy_tta"] <= 100
    assert row["pflops"] > 0
    assert accuracy.STORED.recipes()[row["key"]]["max_lr"] == 0.01  # the preset expanded
    call(accuracy, *FULL, "0", "1")
    assert [(stored["seed"], stored["shared"]) for stored in accuracy.STORED.rows()] == [(0, True), (1, False)]
    assert accuracy.STORED.rows()[0] == row
    assert len(list(Path("runs").iterdir())) == 2
    heading, line, note, *_ = capsys.readouterr().out.splitlines()[-9:]
    assert heading.split()[:4] == ["recipe", "data", "device", "seeds"]
    assert line.startswith("cpu  ")
    assert note.startswith("Each mean is over so many seeds; 95 of 100 new runs fall between")

    accuracy.STORED.path.unlink()  # a row of a GPU does not stand for one of a CPU
    accuracy.STORED.add({**row, "kind": "cuda", "device": "NVIDIA T4"}, accuracy.STORED.recipes())
    call(accuracy, *FULL, "0")
    assert [stored["kind"] for stored in accuracy.STORED.rows()] == ["cuda", "cpu"]


def test_a_changed_preset_is_trained_again_and_never_averaged_with_the_older_one(accuracy, call, monkeypatch, capsys):
    call(accuracy, *FULL, "0")
    monkeypatch.setitem(config_module.PRESETS["smoke"], "test_images", 7)  # how much is looked at on the way decides nothing
    call(accuracy, *FULL, "0")
    assert len(accuracy.STORED.rows()) == 1
    monkeypatch.setitem(config_module.PRESETS["smoke"], "momentum", 0.8)
    for _ in range(2):
        call(accuracy, *FULL, "0")
    old, new = accuracy.STORED.rows()
    assert (old["recipe"], old["data"], old["seed"]) == (new["recipe"], new["data"], new["seed"])
    assert [accuracy.STORED.recipes()[row["key"]]["momentum"] for row in (old, new)] == [0.9, 0.8]
    older = f"cpu (older recipe {old['key']})"
    assert [(line["recipe"], line["seeds"]) for line in accuracy.summarized([old, new])] == [("cpu", 1), (older, 1)]
    assert older in capsys.readouterr().out
    assert accuracy.comparison([old, {**old, "recipe": "textbook at equal work"}]) is None  # neither is of a recipe of today


def test_rows_trained_elsewhere_are_taken_over_once(accuracy, bench, call, tmp_path, capsys):
    elsewhere = bench.RowFile(tmp_path / "elsewhere.json")
    row = {"recipe": "cpu", "key": "abc", "kind": "cpu", "data": "x", "seed": 0, "device": "d", "images": 5, "pflops": 0.5}
    row |= {"test_accuracy": 70.0, "test_accuracy_tta": 71.0, "seconds": 3.0, "shared": True}
    for file, seed in ((elsewhere, 0), (elsewhere, 1), (accuracy.STORED, 0)):
        file.add({**row, "seed": seed}, {"max_lr": 1})
    for _ in range(2):
        call(accuracy, "--merge", str(elsewhere.path))
    assert [stored["seed"] for stored in accuracy.STORED.rows()] == [0, 1]
    assert "1 rows taken over" in capsys.readouterr().err
    for text in ("{}", "no JSON", None):
        broken = tmp_path / f"broken {text}.json"
        if text is not None:
            broken.write_text(text)
        with pytest.raises(SystemExit):
            call(accuracy, "--merge", str(broken))
        assert "give a file of rows such as accuracy.json" in capsys.readouterr().err


def test_rows_of_one_recipe_become_a_line_with_mean_and_where_a_new_run_falls(accuracy):
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
    table = "| a | b | c |\n| --- | --- | --- |\n| 650,000 | 1.3 | x |"
    assert accuracy.markdown([{"a": 650_000, "b": 1.297, "c": "x"}]) == table


def test_the_published_recipes_cost_what_their_author_counts():
    """Its own count: 4.35 PFLOP for 26 epochs and 13.35 for 80; the test split is not in ours."""
    from recipes import RECIPES

    for epochs, pflops in ((8, 1.33), (26, 4.33), (80, 13.32)):
        config = RECIPES[f"published, {epochs} epochs"].config("cpu")
        planned = config.planned_epochs(50_000)
        assert sum(batch_count(epoch.images, config.batch_size) for epoch in planned) == 100 * epochs
        flops = training_flops(build_model(config, 10), config, planned, 50_000)
        assert flops / 1e15 == pytest.approx(pflops, abs=0.005)


def test_the_published_recipe_is_in_half_precision_on_a_gpu():
    from recipes import RECIPES

    recipe = RECIPES["published, 26 epochs"]
    config = recipe.config("cuda")
    expected = {"batch_size": 500, "max_lr": 0.2, "warmup": 0.2, "warmup_start": 0.2, "anneal": "linear", "optimizer": "sgd"}
    expected |= {"momentum": 0.9, "weight_decay": 5e-4, "decay_norms_and_biases": True, "horizontal_flip": 0.5, "cutout": 12}
    expected |= {"alternating_flip": False, "cutout_first": True, "crop_padding": 4, "label_smoothing": 0.0, "norm_bias_lr": 1.0}
    expected |= {"whitening": False, "shift_scale_rotate": 0.0, "rgb_shift": 0.0, "brightness_contrast": 0.0, "precision": "fp16"}
    assert {name: getattr(config, name) for name in expected} == expected
    assert recipe.config("cpu").precision == "auto"


def test_equal_work_is_at_least_that_of_the_preset_with_muons_products():
    from recipes import EQUAL_WORK, Recipe

    config, network = TrainingConfig.preset("cpu"), ResNet18()
    asked = training_flops(network, config, config.planned_epochs(50_000), 50_000)
    given = EQUAL_WORK * flops_per_image(network, 32)
    assert asked <= given <= 1.05 * asked  # what it is compared with has no less
    assert Recipe("original", equal_work=True).overrides("cpu") == {"test_time_flip": True, "train_images": EQUAL_WORK}


def test_the_comparison_is_one_of_mean_errors_and_waits_for_both_recipes(accuracy, monkeypatch):
    from recipes import Recipe

    monkeypatch.setitem(accuracy.RECIPES, "textbook at equal work", Recipe("original"))
    common = {"recipe": "cpu", "key": accuracy.current_key("cpu", "cpu"), "kind": "cpu"}
    cpu = [{**common, "seed": seed, "test_accuracy": value} for seed, value in enumerate((74.0, 76.0))]
    assert accuracy.comparison(cpu) is None
    textbook = {"recipe": "textbook at equal work", "kind": "cuda", "seed": 0, "test_accuracy": 60.0}
    textbook["key"] = accuracy.current_key("textbook at equal work", "cuda")
    sentence = "At equal work a textbook recipe makes 1.60 times the errors of the preset cpu."
    assert accuracy.comparison([*cpu, textbook]) == sentence
