"""One photo and what a network looks at in it, at the photo's own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.figure import Figure

from era_support_packages.datasets.fitting import Fit, Fitting, unfitted
from era_support_packages.plots.panels import check_images, fit_captions, panel_layout, panel_width
from era_support_packages.plots.style import count_lines, percent_text, styled

if TYPE_CHECKING:
    from era_support_packages.gradcam.explanation import Explanation

MOST_PIXELS = 640  # of the longer side of a panel: a figure shows no more


@styled
def photo_panel(
    photo: np.ndarray,
    explanation: Explanation,
    top: Sequence[tuple[str, float]],
    title: str,
    *,
    opacity: float = 0.5,
    fit: Fit = "squash",
    temperature: float | None = None,
) -> Figure:
    """A photo, what the network sees of it, and the map of each layer over the photo; below the input its likeliest classes.

    photo: uint8 (H, W, 3). explanation: of this one photo and one class, as `Classifier.explain` makes it of the photo brought to
    the network's size. top: names and probabilities of classes, the likeliest first. fit: how (`Classifier.fit`); the
    maps lie where the network saw the photo, and what was cropped away is dark. temperature: by which the logits were divided
    for `top`; without, the probabilities are called uncalibrated. Raises `ValueError` for anything else.

    >>> import numpy as np
    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> photo = np.full((48, 64, 3), 200, np.uint8)
    >>> explanation = classifier.explain(photo, layers=["layer3", "layer4"])
    >>> len(plots.photo_panel(photo, explanation, [("3", 0.2), ("8", 0.1)], "A gray photo").axes)  # and the color bar
    5
    """
    pictures = check_images(photo[None], "photo", limit=1)
    if explanation.maps.shape[:2] != (1, 1) or explanation.images is None or explanation.classes is None:
        raise ValueError(f"The maps are {explanation.maps.shape}; give the explanation of one photo and one class.")
    layers, target = explanation.layers, explanation.classes[explanation.targets[0, 0]]
    shown = _shrunk(pictures[0])
    side = explanation.images.shape[1]
    fitting = Fitting(side, fit)
    seen = _as_seen(explanation.images[0], shown, fit)
    ratios = [1.0] * (2 + len(layers))
    panel = panel_width(ratios, largest=2.6)
    likely = "\n".join(f"{name} {percent_text(sure)}" for name, sure in top)
    captions = [
        f"{likely}\n({'uncalibrated' if temperature is None else f'calibrated, T = {temperature:.2f}'})",
        f"as the network saw it\n{side} x {side} px",
        *(f"{layer}\nfor {target}" for layer in layers),
    ]
    captions = fit_captions(captions, panel)
    layout = panel_layout(title, panel, shown.shape[:2], ratios, [max(map(count_lines, captions))], color_bar=True)
    layout.draw(0, 0, shown, captions[0])
    layout.draw(0, 1, seen, captions[1])
    for number in range(len(layers)):
        heat = unfitted(explanation.maps[0, 0, number], shown.shape[0], shown.shape[1], fitting)
        layout.draw_map(0, 2 + number, _where_seen(shown, fitting), heat, opacity, captions[2 + number])
    layout.draw_color_bar(f"class activation map over the photo, {percent_text(opacity)} opaque")
    return layout.figure


def _as_seen(square: np.ndarray, photo: np.ndarray, fit: Fit) -> np.ndarray:
    """What the network saw as large as the photo: stretched where the photo was squashed, else square in the middle of white."""
    height, width = photo.shape[:2]
    place = (slice(None), slice(None)) if fit == "squash" else Fitting(len(square), "crop").place(height, width)
    canvas = np.full_like(photo, 255)
    rows, columns = canvas[place].shape[:2]
    canvas[place] = cv2.resize(square, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return canvas


def _where_seen(photo: np.ndarray, fitting: Fitting) -> np.ndarray:
    """The photo, dark where it was cropped away."""
    place = fitting.place(*photo.shape[:2])
    dark = photo // 3
    dark[place] = photo[place]
    return dark


def _shrunk(photo: np.ndarray) -> np.ndarray:
    """The photo, no larger than a panel can show."""
    scale = MOST_PIXELS / max(photo.shape[:2])
    if scale >= 1:
        return photo
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
