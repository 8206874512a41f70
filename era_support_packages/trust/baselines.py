"""Heat maps that know nothing: of the network, of the image, or of either. What an explanation must be better than.

A baseline has the grid of the layer that it stands beside, and is brought to the image's size in the very same way, so that
it is as coarse and as smooth as the maps of that layer.
"""

import numpy as np

from era_support_packages.gradcam.cells import Cells, lying
from era_support_packages.gradcam.explanation import upsample

DEVIATION = 1 / 4  # of a centred Gaussian, in the image's side
RANDOM_STREAM, DERANGEMENT_STREAM = 1, 2  # one seed, numbers that have nothing to do with each other


def random_maps(
    count: int, grid: tuple[int, int], size: tuple[int, int], generator: np.random.Generator, cells: Cells | None = None
) -> np.ndarray:
    """Independent uniform values on a grid (h, w), brought to `size` (H, W): float32 (count, H, W) in [0, 1].

    A grid of the image's own size gives independent pixel noise.
    """
    return upsample(generator.random((count, *grid)), size, cells)


def centered_gaussian(grid: tuple[int, int], size: tuple[int, int], cells: Cells | None = None) -> np.ndarray:
    """A Gaussian in the middle of an image, of a quarter of its sides, by the cells of a grid (h, w): float32 (H, W) in [0, 1].

    Photographers centre what they take a picture of. A grid of one or two cells a side has no middle: zeros.
    """
    lines = zip(lying(cells, grid, size), size, strict=True)
    rows, columns = ((np.arange(line.number) - (line.number - 1) / 2) * line.step / side / DEVIATION for line, side in lines)
    return upsample(np.exp(-(rows[:, None] ** 2 + columns**2) / 2)[None], size, cells)[0]


def derangement(count: int, seed: int) -> np.ndarray:
    """For each of `count` images, at least 2, another one: int64 (count,), a cycle through all of them drawn by `seed`."""
    order = np.random.default_rng([seed, DERANGEMENT_STREAM]).permutation(count)
    others = np.empty(count, np.int64)
    others[order] = np.roll(order, 1)
    return others
