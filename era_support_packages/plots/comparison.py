"""Figures of runs beside each other: their curves, and the images that two of them judge otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from era_support_packages.plots.panels import check_count, check_images, check_some, fit_captions, panel_layout, panel_width
from era_support_packages.plots.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    WIDTH,
    count_lines,
    new_figure,
    percent_text,
    styled,
)

if TYPE_CHECKING:
    from era_support_packages.evaluation.comparison import PairedComparison
    from era_support_packages.gradcam.explanation import Explanation
    from era_support_packages.runs.comparison import Comparison

_LOOKS = [(color, line) for line in ("-", "--", ":") for color in (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, INK, GRAY)]
MOST_RUNS = len(_LOOKS)


@styled
def run_curves(comparison: Comparison, title: str) -> Figure:
    """Loss at the left and accuracy at the right by the training images shown, a line a run.

    On the test split, or where the runs were watched on a validation split, on that. Raises `ValueError` where no run has a
    complete epoch, and for more than 21 runs.

    >>> from era_support_packages import plots
    >>> from era_support_packages.runs import compare, prepare, train_prepared
    >>> small = dict(dataset="digits", train_images=8, batch_size=4, resolutions=((8, 1.0),))
    >>> runs = [prepare("smoke", max_lr=rate, **small) for rate in (0.01, 0.02)]
    >>> trained = [train_prepared(run, report=lambda line: None) for run in runs]
    >>> figure = plots.run_curves(compare(*(run.run.folder for run in runs)), "Two rates")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['test loss', 'test accuracy (percent)']
    """
    runs = [run for run in comparison.runs if run.records]
    check_some(runs, "the comparison's runs with a complete epoch")
    if len(runs) > MOST_RUNS:
        raise ValueError(f"{len(runs)} runs are too many to tell apart in one figure; give at most {MOST_RUNS}.")
    figure = new_figure(WIDTH, 3.4 + 0.19 * len(runs), title)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    lines = []
    for run, (color, dashes) in zip(runs, _LOOKS, strict=False):
        shown = np.cumsum([record.images for record in run.records]) / 1000
        marker = "o" if len(run.records) <= 30 else ""
        look: dict[str, Any] = {"color": color, "linestyle": dashes, "marker": marker, "markersize": 3.5, "linewidth": 1.6}
        label = ": ".join(text for text in (run.name, comparison.values_of(run)) if text)
        seen = [record.scores(record.watched) for record in run.records]
        lines += loss_axes.plot(shown, [math.nan if scores is None else scores.loss for scores in seen], label=label, **look)
        accuracy_axes.plot(shown, [math.nan if scores is None else scores.accuracy for scores in seen], **look)
    split = " or ".join(sorted({record.watched for run in runs for record in run.records}))
    for axes, label in ((loss_axes, f"{split} loss"), (accuracy_axes, f"{split} accuracy (percent)")):
        axes.grid(True, axis="y")
        axes.set(xlabel="training images shown (thousands)", ylabel=label)
        axes.set_xlim(left=0)
    figure.legend(handles=lines, loc="outside lower left")
    return figure


@styled
def disagreements(
    paired: PairedComparison,
    indices: np.ndarray,
    explanations: tuple[Explanation, Explanation],
    title: str,
    *,
    opacity: float = 0.5,
) -> Figure:
    """Images that two networks judge otherwise: the input, and what each looked at for the class that it predicts.

    indices: int64 (N,), positions of at most 100 images, such as `paired.only_first[:5]`; explanations: of exactly these images,
    for the predicted class, by the first and by the second network; their last layer is shown. Raises `ValueError` for anything
    else.

    >>> from era_support_packages import Classifier, ResNet18, load, plots
    >>> from era_support_packages.evaluation import PairedComparison
    >>> _, test = load("digits")
    >>> networks = [Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16) for _ in range(2)]  # not trained
    >>> paired = PairedComparison("one", "two", *(network.predict(test, range(20)) for network in networks))
    >>> indices = [0, 1]
    >>> explanations = tuple(network.explain(test, indices, layers=["layer3"]) for network in networks)
    >>> len(plots.disagreements(paired, indices, explanations, "Two networks").axes)  # three panels each, and the color bar
    7
    """
    said = [predictions.take(np.asarray(indices)) for predictions in (paired.of_first, paired.of_second)]
    pictures = check_images(said[0].pictures, "images", limit=100)
    check_some(list(indices), "indices")
    for explanation in explanations:
        check_count(list(explanation.maps), len(pictures), "maps of an explanation")
    groups = min(len(pictures), 2 if len(pictures) <= 10 else 3)
    ratios = [*[1, 1, 1, 0.25] * groups][:-1]
    panel = panel_width(ratios, largest=1.5)
    classes = said[0].classes
    captions = []
    for index, truth in enumerate(said[0].actual):
        captions.append(f"actual {classes[truth]}")
        for name, predictions in zip((paired.first, paired.second), said, strict=True):
            sure = percent_text(predictions.confidences[index])
            captions.append(f"{name}:\n{classes[predictions.predicted[index]]} ({sure})")
    flat = fit_captions(captions, panel)
    rows = math.ceil(len(pictures) / groups)
    layout = panel_layout(title, panel, pictures.shape[1:3], ratios, [max(map(count_lines, flat))] * rows, color_bar=True)
    for index, picture in enumerate(pictures):
        row, group = divmod(index, groups)
        layout.draw(row, 3 * group, picture, flat[3 * index])
        for number, explanation in enumerate(explanations):
            heat = explanation.maps[index, 0, -1]
            seen = picture if explanation.images is None else explanation.images[index]
            layout.draw_map(row, 3 * group + 1 + number, seen, heat, opacity, flat[3 * index + 1 + number])
    layers = " and ".join(dict.fromkeys(explanation.layers[-1] for explanation in explanations))
    layout.draw_color_bar(f"class activation map of {layers} for the class that each predicts")
    return layout.figure
