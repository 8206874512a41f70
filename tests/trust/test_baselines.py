"""Maps that know nothing: grids, values by hand, and that no image borrows its own map."""

import numpy as np
import pytest

from era_support_packages.gradcam.cells import Cells, Line
from era_support_packages.gradcam.explanation import upsample
from era_support_packages.trust.baselines import centered_gaussian, derangement, random_maps


def test_random_maps_are_uniform_on_the_grid_and_upsampled_as_the_maps_are() -> None:
    maps = random_maps(3, (2, 4), (8, 16), np.random.default_rng(5))
    np.testing.assert_array_equal(maps, upsample(np.random.default_rng(5).random((3, 2, 4)), (8, 16)))
    assert (maps.dtype, maps.shape) == (np.float32, (3, 8, 16))
    assert (maps.min(), maps.max()) == (0, pytest.approx(1, abs=1e-4))
    pixels = random_maps(50, (16, 16), (16, 16), np.random.default_rng(0))
    assert abs(np.corrcoef(pixels[:, :, 1:].ravel(), pixels[:, :, :-1].ravel())[0, 1]) < 0.03, "independent on their own grid"


def test_the_gaussian_by_hand() -> None:
    # Cells lie 1/3 of the side from the middle, which is 4/3 standard deviations.
    side, corner = np.exp(-8 / 9), np.exp(-16 / 9)
    expected = (np.array([[corner, side, corner], [side, 1, side], [corner, side, corner]]) - corner) / (1 - corner)
    np.testing.assert_allclose(centered_gaussian((3, 3), (3, 3)), expected, atol=1e-5)


def test_the_gaussian_follows_the_grids_proportions() -> None:
    found = centered_gaussian((4, 8), (32, 64))
    assert (found.dtype, found.shape) == (np.float32, (32, 64))
    np.testing.assert_allclose(found, found[::-1], atol=1e-6)
    np.testing.assert_allclose(found, found[:, ::-1], atol=1e-6)
    assert found[15:17, 31:33].min() > 0.99 > 0.1 > found[0, 0]


def test_where_cells_do_not_share_the_image_maps_that_know_nothing_lie_as_those_of_the_layer() -> None:
    cells = Cells(Line(3, 4), Line(3, 4))  # rows and columns 3.5, 7.5 and 11.5 of 16
    spread = random_maps(3, (3, 3), (16, 16), np.random.default_rng(5), cells)
    np.testing.assert_array_equal(spread, upsample(np.random.default_rng(5).random((3, 3, 3)), (16, 16), cells))
    assert np.ptp(spread[:, :4], axis=1).max() == 0  # beyond the outermost cell as there
    # The outer cells lie a quarter of the side from the middle: one standard deviation.
    side, corner = np.exp(-1 / 2), np.exp(-1)
    by_cell = np.array([[corner, side, corner], [side, 1, side], [corner, side, corner]])
    found = centered_gaussian((3, 3), (16, 16), cells)
    np.testing.assert_allclose(found, upsample(by_cell[None], (16, 16), cells)[0], atol=1e-6)
    even = Cells(Line(4, 4), Line(4, 4))
    np.testing.assert_array_equal(centered_gaussian((4, 4), (16, 16), even), centered_gaussian((4, 4), (16, 16)))


@pytest.mark.parametrize("grid", [(1, 1), (2, 2)])
def test_a_grid_without_a_middle_gives_zeros(grid: tuple[int, int]) -> None:
    np.testing.assert_array_equal(centered_gaussian(grid, (8, 8)), np.zeros((8, 8)))


@pytest.mark.parametrize("count", [2, 3, 16, 101])
def test_every_image_borrows_from_another_and_lends_once(count: int) -> None:
    for seed in range(5):
        others = derangement(count, seed)
        assert sorted(others) == list(range(count))
        assert (others != np.arange(count)).all()
        np.testing.assert_array_equal(others, derangement(count, seed))
    assert others.dtype == np.int64
    assert count < 16 or not np.array_equal(others, derangement(count, 1)), "drawn by the seed"
