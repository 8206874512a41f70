"""What one method's maps at one layer tell of a planted mark."""

from dataclasses import dataclass

import numpy as np

from era_support_packages.trust.shortcut.mark import Score

Grid = tuple[int, int]


ELSEWHERE = 0.5  # of its ceiling: a map that is in or near the mark less often than this looks elsewhere


REACHED = 0.9  # of its ceiling: a map that hits as often shows what its grid allows


COARSE = 0.5  # a grid whose ceiling is below this hides the mark in most images


TOO_SIMILAR = 0.25  # of its hits: a map that perhaps hits as often where the mark means nothing is no evidence of its use


FEWEST_MARKED = 12  # images: of fewer, a control that never hits may still hit more than TOO_SIMILAR of the time


VERDICTS = ("finds it", "finds it in part", "too coarse to show it", "looks elsewhere", "marks it either way")


@dataclass(frozen=True, eq=False)
class MarkScores:
    """One method at one layer, and what its scores are to be compared with; all on the same N marked images."""

    method: str
    layer: str
    grid: Grid
    planted: Score
    """the maps of the network that the mark was planted in"""
    control: Score
    """the maps of the untouched network"""
    other_image: Score
    """the maps of the network that the mark was planted in, each held against the mark of another image"""
    ceiling: Score
    """the true mark on the layer's grid"""
    random: Score
    """a random map on the layer's grid"""
    gaussian: Score
    """a Gaussian in the middle of the layer's grid"""
    example: np.ndarray
    """float32 (r, r) in [0, 1]: the first image's map of the network that the mark was planted in"""

    @property
    def label(self) -> str:
        """Method and layer: "hirescam at layer2"."""
        return f"{self.method} at {self.layer}"

    @property
    def verdict(self) -> str:
        """What the maps would have told about the mark, from the 95 % intervals of their shares.

        "looks elsewhere": in or near the mark surely less than half as often as its grid allows.  "too coarse to show it":
        the map points there, but its grid allows hits in less than half of the images.  "finds it in part": surely less than
        nine tenths of the hits that its grid allows.  "marks it either way": the maps of the untouched network hit perhaps a
        quarter as often or more.  "finds it": none of these.
        """
        hits, allowed = self.planted.hit_share, self.ceiling.hit_share.estimate
        if self.planted.near_share.high < ELSEWHERE * self.ceiling.near_share.estimate:
            return "looks elsewhere"
        if allowed < COARSE:
            return "too coarse to show it"
        if hits.high < REACHED * allowed:
            return "finds it in part"
        if self.control.hit_share.high >= TOO_SIMILAR * hits.estimate:
            return "marks it either way"
        return "finds it"
