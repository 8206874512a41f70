"""One image under every method: the maps as values, and how many passes through the network they take."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import normalize_images, unnormalize
from era_support_packages.gradcam import explanation as gradcam


@dataclass(frozen=True, eq=False)
class Exploration:
    """The class activation maps of one image for one class, by every method at every layer."""

    image: np.ndarray
    """uint8 (H, W, 3), not normalised"""
    class_id: int
    confidence: float
    """softmax probability of the class, in [0, 1]"""
    explanations: tuple[gradcam.Explanation, ...]
    """one for each method, each of one image and one class"""


def explore(
    model: nn.Module,
    dataset: ImageDataset,
    index: int,
    class_id: int,
    resolution: int | None = None,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> Exploration:
    """Explain image number `index` for a class by every method, seen at `resolution` px (None keeps the image's size).

    `methods` are keys of `gradcam.METHODS`, None for all; `layers` as for `gradcam.explain`. Score-CAM and Ablation-CAM take a
    forward pass for each channel, `cost` says how many. Raises `ValueError` for an index, class, layer or method that is not
    there, before anything is computed.
    """
    methods = tuple(gradcam.METHODS) if methods is None else tuple(methods)
    for method in methods:
        gradcam.check_method(method)
    check_index(index, len(dataset), "index", "images")
    check_index(class_id, len(dataset.classes), "class_id", "classes")
    images = normalize_images(dataset, np.array([index]), resolution)

    def one(method: str) -> gradcam.Explanation:
        return gradcam.explain(model, images, [class_id], layers_of(method, layers), method)

    explanations = tuple(map(one, methods))
    pixels = unnormalize(images, dataset.mean, dataset.std)[0]
    return Exploration(pixels, class_id, float(explanations[0].confidences[0, 0]), explanations)


def cost(
    model: nn.Module,
    dataset: ImageDataset,
    resolution: int | None = None,
    layers: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> int:
    """How many images `explore` sends through the network, known before it starts."""
    images = normalize_images(dataset, np.array([0]), resolution)
    methods = tuple(gradcam.METHODS) if methods is None else tuple(methods)
    return sum(gradcam.forward_passes(model, images, layers_of(method, layers), method) for method in methods)


def layers_of(method: str, layers: Sequence[str] | None) -> Sequence[str] | None:
    return None if gradcam.METHODS[method].all_layers else layers


def check_index(value: int, count: int, name: str, what: str) -> None:
    if not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise ValueError(f"{name} is {value!r}; there are {count} {what}, so give a whole number from 0 to {count - 1}.")
