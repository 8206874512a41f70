"""Figures of images and of maps over them: pixels, captions and places as drawn."""

import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from era_support_packages import plots
from era_support_packages.datasets.batches import AugmentedImages
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.gradcam.explanation import Explanation
from era_support_packages.plots.panels import panel_layout
from era_support_packages.plots.style import styled

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Check = Callable[[Callable[[], Figure]], Figure]
LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + "wrong predictions of the test split, highest loss first, " * 3


def some_images(count: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def some_maps(*shape: int) -> np.ndarray:
    maps = np.random.default_rng(1).random((*shape, 8, 8), dtype=np.float32)
    return maps / maps.max(axis=(-1, -2), keepdims=True)


IMAGES, MAPS = some_images(2), some_maps(2, 2, 2)


def explained(count: int = 2, depth: int = 2, **changes: object) -> Explanation:
    """Maps for the predicted class, the one after the actual, and for the actual one, at `depth` layers."""
    actual = np.arange(count) % len(CLASSES)
    predicted = (actual + 1) % len(CLASSES)
    values = {
        "maps": some_maps(count, 2, depth),
        "targets": np.stack([predicted, actual], axis=1),
        "layers": ("layer1", "layer2", "layer3", "layer4")[-depth:],
        "confidences": np.tile([0.83, 0.0042], (count, 1)),
        "raw_ranges": np.zeros((count, 2, depth, 2), np.float32),
        "method": "gradcam",
        "grids": ((8, 8),) * depth,
        "predicted": predicted,
        "images": some_images(count),
        "labels": actual,
        "classes": CLASSES,
    }
    return Explanation(**{**values, **changes})


def panels(**values: object) -> Figure:
    return plots.gradcam_panels(explained(**values), "t")


def comparison(layer: str | None = None, title: str = "t", **values: object) -> Figure:
    return plots.gradcam_comparison(explained(**values), title, layer=layer)


def mistakes(count: int = 2, title: str = "t", indices: Sequence[int] | None = None, columns: int = 5, **given: object) -> Figure:
    """Of these, predicted as `explained` says with a confidence of 86 %."""
    said = explained(count)
    values = {"logits": 4 * np.eye(10)[said.predicted], "labels": said.labels, "classes": CLASSES, "images": said.images, **given}
    return plots.incorrect_predictions(
        Predictions(**values), range(count) if indices is None else indices, title, columns=columns
    )


def augmented(variants: np.ndarray, title: str = "t") -> Figure:
    return plots.augmented_grid(AugmentedImages(IMAGES, variants, ("aquarium_fish", "dog")), title)


def shown(axes: Sequence[Axes], images: Sequence[np.ndarray]) -> bool:
    """Whether these images, and no others, are drawn there."""
    pairs = zip(axes, images, strict=True)
    return all(np.array_equal(each.get_images()[0].get_array(), image) for each, image in pairs)


def places(axes: Sequence[Axes]) -> list[tuple[int, int]]:
    """Rows, from the top, and columns, from the left, of those where any of them stands."""
    boxes = [each.get_position(original=True) for each in axes]
    tops = sorted({round(box.y1, 6) for box in boxes}, reverse=True)
    lefts = sorted({round(box.x0, 6) for box in boxes})
    return [(tops.index(round(box.y1, 6)), lefts.index(round(box.x0, 6))) for box in boxes]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_overlay_blends_in_rgb_exactly() -> None:
    image = np.array([[[10, 20, 30], [255, 255, 255]]], dtype=np.uint8)
    heat = np.array([[1.0, 0.0]])
    # inferno ends at (252.03, 254.58, 164.46) and begins at (0.37, 0.12, 3.54), red first.
    assert plots.overlay(image, heat, opacity=1).tolist() == [[[252, 255, 164], [0, 0, 4]]]
    assert plots.overlay(image, heat).tolist() == [[[131, 137, 97], [128, 128, 129]]], "half of each"
    assert plots.overlay(image, heat, opacity=0).tolist() == image.tolist()
    assert plots.overlay(image, heat).dtype == np.uint8
    assert image.tolist() == [[[10, 20, 30], [255, 255, 255]]], "the given image stays as it is"
    weak = plots.overlay(image, np.array([[0.0, 0.5]]), opacity=1, colormap="gray")
    assert weak.tolist() == [[[0, 0, 0], [128, 128, 128]]], "not stretched"


def test_image_grid_shows_the_given_pixels_in_reading_order() -> None:
    images = some_images(7, 8, 12)
    figure = plots.image_grid(images, [*"abcdef", ""], "Digits: some images", columns=3)
    assert figure.get_suptitle() == "Digits: some images"
    assert titles(figure) == [*"abcdef", ""]
    assert places(figure.axes) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert shown(figure.axes, images)
    drawn = [axes.get_images()[0] for axes in figure.axes]
    assert {(each.get_interpolation(), tuple(each.get_extent())) for each in drawn} == {("nearest", (-0.5, 11.5, 7.5, -0.5))}
    [large] = plots.image_grid(some_images(1, 200, 200), [""], "t").axes
    assert large.get_images()[0].get_interpolation() in ("antialiased", "auto"), "made smaller, it is filtered"


@pytest.mark.parametrize("count", [1, 3, 11])
def test_predictions_of_any_number_are_captioned_with_predicted_first(count: int, check_figure: Check) -> None:
    figure = check_figure(partial(mistakes, count, LONG_TITLE))
    assert shown(figure.axes, some_images(count))
    assert titles(figure)[0] == "predicted automobile (86 %)\nactual airplane"
    right = mistakes(labels=np.array([1, 1]), indices=[1, 0])
    assert titles(right) == ["predicted bird (86 %)\nactual automobile", "right (86 %)\nautomobile"]


def test_captions_too_wide_are_broken_alike_and_lose_nothing(check_figure: Check) -> None:
    captions = titles(check_figure(partial(mistakes, 10, columns=10)))
    assert captions[0] == "predicted\nautomobile\n(86 %)\nactual\nairplane"
    assert captions[2] == "predicted\ncat (86 %)\nactual\nbird"
    name = "a_class_name_without_end_" * 3 + "x" * 60
    [caption] = titles(plots.image_grid(some_images(1), [name], "t"))
    assert caption.replace("\n", "") == name
    assert caption.startswith("a_class_name_without_end_\n"), "broken where parts meet"


def test_augmented_grid_has_the_original_first_in_each_row(check_figure: Check) -> None:
    variants = some_images(14).reshape(2, 7, 8, 8, 3)
    figure = check_figure(partial(augmented, variants, LONG_TITLE))
    assert titles(figure) == ["original", *(f"variant {number}" for number in range(1, 8)), *[""] * 8]
    assert [axes.get_ylabel() for axes in figure.axes] == ["aquarium_fish", *[""] * 7, "dog", *[""] * 7]
    assert shown(figure.axes, [IMAGES[0], *variants[0], IMAGES[1], *variants[1]])


def test_gradcam_panels_are_columns_of_images_and_rows_of_layers() -> None:
    maps = MAPS.copy()
    maps[0, 0, 0] = 0
    *drawn, bar = panels(maps=maps, predicted=np.array([3, 5]), labels=np.array([5, 0])).axes
    assert places(drawn) == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    for column, image in enumerate(IMAGES):
        assert shown(drawn[3 * column :][:3], [image, *(plots.overlay(image, heat) for heat in maps[column, 0])])
    captions = ["actual dog\npredicted cat", "", "", "actual airplane\npredicted dog", "", ""]
    assert [axes.get_title() for axes in drawn] == captions
    assert [axes.get_ylabel() for axes in drawn] == ["INPUT", "layer3", "layer4", "", "", ""]
    assert [[text.get_text() for text in axes.texts] for axes in drawn[:3]] == [[], ["all zero"], []]
    assert bar.get_title(loc="left") == "class activation map over the input, 50 % opaque"
    assert [text.get_text() for text in bar.get_xticklabels()] == ["0 = no contribution", "1 = this panel's strongest"]
    [mesh] = [drawn for drawn in bar.collections if drawn.get_array() is not None]
    assert (mesh.get_cmap().name, mesh.get_clim()) == (plots.HEAT_COLORMAP, (0, 1))


@pytest.mark.parametrize(("count", "depth", "columns", "blocks"), [(1, 4, 1, 1), (10, 1, 10, 1), (21, 1, 7, 3)])
def test_more_than_ten_columns_continue_in_blocks(count: int, depth: int, columns: int, blocks: int, check_figure: Check) -> None:
    *drawn, _ = check_figure(partial(panels, count=count, depth=depth)).axes
    rows = 1 + depth
    assert {row for row, _ in places(drawn)} == set(range(rows * blocks)), "INPUT and the layers in each block"
    assert places(drawn)[::rows] == [(rows * (index // columns), index % columns) for index in range(count)]
    assert len(drawn) == rows * count
    labels = [axes.get_ylabel() for axes in drawn if axes.get_ylabel()]
    assert labels == ["INPUT", "layer1", "layer2", "layer3", "layer4"] if depth == 4 else ["INPUT", "layer4"] * blocks


@pytest.mark.parametrize(
    ("panel", "columns", "left"), [(1.05, 1, 1.0), (1.05, 2, 1.0), (1.4, 2, 0.0), (1.3, 3, 0.5), (0.9, 10, 0.0)]
)
def test_the_words_below_the_color_bar_have_room(panel: float, columns: int, left: float, check_figure: Check) -> None:
    def draw() -> Figure:
        layout = panel_layout("A title", panel, (8, 8), [1] * columns, [1, 0], left=left, color_bar=True)
        for column in range(columns):
            layout.draw(0, column, IMAGES[0], "cat")
        layout.draw_color_bar("class activation map over the input")
        return layout.figure

    check_figure(styled(draw))


@pytest.mark.parametrize("count", [1, 3, 11])
def test_gradcam_comparison_sets_predicted_beside_actual(count: int, check_figure: Check) -> None:
    *drawn, bar = check_figure(partial(comparison, count=count)).axes
    for index, (image, maps) in enumerate(zip(some_images(count), some_maps(count, 2, 2), strict=True)):
        assert shown(drawn[3 * index :][:3], [image, *(plots.overlay(image, heat) for heat in maps[:, 1])]), "the last layer"
    captions = [axes.get_title().replace("\n", " ") for axes in drawn[:3]]
    assert captions == ["INPUT", "predicted automobile 83 %", "actual airplane 0.4 %"]
    assert bar.get_title(loc="left") == "class activation map of layer4 over the input, 50 % opaque"
    *drawn, bar = comparison("layer3").axes
    assert shown(drawn[1:2], [plots.overlay(IMAGES[0], MAPS[0, 0, 0])])
    assert bar.get_title(loc="left").startswith("class activation map of layer3 ")


def test_right_predictions_beside_maps_are_captioned_so_and_set_beside_the_runner_up(check_figure: Check) -> None:
    given = {"predicted": np.array([0, 1]), "labels": np.array([0, 3])}
    assert titles(panels(**given))[:-1] == ["right\nairplane", "", "", "actual cat\npredicted automobile", "", ""]
    assert titles(comparison(targets=np.array([[0, 5], [1, 3]]), **given))[:-1] == [
        *("INPUT", "right: airplane\n83 %", "runner-up: dog\n0.4 %"),
        *("INPUT", "predicted automobile\n83 %", "actual cat\n0.4 %"),
    ]
    check_figure(partial(comparison, title=LONG_TITLE, count=11, labels=explained(11).predicted))


GRID = partial(plots.image_grid, images=IMAGES, captions=["", ""], title="t")
OVERLAY = partial(plots.overlay, image=IMAGES[0], heat=MAPS[0, 0, 0])
PIXELS = "images must be uint8 of shape (N, H, W, 3), not normalised; got {} of shape {}."
VARIANTS = "variants must be uint8 of shape (2, V, 8, 8, 3), for originals of shape (2, 8, 8, 3); got uint8 of shape {}."
TWICE = np.array([[1, 1], [2, 1]])
RIVAL = "image {} is explained for {}, but a comparison sets the predicted class beside another, here {}; explain it with targets"

BAD_VALUES: list[tuple[Callable[..., object], dict[str, object], str]] = [
    (GRID, {"images": IMAGES / 255}, PIXELS.format("float64", "(2, 8, 8, 3)")),
    (GRID, {"images": IMAGES[0]}, PIXELS.format("uint8", "(8, 8, 3)")),
    (GRID, {"images": IMAGES[:0], "captions": []}, "images holds 0 images; one figure takes from 1 to 400."),
    (GRID, {"images": some_images(401)}, "images holds 401 images; one figure takes from 1 to 400."),
    (GRID, {"captions": [""]}, "captions has 1 entries for 2 images; give one for each image."),
    (GRID, {"columns": 11}, "columns is 11; it must be a whole number from 1 to 10."),
    (GRID, {"columns": 0}, "columns is 0; it must be a whole number from 1 to 10."),
    (augmented, {"variants": IMAGES}, VARIANTS.format("(2, 8, 8, 3)")),
    (augmented, {"variants": IMAGES[:1, None]}, VARIANTS.format("(1, 1, 8, 8, 3)")),
    (augmented, {"variants": IMAGES[:, None][:, :0]}, "variants holds 0 for each image; give from 1 to 12."),
    (augmented, {"variants": np.repeat(IMAGES[:, None], 13, 1)}, "variants holds 13 for each image; give from 1 to 12."),
    (mistakes, {"images": None}, "These predictions hold no images to show; take those that Classifier.predict made."),
    (mistakes, {"labels": None}, "These images have no labels, so nothing can be said of right and wrong; predict a labelled"),
    (mistakes, {"indices": []}, "images holds 0 images; one figure takes from 1 to 400."),
    (panels, {"maps": MAPS[:, :, :1]}, "maps must be of shape (2, 2, 8, 8); got (2, 1, 8, 8)."),
    (panels, {"maps": MAPS - 0.5}, "maps must lie from 0 to 1; got values from -0.4"),
    (panels, {"maps": MAPS * np.nan}, "maps holds NaN or infinite values; every value must be from 0 to 1."),
    (panels, {"layers": ()}, "layers is empty; at least one is needed."),
    (panels, {"images": None}, "This explanation holds no images to show, as `gradcam.explain` sees normalised ones only; take"),
    (panels, {"images": some_images(101)}, "images holds 101 images; one figure takes from 1 to 100."),
    (panels, {"predicted": np.zeros(2)}, "predicted must be integer class ids of shape (2,); got float64 of shape (2,)."),
    (panels, {"labels": np.array([2])}, "labels must be integer class ids of shape (2,); got int64 of shape (1,)."),
    (panels, {"predicted": np.array([0, 10])}, "predicted must be class ids from 0 to 9; got values from 0 to 10."),
    (comparison, {"maps": MAPS[:, :1]}, "maps must be of shape (2, 2, 2, 8, 8); got (2, 1, 2, 8, 8)."),
    (comparison, {"confidences": np.zeros(2)}, "confidences must be of shape (2, 2); got (2,)."),
    (comparison, {"targets": np.array([[1, 0], [0, 1]])}, RIVAL.format(1, "airplane and automobile", "bird and automobile")),
    (comparison, {"targets": np.array([[1, 2], [2, 1]])}, RIVAL.format(0, "automobile and bird", "automobile and airplane")),
    (comparison, {"targets": TWICE, "labels": TWICE[0]}, RIVAL.format(0, "automobile and automobile", "automobile")),
    (comparison, {"layer": "layer 4"}, "There is no map of layer 'layer 4': did you mean 'layer4' or 'layer3'?"),
    (comparison, {"layer": "conv"}, "There is no map of layer 'conv': choose one of 'layer3', 'layer4'."),
    (OVERLAY, {"image": IMAGES[0] / 255}, "image must be uint8 of shape (H, W, 3); got float64 of shape (8, 8, 3)."),
    (OVERLAY, {"heat": MAPS[0, 0, 0, :4]}, "heat must be of shape (8, 8); got (4, 8)."),
    (OVERLAY, {"opacity": 50}, "opacity is 50; it must be from 0 (only the image) to 1 (only the map)."),
    (OVERLAY, {"colormap": "infreno"}, "There is no colormap 'infreno': did you mean 'inferno'"),
]


@pytest.mark.parametrize(("draw", "changes", "message"), BAD_VALUES, ids=[row[2][:40] for row in BAD_VALUES])
def test_bad_values_get_one_sentence(draw: Callable[..., object], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        draw(**changes)
    assert str(caught.value).endswith((".", "?"))
    assert ". " not in str(caught.value)
