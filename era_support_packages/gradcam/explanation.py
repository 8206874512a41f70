"""Class activation maps: where in an image a network found the evidence for a class, at several layers at once.

The arithmetic of every method is pytorch-grad-cam's. The passes through the network are run here, so that one forward
and one backward pass serve all layers, each layer's gradient belongs to its own activation in whatever order the layers
are asked for, and the model is left as it was found, also after an exception.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from numpy.typing import ArrayLike
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor, nn

from era_support_packages.evaluation.cautions import told_once, unspoken
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.arguments import (
    DEFAULT_LAYERS,
    Layers,
    Targets,
    checked_batch_size,
    checked_confidence,
    checked_images,
    checked_layout,
    checked_reshape_function,
    class_ids,
    layer_names,
    named_by_default,
    parts_of,
)
from era_support_packages.gradcam.batch import Batch
from era_support_packages.gradcam.cells import Cells, scaled_and_drawn
from era_support_packages.gradcam.combining import one_map, visible
from era_support_packages.gradcam.layouts import Reshape
from era_support_packages.gradcam.methods import GRADIENT_METHODS, METHODS, Method, check_method
from era_support_packages.gradcam.passes import forward, prepared, to_network, unwrapped
from era_support_packages.gradcam.resolutions import last_of_each_resolution
from era_support_packages.gradcam.result import ALL_LAYERS, Explanation
from era_support_packages.system.progress import progress_bar

__all__ = [
    "ALL_LAYERS",
    "DEFAULT_LAYERS",
    "GRADIENT_METHODS",
    "METHODS",
    "Explanation",
    "Method",
    "check_method",
    "default_layers",
    "explain",
    "image_passes",
    "upsample",
]


@told_once
def explain(
    model: nn.Module,
    images: Tensor | np.ndarray,
    targets: Targets = "predicted",
    layers: Layers = None,
    method: str = "gradcam",
    labels: ArrayLike | Tensor | None = None,
    batch_size: int = 64,
    progress: bool = True,
    reshape: Reshape | None = None,
    confidence: str = "softmax",
) -> Explanation:
    """Explain a classifier's decisions: class activation maps of all `layers` from one forward pass per batch.

    Each map equals the one pytorch-grad-cam computes for that layer alone, but for these:

    - EigenCAM and EigenGradCAM have a sign that means something (`principal_component`).
    - Ablation-CAM of negative scores and activations (`ablation_maps`).
    - A layer with an in-place operation behind it, such as DenseNet's `features`: here it is what the layer gave; on a CPU the
      library shows what the operation made of it.
    - Behind convolutions and poolings without padding a map is drawn where its cells lie (`cells.Cells`), not stretched.
    - FullGrad counts the biases of every kind of batch norm, and is refused where it would leave out a part of the score.

    Score-CAM resizes its masks with aligned corners, as the library does and the paper does not say; maps are resized without.

    The network runs in evaluation mode and at least in float32; afterwards the training and `requires_grad` flags, gradients and
    hooks of `model` are as before. Batch norm with `track_running_stats=False` normalizes by the batch at hand even so: the map
    of an image then depends on the images beside it, and a warning says so, as it does of random numbers drawn even so. What is
    served, warned of and refused stands in docs/what-it-refuses.md.

    Args:
        model: maps float images to logits (N, C), or to what `evaluation.outputs.LogitReader` reads as such: one output is two
            classes, of probabilities the logarithms are explained. Compiled, data-parallel and weight-averaged models are
            unwrapped.
        images: float (N, channels, H, W), normalised as in training, on any device.
        targets: "predicted", "actual" (then `labels` are needed), or integer class ids (N,) or (N, T):
            T classes per image cost one forward and T backward passes; (1, T) are the same for every image. EigenCAM has no
            class: its maps are the same for each.
        layers: names as in `model.named_modules()` or the modules themselves, in any order, repeats allowed; each runs once in a
            forward pass. "layer3+layer4" is one map, the mean of both layers' maps (`combining.combined`). None means those of
            layer1 ... layer4 that there are, else what `default_layers` finds. FullGrad makes one map from all layers and takes
            none.
        method: a key of `METHODS`, where the source of each method stands. Score-CAM and Ablation-CAM take hundreds of
            forward passes an image: `image_passes` says how many.
        labels: integer class ids (N,), used for the targets "actual" only.
        batch_size: images per forward pass, at least 1.
        progress: show a bar of the forward passes where there are hundreds an image.
        reshape: selects and rearranges what each layer gives into (N, channels, h, w). None follows the axes of the images
            through the network: channels first, channels last (Swin) and sequences of tokens with or without a class token (ViT)
            are recognized, and what is not is refused. With it, a map is stretched over the image.
        confidence: "softmax", or "sigmoid" for a network of several labels, where each class has a probability by itself.

    Raises:
        ValueError: an argument is not as described; found before any computation, except for what only a forward pass
            can show: class ids beyond the last class, what the layers give, logits that are not finite.

    >>> import torch
    >>> from era_support_packages import ResNet18, explain
    >>> explanation = explain(ResNet18(), torch.rand(2, 3, 32, 32), layers=["layer3", "layer4"])
    >>> explanation.maps.shape  # images, classes, layers, height, width
    (2, 1, 2, 32, 32)
    """
    check_method(method)
    checked_batch_size(batch_size)
    images = checked_images(images)
    count, _, height, width = images.shape
    ids = class_ids(targets, labels, count)
    checked_reshape_function(reshape)
    checked_confidence(confidence)
    model = unwrapped(model)
    checked_layout(images, model)
    asked = _asked(model, layers, method)
    columns = 1 if ids is None else ids.shape[1]
    explained = np.zeros((count, columns), np.int64)
    predicted = np.zeros(count, np.int64)
    confidences = np.zeros((count, columns), np.float32)

    with prepared(model) as network:
        logits = LogitReader(network)
        names = asked or _found(logits, images)
        unique = tuple(dict.fromkeys(names))
        parts = _parts(model, unique)
        seen = tuple(dict.fromkeys(chain.from_iterable(parts.values())))
        maps = np.zeros((count, columns, len(unique), height, width), np.float32)
        raw_ranges = np.zeros((count, columns, len(unique), 2), np.float32)
        grids: dict[str, tuple[int, int]] = {}
        lying: dict[str, Cells | None] = {}
        with _advance(logits, images, seen, method, progress, reshape) as advance:
            for start in range(0, count, batch_size):
                part = slice(start, start + batch_size)
                batch = Batch(logits, to_network(images[part], network), seen, part, ids, batch_size, advance, reshape)
                result = METHODS[method].maps(batch)
                advance(len(batch.images))
                if METHODS[method].class_specific:
                    logits.warn_of_rounding(result.logits, result.classes)
                explained[part] = result.classes.cpu().numpy()
                predicted[part] = result.logits.argmax(dim=1).cpu().numpy()
                confidences[part] = logits.confidences(result.logits, confidence).gather(1, result.classes).cpu().numpy()
                found = dict(zip(seen, zip(result.raw, result.cells, strict=True), strict=True))
                for k, name in enumerate(unique):
                    raw, grids[name], lying[name] = one_map([found[layer] for layer in parts[name]], (height, width))
                    raw_ranges[part, :, k] = np.stack([raw.min(axis=(2, 3)), raw.max(axis=(2, 3))], axis=2)
                    resized = upsample(raw.reshape(-1, *raw.shape[2:]), (height, width), lying[name])
                    maps[part, :, k] = resized.reshape(-1, columns, height, width)

    order = [unique.index(name) for name in names]
    sizes = tuple(grids[name] for name in names)
    shown = (maps[:, :, order], explained, names, confidences, raw_ranges[:, :, order], method, sizes)
    return Explanation(*shown, predicted, logits.score, cells=tuple(lying[name] for name in names))


@unspoken
def image_passes(
    model: nn.Module,
    images: Tensor | np.ndarray,
    layers: Layers = None,
    method: str = "gradcam",
    *,
    classes: int = 1,
    reshape: Reshape | None = None,
) -> int:
    """How many images `explain` sends through the network with these arguments, known before it starts; a backward pass counts
    double.

    One for each image, and two for each of its `classes` where the method needs gradients; for Score-CAM and Ablation-CAM one
    more for each channel of each layer, whatever the number of classes: the channels are counted in one forward pass of the
    first image. Raises `ValueError` as `explain` does.

    >>> import torch
    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.gradcam import image_passes
    >>> images = torch.rand(2, 3, 32, 32)
    >>> image_passes(ResNet18(), images)  # Grad-CAM: a forward and a backward pass each
    6
    >>> image_passes(ResNet18(), images, layers="layer4", method="scorecam")  # of 512 channels
    1026
    """
    check_method(method)
    images = checked_images(images)
    checked_reshape_function(reshape)
    model = unwrapped(model)
    checked_layout(images, model)
    asked = _asked(model, layers, method)
    if not METHODS[method].pass_per_channel:
        return len(images) * (1 + 2 * classes * METHODS[method].needs_gradients)
    with prepared(model) as network:
        logits = LogitReader(network)
        parts = _parts(model, asked or _found(logits, images))
        return _passes_per_channel(logits, images, tuple(dict.fromkeys(chain.from_iterable(parts.values()))), reshape)


@unspoken
def default_layers(model: nn.Module, images: Tensor | np.ndarray | None = None) -> tuple[str, ...]:
    """The layers that `explain` takes where none are named, in the order in which they run.

    Those of layer1 ... layer4 that the model has; else the last module of each resolution, which one pass of the first of
    `images` (N, channels, H, W) finds: the outermost where several end there, in a module of several stages that of the last
    one, and the block in front of a transformer's last layer norm. A network that classifies by its class token has one: the
    input of its last attention, since behind it the other tokens have no gradient.

    Raises `ValueError` where there is none, and where `images` are needed and not given.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.gradcam import default_layers
    >>> default_layers(ResNet18())
    ('layer1', 'layer2', 'layer3', 'layer4')
    """
    model = unwrapped(model)
    if names := named_by_default(model):
        return names
    if images is None:
        raise ValueError(
            f"{type(model).__name__} has no layer1 ... layer4 to take by default; pass images=, and the last module of each "
            "resolution is found."
        )
    with prepared(model) as network:
        return _found(LogitReader(network), checked_images(images))


def upsample(raw: np.ndarray, size: tuple[int, int], cells: Cells | None = None) -> np.ndarray:
    """Maps (N, h, w) at a layer's resolution brought to the image's (height, width): float32 (N, H, W) in [0, 1].

    As pytorch-grad-cam does it: each map is scaled to [0, 1] by itself, resized bilinearly, and scaled again; a constant map
    becomes zeros. It is stretched over the whole image, or drawn where its `cells` lie.

    >>> import numpy as np
    >>> from era_support_packages.gradcam import upsample
    >>> upsample(np.array([[[0, 5], [5, 10]]]), (32, 32)).shape
    (1, 32, 32)
    """
    resized = scaled_and_drawn(visible(raw), size, cells)
    # Rounding in the scaling may leave [0, 1] by a hair.
    return np.clip(scale_cam_image(np.maximum(resized, 0)), 0, 1)


def _asked(model: nn.Module, layers: Layers, method: str) -> tuple[str, ...]:
    """The names of the layers that get a map; empty where they are still to be found."""
    if not METHODS[method].all_layers:
        return named_by_default(model) if layers is None else layer_names(model, layers)
    if layers is not None:
        raise ValueError(f"Method {method!r} makes one map from all layers; leave layers out, or choose another method.")
    return (ALL_LAYERS,)


def _parts(model: nn.Module, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """For each map the layers that it is made of: one, or those that a plus joins."""
    modules = {name for name, _ in model.named_modules(remove_duplicate=False)}
    return {name: parts_of(name, modules) for name in names}


def _found(logits: LogitReader, images: Tensor) -> tuple[str, ...]:
    """The last module of each resolution."""
    return last_of_each_resolution(logits, to_network(images[:1], logits.network))


@torch.no_grad()
def _passes_per_channel(logits: LogitReader, images: Tensor, names: tuple[str, ...], reshape: Reshape | None) -> int:
    """Images through the network where every channel takes a pass of its own."""
    _, layers = forward(logits, to_network(images[:1], logits.network), names, reshape)
    return len(images) * (1 + sum(layer.channels.shape[1] for layer in layers.values()))


@contextmanager
def _advance(
    logits: LogitReader, images: Tensor, names: tuple[str, ...], method: str, progress: bool, reshape: Reshape | None
) -> Iterator[Callable[[int], object]]:
    """A function that moves the progress bar by a number of forward passes; there is a bar only where there are many."""
    if not (progress and METHODS[method].pass_per_channel):
        yield lambda _passes: None
        return
    with progress_bar(_passes_per_channel(logits, images, names, reshape), METHODS[method].title, " passes") as bar:
        yield bar.update
