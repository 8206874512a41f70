"""What the search for a planted mark found: scores by map, verdicts, and which maps would have found the mark."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from era_support_packages.evaluation.intervals import Interval, percent
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.trust.shortcut.mark import Marks, Score
from era_support_packages.trust.shortcut.planted import PlantedNetwork
from era_support_packages.trust.shortcut.scores import VERDICTS, MarkScores

_MAP = (Column("map"), Column("layer"), Column("grid"))
_HITS = Column("hits", ".1f", factor=100, ends=".0f")


@dataclass(frozen=True, eq=False)
class ShortcutTest(Readable):
    """How well maps find a planted mark in N images of other classes, which carry it at random places.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages import Classifier, load
    >>> from era_support_packages.trust.shortcut import find, plant
    >>> train, test = load("digits")
    >>> _ = torch.manual_seed(0)
    >>> network = nn.Sequential(nn.Conv2d(3, 32, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    >>> classifier = Classifier(network, test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> found = find(plant(classifier, train, held_out=20), test, layers="1", count=20)
    >>> len(found), [maps.label for maps in found.maps]
    (20, ['gradcam at 1', 'hirescam at 1'])
    """

    maps: tuple[MarkScores, ...]
    """by method, then by layer"""
    noise: Score
    """independent noise in every pixel"""
    indices: np.ndarray
    """int64 (N,): the images of the split, in the drawn order"""
    marks: Marks
    """where the mark is in each of them"""
    to_class: Interval
    """the share of the marked images that the planted network gives the mark's class"""
    to_class_untouched: Interval
    """the same of the untouched network"""
    planted: PlantedNetwork
    example: np.ndarray
    """uint8 (r, r, 3): the first of the marked images"""
    seed: int
    split: str = "test"
    """whose images these are: "test", or "validation" for a run that was stopped before its test images were looked at"""

    def __len__(self) -> int:
        return len(self.indices)

    def best(self) -> tuple[MarkScores, Score]:
        """The map that hits most on the first half of the images, and its score on the other half.

        Hits of the untouched network's maps are taken off, and of equal ones the energy decides. Chosen and reported on
        different images: the best of many on the same images is flattered by chance.
        """
        chosen = slice(None, len(self) // 2)

        def success(maps: MarkScores) -> tuple[float, float]:
            own, control = maps.planted.part(chosen), maps.control.part(chosen)
            return own.hits.mean() - control.hits.mean(), own.energies.mean() - control.energies.mean()

        best = max(self.maps, key=success)
        return best, best.planted.part(slice(len(self) // 2, None))

    def table(self) -> Table:
        """A row for each method and layer: how often its maximum is in the mark, what that is compared with, and the verdict."""
        columns = (
            *_MAP,
            _HITS,
            *(Column(name, ".1f", factor=100) for name in ("ceiling", "control", "other")),
            Column("verdict"),
        )
        rows = []
        for maps in self.maps:
            compared = (score.hit_share.estimate for score in (maps.ceiling, maps.control, maps.other_image))
            rows.append((maps.method, maps.layer, _grid(maps), maps.planted.hit_share, *compared, maps.verdict))
        caption = (
            f"Percent of {len(self)} marked {self.split} images; in brackets 95 % intervals. hits: the map's maximum lies in the "
            "mark. ceiling: hits of the mark itself, seen through the layer's grid. control: hits of the untouched network's "
            "maps. other: hits of another image's mark."
        )
        return Table(columns, tuple(rows), caption)

    def score_table(self) -> Table:
        """A row for each method and layer, then for each grid its ceiling and its baselines: hits, near hits and energy."""
        rows: list[tuple[Any, ...]] = []
        for maps in self.maps:
            rows.append((*_row(maps.method, maps, maps.planted), int(maps.planted.constant.sum())))
        seen = set()
        for maps in self.maps:
            if maps.grid not in seen:
                seen.add(maps.grid)
                baselines = (("ceiling", maps.ceiling), ("random map", maps.random), ("centred Gaussian", maps.gaussian))
                rows += [(*_row(name, maps, score), None) for name, score in baselines]
        side = self.marks.resolution
        rows.append(("pixel noise", "", f"{side}x{side}", *_scores(self.noise), None))
        caption = (
            f"Percent of {len(self)} marked {self.split} images; in brackets 95 % intervals. hits: the map's maximum lies in the "
            "mark. near: within half a cell of it. energy: the share of the map's sum in the mark. constant: maps without a "
            "maximum, which count as misses. ceiling: the mark itself, seen through the layer's grid."
        )
        columns = (_HITS, Column("near", ".1f", factor=100), Column("energy", ".1f", factor=100), Column("constant", "d"))
        return Table((*_MAP, *columns), tuple(rows), caption)

    def reading(self) -> str:
        """What the scores say, in one sentence: the best map, and what each of the maps would have told about the mark."""
        best, rest = self.best()
        share, allowed = rest.hit_share, best.ceiling.hit_share.estimate
        groups = []
        for verdict in VERDICTS:
            named = [f"{maps.label} ({_against_ceiling(maps)})" for maps in self.maps if maps.verdict == verdict]
            if named:
                groups.append(f"{verdict}: {', '.join(named)}")
        return (
            f"{best.label}, chosen on one half of the images, has its maximum in the mark in {percent(share.estimate)} (95 % "
            f"interval {_range_text(share)}) of the other {len(rest)}, where its grid allows {percent(allowed)}; by verdict, "
            f"with the hits and what the grid allows: {'; '.join(groups)}."
        )


def _against_ceiling(maps: MarkScores) -> str:
    """Hits of the map, and of what its grid allows: "22 of 24 %"."""
    share, ceiling = maps.planted.hit_share.estimate, maps.ceiling.hit_share.estimate
    return f"{100 * share:.0f} of {100 * ceiling:.0f} %"


def _row(name: str, maps: MarkScores, score: Score) -> tuple[str | float | Interval, ...]:
    return (name, maps.layer, _grid(maps), *_scores(score))


def _scores(score: Score) -> tuple[float | Interval, ...]:
    return score.hit_share, score.near_share.estimate, score.energy


def _grid(maps: MarkScores) -> str:
    return f"{maps.grid[0]}x{maps.grid[1]}"


def _range_text(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f}"
