"""The planted shortcut in words: the table row by row, and the sentence."""

from shortcut_results import made_up_maps, made_up_result

from era_support_packages.trust.shortcut.search import ShortcutTest


def result() -> ShortcutTest:
    return made_up_result(
        made_up_maps("gradcam", "layer2", 99, 100, control=60),
        made_up_maps("gradcam", "layer4", 22, 24, grid=(4, 4), near=60),
        made_up_maps("hirescam", "layer2", 98, 100, constant=1),
        made_up_maps("hirescam", "layer4", 5, 24, grid=(4, 4)),
    )


VERDICTS = """
map       layer   grid             hits  ceiling  control  other  verdict
gradcam   layer2  16x16  99.0 [95, 100]    100.0     60.0    1.0  marks it either way
gradcam   layer4  4x4     22.0 [15, 31]     24.0      2.0    1.0  too coarse to show it
hirescam  layer2  16x16   98.0 [93, 99]    100.0      2.0    1.0  finds it
hirescam  layer4  4x4       5.0 [2, 11]     24.0      2.0    1.0  looks elsewhere
"""
SCORES = """
map               layer   grid              hits   near             energy  constant
gradcam           layer2  16x16   99.0 [95, 100]   99.0  50.0 [50.0, 50.0]         0
gradcam           layer4  4x4      22.0 [15, 31]   60.0  50.0 [50.0, 50.0]         0
hirescam          layer2  16x16    98.0 [93, 99]   98.0  50.0 [50.0, 50.0]         1
hirescam          layer4  4x4        5.0 [2, 11]    5.0  50.0 [50.0, 50.0]         0
ceiling           layer2  16x16  100.0 [96, 100]  100.0  70.0 [70.0, 70.0]
random map        layer2  16x16       3.0 [1, 8]    3.0     2.0 [2.0, 2.0]
centred Gaussian  layer2  16x16       2.0 [1, 7]    2.0     4.0 [4.0, 4.0]
ceiling           layer4  4x4      24.0 [17, 33]   90.0  70.0 [70.0, 70.0]
random map        layer4  4x4         3.0 [1, 8]    3.0     2.0 [2.0, 2.0]
centred Gaussian  layer4  4x4         2.0 [1, 7]    2.0     4.0 [4.0, 4.0]
pixel noise               32x32       2.0 [1, 7]    2.0     1.5 [1.5, 1.5]
"""


def test_a_verdict_has_a_row_for_each_map_and_what_it_rests_on() -> None:
    table = result().table()
    assert str(table).startswith(VERDICTS.strip() + "\nPercent of 100 marked test images; in brackets 95 % intervals.")


def test_the_scores_have_a_row_for_each_map_and_for_each_grid_its_ceiling_and_baselines() -> None:
    table = result().score_table()
    assert str(table).startswith(SCORES.strip() + "\nPercent of 100 marked test images; in brackets 95 % intervals.")
    assert all(f"{column.name}: " in table.caption for column in table.columns[3:])


def test_the_sentence_names_the_best_and_what_each_map_would_have_told() -> None:
    assert result().reading() == (
        "hirescam at layer2, chosen on one half of the images, has its maximum in the mark in 98.0 % (95 % interval 90 to 100) "
        "of the other 50, where its grid allows 100.0 %; by verdict, with the hits and what the grid allows: finds it: hirescam "
        "at layer2 (98 of 100 %); too coarse to show it: gradcam at layer4 (22 of 24 %); looks elsewhere: hirescam at layer4 "
        "(5 of 24 %); marks it either way: gradcam at layer2 (99 of 100 %)."
    )
