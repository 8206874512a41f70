"""The loss over the learning rate: smoothed, and what it suggests."""

import numpy as np
from scipy.ndimage import gaussian_filter1d


def smooth(losses: np.ndarray) -> np.ndarray:
    """The curve under a Gaussian of 1/40 of its length, float64 (K,).

    The window is centred: a running average would lag behind and shift every suggestion to higher learning rates. Losses
    above twice the first are cut there, so that an explosion does not bleed into the valley before it.
    """
    losses = np.asarray(losses, dtype=np.float64)
    if not len(losses):
        return losses
    return gaussian_filter1d(np.minimum(losses, 2 * losses[0]), sigma=max(1.0, len(losses) / 40), mode="nearest")


def suggest(lrs: np.ndarray, losses: np.ndarray) -> dict[str, float]:
    """Learning rates that a smoothed curve suggests; values that are not finite are left out, and no fall means no suggestion.

    "steepest": where the loss falls fastest over log(lr), before the minimum. "valley": halfway down the longest run of falling
    losses before the minimum, a third of it and half of a third from its start, as in fastai. "minimum/10": a tenth of the
    learning rate at the lowest loss.
    """
    finite = np.isfinite(losses)
    lrs, losses = np.asarray(lrs, dtype=np.float64)[finite], np.asarray(losses, dtype=np.float64)[finite]
    if len(losses) < 3 or losses.argmin() == 0:
        return {}
    lowest = int(losses.argmin())
    slope = np.gradient(losses, np.log(lrs))
    first, last = _longest_decreasing_run(losses[: lowest + 1])
    third = (last - first) // 3
    return {
        "steepest": float(lrs[slope[: lowest + 1].argmin()]),
        "valley": float(lrs[first + third + third // 2]),
        "minimum/10": float(lrs[lowest] / 10),
    }


def _longest_decreasing_run(losses: np.ndarray) -> tuple[int, int]:
    """The longest strictly decreasing subsequence (it may skip values): as many indices as it has values, up to its end."""
    length = np.ones(len(losses), dtype=np.int64)
    for end in range(1, len(losses)):
        above = losses[:end] > losses[end]
        if above.any():
            length[end] = length[:end][above].max() + 1
    end = int(length.argmax())
    return end - int(length[end]) + 1, end
