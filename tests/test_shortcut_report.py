"""The planted shortcut in words: the table row by row, and the sentence."""

from shortcut_results import made_up_maps, made_up_result

from era_support_packages.shortcut_report import reading, score_table
from era_support_packages.shortcut_test import ShortcutTest


def result() -> ShortcutTest:
    return made_up_result(
        made_up_maps("gradcam", "layer2", 99, 100, control=60),
        made_up_maps("gradcam", "layer4", 22, 24, grid=(4, 4), near=60),
        made_up_maps("hirescam", "layer2", 98, 100, constant=1),
        made_up_maps("hirescam", "layer4", 5, 24, grid=(4, 4)),
    )


TABLE = """
map               layer          grid  hits                  near  energy                ceiling  control  other  constant
gradcam           layer2        16x16   99.0 (95 to 100)   99.0 %   50.0 (50.0 to 50.0)  100.0 %   60.0 %  1.0 %         0  marks
gradcam           layer4          4x4   22.0 (15 to 31)    60.0 %   50.0 (50.0 to 50.0)   24.0 %    2.0 %  1.0 %         0  coarse
hirescam          layer2        16x16   98.0 (93 to 99)    98.0 %   50.0 (50.0 to 50.0)  100.0 %    2.0 %  1.0 %         1  finds
hirescam          layer4          4x4    5.0 (2 to 11)      5.0 %   50.0 (50.0 to 50.0)   24.0 %    2.0 %  1.0 %         0  misses
ceiling           layer2        16x16  100.0 (96 to 100)  100.0 %   70.0 (70.0 to 70.0)
random map        layer2        16x16    3.0 (1 to 8)       3.0 %    2.0 (2.0 to 2.0)
centred Gaussian  layer2        16x16    2.0 (1 to 7)       2.0 %    4.0 (4.0 to 4.0)
ceiling           layer4          4x4   24.0 (17 to 33)    90.0 %   70.0 (70.0 to 70.0)
random map        layer4          4x4    3.0 (1 to 8)       3.0 %    2.0 (2.0 to 2.0)
centred Gaussian  layer4          4x4    2.0 (1 to 7)       2.0 %    4.0 (4.0 to 4.0)
pixel noise                     32x32    2.0 (1 to 7)       2.0 %    1.5 (1.5 to 1.5)
100 marked test images. hits: the map's maximum lies in the mark. near: within half a cell of it. energy: the share of the map's
sum in the mark. ceiling: hits of the mark itself, seen through the layer's grid. control: hits of the untouched network's maps.
other: hits of another image's mark. constant: maps without a maximum, which count as misses. In brackets 95 % intervals; all in
percent.
"""
SHORT = {
    "  marks it either way": "  marks",
    "  too coarse to show it": "  coarse",
    "  finds it": "  finds",
    "  looks elsewhere": "  misses",
}


def test_the_table_has_a_row_for_each_map_and_for_each_grid_its_ceiling_and_baselines() -> None:
    lines = score_table(result()).splitlines()
    assert [line.rsplit("  ", 1)[1] for line in lines[1:5]] == [verdict.strip() for verdict in SHORT]
    lines[0] = lines[0].removesuffix("  verdict")
    for number, verdict in enumerate(SHORT, 1):
        lines[number] = lines[number].replace(verdict, SHORT[verdict])
    assert lines == TABLE.strip().splitlines()


def test_the_sentence_names_the_best_and_what_each_map_would_have_told() -> None:
    assert reading(result()) == (
        "hirescam at layer2, chosen on one half of the images, has its maximum in the mark in 98.0 % (95 % interval 90 to 100) "
        "of the other 50, where its grid allows 100.0 %; by verdict, with the hits and what the grid allows: finds it: hirescam "
        "at layer2 (98 of 100 %); too coarse to show it: gradcam at layer4 (22 of 24 %); looks elsewhere: hirescam at layer4 "
        "(5 of 24 %); marks it either way: gradcam at layer2 (99 of 100 %)."
    )
