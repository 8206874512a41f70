"""Faithfulness: does a class activation map mark the pixels that the network uses, and does it so better than chance?

Every map is judged by what happens to the confidence when pixels are removed in its order, beside maps that know nothing
about the network or about the image. What counts is the difference to these baselines on the same images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import random_indices
from era_support_packages.evaluation.cautions import told_once
from era_support_packages.evaluation.images import Images
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.gradcam.arguments import checked_images
from era_support_packages.gradcam.explanation import Explanation, default_layers, explain
from era_support_packages.gradcam.layouts import Reshape
from era_support_packages.gradcam.methods import METHODS, check_method
from era_support_packages.trust.baselines import RANDOM_STREAM, centered_gaussian, derangement, random_maps
from era_support_packages.trust.faithfulness.perturbation import (
    Subject,
    blurred,
    confidence_meter,
    confidences_of_masked,
    replaced_curves,
    road,
)
from era_support_packages.trust.faithfulness.removal import Unit, check_unit, curve_counts, patch_grid, removal_order
from era_support_packages.trust.faithfulness.result import (
    GAUSSIAN,
    OTHER_IMAGE,
    PIXEL_NOISE,
    RANDOM,
    Faithfulness,
    MapScores,
)

LAYERS = 3
"""of the default layers, how many are judged: the last, since the first have as many places as the image has pixels"""


def evaluate(
    classifier: Classifier,
    images: Images,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    count: int = 24,
    seed: int = 0,
    **options: Any,
) -> Faithfulness:
    """Judge the maps of a classifier on some images, as `judge` describes it.

    Args:
        classifier: the network, with all that its predictions depend on.
        images: a split, predictions, uint8 pixels or files, as `Classifier.predict` takes them.
        indices: which images of a split or of predictions; None draws `count` of them by `seed`, without repeats.
        count: how many are drawn, all where there are fewer; 32 or more separate methods better.
        seed: also of the baselines, the ties between pixels, the noise of ROAD, and the intervals.
        options: `targets`, `methods`, `layers`, `percentiles`, `steps`, `unit` and `batch_size` as for `judge`.

    Raises `ValueError` where an argument is not as described.

    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.faithfulness import evaluate
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> result = evaluate(classifier, test, [0, 5], layers=["1"], steps=2, percentiles=[50])
    >>> [row.label for row in result.methods], len(result)
    (['Grad-CAM 1', 'HiResCAM 1'], 2)
    """
    if indices is None and isinstance(images, ImageDataset | Predictions):
        indices = random_indices(len(images), count, seed)
    options = {"precision": classifier.precision, **options}
    return judge(classifier.network, classifier.inputs(images, indices), seed=seed, **options)


@told_once
def judge(
    model: nn.Module,
    images: Tensor | np.ndarray,
    targets: ArrayLike | Tensor | None = None,
    *,
    methods: Sequence[str] = ("gradcam", "hirescam"),
    layers: str | nn.Module | Sequence[str | nn.Module] | None = None,
    percentiles: Sequence[float] = (20, 50, 80),
    steps: int = 6,
    unit: Unit = "auto",
    seed: int = 0,
    batch_size: int = 64,
    precision: str = "fp32",
    reshape: Reshape | None = None,
) -> Faithfulness:
    """Judge the maps of `methods` at `layers` on N images by ROAD, deletion, insertion and the image times its map.

    Removed pixels become what their neighbours suggest (ROAD), the mean colour, which is 0 (deletion, image times map), or stay
    blurred (insertion). Deletion and insertion are the areas under their curves by the trapezoidal rule. The confidence drop is
    max(0, before - after), the confidence increase 1 where after is above before, the average drop max(0, before - after) /
    before, after being the confidence on the image times its map (Chattopadhay et al. 2018, section 4.1).

    Baselines have the layer's grid and are brought to the image's size as the maps are: uniform random values, a centred
    Gaussian of a quarter of the grid, and the map that the same method gives for another of the images (for that image's own
    class). Pixel noise has a value of its own for every pixel. The model is left as it was found, and no global random state
    is touched; the same arguments give the same numbers. `image_passes` says what it costs.

    From images larger than 32 px, no single pixels are removed but patches: the cells of the layer's grid, or of 32 x 32 where it
    is finer, in the order of their mean values. The baselines of a layer lose the same patches, and pixel noise those of 32 x 32.

    Args:
        model: maps float images to logits (N, classes).
        images: float (N, channels, H, W), normalised, N at least 2 (32 or more to separate methods).
        targets: integer class ids (N,); None for the predicted ones.
        methods: keys of `gradcam.METHODS`.
        layers: as `gradcam.explain` takes them, None for the last three of `gradcam.default_layers`; FullGrad has one map for
            all layers, whatever is given.
        percentiles: of ROAD, between 0 and 100.
        steps: of each curve, from 2 to the number of pixels.
        unit: what is removed at a time: "pixel", "cell" (a patch as said above), or "auto", which goes by the images' size.
        seed: of the baselines, the ties between pixels, the noise of ROAD, and the intervals.
        batch_size: images per forward pass.
        precision: of the forward passes, as `predictions.predict` takes it; the maps are computed in float32.
        reshape: as for `gradcam.explain`.

    Raises:
        ValueError: an argument is not as described; found before any forward pass, but for what `gradcam.explain` says.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages.trust.faithfulness import judge
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> result = judge(network, torch.rand(2, 3, 16, 16), methods=["gradcam"], layers=["1"], steps=2, percentiles=[50])
    >>> [row.label for row in (*result.methods, *result.baselines)]
    ['Grad-CAM 1', 'random map 1', 'centred Gaussian 1', 'Grad-CAM of another image 1', 'pixel noise']
    """
    images = checked_images(images)
    _check(images, targets, methods, percentiles, steps)
    check_unit(unit)
    if layers is None and not all(METHODS[method].all_layers for method in methods):
        layers = default_layers(model, images[:1])[-LAYERS:]
    other_images = derangement(len(images), seed)
    explanations: list[Explanation] = []
    for method in methods:
        # The first says which classes are predicted, and all explain the same.
        classes = explanations[0].targets[:, 0] if explanations else "predicted" if targets is None else targets
        own_layers = None if METHODS[method].all_layers else layers
        explanations.append(explain(model, images, classes, own_layers, method, batch_size=batch_size, reshape=reshape))
    class_ids = explanations[0].targets[:, 0]
    images = images.float().cpu()
    maps = {**_method_maps(explanations), **_baseline_maps(explanations, other_images, seed)}
    patches = _patch_grids(explanations, unit)

    total = _forward_passes(len(images), len(maps), len(percentiles), steps)
    with confidence_meter(model, precision, batch_size, total) as probabilities:
        ends = _curve_ends(Subject(probabilities, images, class_ids))
        rows = [_score(ends, key, maps[key], patches[key[1]], percentiles, steps, seed) for key in maps]
    return Faithfulness(
        methods=tuple(row for row in rows if row.name in methods),
        baselines=tuple(row for row in rows if row.name not in methods),
        targets=class_ids,
        confidences=ends.before,
        shares=curve_counts(images.shape[2] * images.shape[3], steps) / (images.shape[2] * images.shape[3]),
        percentiles=tuple(percentiles),
        other_images=other_images,
        seed=seed,
    )


def image_passes(
    count: int, methods: int, layers: int, *, percentiles: int = 3, steps: int = 6, passes_per_system: float = 1.0
) -> int:
    """How many images `judge` sends through the network for that many images, gradient methods and layers.

    A backward pass counts double, and each linear system of ROAD as `passes_per_system`: on a CPU it takes about as long as a
    forward pass of a ResNet18 for images of that size. The passes for each channel of Score-CAM and Ablation-CAM come on top:
    `gradcam.image_passes` knows them.
    """
    maps = 2 * methods * layers + 2 * layers + 1  # each method and its borrowed maps, two baselines a layer, pixel noise
    explanations, systems = 3 * count * methods, 2 * count * maps * percentiles
    return _forward_passes(count, maps, percentiles, steps) + explanations + round(passes_per_system * systems)


def _forward_passes(count: int, maps: int, percentiles: int, steps: int) -> int:
    """How many changed images the network is asked about, for `maps` rows on `count` images."""
    return count * (3 + maps * (2 * percentiles + 1 + 2 * (steps - 1)))


# ---- parts of judge -------------------------------------------------------------------------------------------------

Key = tuple[str, str, str]  # name, layer and method of `MapScores`


def _check(
    images: Tensor,
    targets: ArrayLike | Tensor | None,
    methods: Sequence[str],
    percentiles: Sequence[float],
    steps: int,
) -> None:
    if isinstance(methods, str) or len(methods) == 0 or len(set(methods)) < len(methods):
        raise ValueError(f"methods is {methods!r}; give a list of at least one method, none of them twice.")
    for method in methods:
        check_method(method)
    if targets is not None and np.ndim(targets) != 1:
        raise ValueError(f"targets is of shape {np.shape(targets)}; give one class id for each image, or None for the predicted.")
    if len(percentiles) == 0 or not all(0 < percentile < 100 for percentile in percentiles):
        raise ValueError(f"percentiles is {percentiles!r}; give at least one number between 0 and 100.")
    if len(images) < 2:
        raise ValueError(f"There is {len(images)} image; at least 2 are needed, as each borrows the map of another one.")
    pixels = images.shape[2] * images.shape[3]
    if not isinstance(steps, int) or not 2 <= steps <= pixels:
        raise ValueError(f"steps is {steps!r}; it must be a whole number from 2 to the {pixels} pixels of an image.")


def _method_maps(explanations: Sequence[Explanation]) -> dict[Key, np.ndarray]:
    return {
        (explanation.method, layer, explanation.method): explanation.maps[:, 0, index]
        for explanation in explanations
        for index, layer in enumerate(explanation.layers)
    }


def _baseline_maps(explanations: Sequence[Explanation], other_images: np.ndarray, seed: int) -> dict[Key, np.ndarray]:
    """Maps (N, H, W) that know nothing: on each layer's grid random and centred, each method's of other images, pixel noise."""
    generator = np.random.default_rng([seed, RANDOM_STREAM])
    count, *_, height, width = explanations[0].maps.shape
    size = (height, width)
    maps: dict[Key, np.ndarray] = {}
    placed = {layer: own for e in explanations for layer, own in zip(e.layers, zip(e.grids, e.cells, strict=True), strict=True)}
    for layer, (grid, cells) in placed.items():
        maps[RANDOM, layer, ""] = random_maps(count, grid, size, generator, cells)
        maps[GAUSSIAN, layer, ""] = np.repeat(centered_gaussian(grid, size, cells)[None], count, axis=0)
    for (method, layer, _), own in _method_maps(explanations).items():
        maps[OTHER_IMAGE, layer, method] = own[other_images]
    maps[PIXEL_NOISE, "", ""] = random_maps(count, size, size, generator)
    return maps


def _patch_grids(explanations: Sequence[Explanation], unit: Unit) -> dict[str, tuple[int, int]]:
    """What is removed at a time by the maps of each layer and by pixel noise (""), as a grid over the image."""
    height, width = explanations[0].maps.shape[3:]
    grids = {layer: grid for found in explanations for layer, grid in zip(found.layers, found.grids, strict=True)}
    return {layer: patch_grid(grid, (height, width), unit) for layer, grid in {**grids, "": (height, width)}.items()}


@dataclass(frozen=True, eq=False)
class _CurveEnds:
    """What all maps share: the images, untouched and with nothing left, and the confidences (N,) on them."""

    subject: Subject
    blurred: Tensor
    before: np.ndarray
    on_mean_color: np.ndarray
    on_blurred: np.ndarray


def _curve_ends(subject: Subject) -> _CurveEnds:
    hidden = blurred(subject.images)
    whole = (subject.images, torch.zeros_like(subject.images), hidden)
    return _CurveEnds(subject, hidden, *(subject.confidences(images) for images in whole))


def _score(
    ends: _CurveEnds,
    key: Key,
    maps: np.ndarray,
    patches: tuple[int, int],
    percentiles: Sequence[float],
    steps: int,
    seed: int,
) -> MapScores:
    """All metrics of one map (H, W) for each image."""
    subject, images, before = ends.subject, ends.subject.images, ends.before
    order = removal_order(maps, seed, patches)
    counts = curve_counts(order.units, steps)
    shares, between = counts / order.units, counts[1:-1].tolist()
    removed = replaced_curves(subject, order, between, images, torch.zeros_like(images))
    inserted = replaced_curves(subject, order, between, ends.blurred, images)
    deletion = np.column_stack([before, removed, ends.on_mean_color])
    insertion = np.column_stack([ends.on_blurred, inserted, before])
    after = confidences_of_masked(subject, maps)
    drop = np.maximum(before - after, 0)
    scores = {
        "road": road(subject, order, percentiles, seed),
        "deletion": trapezoid(deletion, shares, axis=1),
        "insertion": trapezoid(insertion, shares, axis=1),
        "confidence_drop": drop,
        "confidence_increase": (after > before).astype(np.float64),
        "average_drop": np.divide(drop, before, out=np.zeros_like(drop), where=before > 0),
    }
    constant = int((np.ptp(maps, axis=(1, 2)) == 0).sum())
    return MapScores(*key, scores, deletion, insertion, constant, None if patches == maps.shape[1:] else patches)
