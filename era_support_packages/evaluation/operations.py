"""Which operations a tensor was made by: the last ones, as they tell logits from probabilities."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

OVER_ONE = "softmax over one output"
_MOVING = {"dropout", "native_dropout", "_to_copy", "to", "clone", "contiguous"} | {
    *("cat", "stack", "index", "index_select", "gather")
}
_CONSTANT = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "zeros", "ones", "full"} | {
    *("scalar_tensor", "empty_like", "bernoulli")  # the last is the mask of a dropout
}
_COMBINING = {"add", "sub", "rsub", "mul", "div", "neg", "mean", "sum", "max", "amax", "maximum", "logsumexp", "where"} | {
    *("pow", "sqrt", "abs", "relu", "leaky_relu", "gelu", "silu", "softplus")  # without an upper bound, as no probability is
}
_LINEAR_PARTS = ("convolution", "conv1d", "conv2d", "conv3d", "batch_norm", "avg_pool")  # of names
_LINEAR = {"matmul", "einsum", "inner", "linear", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"} | {
    *("native_layer_norm", "native_group_norm")
}


class Operations(TorchDispatchMode):
    """While it lasts, notes which operations made each tensor: the last one, and what stood behind where that only combined.

    A view or a copy is made by what made its values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, frozenset[str]] = {}

    def of(self, tensor: Tensor) -> frozenset[str]:
        """The names of the operations that made a tensor; none where they are not known."""
        return self._names.get(tensor.untyped_storage().data_ptr(), frozenset())

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [tensor for _, tensor in tensors_in([args, kwargs or {}], "") if tensor.layout is torch.strided]
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        before: frozenset[str] = frozenset().union(*(self.of(tensor) for tensor in given))
        result = operation(*args, **(kwargs or {}))
        own, name = operation.overloadpacket.__name__, operation.overloadpacket.__name__.rstrip("_")
        if "softmax" in name and len(args) > 1 and isinstance(args[1], int) and given[0].shape[args[1]] == 1:
            name = OVER_ONE
        for output in result if isinstance(result, tuple | list) else (result,):
            if isinstance(output, Tensor) and output.layout is torch.strided:
                place = output.untyped_storage().data_ptr()
                if own.endswith("_") or place not in places:
                    made = frozenset() if name in _MOVING or name in _CONSTANT else {name}
                    behind = before if name in _MOVING or _is_combining(name) else frozenset()
                    self._names[place] = behind | made
        return result


def _is_combining(name: str) -> bool:
    return name in _COMBINING or "avg_pool" in name


def keeps_sums(name: str) -> bool:
    """Whether an operation makes probabilities, or combines some without a bend, so that what adds up to one does so always."""
    return "softmax" in name or name in ("exp", "add", "sub", "rsub", "mul", "div", "mean", "sum", "logsumexp")


def is_linear(name: str) -> bool:
    """Whether an operation gives sums of products, as logits are, or combines what others gave."""
    return name in _COMBINING or name in _LINEAR or any(part in name for part in _LINEAR_PARTS)


def tensors_in(output: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested tuples, lists, dicts and data classes, with the way to each."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors_in(value, f"{path}[{key!r}]")
    elif isinstance(output, list | tuple):
        for position, value in enumerate(output):
            yield from tensors_in(value, f"{path}[{position}]")
    elif is_dataclass(output):
        for field in fields(output):
            yield from tensors_in(getattr(output, field.name), f"{path}.{field.name}")
