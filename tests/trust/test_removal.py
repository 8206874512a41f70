"""In which order pixels go: exact shares, single pixels of small images, and patches as large as a grid's cells of large ones."""

import numpy as np
import pytest
import torch
from quadrant_networks import TopLeft, red_noise

from era_support_packages.trust.faithfulness.removal import curve_counts, patch_grid, removal_order
from era_support_packages.trust.faithfulness.scores import judge


def ranks_of(maps: np.ndarray, seed: int = 0) -> np.ndarray:
    return removal_order(maps, seed).ranks


def test_ranks_follow_the_values() -> None:
    ranks = ranks_of(np.float32([[[0.5, 0.1], [0.9, 0.2]]]))
    np.testing.assert_array_equal(ranks, [[[2, 0], [3, 1]]])
    assert ranks.dtype == np.int64


def test_pixels_of_equal_value_come_in_a_drawn_order_that_is_the_same_for_every_map_of_an_image() -> None:
    maps = np.zeros((2, 6, 6), np.float32)
    maps[:, 0, 0] = 1
    ranks, constant = ranks_of(maps, seed=3), ranks_of(np.full_like(maps, 0.3), seed=3)
    assert (ranks[:, 0, 0] == 35).all()
    assert all(sorted(image.ravel()) == list(range(36)) for image in ranks)
    assert not np.array_equal(ranks[0], ranks[1])
    assert not np.array_equal(ranks[0].ravel()[1:], np.arange(35)), "in file order the removal would run down the image"
    np.testing.assert_array_equal(ranks, ranks_of(maps, seed=3))
    orders = [[pixel for pixel in given[0].argsort(axis=None) if pixel != 0] for given in (ranks, constant)]
    assert orders[0] == orders[1]
    assert not np.array_equal(ranks, ranks_of(maps, seed=4))


def random_map(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def nearly_all_zero(shape: tuple[int, int]) -> np.ndarray:
    return (np.arange(shape[0] * shape[1]) == 7).astype(np.float32).reshape(shape)


@pytest.mark.parametrize("percentile", [10, 20, 50, 75, 80, 99])
@pytest.mark.parametrize("shape", [(2, 4), (5, 7), (24, 24), (32, 32), (224, 224)])
def test_the_share_removed_is_the_nominal_one_in_both_directions(shape: tuple[int, int], percentile: float) -> None:
    pixels = shape[0] * shape[1]
    nominal = max(1, round(pixels * (100 - percentile) / 100))
    for relevance in (random_map(shape), nearly_all_zero(shape), np.zeros(shape, np.float32), np.rint(3 * random_map(shape))):
        order = removal_order(relevance[None], seed=0)
        count = order.count_at(percentile)
        most, least = order.most_relevant(count)[0], order.least_relevant(count)[0]
        assert (count, most.sum(), least.sum()) == (nominal, nominal, nominal)
        assert relevance[most].min() >= relevance[~most].max(initial=0)
        assert relevance[least].max() <= relevance[~least].min(initial=9)


def test_points_of_a_curve_are_whole_units_from_none_to_all() -> None:
    np.testing.assert_array_equal(curve_counts(16, 4), [0, 4, 8, 12, 16])
    np.testing.assert_array_equal(curve_counts(10, 4), [0, 2, 5, 8, 10])  # 2.5 and 7.5 to the even neighbour


@pytest.mark.parametrize(
    ("grid", "side", "unit", "patches"),
    [
        ((4, 4), 32, "auto", (32, 32)),  # as small as CIFAR: single pixels
        ((4, 4), 32, "cell", (4, 4)),
        ((4, 4), 128, "auto", (4, 4)),
        ((7, 7), 224, "auto", (7, 7)),
        ((7, 7), 224, "pixel", (224, 224)),
        ((112, 112), 224, "auto", (32, 32)),  # no finer than a 32nd of the side: 7 px
        ((1, 1), 128, "auto", (32, 32)),  # one value has no order but a drawn one
    ],
)
def test_patches_are_the_cells_of_the_grid(grid: tuple[int, int], side: int, unit: str, patches: tuple[int, int]) -> None:
    assert patch_grid(grid, (side, side), unit) == patches


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (14, 14)])
def test_what_is_removed_from_a_photo_is_whole_cells(grid: tuple[int, int]) -> None:
    maps = np.random.default_rng(1).random((2, 224, 224), dtype=np.float32)
    order = removal_order(maps, 0, grid)
    side = 224 // grid[0]
    cells = order.ranks.reshape(2, grid[0], side, grid[1], side)
    assert (cells == cells[:, :, :1, :, :1]).all()
    means = maps.reshape(2, grid[0], side, grid[1], side).mean(axis=(2, 4)).reshape(2, -1)
    np.testing.assert_array_equal(cells[:, :, 0, :, 0].reshape(2, -1).argsort(), means.argsort())
    assert order.count_at(80) == round(0.2 * grid[0] * grid[1])
    np.testing.assert_array_equal(order.most_relevant(3).sum(axis=(1, 2)), [3 * side**2] * 2)


def test_cells_that_do_not_divide_the_side_differ_by_one_pixel() -> None:
    order = removal_order(np.arange(100.0, dtype=np.float32).reshape(1, 10, 10), 0, (3, 3))
    np.testing.assert_array_equal(np.bincount(order.ranks.ravel()), [16, 12, 12, 12, 9, 9, 12, 9, 9])


def test_a_network_of_larger_images_is_judged_by_patches_and_the_result_says_so() -> None:
    model, images = TopLeft(), torch.nn.functional.interpolate(red_noise(2, size=8), scale_factor=8)
    options = {"methods": ["hirescam"], "layers": "conv", "percentiles": [50], "steps": 4}
    result = judge(model, images, [0, 0], **options)
    assert result.methods[0].patches == (32, 32)  # the grid of the layer is that of the image
    np.testing.assert_array_equal(result.shares_of(result.methods[0]), [0, 0.25, 0.5, 0.75, 1])
    assert "Removed and inserted in patches, not in single pixels: 32x32 at conv." in result.table().caption
    by_pixel = judge(model, images, [0, 0], **options, unit="pixel")
    assert by_pixel.methods[0].patches is None
    assert "patches" not in by_pixel.table().caption
    with pytest.raises(ValueError, match=r"^unit is 'cells'; give 'auto', 'pixel' or 'cell'"):
        judge(model, images, **options, unit="cells")
