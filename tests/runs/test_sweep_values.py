"""What a sweep varies: read from what was typed, and refused as a whole before anything runs."""

import pytest

from era_support_packages.runs import sweep_plan
from era_support_packages.runs.sweep_plan import SweepPlan
from era_support_packages.runs.sweep_values import Choice, Range, SweepError, read_seeds, read_space
from era_support_packages.training.presets import PRESETS

FIXED = {"validation": 0.1}


def space(*pairs, search=False):
    return read_space(pairs, search)


def plan(*pairs, fixed=FIXED, preset="cpu", seeds=(0,), trials=None):
    return SweepPlan(space(*pairs, search=trials is not None), seeds, fixed, preset, trials)


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("max_lr", "0.05,0.1, 0.2", (0.05, 0.1, 0.2)),
        ("max-lr", "auto,.5", ("auto", 0.5)),
        ("cutout", "0,8", (0, 8)),
        ("cutout", "[0, 8]", (0, 8)),
        ("cutout", "8", (8,)),
        ("cutout", "8,0,8", (8, 0)),  # each once, in the order given
        ("max_lr", "1,1.0,0.5", (1, 0.5)),
        ("whitening", "true,False", (True, False)),
        ("model", "ResNet18,resnet_custom", ("ResNet18", "resnet_custom")),
        ("preset", "fast,best", ("fast", "best")),
        ("epochs", "None,2", (None, 2)),  # None keeps the preset's
        ("resolutions", "[[[32, 1.0]], [[16, 0.5], [32, 0.5]]]", (((32, 1.0),), ((16, 0.5), (32, 0.5)))),
    ],
)
def test_a_list_of_values(name, text, values):
    (found,) = space((name, text)).values()
    assert found == Choice(values)
    assert [type(value) for value in found.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("max_lr", "0.01..1", Range(0.01, 1)),
        ("max_lr", "0.01..1:log", Range(0.01, 1, log=True)),
        ("batch_size", "32..256", Range(32, 256, whole=True)),
        ("batch_size", "32..256:log", Range(32, 256, log=True, whole=True)),
        ("weight_decay", "0...5", Range(0, 0.5)),
        ("cutout", "0,4,8", Choice((0, 4, 8))),
    ],
)
def test_a_search_draws_from_ranges_too(name, text, found):
    assert space((name, text), search=True) == {name: found}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("max_lrs", "0.1,0.2", "did you mean 'max_lr'"),
        ("mistakes", "3,4", "Unknown parameter 'mistakes'"),  # of the notebook alone
        ("seed", "0,1", "--seeds 0,1,2"),
        ("validation", "0.1,0.2", "--validation 0.1 for all"),
        ("final_test", "true,false", "no trial looks at the test split"),
        ("image_size", "32,64", "cannot be varied: all trials learn from images of one size: give --image-size"),
        ("fit", "crop,pad", "cannot be varied: all trials learn from images made square in one way"),
        ("dataset", "digits,cifar10", "--dataset for all"),
        ("run_name", "a,b", "made from its values"),
        ("device", "cpu,cuda", "--device for all"),
        ("cuda_graph", "true,false", "--cuda-graph for all"),
        ("stream", "true,false", "--stream for all"),
        ("cutout", "", "has no value"),
        ("cutout", "[]", "has no value"),
        ("cutout", "0,,8", "comma without a value"),
        ("cutout", "0,513", "cutout is 513; give a whole number from 0 to 512."),
        ("cutout", "0,8.5", "cutout is 8.5"),
        ("max_lr", "[0.1, 0.2", "no JSON list"),
        ("preset", "fast,bst", "did you mean 'best'"),
        ("resolutions", "[[16, 0.5], [32, 0.5]]", "write a single one as [[[16, 0.5], [32, 0.5]]]."),
        ("resolutions", "[[[32, 1.0]], [[16, 0.5], [32, 0.6]]]", "resolutions is [[16, 0.5], [32, 0.6]]; "),
        ("max_lr", "0.01..1", "--search N"),
    ],
)
def test_what_cannot_be_varied_is_one_sentence_with_what_to_do(name, text, said):
    with pytest.raises(SweepError) as refused:
        space((name, text))
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["[[[32, 1.0]], [[16, 0.5], [32, 0.6]]]", "[[16, 0.5], [32, 0.6]]", "[1, 2]", "[[[]]]"])
def test_what_would_not_do_as_a_single_value_either_is_not_advised(text):
    with pytest.raises(SweepError) as refused:
        space(("resolutions", text))
    assert "single one" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("max_lr", "1..0.1", "lower number first"),
        ("max_lr", "0.1..0.1", "lower number first"),
        ("max_lr", "0..1", "max_lr is 0"),
        ("max_lr", "0.1..", "no range"),
        ("max_lr", "0.1..x", "no range"),
        ("max_lr", "0.1..1:lin", "':lin'"),
        ("weight_decay", "0..0.1:log", "begin above 0"),
        ("batch_size", "32..64.5", "batch_size is 64.5"),
        ("cutout", "0..513", "cutout is 513"),
        ("whitening", "0..1", "takes no number"),
        ("model", "a..b", "model is 'a..b'"),
    ],
)
def test_a_range_that_is_none_is_refused(name, text, said):
    with pytest.raises(SweepError) as refused:
        space((name, text), search=True)
    assert said in str(refused.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(SweepError, match=r"cutout is 513.* did you mean 'max_lr'"):
        space(("cutout", "513"), ("max_lrs", "1"))
    with pytest.raises(SweepError, match="cutout is given twice"):
        space(("cutout", "0"), ("cutout", "8"))


def test_seeds():
    assert read_seeds("0,1,2,1") == (0, 1, 2)
    assert read_seeds("[3]") == (3,)
    for text, said in (
        ("", r"^--seeds has no value: give one or more, such as --seeds 1,2\.$"),
        ("0,,1", "^--seeds 0,,1 has a comma"),
        ("[0", r"^--seeds \[0 is no JSON list"),
        ("0,-1", "^--seeds has -1; give a whole number from 0"),
        ("0,x", "^--seeds has 'x'; "),
        ("None", "^--seeds has None; "),
    ):
        with pytest.raises(SweepError, match=said):
            read_seeds(text)


@pytest.mark.parametrize(
    ("changes", "pairs", "said"),
    [
        ({}, [], "nothing to choose"),
        ({}, [("cutout", "8")], "nothing to choose"),
        ({"fixed": {"validation": 0.0}}, [("cutout", "0,8")], "validation is 0"),
        ({"fixed": {**FIXED, "cutout": 4}}, [("cutout", "0,8")], "cutout is given twice"),
        ({}, [("preset", "cpu,fast")], "preset is given twice"),
        ({}, [("epochs", ",".join(map(str, range(1, 41)))), ("cutout", ",".join(map(str, range(33))))], "1,320 combinations"),
        # each value alone can be used
        ({"preset": "fast"}, [("alternating_flip", "true,false"), ("horizontal_flip", "0.3,0.5")], "horizontal_flip is 0.3"),
        ({"trials": 3, "preset": "fast", "fixed": {**FIXED, "alternating_flip": True}}, [("horizontal_flip", "0.1..0.5")], "0.1"),
    ],
)
def test_a_plan_is_refused_as_a_whole(changes, pairs, said):
    with pytest.raises(SweepError) as refused:
        plan(*pairs, **changes).check()
    assert said in str(refused.value)


def test_without_optuna_a_search_is_refused_with_the_line_to_type(monkeypatch):
    asked = plan(("max_lr", "0.01..1"), trials=3)
    monkeypatch.setattr(sweep_plan.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SweepError, match=r'install it with `pip install "optuna>=4"`\.$'):
        asked.check()
    plan(("max_lr", "0.01,1")).check()


def test_what_comes_to_the_same_configuration_is_tried_once():
    found = plan(("max_lr", "None,0.1,0.2"), ("cutout", "0,8")).combinations()  # 0.1 is what the preset has
    assert [tuple(values.values()) for values in found] == [(None, 0), (None, 8), (0.2, 0), (0.2, 8)]
    presets = plan(("preset", "auto,cpu,fast"), preset="auto").with_preset("cpu")
    assert presets.space == {"preset": Choice(("cpu", "fast"))}


def test_a_trial_never_looks_at_the_test_split_and_the_last_training_has_all_images():
    asked = plan(("cutout", "0,8"), fixed={"validation": 0.2, "batch_size": 64})
    trial, final = (asked.config("cpu", {"cutout": 8}, 1, final) for final in (False, True))
    assert (trial.final_test, trial.validation, trial.cutout, trial.batch_size, trial.seed) == (False, 0.2, 8, 64, 1)
    assert (final.final_test, final.validation, final.cutout, final.batch_size, final.seed) == (True, 0.0, 8, 64, 1)


def test_the_name_changes_with_what_decides_the_result():
    names = {
        plan(("cutout", "0,8"), **changes).name("digits", digest)
        for changes in ({}, {"seeds": (0, 1)}, {"fixed": {"validation": 0.2}}, {"preset": "fast"}, {"trials": 2})
        for digest in ("a", "b")
    }
    assert len(names) == 10
    same = (
        plan(("cutout", "0,8"), fixed={**FIXED, **more}).name("digits", "a") for more in ({}, {"output_dir": "x", "threads": 2})
    )
    assert len({*same} | names) == 10
    assert plan(("cutout", "0,8"), trials=2).name("d", "a") == plan(("cutout", "0,8"), trials=9).name("d", "a")


def test_a_search_of_a_preset_that_was_another_recipe_has_another_name(monkeypatch):
    """Else what that recipe reached would be among the trials."""
    plans = [plan(("cutout", "0,8"), trials=2), plan(("preset", "cpu,fast"), trials=2), plan(("cutout", "0,8"), preset="fast")]
    before = [one.name("digits", "a") for one in plans]
    monkeypatch.setitem(PRESETS, "cpu", {**PRESETS["cpu"], "optimizer": "sgd"})
    assert [one.name("digits", "a") == name for one, name in zip(plans, before, strict=True)] == [False, False, True]
