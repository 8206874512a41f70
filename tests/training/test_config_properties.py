"""Properties of the configuration: a valid one survives JSON and papermill, anything else is a ValueError and nothing else."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from papermill.translators import PythonTranslator

from era_support_packages.system.settings import choices, fields, is_text, optional, setting_of, takes
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.config_checks import is_folder_name
from era_support_packages.training.presets import PRESETS

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "gradcam_cifar10.ipynb"
FIELDS = list(TrainingConfig("smoke", epochs=1).to_dict())
some = settings(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])

# ---- valid values ------------------------------------------------------------------------------------------------------


def drawn(field: dataclasses.Field[Any]) -> st.SearchStrategy:
    """Values that a field takes, drawn from what stands beside it."""
    beside, words = setting_of(field), st.sampled_from(choices(field)) if choices(field) else st.nothing()
    if takes(field, bool):
        return st.booleans()
    if not (takes(field, int) or takes(field, float)):
        return words
    low, high = beside.low if beside.above is None else beside.above, beside.high
    numbers = st.integers(math.ceil(low) + (beside.above is not None), math.floor(high))
    if takes(field, float):
        numbers |= st.floats(low, high, exclude_min=beside.above is not None)
    return words | numbers | (st.none() if optional(field) else st.nothing())


def as_plan(steps: list[tuple[int, int]]) -> list[list[float]]:
    """(pixels, weight) as (pixels, share)."""
    return [[pixels, weight / sum(weight for _, weight in steps)] for pixels, weight in steps]


texts = st.text(min_size=1, max_size=12).filter(is_text)
VALUES = {name: drawn(field) for name, field in fields(TrainingConfig).items()} | {
    "preset_name": st.sampled_from(list(PRESETS)),
    "dataset": texts,
    "output_dir": texts,
    "run_name": st.none() | texts.filter(is_folder_name),
    "device": st.sampled_from(["auto", "cpu", "mps", "cuda", *(f"cuda:{index}" for index in range(100))]),
    "resolutions": st.lists(st.tuples(st.integers(8, 32), st.integers(1, 50)), min_size=1, max_size=5).map(as_plan),
}


@st.composite
def valid_values(draw: st.DrawFn) -> dict[str, Any]:
    """A valid value for every parameter, with one of the two lengths, and an alternating flip only where it may be."""
    values = draw(st.fixed_dictionaries({name: VALUES[name] for name in FIELDS}))
    if values["alternating_flip"]:
        values["horizontal_flip"] = draw(st.sampled_from(["auto", 0, 0.5]))
    if draw(st.booleans()):
        return {**values, "epochs": draw(st.integers(1, 10_000)), "train_images": None}
    return {**values, "epochs": None, "train_images": draw(st.integers(1, 10**9))}


def same(one: TrainingConfig, other: TrainingConfig) -> bool:
    """Equal, and written in the same way: 1 and 1.0 are not."""
    return one == other and repr(one) == repr(other)


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

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=3)
    | st.builds(object)
    | st.sampled_from([10**400, -(10**400), 0.99991, 65_537, 2**32, 10**9 + 1, -0.0, "auto", "cpu", "cos", "a/b", ".x", "\0"])
)
anything = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@some
@given(values=valid_values(), spoiled=st.dictionaries(st.sampled_from(FIELDS), anything, min_size=1, max_size=8))
@example(values={"preset_name": "cpu", "epochs": 1}, spoiled={"model": [], "precision": {}, "anneal": [[]]})
@example(values={"preset_name": "cpu", "epochs": 1}, spoiled={"run_name": b"x", "device": ["cpu"], "preset_name": {}})
@example(values={"preset_name": "cpu", "epochs": 1}, spoiled={"resolutions": [(16, 10**400)]})
def test_values_of_any_kind_make_a_configuration_or_a_valueerror_that_names_one(
    values: dict[str, Any], spoiled: dict[str, Any]
) -> None:
    together = {**values, **spoiled}
    said = ""
    try:
        config = TrainingConfig.from_dict(together)
    except ValueError as error:
        said = str(error)
    if said:
        named = [name for name in (*spoiled, "epochs", "alternating_flip") if f"{name} is " in said]
        assert named or said.startswith("Unknown preset ")
        return
    assert same(TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))), config)
    assert config.default_run_name("x").startswith(config.preset_name + "-x-")
    assert config.planned_epochs(1000)


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
