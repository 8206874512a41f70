"""Mean and standard deviation of the pixels of images: exact, from sums of whole numbers.

The sums of single images add up to those of all, so that images which are not in memory have the same statistics to the last bit.
"""

import math

import cv2
import numpy as np

Channels = tuple[float, float, float]


def pixel_sums(images: np.ndarray) -> np.ndarray:
    """Of uint8 images (..., 3) the sum of each channel's values, and that of their squares: int64 (3, 2)."""
    pixels = images.reshape(-1, 1, 3)
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(pixels), 2**22):  # OpenCV counts in float32, which is exact up to 2^24
        block = pixels[start : start + 2**22]
        for channel in range(3):
            counts[channel] += cv2.calcHist([block], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    values = np.arange(256)
    return np.stack([counts @ values, counts @ values**2], axis=1)


def statistics_of(sums: np.ndarray, pixels: int) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel on the scale [0, 1], from `pixel_sums` of so many pixels in all.

    A channel that is constant gets standard deviation 1, so that normalising by it is harmless.
    """
    mean, std = [], []
    for total, squares in sums.tolist():  # whole numbers of any length
        variance = pixels * squares - total * total
        mean.append(total / (255 * pixels))
        std.append(math.sqrt(variance) / (255 * pixels) if variance else 1.0)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
