"""Files of a folder that are the same, byte for byte, where that spoils what is learned or measured."""

from collections.abc import Sequence

import numpy as np


def copy_warnings(names: Sequence[str], labels: np.ndarray, sha256: Sequence[bytes], test: np.ndarray | slice) -> list[str]:
    """A sentence on test images that are also trained on, and one on pictures that lie in two classes; none where all differ.

    names: of the N files in the data set. labels: int64 (N,). sha256: of their bytes. test: which are of the test split.

    >>> copy_warnings(["train/cat/1.png", "test/cat/1.png"], np.array([0, 0]), [b"same", b"same"], slice(1, None))[0][:45]
    'Warning: 1 of 1 test images is, byte for byte'
    """
    if len(set(sha256)) == len(sha256):
        return []
    tested = np.zeros(len(names), dtype=bool)
    tested[test] = True
    trained: dict[bytes, int] = {}
    first: dict[bytes, int] = {}
    in_two: dict[bytes, tuple[int, int]] = {}
    for place, content in enumerate(sha256):
        if not tested[place]:
            trained.setdefault(content, place)
        if labels[first.setdefault(content, place)] != labels[place]:
            in_two.setdefault(content, (first[content], place))
    said = []
    tested_too = [(place, trained[content]) for place, content in enumerate(sha256) if tested[place] and content in trained]
    if count := len(tested_too):
        said.append(
            f"Warning: {count:,} of {int(tested.sum()):,} test images {'is' if count == 1 else 'are'}, byte for byte, also "
            f"trained on ({_pair(names, tested_too)}), so that the test accuracy says too much: keep each in one split only."
        )
    if count := len(in_two):
        said.append(
            f"Warning: {count:,} picture{' lies' if count == 1 else 's lie'}, byte for byte, in more than one class "
            f"({_pair(names, [*in_two.values()])}), so that a label is wrong: keep each in its own class only."
        )
    return said


def _pair(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> str:
    """The first of the pairs by their names."""
    one, other = pairs[0]
    return f"{names[one]} is {names[other]}{', ...' * (len(pairs) > 1)}"
