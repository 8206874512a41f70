"""One photo and what a network looks at in it, at the photo's own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.figure import Figure

from era_support_packages.plots.panels import check_images, fit_captions, panel_layout, panel_width
from era_support_packages.plots.style import count_lines, percent_text, styled

if TYPE_CHECKING:
    from era_support_packages.gradcam.explanation import Explanation

MOST_PIXELS = 640  # of the longer side of a panel: a figure shows no more


@styled
def photo_panel(
    photo: np.ndarray, explanation: Explanation, top: Sequence[tuple[str, float]], title: str, *, opacity: float = 0.5
) -> Figure:
    """A photo, what the network sees of it, and the map of each layer over the photo; below the input its likeliest classes.

    photo: uint8 (H, W, 3). explanation: of this one photo and one class, as `Classifier.explain` makes it of the photo brought to
    the network's size. top: names and probabilities of classes, the likeliest first. The maps are stretched to the photo, as the
    photo was squashed for the network. Raises `ValueError` for anything else.

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
    size = shown.shape[1], shown.shape[0]
    seen = cv2.resize(explanation.images[0], size, interpolation=cv2.INTER_NEAREST)
    ratios = [1.0] * (2 + len(layers))
    panel = panel_width(ratios, largest=2.6)
    likely = "\n".join(f"{name} {percent_text(sure)}" for name, sure in top)
    side = explanation.images.shape[1]
    captions = [
        f"{likely}\n(uncalibrated)",
        f"as the network saw it\n{side} x {side} px",
        *(f"{layer}\nfor {target}" for layer in layers),
    ]
    captions = fit_captions(captions, panel)
    layout = panel_layout(title, panel, shown.shape[:2], ratios, [max(map(count_lines, captions))], color_bar=True)
    layout.draw(0, 0, shown, captions[0])
    layout.draw(0, 1, seen, captions[1])
    for number in range(len(layers)):
        heat = cv2.resize(explanation.maps[0, 0, number], size, interpolation=cv2.INTER_LINEAR)
        layout.draw_map(0, 2 + number, shown, np.clip(heat, 0, 1), opacity, captions[2 + number])
    layout.draw_color_bar(f"class activation map over the photo, {percent_text(opacity)} opaque")
    return layout.figure


def _shrunk(photo: np.ndarray) -> np.ndarray:
    """The photo, no larger than a panel can show."""
    scale = MOST_PIXELS / max(photo.shape[:2])
    if scale >= 1:
        return photo
    size = max(1, round(photo.shape[1] * scale)), max(1, round(photo.shape[0] * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
