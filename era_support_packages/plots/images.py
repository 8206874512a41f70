"""Figures of images: grids of samples and mistakes, and class activation maps over them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from era_support_packages.plots.panels import (
    check_count,
    check_ids,
    check_images,
    check_some,
    check_unit_interval,
    fit_captions,
    panel_layout,
    panel_width,
    row_labels,
    shape_text,
)
from era_support_packages.plots.style import MAX_BLOCK_COLUMNS, MAX_IMAGES, MAX_VARIANTS, count_lines, percent_text, styled
from era_support_packages.system.naming import nearest_names

if TYPE_CHECKING:
    from era_support_packages.datasets.batches import AugmentedImages
    from era_support_packages.evaluation.predictions import Predictions
    from era_support_packages.gradcam.explanation import Explanation

# ---- image grids -----------------------------------------------------------------------------------------------------


@styled
def image_grid(images: np.ndarray, captions: Sequence[str], title: str, columns: int = 5) -> Figure:
    """Images in rows, each under its caption.

    `images` uint8 (N, H, W, 3) RGB with 1 <= N <= 400; `captions` N texts, "" for none; `columns` 1 to 10.
    Raises ValueError for anything else.

    >>> import numpy as np
    >>> from era_support_packages import plots
    >>> figure = plots.image_grid(np.zeros((2, 8, 8, 3), np.uint8), ["black", "black too"], "Two images")
    >>> len(figure.axes)
    2
    """
    images = check_images(images, "images", limit=MAX_IMAGES)
    check_count(captions, len(images), "captions")
    if columns not in range(1, MAX_BLOCK_COLUMNS + 1):
        raise ValueError(f"columns is {columns}; it must be a whole number from 1 to {MAX_BLOCK_COLUMNS}.")
    columns = min(columns, len(images))
    panel = panel_width([1] * columns, largest=1.9)
    captions = fit_captions(captions, panel)
    rows = [captions[start : start + columns] for start in range(0, len(images), columns)]
    layout = panel_layout(title, panel, images.shape[1:3], [1] * columns, [max(map(count_lines, row)) for row in rows])
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        layout.draw(*divmod(index, columns), image, caption)
    return layout.figure


@styled
def augmented_grid(augmented: AugmentedImages, title: str) -> Figure:
    """A row per image: the original, then what augmentation made of it; the name of its class at the left.

    `augmented` holds at most 400 images with 1 to 12 variants each. Raises ValueError for anything else.

    >>> from era_support_packages import load, plots
    >>> from era_support_packages.datasets import AugmentationPolicy, augmented_variants
    >>> train, _ = load("digits")
    >>> augmented = augmented_variants(train, train.evenly_spread(2), AugmentationPolicy(crop_padding=4), count=3)
    >>> figure = plots.augmented_grid(augmented, "Two images, three variants each")
    >>> len(figure.axes)
    8
    """
    originals = check_images(augmented.originals, "originals", limit=MAX_IMAGES)
    captions, variants = augmented.names, np.asarray(augmented.variants)
    number, *size = originals.shape
    if variants.ndim != 5 or variants.dtype != np.uint8 or variants[:, 0:0].shape != (number, 0, *size):
        raise ValueError(
            f"variants must be uint8 of shape {shape_text((number, 'V', *size))}, for originals of shape "
            f"{shape_text(originals.shape)}; got {variants.dtype} of shape {shape_text(variants.shape)}."
        )
    if not 1 <= variants.shape[1] <= MAX_VARIANTS:
        raise ValueError(f"variants holds {variants.shape[1]} for each image; give from 1 to {MAX_VARIANTS}.")
    check_count(captions, len(originals), "names")
    columns = 1 + variants.shape[1]
    labels, left = row_labels(captions)
    panel = panel_width([1] * columns, largest=1.3, left=left)
    headings = fit_captions(["original", *(f"variant {index}" for index in range(1, columns))], panel)
    caption_lines = [max(map(count_lines, headings))] + [0] * (len(originals) - 1)
    layout = panel_layout(title, panel, originals.shape[1:3], [1] * columns, caption_lines, left=left)
    for row, (original, changed, label) in enumerate(zip(originals, variants, labels, strict=True)):
        for column, image in enumerate([original, *changed]):
            layout.draw(row, column, image, headings[column] if row == 0 else "", label if column == 0 else "")
    return layout.figure


def incorrect_predictions(predictions: Predictions, indices: np.ndarray, title: str, *, columns: int = 5) -> Figure:
    """Some predictions, captioned "predicted cat (83 %)" and below it "actual dog", or "right (83 %)" and below it "cat".

    `predictions` with labels and images; `indices` (N,) at most 400 of them, such as `predictions.hardest(10)`; `columns` 1 to
    10. Raises ValueError for anything else.

    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> predictions = classifier.predict(test, range(20))
    >>> figure = plots.incorrect_predictions(predictions, predictions.hardest(2), "Two mistakes")
    >>> len(figure.axes)
    2
    """
    chosen = predictions.take(indices)
    images = check_images(chosen.pictures, "images", limit=MAX_IMAGES)
    classes, predicted, actual, confidences = chosen.classes, chosen.predicted, chosen.actual, chosen.confidences
    captions = [
        f"right ({percent_text(confidence)})\n{classes[truth]}"
        if guess == truth
        else f"predicted {classes[guess]} ({percent_text(confidence)})\nactual {classes[truth]}"
        for guess, confidence, truth in zip(predicted, confidences, actual, strict=True)
    ]
    return image_grid(images, captions, title, columns)


# ---- class activation maps ---------------------------------------------------------------------------------------------


@styled
def gradcam_panels(explanation: Explanation, title: str, *, opacity: float = 0.5) -> Figure:
    """A column per image: the input, then the map of each layer over it; captions say actual and predicted class, or "right".

    The maps are those of the first class explained of each image. `explanation` as `Classifier.explain` makes it, of at most
    100 images. More than ten continue in further blocks of rows. Raises ValueError for anything else.

    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> explanation = classifier.explain(test, [0, 1], layers=["layer3", "layer4"])
    >>> figure = plots.gradcam_panels(explanation, "Two digits")
    >>> figure.get_suptitle()
    'Two digits'
    """
    images, classes, predicted, actual = _explained(explanation)
    layers = explanation.layers
    maps = check_unit_interval(explanation.maps[:, 0], (len(images), len(layers), *images.shape[1:3]), "maps")
    blocks = math.ceil(len(images) / MAX_BLOCK_COLUMNS)
    columns = math.ceil(len(images) / blocks)  # blocks of about the same size, instead of ten and a remainder
    labels, left = row_labels(["INPUT", *layers])
    panel = panel_width([1] * columns, largest=1.5, left=left)
    captions = fit_captions([_panel_caption(*ids, classes) for ids in zip(predicted, actual, strict=True)], panel)
    caption_lines = ([max(map(count_lines, captions))] + [0] * len(layers)) * blocks
    layout = panel_layout(title, panel, images.shape[1:3], [1] * columns, caption_lines, left=left, color_bar=True)
    for index, image in enumerate(images):
        block, column = divmod(index, columns)
        first_row = block * len(labels)
        layout.draw(first_row, column, image, captions[index], labels[0] if column == 0 else "")
        for layer, heat in enumerate(maps[index], start=1):
            layout.draw_map(first_row + layer, column, image, heat, opacity, "", labels[layer] if column == 0 else "")
    layout.draw_color_bar(f"class activation map over the input, {percent_text(opacity)} opaque")
    return layout.figure


@styled
def gradcam_comparison(explanation: Explanation, title: str, *, layer: str | None = None, opacity: float = 0.5) -> Figure:
    """For each image: the input, the map for the predicted class, and the map for a second one, at one layer.

    The second class is the actual one; where the prediction is right it is another, which the caption calls the runner-up.

    `explanation` of two classes each of at most 100 images, as `Classifier.explain` makes it with `targets="contrast"`;
    `layer` one of its layers, None for the last. Raises ValueError for anything else.

    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> explanation = classifier.explain(test, [0, 1], targets="contrast", layers=["layer3", "layer4"])
    >>> figure = plots.gradcam_comparison(explanation, "Why this class and not that one?", layer="layer3")
    >>> figure.get_suptitle()
    'Why this class and not that one?'
    """
    images, classes, predicted, actual = _explained(explanation)
    layers = explanation.layers
    maps = check_unit_interval(explanation.maps, (len(images), 2, len(layers), *images.shape[1:3]), "maps")
    first, rivals = check_ids(explanation.targets, (len(images), 2), classes, "targets").T
    _check_rivals(predicted, actual, first, rivals, classes)
    confidences = check_unit_interval(explanation.confidences, (len(images), 2), "confidences")
    layer = layers[-1] if layer is None else layer
    if layer not in layers:
        raise ValueError(f"There is no map of layer {layer!r}: {nearest_names(layer, layers)}")
    chosen = maps[:, :, list(layers).index(layer)]

    groups = min(len(images), 2 if len(images) <= 10 else 3)  # images side by side, each with its three panels
    ratios = [*[1, 1, 1, 0.25] * groups][:-1]  # a gap between two images
    panel = panel_width(ratios, largest=1.5)
    names = [
        (
            f"{'right:' if guess == truth else 'predicted'} {classes[guess]}\n{percent_text(sure[0])}",
            f"{'actual' if truth == rival else 'runner-up:'} {classes[rival]}\n{percent_text(sure[1])}",
        )
        for guess, truth, rival, sure in zip(predicted, actual, rivals, confidences, strict=True)
    ]
    flat = fit_captions([caption for pair in names for caption in pair], panel)
    rows = math.ceil(len(images) / groups)
    caption_lines = [max(map(count_lines, flat))] * rows
    layout = panel_layout(title, panel, images.shape[1:3], ratios, caption_lines, color_bar=True)
    for index, image in enumerate(images):
        row, group = divmod(index, groups)
        layout.draw(row, 3 * group, image, "INPUT")
        for target in range(2):
            caption = flat[2 * index + target]
            layout.draw_map(row, 3 * group + 1 + target, image, chosen[index, target], opacity, caption)
    layout.draw_color_bar(f"class activation map of {layer} over the input, {percent_text(opacity)} opaque")
    return layout.figure


def _explained(explanation: Explanation) -> tuple[np.ndarray, Sequence[str], np.ndarray, np.ndarray]:
    """Images, class names, predicted and actual ids of an explanation; an id of -1 where the actual class is not known."""
    images = check_images(explanation.pictures, "images", limit=MAX_IMAGES // 4)
    check_some(explanation.layers, "layers")
    predicted = check_ids(explanation.predicted, (len(images),), explanation.classes, "predicted")
    if explanation.labels is None:
        return images, explanation.classes, predicted, np.full(len(images), -1)
    return images, explanation.classes, predicted, check_ids(explanation.labels, (len(images),), explanation.classes, "labels")


def _panel_caption(guess: int, truth: int, classes: Sequence[str]) -> str:
    if truth == -1:
        return f"predicted {classes[guess]}"
    return f"right\n{classes[truth]}" if guess == truth else f"actual {classes[truth]}\npredicted {classes[guess]}"


def _check_rivals(
    predicted: np.ndarray, actual: np.ndarray, first: np.ndarray, rivals: np.ndarray, classes: Sequence[str]
) -> None:
    for index, (guess, truth, own, rival) in enumerate(zip(predicted, actual, first, rivals, strict=True)):
        wanted = "" if guess == truth or truth == -1 else f" and {classes[truth]}"
        if own != guess or rival == guess or (wanted and rival != truth):
            raise ValueError(
                f"image {index} is explained for {classes[own]} and {classes[rival]}, but a comparison sets the predicted class "
                f"beside another, here {classes[guess]}{wanted}; explain it with targets='contrast'."
            )
