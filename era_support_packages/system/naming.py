"""Names: what was perhaps meant by one that is not there, and which can be those of classes."""

import difflib
from collections.abc import Iterable, Set

_MOST_LISTED = 50  # a palette has more names than anybody reads


def nearest(name: object, valid: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """Up to three valid names, the nearest to a mistyped one first; upper and lower case are alike.

    cutoff: from 0 (whatever is nearest) to 1 (the same letters), as in `difflib.get_close_matches`.
    """
    lowered = {other.lower(): other for other in valid}
    return [lowered[near] for near in difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=cutoff)]


def nearest_names(name: object, valid: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "did you mean 'best'?", or the names to choose from where none is near."""
    valid = list(valid)
    if near := nearest(name, valid):
        return f"did you mean {' or '.join(map(repr, near))}?"
    if len(valid) > _MOST_LISTED:
        return f"the nearest are {', '.join(map(repr, nearest(name, valid, cutoff=0)))}."
    return f"choose one of {', '.join(map(repr, valid))}."


def class_names_problem(classes: object) -> str:
    """Why these are no names of classes: "" where they are. The names of a set have no order, those of a text are letters."""
    if not isinstance(classes, Iterable) or isinstance(classes, str | bytes | Set):
        return f"classes are {classes!r}; give the names as a list, in the order of the logits."
    names = tuple(classes)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        return f"classes are {names}; give each class its name as text."
    return f"classes are {names}; give each class a name of its own." if len(set(names)) != len(names) else ""
