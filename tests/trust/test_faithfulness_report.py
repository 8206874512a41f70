"""Faithfulness in words: tables as printed, and a winner only where the numbers name one."""

import dataclasses
import re

import numpy as np
import pytest
from quadrant_networks import Pooled, TopLeft, red_noise

from era_support_packages.trust.faithfulness.metrics import METRICS
from era_support_packages.trust.faithfulness.result import GAUSSIAN, Faithfulness, MapScores, needed_images
from era_support_packages.trust.faithfulness.scores import judge

ZIGZAG = np.array([0.01, -0.01] * 10)  # the values of a row, around its mean


def row(name: str, mean: float, method: str = "", layer: str = "layer3", spread: float = 1, constant: int = 0) -> MapScores:
    values = mean + spread * ZIGZAG
    return MapScores(name, layer, method, dict.fromkeys(METRICS, values), np.zeros((20, 2)), np.zeros((20, 2)), constant)


def gradcam(mean: float = 0.2, constant: int = 0) -> MapScores:
    return row("gradcam", mean, "gradcam", constant=constant)


def hirescam(mean: float = 0.3, spread: float = 1) -> MapScores:
    return row("hirescam", mean, "hirescam", spread=spread)


def result_of(*methods: MapScores, baseline: float = 0.1, noise: float = 0.0) -> Faithfulness:
    baselines = [row("random map", baseline), row("centred Gaussian", baseline)]
    baselines += [row("another image's map", baseline, method.method) for method in methods]
    return Faithfulness(
        methods=methods,
        baselines=(*baselines, row("pixel noise", noise, layer="")),
        targets=np.zeros(20, np.int64),
        confidences=np.ones(20),
        shares=np.array([0.0, 1.0]),
        percentiles=(50,),
        other_images=np.roll(np.arange(20), 1),
        seed=0,
    )


BLIND = [dataclasses.replace(each, constant=20) if each.name == GAUSSIAN else each for each in result_of(gradcam()).baselines]
"""the Gaussian in the middle of a grid of 2 x 2 is the same in all four cells"""


@pytest.mark.parametrize(
    ("result", "reading"),
    [
        (
            result_of(gradcam(), hirescam()),
            "ROAD, 20 images: the winner is HiResCAM layer3. It is better than the closest of its baselines, 'random map', by "
            "+0.200 (95 % interval +0.200 to +0.200, corrected for 6 comparisons). It is better than the closest other map, "
            "Grad-CAM layer3, by +0.100 (95 % interval +0.100 to +0.100).",
        ),
        (
            result_of(gradcam()),
            "ROAD, 20 images: the winner is Grad-CAM layer3. It is better than the closest of its baselines, 'random map', by "
            "+0.100 (95 % interval +0.100 to +0.100, corrected for 3 comparisons).",
        ),
        (
            result_of(gradcam(), hirescam(0.201, spread=-1)),
            "ROAD, 20 images: there is no winner. The best mean is that of HiResCAM layer3, but it is not clearly better than "
            "Grad-CAM layer3: +0.001 (95 % interval -0.00*). Better than all their baselines: Grad-CAM layer3, HiResCAM layer3.",
        ),
        (
            result_of(gradcam(), hirescam(), baseline=0.3),
            "ROAD, 20 images: there is no winner. The best mean is that of HiResCAM layer3, but it is not clearly better than "
            "its baseline 'random map': +0.000 (95 % interval +0.000 to +0.000, corrected for 6 comparisons). Better than all "
            "their baselines: none.",
        ),
        (
            result_of(gradcam(), hirescam(0.2)),
            "ROAD, 20 images: there is no winner. All the maps score the same on every image. Better than all their baselines: "
            "Grad-CAM layer3, HiResCAM layer3.",
        ),
        (  # a map that is the winner under another name is no rival
            result_of(row("layercam", 0.2, "layercam"), hirescam(), gradcam(0.3)),
            "ROAD, 20 images: the winner is HiResCAM layer3. * interval +0.100 to +0.100, corrected for 3 comparisons). The same "
            "scores on every image: Grad-CAM layer3.",
        ),
        (
            result_of(gradcam(), hirescam(), noise=0.4),
            "ROAD, * Pixel noise, which knows nothing, scores better than all of them (0.400 against 0.300): here this metric "
            "rewards scattered pixels, so compare maps of one grid only.",
        ),
        (
            result_of(gradcam(constant=3), hirescam()),
            "ROAD, * 3 of the 40 maps are constant: they mark nothing, and count as pixels in a drawn order.",
        ),
        (
            dataclasses.replace(result_of(gradcam()), baselines=tuple(BLIND)),
            "ROAD, * On the grid of layer3 the centred Gaussian marks nothing in 20 of the 20 images, *",
        ),
    ],
)
def test_a_winner_is_named_only_where_it_beats_all_baselines_and_all_other_maps(result: Faithfulness, reading: str) -> None:
    assert re.fullmatch(re.escape(reading).replace(r"\*", ".*"), result.reading("road"))


def test_where_less_is_better_the_smallest_wins() -> None:
    text = result_of(gradcam(0.05), hirescam(0.01)).reading("deletion")
    assert text.startswith("Deletion area, 20 images: the winner is HiResCAM layer3. It is better than the closest of its")
    assert "'random map', by +0.090 (" in text
    assert "Grad-CAM layer3, by +0.040 (" in text


def test_few_images_name_no_winner() -> None:
    images = red_noise(6)
    result = judge(TopLeft(2, -16), images, [0] * 6, methods=["hirescam"], layers="conv", percentiles=[50], steps=8)
    assert all(found.low > 0 for found in result.over_baselines(result.methods[0], "deletion").values())
    assert result.reading("deletion") == (
        "Deletion area, 6 images: too few to name a winner; intervals corrected for 3 comparisons need at least 7."
    )


@pytest.mark.unhurried
def test_no_winner_is_named_where_the_methods_are_the_same_map_or_the_network_sees_nothing() -> None:
    values = {"methods": ["gradcam", "hirescam"], "layers": "conv", "percentiles": [50], "steps": 8}
    same = judge(Pooled(0.2, -6.4), red_noise(20), [0] * 20, **values).reading("deletion")
    assert "no winner. All the maps score the same on every image. Better than all their baselines: Grad-CAM conv" in same
    blind = judge(TopLeft(0), red_noise(20), [0] * 20, **values).reading("road")
    assert "no winner. The best mean is that of Grad-CAM conv, but it is not clearly better than its baseline" in blind
    assert "40 of the 40 maps are constant" in blind


@pytest.mark.parametrize("comparisons", [1, 3, 18, 30, 100])
def test_the_images_needed_are_the_fewest_that_can_show_a_difference(comparisons: int) -> None:
    count = needed_images(comparisons)
    assert 2.0 ** (1 - count) <= 0.05 / comparisons < 2.0 ** (2 - count)


def test_what_holds_by_every_metric_is_said_once() -> None:
    *verdicts, constant = result_of(gradcam(constant=3), hirescam()).reading().split("\n\n")
    assert [verdict.split(",")[0] for verdict in verdicts] == ["ROAD", "Deletion area", "Insertion area"]
    assert constant.startswith("3 of the 40 maps are constant")
    assert not any("are constant" in verdict for verdict in verdicts)


TABLE = """
                                           deletion  insertion  confidence  confidence  average
map                        layer   ROAD +    area -     area +      drop -  increase +   drop -
Grad-CAM                   layer3  -0.200    -0.200     -0.200      -0.200      -0.200   -0.200
random map                 layer3   0.100     0.100      0.100       0.100       0.100    0.100
centred Gaussian           layer3   0.100     0.100      0.100       0.100       0.100    0.100
Grad-CAM of another image  layer3   0.100     0.100      0.100       0.100       0.100    0.100
pixel noise                         0.000     0.000      0.000       0.000       0.000    0.000
Means over 20 images; + higher is better, - lower is better."""

DIFFERENCES = """
map                        over random map      over centred Gaussian   over another image's map
Grad-CAM layer3  * +0.100 [+0.100, +0.100]  * +0.100 [+0.100, +0.100]  * +0.100 [+0.100, +0.100]
HiResCAM layer3    +0.000 [+0.000, +0.000]    +0.000 [+0.000, +0.000]    +0.000 [+0.000, +0.000]
Advantage in insertion area, paired over 20 images, positive is better; 95 % bootstrap intervals,
corrected for 6 comparisons; * where zero is excluded."""


def test_the_tables_of_scores_and_of_differences() -> None:
    assert str(result_of(gradcam(-0.2)).table()) == TABLE[1:]
    assert str(result_of(gradcam(), hirescam(0.1)).comparison_table("insertion")) == DIFFERENCES[1:]
    table = result_of(gradcam(-0.2, constant=2)).table()
    assert [cells[-1] for cells in table.rows] == [2, 0, 0, 0, 0]
    assert table.columns[-1].name == "constant"
    assert table.caption.endswith("; constant: maps that mark nothing.")


def test_shares_of_images_are_compared_as_such_and_not_by_a_bootstrap() -> None:
    """Confidence that rises in all 20 images, against none: Newcombe's interval ends at 1 - sqrt(2) z^2 / (20 + z^2)."""
    values = {metric: np.ones(20) for metric in METRICS}, {metric: np.zeros(20) for metric in METRICS}
    better, worse = (dataclasses.replace(gradcam(), scores=scores) for scores in values)
    result = result_of(better)
    found, none = (result.advantage(better, other, "confidence_increase") for other in (worse, better))
    assert (found.estimate, found.low, found.high) == (1, pytest.approx(0.7721, abs=1e-4), 1)
    assert (none.estimate, none.low, none.high) == (0, pytest.approx(-0.1611, abs=1e-4), pytest.approx(0.1611, abs=1e-4))
    assert "95 % intervals after Newcombe" in result.comparison_table("confidence_increase").caption


@pytest.mark.parametrize("ask", [Faithfulness.comparison_table, Faithfulness.reading])
def test_an_unknown_metric_is_refused(ask) -> None:
    with pytest.raises(ValueError, match=rf"^metric is 'ROAD'; choose one of {', '.join(METRICS)}\.$"):
        ask(result_of(gradcam()), "ROAD")
