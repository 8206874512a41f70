"""Properties of the configuration: a valid one survives JSON and papermill, anything else is a ValueError and nothing else."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from papermill.translators import PythonTranslator

from era_support_packages.models.catalog import MODELS
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.presets import PRESETS

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "gradcam_cifar10.ipynb"
FIELDS = list(TrainingConfig("smoke", epochs=1).to_dict())
some = settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])

# ---- valid values, written down a second time --------------------------------------------------------------------------

Rule = tuple[st.SearchStrategy, Callable[[Any], bool]]  # how to draw a valid value, and whether any value is one


def choice(*values: object) -> Rule:
    return st.sampled_from(values), lambda value: type(value) in (str, bool) and value in values


def whole(low: int, high: int) -> Rule:
    return st.integers(low, high), lambda value: type(value) is int and low <= value <= high


def number(low: float, high: float) -> Rule:
    drawn = st.floats(low, high) | st.integers(math.ceil(low), math.floor(high))
    return drawn, lambda value: type(value) in (int, float) and low <= value <= high


def or_else(alternative: str | None, rule: Rule) -> Rule:
    """The alternative, or what the rule allows."""
    drawn, allowed = rule
    return st.just(
        alternative
    ) | drawn, lambda value: (type(value) is type(alternative) and value == alternative) or allowed(value)


def text() -> Rule:
    def allowed(value: object) -> bool:
        return isinstance(value, str) and value.strip() != "" and "\0" not in value

    return st.text(min_size=1, max_size=12).filter(allowed), allowed


def is_run_name(value: object) -> bool:
    if not isinstance(value, str) or value == "" or value.strip() != value or len(value.encode()) > 200:
        return False
    return not value.startswith(".") and not any(character in value for character in '/\\:*?"<>|\n\0')


def is_plan(value: object) -> bool:
    if not isinstance(value, list | tuple) or not value:
        return False
    if not all(isinstance(step, list | tuple) and len(step) == 2 for step in value):
        return False
    if not all(type(pixels) is int and pixels in range(8, 33) for pixels, _ in value):
        return False
    if not all(type(share) in (int, float) and 0 < share <= 1 for _, share in value):
        return False
    return abs(sum(share for _, share in value) - 1) <= 1e-6


def as_plan(steps: list[tuple[int, int]]) -> list[list[float]]:
    """(pixels, weight) as (pixels, share)."""
    return [[pixels, weight / sum(weight for _, weight in steps)] for pixels, weight in steps]


learning_rate = st.floats(0, 100, exclude_min=True) | st.integers(1, 100)
steps = st.lists(st.tuples(st.integers(8, 32), st.integers(1, 50)), min_size=1, max_size=5)
devices = ("auto", "cpu", "mps", "cuda", *(f"cuda:{index}" for index in range(100)))

RULES: dict[str, Rule] = {
    "preset_name": choice(*PRESETS),
    "dataset": text(),
    "model": choice(*MODELS),
    "epochs": or_else(None, whole(1, 10_000)),
    "train_images": or_else(None, whole(1, 10**9)),
    "max_epochs": or_else(None, whole(1, 10_000)),
    "resolutions": (steps.map(as_plan), is_plan),
    "batch_size": whole(2, 65_536),
    "max_lr": or_else("auto", (learning_rate, lambda value: type(value) in (int, float) and 0 < value <= 100)),
    "warmup": number(0, 1),
    "warmup_start": number(1e-4, 1),
    "anneal": choice("linear", "cos"),
    "optimizer": choice("sgd", "muon"),
    "muon_lr": number(0, 1000),
    "momentum": number(0, 0.9999),
    "weight_decay": number(0, 1),
    "decay_norms_and_biases": choice(True, False),
    "label_smoothing": number(0, 0.99),
    "norm_bias_lr": number(0, 1000),
    "residual_start": choice("random", "dirac", "zero"),
    "whitening": choice(True, False),
    "horizontal_flip": or_else("auto", number(0, 1)),
    "alternating_flip": choice(True, False),
    "crop_padding": whole(0, 31),
    "cutout": whole(0, 32),
    "cutout_first": choice(True, False),
    "shift_scale_rotate": number(0, 1),
    "rgb_shift": number(0, 1),
    "brightness_contrast": number(0, 1),
    "range_test_iterations": whole(16, 10_000),
    "test_images": or_else(None, whole(1, 10**9)),
    "test_time_flip": choice(True, False),
    "precision": choice("auto", "fp32", "bf16", "fp16"),
    "device": choice(*devices),
    "engine": choice("auto", "device", "samples"),
    "workers": or_else("auto", whole(0, 64)),
    "threads": or_else("auto", whole(1, 1024)),
    "cuda_graph": choice(True, False),
    "compile": choice(True, False),
    "deterministic": choice(True, False),
    "seed": whole(0, 2**32 - 1),
    "run_name": or_else(None, (st.text(min_size=1, max_size=12).filter(is_run_name), is_run_name)),
    "output_dir": text(),
}

numbers = st.integers(-3, 70) | st.integers() | st.floats()
near_misses = [10**400, -(10**400), 0.9999, 0.99991, 65_537, 2**32, 10**9 + 1, "auto", "cpu", "cos", "a/b", ".x", " x", "\0"]
texts = st.text(max_size=6) | st.binary(max_size=3) | st.sampled_from(near_misses)
scalars = st.none() | st.booleans() | numbers | texts | st.builds(object) | st.just(int)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


def uneven_alternation(values: dict[str, Any]) -> bool:
    """Whether a valid alternating flip meets a valid probability that it does not go with."""
    _, allowed = RULES["horizontal_flip"]
    flip = values["horizontal_flip"]
    return values["alternating_flip"] is True and allowed(flip) and flip not in ("auto", 0, 0.5)


@st.composite
def valid_values(draw: st.DrawFn) -> dict[str, Any]:
    """A valid value for every parameter, with one of the two lengths, and an alternating flip only where it may be."""
    values = draw(st.fixed_dictionaries({name: drawn for name, (drawn, _) in RULES.items()}))
    if uneven_alternation(values):
        values["horizontal_flip"] = draw(st.sampled_from(["auto", 0, 0.5]))
    if draw(st.booleans()):
        return {**values, "epochs": draw(st.integers(1, 10_000)), "train_images": None}
    return {**values, "epochs": None, "train_images": draw(st.integers(1, 10**9))}


def same(one: TrainingConfig, other: TrainingConfig) -> bool:
    """Equal, and written in the same way: 1 and 1.0 are not."""
    return one == other and repr(one) == repr(other)


def test_there_is_a_rule_for_every_parameter() -> None:
    assert list(RULES) == FIELDS


# ---- valid configurations ----------------------------------------------------------------------------------------------


@some
@given(values=valid_values())
def test_a_valid_configuration_survives_json(values: dict[str, Any]) -> None:
    config = TrainingConfig.from_dict(values)
    assert config.to_dict() == values
    again = TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert same(again, config)
    assert again.default_run_name("x") == config.default_run_name("x")


@some
@given(values=valid_values())
def test_a_valid_configuration_survives_papermill(values: dict[str, Any]) -> None:
    config = TrainingConfig.from_dict(values)
    cell: dict[str, Any] = {}
    exec(PythonTranslator.codify(config.to_dict()), cell)
    assert same(TrainingConfig.from_dict({name: cell[name] for name in FIELDS}), config)


def parameters_cell() -> str:
    """The notebook's cell of default values."""
    (cell,) = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    return "".join(cell["source"])


PARAMETERS = parameters_cell()
DEFAULTS: dict[str, Any] = {}
exec(PARAMETERS, DEFAULTS)
SHARED = [name for name in FIELDS if name in DEFAULTS]  # the parameters that notebook and configuration have in common


@some
@given(preset=st.sampled_from(list(PRESETS)), values=valid_values(), chosen=st.sets(st.sampled_from(SHARED)))
def test_a_configuration_given_as_notebook_parameters_is_the_one_the_notebook_makes(
    preset: str, values: dict[str, Any], chosen: set[str]
) -> None:
    overrides = {name: values[name] for name in SHARED if name in chosen}
    config = TrainingConfig.preset(preset, **overrides)
    cell: dict[str, Any] = {}
    exec(PARAMETERS, cell)
    exec(PythonTranslator.codify({"preset": preset, **overrides}), cell)  # papermill puts it into a cell below the defaults
    assert same(TrainingConfig.preset(cell["preset"], **{name: cell[name] for name in SHARED}), config)


# ---- everything else ---------------------------------------------------------------------------------------------------


@some
@given(name=st.sampled_from(FIELDS), value=anything, values=valid_values())
@example(name="max_lr", value="0.1", values={"preset_name": "cpu", "epochs": 1})
@example(name="seed", value=True, values={"preset_name": "cpu", "epochs": 1})
@example(name="run_name", value="x" * 201, values={"preset_name": "cpu", "epochs": 1})
@example(name="run_name", value="a\n", values={"preset_name": "cpu", "epochs": 1})
@example(name="device", value="cuda:100", values={"preset_name": "cpu", "epochs": 1})
@example(name="resolutions", value=[[16, 0.5], [32, 0.4]], values={"preset_name": "cpu", "epochs": 1})
@example(name="preset_name", value="auto", values={"preset_name": "cpu", "epochs": 1})
def test_a_value_of_any_kind_is_valid_or_a_valueerror_that_names_it(name: str, value: Any, values: dict[str, Any]) -> None:
    if name in ("epochs", "train_images"):
        values = {**values, "epochs": None, "train_images": None}  # the other length would be one too many
    if name in ("horizontal_flip", "alternating_flip"):
        values = {**values, "horizontal_flip": "auto", "alternating_flip": False}  # each goes with the other's default
    _, allowed = RULES[name]
    build = TrainingConfig.from_dict
    if allowed(value) and not (name in ("epochs", "train_images") and value is None):
        kept = build({**values, name: value}).to_dict()[name]
        assert kept == ([list(step) for step in value] if name == "resolutions" else value)
        return
    with pytest.raises(ValueError, match=f"^(Unknown preset|{name} is|epochs is None and) ") as error:
        build({**values, name: value})
    assert type(error.value) is ValueError


@some
@given(
    preset=st.sampled_from(list(PRESETS)),
    name=st.sampled_from([name for name in FIELDS if name != "preset_name"]),
    value=anything.filter(lambda value: value is not None),  # None keeps the preset's value
)
@example(preset="cpu", name="epochs", value=0)
@example(preset="fast", name="train_images", value=0)
@example(preset="best", name="resolutions", value=32)
def test_an_override_of_any_kind_is_valid_or_a_valueerror_that_names_it(preset: str, name: str, value: Any) -> None:
    _, allowed = RULES[name]
    if allowed(value):
        kept = TrainingConfig.preset(preset, **{name: value}).to_dict()[name]
        assert kept == ([list(step) for step in value] if name == "resolutions" else value)
        return
    with pytest.raises(ValueError, match=f"^{name} is ") as error:
        TrainingConfig.preset(preset, **{name: value})
    assert type(error.value) is ValueError


@some
@given(values=valid_values(), spoiled=st.dictionaries(st.sampled_from(FIELDS), anything, min_size=2, max_size=8))
def test_several_bad_values_are_all_named_in_one_valueerror(values: dict[str, Any], spoiled: dict[str, Any]) -> None:
    bad = {name for name, value in spoiled.items() if not RULES[name][1](value)}
    together = {**values, **spoiled}
    if (together["epochs"] is None) == (together["train_images"] is None):
        bad |= {"epochs", "train_images"}
    if uneven_alternation(together):
        bad |= {"alternating_flip", "horizontal_flip"}
    if not bad:
        assert TrainingConfig.from_dict(together).epochs == together["epochs"]
        return
    with pytest.raises(ValueError, match=r" is |Unknown preset ") as error:
        TrainingConfig.from_dict(together)
    assert type(error.value) is ValueError
    for name in bad:
        assert ("Unknown preset " if name == "preset_name" else f"{name} is ") in str(error.value)


@some
@given(preset=anything)
@example(preset="")
@example(preset="AUTO")
@example(preset=["cpu"])
def test_a_preset_of_any_kind_is_known_or_a_valueerror(preset: Any) -> None:
    if isinstance(preset, str) and preset in ("auto", *PRESETS):
        assert TrainingConfig.preset(preset).preset_name in PRESETS
        return
    with pytest.raises(ValueError, match=r"^Unknown preset ") as error:
        TrainingConfig.preset(preset)
    assert type(error.value) is ValueError


@some
@given(name=st.text(max_size=20).filter(lambda name: name not in FIELDS), value=anything)
@example(name="epoch", value=1)
@example(name="", value=1)
@example(name="name", value="mine")  # also what the preset itself is called in the signature
@example(name="cls", value=1)
@example(name="self", value=1)
@example(name="batchsize", value=None)  # None keeps a value, but there is none to keep
def test_an_unknown_parameter_is_a_valueerror_that_names_it(name: str, value: Any) -> None:
    for build in (
        lambda: TrainingConfig.preset("cpu", **{name: value}),
        lambda: TrainingConfig.from_dict({"preset_name": "cpu", "epochs": 1, name: value}),
    ):
        with pytest.raises(ValueError, match=r"^Unknown parameter ") as error:
            build()
        assert type(error.value) is ValueError
        assert str(error.value).startswith(f"Unknown parameter {name!r}: ")


@some
@given(names=st.lists(st.integers() | st.none() | st.tuples(st.text(max_size=3)) | st.booleans(), min_size=1, unique=True))
def test_a_key_that_is_no_text_is_a_valueerror_that_names_it(names: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"^Unknown parameter ") as error:
        TrainingConfig.from_dict({"preset_name": "cpu", "epochs": 1, **dict.fromkeys(names)})
    assert all(f"Unknown parameter {name!r}: " in str(error.value) for name in names)
