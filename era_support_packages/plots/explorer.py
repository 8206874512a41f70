"""The figure of one image under every method at every layer."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from era_support_packages.gradcam.explanation import ALL_LAYERS
from era_support_packages.gradcam.exploration import Exploration
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.plots.panels import PanelLayout, check_some, fit_captions, panel_layout, panel_width, row_labels
from era_support_packages.plots.style import count_lines, percent_text, styled


@styled
def exploration(found: Exploration, title: str, opacity: float = 0.5) -> Figure:
    """A row for each method, a column for each layer; a method that makes one map from all layers has it in the last column.

    The input stands at the left of the first row. Raises ValueError where nothing was explained.

    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> found = classifier.explore(test, index=0, methods=["gradcam", "eigencam"], layers=["layer3", "layer4"])
    >>> figure = plots.exploration(found, "One digit, two methods")
    >>> figure.get_suptitle()
    'One digit, two methods'
    """
    check_some(found.explanations, "explanations")
    layers = next((each.layers for each in found.explanations if each.layers != (ALL_LAYERS,)), (ALL_LAYERS,))
    labels, left = row_labels([_label(each.method) for each in found.explanations])
    columns = 1 + len(layers)
    panel = panel_width([1] * columns, largest=1.05, left=left)
    captions = [
        fit_captions([_caption(*own) for own in zip(each.layers, each.grids, strict=True)], panel) for each in found.explanations
    ]
    top = next(row for row, each in enumerate(found.explanations) if each.layers == layers)
    named = [row in (0, top) or each.layers == (ALL_LAYERS,) for row, each in enumerate(found.explanations)]
    lines = [max(map(count_lines, own)) * shown for own, shown in zip(captions, named, strict=True)]
    layout = panel_layout(title, panel, found.image.shape[:2], [1] * columns, lines, left=left, color_bar=True)
    for row, each in enumerate(found.explanations):
        maps = each.maps[0, 0]
        first = columns - len(maps)
        if row == 0:
            layout.draw(0, 0, found.image, "INPUT", labels[0])
        else:
            _empty(layout, row, labels[row])
        for column, (heat, caption) in enumerate(zip(maps, captions[row], strict=True), start=first):
            layout.draw_map(row, column, found.image, heat, opacity, caption if named[row] else "")
    layout.draw_color_bar(f"class activation map over the input, {percent_text(opacity)} opaque")
    return layout.figure


def _label(method: str) -> str:
    chosen = METHODS[method]
    return chosen.title if chosen.class_specific else f"{chosen.title} (no class)"


def _caption(layer: str, grid: Sequence[int]) -> str:
    return layer if layer == ALL_LAYERS else f"{layer}, {grid[0]}x{grid[1]}"


def _empty(layout: PanelLayout, row: int, label: str) -> None:
    """Nothing but the label of the row."""
    axes = layout.draw(row, 0, np.full((1, 1, 3), 255, np.uint8), "")
    axes.set_ylabel(label, rotation=0, ha="right", va="center")
