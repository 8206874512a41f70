"""Fields of a dataclass that say beside themselves what they are for and what they take.

The type of a field and the numbers beside it are its only description: the check of a value, the sentence for a bad one and the
help of a command line are all made from them.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin

from era_support_packages.system.naming import nearest_names

_KEY = "setting"


@dataclass(frozen=True)
class Setting:
    """What stands beside a field.

    help: what it is for, in a few words. low, high: the range of a number; `above` instead of `low` where the end is left out.
    wanted: what to give, where neither type nor range say it; test: whether a text or another value is one, beside its type.
    auto: what "auto" means, where it is allowed. group: the heading that begins with this field.
    """

    help: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    wanted: str = ""
    test: Callable[[Any], bool] | None = None
    auto: str = ""
    group: str = ""


def setting(default: Any, text: str, **beside: Any) -> Any:
    """A field with that default and help; `beside` are the other values of `Setting`."""
    return dataclasses.field(default=default, metadata={_KEY: Setting(text, **beside)})


def narrowed(field: "dataclasses.Field[Any]", default: Any = dataclasses.MISSING, **changes: Any) -> Any:
    """The same field in a class that leaves less open: of a narrower type, and where no default is said it must be given."""
    return dataclasses.field(default=default, kw_only=True, metadata={_KEY: dataclasses.replace(setting_of(field), **changes)})


def setting_of(field: "dataclasses.Field[Any]") -> Setting:
    """What stands beside a field made by `setting`."""
    return field.metadata[_KEY]


def fields(kind: type) -> Mapping[str, "dataclasses.Field[Any]"]:
    """The fields of a dataclass that were made by `setting`, by name."""
    return MappingProxyType({field.name: field for field in dataclasses.fields(kind) if _KEY in field.metadata})


# ---- what a field takes ----------------------------------------------------------------------------------------------


def _kinds(field: "dataclasses.Field[Any]") -> tuple[Any, ...]:
    """The alternatives of a field's type: `int | None` is two."""
    kind: Any = field.type
    return get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)


def choices(field: "dataclasses.Field[Any]") -> tuple[str, ...]:
    """The words that a field takes: those of a `Literal` in its type."""
    return tuple(word for kind in _kinds(field) if get_origin(kind) is Literal for word in get_args(kind))


def takes(field: "dataclasses.Field[Any]", kind: type) -> bool:
    """Whether `kind` (int, float, bool or str) is among the alternatives of the field's type."""
    return kind in _kinds(field)


def is_text_field(field: "dataclasses.Field[Any]") -> bool:
    """Whether it takes text alone: what is typed for it is no number, though it may look like one."""
    return (takes(field, str) or choices(field) != ()) and not any(takes(field, kind) for kind in (int, float, bool))


def optional(field: "dataclasses.Field[Any]") -> bool:
    """Whether it may be None."""
    return NoneType in _kinds(field)


def is_allowed(field: "dataclasses.Field[Any]", value: object) -> bool:
    """Whether a field takes a value."""
    beside = setting_of(field)
    if value is None:
        return optional(field)
    if isinstance(value, str) and value in choices(field):
        return True
    if isinstance(value, bool):
        return takes(field, bool)
    if beside.test is not None:
        return beside.test(value)
    if isinstance(value, str):
        return takes(field, str) and is_text(value)
    return (
        is_number(value, whole=not takes(field, float))
        and (takes(field, float) or takes(field, int))
        and _in_range(beside, value)
    )


def is_number(value: object, whole: bool) -> TypeGuard[float]:
    """Whether it is a finite number, a whole one where asked for; True and False are none."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (not whole and isinstance(value, float) and math.isfinite(value))


def is_text(value: object) -> bool:
    """Whether it is a text that holds something and may be part of a path."""
    return isinstance(value, str) and value.strip() != "" and "\0" not in value


def _in_range(beside: Setting, value: Any) -> bool:
    return (
        (beside.low is None or value >= beside.low)
        and (beside.above is None or value > beside.above)
        and (beside.high is None or value <= beside.high)
    )


# ---- in words --------------------------------------------------------------------------------------------------------


def range_text(field: "dataclasses.Field[Any]") -> str:
    """The range of a number: "0 to 1", "above 0 and up to 100"; "" where there is none."""
    beside = setting_of(field)
    if beside.high is None:
        return ""
    return f"{beside.low} to {beside.high}" if beside.above is None else f"above {beside.above} and up to {beside.high}"


def problem(field: "dataclasses.Field[Any]", value: object) -> str | None:
    """The sentence for a value that the field does not take, with what to give instead; None for one that it takes."""
    if is_allowed(field, value):
        return None
    beside, words = setting_of(field), choices(field)
    if beside.wanted:
        wanted = beside.wanted
    elif takes(field, bool):
        wanted = "True or False"
    elif takes(field, int) or takes(field, float):
        noun = "a number" if takes(field, float) else "a whole number"
        wanted = f"{noun} {'' if beside.above is not None else 'from '}{range_text(field)}"
    elif takes(field, str):
        wanted = "it as text"
    else:
        return f"{field.name} is {value!r}: {nearest_names(value, words)}"
    others = "".join(f", or {word!r}{beside.auto and ' for ' + beside.auto}" for word in words)
    return f"{field.name} is {value!r}; give {wanted}{others}."


def problems(owner: Any) -> Iterator[str]:
    """The sentence for each value of a dataclass that its field does not take, in the order of the fields."""
    for field in fields(type(owner)).values():
        if (sentence := problem(field, getattr(owner, field.name))) is not None:
            yield sentence


def comment(field: "dataclasses.Field[Any]") -> str:
    """What the field is for; the words to choose from are added where they are all it takes and the help names none of them."""
    text, words = setting_of(field).help, choices(field) if is_text_field(field) else ()
    return text if not words or any(word in text for word in words) else f"{text}: {', '.join(words)}"


def option_help(field: "dataclasses.Field[Any]") -> str:
    """The comment with range and default, for a command line."""
    also = [word for word in choices(field) if not is_text_field(field)]
    limits = " or ".join(text for text in (range_text(field), *also) if text)
    default = "" if field.default in (None, dataclasses.MISSING) else f"default {_as_typed(field.default)}"
    beside = "; ".join(text for text in (limits, default) if text)
    return comment(field) + (f" ({beside})" if beside else "")


def _as_typed(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | tuple) else f"{value:g}" if isinstance(value, float) else str(value)
