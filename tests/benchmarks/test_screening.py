"""What a change brings: paired seeds on held-out training images, rows of one recipe with those of the same."""

import pytest
from tiny import colored_images

from era_support_packages.training import config as config_module


@pytest.fixture
def screening(bench, tmp_path, monkeypatch):
    """The benchmark with a store of its own, on eight-pixel images of three colours."""
    import screening

    test = colored_images(8, split="test", seed=1)
    monkeypatch.setattr(screening, "STORED", bench.RowFile(tmp_path / "results" / "screening.json"))
    monkeypatch.setattr(screening.datasets, "load", lambda name: (colored_images(60), test))
    return screening


@pytest.mark.unhurried
def test_a_change_is_screened_on_held_out_training_images_with_paired_seeds(screening, call, monkeypatch, capsys):
    seen: list[tuple[int, int, float, int]] = []
    fit = screening.training.fit

    def watched(model, train, test, config, **options):
        seen.append((len(train), len(test), config.norm_bias_lr, config.seed))
        assert test.split == "train"
        return fit(model, train, test, config, **options)

    monkeypatch.setattr(screening.training, "fit", watched)
    base = '{"train_images": 32, "resolutions": [[8, 1.0]], "model": "resnet_custom", "batch_size": 8, "device": "cpu"}'
    words = ["--full", "--data", "colours", "--preset", "smoke", "--base", base, "--changes", '{"norm_bias_lr": 16}', "--seeds"]
    call(screening, *words, "0")
    assert "norm_bias_lr=16" in capsys.readouterr().out
    call(screening, *words, "0", "1")
    assert seen == [(54, 6, lr, seed) for seed in (0, 1) for lr in (1.0, 16)]  # none of seed 0 again
    (line,) = screening.compared(screening.STORED.rows(), screening.STORED.recipes())
    assert (line["seeds"], line["verdict"], line["change"]) == (2, "too few seeds", "norm_bias_lr=16")
    assert line["of"].endswith('device="cpu", colours, cpu')
    # another preset: both are trained again, and rows are compared with those that differ in the change alone
    monkeypatch.setitem(config_module.PRESETS["smoke"], "momentum", 0.8)
    call(screening, *words, "0")
    assert seen[4:] == [(54, 6, 1.0, 0), (54, 6, 16, 0)]
    lines = screening.compared(screening.STORED.rows(), screening.STORED.recipes())
    older = f"norm_bias_lr=16 (older recipe {screening.STORED.rows()[1]['key']})"
    assert [(line["change"], line["seeds"]) for line in lines] == [(older, 2), ("norm_bias_lr=16", 1)]


def test_a_change_pays_where_its_mean_exceeds_twice_its_standard_error(screening):
    # differences 1, 2, 3: mean 2, standard deviation 1, standard error 1 / root 3
    assert screening.judged([1.0, 2.0, 3.0]) == (2.0, pytest.approx(3**-0.5), "pays")
    assert screening.judged([-1.0, -2.0, -3.0])[2] == "harms"
    assert screening.judged([-1.0, 0.5, 1.0])[2] == "not shown"
    assert screening.judged([5.0, 5.0])[2] == "too few seeds"


def test_a_row_is_compared_with_the_unchanged_run_of_its_own_commit_where_there_is_one(screening):
    recipes = {"without": {"a": 0}, "with it": {"a": 1}}
    common = {"preset": "cpu", "base": {}, "data": "x", "kind": "cuda"}
    rows = [
        {**common, "change": {}, "key": "without", "seed": 0, "accuracy": 50.0, "commit": "old"},
        {**common, "change": {}, "key": "without", "seed": 1, "accuracy": 60.0, "commit": "old"},
        {**common, "change": {}, "key": "without", "seed": 0, "accuracy": 54.0, "commit": "new"},
        *({**common, "change": {"a": 1}, "key": "with it", "seed": seed, "accuracy": 61.0, "commit": "new"} for seed in (0, 1)),
    ]
    (line,) = screening.compared(rows, recipes)
    assert (line["seeds"], line["difference"]) == (2, "+4.00")  # 61 - 54 and 61 - 60


def test_rows_are_compared_with_those_that_differ_in_the_change_alone(screening):
    without, with_it, other_base = "without", "with it", "without on another base"
    recipes = {without: {"a": 0, "b": 0}, with_it: {"a": 1, "b": 0}, other_base: {"a": 0, "b": 2}}
    common = {"preset": "cpu", "base": {}, "data": "x", "kind": "cpu"}
    changed = {**common, "change": {"a": 1}, "key": with_it}
    unchanged = {**common, "change": {}, "key": without}
    rows = [{**unchanged, "seed": seed, "accuracy": value} for seed, value in enumerate((70.0, 72.0, 71.0))]
    rows += [{**changed, "seed": seed, "accuracy": value} for seed, value in enumerate((71.0, 74.0, 74.0))]
    rows += [{**changed, "seed": 9, "accuracy": 0.0}]  # without a partner
    rows += [{**changed, "base": {"b": 2}, "seed": 0, "accuracy": 0.0}]  # of another base
    rows += [{**unchanged, "key": other_base, "seed": 9, "accuracy": 0.0}]  # of an older preset
    rows += [{**unchanged, "kind": "cuda", "seed": 9, "accuracy": 0.0}]  # of another device
    (line,) = screening.compared(rows, recipes)
    assert (line["change"], line["of"], line["seeds"]) == ("a=1 (older recipe with it)", "cpu unchanged, x, cpu", 3)
    assert (line["without %"], line["with %"], line["difference"]) == ("71.00", "73.00", "+2.00")
    assert (line["standard error"], line["verdict"]) == ("0.58", "pays")


NO_TABLE = 'must be a JSON object like {"norm_bias_lr": 16}; seeds are given with --seeds.'


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ("30000", "'30000' must be a JSON object like {\"norm_bias_lr\": 16}; seeds are given with --seeds."),
        ("{train_images: 3}", "'{train_images: 3}' must be a JSON object like {\"norm_bias_lr\": 16}; seeds"),
        ('{"seed": 1}', '\'{"seed": 1}\' must be a JSON object like {"norm_bias_lr": 16}; seeds are given with --seeds.'),
        ('{"norm_bias_rate": 16}', "Unknown parameter 'norm_bias_rate': did you mean 'norm_bias_lr'"),
    ],
)
def test_a_bad_change_is_named_before_any_work(changes, said, screening, call, monkeypatch, capsys):
    monkeypatch.setattr(screening, "trained", None)
    with pytest.raises(SystemExit):
        call(screening, "--full", "--changes", changes)
    assert said in capsys.readouterr().err


def test_screening_says_what_to_do_where_nothing_is_stored(screening, call):
    with pytest.raises(SystemExit, match=r"No two rows to compare are stored yet: train them with --full and --changes\."):
        call(screening)
