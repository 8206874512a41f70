"""A small mark at a known place of each image, and how well a map finds it there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from era_support_packages.evaluation.intervals import Interval, mean_interval, share_interval
from era_support_packages.gradcam.cells import Cells, Line, lying, uneven
from era_support_packages.gradcam.explanation import upsample

# Muted magenta and green, side by side in hardly any photograph. Saturated ones stand out so much that maps of the first layers
# mark them in a network to which they mean nothing: Grad-CAM at layer1 of a ResNet18 in 85 % of the images, and these in 34 %.
COLORS = ((152, 104, 152), (104, 152, 104))
TIE = 1e-6  # of a map's maximum 1: values that differ by less do so by rounding


@dataclass(frozen=True, eq=False)
class Marks:
    """A square mark in each of N square images: int64 (N,) `tops` and `lefts`, its first row and column; sides in px."""

    tops: np.ndarray
    lefts: np.ndarray
    size: int
    resolution: int

    def __len__(self) -> int:
        return len(self.tops)

    @property
    def masks(self) -> np.ndarray:
        """bool (N, resolution, resolution): true in the mark."""
        pixels = np.arange(self.resolution)
        rows = (pixels >= self.tops[:, None]) & (pixels < self.tops[:, None] + self.size)
        columns = (pixels >= self.lefts[:, None]) & (pixels < self.lefts[:, None] + self.size)
        return rows[:, :, None] & columns[:, None, :]

    def part(self, chosen: slice | np.ndarray) -> "Marks":
        """The marks of some of the images."""
        return Marks(self.tops[chosen], self.lefts[chosen], self.size, self.resolution)


def mark_size(resolution: int) -> int:
    """Side of the mark in px: 4, and an eighth of images larger than 32 px, so that it keeps its share of the area, 1/64."""
    return max(4, (resolution + 4) // 8)


def draw_marks(count: int, resolution: int, generator: np.random.Generator) -> Marks:
    """Marks at random places, each place where the mark lies whole in the image being equally likely.

    Raises `ValueError` for images smaller than twice the mark.
    """
    size = mark_size(resolution)
    if resolution < 2 * size:
        raise ValueError(f"images of {resolution} px have no room for a mark of {size} px; use {2 * size} px or more.")
    tops, lefts = generator.integers(0, resolution - size + 1, (2, count))
    return Marks(tops, lefts, size, resolution)


def add_marks(images: Tensor, marks: Marks, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A copy of normalised images (N, 3, r, r) with the mark drawn in: a checker of two by two squares in two `COLORS`."""
    colors = (images.new_tensor(COLORS) / 255 - images.new_tensor(mean)) / images.new_tensor(std)
    second_half = torch.arange(marks.size) >= marks.size // 2
    checker = colors[(second_half[:, None] ^ second_half).long()].permute(2, 0, 1)  # (3, size, size)
    marked = images.clone()
    for image, top, left in zip(marked, marks.tops.tolist(), marks.lefts.tolist(), strict=True):
        image[:, top : top + marks.size, left : left + marks.size] = checker
    return marked


def ceiling_maps(marks: Marks, grid: tuple[int, int], cells: Cells | None = None) -> np.ndarray:
    """The marks themselves as a layer of that grid would show them: area-pooled to (h, w), then upsampled as maps are.

    Where its `cells` do not share the image evenly, the outermost ones hold what lies beyond them, as they are drawn.
    """
    size = (marks.resolution, marks.resolution)
    masks = torch.from_numpy(marks.masks).float()
    if (cells := uneven(cells, size)) is None:
        return upsample(F.adaptive_avg_pool2d(masks[:, None], grid)[:, 0].numpy(), size)
    down, across = (_pixels_in(line, marks.resolution) for line in cells)
    return upsample((down @ masks @ across.T).numpy(), size, cells)


def _pixels_in(line: Line, pixels: int) -> Tensor:
    """How much of each pixel of a side lies in each cell: (cells, pixels), as a share of a cell."""
    edges = pixels / 2 + (torch.arange(line.number + 1) - line.number / 2) * line.step
    edges[0], edges[-1] = min(0.0, float(edges[0])), max(float(pixels), float(edges[-1]))
    starts = torch.arange(pixels)
    within = torch.minimum(edges[1:, None], starts + 1.0) - torch.maximum(edges[:-1, None], starts.float())
    return within.clamp(min=0) / line.step


# ---- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Score:
    """How well the maps of N images mark N known places.

    hits bool (N,): the map's maximum lies in the mark.  near bool (N,): at most half a cell of the map's grid beside it.
    energies float64 (N,) in [0, 1]: the share of the map's sum that lies in the mark.  constant bool (N,): the map has no
    maximum; it counts as a miss with no energy in the mark.
    """

    hits: np.ndarray
    near: np.ndarray
    energies: np.ndarray
    constant: np.ndarray

    def __len__(self) -> int:
        return len(self.hits)

    @property
    def hit_share(self) -> Interval:
        """The share of images with a hit, in [0, 1], with its 95 % Wilson interval."""
        return share_interval(int(self.hits.sum()), len(self))

    @property
    def near_share(self) -> Interval:
        """The share of images with a hit or a near one, likewise."""
        return share_interval(int(self.near.sum()), len(self))

    @property
    def energy(self) -> Interval:
        """The mean share of energy in the mark, with its 95 % bootstrap interval."""
        return mean_interval(self.energies)

    def part(self, chosen: slice | np.ndarray) -> "Score":
        """The score of some of the images."""
        return Score(self.hits[chosen], self.near[chosen], self.energies[chosen], self.constant[chosen])


def score(maps: np.ndarray, marks: Marks, grid: tuple[int, int], draws: np.ndarray, cells: Cells | None = None) -> Score:
    """Score maps (N, r, r) in [0, 1], each with maximum 1 or zero everywhere, that come from a grid of (h, w) cells.

    Where a maximum is reached at several pixels (upsampling makes plateaus at the borders), `draws` (N,) in [0, 1) picks
    one of them, each with the same chance where the draws are uniform.
    """
    count, height, width = maps.shape
    flat = maps.reshape(count, -1)
    highest = flat.max(axis=1, keepdims=True)
    tied = flat >= highest - TIE
    order = tied.cumsum(axis=1)
    picked = (order > np.floor(draws * order[:, -1])[:, None]).argmax(axis=1)
    rows, columns = np.divmod(picked, width)

    def beside(places: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """How many pixels a place lies before or behind the mark; 0 within."""
        return np.maximum(np.maximum(starts - places, places - (starts + marks.size - 1)), 0)

    down, across = beside(rows, marks.tops), beside(columns, marks.lefts)
    constant = highest[:, 0] == 0
    where = lying(cells, grid, (height, width))
    inside = (maps * marks.masks).sum(axis=(1, 2), dtype=np.float64)
    return Score(
        hits=(down == 0) & (across == 0) & ~constant,
        near=(down <= where.rows.step / 2) & (across <= where.columns.step / 2) & ~constant,
        energies=inside / np.where(constant, 1, flat.sum(axis=1, dtype=np.float64)),
        constant=constant,
    )


def join(scores: Sequence[Score]) -> Score:
    """The scores of several batches as one."""
    return Score(*(np.concatenate([getattr(score, name) for score in scores]) for name in Score.__dataclass_fields__))
