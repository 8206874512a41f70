"""The axes of the images, followed through everything that a network does with them, operation by operation."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from era_support_packages.gradcam.axes import (
    CHANNEL,
    IMAGE,
    OTHER,
    Axes,
    Axis,
    broadcast,
    coarsened,
    image_axes,
    is_channels,
    is_grid,
    is_places,
    joined,
    padded,
    reshaped,
    sliced,
    whole,
)
from era_support_packages.gradcam.cell_operations import behind, together
from era_support_packages.gradcam.cells import Cells


class AxisTracker(TorchDispatchMode):
    """While it lasts, follows the axes of `images` through all operations; `of` tells those of a tensor made meanwhile."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._axes: dict[object, Axes] = {_place(images): image_axes(images.shape)}
        self._cells: dict[object, Cells] = {_place(images): Cells.of_pixels(images.shape[2:])}

    def of(self, tensor: Tensor) -> Axes | None:
        """What each axis stands for; None where that is not known."""
        return self._axes.get(_place(tensor))

    def cells(self, tensor: Tensor) -> Cells | None:
        """Where the places that it has lie in the images; None where that is not known."""
        return self._cells.get(_place(tensor))

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        outputs = [part for part in (result if isinstance(result, tuple | list) else (result,)) if isinstance(part, Tensor)]
        if outputs:
            given = _bound(operation, args, kwargs or {})
            found = self._followed(operation, given, outputs)
            cells = self._moved(operation, given, outputs[0]) if any(found) else None
            for position, output in enumerate(outputs):
                # Always set: memory is used again, and what was known of it holds no longer.
                place = _place(output)
                self._axes.pop(place, None)
                self._cells.pop(place, None)
                axes = found[position] if position < len(found) else None
                if axes and cells is not None:
                    self._cells[place] = cells
                if axes is not None:
                    self._axes[place] = axes
            if operation.overloadpacket.__name__.endswith("_"):
                self._written(outputs[0], [value for value in list(given.values())[1:] if _holds_tensor(value)])
        return result

    def _followed(self, operation: Any, given: dict[str, Any], outputs: list[Tensor]) -> Sequence[Axes | None]:
        """The axes of an operation's outputs, as far as they are known."""
        tensors = [value for value in given.values() if isinstance(value, Tensor)]
        name = operation.overloadpacket.__name__
        shape = tuple(outputs[0].shape)
        first = tensors[0] if tensors else None
        axes = self.of(first) if first is not None else None
        if name in _IN_A_GRID or "pool2d" in name or "upsample" in name or "batch_norm" in name:
            return [self._grid(first, axes, outputs[0], "batch_norm" in name)]
        if name in ("cat", "stack"):
            inputs = [(self.of(part), tuple(part.shape)) for part in given["tensors"]]
            return [joined(inputs, given.get("dim") or 0, shape, new=name == "stack")]
        if name in ("mm", "bmm"):
            return [self._product(tensors[0], given["mat2"], shape)]
        if name in ("addmm", "baddbmm"):
            return [self._product(tensors[1], tensors[2], shape)]
        if name in _REARRANGING and axes:
            return _REARRANGING[name](axes, tuple(tensors[0].shape), given, outputs)
        if name in _REDUCING and axes:
            return [_reduced(axes, given.get("dim"), bool(given.get("keepdim")))]
        if name.startswith("_scaled_dot_product") and axes and len(axes) == len(shape):
            return [(*axes[:-1], whole(CHANNEL, shape[-1]))]
        if name in _KEEPING:
            return [axes if axes is None or len(axes) in (0, len(shape)) else OTHER]
        if name.rstrip("_") in _ALONG_AN_AXIS and axes:
            return [_moved_along(axes, tuple(tensors[0].shape), given, outputs[0])] * len(outputs)
        if name.rstrip("_") not in _SCATTERING and (
            name.endswith("_") or name in _ELEMENTWISE or torch.Tag.pointwise in operation.tags
        ):
            return [broadcast([(self.of(tensor), tuple(tensor.shape)) for tensor in tensors], shape)]
        # What an unknown operation makes of the images may have their places, or the images themselves, in another order.
        return [OTHER if any(self.of(tensor) is not None for tensor in tensors) else None] * len(outputs)

    def _moved(self, operation: Any, given: dict[str, Any], output: Tensor) -> Cells | None:
        """Where the places of an operation's output lie."""
        parts = [part for value in given.values() for part in (value if isinstance(value, list | tuple) else [value])]
        tensors = [part for part in parts if isinstance(part, Tensor)]
        places = [place for tensor in tensors if (place := _place(tensor)) in self._cells]
        name = operation.overloadpacket.__name__
        cells = together(name, [(self._axes.get(place, OTHER), self._cells[place]) for place in places])
        if cells is None:
            return None
        return behind(name, cells, self.of(tensors[0]), tensors[0].shape, given, output.shape)

    def _written(self, part: Tensor, sources: list[Any]) -> None:
        """Something of the images was written into a part of a tensor: what its places hold is no longer known."""
        tensors = [tensor for value in sources for tensor in (value if isinstance(value, list | tuple) else [value])]
        if part.layout is torch.strided and any(isinstance(t, Tensor) and self.of(t) is not None for t in tensors):
            memory = part.untyped_storage().data_ptr()
            for place in self._axes:
                if isinstance(place, tuple) and place[0] == memory and prod(place[2]) > part.numel():
                    self._axes[place] = OTHER

    def _grid(self, first: Tensor | None, axes: Axes | None, output: Tensor, same: bool) -> Axes | None:
        """Behind an operation that takes (N, channels, height, width) and nothing else."""
        if axes == OTHER or first is None or output.ndim != 4:
            return axes if same else OTHER if axes is not None else None
        if axes is None:
            return None
        if not is_grid(axes):
            return axes if same else OTHER
        return axes if same else (axes[0], *image_axes(output.shape)[1:])

    def _product(self, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Axes | None:
        """Of a matrix product (..., M, K) x (..., K, P)."""
        first, second = self.of(left), self.of(right)
        if not first and not second:
            return OTHER if OTHER in (first, second) else None
        rows = first[:-1] if first else (*(second or ())[:-2], whole(CHANNEL, shape[-2]))
        return coarsened((*rows, second[-1] if second else whole(CHANNEL, shape[-1])))


# ---- what single operations do to the axes ----


def _reduced(axes: Axes, dim: int | Sequence[int] | None, keep: bool) -> Axes:
    dims = range(len(axes)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    gone = {position % len(axes) for position in dims}
    return coarsened(tuple(() if k in gone else axis for k, axis in enumerate(axes) if keep or k not in gone))


def _moved_along(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], output: Tensor) -> Axes:
    """Behind an operation that moves values along some axes, and so nothing but channels where it may be followed."""
    dims = given.get("dims") if "dims" in given else given.get("dim")
    if indices := given.get("indices"):
        dims = [k for k, index in enumerate(indices) if index is not None]
        dims = dims if len(dims) == 1 and indices[dims[0]].ndim == 1 else None
    along = {dim % len(axes) for dim in ([dims] if isinstance(dims, int) else dims or [])}
    after = tuple(output.shape)
    if not along or len(after) != len(shape) or not all(is_channels(axes[k]) for k in along):
        return OTHER
    if any(after[k] != shape[k] for k in range(len(shape)) if k not in along):
        return OTHER
    return tuple(whole(CHANNEL, after[k]) if k in along else axis for k, axis in enumerate(axes))


Rule = Callable[[Axes, tuple[int, ...], dict[str, Any], list[Tensor]], Sequence[Axes | None]]


def _viewed(axes: Axes, _shape: tuple[int, ...], _given: dict[str, Any], outputs: list[Tensor]) -> list[Axes]:
    return [axes if tuple(outputs[0].shape) == _shape else reshaped(axes, outputs[0].shape)]


def _permuted(axes: Axes, _shape: tuple[int, ...], given: dict[str, Any], _outputs: list[Tensor]) -> list[Axes]:
    return [tuple(axes[position] for position in given["dims"])]


def _transposed(axes: Axes, _shape: tuple[int, ...], given: dict[str, Any], _outputs: list[Tensor]) -> list[Axes]:
    order = list(axes)
    first, second = given.get("dim0", 0), given.get("dim1", -1)
    order[first], order[second] = order[second], order[first]
    return [tuple(order)]


def _squeezed(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], _outputs: list[Tensor]) -> list[Axes]:
    dims = given.get("dim")
    named = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {position % len(shape) for position in named if shape[position] == 1}
    return [tuple(axis for k, axis in enumerate(axes) if k not in gone)]


def _unsqueezed(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], _outputs: list[Tensor]) -> list[Axes]:
    dim = given["dim"] % (len(shape) + 1)
    return [(*axes[:dim], (), *axes[dim:])]


def _sliced(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], outputs: list[Tensor]) -> list[Axes | None]:
    dim = (given.get("dim") or 0) % len(shape)
    size, left = shape[dim], outputs[0].shape[dim]
    start = given.get("start") or 0
    start = max(start + size, 0) if start < 0 else start
    step = given.get("step") or 1
    return [_cut(axes, dim, sliced(axes[dim], size, start, start + left * step, step, left))]


def _cut(axes: Axes, dim: int, axis: Axis | None) -> Axes | None:
    """With another axis in one place; what a part of the images is used for is not known."""
    if axis is None:
        return None if any(part.kind == IMAGE for part in axes[dim]) else OTHER
    return (*axes[:dim], axis, *axes[dim + 1 :])


def _selected(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], outputs: list[Tensor]) -> list[Axes]:
    dim = (given.get("dim") or 0) % len(shape)
    one_of_many = is_places(axes[dim]) and shape[dim] > 1
    return [OTHER if one_of_many else (*axes[:dim], *axes[dim + 1 :])] * len(outputs)


def _split(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], outputs: list[Tensor]) -> list[Axes | None]:
    dim, start = (given.get("dim") or 0) % len(shape), 0
    result: list[Axes | None] = []
    for output in outputs:
        left = output.shape[dim]
        result.append(_cut(axes, dim, sliced(axes[dim], shape[dim], start, start + left, 1, left)))
        start += left
    return result


def _expanded(axes: Axes, shape: tuple[int, ...], _given: dict[str, Any], outputs: list[Tensor]) -> list[Axes | None]:
    return [broadcast([(axes, shape)], tuple(outputs[0].shape))]


def _padded(axes: Axes, shape: tuple[int, ...], given: dict[str, Any], _outputs: list[Tensor]) -> list[Axes]:
    amounts = list(given.get("pad") or given["padding"])  # of the last axis first
    amounts += [0] * (2 * len(shape) - len(amounts))
    ends = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    found = [padded(axis, size, *end) for axis, size, end in zip(axes, shape, ends, strict=True)]
    return [OTHER if None in found else tuple(axis for axis in found if axis is not None)]


_REARRANGING: dict[str, Rule] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten"), _viewed),
    "permute": _permuted,
    "transpose": _transposed,
    "t": _transposed,
    "squeeze": _squeezed,
    "unsqueeze": _unsqueezed,
    "slice": _sliced,
    "select": _selected,
    "unbind": _selected,
    "split": _split,
    "split_with_sizes": _split,
    "expand": _expanded,
    **dict.fromkeys(("constant_pad_nd", "reflection_pad2d", "replication_pad2d"), _padded),
}
_ALONG_AN_AXIS = {"index", "index_select", "flip", "roll", "sort", "cumsum", "gather", "glu"}
_SCATTERING = {"index_put", "_index_put_impl", "index_copy", "index_add", "index_reduce", "put", "masked_scatter"} | {
    *("scatter", "scatter_add", "scatter_reduce", "cumsum", "cumprod", "set", "as_strided", "resize")
}
_IN_A_GRID = {"convolution", "_convolution", "conv2d", "cudnn_convolution", "mkldnn_convolution", "slow_conv2d_forward"} | {
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
}
_REDUCING = {"mean", "sum", "amax", "amin", "max", "min", "var", "std", "logsumexp", "linalg_vector_norm"}
_KEEPING = {"native_layer_norm", "native_group_norm", "_fused_rms_norm", "native_dropout", "_softmax", "_log_softmax"} | {
    *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_safe_softmax"),
    *("detach", "alias", "contiguous", "lift_fresh"),
}
_ELEMENTWISE = {
    "clone",
    "_to_copy",
    "where",
    "masked_fill",
    "hardswish",
    "hardsigmoid",
    "prelu",
    "_prelu_kernel",
    "rrelu_with_noise",
    "leaky_relu",
    "log_sigmoid_forward",
}


def _bound(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """An operation's arguments by name."""
    names = [argument.name for argument in operation._schema.arguments]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | list | tuple)


def _place(tensor: Tensor) -> object:
    """Where a tensor's numbers lie in memory and how they are read: the same for every view that reads them alike."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
