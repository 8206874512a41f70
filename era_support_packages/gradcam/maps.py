"""How the methods turn passes through a network into class activation maps, still at each layer's own resolution.

The arithmetic is pytorch-grad-cam's; where it leaves something to chance or departs from the paper, the function says what is
done instead. Each function takes one `Batch` and gives a `BatchMaps`.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pytorch_grad_cam import EigenGradCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torch.nn import functional as F

from era_support_packages.gradcam.batch import Batch, BatchMaps, array, class_scores
from era_support_packages.gradcam.cells import Cells, drawn, uneven
from era_support_packages.gradcam.passes import Recorded, forward, full_precision, gradients, hooked


@torch.enable_grad()
def gradient_maps(batch: Batch, library: type[BaseCAM]) -> BatchMaps:
    """Activations combined with their gradients as a class of the library does it: one backward pass per class for all layers."""
    logits, activations = batch.forward()
    classes = batch.classes(logits)
    cam = library(batch.network, [])
    raw: dict[str, list[np.ndarray]] = {name: [] for name in batch.layers}
    for t, score in enumerate(class_scores(logits, classes)):
        found = gradients(score, [layer.output for layer in activations.values()], keep_graph=t + 1 < classes.shape[1])
        categories = [ClassifierOutputTarget(class_id) for class_id in classes[:, t].tolist()]  # one copy, not one each
        for (name, layer), gradient in zip(activations.items(), found, strict=True):
            if gradient is None:
                raise ValueError(f"No gradient flows from the logits to layer {name!r}; choose a layer on the way to them.")
            _check_places(name, layer, gradient)
            raw[name].append(_combined(cam, batch, name, categories, array(layer.channels), array(layer.places(gradient))))
    return BatchMaps(logits.detach(), classes, [np.stack(raw[name], axis=1) for name in batch.layers], _cells(batch, activations))


@torch.no_grad()
def eigen_maps(batch: Batch) -> BatchMaps:
    """The first principal component of the activations: no backward pass, and the same map for every class."""
    logits, activations = batch.forward()
    _check_all_places(batch, activations)
    classes = batch.classes(logits)
    maps = [principal_component(array(activations[name].channels))[:, None] for name in batch.layers]
    return BatchMaps(logits, classes, [np.repeat(one, classes.shape[1], axis=1) for one in maps], _cells(batch, activations))


@torch.no_grad()
def score_maps(batch: Batch) -> BatchMaps:
    """Channels weighted by the softmax of the logits that the image keeps behind each channel as a mask.

    The mask is the channel resized to the image (bilinear, aligned corners) and scaled to [0, 1]; where the cells of the layer
    do not share the image evenly, it is drawn where they lie. The score is the logit, as in
    the library. The paper's increase over a black image differs from it by the same number in every channel, which the softmax
    takes away. One pass through the network per channel serves all classes.
    """
    logits, activations = batch.forward()
    _check_all_places(batch, activations)
    classes, raw = batch.classes(logits), []
    for name in batch.layers:
        activation = full_precision(activations[name].channels)
        scores = _channel_scores(batch, activation, classes, partial(_masked_logits, batch, activation, activations[name].cells))
        raw.append(_weighted(scores.softmax(dim=2), activation))
    return BatchMaps(logits, classes, raw, _cells(batch, activations))


@torch.no_grad()
def ablation_maps(batch: Batch) -> BatchMaps:
    """Channels weighted by how far the score y falls, as a share of it, when the channel is set to zero: (y - y_k) / |y|.

    Desai and Ramaswamy 2020, equation 1, divide by y itself, as the library does: for a negative score that turns the map into
    its opposite; so here by its size, and not at all where it is zero. The library sets a channel to zero only where the
    smallest activation is zero, and otherwise to ten million below it; here it is zero, as in the paper. One pass through the
    network per channel serves all classes.
    """
    logits, activations = batch.forward()
    _check_all_places(batch, activations)
    classes, raw = batch.classes(logits), []
    before = logits.gather(1, classes)[:, :, None]
    size = torch.where(before == 0, 1, before.abs())
    for name in batch.layers:
        activation = full_precision(activations[name].channels)
        scores = _channel_scores(batch, activation, classes, partial(_ablated_logits, batch, name, activations[name]))
        raw.append(_weighted((before - scores) / size, activation))
    return BatchMaps(logits, classes, raw, _cells(batch, activations))


def principal_component(features: np.ndarray) -> np.ndarray:
    """Each pixel's part in the first principal component of its channels: (N, channels, h, w) to (N, h, w), of mean zero.

    As the library's `get_2d_projection`, but for the sign, which it leaves as the decomposition happens to give it. Here the
    component rises with the sum of the channels: EigenCAM's map with the activation, EigenGradCAM's with the evidence for the
    class (the HiResCAM map). So does the component without centring in the paper (Muhammad and Yeasin 2020,
    arXiv:2008.00299), whose entries share one sign where no activation is negative.
    """
    count, channels, height, width = features.shape
    pixels = np.nan_to_num(features).reshape(count, channels, -1).swapaxes(1, 2)
    pixels = (pixels - pixels.mean(axis=1, keepdims=True)).astype(np.float64)
    # By the products of channels, or of pixels where these are fewer: a quarter of the time of a singular value decomposition,
    # and in float64 as exact as one in float32.
    turned = pixels.swapaxes(1, 2)
    if channels <= height * width:
        first = np.linalg.eigh(turned @ pixels)[1][:, :, -1:]
    else:
        first = turned @ np.linalg.eigh(pixels @ turned)[1][:, :, -1:]
        first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    first = np.where(first.sum(axis=1, keepdims=True) < 0, -first, first)
    return (pixels @ first).reshape(count, height, width).astype(features.dtype)


def _cells(batch: Batch, activations: dict[str, Recorded]) -> list[Cells | None]:
    """Where the cells of each layer's map lie."""
    return [activations[name].cells for name in batch.layers]


def _combined(
    cam: BaseCAM, batch: Batch, name: str, categories: list[ClassifierOutputTarget], activation: np.ndarray, gradient: np.ndarray
) -> np.ndarray:
    """One layer's map (B, h, w) from its activation and gradient."""
    # A zero denominator (Grad-CAM++, XGrad-CAM) or an overflow leaves pixels without a value.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if isinstance(cam, EigenGradCAM):
            return principal_component(gradient * activation)
        layer = batch.network.get_submodule(name)
        return cam.get_cam_image(batch.images, layer, categories, activation, gradient, eigen_smooth=False)


def _channel_scores(
    batch: Batch, activation: Tensor, classes: Tensor, changed_logits: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The scores (B, T, channels) of `changed_logits(rows, channels)`: image rows[i] with channel channels[i] changed."""
    count, channels = activation.shape[:2]
    scores = []
    for pairs in torch.arange(count * channels, device=activation.device).split(batch.batch_size):
        rows = pairs // channels
        scores.append(changed_logits(rows, pairs % channels).gather(1, classes[rows]))
        batch.advance(len(pairs))
    return torch.cat(scores).reshape(count, channels, -1).transpose(1, 2)


def _masked_logits(batch: Batch, activation: Tensor, cells: Cells | None, rows: Tensor, channels: Tensor) -> Tensor:
    """Logits of images behind a channel as a mask."""
    size = batch.images.shape[2:]
    if (cells := uneven(cells, size)) is None:
        masks = F.interpolate(activation[rows, channels][:, None], size=size, mode="bilinear", align_corners=True)
    else:
        masks = drawn(activation[rows, channels], size, cells)[:, None]
    lowest, highest = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
    return batch.logits(batch.images[rows] * ((masks - lowest) / (highest - lowest + 1e-8)))


def _ablated_logits(batch: Batch, name: str, layer: Recorded, rows: Tensor, channels: Tensor) -> Tensor:
    """Logits of images without a channel of a layer; what is no place, such as a class token, stays."""

    def without(_name: str, output: Tensor) -> Tensor:
        places = torch.arange(output.numel(), device=output.device).view(output.shape)
        chosen = layer.arrange(places)[torch.arange(len(rows), device=rows.device), channels]
        ablated = torch.zeros(output.numel(), dtype=torch.bool, device=output.device)
        ablated[chosen.flatten()] = True
        return output.masked_fill(ablated.view(output.shape), 0)

    with hooked(batch.network, [name], without):
        return batch.logits(batch.images[rows])


def _check_places(name: str, layer: Recorded, gradient: Tensor) -> None:
    """Raise `ValueError` where the score depends on what the layer gives, but on none of its places."""
    if layer.leaves_out and gradient.any() and not layer.places(gradient).any():
        raise ValueError(
            f"Layer {name!r} lies behind the last attention of a network that classifies by its class token: the other tokens "
            "have no gradient there; choose the input of the last attention, which layers=None takes."
        )


@torch.enable_grad()
def _check_all_places(batch: Batch, layers: dict[str, Recorded]) -> None:
    """`_check_places` for methods without gradients: one more pass of one image, where a layer gives more than places."""
    if batch.part.start or not any(layer.leaves_out for layer in layers.values()):
        return
    logits, found = forward(batch.logits, batch.images[:1], batch.layers, batch.reshape)
    slopes = gradients(logits.max(), [layer.output for layer in found.values()], keep_graph=False)
    for (name, layer), gradient in zip(found.items(), slopes, strict=True):
        if gradient is not None:
            _check_places(name, layer, gradient)


def _weighted(weights: Tensor, activation: Tensor) -> np.ndarray:
    """The channels (B, channels, h, w) summed by their weights (B, T, channels): (B, T, h, w)."""
    return array(torch.einsum("btc,bchw->bthw", weights, activation))
