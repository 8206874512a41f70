"""Removed pixels as what their neighbours suggest: the noisy linear imputation of ROAD (Rong et al. 2022, arXiv:2202.00449).

The numbers are those of pytorch-grad-cam's `NoisyLinearImputer`, which writes each system entry by entry into a matrix made for
that; here all of its entries are found at once, in the order in which the solver takes them.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import numpy as np
import torch
from scipy.sparse import csc_array
from scipy.sparse.linalg import spsolve
from torch import Tensor

from era_support_packages.system.cores import usable_cores

NOISE = 0.01
"""standard deviation of what is added to every removed pixel"""
_BESIDE, _DIAGONAL = 1 / 6, 1 / 12
_NEIGHBORS = (
    *((1, 1, _DIAGONAL), (0, 1, _BESIDE), (-1, 1, _DIAGONAL), (1, -1, _DIAGONAL)),
    *((0, -1, _BESIDE), (-1, -1, _DIAGONAL), (1, 0, _BESIDE), (-1, 0, _BESIDE)),
)
"""rows down, columns across, and weight, in the library's order, in which the sums are rounded"""
_PLACES = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
"""a pixel's neighbours and itself, in the order of their numbers"""


def imputed(images: Tensor, removed: np.ndarray) -> Tensor:
    """Copies of images (N, C, H, W) with what was removed, bool (N, H, W), filled in from its surroundings.

    Each removed pixel is the weighted mean of its neighbours, of which the removed ones are unknowns too, plus noise from
    PyTorch's generator for the CPU.

    >>> import numpy as np
    >>> import torch
    >>> from era_support_packages.trust.faithfulness.imputation import imputed
    >>> removed = np.zeros((1, 4, 4), bool)
    >>> removed[:, 1:3, 1:3] = True
    >>> imputed(torch.ones(1, 3, 4, 4), removed).round(decimals=0).unique()
    tensor([1.])
    """
    pixels = images.numpy()
    count, channels, height, width = pixels.shape
    known = _known_parts(pixels, removed).reshape(count, channels, -1)
    filled = images.clone(memory_format=torch.contiguous_format)  # of which `flatten` below is a view
    with ThreadPoolExecutor(usable_cores()) as pool:  # the solver runs beside itself
        solutions = pool.map(partial(_solved, size=(height, width)), known, removed.reshape(count, -1))
        for image, (places, solution) in zip(filled.flatten(2), solutions, strict=True):
            suggested = torch.from_numpy(solution).float().t()
            image[:, torch.from_numpy(places)] = suggested + NOISE * torch.randn_like(suggested)
    return filled


def _solved(known: np.ndarray, unknown: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The places of the unknowns and what they are, (places, channels), given what their known neighbours add."""
    places = np.flatnonzero(unknown)
    right_side = known[:, places].T
    return places, spsolve(_system(unknown, places, size), right_side).reshape(right_side.shape)


def _known_parts(pixels: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """What the neighbours that are left add to each pixel, less than zero as the right side of its equation: float64."""
    height, width = removed.shape[1:]
    left = np.pad(np.where(removed[:, None], np.float32(0), pixels), ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros(pixels.shape)
    for down, across, weight in _NEIGHBORS:
        found -= weight * left[:, :, 1 + down : 1 + down + height, 1 + across : 1 + across + width]
    return found


def _system(unknown: np.ndarray, places: np.ndarray, size: tuple[int, int]) -> csc_array:
    """The weights of the unknowns, the pixels at `places`, in the equation of each: symmetric, so that columns are rows."""
    around, weights = _surroundings(size)
    beside = around[places]
    are_unknown = np.append(unknown, False)[beside]  # the last one stands for all outside of the image
    numbers = np.zeros(len(unknown) + 1, np.int32)
    numbers[places] = np.arange(len(places))
    ends = np.append(0, are_unknown.sum(axis=1).cumsum()).astype(np.int32)
    return csc_array((weights[places][are_unknown], numbers[beside][are_unknown], ends), shape=(len(places), len(places)))


@lru_cache(maxsize=2)
def _surroundings(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of an image of `size` the numbers of its `_PLACES`, height x width where there is none, and their weights:
    (height x width, 9) each. Its own is less than zero, the sum of those within the image.
    """
    height, width = size
    padded = np.pad(np.arange(height * width).reshape(size), 1, constant_values=height * width)
    within = [padded[1 + down : 1 + down + height, 1 + across : 1 + across + width].ravel() for down, across in _PLACES]
    around = np.stack(within, axis=1)
    of_place = {(down, across): weight for down, across, weight in _NEIGHBORS}
    weights = np.tile([of_place.get(place, 0.0) for place in _PLACES], (height * width, 1))
    own = np.ones(height * width)
    for down, across, weight in _NEIGHBORS:
        own -= np.where(around[:, _PLACES.index((down, across))] == height * width, weight, 0)
    weights[:, _PLACES.index((0, 0))] = -own
    return around, weights
