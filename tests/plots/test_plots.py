"""Figures: what they show is asserted on the drawn objects: pixels, captions, curves, bars, and room for every text."""

import os
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import cv2
import matplotlib
import numpy as np
import pytest
from figure_checks import outside_or_overlapping
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from era_support_packages import plots
from era_support_packages.datasets.batches import AugmentedImages
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.gradcam.explanation import Explanation
from era_support_packages.training.history import EpochRecord, log_header, log_row
from era_support_packages.training.lr_trials import Trials

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LAYERS = ("layer1", "layer4")
LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + "wrong predictions of the test split, highest loss first, " * 3


def history(resolutions: list[int], seconds: float = 42.0) -> SimpleNamespace:
    records = [
        EpochRecord(epoch, size, 100, 0.1, 2.0 / epoch, 100 - 60 / epoch, 2.5 / epoch, 98 - 60 / epoch, 60, 100, seconds)
        for epoch, size in enumerate(resolutions, start=1)
    ]
    return SimpleNamespace(records=tuple(records))


def some_images(count: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def some_maps(*shape: int) -> np.ndarray:
    maps = np.random.default_rng(1).random((*shape, 8, 8), dtype=np.float32)
    return maps / maps.max(axis=(-1, -2), keepdims=True)


def some_mistakes(count: int) -> dict[str, np.ndarray]:
    actual = np.arange(count) % len(CLASSES)
    return {"predicted": (actual + 1) % len(CLASSES), "actual": actual}


def explained(images: np.ndarray, maps: np.ndarray, /, **changes: object) -> Explanation:
    """Maps (N, T, L, H, W) as a classifier explains wrong predictions, each of the class after the actual one."""
    count, targets, layers = maps.shape[:3]
    mistakes = some_mistakes(count)
    values = {
        "maps": maps,
        "targets": np.stack([mistakes["predicted"], mistakes["actual"]], axis=1)[:, :targets],
        "layers": tuple(f"layer{index}" for index in range(1, layers + 1)) if layers != 2 else LAYERS,
        "confidences": np.tile([0.83, 0.0042], (count, 1))[:, :targets],
        "raw_ranges": np.zeros((*maps.shape[:3], 2), np.float32),
        "method": "gradcam",
        "grids": ((8, 8),) * layers,
        "predicted": mistakes["predicted"],
        "images": images,
        "labels": mistakes["actual"],
        "classes": CLASSES,
    }
    return Explanation(**{**values, **changes})


def panels(count: int, layers: int = 2) -> Figure:
    return plots.gradcam_panels(explained(some_images(count), some_maps(count, 1, layers)), "t")


def comparison(count: int, **options: str) -> Figure:
    return plots.gradcam_comparison(explained(some_images(count), some_maps(count, 2, 2)), "t", **options)


def right_comparison(count: int) -> Figure:
    actual = np.arange(count) % len(CLASSES)
    targets = np.stack([actual, (actual + 1) % len(CLASSES)], axis=1)
    shown = explained(some_images(count), some_maps(count, 2, 2), predicted=actual, labels=actual, targets=targets)
    return plots.gradcam_comparison(shown, LONG_TITLE)


def told(predicted: np.ndarray, actual: np.ndarray | None, confidence: float, images: np.ndarray | None) -> Predictions:
    """Predictions that are this sure of these classes."""
    probabilities = np.full((len(predicted), len(CLASSES)), (1 - confidence) / (len(CLASSES) - 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return Predictions(np.log(probabilities), actual, CLASSES, images)


def mistakes_grid(count: int, columns: int = 5, title: str = "t") -> Figure:
    predictions = told(confidence=0.834, images=some_images(count), **some_mistakes(count))
    return plots.incorrect_predictions(predictions, np.arange(count), title, columns=columns)


def range_result(losses: np.ndarray | None = None, **changes: object) -> SimpleNamespace:
    lrs = np.geomspace(1e-4, 10, 6)
    losses = np.array([2.3, 2.2, 1.6, 1.2, 3.0, 900.0]) if losses is None else losses
    values = {"lrs": lrs, "losses": losses, "smoothed": losses, "suggestions": {"steepest": 0.01, "valley": 0.02}}
    values["trials"] = None
    return SimpleNamespace(**{**values, **changes})


def counted(counts: np.ndarray, classes: Sequence[str]) -> Predictions:
    """Predictions with this confusion matrix."""
    actual, predicted = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), len(classes))
    return Predictions(np.eye(len(classes), dtype=np.float32)[predicted], actual, tuple(classes))


def accurate(percents: Sequence[int | float | None], classes: Sequence[str]) -> Predictions:
    """Predictions of 200 images a class, of which these percentages are right; None for a class without images."""
    right = np.array([0 if percent is None else round(2 * percent) for percent in percents])
    wrong = np.array([0 if percent is None else 200 - round(2 * percent) for percent in percents])
    return counted(np.diag(right) + np.roll(np.diag(wrong), 1, axis=1), classes)


def confusion(number: int, classes: Sequence[str]) -> Predictions:
    return counted(np.full((number, number), 3) + 94 * np.eye(number, dtype=int), classes)


def log_rows(count: int) -> list[str]:
    return [log_header(), *map(log_row, history([32] * count).records)]


def pixels(axes: Axes) -> np.ndarray:
    return np.asarray(axes.get_images()[0].get_array())


def place(axes: Axes) -> tuple[float, float]:
    """Left and bottom end in the figure, rounded so that places can be compared."""
    box = axes.get_position()
    return round(box.x0, 3), round(box.y0, 3)


def title_of(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ")


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def line(axes: Axes, label: str) -> matplotlib.lines.Line2D:
    [found] = [drawn for drawn in axes.lines if drawn.get_label() == label]
    return found


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- overlay ---------------------------------------------------------------------------------------------------------


def test_overlay_blends_in_rgb_exactly() -> None:
    image = np.array([[[10, 20, 30], [255, 255, 255]]], dtype=np.uint8)
    heat = np.array([[1.0, 0.0]])
    # inferno ends at (252.03, 254.58, 164.46) and begins at (0.37, 0.12, 3.54), red first.
    assert plots.overlay(image, heat, opacity=1).tolist() == [[[252, 255, 164], [0, 0, 4]]]
    assert plots.overlay(image, heat, opacity=0.5).tolist() == [[[131, 137, 97], [128, 128, 129]]]
    assert plots.overlay(image, heat, opacity=0).tolist() == image.tolist()
    assert plots.overlay(image, heat).dtype == np.uint8
    assert image.tolist() == [[[10, 20, 30], [255, 255, 255]]], "the given image stays as it is"


@pytest.mark.parametrize(("name", "of_opencv"), [("inferno", cv2.COLORMAP_INFERNO), ("jet", cv2.COLORMAP_JET)])
def test_overlay_colors_are_those_of_opencv_in_rgb_order(name: str, of_opencv: int) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = cv2.applyColorMap(levels, of_opencv)[..., ::-1].astype(int)  # OpenCV gives BGR
    ours = plots.overlay(np.zeros((16, 16, 3), np.uint8), levels / 255, opacity=1, colormap=name)
    assert np.abs(ours - expected).max() <= 40, "the two libraries' jet differs a little"
    assert np.abs(ours - expected[..., ::-1]).max() > 100, "BGR would be found out"


def test_overlay_does_not_stretch_a_weak_map() -> None:
    weak = plots.overlay(np.zeros((1, 2, 3), np.uint8), np.array([[0.0, 0.5]]), opacity=1)
    assert weak[0, 1].tolist() == np.rint(255 * np.array(matplotlib.colormaps["inferno"](0.5)[:3])).tolist()


# ---- image grids -----------------------------------------------------------------------------------------------------


def test_image_grid_shows_the_given_pixels_in_reading_order() -> None:
    images = some_images(7, 8, 12)
    figure = plots.image_grid(images, [*"abcdef", ""], "Digits: some images", columns=3)
    figure.draw_without_rendering()
    assert title_of(figure) == "Digits: some images"
    assert [axes.get_title() for axes in figure.axes] == [*"abcdef", ""]
    for axes, image in zip(figure.axes, images, strict=True):
        assert np.array_equal(pixels(axes), image)
        assert axes.get_images()[0].get_interpolation() == "nearest"
        assert tuple(axes.get_images()[0].get_extent()) == (-0.5, 11.5, 7.5, -0.5)
    places = [place(axes) for axes in figure.axes]
    assert places[0][0] == places[3][0] == places[6][0] < places[1][0] == places[4][0] < places[2][0] == places[5][0]
    assert places[0][1] == places[1][1] == places[2][1] > places[3][1] == places[4][1] == places[5][1] > places[6][1]


def test_large_images_are_filtered_when_they_shrink() -> None:
    figure = plots.image_grid(some_images(1, 200, 200), [""], "t")
    assert figure.axes[0].get_images()[0].get_interpolation() in ("antialiased", "auto")


@pytest.mark.parametrize("count", [1, 3, 11])
def test_mistakes_of_any_number_are_captioned_with_predicted_first(count: int) -> None:
    figure = mistakes_grid(count)
    assert len(figure.axes) == count
    assert figure.axes[0].get_title() == "predicted automobile (83 %)\nactual airplane"
    assert np.array_equal(pixels(figure.axes[-1]), some_images(count)[-1])
    assert figure.get_figwidth() <= 10


def test_a_right_prediction_in_the_grid_is_captioned_so() -> None:
    figure = plots.incorrect_predictions(told(IDS, np.array([1, 1]), 0.5, IMAGES), [0, 1], "t")
    assert [axes.get_title() for axes in figure.axes] == [
        "predicted airplane (50 %)\nactual automobile",
        "right (50 %)\nautomobile",
    ]


def test_captions_too_wide_are_broken_alike_and_lose_nothing() -> None:
    figure = mistakes_grid(10, columns=10)
    assert figure.axes[0].get_title() == "predicted\nautomobile\n(83 %)\nactual\nairplane"
    assert figure.axes[2].get_title() == "predicted\ncat (83 %)\nactual\nbird"
    name = "a_class_name_without_end_" * 3 + "x" * 60
    [axes] = plots.image_grid(some_images(1), [name], "t").axes
    assert axes.get_title().replace("\n", "") == name
    assert axes.get_title().startswith("a_class_name_without_end_\n"), "broken where parts meet"


def test_augmented_grid_has_the_original_first_in_each_row() -> None:
    originals = some_images(2)
    variants = np.stack([255 - originals, originals[:, ::-1], originals[:, :, ::-1]], axis=1)
    figure = plots.augmented_grid(AugmentedImages(originals, variants, ("cat", "dog")), "Augmented")
    assert len(figure.axes) == 2 * 4
    assert [axes.get_title() for axes in figure.axes[:4]] == ["original", "variant 1", "variant 2", "variant 3"]
    assert [axes.get_title() for axes in figure.axes[4:]] == [""] * 4
    assert [axes.get_ylabel() for axes in figure.axes] == ["cat", "", "", "", "dog", "", "", ""]
    for row in range(2):
        assert np.array_equal(pixels(figure.axes[4 * row]), originals[row])
        for column in range(3):
            assert np.array_equal(pixels(figure.axes[4 * row + 1 + column]), variants[row, column])


# ---- class activation maps -------------------------------------------------------------------------------------------


def test_gradcam_panels_are_columns_of_images_and_rows_of_layers() -> None:
    images, maps = some_images(2), some_maps(2, 2)
    shown = explained(images, maps[:, None], predicted=np.array([3, 5]), labels=np.array([5, 0]))
    figure = plots.gradcam_panels(shown, "Grad-CAM")
    figure.draw_without_rendering()
    *drawn, bar = figure.axes
    assert len(drawn) == 2 * 3
    for column in range(2):
        inputs, *layers = drawn[3 * column : 3 * column + 3]
        assert np.array_equal(pixels(inputs), images[column])
        for layer, axes in enumerate(layers):
            assert np.array_equal(pixels(axes), plots.overlay(images[column], maps[column, layer]))
            assert axes.get_images()[0].get_extent() == inputs.get_images()[0].get_extent()
            assert place(axes)[0] == place(inputs)[0]
            assert axes.get_title() == ""
        assert place(inputs)[1] > place(layers[0])[1] > place(layers[1])[1]
    assert [axes.get_title() for axes in drawn[::3]] == ["actual dog\npredicted cat", "actual airplane\npredicted dog"]
    assert [axes.get_ylabel() for axes in drawn] == ["INPUT", "layer1", "layer4", "", "", ""]
    assert bar.get_title(loc="left") == "class activation map over the input, 50 % opaque"
    assert [text.get_text() for text in bar.get_xticklabels()] == ["0 = no contribution", "1 = this panel's strongest"]


def test_the_color_bar_is_in_the_colors_of_the_overlay() -> None:
    figure = panels(1)
    [mesh] = [drawn for drawn in figure.axes[-1].collections if drawn.get_array() is not None]
    assert mesh.get_cmap().name == plots.HEAT_COLORMAP
    assert mesh.get_clim() == (0, 1)


@pytest.mark.parametrize(("count", "columns", "blocks"), [(1, 1, 1), (10, 10, 1), (21, 7, 3)])
def test_more_than_ten_columns_continue_in_blocks(count: int, columns: int, blocks: int) -> None:
    figure = panels(count, layers=1)
    *drawn, _ = figure.axes
    assert len(drawn) == 2 * count
    grid = drawn[0].get_gridspec()
    assert grid.nrows == 2 * blocks + 1, "INPUT and one layer in each block, and the colour bar"
    starts = [axes.get_subplotspec() for axes in drawn[::2]]
    assert [start.rowspan.start for start in starts] == [2 * (index // columns) for index in range(count)]
    assert [start.colspan.start for start in starts] == [index % columns for index in range(count)]
    labeled = [axes.get_ylabel() for axes in drawn if axes.get_ylabel()]
    assert labeled == ["INPUT", "layer1"] * blocks


def test_a_map_of_zeros_is_named_and_not_made_nan() -> None:
    images, maps = some_images(1), some_maps(1, 2)
    maps[0, 0] = 0
    figure = plots.gradcam_panels(explained(images, maps[:, None]), "t")
    assert np.array_equal(pixels(figure.axes[1]), plots.overlay(images[0], np.zeros((8, 8))))
    assert [texts(axes) for axes in figure.axes[:3]] == [[], ["all zero"], []]


def test_gradcam_comparison_sets_predicted_beside_actual() -> None:
    images, maps = some_images(3), some_maps(3, 2, 2)
    figure = comparison(3)
    *drawn, bar = figure.axes
    assert len(drawn) == 3 * 3
    for index in range(3):
        shown = [pixels(axes) for axes in drawn[3 * index : 3 * index + 3]]
        assert np.array_equal(shown[0], images[index])
        assert np.array_equal(shown[1], plots.overlay(images[index], maps[index, 0, 1])), "the last layer by default"
        assert np.array_equal(shown[2], plots.overlay(images[index], maps[index, 1, 1]))
    assert [axes.get_title() for axes in drawn[3:6]] == ["INPUT", "predicted bird\n83 %", "actual automobile\n0.4 %"]
    assert bar.get_title(loc="left") == "class activation map of layer4 over the input, 50 % opaque"

    first = comparison(1, layer="layer1")
    assert np.array_equal(pixels(first.axes[1]), plots.overlay(some_images(1)[0], some_maps(1, 2, 2)[0, 0, 0]))
    assert first.axes[-1].get_title(loc="left").startswith("class activation map of layer1 ")


def test_right_predictions_beside_maps_are_captioned_so_and_set_beside_the_runner_up() -> None:
    actual, targets = np.array([0, 3]), np.array([[0, 5], [1, 3]])
    titles = [axes.get_title() for axes in draw_panels(labels=actual).axes[:-1]]
    assert titles == ["right\nairplane", "", "", "actual cat\npredicted automobile", "", ""]
    titles = [axes.get_title() for axes in draw_comparison(labels=actual, targets=targets).axes[:-1]]
    assert titles == [
        *("INPUT", "right: airplane\n50 %", "runner-up: dog\n50 %"),
        *("INPUT", "predicted automobile\n50 %", "actual cat\n50 %"),
    ]


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_range_test_marks_every_suggestion_on_the_smoothed_curve() -> None:
    smoothed = np.array([2.4, 2.3, 1.8, 1.4, 2.0, 500.0])
    result = range_result(smoothed=smoothed)
    figure = plots.range_test(result, "Range test", chosen=0.05)
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    raw, smooth = line(axes, "raw loss"), line(axes, "smoothed loss")
    assert np.array_equal(raw.get_xdata(), result.lrs)
    assert np.array_equal(raw.get_ydata(), result.losses)
    assert np.array_equal(smooth.get_ydata(), smoothed)
    assert raw.get_alpha() < 0.5
    assert smooth.get_linewidth() > raw.get_linewidth()
    mark = line(axes, "steepest 0.01")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.01, 1.8)), "0.01 is the third rate"
    mark = line(axes, "valley 0.02")  # log10(2) of the way from 0.01 to 0.1
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.02, 1.8 - 0.30103 * 0.4), abs=1e-5)
    assert list(line(axes, "chosen 0.05").get_xdata()) == [0.05, 0.05]
    assert legend_of(figure) == ["raw loss", "smoothed loss", "steepest 0.01", "valley 0.02", "chosen 0.05"]


@pytest.mark.parametrize(("margin", "words"), [(0.5, "clearly best"), (0.1, "not clearly best")])
def test_range_test_marks_the_rates_that_were_tried_and_says_how_sure_the_choice_is(margin: float, words: str) -> None:
    trials = Trials({0.0125: 1.5, 0.05: 1.0, 0.2: np.inf}, margin, 0.1, 1200, 500, 100)
    figure = plots.range_test(range_result(trials=trials), "t", chosen=0.05)
    ticks = line(figure.axes[0], "tried: 3 rates")
    assert list(ticks.get_xdata()) == [0.0125, 0.05, 0.2]
    assert legend_of(figure)[-2:] == [f"chosen 0.05, {words}", "tried: 3 rates"]


def test_range_test_is_cut_above_the_valley_and_says_so() -> None:
    [axes] = plots.range_test(range_result(), "t").axes
    bottom, top = axes.get_ylim()
    # From the lowest loss 1.2 to the highest before it, 2.3: half of that above, a tenth below.
    assert (bottom, top) == pytest.approx((1.2 - 0.11, 2.3 + 0.55))
    assert axes.get_title(loc="right") == "cut at 2.85: losses reach 900"
    whole = plots.range_test(range_result(np.array([2.3, 2.2, 1.6, 1.2, 1.3, 1.4])), "t").axes[0]
    assert whole.get_title(loc="right") == ""


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_range_test_draws_the_finite_part(bad: float) -> None:
    losses = np.array([2.3, 2.2, 1.6, 1.2, bad, bad])
    figure = plots.range_test(range_result(losses, suggestions={"valley": 0.01, "steepest": np.nan}), "t")
    [axes] = figure.axes
    assert axes.get_title(loc="right") == "shaded: no finite loss from 1 on"
    assert np.array_equal(line(axes, "smoothed loss").get_ydata(), [2.3, 2.2, 1.6, 1.2, np.nan, np.nan], equal_nan=True)
    assert np.isfinite(axes.get_ylim()).all()
    assert axes.get_ylim()[1] < 2.5
    assert legend_of(figure)[2:] == ["valley 0.01", "steepest: none"]
    [shade] = axes.patches
    box = shade.get_window_extent().transformed(axes.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((1.0, 10.0))


def test_range_test_that_only_rises_says_there_is_no_suggestion() -> None:
    rising = np.array([2.3, 2.31, 2.33, 2.4, 3.0, 50.0])
    [axes] = plots.range_test(range_result(rising, suggestions={}), "t").axes
    # From the lowest loss 2.3 to the middle one, 2.365: half of that above, a tenth below.
    assert axes.get_ylim() == pytest.approx((2.3 - 0.0065, 2.365 + 0.0325))
    assert axes.get_title(loc="right").startswith("no suggestion: the loss never falls; cut at ")


def test_training_curves_are_the_records_and_mark_resolutions() -> None:
    run = history([16, 16, 24, 32])
    figure = plots.training_curves(run, "Curves")
    loss, accuracy = figure.axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split in ("train", "test"):
            [drawn] = [drawn for drawn in axes.lines if str(drawn.get_label()).startswith(split)]
            assert list(drawn.get_xdata()) == [1, 2, 3, 4]
            assert list(drawn.get_ydata()) == [getattr(record, f"{split}_{quantity}") for record in run.records]
        edges = [drawn.get_xdata()[0] for drawn in axes.lines if str(drawn.get_label()).startswith("_")]
        assert edges == [2.5, 3.5]
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [
            ("16 px", 0.5),
            ("24 px", 2.5),
            ("32 px", 3.5),
        ]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "train: 0.500 at the end",
        "test: 0.625 at the end",
    ]
    expected = ["train: 85.00 % at the end", "test: 83.00 % at the end"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == expected
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy (percent)")


def test_training_curves_of_one_resolution_have_no_marks() -> None:
    for axes in plots.training_curves(history([32]), "t").axes:
        assert len(axes.lines) == 2
        assert texts(axes) == []
        assert axes.get_xlim() == (0.5, 1.5)


@pytest.mark.parametrize("count", [1, 8, 30])
def test_training_log_shows_its_rows_as_given(count: int) -> None:
    figure = plots.training_log(history([32] * count), "Log")
    log, loss, _ = figure.axes
    assert texts(log) == log_rows(count)
    assert {text.get_fontfamily()[0] for text in log.texts} == {"DejaVu Sans Mono"}
    assert [text.get_weight() for text in log.texts] == ["bold"] + ["normal"] * count
    assert len(loss.lines[0].get_xdata()) == count


def test_training_log_of_many_epochs_shows_the_first_and_last_and_says_so() -> None:
    rows = log_rows(45)
    log, *curves = plots.training_log(history([32] * 45), "Log").axes
    assert texts(log) == [*rows[:11], "... 15 of 45 epochs not shown ...", *rows[26:]]
    assert all(len(axes.lines[0].get_xdata()) == 45 for axes in curves), "the curves leave nothing out"


def test_training_log_shrinks_rows_too_long_to_fit() -> None:
    figure = plots.training_log(history([32], seconds=1e150), "Log")
    assert figure.axes[0].texts[1].get_size() < 7
    assert outside_or_overlapping(figure) == []


# ---- per class -------------------------------------------------------------------------------------------------------


def test_confusion_matrix_gives_counts_and_row_percentages() -> None:
    counts = np.array([[997, 3, 0], [10, 30, 0], [0, 0, 0]])
    figure = plots.confusion_matrix(counted(counts, ["cat", "dog", "us$ and $"]), "Confusion")
    axes, bar = figure.axes
    assert np.allclose(pixels(axes), [[99.7, 0.3, 0], [25, 75, 0], [0, 0, 0]])
    assert axes.get_images()[0].norm(25.0) == pytest.approx(0.5), "square-root scale"
    found = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert found == {
        (0, 0): "997\n100 %", (0, 1): "3\n0.3 %", (0, 2): "0",
        (1, 0): "10\n25 %", (1, 1): "30\n75 %", (1, 2): "0",
        (2, 0): "0", (2, 1): "0", (2, 2): "0",
    }  # fmt: skip
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "us$ and $"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cat", "dog", "us$ and $"]
    assert not any(text.get_parse_math() for text in axes.get_xticklabels()), "a dollar is a dollar, not mathematics"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "actual class")
    assert bar.get_ylabel() == "percent of the actual class (square-root scale)"
    colors = {text.get_position()[::-1]: text.get_color() for text in axes.texts}
    assert colors[0, 0] == "white", "legible on a dark cell"
    assert colors[0, 2] == plots.INK


@pytest.mark.parametrize(("number", "cell"), [(12, "97\n75 %"), (20, "97"), (21, None), (100, None)])
def test_confusion_matrix_drops_numbers_that_have_no_room(number: int, cell: str | None) -> None:
    names = [f"class_{index}" for index in range(number)]
    axes = plots.confusion_matrix(confusion(number, names), "t").axes[0]
    assert (axes.texts[0].get_text() if axes.texts else None) == (
        cell.replace("75", f"{9700 / (97 + 3 * (number - 1)):.0f}") if cell else None
    )


def test_confusion_matrix_names_each_of_100_classes_on_one_of_two_sides() -> None:
    names = [f"class_{index}" for index in range(100)]
    axes = plots.confusion_matrix(confusion(100, names), "t").axes[0]
    right, top = axes.child_axes
    for near, far in ((axes.yaxis, right.yaxis), (axes.xaxis, top.xaxis)):
        labeled = {round(tick.get_loc()): tick.label1.get_text() for tick in near.get_major_ticks()}
        labeled |= {round(tick.get_loc()): tick.label2.get_text() for tick in far.get_major_ticks()}
        assert labeled == dict(enumerate(names))


def test_class_accuracies_are_sorted_bars() -> None:
    figure = plots.class_accuracies(accurate([50, None, 92.5, 10], ["cat", "dog", "ship", "deer"]), "Per class")
    [axes] = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [92.5, 50.0, 10.0, 0.0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ship", "cat", "deer", "dog"]
    assert texts(axes) == ["92.5 %", "50.0 %", "10.0 %", "no images"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "best at the top"
    assert axes.lines[0].get_xdata()[0] == pytest.approx((50 + 92.5 + 10) / 3)
    assert legend_of(figure) == ["mean 50.8 %"]


def test_class_accuracies_of_100_classes_stand_in_two_columns() -> None:
    accuracies = np.random.default_rng(0).permutation(100)
    figure = plots.class_accuracies(accurate(accuracies, [str(index) for index in range(100)]), "t")
    lengths = [[patch.get_width() for patch in axes.patches] for axes in figure.axes]
    assert lengths == [list(range(99, 49, -1)), list(range(49, -1, -1))]


# ---- one style -------------------------------------------------------------------------------------------------------


FIGURES: dict[str, Callable[[], Figure]] = {
    "mistakes 1": lambda: mistakes_grid(1, title=LONG_TITLE),
    "mistakes 10": lambda: mistakes_grid(10, title=LONG_TITLE),
    "augmented": lambda: plots.augmented_grid(
        AugmentedImages(some_images(2), some_images(14).reshape(2, 7, 8, 8, 3), ("aquarium_fish", "dog")), LONG_TITLE
    ),
    "panels 1": lambda: panels(1, layers=4),
    "panels 10": lambda: panels(10, layers=1),
    "comparison 1": lambda: comparison(1),
    "comparison 11": lambda: comparison(11),
    "right 11": lambda: right_comparison(11),
    "range test": lambda: plots.range_test(range_result(np.array([2.3, 2.2, 1.2, 9.0, np.nan, np.nan])), LONG_TITLE, chosen=0.02),
    "curves": lambda: plots.training_curves(history(list(range(8, 22))), LONG_TITLE),
    "log 8": lambda: plots.training_log(history([16] * 4 + [32] * 4), LONG_TITLE),
    "log 45": lambda: plots.training_log(history([16] * 20 + [32] * 25), "t"),
    "confusion 10": lambda: plots.confusion_matrix(confusion(10, CLASSES), LONG_TITLE),
    "confusion 100": lambda: plots.confusion_matrix(confusion(100, [f"class_{i:02}" for i in range(100)]), "t"),
    "accuracies": lambda: plots.class_accuracies(accurate(range(0, 100, 10), CLASSES), LONG_TITLE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_is_whole_legible_and_free(name: str) -> None:
    figure = FIGURES[name]()
    assert outside_or_overlapping(figure) == []
    assert figure.get_figwidth() <= 10
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert min(text.get_size() for text in figure.findobj(Text)) >= 9


def test_the_callers_style_neither_shows_nor_changes() -> None:
    with matplotlib.rc_context({"figure.facecolor": "black", "text.color": "white", "font.size": 4, "xtick.color": "red"}):
        before = dict(matplotlib.rcParams)
        figure = plots.training_curves(history([32, 32]), "t")
        figure.draw_without_rendering()
        assert dict(matplotlib.rcParams) == before
    assert figure.get_facecolor() == (1, 1, 1, 1)
    label = figure.axes[0].get_xticklabels()[0]
    assert (label.get_color(), label.get_size()) == (plots.INK, 9)


# ---- showing and saving ----------------------------------------------------------------------------------------------


def test_save_writes_a_png_of_the_asked_resolution_into_new_folders(tmp_path) -> None:
    figure = plots.image_grid(some_images(1), ["cat"], "t")
    path = plots.save(figure, tmp_path / "runs" / "one" / "grid.png")
    assert path == tmp_path / "runs" / "one" / "grid.png"
    with Image.open(path) as written:
        assert written.format == "PNG"
        assert written.size == pytest.approx(tuple(150 * side for side in figure.get_size_inches()), abs=1)
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_save_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")

    class Failing(Figure):
        def savefig(self, file, **options) -> None:
            file.write(b"half a pic")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        plots.save(Failing(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_replaces_the_old_file_in_one_step(tmp_path, monkeypatch) -> None:
    path = tmp_path / "grid.png"
    path.write_bytes(b"old")
    replaced = []

    def failing_replace(source, target) -> None:
        replaced.append((source.parent, target, source.read_bytes()[:4]))
        raise OSError("no permission")

    monkeypatch.setattr(os, "replace", failing_replace)
    with pytest.raises(OSError, match="no permission"):
        plots.save(plots.image_grid(some_images(1), ["cat"], "t"), path)
    assert replaced == [(tmp_path, path, b"\x89PNG")], "from a whole file in the same folder"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_show_does_nothing_without_a_running_ipython(capsys) -> None:
    plots.show(plots.image_grid(some_images(1), ["cat"], "t"))
    assert capsys.readouterr() == ("", "")


def test_show_displays_a_png_in_a_kernel_that_has_no_inline_backend(request) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    source = (
        "import sys, numpy as np; from era_support_packages import plots\n"
        "figure = plots.image_grid(np.zeros((1, 8, 8, 3), np.uint8), ['cat'], 'A title')\n"
        "pyplot = sys.modules.get('matplotlib.pyplot')  # pytorch-grad-cam imports it; nothing here draws with it\n"
        "plots.show(figure); print(bool(pyplot and pyplot.get_fignums()))"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    resources = {"metadata": {"path": str(request.config.rootpath)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources, timeout=60).execute()
    picture, printed = notebook.cells[0].outputs
    assert (picture.output_type, printed.text) == ("display_data", "False\n"), "no global figures"
    assert picture.data["image/png"].startswith("iVBORw0KGgo"), "the first bytes of a PNG in base64"
    assert picture.metadata["image/png"]["alt"] == "A title"


# ---- bad values ------------------------------------------------------------------------------------------------------


IMAGES, MAPS, IDS = some_images(2), some_maps(2, 2), np.array([0, 1])


def draw_panels(**changes: object) -> Figure:
    values = {"predicted": IDS, "labels": IDS[::-1], **changes}
    return plots.gradcam_panels(explained(IMAGES, MAPS[:, None], **values), "t")


def draw_comparison(layer: str | None = None, **changes: object) -> Figure:
    values = {"predicted": IDS, "labels": IDS[::-1], "targets": np.array([[0, 1], [1, 0]]), "confidences": np.full((2, 2), 0.5)}
    return plots.gradcam_comparison(explained(IMAGES, some_maps(2, 2, 2), **{**values, **changes}), "t", layer=layer)


def draw_augmented(variants: np.ndarray) -> Figure:
    return plots.augmented_grid(AugmentedImages(IMAGES, variants, ("", "")), "t")


BAD_VALUES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: plots.image_grid(IMAGES / 255, ["", ""], "t"),
        "images must be uint8 of shape (N, H, W, 3), not normalised; got float64 of shape (2, 8, 8, 3).",
    ),
    (
        lambda: plots.image_grid(IMAGES[0], [""], "t"),
        "images must be uint8 of shape (N, H, W, 3), not normalised; got uint8 of shape (8, 8, 3).",
    ),
    (lambda: plots.image_grid(IMAGES[:0], [], "t"), "images holds 0 images; one figure takes from 1 to 400."),
    (
        lambda: plots.image_grid(some_images(401), [""] * 401, "t"),
        "images holds 401 images; one figure takes from 1 to 400.",
    ),
    (lambda: plots.image_grid(IMAGES, [""], "t"), "captions has 1 entries for 2 images; give one for each image."),
    (
        lambda: plots.image_grid(IMAGES, ["", ""], "t", columns=11),
        "columns is 11; it must be a whole number from 1 to 10.",
    ),
    (
        lambda: plots.image_grid(IMAGES, ["", ""], "t", columns=0),
        "columns is 0; it must be a whole number from 1 to 10.",
    ),
    (
        lambda: draw_augmented(IMAGES),
        "variants must be uint8 of shape (2, V, 8, 8, 3), for originals of shape (2, 8, 8, 3); got uint8 of shape (2, 8, 8, 3).",
    ),
    (
        lambda: draw_augmented(IMAGES[:1, None]),
        "variants must be uint8 of shape (2, V, 8, 8, 3), for originals of shape (2, 8, 8, 3); "
        "got uint8 of shape (1, 1, 8, 8, 3).",
    ),
    (lambda: draw_augmented(IMAGES[:, None][:, :0]), "variants holds 0 for each image; give from 1 to 12."),
    (
        lambda: draw_augmented(np.repeat(IMAGES[:, None], 13, axis=1)),
        "variants holds 13 for each image; give from 1 to 12.",
    ),
    (
        lambda: plots.incorrect_predictions(told(IDS, IDS, 0.5, None), [0], "t"),
        "these predictions hold no images to show; take those that Classifier.predict made.",
    ),
    (
        lambda: plots.incorrect_predictions(told(IDS, None, 0.5, IMAGES), [0], "t"),
        "these images have no labels, so nothing can be said of right and wrong; predict a labelled split.",
    ),
    (
        lambda: plots.incorrect_predictions(told(IDS, IDS, 0.5, IMAGES), [], "t"),
        "images holds 0 images; one figure takes from 1 to 400.",
    ),
    (lambda: draw_panels(maps=MAPS[:, None, :1]), "maps must be of shape (2, 2, 8, 8); got (2, 1, 8, 8)."),
    (lambda: draw_panels(maps=MAPS[:, None] - 0.5), "maps must lie from 0 to 1; got values from -0.4"),
    (lambda: draw_panels(maps=MAPS[:, None] * np.nan), "maps holds NaN or infinite values; every value must be from 0 to 1."),
    (lambda: draw_panels(layers=()), "layers is empty; at least one is needed."),
    (
        lambda: draw_panels(images=None),
        "this explanation holds no images to show, as `gradcam.explain` sees normalised ones only; take Classifier.explain.",
    ),
    (
        lambda: draw_panels(predicted=np.array([0.0, 1.0])),
        "predicted must be integer class ids of shape (2,); got float64 of shape (2,).",
    ),
    (lambda: draw_panels(labels=np.array([2])), "labels must be integer class ids of shape (2,); got int64 of shape (1,)."),
    (lambda: draw_panels(predicted=np.array([0, 10])), "predicted must be class ids from 0 to 9; got values from 0 to 10."),
    (lambda: draw_comparison(maps=MAPS[:, None]), "maps must be of shape (2, 2, 2, 8, 8); got (2, 1, 2, 8, 8)."),
    (lambda: draw_comparison(confidences=IDS / 2), "confidences must be of shape (2, 2); got (2,)."),
    (
        lambda: draw_comparison(targets=np.array([[0, 1], [1, 1]])),
        "image 1 is explained for automobile and automobile, but a comparison sets the predicted class beside another, here "
        "automobile and airplane; explain it with targets='contrast'.",
    ),
    (
        lambda: draw_comparison(targets=np.array([[0, 2], [1, 0]])),
        "image 0 is explained for airplane and bird, but a comparison sets the predicted class beside another, here "
        "airplane and automobile; explain it with targets='contrast'.",
    ),
    (lambda: draw_comparison(layer="layer 4"), "There is no map of layer 'layer 4': did you mean 'layer4' or 'layer1'?"),
    (lambda: draw_comparison(layer="conv"), "There is no map of layer 'conv': choose one of 'layer1', 'layer4'."),
    (
        lambda: plots.overlay(IMAGES[0] / 255, MAPS[0, 0]),
        "image must be uint8 of shape (H, W, 3); got float64 of shape (8, 8, 3).",
    ),
    (lambda: plots.overlay(IMAGES[0], MAPS[0, 0, :4]), "heat must be of shape (8, 8); got (4, 8)."),
    (
        lambda: plots.overlay(IMAGES[0], MAPS[0, 0], opacity=50),
        "opacity is 50; it must be from 0 (only the image) to 1 (only the map).",
    ),
    (
        lambda: plots.overlay(IMAGES[0], MAPS[0, 0], colormap="infreno"),
        "There is no colormap 'infreno': did you mean 'inferno'",
    ),
    (
        lambda: plots.range_test(range_result(lrs=np.ones(3)), "t"),
        "lrs, losses and smoothed must be of one shape (K,) with K of at least 2; got (3,), (6,) and (6,).",
    ),
    (
        lambda: plots.range_test(range_result(lrs=np.arange(6.0)), "t"),
        "lrs must be finite and greater than 0: the axis of learning rates is logarithmic.",
    ),
    (
        lambda: plots.range_test(range_result(np.full(6, np.nan)), "t"),
        "the range test has no finite loss to draw; start it at a smaller learning rate.",
    ),
    (
        lambda: plots.range_test(range_result(), "t", chosen=0.0),
        "chosen is 0.0; it must be a finite learning rate greater than 0.",
    ),
    (lambda: plots.training_curves(history([]), "t"), "history.records is empty; at least one is needed."),
    (lambda: plots.training_log(history([]), "t"), "history.records is empty; at least one is needed."),
    (
        lambda: plots.confusion_matrix(told(IDS, None, 0.5, IMAGES), "t"),
        "these images have no labels, so nothing can be said of right and wrong; predict a labelled split.",
    ),
    (
        lambda: plots.class_accuracies(told(IDS, None, 0.5, IMAGES), "t"),
        "these images have no labels, so nothing can be said of right and wrong; predict a labelled split.",
    ),
    (
        lambda: plots.save(Figure(), "figure.jpg"),
        "figure.jpg cannot be written: figures are saved as PNG, so the name must end in .png.",
    ),
]


@pytest.mark.parametrize(("draw", "message"), BAD_VALUES, ids=[message[:40] for _, message in BAD_VALUES])
def test_bad_values_get_one_sentence(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as caught:
        draw()
    sentence = str(caught.value)
    assert sentence.endswith((".", "?"))
    assert ". " not in sentence
