"""The configuration: presets, overrides, JSON, run names, the plan of epochs, and a sentence for each bad value."""

import dataclasses
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from other_values import OTHER_VALUES, make

from era_support_packages.models.catalog import MODELS
from era_support_packages.training import config as config_module
from era_support_packages.training.config import PlannedEpoch, TrainingConfig
from era_support_packages.training.presets import PRESETS

FIELDS = [field.name for field in dataclasses.fields(TrainingConfig)]
THREE_SIZES = ((16, 0.5), (24, 0.3), (32, 0.2))
MOSTLY_SMALL = ((16, 0.75), (24, 0.2), (32, 0.05))
quick = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def message(build: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    """The message of the ValueError that a call must raise."""
    with pytest.raises(ValueError, match=r".") as error:
        build(*arguments, **keywords)
    return str(error.value)


# ---- presets and overrides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["original", "fast", "best", "cpu", "smoke"])
def test_a_preset_is_valid_and_says_only_what_differs_from_the_defaults(name: str) -> None:
    config = TrainingConfig.preset(name)
    assert config.preset_name == name
    assert (config.epochs is None) != (config.train_images is None)
    assert sum(share for _, share in config.resolutions) == pytest.approx(1)
    for key, value in PRESETS[name].items():
        assert getattr(config, key) == value
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingConfig)}
    for key in set(FIELDS) - set(PRESETS[name]) - {"preset_name"}:
        assert getattr(config, key) == defaults[key]


def test_there_are_five_presets() -> None:
    assert list(PRESETS) == ["original", "fast", "best", "cpu", "smoke"]


def test_the_original_preset_is_the_course_recipe() -> None:
    config = TrainingConfig.preset("original")
    assert (config.epochs, config.batch_size, config.resolutions, config.anneal) == (25, 512, ((32, 1.0),), "cos")
    assert (config.horizontal_flip, config.shift_scale_rotate, config.cutout) == (0.1, 0.5, 16)
    assert (config.rgb_shift, config.brightness_contrast, config.crop_padding) == (0.4, 0.5, 0)
    assert (config.max_lr, config.range_test_iterations) == ("auto", 200)


@pytest.mark.parametrize(("gpu", "expected"), [(True, "fast"), (False, "cpu")])
def test_auto_chooses_by_the_gpu(gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert TrainingConfig.preset("auto") == TrainingConfig.preset(expected)


def test_an_override_changes_that_value_alone_and_none_keeps_the_presets() -> None:
    preset = TrainingConfig.preset("best")
    changed = TrainingConfig.preset("best", batch_size=128, cutout=None, max_lr=None, seed=0, run_name=None)
    assert changed == dataclasses.replace(preset, batch_size=128)
    assert (changed.cutout, changed.max_lr) == (12, 0.4)
    assert TrainingConfig.preset("best", cutout=0).cutout == 0  # zero and False are values, not "keep"
    assert TrainingConfig.preset("best", test_time_flip=False).test_time_flip is False


def test_an_uneven_flip_replaces_the_presets_alternating_one() -> None:
    assert TrainingConfig.preset("fast").alternating_flip is True
    assert TrainingConfig.preset("fast", horizontal_flip=0.3).alternating_flip is False
    assert TrainingConfig.preset("fast", horizontal_flip=0.5).alternating_flip is True
    assert TrainingConfig.preset("fast", horizontal_flip=0).alternating_flip is True
    with pytest.raises(ValueError, match=r"^alternating_flip is True and horizontal_flip is 0\.3; "):
        TrainingConfig.preset("fast", horizontal_flip=0.3, alternating_flip=True)


def test_epochs_replace_train_images_and_the_other_way_round() -> None:
    by_epochs = TrainingConfig.preset("cpu", epochs=4)
    assert (by_epochs.epochs, by_epochs.train_images) == (4, None)
    by_images = TrainingConfig.preset("fast", train_images=900)
    assert (by_images.epochs, by_images.train_images) == (None, 900)
    kept = TrainingConfig.preset("cpu", epochs=None, train_images=None)
    assert (kept.epochs, kept.train_images) == (None, PRESETS["cpu"]["train_images"])
    with pytest.raises(ValueError, match=r"^epochs is 4 and train_images is 900; give exactly one of them: "):
        TrainingConfig.preset("cpu", epochs=4, train_images=900)


def test_a_configuration_cannot_be_changed_but_replaced() -> None:
    config = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    changed = config.replace(seed=1, resolutions=[[16, 0.5], [32, 0.5]])
    assert (config.seed, changed.seed, changed.resolutions) == (0, 1, ((16, 0.5), (32, 0.5)))
    with pytest.raises(ValueError, match=r"^seed is -1; give a whole number from 0 to 4294967295\.$"):
        config.replace(seed=-1)


# ---- JSON, text, names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PRESETS))
def test_to_dict_and_from_dict_are_inverse_through_json(name: str) -> None:
    config = TrainingConfig.preset(name, seed=2**32 - 1, weight_decay=1e-17, run_name="été 1", device="cuda:1")
    values = config.to_dict()
    assert list(values) == FIELDS
    assert json.loads(json.dumps(values)) == values  # lists, not tuples
    again = TrainingConfig.from_dict(json.loads(json.dumps(values)))
    assert again == config
    assert again.to_dict() == values
    assert hash(again) == hash(config)


def test_a_plan_may_be_given_as_lists() -> None:
    plan = [[16, 0.5], (32, 0.5)]
    assert make(resolutions=plan).resolutions == ((16, 0.5), (32, 0.5))
    assert TrainingConfig.preset("fast", resolutions=plan).resolutions == ((16, 0.5), (32, 0.5))


def test_the_text_is_one_value_a_line_without_those_not_given() -> None:
    lines = str(make(max_lr=0.3, seed=7)).splitlines()
    width = len("decay_norms_and_biases")
    assert f"{'preset_name':<{width}}  cpu" in lines
    assert f"{'max_lr':<{width}}  0.3" in lines
    assert f"{'resolutions':<{width}}  [[32, 1.0]]" in lines
    assert f"{'seed':<{width}}  7" in lines
    assert [line.split()[0] for line in lines] == [
        name for name in FIELDS if name not in ("train_images", "max_epochs", "test_images", "run_name")
    ]


PLACE_AND_MACHINE = {
    "run_name",
    "output_dir",
    "device",
    "workers",
    "threads",
    "skip_broken",
    "cuda_graph",
}  # they decide nothing about the result; of the data its fingerprint does


def test_the_table_of_other_values_has_every_parameter() -> None:
    assert set(OTHER_VALUES) == set(FIELDS)
    for field, change in OTHER_VALUES.items():
        assert getattr(make(**change), field) != getattr(make(), field)


def test_each_value_that_decides_the_result_changes_the_run_name_and_no_other_does() -> None:
    plain = make().default_run_name("cifar10")
    for field in PLACE_AND_MACHINE:
        assert make(**OTHER_VALUES[field]).default_run_name("cifar10") == plain
    names = {"": plain}
    for field in OTHER_VALUES.keys() - PLACE_AND_MACHINE:
        names[field] = make(**OTHER_VALUES[field]).default_run_name("cifar10")
    assert len(set(names.values())) == len(names) == len(FIELDS) - 7 + 1
    for field, name in names.items():
        preset = "best" if field == "preset_name" else "cpu"
        assert re.fullmatch(preset + r"-cifar10-[0-9a-f]{6}", name)


def test_the_same_values_give_the_same_run_name() -> None:
    config = make(max_lr=1.0, run_name="mine", output_dir="elsewhere")
    assert config.default_run_name("cifar10") == make(max_lr=1.0).default_run_name("cifar10")
    shuffled = dict(reversed(config.to_dict().items()))
    assert TrainingConfig.from_dict(shuffled).default_run_name("cifar10") == config.default_run_name("cifar10")
    whole = make(max_lr=1, warmup=0, resolutions=[(32, 1)])
    assert whole == make(max_lr=1.0, warmup=0.0, resolutions=((32, 1.0),))
    assert whole.default_run_name("x") == make(max_lr=1.0, warmup=0.0, resolutions=((32, 1.0),)).default_run_name("x")
    assert config.default_run_name("digits").startswith("cpu-digits-")


def test_the_run_name_is_a_digest_of_the_values_and_the_same_in_every_process() -> None:
    # what holds its default is left out: a parameter that is added later renames nothing
    values = {"preset_name": "cpu", "epochs": 3.0, "train_images": None}
    expected = "cpu-cifar10-" + hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]
    assert make().default_run_name("cifar10") == expected
    code = (
        "from era_support_packages.training.config import TrainingConfig as T; "
        "print(T('cpu', epochs=3).default_run_name('cifar10'))"
    )
    root = str(Path(config_module.__file__).parents[1])
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root}
        result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == expected


# ---- what another configuration has otherwise --------------------------------------------------------------------------


def test_differences_name_each_value_of_the_other_and_its_own() -> None:
    own = make(batch_size=32, anneal="cos", resolutions=((16, 0.5), (32, 0.5)), max_epochs=2, whitening=True, max_lr=0.1)
    assert own.differences(make(batch_size=64, max_lr=0.25)) == [
        "max_epochs None (here 2)",
        "resolutions [[32, 1.0]] (here [[16, 0.5], [32, 0.5]])",
        "batch_size 64 (here 32)",
        "max_lr 0.25 (here 0.1)",
        "anneal 'linear' (here 'cos')",
        "whitening False (here True)",
    ]


def test_every_value_that_decides_the_result_is_a_difference_and_no_other_is() -> None:
    plain = make()
    assert plain.differences(make()) == []
    for field, change in OTHER_VALUES.items():
        other = make(**change)
        expected = [f"{field} {plain.to_dict()[field]!r} (here {other.to_dict()[field]!r})"]
        if field == "train_images":  # the two lengths exclude each other
            expected = ["epochs 3 (here None)", "train_images None (here 100)"]
        assert other.differences(plain) == ([] if field in PLACE_AND_MACHINE else expected)


def test_auto_differs_from_nothing_and_a_number_from_an_auto_that_is_not_resolved_yet() -> None:
    asked = make()
    assert [name for name, value in asked.to_dict().items() if value == "auto"] == [
        "dataset",
        "max_lr",
        "horizontal_flip",
        "precision",
        "device",
        "engine",
        "workers",
        "threads",
    ]
    resolved = {"dataset": "digits", "max_lr": 0.03, "horizontal_flip": 0.0, "precision": "bf16"}
    resolved |= {"device": "cuda:0", "engine": "device", "workers": 2, "threads": 8}
    assert asked.differences(make(**resolved)) == []
    assert make(max_lr=0.03).differences(asked) == ["max_lr 'auto' (here 0.03)"]


def test_a_flip_that_is_given_is_compared_with_the_resolved_one() -> None:
    resolved = make(horizontal_flip=0.5)
    assert make(horizontal_flip="auto").differences(resolved) == []
    assert make(horizontal_flip=0.5).differences(resolved) == []
    assert make(horizontal_flip=0).differences(resolved) == ["horizontal_flip 0.5 (here 0)"]
    assert make(horizontal_flip=0).differences(make(horizontal_flip=0.0)) == []  # the same number


# ---- the plan of epochs ------------------------------------------------------------------------------------------------


def rows(config: TrainingConfig, training_images: int) -> list[tuple[int, int, int, int]]:
    return [dataclasses.astuple(epoch) for epoch in config.planned_epochs(training_images)]


@pytest.mark.parametrize(
    ("epochs", "plan", "resolutions"),
    [
        (1, ((32, 1.0),), [32]),
        (3, ((32, 1.0),), [32, 32, 32]),
        (1, THREE_SIZES, [32]),  # fewer passes than resolutions: the first ones are left out
        (2, THREE_SIZES, [24, 32]),  # 0.6 and 0.4 of two passes
        (3, THREE_SIZES, [16, 24, 32]),
        (10, THREE_SIZES, [16] * 5 + [24] * 3 + [32] * 2),
        (10, MOSTLY_SMALL, [16] * 8 + [24, 32]),  # half a pass for the last one becomes one
        (10, ((16, 0.02), (24, 0.02), (32, 0.96)), [16, 24] + [32] * 8),
        (2, ((24, 0.5), (32, 0.5)), [24, 32]),
        (10, ((24, 0.5), (32, 0.5)), [24] * 5 + [32] * 5),
    ],
)
@pytest.mark.parametrize("training_images", [50_000, 100])  # fewer images than a batch: still a pass an epoch
def test_planned_in_epochs_each_is_one_pass(
    epochs: int, plan: tuple[tuple[int, float], ...], resolutions: list[int], training_images: int
) -> None:
    expected = [
        (number + 1, resolution, number * training_images, training_images) for number, resolution in enumerate(resolutions)
    ]
    assert rows(make(epochs=epochs, resolutions=plan), training_images) == expected


def test_planned_in_images_a_large_data_set_gets_partial_passes() -> None:
    short = make(epochs=None, train_images=38_000, resolutions=MOSTLY_SMALL, batch_size=64)
    assert rows(short, 50_000) == [(1, 16, 0, 28_500), (2, 24, 28_500, 7_600), (3, 32, 36_100, 1_900)]
    longer = short.replace(train_images=300_000, resolutions=[(16, 0.55), (24, 0.4), (32, 0.05)])
    assert rows(longer, 50_000) == [
        (1, 16, 0, 50_000),
        (2, 16, 50_000, 50_000),
        (3, 16, 100_000, 50_000),
        (4, 16, 150_000, 15_000),
        (5, 24, 165_000, 50_000),
        (6, 24, 215_000, 50_000),
        (7, 24, 265_000, 20_000),
        (8, 32, 285_000, 15_000),
    ]


def test_planned_in_images_a_small_data_set_gets_more_passes() -> None:
    config = make(epochs=None, train_images=38_000, resolutions=MOSTLY_SMALL, batch_size=64)
    planned = config.planned_epochs(1437)
    sizes = [1437] * 19 + [1197] + [1437] * 5 + [415] + [1437, 463]  # 28,500 and 7,600 and 1,900 images
    assert [epoch.images for epoch in planned] == sizes
    assert [epoch.resolution for epoch in planned] == [16] * 20 + [24] * 6 + [32] * 2
    assert sum(sizes) == 38_000


def test_max_epochs_bounds_the_passes_over_a_small_data_set() -> None:
    config = make(epochs=None, train_images=32_000, max_epochs=4, resolutions=((16, 0.75), (32, 0.25)), batch_size=64)
    assert rows(config, 1000) == [(1, 16, 0, 1000), (2, 16, 1000, 1000), (3, 16, 2000, 1000), (4, 32, 3000, 1000)]
    assert sum(images for *_, images in rows(config, 50_000)) == 32_000


def test_giving_a_length_drops_the_presets_bound_on_passes() -> None:
    assert TrainingConfig.preset("cpu").max_epochs == 10
    assert TrainingConfig.preset("cpu", train_images=60_000).max_epochs is None
    assert TrainingConfig.preset("cpu", epochs=2).max_epochs is None
    assert TrainingConfig.preset("cpu", train_images=60_000, max_epochs=3).max_epochs == 3


@pytest.mark.parametrize(
    ("training_images", "train_images", "batch_size", "sizes"),
    [
        (1437, 2904, 64, [1437, 1467]),  # 30 images left are no row of their own
        (1437, 2938, 64, [1437, 1437, 64]),  # a whole batch is
        (1437, 1437, 64, [1437]),
        (1437, 5, 64, [5]),
        (300, 1000, 512, [300, 300, 400]),  # fewer images than a batch
        (50_000, 1, 64, [1]),
    ],
)
def test_a_remainder_of_less_than_a_batch_joins_the_pass_before(
    training_images: int, train_images: int, batch_size: int, sizes: list[int]
) -> None:
    config = make(epochs=None, train_images=train_images, batch_size=batch_size)
    assert [epoch.images for epoch in config.planned_epochs(training_images)] == sizes


def test_a_resolution_too_short_for_one_image_is_left_out() -> None:
    config = make(epochs=None, train_images=1, resolutions=MOSTLY_SMALL)
    assert config.planned_epochs(50_000) == (PlannedEpoch(1, 16, 0, 1),)


def test_shares_that_are_rounded_still_give_every_image() -> None:
    config = make(epochs=None, train_images=10**9, resolutions=((16, 0.3333333), (24, 0.3333333), (32, 0.3333333)))
    assert sum(epoch.images for epoch in config.planned_epochs(10**9)) == 10**9


def test_an_epoch_ends_before_the_first_image_of_the_next() -> None:
    assert PlannedEpoch(3, 16, 120, 30).end == 150
    planned = make(epochs=None, train_images=250, batch_size=20).planned_epochs(100)
    assert [(epoch.start, epoch.end) for epoch in planned] == [(0, 100), (100, 200), (200, 250)]


@quick
@given(
    weights=st.lists(st.integers(1, 100), min_size=1, max_size=5),
    images=st.integers(1, 5000),
    training_images=st.integers(20, 5000),
    batch_size=st.integers(2, 600),
    whole_passes=st.booleans(),
)
def test_a_plan_adds_up_and_leaves_no_gaps(
    weights: list[int], images: int, training_images: int, batch_size: int, whole_passes: bool
) -> None:
    plan = tuple((8 + position, weight / sum(weights)) for position, weight in enumerate(weights))
    length = {"epochs": 1 + images % 30, "train_images": None} if whole_passes else {"epochs": None, "train_images": images}
    config = make(resolutions=plan, batch_size=batch_size, **length)
    planned = config.planned_epochs(training_images)
    total = config.epochs * training_images if whole_passes else images
    assert sum(epoch.images for epoch in planned) == total
    assert [epoch.epoch for epoch in planned] == list(range(1, len(planned) + 1))
    assert [epoch.start for epoch in planned] == [sum(e.images for e in planned[:k]) for k in range(len(planned))]
    assert [epoch.resolution for epoch in planned] == sorted(epoch.resolution for epoch in planned)
    assert all(0 < epoch.images < training_images + min(batch_size, training_images) for epoch in planned)
    for resolution, share in plan if not whole_passes else ():
        shown = sum(epoch.images for epoch in planned if epoch.resolution == resolution)
        assert abs(shown - share * images) <= 1


# ---- bad values --------------------------------------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "train_images": (1, 10**9),
    "max_epochs": (1, 10_000),
    "batch_size": (2, 65_536),
    "warmup": (0.0, 1.0),
    "warmup_start": (1e-4, 1.0),
    "muon_lr": (0.0, 1000.0),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, 1.0),
    "label_smoothing": (0.0, 0.99),
    "norm_bias_lr": (0.0, 1000.0),
    "horizontal_flip": (0.0, 1.0),
    "crop_padding": (0, 31),
    "cutout": (0, 32),
    "shift_scale_rotate": (0.0, 1.0),
    "rgb_shift": (0.0, 1.0),
    "brightness_contrast": (0.0, 1.0),
    "range_test_iterations": (16, 10_000),
    "validation": (0.0, 0.5),
    "test_images": (1, 10**9),
    "workers": (0, 64),
    "threads": (1, 1024),
    "seed": (0, 2**32 - 1),
}
CHOICES = {
    "model": MODELS,
    "anneal": ("linear", "cos"),
    "optimizer": ("sgd", "muon"),
    "residual_start": ("random", "dirac", "zero"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "engine": ("auto", "device", "samples"),
}
SWITCHES = (
    *("decay_norms_and_biases", "whitening", "alternating_flip", "cutout_first", "test_time_flip"),
    *("cuda_graph", "compile", "deterministic", "skip_broken"),
)
OTHERWISE = ("preset_name", "dataset", "resolutions", "max_lr", "device", "run_name", "output_dir")


def with_value(name: str, value: object) -> dict[str, Any]:
    """A configuration's values with that one, of both lengths only one."""
    length = {"train_images": value} if name == "train_images" else {"epochs": 3}
    return {"preset_name": "cpu", **length, name: value}


def test_every_parameter_is_looked_at() -> None:
    assert sorted([*RANGES, *CHOICES, *SWITCHES, *OTHERWISE]) == sorted(FIELDS)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_includes_its_ends_and_nothing_beyond(name: str) -> None:
    low, high = RANGES[name]
    whole = isinstance(low, int)
    for value in (low, high):
        assert getattr(TrainingConfig(**with_value(name, value)), name) == value
    noun, ends = ("whole number", f"{low} to {high}") if whole else ("number", f"{low:g} to {high:g}")
    beyond = (low - 1, high + 1, low + 0.5) if whole else (math.nextafter(low, -1), math.nextafter(high, 2000), 10**400)
    for value in (*beyond, NAN, INF, True, "1", [low]):
        found = message(TrainingConfig, **with_value(name, value))
        assert found.startswith(f"{name} is {value!r}; give a {noun} from {ends}")
    optional = name in ("epochs", "train_images", "max_epochs", "test_images")
    assert optional or message(TrainingConfig, **with_value(name, None)).startswith(f"{name} is None; ")


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_its_words(name: str) -> None:
    for word in CHOICES[name]:
        assert getattr(make(**{name: word}), name) == word
    for value in (None, 1, "q", b"", [*CHOICES[name]]):
        assert message(make, **{name: value}).startswith(f"{name} is {value!r}: ")
    assert message(make, **{name: "q"}).endswith(f"choose one of {', '.join(map(repr, CHOICES[name]))}.")
    assert f"did you mean {CHOICES[name][-1]!r}" in message(make, **{name: CHOICES[name][-1] + "x"})


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name: str) -> None:
    for value in (1, 0, None, "yes", "true"):
        assert message(make, **{name: value}) == f"{name} is {value!r}; give True or False."


BAD_VALUES: dict[str, tuple[list[Any], str]] = {
    "preset_name": (["orignal", "zzz", ["cpu"], None, "auto"], ""),
    "dataset": (["", " ", 10, None, "\0", True], "give it as text."),
    "output_dir": (["", " ", None, "runs\0"], "give it as text."),
    "max_lr": (
        [0, -0.1, 100.5, NAN, INF, True, "0.1", None],
        "give a number above 0 and up to 100, or 'auto' for the range test's suggestion.",
    ),
    "device": (
        ["gpu", "", 0, None, "cuda:x", "cuda:-1", "cuda:", "cuda:1\n", "cuda:100", "cpu:x"],
        "give one of 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.",
    ),
    "run_name": (
        ["x" * 201, "é" * 101, "", " ", "a/b", "a\\b", ".", "..", ".x", "x ", " x", "a:b", "a*", "a\nb", "a\0b", '"a"', 7, ["a"]],
        "give a folder name of at most 200 bytes without slashes, quotes, line breaks and : * ? < > |, with no space at its ends "
        "and no dot at its start.",
    ),
    "resolutions": (
        [
            *(None, "16", 32, {"16": 1.0}, (), (16, 32), ((16, 0.5, 1), (32, 0.5))),
            *(((7, 1.0),), ((33, 1.0),), ((16.0, 1.0),), ((True, 1.0),)),
            *(((16, 0.7), (32, 0.4)), ((16, 0.0), (32, 1.0)), ((16, -0.5), (32, 1.5)), ((16, NAN),), ((16, INF),), ((16, "1"),)),
        ],
        "give a list of (pixels from 8 to 32, share of the images), with shares that add up to 1, such as [(16, 0.7), "
        "(32, 0.3)].",
    ),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (values, _) in BAD_VALUES.items() for value in values],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_value_gets_one_sentence(name: str, value: object) -> None:
    found = message(TrainingConfig.from_dict, with_value(name, value))
    if name == "preset_name":
        assert found.startswith(f"Unknown preset {value!r}: ")
    else:
        assert found == f"{name} is {value!r}; {BAD_VALUES[name][1]}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_lr", 100),
        ("max_lr", 1e-12),
        ("device", "cuda:15"),
        ("device", "mps"),
        ("resolutions", ((8, 0.5), (32, 0.5))),
        ("resolutions", ((16, 1 / 3), (24, 1 / 3), (32, 1 / 3))),
        ("run_name", "a run.2"),
        ("run_name", "auto"),
        ("run_name", "x" * 200),
        ("run_name", "é" * 100),
    ],
)
def test_unusual_values_are_allowed(name: str, value: object) -> None:
    assert getattr(make(**{name: value}), name) == value


def test_several_problems_are_reported_at_once() -> None:
    found = message(
        TrainingConfig.preset, "cpu", model="ResNet19", batch_size=0, warmup=2, run_name="a/b", train_images=5, epochs=5
    )
    assert found.startswith("model is 'ResNet19': did you mean 'ResNet18' or ")
    for part in (
        " run_name is 'a/b'; give a folder name",
        " batch_size is 0; give a whole number from 2 to 65536.",
        " warmup is 2; give a number from 0 to 1.",
        " epochs is 5 and train_images is 5; give exactly one of them: the passes over the training split, or the images shown",
    ):
        assert part in found


@pytest.mark.parametrize("flip", [0.3, 1, 1e-9])
def test_an_alternating_flip_needs_even_odds(flip: float) -> None:
    assert message(make, alternating_flip=True, horizontal_flip=flip) == (
        f"alternating_flip is True and horizontal_flip is {flip!r}; an alternating flip mirrors each image in every other pass: "
        "set horizontal_flip to 0.5, to 'auto', or to 0 for no flip, or alternating_flip to False."
    )
    assert make(horizontal_flip=flip).horizontal_flip == flip


@pytest.mark.parametrize("flip", ["auto", 0.5, 0, 0.0])  # "auto" becomes 0 for digits
def test_an_alternating_flip_goes_with_even_odds_or_none(flip: float | str) -> None:
    assert make(alternating_flip=True, horizontal_flip=flip).alternating_flip


def test_a_length_is_needed() -> None:
    found = message(TrainingConfig, "cpu")
    assert found == (
        "epochs is None and train_images is None; give exactly one of them: the passes over the training split, "
        "or the images shown in all."
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orignal", "Unknown preset 'orignal': did you mean 'original'?"),
        ("smok", "Unknown preset 'smok': did you mean 'smoke'?"),
        ("bset", "Unknown preset 'bset': did you mean 'best' or 'fast'?"),
        ("zzz", "Unknown preset 'zzz': choose one of 'auto', 'original', 'fast', 'best', 'cpu', 'smoke'."),
        (7, "Unknown preset 7: choose one of 'auto', 'original', 'fast', 'best', 'cpu', 'smoke'."),
        (["x"], "Unknown preset ['x']: choose one of 'auto', 'original', 'fast', 'best', 'cpu', 'smoke'."),
    ],
)
def test_an_unknown_preset_gets_the_nearest_names(name: Any, expected: str) -> None:
    assert message(TrainingConfig.preset, name) == expected


def test_an_unknown_parameter_gets_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"^Unknown parameter 'label_smothing': did you mean 'label_smoothing'\?$"):
        TrainingConfig.preset("cpu", label_smothing=0.1)
    with pytest.raises(
        ValueError, match=r"^Unknown parameter 'zzz': choose one of 'preset_name', 'dataset', 'model', 'epochs', "
    ):
        TrainingConfig.from_dict({"preset_name": "cpu", "epochs": 1, "zzz": 1})
    with pytest.raises(ValueError, match=r"^Unknown parameter 'batchsiz': .*'batch_size'.* Unknown parameter 'sead': .*'seed'"):
        TrainingConfig.from_dict({"batchsiz": 1, "sead": 1})


def test_a_configuration_needs_a_preset_name() -> None:
    found = message(TrainingConfig.from_dict, {"epochs": 1})
    assert found == "A configuration needs preset_name: choose one of 'original', 'fast', 'best', 'cpu', 'smoke'."


@pytest.mark.parametrize("values", [None, [], ["preset_name"], "preset_name", 3], ids=repr)
def test_a_configuration_is_made_from_a_table(values: Any) -> None:
    assert message(TrainingConfig.from_dict, values) == f"A configuration is a table of names and values, not {values!r}."
