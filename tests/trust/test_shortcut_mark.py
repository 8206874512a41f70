"""The mark and its scores: pixels, places, hits, energies and ceilings worked out by hand."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from era_support_packages.gradcam.cells import Cells, Line
from era_support_packages.trust.shortcut.mark import Marks, Score, add_marks, ceiling_maps, draw_marks, join, mark_size, score

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def at(tops: list[int], lefts: list[int], resolution: int = 32) -> Marks:
    return Marks(np.array(tops), np.array(lefts), 4, resolution)


MIDDLE = at([4], [4], 16)


def scored(maps: np.ndarray, marks: Marks = MIDDLE, grid: tuple[int, int] = (16, 16), draw: float = 0.0) -> Score:
    return score(np.asarray(maps, np.float32), marks, grid, np.full(len(marks), draw))


def single(row: int, column: int) -> np.ndarray:
    """A map that is 1 at one pixel and 0 elsewhere."""
    one = np.zeros((1, 16, 16))
    one[0, row, column] = 1
    return one


def test_the_mark_is_a_checker_of_magenta_and_green_and_the_rest_stays() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before, marks = images.clone(), at([1, 4], [3, 0], 8)
    marked = add_marks(images, marks, MEAN, STD)
    colors = (torch.tensor([[152, 104, 152], [104, 152, 104]]) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    for image, top, left in ((0, 1, 3), (1, 4, 0)):
        for row, column in itertools.product(range(4), range(4)):
            expected = colors[int((row < 2) != (column < 2))]  # magenta first
            torch.testing.assert_close(marked[image, :, top + row, left + column], expected)
    masks = marks.masks
    assert (masks.dtype, masks.shape, masks.sum()) == (np.bool_, (2, 8, 8), 32)
    assert masks[0, 1:5, 3:7].all()
    assert masks[1, 4:8, 0:4].all()
    outside = torch.from_numpy(~masks)[:, None].expand_as(images)
    assert torch.equal(marked[outside], before[outside])
    assert torch.equal(images, before)


@pytest.mark.parametrize(("resolution", "side"), [(8, 4), (24, 4), (32, 4), (35, 4), (39, 5), (40, 5), (128, 16), (224, 28)])
def test_the_mark_has_4_px_and_an_eighth_of_large_images(resolution: int, side: int) -> None:
    assert mark_size(resolution) == side
    assert draw_marks(1, resolution, np.random.default_rng(0)).size == side


def test_every_place_is_drawn_about_as_often_and_too_small_images_are_refused() -> None:
    marks = draw_marks(25_000, 8, np.random.default_rng(0))
    counts = np.bincount(marks.tops * 5 + marks.lefts, minlength=25)
    assert len(counts) == 25
    assert 850 < counts.min() <= counts.max() < 1150  # 1000 each, five standard deviations of 31
    with pytest.raises(ValueError, match=r"^images of 7 px have no room for a mark of 4 px; use 8 px or more\.$"):
        draw_marks(1, 7, np.random.default_rng(0))


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
    found = scored(single(row, column), grid=(4, 4))
    assert (found.hits.tolist(), found.near.tolist(), found.energies.tolist()) == ([hit], [near], [float(hit)])


def test_half_a_cell_is_taken_along_each_side_of_the_grid() -> None:
    below, beside = single(9, 5), single(5, 9)
    near = [scored(maps, grid=grid).near[0] for maps in (below, beside) for grid in ((4, 16), (16, 4))]
    assert near == [True, False, False, True]


def test_energy_is_the_share_of_the_sum_in_the_mark_and_a_map_of_zeros_a_miss() -> None:
    spread = np.full((1, 16, 16), 0.5)
    spread[0, 0, 0] = 1
    found = scored(spread)
    assert (found.hits.tolist(), found.energies.tolist()) == ([False], pytest.approx([8 / 128.5]))
    found = scored(np.zeros((2, 16, 16)), at([0, 4], [0, 4], 16), (1, 1))
    assert found.constant.tolist() == [True, True]
    assert (found.hits.any(), found.near.any(), found.energies.tolist()) == (False, False, [0, 0])
    assert found.energies.dtype == np.float64


def test_a_draw_decides_between_pixels_that_share_the_maximum() -> None:
    shared = single(3, 3) + single(5, 5) + single(12, 0)
    shared[0, 15, 15] = 1 - 1e-7  # equal but for rounding
    shared[0, 0, 0] = 1 - 1e-5  # not equal
    hits = [scored(shared, draw=draw).hits[0] for draw in (0.0, 0.249, 0.25, 0.499, 0.5, 0.749, 0.75, 0.999)]
    assert hits == [False, False, True, True, False, False, False, False]


def test_shares_and_energy_come_with_intervals_and_joined_parts_are_the_whole() -> None:
    maps = np.concatenate([*[single(5, 5)] * 8, single(3, 5), np.zeros((1, 16, 16))])
    marks = at([4] * 10, [4] * 10, 16)
    found = scored(maps, marks, (4, 4))
    assert (found.hit_share.estimate, found.near_share.estimate, found.energy.estimate) == (0.8, 0.9, pytest.approx(0.8))
    assert found.hit_share.low == pytest.approx(0.4902, abs=1e-4)  # Wilson: (8 + 1.9207 - 1.96 sqrt(1.6 + 0.9604)) / 13.8415
    assert 0.5 <= found.energy.low < 0.8 < found.energy.high <= 1
    joined = join([scored(maps[part], marks.part(part), (4, 4)) for part in (slice(0, 3), slice(3, 10))])
    for name in ("hits", "near", "energies", "constant"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(found, name))
    assert joined.part(slice(8, 10)).near.tolist() == [True, False]
    part = at([1, 2, 3], [4, 5, 6]).part(np.array([2, 0]))
    assert (part.tops.tolist(), part.lefts.tolist(), part.size, part.resolution) == ([3, 1], [6, 4], 4, 32)


def test_the_ceiling_of_a_mark_that_fills_a_cell_is_known_exactly() -> None:
    # Along a side the cell's four pixels get 5/8, 7/8, 7/8, 5/8 of its value, and the two of each neighbour 3/8 and 1/8:
    # 3 of 4 lie in the mark, so 9/16 of the map's sum; the maximum, 7/8 of 7/8, is scaled to 1.
    mark = at([8], [12])
    maps = ceiling_maps(mark, (8, 8))
    side = np.array([1, 3, 5, 7, 7, 5, 3, 1]) / 7
    np.testing.assert_allclose(maps[0, 6:14, 10:18], np.outer(side, side), atol=1e-5)
    assert np.count_nonzero(maps > 1e-6) == 64
    found = scored(maps, mark, (8, 8))
    assert (found.hits.tolist(), found.energies.tolist()) == ([True], pytest.approx([9 / 16], abs=1e-5))


def test_a_mark_in_the_corner_of_a_large_cell_is_hit_by_one_of_four_draws() -> None:
    # The middle of the cell, where its maximum is, has four pixels; one of them belongs to the mark.
    mark = at([8], [8])
    hits = [scored(ceiling_maps(mark, (4, 4)), mark, (4, 4), draw).hits[0] for draw in (0.1, 0.3, 0.6, 0.9)]
    assert hits == [True, False, False, False]


@pytest.mark.parametrize("grid", [(4, 4), (8, 2), (16, 16), (32, 32)])
def test_the_ceiling_is_the_pooled_mark_upsampled(grid: tuple[int, int]) -> None:
    tops, lefts = np.divmod(np.arange(0, 29 * 29, 37), 29)  # of all places
    marks = at(tops, lefts)
    pooled = F.avg_pool2d(torch.from_numpy(marks.masks).float()[:, None], (32 // grid[0], 32 // grid[1]))
    resized = F.interpolate(pooled, (32, 32), mode="bilinear")[:, 0]
    expected = resized / resized.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(ceiling_maps(marks, grid), expected.numpy(), atol=1e-5)


def test_the_ceiling_lies_where_the_cells_do() -> None:
    cells = Cells(Line(4, 4), Line(4, 4))  # they begin at 8, 12, 16 and 20 of 32 px; the outermost hold what lies beyond
    for place, cell in ((0, 8), (8, 8), (12, 12), (20, 20), (28, 20)):
        (seen,) = ceiling_maps(at([place], [12]), (4, 4), cells)
        rows, columns = np.nonzero(seen > 0.99)
        assert (rows.mean(), columns.mean()) == ({8: 4.5, 12: 13.5, 20: 26.5}[cell], 13.5), place
    even = Cells(Line(8, 4), Line(8, 4))
    np.testing.assert_array_equal(ceiling_maps(at([9], [14]), (8, 8), even), ceiling_maps(at([9], [14]), (8, 8)))


@pytest.mark.parametrize(("row", "near"), [(9, False), (10, True), (15, True), (18, False)])
def test_near_is_half_a_cell_as_far_as_cells_are_apart(row: int, near: bool) -> None:
    maps = np.zeros((1, 32, 32), np.float32)
    maps[0, row, 12] = 1
    cells = Cells(Line(4, 4), Line(4, 4))  # which would be 8 px if they were stretched
    assert score(maps, at([12], [12]), (4, 4), np.zeros(1), cells).near[0] == near
    assert score(maps, at([12], [12]), (4, 4), np.zeros(1)).near[0]
