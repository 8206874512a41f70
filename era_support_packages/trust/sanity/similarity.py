"""How alike two heat maps are: by the ranks of their pixels, and by their structure."""

import numpy as np
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

from era_support_packages.trust.pooling import patch_means

COMPARED = 64
"""px a side at which maps are compared: larger ones are averaged, as their pixels come from far fewer cells"""
SSIM_WINDOW = 7
"""side in pixels of the uniformly weighted window of structural similarity; smaller where the images are"""


def as_compared(maps: np.ndarray) -> np.ndarray:
    """Maps (..., H, W) of at most `COMPARED` px a side: those of larger images as means of patches, float32."""
    height, width = maps.shape[-2:]
    if max(height, width) <= COMPARED:
        return maps
    return patch_means(maps, (min(height, COMPARED), min(width, COMPARED)))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of maps (..., H, W), pair by pair, tied ranks averaged: float64 (...).

    NaN where a map is constant.
    """
    return (unit_ranks(first) * unit_ranks(second)).sum(axis=-1)


def unit_ranks(maps: np.ndarray) -> np.ndarray:
    """Ranks of the pixels of maps (..., H, W), less their mean and scaled to length 1: (..., H x W); NaN for constant maps."""
    ranks = rankdata(maps.reshape(*maps.shape[:-2], -1), axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return ranks / np.linalg.norm(ranks, axis=-1, keepdims=True)


def map_ssim(first: np.ndarray, second: np.ndarray, window: int) -> np.ndarray:
    """Structural similarity of maps (R, N, H, W), pair by pair: float64 (R, N), NaN where a map is constant."""
    values = np.full(first.shape[:2], np.nan)
    for place in zip(*np.nonzero(~is_constant(first) & ~is_constant(second)), strict=True):
        values[place] = structural_similarity(first[place], second[place], win_size=window, data_range=1.0)
    return values


def is_constant(maps: np.ndarray) -> np.ndarray:
    """Whether each map of (R, N, H, W) has one value everywhere: bool (R, N)."""
    return maps.max(axis=(-2, -1)) == maps.min(axis=(-2, -1))
