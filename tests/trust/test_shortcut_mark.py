"""The mark and its scores: pixels, places, hits, energies and ceilings worked out by hand."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from era_support_packages.trust.shortcut.mark import Marks, add_marks, ceiling_maps, draw_marks, join, mark_size, score

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def at(tops: list[int], lefts: list[int], resolution: int = 32) -> Marks:
    return Marks(np.array(tops), np.array(lefts), 4, resolution)


def everywhere(resolution: int) -> Marks:
    """A mark at every place that an image has for it."""
    places = range(resolution - 3)
    tops, lefts = zip(*itertools.product(places, places), strict=True)
    return at(list(tops), list(lefts), resolution)


def scored(
    maps: np.ndarray, marks: Marks, grid: tuple[int, int], draw: float = 0.0
) -> tuple[list[bool], list[bool], list[float]]:
    found = score(np.asarray(maps, np.float32), marks, grid, np.full(len(marks), draw))
    return found.hits.tolist(), found.near.tolist(), found.energies.tolist()


# ---- the mark --------------------------------------------------------------------------------------------------------


def test_the_mark_is_a_checker_of_magenta_and_green_and_the_rest_stays() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    marked = add_marks(images, at([1, 4], [3, 0], 8), MEAN, STD)
    magenta = (torch.tensor([152, 104, 152]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    green = (torch.tensor([104, 152, 104]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    for image, top, left in ((0, 1, 3), (1, 4, 0)):
        for row, column in itertools.product(range(4), range(4)):
            color = magenta if (row < 2) == (column < 2) else green
            torch.testing.assert_close(marked[image, :, top + row, left + column], color)
    outside = torch.from_numpy(~at([1, 4], [3, 0], 8).masks)[:, None].expand_as(images)
    assert torch.equal(marked[outside], before[outside])
    assert torch.equal(images, before)


def test_masks_are_true_in_the_mark() -> None:
    masks = at([1, 4], [3, 0], 8).masks
    assert (masks.dtype, masks.shape, masks.sum()) == (np.bool_, (2, 8, 8), 32)
    assert masks[0, 1:5, 3:7].all()
    assert masks[1, 4:8, 0:4].all()


@pytest.mark.parametrize(("resolution", "side"), [(8, 4), (24, 4), (32, 4), (39, 4), (40, 5), (128, 16), (224, 28)])
def test_the_mark_has_4_px_and_an_eighth_of_large_images(resolution: int, side: int) -> None:
    assert mark_size(resolution) == side
    assert draw_marks(1, resolution, np.random.default_rng(0)).size == side


def test_every_place_is_drawn_about_as_often() -> None:
    marks = draw_marks(25_000, 8, np.random.default_rng(0))
    counts = np.bincount(marks.tops * 5 + marks.lefts, minlength=25)
    assert len(counts) == 25
    assert 850 < counts.min() <= counts.max() < 1150  # 1000 each, five standard deviations of 31


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^images of 7 px have no room for a mark of 4 px; use 8 px or more\.$"):
        draw_marks(1, 7, np.random.default_rng(0))


def test_a_part_has_the_marks_asked_for() -> None:
    part = at([1, 2, 3], [4, 5, 6]).part(np.array([2, 0]))
    assert (part.tops.tolist(), part.lefts.tolist(), part.size, part.resolution) == ([3, 1], [6, 4], 4, 32)


# ---- scores ----------------------------------------------------------------------------------------------------------


def single(row: int, column: int, side: int = 16) -> np.ndarray:
    """A map that is 1 at one pixel and 0 elsewhere."""
    one = np.zeros((1, side, side))
    one[0, row, column] = 1
    return one


@pytest.mark.parametrize(
    ("row", "column", "hit", "near"),
    [
        (4, 4, True, True),  # the mark's first pixel
        (7, 7, True, True),  # its last
        (3, 5, False, True),  # one pixel above it
        (9, 5, False, True),  # two pixels below it: half of a cell of 4 px
        (10, 5, False, False),
        (5, 2, False, True),
        (5, 1, False, False),
        (2, 9, False, True),  # two pixels away in both directions
        (2, 10, False, False),
    ],
)
def test_hits_lie_in_the_mark_and_near_ones_within_half_a_cell(row: int, column: int, hit: bool, near: bool) -> None:
    assert scored(single(row, column), at([4], [4], 16), (4, 4)) == ([hit], [near], [float(hit)])


def test_half_a_cell_is_taken_along_each_side_of_the_grid() -> None:
    mark = at([4], [4], 16)
    assert scored(single(9, 5), mark, (4, 16))[1] == [True]
    assert scored(single(9, 5), mark, (16, 4))[1] == [False]
    assert scored(single(5, 9), mark, (16, 4))[1] == [True]
    assert scored(single(5, 9), mark, (4, 16))[1] == [False]


def test_energy_is_the_share_of_the_sum_in_the_mark() -> None:
    spread = np.full((1, 16, 16), 0.5)
    spread[0, 0, 0] = 1
    hits, _, energies = scored(spread, at([4], [4], 16), (16, 16))
    assert hits == [False]
    assert energies == pytest.approx([8 / 128.5])


def test_a_map_without_a_maximum_is_a_miss_and_counted() -> None:
    found = score(np.zeros((2, 16, 16), np.float32), at([0, 4], [0, 4], 16), (1, 1), np.zeros(2))
    assert found.constant.tolist() == [True, True]
    assert (found.hits.any(), found.near.any(), found.energies.tolist()) == (False, False, [0, 0])
    assert found.energies.dtype == np.float64


def test_a_draw_decides_between_pixels_that_share_the_maximum() -> None:
    shared = np.zeros((1, 16, 16))
    shared[0, 3, 3] = shared[0, 5, 5] = shared[0, 12, 0] = 1
    shared[0, 15, 15] = 1 - 1e-7  # equal but for rounding
    shared[0, 0, 0] = 1 - 1e-5  # not equal
    draws = [0.0, 0.249, 0.25, 0.499, 0.5, 0.749, 0.75, 0.999]
    hits = [scored(shared, at([4], [4], 16), (16, 16), draw)[0][0] for draw in draws]
    assert hits == [False, False, True, True, False, False, False, False]


def test_shares_and_energy_come_with_intervals() -> None:
    maps = np.concatenate([single(5, 5)] * 8 + [single(3, 5)] + [np.zeros((1, 16, 16))])
    found = score(maps.astype(np.float32), at([4] * 10, [4] * 10, 16), (4, 4), np.zeros(10))
    assert (found.hit_share.estimate, found.near_share.estimate, found.energy.estimate) == (0.8, 0.9, pytest.approx(0.8))
    assert found.hit_share.low == pytest.approx(0.4902, abs=1e-4)  # Wilson: (8 + 1.9207 - 1.96 sqrt(1.6 + 0.9604)) / 13.8415
    assert 0.5 <= found.energy.low < 0.8 < found.energy.high <= 1


def test_joined_parts_are_the_whole() -> None:
    maps = np.concatenate([single(5, 5), single(3, 5), np.zeros((1, 16, 16)), single(15, 15)]).astype(np.float32)
    marks, draws = at([4] * 4, [4] * 4, 16), np.zeros(4)
    whole = score(maps, marks, (4, 4), draws)
    parts = [score(maps[part], marks.part(part), (4, 4), draws[part]) for part in (slice(0, 1), slice(1, 4))]
    joined = join(parts)
    for name in ("hits", "near", "energies", "constant"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    assert joined.part(slice(1, 2)).near.tolist() == [True]


# ---- ceilings --------------------------------------------------------------------------------------------------------


def test_the_ceiling_of_a_mark_that_fills_a_cell_is_known_exactly() -> None:
    # Along a side the cell's four pixels get 5/8, 7/8, 7/8, 5/8 of its value, and the two of each neighbour 3/8 and 1/8:
    # 3 of 4 lie in the mark, so 9/16 of the map's sum; the maximum, 7/8 of 7/8, is scaled to 1.
    maps = ceiling_maps(at([8], [12]), (8, 8))
    side = np.array([1, 3, 5, 7, 7, 5, 3, 1]) / 7
    np.testing.assert_allclose(maps[0, 6:14, 10:18], np.outer(side, side), atol=1e-5)
    assert np.count_nonzero(maps > 1e-6) == 64
    hits, _, energies = scored(maps, at([8], [12]), (8, 8))
    assert hits == [True]
    assert energies == pytest.approx([9 / 16], abs=1e-5)


def test_a_mark_in_the_corner_of_a_large_cell_is_hit_by_one_of_four_draws() -> None:
    # The middle of the cell, where its maximum is, has four pixels; one of them belongs to the mark.
    marks = at([8], [8])
    maps = ceiling_maps(marks, (4, 4))
    hits = [scored(maps, marks, (4, 4), draw)[0][0] for draw in (0.1, 0.3, 0.6, 0.9)]
    assert hits == [True, False, False, False]


@pytest.mark.parametrize(("cells", "low", "high"), [(4, 0.20, 0.25), (8, 0.86, 0.90), (16, 1, 1), (32, 1, 1)])
def test_the_ceilings_of_a_residual_network_at_32_px(cells: int, low: float, high: float) -> None:
    marks = everywhere(32)
    found = score(ceiling_maps(marks, (cells, cells)), marks, (cells, cells), np.random.default_rng(0).random(len(marks)))
    assert low <= found.hits.mean() <= high


@pytest.mark.parametrize("grid", [(4, 4), (8, 2), (16, 16)])
def test_the_ceiling_is_the_pooled_mark_upsampled(grid: tuple[int, int]) -> None:
    marks = everywhere(32).part(slice(0, None, 37))
    pooled = F.avg_pool2d(torch.from_numpy(marks.masks).float()[:, None], (32 // grid[0], 32 // grid[1]))
    resized = F.interpolate(pooled, (32, 32), mode="bilinear")[:, 0]
    expected = resized / resized.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(ceiling_maps(marks, grid), expected.numpy(), atol=1e-5)


def test_at_the_images_own_grid_the_ceiling_is_the_mark() -> None:
    marks = everywhere(8)
    np.testing.assert_allclose(ceiling_maps(marks, (8, 8)), marks.masks, atol=1e-5)
