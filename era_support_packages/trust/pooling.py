"""Heat maps averaged over the patches of a coarser grid."""

import numpy as np


def patch_numbers(size: tuple[int, int], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Which row and which column of a grid (h, w) each row and column of an image (H, W) lies in: int64 (H,) and (W,).

    Patches differ by one pixel in height and width where the grid does not divide the image.
    """
    rows, columns = (np.arange(pixels) * cells // pixels for pixels, cells in zip(size, grid, strict=True))
    return rows, columns


def patch_means(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The means of maps (..., H, W) over the patches of a grid (h, w) that is no finer: float32 (..., h, w)."""
    rows, columns = patch_numbers((maps.shape[-2], maps.shape[-1]), grid)
    sums = np.add.reduceat(maps, _starts(rows), axis=-2, dtype=np.float64)
    sums = np.add.reduceat(sums, _starts(columns), axis=-1)
    return (sums / np.outer(np.bincount(rows), np.bincount(columns))).astype(np.float32)


def _starts(numbers: np.ndarray) -> np.ndarray:
    """Where each patch begins."""
    return np.flatnonzero(np.diff(numbers, prepend=-1))
