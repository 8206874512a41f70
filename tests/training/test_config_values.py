"""Bad values of a configuration: a sentence for each, all of them at once."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from other_values import make

from era_support_packages.models.catalog import MODELS
from era_support_packages.training.config import TrainingConfig

FIELDS = [field.name for field in dataclasses.fields(TrainingConfig)]
INF, NAN, OBJECT = float("inf"), float("nan"), object()
OPTIONAL = ("epochs", "train_images", "max_epochs", "test_images", "tracker")
RANGES: dict[str, tuple[float, float]] = {
    **{"epochs": (1, 10_000), "train_images": (1, 10**9), "max_epochs": (1, 10_000), "test_images": (1, 10**9)},
    **{
        "batch_size": (2, 65_536),
        "range_test_iterations": (16, 10_000),
        "validation": (0.0, 0.5),
        "workers": (0, 64),
        "threads": (1, 1024),
    },
    **{"seed": (0, 2**32 - 1), "crop_padding": (0, 511), "cutout": (0, 512)},
    **{"warmup": (0.0, 1.0), "warmup_start": (1e-4, 1.0), "muon_lr": (0.0, 1000.0), "norm_bias_lr": (0.0, 1000.0)},
    "muon_outputs": (1, 10**6),
    **{
        "momentum": (0.0, 0.9999),
        "weight_decay": (0.0, 1.0),
        "head_lr": (0.001, 1000.0),
        "head_first": (0.0, 0.9),
        "average": (0.0, 1.0),
        "label_smoothing": (0.0, 0.99),
    },
    **dict.fromkeys(
        ("horizontal_flip", "shift_scale_rotate", "rgb_shift", "brightness_contrast", "random_resized_crop"), (0.0, 1.0)
    ),
}
CHOICES = {
    "model": MODELS,
    "anneal": ("linear", "cos"),
    "optimizer": ("sgd", "muon", "adamw"),
    "residual_start": ("random", "dirac", "zero"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "engine": ("auto", "device", "samples"),
    "tracker": ("tensorboard", "trackio", "wandb"),
    "fit": ("auto", "crop", "squash", "pad"),
}
SWITCHES = (
    *("decay_norms_and_biases", "whitening", "alternating_flip", "cutout_first", "test_time_flip", "final_test"),
    *("cuda_graph", "compile", "sync_batch_norm", "deterministic", "skip_broken", "freeze_norms"),
)
BAD_VALUES: dict[str, tuple[list[Any], str]] = {
    "dataset": (["", " ", 10, None, "\0", True, b"x", [], OBJECT], "give it as text."),
    "output_dir": (["", " ", None, "runs\0", {}], "give it as text."),
    "max_lr": (
        [0, -0.1, 100.5, NAN, INF, True, "0.1", None, 10**400, [], OBJECT],
        "give a number above 0 and up to 100, or 'auto' for the range test's suggestion.",
    ),
    "pretrained": ([0, 1, None, "yes", [True], OBJECT], "give True or False, or 'auto' for these."),
    "stream": ([0, 1, None, "yes", [True], OBJECT], "give True or False, or 'auto' for what memory asks for."),
    "weights": (["", " ", 3, True, "\0", b"x", ["w.pth"]], "give the path of a file as text, or None."),
    "image_size": (
        [31, 513, 0, 64.0, True, "64", None, [64], NAN, OBJECT],
        "give a whole number from 32 to 512, or 'auto' for what suits the data.",
    ),
    "device": (
        ["gpu", "", 0, None, "cuda:x", "cuda:-1", "cuda:", "cuda:1\n", "cuda:100", "cpu:x", ["cpu"], b"cpu"],
        "give one of 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.",
    ),
    "run_name": (
        [
            *("x" * 201, "é" * 101, "", " ", "a/b", "a\\b", ".", "..", ".x", "x ", " x", "a:b", "a*", "a\nb", "a\0b", '"a"'),
            *(7, ["a"], b"x"),
        ],
        "give a folder name of at most 200 bytes without slashes, quotes, line breaks and : * ? < > |, with no space at its ends "
        "and no dot at its start.",
    ),
    "resolutions": (
        [
            *(None, "16", 32, {"16": 1.0}, (), (16, 32), ((16, 0.5, 1), (32, 0.5))),
            *(((7, 1.0),), ((513, 1.0),), ((16.0, 1.0),), ((True, 1.0),)),
            *(((16, 0.7), (32, 0.4)), ((16, 0.0), (32, 1.0)), ((16, -0.5), (32, 1.5)), ((16, NAN),), ((16, INF),), ((16, "1"),)),
            *(((16, 10**400),), OBJECT),
        ],
        "give a list of (pixels from 8 to 512, or a share of image_size up to 1, share of the images), with shares that add up "
        "to 1, such as [(16, 0.7), (32, 0.3)] or [(0.5, 0.7), (1, 0.3)].",
    ),
}
UNUSUAL_VALUES: dict[str, list[Any]] = {
    "max_lr": [100, 1e-12],
    "image_size": [32, 512, "auto"],
    "pretrained": [False, "auto"],
    "stream": [True, False, "auto"],
    "weights": ["w.pth", None],
    "device": ["cuda:15", "mps"],
    "resolutions": [((8, 0.5), (32, 0.5)), ((16, 1 / 3), (24, 1 / 3), (32, 1 / 3)), ((0.5, 0.5), (1, 0.5))],
    "run_name": ["a run.2", "auto", "x" * 200, "é" * 100],
}
PRESET_NAMES = "choose one of 'original', 'fast', 'best', 'cpu', 'finetune', 'scratch', 'smoke'."
ASKED_NAMES = PRESET_NAMES.replace("one of", "one of 'auto',")
LENGTHS = "give exactly one of them: the passes over the training split, or the images shown in all."


def message(build: Callable[..., Any], *arguments: Any, **keywords: Any) -> str:
    """The message of the ValueError that a call must raise."""
    with pytest.raises(ValueError, match=r".") as error:
        build(*arguments, **keywords)
    return str(error.value)


def with_value(name: str, value: object) -> dict[str, Any]:
    """A configuration's values with that one, of both lengths only one."""
    length = {} if name == "train_images" else {"epochs": 3}
    return {"preset_name": "cpu", **length, name: value}


def test_every_parameter_is_looked_at() -> None:
    assert sorted([*RANGES, *CHOICES, *SWITCHES, *BAD_VALUES, "preset_name"]) == sorted(FIELDS)


@pytest.mark.parametrize("name", RANGES)
def test_a_range_includes_its_ends_and_nothing_beyond(name: str) -> None:
    low, high = RANGES[name]
    whole = isinstance(low, int)
    for value in (low, high):
        assert getattr(TrainingConfig(**with_value(name, value)), name) == value
    noun, ends = ("whole number", f"{low} to {high}") if whole else ("number", f"{low:g} to {high:g}")
    beyond = (low - 1, high + 1, low + 0.5) if whole else (math.nextafter(low, -1), math.nextafter(high, 2000), 10**400)
    for value in (*beyond, NAN, INF, True, "1", b"1", [low], {}, OBJECT):
        found = message(TrainingConfig, **with_value(name, value))
        assert found.startswith(f"{name} is {value!r}; give a {noun} from {ends}")
    assert name in OPTIONAL or message(TrainingConfig, **with_value(name, None)).startswith(f"{name} is None; ")


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_its_words(name: str) -> None:
    for word in CHOICES[name]:
        assert getattr(make(**{name: word}), name) == word
    for value in (*([] if name in OPTIONAL else [None]), 1, "q", b"", [], {}, [*CHOICES[name]], [[]], OBJECT):
        assert message(make, **{name: value}).startswith(f"{name} is {value!r}: ")
    assert message(make, **{name: "q"}).endswith(f"choose one of {', '.join(map(repr, CHOICES[name]))}.")
    assert f"did you mean {CHOICES[name][-1]!r}" in message(make, **{name: CHOICES[name][-1] + "x"})


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name: str) -> None:
    for value in (1, 0, None, "yes", "true", [], {}, OBJECT):
        assert message(make, **{name: value}) == f"{name} is {value!r}; give True or False."


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_gets_one_sentence_and_an_unusual_one_none(name: str) -> None:
    values, way_out = BAD_VALUES[name]
    for value in values:
        assert message(TrainingConfig.from_dict, with_value(name, value)) == f"{name} is {value!r}; {way_out}"
    for value in UNUSUAL_VALUES.get(name, []):
        assert getattr(make(**{name: value}), name) == value


def test_several_problems_are_reported_at_once() -> None:
    values = {"model": "ResNet19", "batch_size": 0, "warmup": 2, "run_name": "a/b", "train_images": 5, "epochs": 5}
    found = message(TrainingConfig.preset, "cpu", **values)
    assert found.startswith("model is 'ResNet19': did you mean 'ResNet18' or ")
    for part in ("run_name is 'a/b'; give a", "batch_size is 0; give a", "warmup is 2; give a", f"train_images is 5; {LENGTHS}"):
        assert f" {part}" in found


@pytest.mark.parametrize("flip", [0.3, 1, 1e-9])
def test_an_alternating_flip_needs_even_odds(flip: float) -> None:
    assert message(make, alternating_flip=True, horizontal_flip=flip) == (
        f"alternating_flip is True and horizontal_flip is {flip!r}; an alternating flip mirrors each image in every other pass: "
        "set horizontal_flip to 0.5, to 'auto', or to 0 for no flip, or alternating_flip to False."
    )
    assert make(horizontal_flip=flip).horizontal_flip == flip
    for even in ("auto", 0.5, 0, 0.0):  # "auto" becomes 0 for digits
        assert make(alternating_flip=True, horizontal_flip=even).alternating_flip


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"preset_name": "cpu"}, f"epochs is None and train_images is None; {LENGTHS}"),
        ({"epochs": 1}, f"A configuration needs preset_name: {PRESET_NAMES}"),
        *[
            (values, f"A configuration is a table of names and values, not {values!r}.")
            for values in (None, [], ["preset_name"], "preset_name", 3)
        ],
    ],
    ids=repr,
)
def test_a_table_that_is_no_configuration(values: Any, expected: str) -> None:
    assert message(TrainingConfig.from_dict, values) == expected


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        *[("orignal", "did you mean 'original'?"), ("smok", "did you mean 'smoke'?"), ("CPU", "did you mean 'cpu'?")],
        *[("bset", "did you mean 'best' or 'fast'?"), ("zzz", ""), ("", ""), (None, ""), (7, ""), (["x"], ""), ({}, "")],
    ],
)
def test_an_unknown_preset_gets_the_nearest_names(name: Any, nearest: str) -> None:
    found = message(TrainingConfig.from_dict, with_value("preset_name", name))
    assert found == f"Unknown preset {name!r}: {nearest or PRESET_NAMES}"
    found = message(TrainingConfig.preset, name)
    assert found == f"Unknown preset {name!r}: {nearest or ASKED_NAMES}"


def test_auto_is_no_preset_that_a_configuration_may_have() -> None:
    assert message(TrainingConfig.from_dict, with_value("preset_name", "auto")).startswith("Unknown preset 'auto': ")


@pytest.mark.parametrize("name", ["epoch", "batchsize", "", "zzz", "cls", "self", "name"])  # the last are in the signature too
@pytest.mark.parametrize("value", [None, 1], ids=repr)  # None keeps a value, but there is none to keep
def test_an_unknown_parameter_is_named(name: str, value: Any) -> None:
    assert message(TrainingConfig.preset, "cpu", **{name: value}).startswith(f"Unknown parameter {name!r}: ")
    found = message(TrainingConfig.from_dict, {"preset_name": "cpu", "epochs": 1, name: value})
    assert found.startswith(f"Unknown parameter {name!r}: ")


def test_each_unknown_parameter_gets_the_nearest_names() -> None:
    found = message(TrainingConfig.from_dict, {"label_smothing": 1, "sead": 1, None: 1, (True, 7): 1})
    first = "Unknown parameter 'label_smothing': did you mean 'label_smoothing'? Unknown parameter 'sead': did you mean 'seed'"
    assert found.startswith(first)
    assert all(f" Unknown parameter {name}: " in found for name in ("None", "(True, 7)"))
    found = message(TrainingConfig.from_dict, {"preset_name": "cpu", "zzz": 1})
    assert found.startswith("Unknown parameter 'zzz': the nearest are ")
