"""The plan of a run: its epochs, each with its images and its resolution."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Resolutions = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class PlannedEpoch:
    """One row of a run: `images` training images shown at `resolution` px, the first of them being number `start` of the run."""

    epoch: int
    resolution: int
    start: int
    images: int
    head_only: bool = False
    """whether the last layer alone learns, and the body stays as it is"""

    @property
    def end(self) -> int:
        """The number of the first image after it."""
        return self.start + self.images

    @property
    def work(self) -> int:
        """Px² of its images, which the time grows with; without the two backward passes of the body a third of them."""
        return self.images * self.pixels_at_work

    @property
    def pixels_at_work(self) -> int:
        """The same of one image."""
        return self.resolution**2 // (3 if self.head_only else 1)


def planned_epochs(
    blocks: Sequence[tuple[int, int]], training_images: int, batch_size: int, head_images: int = 0
) -> tuple[PlannedEpoch, ...]:
    """Blocks of (pixels, images to show) cut into passes over that many training images; each is one row of the log.

    The first `head_images` are cut off too: in their rows the last layer alone learns.
    """
    planned: list[PlannedEpoch] = []
    start = 0
    for resolution, size, head_only in _cut(blocks, head_images):
        while size > 0:
            images = min(size, training_images)
            if 0 < size - images < min(batch_size, training_images):  # less than a batch would be a row of its own
                images = size
            planned.append(PlannedEpoch(len(planned) + 1, resolution, start, images, head_only))
            start, size = start + images, size - images
    return tuple(planned)


def _cut(blocks: Sequence[tuple[int, int]], head_images: int) -> Iterator[tuple[int, int, bool]]:
    """The blocks, those before and after the first `head_images` apart."""
    for resolution, size in blocks:
        head = min(size, head_images)
        head_images -= head
        if head:
            yield resolution, head, True
        if size > head:
            yield resolution, size - head, False


def passes_for_head(share: float, epochs: int) -> int:
    """How many of so many whole passes the last layer has for itself: their share, but one at least and never all of them."""
    return min(max(1, round(share * epochs)), epochs - 1) if share else 0


def blocks_of_passes(resolutions: Resolutions, epochs: int, training_images: int) -> list[tuple[int, int]]:
    """(pixels, images) for a run of whole passes, shared out by the resolutions.

    Where there are fewer passes than resolutions, the first resolutions are left out.
    """
    resolutions = resolutions[-epochs:]
    total_share = sum(share for _, share in resolutions)
    blocks, done, cumulative = [], 0, 0.0
    for position, (pixels, share) in enumerate(resolutions):
        cumulative += share / total_share
        left = len(resolutions) - position - 1  # each later resolution keeps at least one pass
        until = min(max(round(cumulative * epochs), done + 1), epochs - left)
        blocks.append((pixels, (until - done) * training_images))
        done = until
    return blocks


def blocks_of_images(
    resolutions: Resolutions, train_images: int, max_epochs: int | None, training_images: int
) -> list[tuple[int, int]]:
    """(pixels, images) for a run of so many images, in no more than `max_epochs` passes."""
    images = min(train_images, (max_epochs or math.inf) * training_images)
    sums = list(itertools.accumulate(share for _, share in resolutions))
    ends = [0] + [round(share / sums[-1] * images) for share in sums]
    return [(pixels, end - start) for (pixels, _), (start, end) in zip(resolutions, itertools.pairwise(ends), strict=True)]
