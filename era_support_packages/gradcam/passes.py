"""Passes through a network that record what class activation maps need and leave the network as it was found."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.axis_tracker import AxisTracker
from era_support_packages.gradcam.cells import Cells
from era_support_packages.gradcam.kinds import EAGER, check_kind, closed_part
from era_support_packages.gradcam.layouts import Reshape, checked_reshape, layout_of, refusal
from era_support_packages.models.copies import detached_copy, eager, inner_network
from era_support_packages.models.learned_state import learned
from era_support_packages.models.modes import evaluation_mode, without_gradients


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a layer gave in a forward pass."""

    output: Tensor
    """as the layer gave it, for one backward pass"""
    arrange: Reshape
    """brings it, and its gradient, to (N, channels, h, w)"""
    cells: Cells | None = None
    """where these lie in the image; None where that is not known"""

    @property
    def channels(self) -> Tensor:
        """The activation, (N, channels, h, w)."""
        return self.arrange(self.output)

    def places(self, gradient: Tensor) -> Tensor:
        """The gradient at the activation, (N, channels, h, w)."""
        return self.arrange(gradient)

    @property
    def leaves_out(self) -> bool:
        """Whether the layer gives more than places, such as a class token."""
        return self.channels.numel() < self.output.numel()


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside of a data-parallel, averaged or compiled model, whose layers have their plain names.

    Raises `ValueError` for a network that cannot be explained whatever is asked, such as a scripted or a quantized one.
    """
    network = inner_network(model)
    check_kind(network)
    return network


@contextmanager
def prepared(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block: the network in evaluation mode, frozen, uncompiled, at least in float32; afterwards all is as it was.

    Neither a surrounding `torch.inference_mode` nor autocast reaches into the block.
    """
    parameter = next(model.parameters())
    with torch.inference_mode(False), torch.autocast(parameter.device.type, enabled=False):
        network = _full_precision(model)
        with evaluation_mode(network), without_gradients(network.parameters()), eager(network):
            yield network  # eager: the hooks would make torch.compile start over, or be passed over


def to_network(images: Tensor, network: nn.Module) -> Tensor:
    """A copy of the images on the network's device and in its floating-point type."""
    device = next(network.parameters()).device
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    return images.to(device, dtype, copy=True)


def forward(
    logits: LogitReader, images: Tensor, names: Sequence[str], reshape: Reshape | None = None
) -> tuple[Tensor, dict[str, Recorded]]:
    """One forward pass: logits (N, C) and what each layer gives by name, ready for gradients.

    `reshape` brings a layer's output to (N, channels, h, w); without it the axes are followed from the images on. Raises
    `ValueError` where a layer does not give one such activation, or the network no finite logits.
    """
    found: dict[str, Recorded] = {}
    images = images.clone()
    tracker = None if reshape else AxisTracker(images)

    def keep(name: str, output: object) -> Tensor:
        if name in found:
            raise ValueError(f"Layer {name!r} runs more than once in a forward pass; choose a layer that runs once.")
        axes = tracker.of(output) if tracker and isinstance(output, Tensor) else None
        if not isinstance(output, Tensor):
            raise refusal(name, output, None, len(images))
        if reshape:
            checked_reshape(reshape, name, output, len(images))
        arrange = reshape or layout_of(axes, output.shape, len(images))
        if arrange is None:
            raise refusal(name, output, axes, len(images))
        cells = tracker.cells(output) if tracker else None
        found[name] = Recorded(recorded(output), arrange, cells and cells.resized(arrange(output).shape[2:]))
        return found[name].output.clone()

    for name in names:
        if part := closed_part(logits.network, name):
            raise ValueError(f"Layer {name!r} lies in {part!r}, a scripted or exported part that cannot be looked into; {EAGER}.")
    with hooked(logits.network, names, keep), tracker or nullcontext():
        output = logits.run(images)
    for name in names:
        if name not in found:
            raise ValueError(f"Layer {name!r} does not run in the model's forward pass; choose a layer that does.")
    return checked_logits(logits.read(output, images), logits.network), found


def full_precision(tensor: Tensor) -> Tensor:
    """In float32 where the network computes in less, as under autocast."""
    return tensor.float() if torch.finfo(tensor.dtype).bits < 32 else tensor


def recorded(output: Tensor) -> Tensor:
    """A copy of a layer's output that takes part in the backward pass.

    Hand on a copy of the copy: so in-place operations before and behind the layer leave it alone. With the parameters frozen,
    the first layer's activation is a leaf: the backward pass ends there.
    """
    return output.clone() if output.requires_grad else output.detach().clone().requires_grad_()


@contextmanager
def hooked(network: nn.Module, names: Iterable[str], replace: Callable[[str, Any], Tensor]) -> Iterator[None]:
    """Within the block, what each named layer gives is replaced by `replace(name, output)`."""
    with ExitStack() as handles:
        for name in names:
            layer = network.get_submodule(name)
            handle = layer.register_forward_hook(lambda _layer, _inputs, output, name=name: replace(name, output))
            handles.callback(handle.remove)
        yield


def checked_logits(logits: Tensor, network: nn.Module) -> Tensor:
    """Finite logits; `ValueError` where they are not, which says whether the weights are."""
    if not torch.isfinite(logits).all():
        if all(bool(torch.isfinite(weights).all()) for _, weights in learned(network)):
            raise ValueError(
                "The model's logits are NaN or infinite, though its weights are finite; check what its forward pass adds to them "
                "or divides them by, such as a mask of -inf."
            )
        raise ValueError("The model's logits are NaN or infinite, so its weights are unusable; train it again.")
    return logits


def gradients(score: Tensor, tensors: Sequence[Tensor], keep_graph: bool) -> list[Tensor | None]:
    """One backward pass: the gradient of `score` at each tensor, None where none flows; parameters get none."""
    if not score.requires_grad:
        return [None] * len(tensors)
    return list(torch.autograd.grad(score, tensors, retain_graph=keep_graph, allow_unused=True))


def _full_precision(model: nn.Module) -> nn.Module:
    """The model, or a float32 copy where it is in half precision or its tensors cannot take part in autograd."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_inference() or (tensor.is_floating_point() and torch.finfo(tensor.dtype).bits < 32):
            return detached_copy(model).float()
    return model
