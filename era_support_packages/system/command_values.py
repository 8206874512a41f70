"""What all command lines share: how the text of a value is read, and one sentence for what cannot be read."""

import argparse
import ast
import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from era_support_packages.system.naming import nearest_names

_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)[eE][+-]?\d+|-inf(inity)?|-\d+\.", re.IGNORECASE)
_PYTHON_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?|\.\d)[\d_]*([eE][+-]?\d+)?")  # .01, 1. and 1_000, which JSON has not
_CONSTANTS = {"None": None, "True": True, "False": False}


def read_value(text: str) -> Any:
    """A value written as in Python or as JSON, else the text itself: "0.1" is a number, "cpu" and "007" are text."""
    text = text.strip()
    with contextlib.suppress(ValueError, RecursionError):  # also thousands of digits or brackets
        return _CONSTANTS[text] if text in _CONSTANTS else json.loads(text)
    if text[:1] in ("[", "(", "{") or _PYTHON_NUMBER.fullmatch(text):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(text)
    return text


def shield_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """The same arguments with a space before those like -1e-3, which argparse takes for options; it knows -3 and -0.5."""
    return [f" {text}" if _NEGATIVE.fullmatch(text) else text for text in arguments]


class CommandLineError(ValueError):
    """What stands on a command line cannot be read; the message says what, and what was perhaps meant."""


class CommandParser(argparse.ArgumentParser):
    """argparse with one sentence for a mistake, where it would print all options first and then exit."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def read(self, arguments: Sequence[str]) -> dict[str, Any]:
        """The values by name. Raises `CommandLineError` for an unknown option, and for one whose value is missing."""
        found, rest = self.parse_known_args(shield_negative_numbers(arguments))
        options = [name for action in self._actions for name in action.option_strings]
        unknown = list(dict.fromkeys(text.split("=")[0] for text in rest if text.startswith("-")))
        if unknown:
            raise CommandLineError(" ".join(f"Unknown option {name!r}: {nearest_names(name, options)}" for name in unknown))
        if rest:
            raise CommandLineError(f"{rest[0]!r} belongs to no option; --help lists them.")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        """Raise `CommandLineError` instead of printing the usage."""
        raise CommandLineError(f"{message[:1].upper()}{message[1:]}; --help lists what there is.")
