"""How far apart the cells of a layer's grid lie in the image, and maps drawn there.

Stretched over the whole image, as pytorch-grad-cam draws it, a map is right where its cells share the image evenly. Behind
convolutions and poolings without padding they lie closer to the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam.utils.image import scale_cam_image
from torch import Tensor

_ROUNDING = 1e-6  # px


@dataclass(frozen=True)
class Line:
    """The cells along one side of an image, in its middle."""

    number: int
    step: float
    """px from one cell to the next"""
    coarsest: float = field(default=0.0, compare=False, repr=False)
    """the largest step that there was on the way here: behind an enlargement more than `step`"""

    def strided(self, stride: float, number: int) -> "Line":
        """Only each `stride`-th cell, `number` of them, as behind a convolution or a pooling; below 1 for more cells.

        A single cell, or what is made of one, has no step: it holds all of these, as behind a pooling of the whole image.
        """
        if 1 in (number, self.number):
            return self.resized(number)
        return Line(number, self.step * stride, max(self.coarsest, self.step))

    def resized(self, number: int) -> "Line":
        """Other cells over the same part of the image, such as larger ones that each hold several of these."""
        if number == self.number:
            return self
        return Line(number, self.step * self.number / number, max(self.coarsest, self.step))

    def fineness(self) -> tuple[float, float]:
        """Of lines of as many cells the one of the least is the finest: never enlarged, or from the least; then the widest."""
        return max(self.coarsest, self.step), -self.step * self.number

    def places(self, pixels: int) -> Tensor:
        """Where each pixel of the image's side lies among the cells: float64 (pixels,), 0 in the first one, 1 in the second."""
        return (torch.arange(pixels, dtype=torch.float64) - (pixels - 1) / 2) / self.step + (self.number - 1) / 2


class Cells(NamedTuple):
    """The cells of a grid in an image.

    In the middle of it, though by arithmetic a 3x3 convolution of stride 2 that is padded on both sides sees half a step to the
    left of there, and one that is padded behind half a step to the right: training makes up for that in part or in full.

    >>> from era_support_packages.gradcam.cells import Cells
    >>> cells = Cells.of_pixels((32, 32))
    >>> cells = cells.strided((1, 1), (28, 28)).strided((2, 2), (14, 14))  # a 5x5 convolution and a pooling, as in LeNet
    >>> cells.rows  # 13 steps of 2 px from 2.5 px on; a map that is stretched begins at 0.6
    Line(number=14, step=2)
    >>> cells.share_evenly((32, 32))
    False
    """

    rows: Line
    columns: Line

    @classmethod
    def of_pixels(cls, size: Sequence[int]) -> "Cells":
        """Each pixel of an image (height, width) a cell."""
        return cls(Line(size[0], 1), Line(size[1], 1))

    def strided(self, strides: Sequence[float], grid: Sequence[int]) -> "Cells":
        """Behind a convolution or a pooling of these strides, down and across, that gives this grid."""
        return Cells(self.rows.strided(strides[0], grid[0]), self.columns.strided(strides[1], grid[1]))

    def resized(self, grid: Sequence[int]) -> "Cells":
        """Other cells, so many rows and columns, over the same part of the image."""
        return Cells(self.rows.resized(grid[0]), self.columns.resized(grid[1]))

    def share_evenly(self, size: Sequence[int]) -> bool:
        """Whether an image (height, width) is divided into these cells."""
        return all(abs(line.step - pixels / line.number) < _ROUNDING for line, pixels in zip(self, size, strict=True))


def uneven(cells: Cells | None, size: Sequence[int]) -> Cells | None:
    """The cells; None where they are not known or share an image evenly, so that a map is stretched over it."""
    return None if cells is None or cells.share_evenly(size) else cells


def lying(cells: Cells | None, grid: Sequence[int], size: Sequence[int]) -> Cells:
    """Where the cells of a grid lie in an image that a map is drawn in; those that are not known (None) divide it evenly."""
    return uneven(cells, size) or Cells.of_pixels(size).resized(grid)


def drawn(maps: Tensor, size: Sequence[int], cells: Cells) -> Tensor:
    """Maps (N, h, w) at the pixels of an image (height, width): bilinear, and beyond the outermost cells as these.

    >>> import torch
    >>> from era_support_packages.gradcam.cells import Cells, Line, drawn
    >>> drawn(torch.tensor([[[0.0, 4.0]]]), (1, 5), Cells(Line(1, 1), Line(2, 2))).tolist()
    [[[0.0, 0.0, 2.0, 4.0, 4.0]]]
    """

    def read_at(line: Line, pixels: int) -> Tensor:
        return (2 * line.places(pixels) / max(line.number - 1, 1) - 1).to(maps)  # -1 in the first cell, 1 in the last

    down, across = torch.meshgrid(read_at(cells.rows, size[0]), read_at(cells.columns, size[1]), indexing="ij")
    grid = torch.stack([across, down], dim=2).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]


def scaled_and_drawn(maps: np.ndarray, size: Sequence[int], cells: Cells | None) -> np.ndarray:
    """Maps (N, h, w), each scaled to [0, 1] by itself, at the pixels of an image: float32 (N, height, width).

    Where the cells share the image evenly, or are not known, as pytorch-grad-cam does it.
    """
    if (cells := uneven(cells, size)) is None:
        return scale_cam_image(maps, (size[1], size[0]))
    return drawn(torch.from_numpy(np.float32(scale_cam_image(maps))), size, cells).numpy()
