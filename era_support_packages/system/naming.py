"""What was perhaps meant by a name that is not there."""

import difflib
from collections.abc import Iterable


def nearest_names(name: object, valid: Iterable[str]) -> str:
    """The valid names nearest to a mistyped one, as text for an error message; all of them where none is near."""
    valid = list(valid)
    near = difflib.get_close_matches(str(name), valid, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"choose one of {', '.join(map(repr, valid))}."
