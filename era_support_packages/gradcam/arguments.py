"""What `gradcam.explain` takes: images, targets and layers, brought to one form or refused in one sentence."""

from collections.abc import Container, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from era_support_packages.evaluation.running import layout_problem
from era_support_packages.system.naming import nearest, nearest_names

TARGETS = ("predicted", "actual")
DEFAULT_LAYERS = ("layer1", "layer2", "layer3", "layer4")
PLUS = "+"  # between the names of layers that are to have one map

Layers = str | nn.Module | Iterable[str | nn.Module] | None
Targets = str | ArrayLike | Tensor


def checked_images(images: Tensor | np.ndarray) -> Tensor:
    """Images as a float tensor (N, channels, H, W) without gradient history; `ValueError` for anything else."""
    if isinstance(images, np.ndarray):
        images = torch.tensor(np.ascontiguousarray(images))
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        given = f"{tuple(images.shape)} {images.dtype}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a normalised float tensor (N, channels, height, width), not {given}{_hint(images)}.")
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} are empty; pass at least one image.")
    if not torch.isfinite(images).all():
        raise ValueError("images contain NaN or infinite values; check how they were normalised.")
    return images.detach()


def _hint(images: object) -> str:
    """How what was given becomes images, where that is plain."""
    if isinstance(images, list | tuple) and images and all(isinstance(image, Tensor) for image in images):
        return "; torch.stack makes one of a list"
    if not isinstance(images, Tensor):
        return ""
    if not images.is_floating_point():
        return (
            "; datasets.normalize makes one of uint8 pixels (N, height, width, 3), and Classifier.explain takes them as they are"
        )
    return "; images[None] makes a batch of a single image" if images.ndim == 3 else ""


def checked_layout(images: Tensor, model: nn.Module) -> None:
    """Raise `ValueError` where the channels are in the last axis: a network that flattens its images would take them so."""
    if sentence := layout_problem(model, images):
        raise ValueError(sentence)


def checked_confidence(confidence: object) -> None:
    """Raise `ValueError` where it names no way from logits to probabilities."""
    if confidence not in ("softmax", "sigmoid"):
        raise ValueError(
            f"confidence is {confidence!r}; give 'softmax', or 'sigmoid' for a network of several labels, whose classes do not "
            "exclude each other."
        )


def checked_reshape_function(reshape: object) -> None:
    """Raise `ValueError` where `reshape` is neither None nor a function."""
    if reshape is not None and not callable(reshape):
        raise ValueError(
            f"reshape is {reshape!r}; give a function that brings what a layer gives to (N, channels, height, width), or None."
        )


def checked_batch_size(batch_size: int) -> None:
    """Raise `ValueError` where the batch size is no positive integer."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, not {batch_size!r}.")


def class_ids(targets: Targets, labels: ArrayLike | Tensor | None, count: int) -> np.ndarray | None:
    """Class ids int64 (N, T), or None where they are the predicted ones and follow from the forward pass."""
    if isinstance(targets, str):
        if targets == "predicted":
            return None
        checked_words(targets, TARGETS)
        if labels is None:
            raise ValueError("targets 'actual' needs the labels; pass labels=, a class id for each image.")
        return _integers("labels", labels, count, f"({count},)", dimensions=(1,))
    return _integers("targets", targets, count, f"({count},) or ({count}, T)", dimensions=(1, 2))


def checked_words(targets: object, words: Sequence[str], classes: Sequence[str] = ()) -> None:
    """Raise `ValueError` for a text that is none of the words; of one that is nearly the name of a class it says the id."""
    if not isinstance(targets, str) or targets in words:
        return
    if near := nearest(targets, classes, cutoff=0.8):
        ids = f"Classes are given by their ids: targets=[[{classes.index(near[0])}]] is {near[0]!r}."
    else:
        ids = "Integer class ids are targets too."
    raise ValueError(f"Unknown targets {targets!r}: {nearest_names(targets, words)} {ids}")


def named_by_default(model: nn.Module) -> tuple[str, ...]:
    """Those of layer1 ... layer4 that the model has."""
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    return tuple(name for name in DEFAULT_LAYERS if name in names)


def layer_names(model: nn.Module, layers: str | nn.Module | Iterable[str | nn.Module]) -> tuple[str, ...]:
    """The names of the target layers in the order asked for, also of combined ones: "layer3+layer4"."""
    modules = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    asked = [layers] if isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable) else list(layers)
    if not asked:
        raise ValueError("layers is empty; name at least one layer, or pass None for the last of each resolution.")
    own = {module: name for name, module in model.named_modules() if name}
    names = []
    for layer in asked:
        name = own.get(layer) if isinstance(layer, nn.Module) else layer
        if name is None:
            raise ValueError(f"The {type(layer).__name__} in layers is not a layer of this model; pass one of its own.")
        parts = parts_of(name, modules) if isinstance(name, str) else (name,)
        for part in parts:
            if part not in list(modules):
                raise ValueError(f"Unknown layer {part!r}: {nearest_names(part, modules)}")
        if repeated := next((part for part in parts if parts.count(part) > 1), None):
            raise ValueError(f"{name!r} has {repeated!r} twice; a combined map takes each layer once.")
        names.append(name)
    return tuple(names)


def parts_of(name: str, modules: Container[str]) -> tuple[str, ...]:
    """The layers whose maps one of that name is made of; the name alone where it is a module's own.

    >>> parts_of("layer3+layer4", {"layer3", "layer4"})
    ('layer3', 'layer4')
    """
    return (name,) if name in modules else tuple(name.split(PLUS))


def _integers(name: str, given: ArrayLike | Tensor, count: int, shape: str, dimensions: tuple[int, ...]) -> np.ndarray:
    """Class ids as int64 (N, T)."""
    try:
        ids = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    except ValueError:
        raise ValueError(f"{name} must be integer class ids of shape {shape}, not lists of unequal lengths.") from None
    if ids.ndim == 2 and len(ids) == 1 and 2 in dimensions:
        ids = np.repeat(ids, count, axis=0)
    if not np.issubdtype(ids.dtype, np.integer) or ids.ndim not in dimensions or len(ids) != count or ids.size == 0:
        raise ValueError(f"{name} must be integer class ids of shape {shape}, not {ids.dtype} of shape {ids.shape}.")
    if ids.min() < 0:
        raise ValueError(f"Class id {ids.min()} is out of range: the class ids in {name} must be 0 or more.")
    return ids.reshape(count, -1).astype(np.int64)
