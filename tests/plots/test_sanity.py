"""Figures of the sanity check: curves, limits, verdicts and maps as drawn, and room for every text."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from era_support_packages.plots.panels import overlay
from era_support_packages.plots.sanity import sanity_curves, sanity_maps
from era_support_packages.plots.style import BLUE, VERMILLION
from era_support_packages.trust.sanity.verdict import SanityCheck

STAGES = ("linear", "layer4", "conv1 + bn1")
TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: do the maps depend on what was learnt?"


def a_check(
    methods: tuple[str, ...] = ("gradcam", "eigencam"), layers: tuple[str, ...] = ("layer3", "layer4"), **changes: object
) -> SanityCheck:
    """Each method at each layer, for six images of 8x8 px; Grad-CAM forgets at once, EigenCAM at the second stage."""
    rows = [(method, layer) for method in methods for layer in layers]
    generator = np.random.default_rng(0)
    shape = (len(rows), len(STAGES), 2, 6)
    correlations = generator.uniform(-0.05, 0.05, shape)
    for row, (method, _) in enumerate(rows):
        if method == "eigencam":
            correlations[row, 0] = 1.0
        if method == "edges":
            correlations[row] = 1.0
    maps = generator.random((len(rows), len(STAGES) + 1, 6, 8, 8)).astype(np.float32)
    between = correlations[:, -1, :1]
    return SanityCheck(
        methods=tuple(method for method, _ in rows),
        layers=tuple(layer for _, layer in rows),
        stages=STAGES,
        targets=np.zeros(6, np.int64),
        correlations=correlations,
        ssim=correlations,
        random_correlations=between,
        constant=np.zeros((len(rows), len(STAGES) + 1)),
        maps=maps / maps.max(axis=(-1, -2), keepdims=True),
        ssim_window=7,
        training_images=100,
        seed=0,
        **{"images": some_images(6), "names": ("cat", "dog", "cat", "dog", "cat", "dog"), **changes},
    )


def some_images(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def outside(figure: Figure) -> list[str]:
    """Texts that leave the figure."""
    figure.draw_without_rendering()
    whole = figure.bbox
    texts = [
        text for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text() and text.get_visible()
    ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [name for name, box in boxes if box.x0 < -1 or box.y0 < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1]


def pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_curves_are_the_means_from_the_trained_network_to_the_last_stage() -> None:
    check = a_check()
    figure = sanity_curves(check, TITLE)
    assert figure.get_suptitle().replace("\n", " ") == TITLE
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == ["layer3", "layer4"]
    for column, axes in enumerate(figure.axes):
        for number, (method, color) in enumerate((("gradcam", BLUE), ("eigencam", VERMILLION))):
            row = 2 * number + column
            [line] = [drawn for drawn in axes.lines if drawn.get_label() == method]
            assert line.get_color() == color
            np.testing.assert_allclose(line.get_ydata(), [1, *(interval.estimate for interval in check.curve(row))])
            aside = (-0.05, 0.05)[number]
            np.testing.assert_allclose(line.get_xdata(), np.arange(4) + aside)
            corners = axes.collections[2 * number].get_paths()[0].vertices
            last = corners[np.isclose(corners[:, 0], 3 + aside)][:, 1]
            assert (last.min(), last.max()) == (pytest.approx(check.curve(row)[-1].low), pytest.approx(check.curve(row)[-1].high))


def test_the_limits_are_drawn_where_the_verdicts_have_them() -> None:
    check = a_check()
    axes = sanity_curves(check, TITLE).axes[1]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    expected = [check.between_random(row).estimate + 0.1 for row in (1, 3)]
    assert [line.get_ydata()[0] for line in dotted] == pytest.approx(expected)
    [dashed] = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    np.testing.assert_array_equal(dashed.get_ydata(), [0.7, 0.7])


def test_each_layer_says_its_verdicts() -> None:
    figure = sanity_curves(a_check(("gradcam", "eigencam", "edges"), ("layer4",)), TITLE)
    [axes] = figure.axes
    assert (
        axes.get_title(loc="left") == "layer4\npasses: gradcam, eigencam (not class-specific)\nfails: edges (not class-specific)"
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


@pytest.mark.parametrize("layers", [("layer4",), ("layer1", "layer2", "layer3", "layer4"), ("layer4", "", "all layers")])
def test_curves_have_room_for_every_text(layers: tuple[str, ...]) -> None:
    methods = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam")
    figure = sanity_curves(a_check(methods, layers), TITLE * 3)
    assert figure.get_figwidth() <= 10
    assert outside(figure) == []


def test_more_methods_than_there_are_colors_are_refused() -> None:
    message = "the check has 7 methods; one figure shows up to 6: check fewer at a time."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sanity_curves(a_check(tuple("abcdefg")), TITLE)


# ---- maps ------------------------------------------------------------------------------------------------------------


def test_maps_are_rows_of_images_and_methods_and_columns_of_stages() -> None:
    check, images = a_check(), some_images(6)
    check.correlations[1, 0, 0, 1] = np.nan
    figure = sanity_maps(check, TITLE, count=2)
    *drawn, bar = figure.axes
    assert len(drawn) == 4 * 5
    for place, (image, row) in enumerate([(0, 1), (0, 3), (1, 1), (1, 3)]):  # Grad-CAM at layer4 is row 1, EigenCAM row 3
        inputs, *maps = drawn[5 * place : 5 * place + 5]
        assert np.array_equal(pixels(inputs), images[image])
        for stage, axes in enumerate(maps):
            assert np.array_equal(pixels(axes), overlay(images[image], check.maps[row, stage, image]))
            value = check.correlations[row, stage - 1, 0, image]
            text = "" if stage == 0 else "constant" if np.isnan(value) else f"{value:.2f}"
            heading = ("trained", "linear", "layer4", "conv1 + bn1")[stage]
            assert axes.get_title() == (f"{heading}\n{text}" if place == 0 else text)
    assert drawn[12].get_title() == "constant"
    assert [axes.get_ylabel() for axes in drawn[::5]] == ["cat\ngradcam", "cat\neigencam", "dog\ngradcam", "dog\neigencam"]
    assert bar.get_title(loc="left") == (
        "map of layer4 over the input, 50 % opaque; above it, its rank correlation with the trained network's"
    )


def test_methods_can_be_chosen() -> None:
    figure = sanity_maps(a_check(), TITLE, layer="layer3", count=1, methods=["eigencam"])
    assert [axes.get_ylabel() for axes in figure.axes[:-1:5]] == ["cat\neigencam"]


@pytest.mark.parametrize("count", [1, 3])
def test_maps_have_room_for_every_text(count: int) -> None:
    figure = sanity_maps(a_check(names=("a_class_name_without_end",) * 6), TITLE * 3, count=count)
    assert figure.get_figwidth() <= 10
    assert outside(figure) == []


BAD_VALUES = {
    "layer": ({"layer": "layer5"}, "There is no map of layer 'layer5': did you mean 'layer4' or 'layer3'?"),
    "method": ({"methods": ["gradcan"]}, "There is no map of method 'gradcan' at layer layer4: did you mean 'gradcam'?"),
    "names": ({"check": {"names": ("cat",)}}, "names has 1 entries for 2 images; give one for each image."),
    "size": ({"check": {"images": some_images(2, 9)}}, "images are 9x9 px, but the maps 8x8; give the images at that size."),
    "none": (
        {"check": {"images": None}},
        "this check holds no images to show; take trust.sanity.sanity_check.",
    ),
    "number": ({"count": 11}, "count is 11; it must be a whole number from 1 to 10."),
}


@pytest.mark.parametrize(("changes", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values_are_refused(changes: dict[str, object], message: str) -> None:
    values = {"count": 2, **changes}
    check = a_check(**values.pop("check", {}))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sanity_maps(check, TITLE, **values)


def test_nothing_stays_open() -> None:
    sanity_curves(a_check(), TITLE)
    assert plt.get_fignums() == []
