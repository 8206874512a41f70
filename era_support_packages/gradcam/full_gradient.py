"""FullGrad: input and biases times their gradients, and the check that these add up to the score."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torchvision.ops import FrozenBatchNorm2d

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.axes import OTHER, Axes
from era_support_packages.gradcam.axis_tracker import AxisTracker
from era_support_packages.gradcam.batch import Batch, BatchMaps, array, class_scores
from era_support_packages.gradcam.cells import Cells, scaled_and_drawn
from era_support_packages.gradcam.layouts import layout_of, unread
from era_support_packages.gradcam.passes import checked_logits, gradients, hooked, recorded
from era_support_packages.models.copies import detached_copy

TOLERANCE = 1e-3
"""how far the sum may be from the score, as a share of it"""


class FullGradientError(ValueError):
    """FullGrad would leave out a part of the score; the message names the layer."""


@dataclass(frozen=True, eq=False)
class _Pass:
    """One forward pass: what the score is made of, each with what it is to be multiplied with."""

    logits: Tensor
    factors: list[Tensor]
    """the images, then the biases, each of a shape that spreads over its tensor"""
    tensors: list[Tensor]
    """the images, then what each layer with a bias gave"""
    places: list[Callable[[Tensor], Tensor] | None]
    """how each of these becomes (B, channels, h, w); None where it has no places"""
    cells: list[Cells | None]
    """where these lie in the image; None where that is not known"""

    def missing(self, score: Tensor, found: list[Tensor | None]) -> Tensor:
        """By how much input and biases times gradients miss the score (B,), as a share of it."""
        total = torch.zeros_like(score)
        for factor, gradient in zip(self.factors, found, strict=True):
            if gradient is not None:
                total = total + (factor * gradient).flatten(1).sum(dim=1)
        return (score - total).abs() / score.abs().clamp_min(torch.finfo(score.dtype).tiny)


@torch.enable_grad()
def full_gradient_maps(batch: Batch) -> BatchMaps:
    """Input times its gradient, and each bias times the gradient behind it: one map from all layers, at the image's resolution.

    As in the library the biases are those of convolutions and, with what their running statistics add, of batch norms (of any
    kind), and of linear layers that see places; each channel's absolute values are scaled to [0, 1] and resized before all are
    summed. A bias is paired with its gradient by module (the library pairs them by position) and counts each time its layer runs.

    Input and biases times their gradients add up to the score (Srinivas and Fleuret 2019, proposition 1) where all else is
    linear piece by piece, as ReLU and max pooling are. Raises `FullGradientError`, naming a layer, where they miss it by more
    than `TOLERANCE`: there the map would leave out a part of the score.
    """
    run = _run(batch)
    classes = batch.classes(run.logits)
    size = tuple(batch.images.shape[2:])
    raw = []
    for t, score in enumerate(class_scores(run.logits, classes)):
        found = gradients(score, run.tensors, keep_graph=t + 1 < classes.shape[1])
        if found[0] is None:
            raise ValueError("No gradient flows from the logits to the images, so fullgrad has nothing to show; try eigencam.")
        own = run.logits.gather(1, classes[:, t : t + 1])[:, 0]
        if (run.missing(own, found) > TOLERANCE).any():
            _check_in_double(batch, classes[:, t : t + 1])
        products = [
            (array(places((factor * gradient).abs())), cells)
            for factor, gradient, places, cells in zip(run.factors, found, run.places, run.cells, strict=True)
            if gradient is not None and places is not None
        ]
        raw.append(sum(_at_pixels(product, size, cells) for product, cells in products))
    return BatchMaps(run.logits.detach(), classes, [np.stack(raw, axis=1)], [None])


def _at_pixels(product: np.ndarray, size: tuple[int, ...], cells: Cells | None) -> np.ndarray:
    """Products (B, channels, h, w), each channel scaled to [0, 1] and drawn at the image's pixels, summed: (B, H, W)."""
    cells = cells and cells.resized(product.shape[2:])
    return scaled_and_drawn(product.reshape(-1, *product.shape[2:]), size, cells).reshape(*product.shape[:2], *size).sum(axis=1)


def _run(batch: Batch) -> _Pass:
    images = batch.images.detach().requires_grad_()  # the batch itself stays without gradient
    biases = _biases(batch.network)
    factors: list[Tensor] = [images]
    tensors: list[Tensor] = [images]
    places: list[Callable[[Tensor], Tensor] | None] = [_as_it_is]
    cells: list[Cells | None] = [None]

    def keep(name: str, output: object) -> Tensor:
        bias, last = biases[name]
        if not isinstance(output, Tensor) or len(output) != len(images):
            raise _no_places(name, output, OTHER, len(images))
        axes = tracker.of(output)
        layout = layout_of(axes, output.shape, len(images)) if output.ndim == 4 else None
        if output.ndim == 4 and layout is None:
            raise _no_places(name, output, axes, len(images))
        activation = recorded(output)
        factors.append(bias if last else _spread(bias, output))
        tensors.append(activation)
        places.append(layout)
        cells.append(tracker.cells(output))
        return activation.clone()

    given = images.clone()
    tracker = AxisTracker(given)
    with hooked(batch.network, biases, keep), tracker:
        output = batch.logits.run(given)
    return _Pass(checked_logits(batch.logits.read(output, images), batch.network), factors, tensors, places, cells)


def _no_places(name: str, output: object, axes: Axes | None, count: int) -> FullGradientError:
    """Why a bias has no place in the image, and what to do."""
    given = f"{tuple(output.shape)}: {unread(output, axes, count)}" if isinstance(output, Tensor) else "no tensor"
    return FullGradientError(
        f"fullgrad shows each bias at its place in the image, and layer {name!r} gives {given}; choose another method."
    )


def _check_in_double(batch: Batch, classes: Tensor) -> None:
    """Raise `ValueError` where the sum misses the score in float64 as well, and so not by rounding."""
    network = detached_copy(batch.network).double()
    logits = LogitReader(network)
    logits.form = batch.logits.form
    exact = replace(batch, logits=logits, images=batch.images.double())
    run = _run(exact)
    own = run.logits.gather(1, classes)[:, 0]
    missing = run.missing(own, gradients(own.sum(), run.tensors, keep_graph=False)).detach()
    if (missing > TOLERANCE).any():
        worst = float(missing.max())
        raise FullGradientError(
            f"fullgrad leaves out a part of this network's score (up to {worst:.0%} of it): {_culprit(exact)} adds to it what is "
            "neither input nor bias; choose another method."
        )


def _culprit(batch: Batch) -> str:
    """The first layer whose output is not its input times its slope, plus its bias."""
    known = _biases(batch.network)
    found: list[str] = []
    inputs: dict[nn.Module, Tensor] = {}

    def before(layer: nn.Module, given: tuple[object, ...]) -> None:
        if len(given) == 1 and isinstance(given[0], Tensor):
            inputs[layer] = given[0].detach().clone()

    def behind(name: str, layer: nn.Module, output: object) -> None:
        given = inputs.pop(layer, None)
        if found or given is None or not isinstance(output, Tensor):
            return
        try:
            value, slope = torch.func.jvp(lambda x: layer.forward(x.clone()), (given,), (given,))[:2]
        except (RuntimeError, NotImplementedError):
            return
        bias, last = known.get(name, (None, True))
        rest = value - slope if bias is None else value - slope - (bias if last else _spread(bias, value))
        if rest.abs().max() > TOLERANCE * value.abs().max():
            found.append(f"layer {name!r} ({type(layer).__name__})")

    handles = []
    for name, layer in batch.network.named_modules():
        if name and not isinstance(layer, torch.jit.ScriptModule) and not any(True for _ in layer.children()):
            handles.append(layer.register_forward_pre_hook(before))
            handles.append(layer.register_forward_hook(lambda layer, _given, output, name=name: behind(name, layer, output)))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of what its forward derivatives are made with
            batch.network(batch.images.clone())
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else f"a step in the forward pass of {type(batch.network).__name__}"


def _biases(network: nn.Module) -> dict[str, tuple[Tensor, bool]]:
    """What each layer adds to its channels, (channels,) by name, and whether these are the last axis of what it gives."""
    biases = {}
    for name, layer in network.named_modules():
        if isinstance(layer, _ConvNd) and layer.bias is not None:
            biases[name] = layer.bias, False
        elif isinstance(layer, nn.Linear) and layer.bias is not None:
            biases[name] = layer.bias, True
        elif _normalizes_by_running_statistics(layer):
            scale = torch.rsqrt(layer.running_var + layer.eps)
            scale = scale if layer.weight is None else scale * layer.weight
            shift = -layer.running_mean * scale
            biases[name] = (shift if layer.bias is None else shift + layer.bias), False
    return biases


def _normalizes_by_running_statistics(layer: nn.Module) -> bool:
    """Of batch norms every kind: of images, of vectors, synchronized, and frozen as torchvision's detectors have it."""
    return isinstance(layer, _BatchNorm | FrozenBatchNorm2d) and layer.running_mean is not None


def _spread(bias: Tensor, output: Tensor) -> Tensor:
    """A bias of the second axis, over all axes behind it."""
    return bias.reshape(-1, *[1] * (output.ndim - 2))


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
