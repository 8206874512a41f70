"""How far apart the cells of a grid lie in the image behind single operations of PyTorch."""

from collections.abc import Sequence
from typing import Any

from era_support_packages.gradcam.axes import COLUMN, ROW, Axes, has
from era_support_packages.gradcam.cells import Cells, Line

_PADDING = {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}


def together(name: str, several: Sequence[tuple[Axes, Cells]]) -> Cells | None:
    """The cells of what an operation computes from several tensors, of which the axes and the cells are known; None of none.

    The finest of those that have places: a feature pyramid adds enlarged cells to its own, and what is one number for the whole
    image lies nowhere. An attention gives the places of its queries, a matrix product those of its left factor before others.
    """
    if len(several) < 2:
        return several[0][1] if several else None
    if name in _PRODUCTS:
        (first, left), (second, right) = several[-2:]
        several = [(first[:-1], left), (second[-1:], right)]
    ordered = name in _PRODUCTS or "attention" in name

    def chosen(kind: str, lines: Sequence[Line]) -> Line:
        spread = [line for (axes, _), line in zip(several, lines, strict=True) if has(axes, kind)] or lines
        return spread[0] if ordered else min(spread, key=Line.fineness)

    return Cells(chosen(ROW, [cells.rows for _, cells in several]), chosen(COLUMN, [cells.columns for _, cells in several]))


def behind(
    name: str, cells: Cells, axes: Axes | None, before: Sequence[int], given: dict[str, Any], after: Sequence[int]
) -> Cells:
    """The cells behind an operation, from those of its first tensor, what that one's axes stand for, both shapes, and arguments.

    What changes their number in no way that is known makes larger or smaller ones over the same part of the image.
    """
    if (name == "slice" or name in _PADDING) and axes and len(after) == len(axes):
        stride = given.get("step") or 1
        for axis, old, new in zip(axes, before, after, strict=True):
            if old != new and len(axis) == 1 and axis[0].complete and axis[0].kind in (ROW, COLUMN):
                side = "rows" if axis[0].kind == ROW else "columns"
                line: Line = getattr(cells, side).resized(old)
                cells = cells._replace(**{side: line.strided(stride, new)})
        return cells
    if len(before) != 4 or len(after) != 4:
        return cells
    if "convolution" in name or name == "conv2d":
        strides: Sequence[float] = _pair(given.get("stride") or 1)
        if given.get("transposed"):
            strides = [1 / stride for stride in strides]
        return cells.resized(before[2:]).strided(strides, after[2:])
    if "pool2d" in name and "output_size" not in given:
        return cells.resized(before[2:]).strided(_pair(given.get("stride") or given["kernel_size"]), after[2:])
    if "pool2d" in name or "upsample" in name or "shuffle" in name:
        return cells.resized(before[2:]).resized(after[2:])
    return cells


def _pair(value: Any) -> tuple[int, int]:
    """One number, one in a list, or two."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])
