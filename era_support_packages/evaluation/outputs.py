"""What a network returns, read as logits (N, C): from tensors, tuples and dicts, one output, probabilities."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from era_support_packages.evaluation.running import run

TOLERANCE = 1e-3
"""how far the probabilities of a row may be from adding up to one; further where the output's type rounds more"""
ROUNDED = 0.05
"""the same behind a softmax, whose values may have been rounded before they were brought to float32"""


class LogitReader:
    """Runs a network and reads its logits (N, C), in float32 at least; what its output is, the first batch shows.

    - Logits as they are; from a tuple, list, dict or `ModelOutput` where one tensor may be them; (N, C, 1, 1) as (N, C).
    - One output z for each image: two classes with the scores -z/2 and z/2, whose softmax is the sigmoid of z. Behind a sigmoid z
      is what went into it; of one column p of a softmax it is log p - log(1 - p), and class 1 is that column's.
    - Probabilities (rows that are not negative and add up to one): their logarithms, whose softmax they are.
      Log-probabilities stay as they are.
    - Independent probabilities (behind a sigmoid, several a row): what went into the sigmoid.

    Raises `ValueError` where the network cannot take the images (`running.run`), and where the output holds no logits, several
    tensors that may be, or values that look like probabilities and come from nothing that tells how to read them.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages.evaluation import LogitReader
    >>> reader = LogitReader(nn.Sequential(nn.Flatten(), nn.Linear(12, 1)))
    >>> reader(torch.zeros(5, 3, 2, 2)).shape
    torch.Size([5, 2])
    >>> reader.form
    'one logit'
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.form: str | None = None
        """what the network returns: "logits", "one logit", "one probability", "one log-probability", "probabilities",
        "log-probabilities" or "independent probabilities"; None before the first batch"""

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (N, C) that the network gives for images."""
        return self.read(run(self.network, images), images)

    @property
    def score(self) -> str:
        """What a class is given: "logit" or "log-probability"."""
        return "log-probability" if self.form in ("probabilities", "log-probabilities") else "logit"

    def read(self, output: object, images: Tensor) -> Tensor:
        """The logits (N, C) in what the network returned for `images`."""
        values = found_logits(output, len(images))
        rounding = torch.finfo(values.dtype).eps
        values = values.float() if torch.finfo(values.dtype).bits < 32 else values
        if self.form is None:
            self.form = self._form(values.detach(), images, rounding)
        # A probability of 0 has no logarithm, and behind a sigmoid 0 and 1 have none.
        precision = torch.finfo(values.dtype)
        if self.form in ("one probability", "independent probabilities"):
            values = torch.logit(values, eps=precision.eps)
        elif self.form == "one log-probability":
            values = values.clamp(max=-precision.eps)
            values = values - torch.log(-torch.expm1(values))
        if classes_of_one(self.form):
            return torch.cat([-values / 2, values / 2], dim=1)
        return values.clamp_min(precision.tiny).log() if self.form == "probabilities" else values

    def confidences(self, logits: Tensor, kind: str = "softmax") -> Tensor:
        """Probabilities (N, C) of logits from this network: by the "softmax", or of each class by itself ("sigmoid").

        Raises `ValueError` for "sigmoid" where the network's probabilities add up to one.
        """
        if kind == "softmax" or classes_of_one(self.form):
            return logits.softmax(dim=1)
        if self.score == "log-probability":
            raise ValueError("The network's probabilities add up to one, so that its classes exclude each other; use 'softmax'.")
        return logits.sigmoid()

    def _form(self, values: Tensor, images: Tensor, rounding: float) -> str:
        """What the values (N, C) of the first batch are, from a type of this relative rounding."""
        classes = values.shape[1]
        unit = bool(((values >= 0) & (values <= 1)).all())
        # Rounding moves the sum of a row by at most `rounding`, and that of log-probabilities by as much times their entropy.
        tolerance = max(TOLERANCE, rounding * (1 + log(classes)))
        sums = (values.sum(dim=1) - 1).abs()
        if classes > 1 and unit and bool((sums < tolerance).all()):
            return "probabilities"
        totals = values.logsumexp(dim=1).abs()
        if classes > 1 and bool((totals < tolerance).all()):
            return "log-probabilities"
        plain = "one logit" if classes == 1 else "logits"
        if not unit and bool((values > 0).any()):
            return plain
        behind = self._last_operations(images)
        only = next(iter(behind)) if len(behind) == 1 else ""
        if only == _OVER_ONE:
            raise ValueError(
                "The model ends with a softmax over one output, which is 1 for every image; use a sigmoid, or two outputs."
            )
        if unit and only == "sigmoid":
            return "one probability" if classes == 1 else "independent probabilities"
        if "softmax" in only:
            if classes == 1:
                return "one log-probability" if "log" in only else "one probability"
            if bool(((totals if "log" in only else sums) < ROUNDED).all()):
                return "log-probabilities" if "log" in only else "probabilities"
        # A logarithm of a probability is never positive, so that one of them, read as a logit, would always mean class 0.
        logarithms = [name for name in behind if "log_s" in name and ("sigmoid" in name or name == only or classes == 1)]
        if only == "log" or logarithms or (unit and not all(_is_linear(name) for name in behind)):
            seen = "logarithms of probabilities" if only == "log" or logarithms else "values in [0, 1]"
            seen += " whose rows do not add up to one" if classes > 1 and "sigmoid" not in "".join(logarithms) else ""
            made = ", ".join(sorted(behind))
            raise ValueError(
                f"The model returns {seen}, made by {made}: they look like probabilities, and read as logits would give wrong "
                "classes; let it return the logits, or end it with a plain sigmoid or softmax of the logits."
            )
        return plain

    def _last_operations(self, images: Tensor) -> frozenset[str]:
        """The names of the operations that the output is made of, found in one more pass of one image."""
        with _Operations() as operations, torch.no_grad():
            output = found_logits(self.network(images[:1].clone()), 1)
        return operations.of(output)


def classes_of_one(form: str | None) -> bool:
    """Whether two classes are made of one output."""
    return form in ("one logit", "one probability", "one log-probability")


def _is_linear(name: str) -> bool:
    """Whether an operation gives sums of products, as logits are, or combines what others gave."""
    return name in _COMBINING or name in _LINEAR or any(part in name for part in _LINEAR_PARTS)


def found_logits(output: object, count: int) -> Tensor:
    """The one tensor (count, C) in what a network returned for `count` images; `ValueError` where there is none, or several."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            if output.ndim in (0, 1) and output.numel() == count:
                return output.reshape(count, 1)
            if _plausible(output, count):
                return output.flatten(1)
        given = f"{tuple(output.shape)}{'' if output.is_floating_point() else f' of {output.dtype}'}"
        raise ValueError(f"The model must return logits of shape ({count}, classes), not {given}.")
    found = plausible_logits(output, count)
    named = [path for path in found if path in ("['logits']", ".logits")]
    if len(found) == 1 or named:
        return found[named[0] if named else next(iter(found))].flatten(1)
    kind = type(output).__name__
    if found:
        several = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in found.items())
        problem, path = f"a {kind} in which {len(found)} tensors may be the logits: {several}", next(iter(found))
    else:
        tensors = list(_tensors(output, ""))[:5]
        held = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in tensors) or "no tensors"
        problem, path = f"a {kind} without logits of shape ({count}, classes): it holds {held}", "[0]"
    raise ValueError(
        f"The model returns {problem}; wrap it in a module whose forward returns the logits alone, such as "
        f"`return self.model(images){path}`."
    )


def plausible_logits(output: object, count: int) -> dict[str, Tensor]:
    """The tensors in what a network returned for `count` images that may be logits, by the way to each, such as "[0]"."""
    return {path: tensor for path, tensor in _tensors(output, "") if _plausible(tensor, count)}


def _plausible(tensor: Tensor, count: int) -> bool:
    """Whether a tensor is (count, C), or that with empty axes behind."""
    shape = tuple(tensor.shape)
    return tensor.is_floating_point() and len(shape) in (2, 4) and shape[0] == count and shape[1] > 0 and set(shape[2:]) <= {1}


def _tensors(output: object, path: str) -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested tuples, lists, dicts and data classes, with the way to each."""
    if isinstance(output, Tensor):
        yield path, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, f"{path}[{key!r}]")
    elif isinstance(output, list | tuple):
        for position, value in enumerate(output):
            yield from _tensors(value, f"{path}[{position}]")
    elif is_dataclass(output):
        for field in fields(output):
            yield from _tensors(getattr(output, field.name), f"{path}.{field.name}")


_OVER_ONE = "softmax over one output"
_MOVING = {"_to_copy", "to", "clone", "contiguous", "cat", "stack", "index", "index_select", "gather"}
_CONSTANT = {
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "zeros",
    "ones",
    "full",
    "scalar_tensor",
}
_COMBINING = {"add", "sub", "rsub", "mul", "div", "neg", "mean", "sum", "max", "amax", "maximum", "logsumexp", "where"} | {
    *("pow", "sqrt", "abs", "relu", "leaky_relu", "gelu", "silu", "softplus")  # without an upper bound, as no probability is
}
_LINEAR_PARTS = ("convolution", "conv1d", "conv2d", "conv3d", "batch_norm", "avg_pool")  # of names
_LINEAR = {"linear", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "native_layer_norm", "native_group_norm"}


class _Operations(TorchDispatchMode):
    """While it lasts, notes which operations made each tensor: the last one, and what stood behind where that only combined.

    A view or a copy is made by what made its values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, frozenset[str]] = {}

    def of(self, tensor: Tensor) -> frozenset[str]:
        return self._names.get(tensor.untyped_storage().data_ptr(), frozenset())

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [tensor for _, tensor in _tensors([args, kwargs or {}], "") if tensor.layout is torch.strided]
        places = {tensor.untyped_storage().data_ptr() for tensor in given}
        before: frozenset[str] = frozenset().union(*(self.of(tensor) for tensor in given))
        result = operation(*args, **(kwargs or {}))
        own, name = operation.overloadpacket.__name__, operation.overloadpacket.__name__.rstrip("_")
        if "softmax" in name and len(args) > 1 and isinstance(args[1], int) and given[0].shape[args[1]] == 1:
            name = _OVER_ONE
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
