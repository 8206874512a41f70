"""Pictures of any size brought to the square that a data set holds: the one place where images are resized to `image_size`."""

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from era_support_packages.system.naming import nearest_names

IMAGE_SIZE = 32  # px, of CIFAR
LARGEST = 512
Fit = Literal["crop", "squash", "pad"]
FITS: tuple[Fit, ...] = get_args(Fit)
_GRAY = 128  # around a padded image
_DEEP_GRAY = (0, 0, 0, 65535 * _GRAY / 255)  # the same, as `decoding.Picture` has deep pixels


@dataclass(frozen=True)
class Fitting:
    """How pictures become squares of `size` px.

    fit: "crop" resizes the shorter side and cuts out the center, "pad" resizes the longer side and puts gray around, both with
    the aspect ratio kept; "squash" resizes both sides. Raises `ValueError` for another fit, and for a size below 1.
    """

    size: int = IMAGE_SIZE
    fit: Fit = "squash"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r}: {nearest_names(self.fit, FITS)}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"image_size is {self.size!r}; give a whole number of px from {IMAGE_SIZE} to {LARGEST}.")

    def place(self, height: int, width: int) -> tuple[slice, slice]:
        """Which rows and columns of a picture lie in the square ("crop"), or else all of them."""
        side = min(height, width)
        if self.fit != "crop":
            return slice(0, height), slice(0, width)
        top, left = (height - side) // 2, (width - side) // 2
        return slice(top, top + side), slice(left, left + side)

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """Which rows and columns of the square show the picture: all but the gray of "pad"."""
        if self.fit != "pad":
            return slice(0, self.size), slice(0, self.size)
        scale = self.size / max(height, width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (self.size - rows) // 2, (self.size - columns) // 2
        return slice(top, top + rows), slice(left, left + columns)

    def words(self) -> str:
        """What becomes of pictures of another size: "resized to 32x32"."""
        square = f"{self.size}x{self.size}"
        if self.fit == "crop":
            return f"resized to {self.size} px on their shorter side and cropped at the center to {square}"
        if self.fit == "pad":
            return f"resized to {self.size} px on their longer side and padded with gray to {square}"
        return f"resized to {square}"


def fitted(image: np.ndarray, fitting: Fitting) -> np.ndarray:
    """A picture (H, W, C), uint8 RGB or deep as in `decoding.Picture`, as a square (size, size, C) of the same dtype."""
    height, width = image.shape[:2]
    if (height, width) == (fitting.size, fitting.size):
        return image
    rows, columns = fitting.inside(height, width)
    # The part that is kept is cut out first: the same pixels for less work.
    small = _resized(image[fitting.place(height, width)], rows.stop - rows.start, columns.stop - columns.start)
    if small.shape[:2] == (fitting.size, fitting.size):
        return small
    square = np.empty((fitting.size, fitting.size, image.shape[2]), image.dtype)
    square[:] = np.asarray(_DEEP_GRAY if image.dtype == np.uint16 else _GRAY).astype(image.dtype)
    square[rows, columns] = small
    return square


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    image = np.ascontiguousarray(image)
    if image.shape[:2] == (height, width):
        return image
    # Area averaging shrinks without aliasing, but would enlarge into blocks.
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def unfitted(heat: np.ndarray, height: int, width: int, fitting: Fitting) -> np.ndarray:
    """A map (h, w) over the square, of any resolution, over the picture (height, width) it was made of: float32.

    What the network did not see is 0 (`Fitting.place` says where that is).
    """
    scale = heat.shape[0] / fitting.size
    rows, columns = fitting.inside(height, width)
    top, left = round(rows.start * scale), round(columns.start * scale)
    bottom, right = max(top + 1, round(rows.stop * scale)), max(left + 1, round(columns.stop * scale))
    whole = np.zeros((height, width), np.float32)
    place = fitting.place(height, width)
    size = place[1].stop - place[1].start, place[0].stop - place[0].start
    inner = np.ascontiguousarray(heat[top:bottom, left:right], np.float32)
    whole[place] = np.clip(cv2.resize(inner, size, interpolation=cv2.INTER_LINEAR), 0, 1)
    return whole
