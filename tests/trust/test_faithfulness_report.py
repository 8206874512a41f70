"""Faithfulness in words: tables as printed, and a winner only where the numbers name one."""

import dataclasses

import numpy as np
import pytest
from quadrant_networks import BrightTopLeft, Pooled, TopLeft, red_noise

from era_support_packages.trust.faithfulness.metrics import METRICS
from era_support_packages.trust.faithfulness.result import GAUSSIAN, Faithfulness, MapScores, needed_images
from era_support_packages.trust.faithfulness.scores import judge

ZIGZAG = np.array([0.01, -0.01] * 10)  # the values of a row, around its mean


def row(name: str, mean: float, method: str = "", layer: str = "layer3", spread: float = 1, constant: int = 0) -> MapScores:
    values = mean + spread * ZIGZAG
    return MapScores(name, layer, method, dict.fromkeys(METRICS, values), np.zeros((20, 2)), np.zeros((20, 2)), constant)


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


GRADCAM, HIRESCAM = row("gradcam", 0.2, "gradcam"), row("hirescam", 0.3, "hirescam")


# ---- the reading -------------------------------------------------------------------------------------------------------


def test_a_winner_beats_all_baselines_and_all_other_maps() -> None:
    assert result_of(GRADCAM, HIRESCAM).reading("road") == (
        "ROAD, 20 images: the winner is HiResCAM layer3. It is better than the closest of its baselines, 'random map', by "
        "+0.200 (95 % interval +0.200 to +0.200, corrected for 6 comparisons). It is better than the closest other map, "
        "Grad-CAM layer3, by +0.100 (95 % interval +0.100 to +0.100)."
    )


def test_where_less_is_better_the_smallest_wins() -> None:
    text = result_of(row("gradcam", 0.05, "gradcam"), row("hirescam", 0.01, "hirescam")).reading("deletion")
    assert text.startswith("Deletion area, 20 images: the winner is HiResCAM layer3. It is better than the closest of its")
    assert "'random map', by +0.090 (" in text
    assert "Grad-CAM layer3, by +0.040 (" in text


def test_a_single_map_wins_over_its_baselines_alone() -> None:
    assert result_of(GRADCAM).reading("road") == (
        "ROAD, 20 images: the winner is Grad-CAM layer3. It is better than the closest of its baselines, 'random map', by "
        "+0.100 (95 % interval +0.100 to +0.100, corrected for 3 comparisons)."
    )


def test_there_is_no_winner_where_another_map_is_as_good() -> None:
    found = result_of(GRADCAM, row("hirescam", 0.201, "hirescam", spread=-1)).reading("road")
    assert found.startswith(
        "ROAD, 20 images: there is no winner. The best mean is that of HiResCAM layer3, but it is not clearly better than "
        "Grad-CAM layer3: +0.001 (95 % interval -0.00"
    )
    assert found.endswith("Better than all their baselines: Grad-CAM layer3, HiResCAM layer3.")


def test_there_is_no_winner_where_a_baseline_is_as_good() -> None:
    found = result_of(GRADCAM, HIRESCAM, baseline=0.3).reading("road")
    assert found == (
        "ROAD, 20 images: there is no winner. The best mean is that of HiResCAM layer3, but it is not clearly better than its "
        "baseline 'random map': +0.000 (95 % interval +0.000 to +0.000, corrected for 6 comparisons). Better than all their "
        "baselines: none."
    )


def test_there_is_no_winner_where_all_maps_are_the_same() -> None:
    found = result_of(GRADCAM, row("hirescam", 0.2, "hirescam")).reading("road")
    assert found == (
        "ROAD, 20 images: there is no winner. All the maps score the same on every image. Better than all their baselines: "
        "Grad-CAM layer3, HiResCAM layer3."
    )


def test_a_map_that_is_the_winner_under_another_name_is_no_rival() -> None:
    found = result_of(row("layercam", 0.2, "layercam"), HIRESCAM, row("gradcam", 0.3, "gradcam")).reading("road")
    assert found.startswith("ROAD, 20 images: the winner is HiResCAM layer3.")
    assert found.endswith(
        "interval +0.100 to +0.100, corrected for 3 comparisons). The same scores on every image: Grad-CAM layer3."
    )


def test_few_images_name_no_winner() -> None:
    images = red_noise(6)
    result = judge(TopLeft(2, -16), images, [0] * 6, methods=["hirescam"], layers="conv", percentiles=[50], steps=8)
    assert all(found.low > 0 for found in result.over_baselines(result.methods[0], "deletion").values())
    assert result.reading("deletion") == (
        "Deletion area, 6 images: too few to name a winner; intervals corrected for 3 comparisons need at least 7."
    )


def test_pixel_noise_that_scores_better_is_said() -> None:
    assert (
        result_of(GRADCAM, HIRESCAM, noise=0.4)
        .reading("road")
        .endswith(
            "Pixel noise, which knows nothing, scores better than all of them (0.400 against 0.300): here this metric rewards "
            "scattered pixels, so compare maps of one grid only."
        )
    )


def test_a_baseline_that_marks_nothing_is_said() -> None:
    """A Gaussian in the middle of a grid of 2 x 2 is the same in all four cells."""
    blind = result_of(GRADCAM, HIRESCAM)
    baselines = [dataclasses.replace(each, constant=20) if each.name == GAUSSIAN else each for each in blind.baselines]
    found = dataclasses.replace(blind, baselines=tuple(baselines)).reading("road")
    assert "the centred Gaussian marks nothing in 20 of the 20 images" in found
    assert "marks nothing" not in blind.reading("road")


def test_constant_maps_are_said() -> None:
    found = result_of(row("gradcam", 0.2, "gradcam", constant=3), HIRESCAM).reading("road")
    assert found.endswith(" 3 of the 40 maps are constant: they mark nothing, and count as pixels in a drawn order.")


def test_the_reading_names_the_map_of_a_network_whose_reason_is_known() -> None:
    result = judge(
        BrightTopLeft(), red_noise(20), [0] * 20, methods=["gradcam", "hirescam"], layers="conv", percentiles=[80, 90], steps=8
    )
    for metric, name in (("road", "ROAD"), ("deletion", "Deletion area"), ("insertion", "Insertion area")):
        assert result.reading(metric).startswith(f"{name}, 20 images: the winner is HiResCAM conv.")


def test_the_reading_names_no_winner_where_the_methods_are_the_same_map_or_the_network_sees_nothing() -> None:
    values = {"methods": ["gradcam", "hirescam"], "layers": "conv", "percentiles": [50], "steps": 8}
    same = judge(Pooled(0.2, -6.4), red_noise(20), [0] * 20, **values)
    assert "there is no winner. All the maps score the same on every image. Better than all their baselines: Grad-CAM conv" in (
        same.reading("deletion")
    )
    blind = judge(TopLeft(0), red_noise(20), [0] * 20, **values)
    assert "there is no winner. The best mean is that of Grad-CAM conv, but it is not clearly better than its baseline" in (
        blind.reading("road")
    )
    assert blind.reading("road").endswith(
        "40 of the 40 maps are constant: they mark nothing, and count as pixels in a drawn order."
    )


@pytest.mark.parametrize("comparisons", [1, 3, 18, 30, 100])
def test_the_images_needed_are_the_fewest_that_can_show_a_difference(comparisons: int) -> None:
    count = needed_images(comparisons)
    assert 2.0 ** (1 - count) <= 0.05 / comparisons < 2.0 ** (2 - count)


# ---- tables ------------------------------------------------------------------------------------------------------------


def test_the_table_of_scores() -> None:
    table = result_of(row("gradcam", -0.2, "gradcam")).table()
    assert str(table).splitlines() == [
        "                                           deletion  insertion  confidence  confidence  average",
        "map                        layer   ROAD +    area -     area +      drop -  increase +   drop -",
        *(
            f"{name:<25}  {layer:<6}  {mean:>6}  {mean:>8}  {mean:>9}  {mean:>10}  {mean:>10}  {mean:>7}"
            for name, layer, mean in (
                ("Grad-CAM", "layer3", "-0.200"),
                ("random map", "layer3", "0.100"),
                ("centred Gaussian", "layer3", "0.100"),
                ("Grad-CAM of another image", "layer3", "0.100"),
                ("pixel noise", "", "0.000"),
            )
        ),
        "Means over 20 images; + higher is better, - lower is better.",
    ]


def test_maps_that_mark_nothing_are_counted_where_there_are_any() -> None:
    table = result_of(row("gradcam", -0.2, "gradcam", constant=2)).table()
    assert [cells[-1] for cells in table.rows] == [2, 0, 0, 0, 0]
    assert table.columns[-1].name == "constant"
    assert table.caption.endswith("; constant: maps that mark nothing.")


def test_the_table_of_differences() -> None:
    result = result_of(GRADCAM, row("hirescam", 0.1, "hirescam"))
    assert str(result.comparison_table("insertion")).splitlines() == [
        "map                        over random map      over centred Gaussian   over another image's map",
        "Grad-CAM layer3  * +0.100 [+0.100, +0.100]  * +0.100 [+0.100, +0.100]  * +0.100 [+0.100, +0.100]",
        "HiResCAM layer3    +0.000 [+0.000, +0.000]    +0.000 [+0.000, +0.000]    +0.000 [+0.000, +0.000]",
        "Advantage in insertion area, paired over 20 images, positive is better; 95 % bootstrap intervals,",
        "corrected for 6 comparisons; * where zero is excluded.",
    ]


@pytest.mark.parametrize("ask", [Faithfulness.comparison_table, Faithfulness.reading])
def test_an_unknown_metric_is_refused(ask) -> None:
    metrics = "road, deletion, insertion, confidence_drop, confidence_increase, average_drop"
    with pytest.raises(ValueError, match=rf"^metric is 'ROAD'; choose one of {metrics}\.$"):
        ask(result_of(GRADCAM), "ROAD")


def test_what_holds_by_every_metric_is_said_once() -> None:
    text = result_of(row("gradcam", 0.2, "gradcam", constant=3), HIRESCAM).reading()
    *verdicts, constant = text.split("\n\n")
    assert [verdict.split(",")[0] for verdict in verdicts] == ["ROAD", "Deletion area", "Insertion area"]
    assert constant.startswith("3 of the ")
    assert text.count("are constant") == 1
