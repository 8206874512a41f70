"""The figure of the learning-rate range test: curves, marks, limits and notes as drawn."""

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from era_support_packages import plots
from era_support_packages.training.lr_trials import Trials

LRS = np.geomspace(1e-4, 10, 6)
DOWN_AND_UP = (2.3, 2.2, 1.6, 1.2, 3.0, 900.0)


def drawn(losses: Sequence[float] = DOWN_AND_UP, chosen: float | None = None, **changes: object) -> Figure:
    """Of a range test from 0.0001 to 10 with these losses."""
    values = {"lrs": LRS, "losses": np.array(losses), "smoothed": np.array(losses), "trials": None}
    values["suggestions"] = {"steepest": 0.01, "valley": 0.02}
    return plots.range_test(SimpleNamespace(**{**values, **changes}), "Range test", chosen=chosen)


def lines(figure: Figure) -> dict[str, np.ndarray]:
    """The points of each line of the legend."""
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    drawn = {str(line.get_label()): line.get_xydata() for line in figure.axes[0].lines}
    return {name: drawn[name] for name in names}


def test_every_suggestion_is_marked_on_the_smoothed_curve() -> None:
    smoothed = np.array([2.4, 2.3, 1.8, 1.4, 2.0, 500.0])
    figure = drawn(smoothed=smoothed, chosen=0.05)
    assert figure.axes[0].get_xscale() == "log"
    found = lines(figure)
    assert list(found) == ["raw loss", "smoothed loss", "steepest 0.01", "valley 0.02", "chosen 0.05"]
    np.testing.assert_array_equal(found["raw loss"], np.stack([LRS, DOWN_AND_UP], axis=1))
    np.testing.assert_array_equal(found["smoothed loss"], np.stack([LRS, smoothed], axis=1))
    assert found["steepest 0.01"][0] == pytest.approx((0.01, 1.8)), "0.01 is the third rate"
    assert found["valley 0.02"][0] == pytest.approx((0.02, 1.8 - 0.30103 * 0.4), abs=1e-5), "log10(2) of the way to 0.1"
    assert found["chosen 0.05"][:, 0].tolist() == [0.05, 0.05]
    raw, smooth = figure.axes[0].lines[:2]
    assert raw.get_alpha() < 0.5
    assert smooth.get_linewidth() > raw.get_linewidth()


@pytest.mark.parametrize(("margin", "words"), [(0.5, "clearly best"), (0.1, "not clearly best")])
def test_the_rates_that_were_tried_are_marked_and_it_says_how_sure_the_choice_is(margin: float, words: str) -> None:
    found = lines(drawn(trials=Trials({0.0125: 1.5, 0.05: 1.0, 0.2: np.inf}, margin, 0.1, 1200, 500, 100), chosen=0.05))
    assert list(found)[-2:] == [f"chosen 0.05, {words}", "tried: 3 rates"]
    assert found["tried: 3 rates"][:, 0].tolist() == [0.0125, 0.05, 0.2]


VALLEY = {"valley": 0.02}
RISING = "no suggestion: the loss never falls; cut at 2.4: losses reach 50"


@pytest.mark.parametrize(
    ("losses", "suggestions", "limits", "note"),
    [
        # From the lowest loss 1.2 to the highest before it, 2.3: a tenth below, and above half of that or the end.
        (DOWN_AND_UP, VALLEY, (1.2 - 0.11, 2.3 + 0.55), "cut at 2.85: losses reach 900"),
        ((2.3, 2.2, 1.6, 1.2, 1.3, 1.4), VALLEY, (1.2 - 0.11, 2.3 + 0.055), ""),
        ((2.3, 2.31, 2.33, 2.4, 3.0, 50.0), {}, (2.3 - 0.0065, 2.365 + 0.0325), RISING),  # from the lowest to the middle one
    ],
)
def test_the_axis_is_cut_above_the_valley_and_says_so(
    losses: Sequence[float], suggestions: dict[str, float], limits: tuple[float, float], note: str
) -> None:
    [axes] = drawn(losses, suggestions=suggestions).axes
    assert axes.get_ylim() == pytest.approx(limits)
    assert axes.get_title(loc="right") == note


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_finite_part_is_drawn(bad: float, check_figure: Callable[..., Figure]) -> None:
    suggestions = {"valley": 0.01, "steepest": np.nan}
    figure = check_figure(lambda: drawn((2.3, 2.2, 1.6, 1.2, bad, bad), suggestions=suggestions, chosen=0.02))
    [axes] = figure.axes
    assert axes.get_title(loc="right") == "shaded: no finite loss from 1 on"
    assert axes.get_ylim() == pytest.approx((1.2 - 0.11, 2.3 + 0.055))
    assert list(lines(figure))[2:] == ["valley 0.01", "steepest: none", "chosen 0.02"]
    np.testing.assert_array_equal(lines(figure)["smoothed loss"][:, 1], [2.3, 2.2, 1.6, 1.2, np.nan, np.nan])
    box = axes.patches[0].get_window_extent().transformed(axes.transData.inverted())
    assert (box.x0, box.x1) == pytest.approx((1.0, 10.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lrs": np.ones(3)},
            "lrs, losses and smoothed must be of one shape (K,) with K of at least 2; got (3,), (6,) and (6,).",
        ),
        ({"lrs": np.arange(6.0)}, "lrs must be finite and greater than 0: the axis of learning rates is logarithmic."),
        ({"losses": (np.nan,) * 6}, "The range test has no finite loss to draw; start it at a smaller learning rate."),
        ({"chosen": 0.0}, "chosen is 0.0; it must be a finite learning rate greater than 0."),
    ],
)
def test_bad_values_get_one_sentence(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        drawn(**changes)
