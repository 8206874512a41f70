"""Figures of images: grids of samples and mistakes, and class activation maps over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from era_support_packages.plots.panels import (
    check_count,
    check_ids,
    check_images,
    check_some,
    check_unit_interval,
    fit_captions,
    nearest_text,
    panel_layout,
    panel_width,
    row_labels,
    shape_text,
)
from era_support_packages.plots.style import MAX_BLOCK_COLUMNS, MAX_IMAGES, MAX_VARIANTS, count_lines, percent_text, styled

# ---- image grids -----------------------------------------------------------------------------------------------------


@styled
def image_grid(images: np.ndarray, captions: Sequence[str], title: str, columns: int = 5) -> Figure:
    """Images in rows, each under its caption.

    `images` uint8 (N, H, W, 3) RGB with 1 <= N <= 400; `captions` N texts, "" for none; `columns` 1 to 10.
    Raises ValueError for anything else.
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
def augmented_grid(originals: np.ndarray, variants: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """A row per image: the original, then what augmentation made of it; its caption at the left.

    `originals` uint8 (N, H, W, 3); `variants` uint8 (N, V, H, W, 3) with 1 <= V <= 12; `captions` N texts.
    Raises ValueError for anything else.
    """
    originals = check_images(originals, "originals", limit=MAX_IMAGES)
    variants = np.asarray(variants)
    number, *size = originals.shape
    if variants.ndim != 5 or variants.dtype != np.uint8 or variants[:, 0:0].shape != (number, 0, *size):
        raise ValueError(
            f"variants must be uint8 of shape {shape_text((number, 'V', *size))}, for originals of shape "
            f"{shape_text(originals.shape)}; got {variants.dtype} of shape {shape_text(variants.shape)}."
        )
    if not 1 <= variants.shape[1] <= MAX_VARIANTS:
        raise ValueError(f"variants holds {variants.shape[1]} for each image; give from 1 to {MAX_VARIANTS}.")
    check_count(captions, len(originals), "captions")
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


def incorrect_predictions(
    images: np.ndarray,
    predicted: np.ndarray,
    confidences: np.ndarray,
    actual: np.ndarray,
    classes: Sequence[str],
    title: str,
    columns: int = 5,
) -> Figure:
    """Predictions, captioned "predicted cat (83 %)" and below it "actual dog", or "right (83 %)" and below it "cat".

    `images` uint8 (N, H, W, 3), not normalised; `predicted`, `actual` class ids (N,); `confidences` (N,) in [0, 1], of
    the predicted class. Raises ValueError for shapes, ids or confidences out of range.
    """
    images = check_images(images, "images", limit=MAX_IMAGES)
    predicted = check_ids(predicted, len(images), classes, "predicted")
    actual = check_ids(actual, len(images), classes, "actual")
    confidences = check_unit_interval(confidences, (len(images),), "confidences")
    captions = [
        f"right ({percent_text(confidence)})\n{classes[truth]}"
        if guess == truth
        else f"predicted {classes[guess]} ({percent_text(confidence)})\nactual {classes[truth]}"
        for guess, confidence, truth in zip(predicted, confidences, actual, strict=True)
    ]
    return image_grid(images, captions, title, columns)


# ---- class activation maps ---------------------------------------------------------------------------------------------


@styled
def gradcam_panels(
    images: np.ndarray,
    maps: np.ndarray,
    layers: Sequence[str],
    predicted: np.ndarray,
    actual: np.ndarray,
    classes: Sequence[str],
    title: str,
    opacity: float = 0.5,
) -> Figure:
    """A column per image: the input, then the map of each layer over it; captions say actual and predicted class, or "right".

    `images` uint8 (N, H, W, 3), not normalised; `maps` (N, L, H, W) in [0, 1]; `layers` L labels for the rows;
    `predicted`, `actual` class ids (N,). More than ten images continue in further blocks of rows. Raises ValueError for
    anything else.
    """
    images = check_images(images, "images", limit=MAX_IMAGES // 4)
    check_some(layers, "layers")
    maps = check_unit_interval(maps, (len(images), len(layers), *images.shape[1:3]), "maps")
    predicted = check_ids(predicted, len(images), classes, "predicted")
    actual = check_ids(actual, len(images), classes, "actual")
    blocks = math.ceil(len(images) / MAX_BLOCK_COLUMNS)
    columns = math.ceil(len(images) / blocks)  # blocks of about the same size, instead of ten and a remainder
    labels, left = row_labels(["INPUT", *layers])
    panel = panel_width([1] * columns, largest=1.5, left=left)
    captions = fit_captions(
        [
            f"right\n{classes[truth]}" if guess == truth else f"actual {classes[truth]}\npredicted {classes[guess]}"
            for truth, guess in zip(actual, predicted, strict=True)
        ],
        panel,
    )
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
def gradcam_comparison(
    images: np.ndarray,
    maps: np.ndarray,
    layers: Sequence[str],
    predicted: np.ndarray,
    actual: np.ndarray,
    confidences: np.ndarray,
    classes: Sequence[str],
    title: str,
    layer: str | None = None,
    opacity: float = 0.5,
    rivals: np.ndarray | None = None,
) -> Figure:
    """For each image: the input, the map for the predicted class, and the map for a second one, at one layer.

    The second class is the actual one; where the prediction is right it is another, which the caption calls the runner-up.

    `images` uint8 (N, H, W, 3), not normalised; `maps` (N, 2, L, H, W) in [0, 1], for the predicted and then the second
    class; `layers` L names; `predicted`, `actual` class ids (N,); `confidences` (N, 2) in [0, 1], of the predicted and
    the second class; `layer` one of `layers`, None for the last; `rivals` (N,) the second classes, as
    `predictions.Predictions.rivals` gives them, needed where a prediction is right. Raises ValueError for anything else.
    """
    images = check_images(images, "images", limit=MAX_IMAGES // 4)
    check_some(layers, "layers")
    maps = check_unit_interval(maps, (len(images), 2, len(layers), *images.shape[1:3]), "maps")
    predicted = check_ids(predicted, len(images), classes, "predicted")
    actual = check_ids(actual, len(images), classes, "actual")
    rivals = actual if rivals is None else check_ids(rivals, len(images), classes, "rivals")
    _check_rivals(predicted, actual, rivals, classes)
    confidences = check_unit_interval(confidences, (len(images), 2), "confidences")
    layer = layers[-1] if layer is None else layer
    if layer not in layers:
        raise ValueError(f"there is no map of layer {layer!r}; {nearest_text(layer, layers)}.")
    chosen = maps[:, :, list(layers).index(layer)]

    groups = min(len(images), 2 if len(images) <= 10 else 3)  # images side by side, each with its three panels
    ratios = [*[1, 1, 1, 0.25] * groups][:-1]  # a gap between two images
    panel = panel_width(ratios, largest=1.5)
    names = [
        (
            f"{'right:' if guess == truth else 'predicted'} {classes[guess]}\n{percent_text(sure[0])}",
            f"{'runner-up:' if guess == truth else 'actual'} {classes[rival]}\n{percent_text(sure[1])}",
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


def _check_rivals(predicted: np.ndarray, actual: np.ndarray, rivals: np.ndarray, classes: Sequence[str]) -> None:
    same = np.flatnonzero(predicted == rivals)
    if same.size:
        raise ValueError(
            f"image {same[0]} would show the map for {classes[predicted[same[0]]]} twice, as the prediction is right; "
            "give rivals, the classes to show beside the predicted ones, such as the runners-up."
        )
    other = np.flatnonzero((predicted != actual) & (rivals != actual))
    if other.size:
        raise ValueError(
            f"image {other[0]} is a wrong prediction, but its rival is {classes[rivals[other[0]]]} and not the actual class, "
            f"{classes[actual[other[0]]]}; give the actual class there."
        )
