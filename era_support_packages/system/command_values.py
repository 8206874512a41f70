"""What both command lines share: how the text of a value is read."""

import ast
import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)[eE][+-]?\d+|-inf(inity)?|-\d+\.", re.IGNORECASE)
_CONSTANTS = {"None": None, "True": True, "False": False}


def read_value(text: str) -> Any:
    """A value written as in Python or as JSON, else the text itself: "0.1" is a number, "cpu" and "007" are text."""
    text = text.strip()
    with contextlib.suppress(ValueError, RecursionError):  # also thousands of digits or brackets
        return _CONSTANTS[text] if text in _CONSTANTS else json.loads(text)
    if text[:1] in ("[", "(", "{"):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(text)
    return text


def shield_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """The same arguments with a space before those like -1e-3, which argparse takes for options; it knows -3 and -0.5."""
    return [f" {text}" if _NEGATIVE.fullmatch(text) else text for text in arguments]
