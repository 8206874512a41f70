"""The configuration: presets, overrides, text, run names, differences, and the plan of epochs."""

import dataclasses
import hashlib
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from other_values import OTHER_VALUES, make
from papermill.translators import PythonTranslator

from era_support_packages.training.config import PlannedEpoch, TrainingConfig
from era_support_packages.training.presets import PRESETS

FIELDS = [field.name for field in dataclasses.fields(TrainingConfig)]
THREE_SIZES = ((16, 0.5), (24, 0.3), (32, 0.2))
MOSTLY_SMALL = ((16, 0.75), (24, 0.2), (32, 0.05))
PLACE_AND_MACHINE = {  # they decide nothing about the result; of the data its fingerprint does
    *("run_name", "output_dir", "device", "stream", "workers", "threads", "skip_broken", "cuda_graph", "tracker")
}


@pytest.mark.parametrize("name", ["original", "fast", "best", "cpu", "finetune", "scratch", "smoke"])
def test_a_preset_is_valid_and_says_only_what_differs_from_the_defaults(name: str) -> None:
    config = TrainingConfig.preset(name)
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingConfig)}
    assert vars(config) == {**defaults, **PRESETS[name], "preset_name": name}
    assert list(PRESETS) == ["original", "fast", "best", "cpu", "finetune", "scratch", "smoke"]


def test_the_original_preset_is_the_course_recipe() -> None:
    config = TrainingConfig.preset("original")
    assert (config.epochs, config.batch_size, config.resolutions, config.anneal) == (25, 512, ((32, 1.0),), "cos")
    assert (config.horizontal_flip, config.shift_scale_rotate, config.cutout, config.crop_padding) == (0.1, 0.5, 16, 0)
    assert (config.rgb_shift, config.brightness_contrast) == (0.4, 0.5)
    assert (config.max_lr, config.range_test_iterations) == ("auto", 200)


@pytest.mark.parametrize(("gpu", "expected"), [(True, "fast"), (False, "cpu")])
def test_auto_chooses_by_the_gpu(gpu: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert TrainingConfig.preset("auto") == TrainingConfig.preset(expected)


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        ("best", {"batch_size": 128, "cutout": None, "max_lr": None, "run_name": None}, {"batch_size": 128}),  # None keeps
        ("best", {"cutout": 0, "test_time_flip": False}, {"cutout": 0, "test_time_flip": False}),  # values, not "keep"
        # an uneven flip replaces the preset's alternating one
        ("fast", {"horizontal_flip": 0.3}, {"horizontal_flip": 0.3, "alternating_flip": False}),
        ("fast", {"horizontal_flip": 0.5}, {"horizontal_flip": 0.5}),
        ("fast", {"horizontal_flip": 0}, {"horizontal_flip": 0}),
        # one length replaces the other, and the bound on passes
        ("cpu", {"epochs": 4}, {"epochs": 4, "train_images": None, "max_epochs": None}),
        ("fast", {"train_images": 900}, {"epochs": None, "train_images": 900}),
        ("cpu", {"train_images": 60_000}, {"train_images": 60_000, "max_epochs": None}),
        ("cpu", {"train_images": 60_000, "max_epochs": 3}, {"train_images": 60_000, "max_epochs": 3}),
        ("cpu", {"epochs": None, "train_images": None}, {}),
        ("fast", {"resolutions": [[16, 0.5], (32, 0.5)]}, {"resolutions": ((16, 0.5), (32, 0.5))}),
    ],
)
def test_an_override_changes_that_value_and_what_it_excludes(
    preset: str, overrides: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert TrainingConfig.preset(preset, **overrides) == dataclasses.replace(TrainingConfig.preset(preset), **expected)


def test_a_configuration_cannot_be_changed_but_replaced() -> None:
    config = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    changed = config.replace(seed=1, resolutions=[[16, 0.5], [32, 0.5]])
    assert (config.seed, changed.seed, changed.resolutions) == (0, 1, ((16, 0.5), (32, 0.5)))
    with pytest.raises(ValueError, match=r"^seed is -1; give a whole number from 0 to 4294967295\.$"):
        config.replace(seed=-1)


EXTREME = {"seed": 2**32 - 1, "weight_decay": 1e-17, "run_name": "été 1", "device": "cuda:99", "max_lr": 1}


@pytest.mark.parametrize("change", [*OTHER_VALUES.values(), EXTREME], ids=repr)
def test_every_value_survives_json_and_papermill(change: dict[str, Any]) -> None:
    config = make(**change)
    values, cell = config.to_dict(), {}
    assert list(values) == FIELDS
    assert json.loads(json.dumps(values)) == values  # lists, not tuples
    exec(PythonTranslator.codify(values), cell)
    for stored in (json.loads(json.dumps(values)), {name: cell[name] for name in FIELDS}):
        again = TrainingConfig.from_dict(stored)
        assert again == config
        assert repr(again) == repr(config)  # 1 and 1.0 are not written in the same way
        assert hash(again) == hash(config)
        assert again.default_run_name("x") == config.default_run_name("x")


def test_the_text_is_one_value_a_line_without_those_not_given() -> None:
    lines = str(make(max_lr=0.3, seed=7)).splitlines()
    for name, value in {"preset_name": "cpu", "max_lr": "0.3", "resolutions": "[[32, 1.0]]", "seed": "7"}.items():
        assert f"{name:<{len('decay_norms_and_biases')}}  {value}" in lines
    missing = ("train_images", "max_epochs", "test_images", "run_name", "tracker", "weights")
    assert [line.split()[0] for line in lines] == [name for name in FIELDS if name not in missing]


def test_each_value_that_decides_the_result_is_a_difference_and_changes_the_run_name_and_no_other_is() -> None:
    assert OTHER_VALUES.keys() == set(FIELDS)
    plain = make()
    names = {plain.default_run_name("cifar10")}
    for field, change in OTHER_VALUES.items():
        other = make(**change)
        assert getattr(other, field) != getattr(plain, field)
        name = other.default_run_name("cifar10")
        assert re.fullmatch(f"{'best' if field == 'preset_name' else 'cpu'}-cifar10-[0-9a-f]{{6}}", name)
        assert (name in names) is (field in PLACE_AND_MACHINE)
        names.add(name)
        expected = [f"{field} {plain.to_dict()[field]!r} (here {other.to_dict()[field]!r})"]
        if field == "train_images":  # the two lengths exclude each other
            expected = ["epochs 3 (here None)", "train_images None (here 100)"]
        if field == "final_test":  # it takes a validation share
            expected.insert(0, "validation 0.0 (here 0.1)")
        of_muon = field in ("muon_lr", "muon_outputs")
        if of_muon:
            assert other.replace(optimizer="muon").differences(plain.replace(optimizer="muon")) == expected
        assert other.differences(plain) == ([] if field in PLACE_AND_MACHINE or of_muon else expected)
    assert plain.default_run_name("digits").startswith("cpu-digits-")


def test_the_same_values_give_the_same_run_name() -> None:
    config = make(max_lr=1.0, warmup=0.0)
    shuffled = TrainingConfig.from_dict(dict(reversed(config.to_dict().items())))
    whole = make(max_lr=1, warmup=0, resolutions=[(32, 1)])
    assert shuffled == whole == config
    assert {one.default_run_name("x") for one in (shuffled, whole, config)} == {config.default_run_name("x")}


def test_the_run_name_is_a_digest_of_the_values() -> None:
    # what holds its default is left out: a parameter that is added later renames nothing
    values = {"preset_name": "cpu", "epochs": 3.0, "train_images": None}
    expected = "cpu-cifar10-" + hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:6]
    assert make().default_run_name("cifar10") == expected


def test_differences_name_each_value_of_the_other_and_its_own() -> None:
    own = make(batch_size=32, anneal="cos", resolutions=((16, 0.5), (32, 0.5)), max_epochs=2, whitening=True, max_lr=0.1)
    assert own.differences(make(batch_size=64, max_lr=0.25)) == [
        *("max_epochs None (here 2)", "resolutions [[32, 1.0]] (here [[16, 0.5], [32, 0.5]])", "batch_size 64 (here 32)"),
        *("max_lr 0.25 (here 0.1)", "anneal 'linear' (here 'cos')", "whitening False (here True)"),
    ]


def test_an_unfinished_run_of_the_preset_cpu_from_before_it_learned_by_muon_is_found_again_by_its_values() -> None:
    before = {"optimizer": "sgd", "batch_size": 32, "momentum": 0.9, "max_lr": 0.07, "train_images": 87_000, "max_epochs": 10}
    stored = {**TrainingConfig.preset("cpu").to_dict(), **before, "muon_lr": 0.25}
    del stored["muon_outputs"]  # it had none
    asked = TrainingConfig.preset("cpu", **before)
    assert asked.differences(TrainingConfig.from_dict(stored)) == []
    words = ["optimizer 'sgd' (here 'muon')", "muon_lr 0.25 (here 0.5)", "muon_outputs 1000000 (here 256)"]
    assert asked.replace(optimizer="muon").differences(TrainingConfig.from_dict(stored)) == words


def test_auto_differs_from_nothing_and_a_number_from_an_auto_that_is_not_resolved_yet() -> None:
    asked = make()
    resolved = {"dataset": "digits", "max_lr": 0.03, "horizontal_flip": 0.0, "precision": "bf16"}
    resolved |= {"device": "cuda:0", "engine": "device", "stream": False, "workers": 2, "threads": 8}
    resolved |= {"image_size": 32, "fit": "crop", "pretrained": False}
    assert {name for name, value in asked.to_dict().items() if value == "auto"} == resolved.keys()
    assert asked.differences(make(**resolved)) == []
    assert make(max_lr=0.03).differences(asked) == ["max_lr 'auto' (here 0.03)"]
    assert make(horizontal_flip=0).differences(make(horizontal_flip=0.5)) == ["horizontal_flip 0.5 (here 0)"]
    assert make(horizontal_flip=0).differences(make(horizontal_flip=0.0)) == []  # the same number


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
    ],
)
@pytest.mark.parametrize("images", [50_000, 100])  # fewer images than a batch: still a pass an epoch
def test_planned_in_epochs_each_is_one_pass(
    epochs: int, plan: tuple[tuple[int, float], ...], resolutions: list[int], images: int
) -> None:
    planned = make(epochs=epochs, resolutions=plan).planned_epochs(images)
    assert planned == tuple(PlannedEpoch(n + 1, resolution, n * images, images) for n, resolution in enumerate(resolutions))


BY_IMAGES = {"epochs": None, "train_images": 38_000, "batch_size": 64, "resolutions": MOSTLY_SMALL}
ONE_SIZE, THIRDS = ((32, 1.0),), ((16, 0.3333333), (24, 0.3333333), (32, 0.3333333))


@pytest.mark.parametrize(
    ("images", "changes", "expected"),  # images of the training split; pixels and images of each epoch
    [
        (50_000, {}, [(16, 28_500), (24, 7_600), (32, 1_900)]),
        (1437, {}, [*[(16, 1437)] * 19, (16, 1197), *[(24, 1437)] * 5, (24, 415), (32, 1437), (32, 463)]),
        (100, {"train_images": 210, "resolutions": ONE_SIZE, "batch_size": 10}, [(32, 100), (32, 100), (32, 10)]),
        (1000, {"train_images": 32_000, "max_epochs": 4}, [*[(16, 1000)] * 3, (24, 800), (32, 200)]),
        # what is left is less than a batch, a whole batch, or of a split of fewer images than a batch
        (1437, {"train_images": 2904, "resolutions": ONE_SIZE}, [(32, 1437), (32, 1467)]),
        (1437, {"train_images": 2938, "resolutions": ONE_SIZE}, [(32, 1437), (32, 1437), (32, 64)]),
        (300, {"train_images": 1000, "resolutions": ONE_SIZE, "batch_size": 512}, [(32, 300), (32, 300), (32, 400)]),
        (50_000, {"train_images": 1}, [(16, 1)]),  # resolutions too short for one image are left out
        # shares that are rounded still give every image
        (10**9, {"train_images": 10**9, "resolutions": THIRDS}, [(16, 333_333_333), (24, 333_333_334), (32, 333_333_333)]),
    ],
)
def test_planned_in_images_each_resolution_is_cut_into_passes(
    images: int, changes: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    planned = make(**{**BY_IMAGES, **changes}).planned_epochs(images)
    assert [(epoch.resolution, epoch.images) for epoch in planned] == expected


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
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
    length = {"epochs": 1 + images % 30} if whole_passes else {"epochs": None, "train_images": images}
    config = make(resolutions=plan, batch_size=batch_size, **length)
    planned = config.planned_epochs(training_images)
    assert planned[-1].end == (config.epochs * training_images if whole_passes else images)
    assert [epoch.epoch for epoch in planned] == list(range(1, len(planned) + 1))
    assert [epoch.start for epoch in planned] == [0, *(epoch.end for epoch in planned[:-1])]
    assert [epoch.resolution for epoch in planned] == sorted(epoch.resolution for epoch in planned)
    assert all(0 < epoch.images < training_images + min(batch_size, training_images) for epoch in planned)
    for resolution, share in plan if not whole_passes else ():
        shown = sum(epoch.images for epoch in planned if epoch.resolution == resolution)
        assert abs(shown - share * images) <= 1
