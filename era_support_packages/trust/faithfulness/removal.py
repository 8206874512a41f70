"""In which order pixels are taken away by a heat map: one by one, or in patches as large as the cells of the map's grid.

A map of a 7x7 grid says 49 things about a photo of 224 px, and where its enlargement crosses a value between two cells says
nothing. So what is removed from images larger than 32 px is a cell at a time.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from era_support_packages.trust.pooling import patch_means, patch_numbers

FINEST = 32
"""patches a side at most; and up to as many px a side, images lose single pixels, as in the papers"""

Unit = Literal["auto", "pixel", "cell"]
"""what is removed at a time; "auto": pixels of images up to 32 px, cells of larger ones"""


@dataclass(frozen=True, eq=False)
class Removal:
    """The order in which N images lose their pixels: the least relevant unit has rank 0, the most relevant `units` - 1."""

    ranks: np.ndarray
    """int64 (N, H, W): of the unit that each pixel belongs to"""
    grid: tuple[int, int]
    """rows and columns of units; (H, W) where each pixel is one"""

    @property
    def units(self) -> int:
        """How many there are: a pixel or a patch each."""
        return self.grid[0] * self.grid[1]

    def most_relevant(self, count: int) -> np.ndarray:
        """The pixels of so many units, the most relevant ones: bool (N, H, W)."""
        return self.ranks >= self.units - count

    def least_relevant(self, count: int) -> np.ndarray:
        """The pixels of so many units, the least relevant ones: bool (N, H, W)."""
        return self.ranks < count

    def count_at(self, percentile: float) -> int:
        """How many units 100 - `percentile` percent are, rounded; at least one, and one is left."""
        return min(max(round(self.units * (1 - percentile / 100)), 1), self.units - 1)


def removal_order(maps: np.ndarray, seed: int, grid: tuple[int, int] | None = None) -> Removal:
    """The order by maps (N, H, W): of single pixels, or of the patches of a grid (h, w) by their mean values.

    Units of equal value come in an order drawn by `seed`, which is the same for every map of the same image and grid.
    """
    size = (maps.shape[1], maps.shape[2])
    if grid is None or grid == size:
        return Removal(_ranks(maps, seed), size)
    rows, columns = patch_numbers(size, grid)
    ranks = _ranks(patch_means(maps, grid), seed)
    return Removal(ranks[:, rows[:, None], columns], grid)


def patch_grid(grid: tuple[int, int], size: tuple[int, int], unit: Unit = "auto") -> tuple[int, int]:
    """The grid of what a map of `grid` removes from images of `size` at a time: its cells, of 32 x 32 at most, or pixels.

    A map of a single cell has one value, and no order but a drawn one, for which the finest patches are taken.
    """
    if unit == "pixel" or (unit == "auto" and max(size) <= FINEST):
        return size
    if grid == (1, 1):
        grid = size
    return min(grid[0], FINEST, size[0]), min(grid[1], FINEST, size[1])


def check_unit(unit: str) -> None:
    """Raise `ValueError` where `unit` is not one of `Unit`."""
    if unit not in get_args(Unit):
        raise ValueError(f"unit is {unit!r}; give 'auto', 'pixel' or 'cell': what is removed at a time.")


def curve_counts(units: int, steps: int) -> np.ndarray:
    """How many units are gone at each point of a curve, int64 (steps + 1,) from none to all: equal steps, rounded."""
    return np.rint(np.arange(steps + 1) * units / steps).astype(np.int64)


def _ranks(values: np.ndarray, seed: int) -> np.ndarray:
    """The rank of each value within its image (N, h, w), from 0 for the lowest; a draw decides between equal ones."""
    flat = values.reshape(len(values), -1)
    draw = np.random.default_rng([seed, 0]).random(flat.shape)
    order = np.lexsort((draw, flat), axis=-1)
    return np.argsort(order, axis=-1).reshape(values.shape)
