"""Figures of the sanity check: curves, limits, verdicts and maps as drawn."""

import re
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from era_support_packages.plots.panels import overlay
from era_support_packages.plots.sanity import sanity_curves, sanity_maps
from era_support_packages.plots.style import BLUE, VERMILLION
from era_support_packages.trust.sanity.verdict import SanityCheck

Check = Callable[[Callable[[], Figure]], Figure]
STAGES = ("linear", "layer4", "conv1 + bn1")
TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: do the maps depend on what was learnt?"


def a_check(
    methods: tuple[str, ...] = ("gradcam", "eigencam"), layers: tuple[str, ...] = ("layer3", "layer4"), **changes: object
) -> SanityCheck:
    """Each method at each layer, for six images of 8x8 px; Grad-CAM forgets at once, EigenCAM at the second stage."""
    rows = [(method, layer) for method in methods for layer in layers]
    generator = np.random.default_rng(0)
    correlations = generator.uniform(-0.05, 0.05, (len(rows), len(STAGES), 2, 6))
    for row, (method, _) in enumerate(rows):
        unchanged = {"eigencam": 1, "edges": len(STAGES)}.get(method, 0)
        correlations[row, :unchanged] = 1.0
    maps = generator.random((len(rows), len(STAGES) + 1, 6, 8, 8)).astype(np.float32)
    return SanityCheck(
        methods=tuple(method for method, _ in rows),
        layers=tuple(layer for _, layer in rows),
        stages=STAGES,
        targets=np.zeros(6, np.int64),
        correlations=correlations,
        ssim=correlations,
        random_correlations=correlations[:, -1, :1],
        constant=np.zeros((len(rows), len(STAGES) + 1)),
        maps=maps / maps.max(axis=(-1, -2), keepdims=True),
        ssim_window=7,
        training_images=100,
        seed=0,
        **{"images": some_images(6), "names": ("cat", "dog") * 3, **changes},
    )


def some_images(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_curves_are_the_means_from_the_trained_network_to_the_last_stage_with_their_limits() -> None:
    check = a_check()
    figure = sanity_curves(check, TITLE)
    assert figure.get_suptitle().replace("\n", " ") == TITLE
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == ["layer3", "layer4"]
    for column, axes in enumerate(figure.axes):
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        dotted = [line.get_ydata()[0] for line in drawn if line.get_linestyle() == ":"]
        assert dotted == pytest.approx([check.between_random(row).estimate + 0.1 for row in (column, 2 + column)])
        [dashed] = [line.get_ydata() for line in drawn if line.get_linestyle() == "--"]
        assert list(dashed) == [0.7, 0.7]
        for number, (method, color, aside) in enumerate((("gradcam", BLUE, -0.05), ("eigencam", VERMILLION, 0.05))):
            curve = check.curve(2 * number + column)
            [line] = [line for line in drawn if line.get_label() == method]
            assert line.get_color() == color
            np.testing.assert_allclose(line.get_ydata(), [1, *(interval.estimate for interval in curve)])
            np.testing.assert_allclose(line.get_xdata(), np.arange(4) + aside)
            corners = axes.collections[2 * number].get_paths()[0].vertices
            last = corners[np.isclose(corners[:, 0], 3 + aside)][:, 1]
            assert (last.min(), last.max()) == pytest.approx((curve[-1].low, curve[-1].high))
    assert plt.get_fignums() == [], "nothing stays open"


def test_each_layer_says_its_verdicts() -> None:
    [axes] = sanity_curves(a_check(("gradcam", "eigencam", "edges"), ("layer4",)), TITLE).axes
    assert axes.get_title(loc="left") == (
        "layer4\npasses: gradcam, eigencam (not class-specific)\nfails: edges (not class-specific)"
    )
    check = a_check(("gradcam",), ("",))
    check.correlations[:] = np.nan
    [axes] = sanity_curves(check, TITLE).axes
    assert axes.get_title(loc="left") == "methods without a layer\nundecided: gradcam"


def test_ticks_and_legend_name_everything() -> None:
    figure = sanity_curves(a_check(layers=("layer2", "layer3", "layer4")), TITLE)
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in figure.axes]
    assert ticks[0] == [""] * 5, "the panel below names them"
    assert ticks[1] == ticks[2] == ["trained", "linear", "layer4", "conv1 + bn1", "two random\nnetworks"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("gradcam", "eigencam", "limit: 0.1 above two random networks", "limit: 0.7"),
    ]
    assert figure.axes[0].get_ylabel() == "rank correlation with\nthe trained network's maps"


def test_maps_are_rows_of_images_and_methods_and_columns_of_stages() -> None:
    check = a_check()
    check.correlations[1, 0, 0, 1] = np.nan
    *drawn, bar = sanity_maps(check, TITLE, count=2).axes
    headings = ["trained\n", "linear\n", "layer4\n", "conv1 + bn1\n"]
    for place, (image, row) in enumerate([(0, 1), (0, 3), (1, 1), (1, 3)]):  # Grad-CAM at layer4 is row 1, EigenCAM row 3
        picture, (inputs, *maps) = check.images[image], drawn[5 * place : 5 * place + 5]
        pixels = [axes.get_images()[0].get_array() for axes in (inputs, *maps)]
        assert np.array_equal(pixels, [picture, *(overlay(picture, heat) for heat in check.maps[row, :, image])])
        values = ["constant" if np.isnan(value) else f"{value:.2f}" for value in check.correlations[row, :, 0, image]]
        expected = ["", *values] if place else [heading + value for heading, value in zip(headings, ["", *values], strict=True)]
        assert [axes.get_title() for axes in maps] == expected
    assert len(drawn) == 4 * 5
    assert drawn[12].get_title() == "constant"
    assert [axes.get_ylabel() for axes in drawn[::5]] == ["cat\ngradcam", "cat\neigencam", "dog\ngradcam", "dog\neigencam"]
    assert bar.get_title(loc="left") == (
        "map of layer4 over the input, 50 % opaque; above it, its rank correlation with the trained network's"
    )
    chosen = sanity_maps(check, TITLE, layer="layer3", count=1, methods=["eigencam"])
    assert [axes.get_ylabel() for axes in chosen.axes[:-1:5]] == ["cat\neigencam"]


SIX = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam")


@pytest.mark.parametrize("layers", [("layer4",), ("layer1", "layer2", "layer3", "layer4"), ("layer4", "", "all layers")])
def test_every_text_of_the_curves_is_whole_legible_and_free(check_figure: Check, layers: tuple[str, ...]) -> None:
    check_figure(lambda: sanity_curves(a_check(SIX, layers), TITLE * 3))


@pytest.mark.parametrize("count", [1, 3])
def test_every_text_of_the_maps_is_whole_legible_and_free(check_figure: Check, count: int) -> None:
    check_figure(lambda: sanity_maps(a_check(names=("a_class_name_without_end",) * 6), TITLE * 3, count=count))


BAD_VALUES: list[tuple[dict[str, object], dict[str, object], str]] = [
    ({}, {"layer": "layer5"}, "There is no map of layer 'layer5': did you mean 'layer4' or 'layer3'?"),
    ({}, {"methods": ["gradcan"]}, "There is no map of method 'gradcan' at layer layer4: did you mean 'gradcam'?"),
    ({}, {"count": 11}, "count is 11; it must be a whole number from 1 to 10."),
    ({"names": ("cat",)}, {}, "names has 1 entries for 3 images; give one for each image."),
    ({"images": some_images(3, 9)}, {}, "images are 9x9 px, but the maps 8x8; give the images at that size."),
    ({"images": None}, {}, "This check holds no images to show; take trust.sanity.sanity_check."),
]


@pytest.mark.parametrize(("held", "options", "message"), BAD_VALUES)
def test_bad_values_are_refused(held: dict[str, object], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sanity_maps(a_check(**held), TITLE, **options)


def test_more_methods_than_there_are_colors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^The check has 7 methods; one figure shows up to 6: check fewer at a time\.$"):
        sanity_curves(a_check(tuple("abcdefg")), TITLE)
