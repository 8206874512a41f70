"""Figures of the training log and of the results by class: what is drawn are the numbers given."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from era_support_packages import plots
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.training.history import EpochRecord, log_header, log_row

Check = Callable[[Callable[[], Figure]], Figure]
HUNDRED = [f"class_{index:02}" for index in range(100)]
LONG_TITLE = "CIFAR-10, run cpu-cifar10-jpeg-3f2a91: " + "wrong predictions of the test split, highest loss first, " * 3


def history(resolutions: Sequence[int], seconds: float = 42.0) -> SimpleNamespace:
    records = [
        EpochRecord(epoch, size, 100, 0.1, 2.0 / epoch, 100 - 60 / epoch, 2.5 / epoch, 98 - 60 / epoch, 60, 100, seconds)
        for epoch, size in enumerate(resolutions, start=1)
    ]
    return SimpleNamespace(records=tuple(records))


def curves(resolutions: Sequence[int], title: str = "t") -> Figure:
    return plots.training_curves(history(resolutions), title)


def log(resolutions: Sequence[int], title: str = "t", seconds: float = 42.0) -> Figure:
    return plots.training_log(history(resolutions, seconds), title)


def counted(counts: np.ndarray, classes: Sequence[str]) -> Predictions:
    """Predictions with this confusion matrix."""
    actual, predicted = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), len(classes))
    return Predictions(np.eye(len(classes), dtype=np.float32)[predicted], actual, tuple(classes))


def confusion(number: int, title: str = "t") -> Figure:
    """97 images of each class are right, and 3 go to each of the others."""
    return plots.confusion_matrix(counted(3 + 94 * np.eye(number, dtype=int), HUNDRED[:number]), title)


def accuracies(percents: Sequence[float | None], classes: Sequence[str] = HUNDRED, title: str = "t") -> Figure:
    """Of 200 images a class, of which these percentages are right; None for a class without images."""
    right = np.array([0 if percent is None else round(2 * percent) for percent in percents])
    wrong = np.array([0 if percent is None else 200 - round(2 * percent) for percent in percents])
    counts = np.diag(right) + np.roll(np.diag(wrong), 1, axis=1)
    return plots.class_accuracies(counted(counts, classes[: len(percents)]), title)


def words(texts: Iterable[Text]) -> list[str]:
    return [text.get_text() for text in texts]


def by_place(axes: Axes, of: Callable[[Text], str]) -> dict[tuple[int, int], str]:
    """Row and column of each text, and what is asked of it."""
    return {text.get_position()[::-1]: of(text) for text in axes.texts}


def test_training_curves_are_the_records_and_mark_resolutions(check_figure: Check) -> None:
    run = history([16, 16, 24, 32])
    loss, accuracy = plots.training_curves(run, "Curves").axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split in ("train", "test"):
            [drawn] = [drawn for drawn in axes.lines if str(drawn.get_label()).startswith(split)]
            assert list(drawn.get_xdata()) == [1, 2, 3, 4]
            assert list(drawn.get_ydata()) == [getattr(record, f"{split}_{quantity}") for record in run.records]
        assert [drawn.get_xdata()[0] for drawn in axes.lines if str(drawn.get_label()).startswith("_")] == [2.5, 3.5]
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("16 px", 0.5), ("24 px", 2.5), ("32 px", 3.5)]
    assert words(loss.get_legend().get_texts()) == ["train: 0.500 at the end", "test: 0.625 at the end"]
    assert words(accuracy.get_legend().get_texts()) == ["train: 85.00 % at the end", "test: 83.00 % at the end"]
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy (percent)")
    for axes in curves([32]).axes:
        assert (len(axes.lines), words(axes.texts), axes.get_xlim()) == (2, [], (0.5, 1.5)), "one resolution has no marks"
    check_figure(partial(curves, range(8, 22), LONG_TITLE))


@pytest.mark.parametrize("count", [1, 30, 45])
def test_training_log_shows_its_rows_and_of_more_than_30_the_first_and_last(count: int, check_figure: Check) -> None:
    sizes = [16] * (count // 2) + [32] * (count - count // 2)
    expected = [log_header(), *map(log_row, history(sizes).records)]
    if count == 45:
        expected[11:26] = ["... 15 of 45 epochs not shown ..."]
    rows, *both = check_figure(partial(log, sizes, LONG_TITLE)).axes
    assert words(rows.texts) == expected
    assert {text.get_fontfamily()[0] for text in rows.texts} == {"DejaVu Sans Mono"}
    assert [text.get_weight() for text in rows.texts] == ["bold"] + ["normal"] * (len(expected) - 1)
    assert [len(axes.lines[0].get_xdata()) for axes in both] == [count] * 2, "the curves leave nothing out"


def test_training_log_shrinks_rows_too_long_to_fit() -> None:
    figure = log([32], seconds=1e150)
    figure.draw_without_rendering()
    row = figure.axes[0].texts[1]
    assert row.get_size() < 7
    assert row.get_window_extent().x1 <= figure.bbox.x1


def test_confusion_matrix_gives_counts_and_row_percentages() -> None:
    names = ["cat", "dog", "us$ and $"]
    axes, bar = plots.confusion_matrix(counted(np.array([[997, 3, 0], [10, 30, 0], [0, 0, 0]]), names), "t").axes
    [drawn] = axes.get_images()
    assert np.allclose(drawn.get_array(), [[99.7, 0.3, 0], [25, 75, 0], [0, 0, 0]])
    assert drawn.norm(25.0) == pytest.approx(0.5), "square-root scale"
    assert by_place(axes, Text.get_text) == {
        (0, 0): "997\n100 %", (0, 1): "3\n0.3 %", (0, 2): "0",
        (1, 0): "10\n25 %", (1, 1): "30\n75 %", (1, 2): "0",
        (2, 0): "0", (2, 1): "0", (2, 2): "0",
    }  # fmt: skip
    colors = by_place(axes, Text.get_color)
    assert (colors[0, 0], colors[0, 2]) == ("white", plots.INK), "legible on a dark cell"
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert words(labels) == names
        assert not any(text.get_parse_math() for text in labels), "a dollar is a dollar, not mathematics"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "actual class")
    assert bar.get_ylabel() == "percent of the actual class (square-root scale)"


@pytest.mark.parametrize(("number", "cell"), [(12, ["97\n75 %"]), (20, ["97"]), (21, [])])
def test_confusion_matrix_drops_numbers_that_have_no_room(number: int, cell: list[str], check_figure: Check) -> None:
    assert words(check_figure(partial(confusion, number, LONG_TITLE)).axes[0].texts)[:1] == cell


def test_confusion_matrix_names_each_of_100_classes_on_one_of_two_sides(check_figure: Check) -> None:
    axes = check_figure(partial(confusion, 100)).axes[0]
    right, top = axes.child_axes
    for near, far in ((axes.yaxis, right.yaxis), (axes.xaxis, top.xaxis)):
        labeled = {round(tick.get_loc()): tick.label1.get_text() for tick in near.get_major_ticks()}
        labeled |= {round(tick.get_loc()): tick.label2.get_text() for tick in far.get_major_ticks()}
        assert labeled == dict(enumerate(HUNDRED))


def test_class_accuracies_are_sorted_bars(check_figure: Check) -> None:
    figure = check_figure(partial(accuracies, [50, None, 92.5, 10], ["cat", "dog", "ship", "deer"], LONG_TITLE))
    [axes] = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [92.5, 50.0, 10.0, 0.0]
    assert words(axes.get_yticklabels()) == ["ship", "cat", "deer", "dog"]
    assert words(axes.texts) == ["92.5 %", "50.0 %", "10.0 %", "no images"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "best at the top"
    assert axes.lines[0].get_xdata()[0] == pytest.approx((50 + 92.5 + 10) / 3)
    assert words(figure.legends[0].get_texts()) == ["mean 50.8 %"]


def test_class_accuracies_of_100_classes_stand_in_two_columns(check_figure: Check) -> None:
    figure = check_figure(partial(accuracies, np.random.default_rng(0).permutation(100)))
    lengths = [[patch.get_width() for patch in axes.patches] for axes in figure.axes]
    assert lengths == [list(range(99, 49, -1)), list(range(49, -1, -1))]


UNKNOWN = Predictions(np.eye(2), None, ("cat", "dog"))


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (plots.training_curves, history([]), r"history\.records is empty; at least one is needed\."),
        (plots.training_log, history([]), r"history\.records is empty; at least one is needed\."),
        (plots.confusion_matrix, UNKNOWN, r"These images have no labels, .*; predict a labelled split\."),
        (plots.class_accuracies, UNKNOWN, r"These images have no labels, .*; predict a labelled split\."),
    ],
)
def test_nothing_to_draw_is_refused(draw: Callable[..., Figure], given: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        draw(given, "t")
