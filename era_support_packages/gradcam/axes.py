"""What each axis of a tensor stands for, and what becomes of that when tensors are reshaped, combined, joined or cut.

A shape alone does not tell: (2, 7, 7, 768) may be images, height, width, channels, and (2, 16, 49, 512) images, windows, places,
channels. `axis_tracker` follows the axes of the images through a network by these rules.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

IMAGE, CHANNEL, ROW, COLUMN = "image", "channel", "row", "column"


class Tokens(NamedTuple):
    """An axis of places with further tokens before and behind them, such as a class token."""

    before: int
    places: "Axis"
    after: int


class Part(NamedTuple):
    """A digit of an index: an axis is made of one or more, the slowest first, as reshaping splits and joins them."""

    kind: str | Tokens
    whole: int
    """how many there are of this kind"""
    stride: int
    """by how many of these the digit counts"""
    size: int

    @property
    def complete(self) -> bool:
        """Whether it is the whole index."""
        return self.stride == 1 and self.size == self.whole


Axis = tuple[Part, ...]
"""empty for an axis of size 1 that stands for nothing"""
Axes = tuple[Axis, ...]
OTHER: Axes = ()
"""of a tensor whose axes are known to be something else than images, channels and places"""


def whole(kind: str | Tokens, size: int) -> Axis:
    """An axis that stands for all of one kind."""
    return (Part(kind, size, 1, size),)


def image_axes(shape: Sequence[int]) -> Axes:
    """The axes of a tensor (N, channels, height, width)."""
    return tuple(whole(kind, size) for kind, size in zip((IMAGE, CHANNEL, ROW, COLUMN), shape, strict=True))


def reshaped(axes: Axes, shape: Sequence[int]) -> Axes:
    """The axes after the same numbers are read in another shape, `OTHER` where that mixes what cannot be split."""
    parts = [part for axis in axes for part in axis if part.size > 1]
    result: list[Axis] = []
    for size in shape:
        taken: list[Part] = []
        while prod(part.size for part in taken) < size:
            if not parts:
                return OTHER
            missing = size // prod(part.size for part in taken)
            part = parts.pop(0)
            if part.size > missing:
                if part.size % missing or isinstance(part.kind, Tokens):
                    return OTHER
                inner = part.size // missing
                parts.insert(0, part._replace(size=inner))
                part = part._replace(stride=part.stride * inner, size=missing)
            taken.append(part)
        if prod(part.size for part in taken) != size:
            return OTHER
        result.append(_merged(taken))
    return tuple(result)


def broadcast(inputs: Iterable[tuple[Axes | None, tuple[int, ...]]], shape: tuple[int, ...]) -> Axes | None:
    """The axes of what is computed from several tensors, place by place; a part that is not known follows the known ones."""
    inputs = list(inputs)
    known = [(axes, own) for axes, own in inputs if axes and len(axes) == len(own)]
    if not known:
        return OTHER if any(axes == OTHER for axes, _ in inputs) else None
    result: list[Axis] = []
    for position in range(-len(shape), 0):
        size = shape[position]
        found = {axes[position] for axes, own in known if len(own) >= -position and own[position] == size} - {()}
        meaning = {axis for axis in found if not is_channels(axis)}
        if len(meaning) > 1:
            return OTHER
        result.append(meaning.pop() if meaning else () if size == 1 and not found else whole(CHANNEL, size))
    return tuple(result)


def joined(inputs: list[tuple[Axes | None, tuple[int, ...]]], dim: int, shape: tuple[int, ...], new: bool = False) -> Axes | None:
    """The axes behind `torch.cat`, or behind `torch.stack` where the axis is new."""
    dim %= len(shape)
    if new:
        inputs = [((*a[:dim], (), *a[dim:]) if a else a, (*own[:dim], 1, *own[dim:])) for a, own in inputs]
    sizes = [own[dim] if len(own) == len(shape) else 0 for _, own in inputs]
    others = [((*a[:dim], (), *a[dim + 1 :]) if a else a, (*own[:dim], 1, *own[dim + 1 :])) for a, own in inputs]
    rest = broadcast(others, (*shape[:dim], 1, *shape[dim + 1 :]))
    if not rest:
        return rest
    along = [axes[dim] if axes else () for axes, _ in inputs]
    places = [k for k, axis in enumerate(along) if axis and not is_channels(axis)]
    axis = whole(CHANNEL, shape[dim])
    if places:
        k = places[0]
        before, inner, after = _tokens(along[k])
        if any(part.kind == IMAGE for part in inner):
            return None
        if len(places) > 1 or new:
            return OTHER
        axis = whole(Tokens(before + sum(sizes[:k]), inner, after + sum(sizes[k + 1 :])), shape[dim])
    return (*rest[:dim], axis, *rest[dim + 1 :])


def sliced(axis: Axis, size: int, start: int, end: int, step: int, left: int) -> Axis | None:
    """An axis of which `left` entries from `start` to `end` are kept; None where they stand for nothing that we know."""
    if left == size:
        return axis
    if is_channels(axis):
        return whole(CHANNEL, left)
    if is_places(axis):
        # All of the image but one place at most, or each step-th place of all of it: else a map would be stretched over the rest.
        last = start + (left - 1) * step
        spans = left > 0 and start + (size - 1 - last) <= 1 if step == 1 else 0 <= start < step and size - 1 - last < step
        return whole(axis[0].kind, left) if spans else None
    if len(axis) != 1 or not isinstance(axis[0].kind, Tokens) or step != 1:
        return None
    before, places, after = axis[0].kind
    if end <= before or start >= size - after:
        return whole(CHANNEL, left)
    if start > before or end < size - after:
        return None
    kind = Tokens(before - start, places, after - (size - end))
    return whole(kind, left) if kind.before or kind.after else places


def padded(axis: Axis, size: int, before: int, after: int) -> Axis | None:
    """An axis with places added, or taken away, at its ends; None where it no longer stands for what it did."""
    if not before and not after:
        return axis
    if is_channels(axis):
        return whole(CHANNEL, size + before + after)
    # As in front of a convolution of up to 7 places: more, or on one side, moves the image within its map.
    fits = min(before, after) >= -1 and max(before, after) <= 3 and abs(before - after) <= 1
    return whole(axis[0].kind, size + before + after) if is_places(axis) and fits else None


def coarsened(axes: Axes) -> Axes:
    """Rows or columns of which only the slower digits are left count larger places, as behind a merging of 2 x 2 patches."""
    for kind in (ROW, COLUMN):
        left = sorted((part for axis in axes for part in axis if part.kind == kind), key=lambda part: -part.stride)
        if not left or left[-1].stride == 1:
            continue
        finest, above = left[-1].stride, [left[0].whole, *(part.stride for part in left)]
        if all(part.stride * part.size == step for part, step in zip(left, above, strict=False)):
            coarse = {part: Part(kind, part.whole // finest, part.stride // finest, part.size) for part in left}
            axes = tuple(tuple(coarse.get(part, part) for part in axis) for axis in axes)
    return axes


def is_places(axis: Axis) -> bool:
    """Whether an axis stands for all rows, or all columns."""
    return len(axis) == 1 and axis[0].complete and axis[0].kind in (ROW, COLUMN)


def is_channels(axis: Axis) -> bool:
    """Whether an axis stands for channels alone."""
    return all(part.kind == CHANNEL for part in axis)


def has(axes: Axes, kind: str) -> bool:
    """Whether any axis, or a part of one, stands for this kind, also within tokens."""
    return any(part.kind == kind for axis in axes for part in _tokens(axis).places)


def _tokens(axis: Axis) -> Tokens:
    return axis[0].kind if len(axis) == 1 and isinstance(axis[0].kind, Tokens) else Tokens(0, axis, 0)


def _merged(parts: list[Part]) -> Axis:
    """Neighbouring digits of one number are one digit again."""
    result: list[Part] = []
    for part in parts:
        last = result[-1] if result else None
        if last and last.kind == part.kind and part.kind == CHANNEL:
            result[-1] = whole(CHANNEL, last.size * part.size)[0]
        elif last and last.kind == part.kind and last.whole == part.whole and last.stride == part.stride * part.size:
            result[-1] = part._replace(size=last.size * part.size)
        else:
            result.append(whole(CHANNEL, part.size)[0] if part.kind == CHANNEL else part)
    return tuple(result)


def is_grid(axes: Axes) -> bool:
    """Whether axes are images, channels, height, width; those of size 1 may stand for nothing."""
    if len(axes) != 4 or not is_channels(axes[1]):
        return False
    ends = zip((axes[0], axes[2], axes[3]), (IMAGE, ROW, COLUMN), strict=True)
    return all(not axis or (len(axis) == 1 and axis[0].kind == kind and axis[0].complete) for axis, kind in ends)
