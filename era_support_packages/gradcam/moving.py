"""How far apart the cells of a grid lie in the image behind single operations of PyTorch."""

from collections.abc import Sequence
from typing import Any

from era_support_packages.gradcam.axes import COLUMN, ROW, Axes
from era_support_packages.gradcam.cells import Cells, Line

_PADDING = {"constant_pad_nd", "reflection_pad2d", "replication_pad2d"}


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
        cells = cells.resized(before[2:])
        return cells.resized(after[2:]) if given.get("transposed") else cells.strided(_pair(given["stride"]), after[2:])
    if "pool2d" in name and "kernel_size" in given:
        return cells.resized(before[2:]).strided(_pair(given.get("stride") or given["kernel_size"]), after[2:])
    if "pool2d" in name or "upsample" in name or "shuffle" in name:
        return cells.resized(before[2:]).resized(after[2:])
    return cells


def _pair(value: Any) -> tuple[int, int]:
    """One number, one in a list, or two."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])
