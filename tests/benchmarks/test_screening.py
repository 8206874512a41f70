"""What a change brings: paired seeds on held-out training images, rows of one recipe with those of the same."""

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
def screening(bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The benchmark with a store of its own, on eight-pixel images of three colours."""
    import screening
    from tiny import colored_images

    monkeypatch.setattr(screening, "STORED", bench.RowFile(tmp_path / "results" / "screening.json"))
    test = colored_images(8, split="test", seed=1)
    monkeypatch.setattr(screening.datasets, "load", lambda name: (colored_images(60), test))
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
