"""What a sweep varies, as it is typed: a list of values, or for a search a range. Read and checked before PyTorch is imported."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from era_support_packages.system.command_values import read_value
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.settings import fields, is_number, is_text_field, problem, takes
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.presets import PRESETS

_FIELDS = fields(TrainingConfig)
_OF_THE_MACHINE = "it decides nothing about the result, so that there is nothing to choose: give --{} for all trials."
_NOT_VARIED = {
    "seed": "it is no value to choose: give --seeds 0,1,2, and each combination is trained with each of them.",
    "validation": "accuracies on different images cannot be compared: give --validation 0.1 for all trials.",
    "final_test": "no trial looks at the test split; the chosen values are trained again and tested.",
    "dataset": "accuracies on different data cannot be compared: give --dataset for all trials.",
    "skip_broken": "accuracies on different data cannot be compared: give --skip-broken true for all trials.",
    "image_size": "all trials learn from images of one size: give --image-size, and vary resolutions.",
    "fit": "all trials learn from images made square in one way: give --fit.",
    "run_name": "a trial's name is made from its values, by which it is found again.",
    "output_dir": "all trials lie in one folder: give --output-dir.",
    **{
        name: _OF_THE_MACHINE.format(name.replace("_", "-"))
        for name in ("device", "stream", "workers", "threads", "cuda_graph", "tracker")
    },
}
PRESET = "preset"
NAMES = (PRESET, *(name for name in _FIELDS if name not in _NOT_VARIED))


class SweepError(PlainError, ValueError):
    """A sweep that cannot be made as asked; the message says why and what to do."""


class SpaceError(SweepError):
    """What stands behind -p cannot be used: the message names parameters as they are typed there."""

    place = "-p"


@dataclass(frozen=True)
class Choice:
    """Values to choose from, each once, in the order they were given."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them: what is to be checked before anything runs."""
        return self.values


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones, or any; with `log` each order of magnitude is as likely."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """Both ends: where these are allowed, so is what lies between."""
        return (self.low, self.high)


Space = dict[str, Choice | Range]


def read_space(pairs: Iterable[Sequence[str]], search: bool) -> Space:
    """What is varied, by name, from names and texts: "0.05,0.1", a JSON list, and for a search also "0.01..1" and "0.01..1:log".

    Raises `SpaceError` with one sentence for each unknown name, each that cannot be varied or is given twice, each empty list,
    each value that its field does not take, and each range that is none or is given without a search.
    """
    space: Space = {}
    problems: list[str] = []
    for typed, text in pairs:
        name = typed.replace("-", "_")
        if name in space:
            problems.append(f"{name} is given twice: give all its values at once.")
        elif name in _NOT_VARIED:
            problems.append(f"{name} cannot be varied: {_NOT_VARIED[name]}")
        elif name not in NAMES:
            problems.append(f"Unknown parameter {typed!r}: {nearest_names(name, NAMES)}")
        else:
            try:
                space[name] = _read(name, text, search)
            except SweepError as error:
                problems.append(str(error))
    if problems:
        raise SpaceError(" ".join(dict.fromkeys(problems)))
    return space


def read_seeds(text: str) -> tuple[int, ...]:
    """Seeds, as a list is typed, each once. Raises `SweepError` as `read_space` does."""
    return _read_list("seed", text, "--seeds").values


def _read(name: str, text: str, search: bool) -> Choice | Range:
    if _is_range(name, text):
        if not search:
            raise SweepError(
                f"{name} {text} is a range, from which only a search draws: give --search N, or a list of values such as 0.1,0.2."
            )
        return _read_range(name, text)
    return _read_list(name, text)


def _read_list(name: str, text: str, typed: str | None = None) -> Choice:
    """typed: what the list is given by, where that is not `name`."""
    values = _values(name, text, typed or name)
    if not values:
        raise SweepError(f"{typed or name} has no value: give one or more, such as {typed or name} 1,2.")
    found: list[Any] = []
    for value in values:
        if (sentence := _problem(name, value)) is not None:
            if typed:
                sentence = sentence.replace(f"{name} is", f"{typed} has", 1)
            if isinstance(value, tuple):
                sentence = sentence.replace(repr(value), json.dumps(value), 1)
            alone = name == "resolutions" and _problem(name, _nested(values)) is None
            raise SweepError(f"{sentence} The JSON is a list of values: write a single one as [{text}]." if alone else sentence)
        if not any(_same(value, other) for other in found):
            found.append(value)
    return Choice(tuple(found))


def _values(name: str, text: str, typed: str) -> list[Any]:
    """The values in a text, not checked: a JSON list where it begins like one, else what stands between the commas."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SweepError(f"{typed} {text} is no JSON list ({error}): give one such as [1, 2], or 1,2.") from None
        return [_nested(value) if isinstance(value, list) else value for value in values]
    parts = [part.strip() for part in text.split(",")]
    if parts == [""]:
        return []
    if "" in parts:
        raise SweepError(f"{typed} {text} has a comma without a value: give values such as 1,2.")
    as_text = name == PRESET or is_text_field(_FIELDS[name])
    return [part if as_text and part != "None" else read_value(part) for part in parts]


def _nested(values: list[Any]) -> tuple[Any, ...]:
    """The value of a list of lists, as the configuration has it."""
    return tuple(map(_as_tuple, values))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    """Whether two values are one: 1 and 1.0 are, 1 and True are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _problem(name: str, value: Any) -> str | None:
    """The sentence for a value that cannot be used; None keeps the preset's, as everywhere."""
    if name == PRESET:
        known = isinstance(value, str) and value in ("auto", *PRESETS)
        return None if known else f"Unknown preset {value!r}: {nearest_names(value, ['auto', *PRESETS])}"
    return None if value is None and name != "seed" else problem(_FIELDS[name], value)


# ---- ranges ----------------------------------------------------------------------------------------------------------


def _is_range(name: str, text: str) -> bool:
    """Whether it is written as a range: not where the parameter takes text, in which dots may stand."""
    return name != PRESET and not is_text_field(_FIELDS[name]) and re.match(r"[^\[,]*\.\.", text.strip()) is not None


def _read_range(name: str, text: str) -> Range:
    field, shown = _FIELDS[name], f"{name} {text}"
    ends, _, kind = text.strip().partition(":")
    low, _, high = ends.partition("..")
    whole = takes(field, int) and not takes(field, float)
    if not takes(field, int) and not takes(field, float):
        raise SweepError(f"{shown} is a range, but {name} takes no number: give a list of values.")
    if kind not in ("", "log"):
        raise SweepError(f"{shown} ends in {':' + kind!r}: give LOW..HIGH, or LOW..HIGH:log for a logarithmic scale.")
    values = [read_value(end) for end in (low, high)]
    for value in values:
        if not is_number(value, whole=False):
            raise SweepError(f"{shown} is no range: give two numbers, such as 0.01..1.")
        if (sentence := problem(field, value)) is not None:
            raise SweepError(sentence)
    if values[0] >= values[1]:
        raise SweepError(f"{shown} begins above its end: give the lower number first.")
    if kind == "log" and values[0] <= 0:
        raise SweepError(f"{shown} has a logarithmic scale, which has no zero: begin above 0.")
    return Range(values[0], values[1], kind == "log", whole)
