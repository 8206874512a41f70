"""Figures of combined layers, whose names are long: each is whole, in its panel and on no other."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from shortcut_results import made_up_maps, made_up_result

from era_support_packages.gradcam.exploration import Exploration
from era_support_packages.gradcam.result import ALL_LAYERS, Explanation
from era_support_packages.plots.explorer import exploration
from era_support_packages.plots.images import gradcam_panels
from era_support_packages.plots.photo import photo_panel
from era_support_packages.plots.shortcut import planted_shortcut
from era_support_packages.plots.style import wrap

LAYERS = ("layer3", "layer3+layer4", "_blocks.5._bn0+_blocks.11._bn0")
IMAGES = np.full((1, 16, 16, 3), 128, np.uint8)
Check = Callable[[Callable[[], Figure]], Figure]


def made_up(method: str = "gradcam", layers: tuple[str, ...] = LAYERS) -> Explanation:
    """One image and one class, a map of its own for each layer."""
    maps = np.stack([np.eye(16, k=shift, dtype=np.float32) for shift in range(len(layers))])[None, None]
    ranges = np.tile(np.float32([0, 1]), (1, 1, len(layers), 1))
    grids = ((4, 4), (4, 4), (16, 16))[: len(layers)]
    first = np.zeros((1, 1), np.int64)
    values = (maps, first, layers, np.ones((1, 1), np.float32), ranges, method, grids, first[0])
    return Explanation(*values, images=IMAGES, labels=first[0], classes=("cat", "dog"))


def captions(figure: Figure) -> list[str]:
    return [axes.get_title().replace("\n", "").replace(" ", "") for axes in figure.axes]


@pytest.mark.parametrize("draw", [gradcam_panels, lambda shown, title: exploration(Exploration((shown, shown)), title)])
def test_names_of_combined_layers_are_whole_and_free_in_explanations(draw: Callable[..., Figure], check_figure: Check) -> None:
    check_figure(lambda: draw(made_up(), "Why cat?"))


def test_captions_name_each_combined_layer(check_figure: Check) -> None:
    shown = exploration(Exploration((made_up(), made_up("hirescam"))), "Why cat?")
    assert captions(shown)[:4] == ["INPUT", "layer3,4x4", "layer3+layer4,4x4", f"{LAYERS[2]},16x16"]
    below = check_figure(lambda: exploration(Exploration((made_up("fullgrad", (ALL_LAYERS,)), made_up())), "Why cat?"))
    assert [caption for caption in captions(below) if caption][:4] == ["INPUT", "alllayers", *captions(shown)[1:3]]
    panel = check_figure(lambda: photo_panel(IMAGES[0], made_up(), [("cat", 0.9)], "A photo"))
    assert [f"{layer}forcat" in captions(panel) for layer in LAYERS] == [True] * 3


def test_a_planted_shortcut_at_combined_layers(check_figure: Check) -> None:
    maps = [made_up_maps(method, layer, 90, 100) for method in ("gradcam", "layercam") for layer in (*LAYERS, "layer1", "layer2")]
    figure = check_figure(lambda: planted_shortcut(made_up_result(*maps), "A mark"))
    assert f"{LAYERS[2]}:" in " ".join(captions(figure))


def test_a_name_breaks_where_its_layers_meet() -> None:
    assert wrap("layer3+layer4", 45, 9) == "layer3+\nlayer4"
    assert wrap("_blocks.5._bn0+_blocks.11._bn0", 90, 9) == "_blocks.5._bn0+\n_blocks.11._bn0"  # and not behind the next joint
