"""What a network returns, read as logits (N, C): from tensors, tuples and dicts, one output, probabilities."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

TOLERANCE = 1e-3
"""how far the probabilities of a row may be from adding up to one"""


class LogitReader:
    """Runs a network and reads its logits (N, C), in float32 at least; what its output is, the first batch shows.

    - Logits as they are; from a tuple, list, dict or `ModelOutput` where one tensor may be them; (N, C, 1, 1) as (N, C).
    - One output z for each image: two classes with the scores -z/2 and z/2, whose softmax is the sigmoid of z. Behind a sigmoid z
      is what went into it.
    - Probabilities (rows that are not negative and add up to one): their logarithms, whose softmax they are.
      Log-probabilities stay as they are.
    - Independent probabilities (behind a sigmoid, several a row): what went into the sigmoid.

    Raises `ValueError` where the output holds no logits, or several tensors that may be.

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
        """what the network returns: "logits", "one logit", "one probability", "probabilities", "log-probabilities" or
        "independent probabilities"; None before the first batch"""

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (N, C) that the network gives for images."""
        return self.read(self.network(images), images)

    @property
    def score(self) -> str:
        """What a class is given: "logit" or "log-probability"."""
        return "log-probability" if self.form in ("probabilities", "log-probabilities") else "logit"

    def read(self, output: object, images: Tensor) -> Tensor:
        """The logits (N, C) in what the network returned for `images`."""
        values = found_logits(output, len(images))
        values = values.float() if torch.finfo(values.dtype).bits < 32 else values
        if self.form is None:
            self.form = self._form(values.detach(), images)
        # A probability of 0 has no logarithm, and behind a sigmoid 0 and 1 have none.
        precision = torch.finfo(values.dtype)
        if self.form in ("one probability", "independent probabilities"):
            values = torch.logit(values, eps=precision.eps)
        if self.form in ("one logit", "one probability"):
            return torch.cat([-values / 2, values / 2], dim=1)
        return values.clamp_min(precision.tiny).log() if self.form == "probabilities" else values

    def confidences(self, logits: Tensor, kind: str = "softmax") -> Tensor:
        """Probabilities (N, C) of logits from this network: by the "softmax", or of each class by itself ("sigmoid").

        Raises `ValueError` for "sigmoid" where the network's probabilities add up to one.
        """
        if kind == "softmax" or self.form in ("one logit", "one probability"):
            return logits.softmax(dim=1)
        if self.score == "log-probability":
            raise ValueError("the network's probabilities add up to one, so that its classes exclude each other; use 'softmax'")
        return logits.sigmoid()

    def _form(self, values: Tensor, images: Tensor) -> str:
        """What the values (N, C) of the first batch are."""
        unit = bool(((values >= 0) & (values <= 1)).all())
        if values.shape[1] == 1:
            behind = self._last_operation(images) if unit else ""
            if "softmax" in behind:
                raise ValueError(
                    "the model ends with a softmax over one output, which is 1 for every image; use a sigmoid, or two outputs"
                )
            return "one probability" if "sigmoid" in behind else "one logit"
        if unit and bool(((values.sum(dim=1) - 1).abs() < TOLERANCE).all()):
            return "probabilities"
        if bool((values.logsumexp(dim=1).abs() < TOLERANCE).all()):
            return "log-probabilities"
        return "independent probabilities" if unit and "sigmoid" in self._last_operation(images) else "logits"

    def _last_operation(self, images: Tensor) -> str:
        """The name of the operation that made the output, found in one more pass of one image."""
        with _Operations() as operations, torch.no_grad():
            output = found_logits(self.network(images[:1].clone()), 1)
        return operations.of(output)


def found_logits(output: object, count: int) -> Tensor:
    """The one tensor (count, C) in what a network returned for `count` images; `ValueError` where there is none, or several."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            if output.ndim in (0, 1) and output.numel() == count:
                return output.reshape(count, 1)
            if _plausible(output, count):
                return output.flatten(1)
        given = f"{tuple(output.shape)}{'' if output.is_floating_point() else f' of {output.dtype}'}"
        raise ValueError(f"the model must return logits of shape ({count}, classes), not {given}")
    tensors = dict(_tensors(output, ""))
    found = {path: tensor for path, tensor in tensors.items() if _plausible(tensor, count)}
    named = [path for path in found if path in ("['logits']", ".logits")]
    if len(found) == 1 or named:
        return found[named[0] if named else next(iter(found))].flatten(1)
    kind = type(output).__name__
    if found:
        several = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in found.items())
        problem, path = f"a {kind} in which {len(found)} tensors may be the logits: {several}", next(iter(found))
    else:
        held = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in list(tensors.items())[:5]) or "no tensors"
        problem, path = f"a {kind} without logits of shape ({count}, classes): it holds {held}", "[0]"
    raise ValueError(
        f"the model returns {problem}; wrap it in a module whose forward returns the logits alone, such as "
        f"`return self.model(images){path}`"
    )


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


class _Operations(TorchDispatchMode):
    """While it lasts, notes the name of the operation that made each tensor; a view or a copy is made by what made its values."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, str] = {}

    def of(self, tensor: Tensor) -> str:
        return self._names.get(tensor.untyped_storage().data_ptr(), "")

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = operation.overloadpacket.__name__
        source = args[0] if args and isinstance(args[0], Tensor) else None
        for output in result if isinstance(result, tuple | list) else (result,):
            if isinstance(output, Tensor) and output.layout is torch.strided:
                place = output.untyped_storage().data_ptr()
                view = source is not None and source.untyped_storage().data_ptr() == place and not name.endswith("_")
                if name in ("_to_copy", "to", "clone", "contiguous") and source is not None:
                    self._names[place] = self.of(source)
                elif not view:
                    self._names[place] = name
        return result
