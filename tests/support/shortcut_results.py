"""Made-up results of the planted shortcut, with known numbers of hits."""

import numpy as np
from torch import nn

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.intervals import Interval, share_interval
from era_support_packages.trust.shortcut.mark import Marks, Score
from era_support_packages.trust.shortcut.planted import PlantedNetwork
from era_support_packages.trust.shortcut.result import ShortcutTest
from era_support_packages.trust.shortcut.scores import MarkScores


def made_up_score(hits: int, count: int = 100, near: int | None = None, energy: float = 0.5, constant: int = 0) -> Score:
    """`hits` and then `near` of the images, spread over both halves; the same energy in each; the last maps constant."""
    order = np.arange(count).reshape(2, -1).T.ravel().argsort()  # 0, 2, 4 ... in the first half, 1, 3, 5 ... in the second
    return Score(
        order < hits, order < (hits if near is None else near), np.full(count, energy), np.arange(count) >= count - constant
    )


def made_up_maps(
    method: str, layer: str, hits: int, ceiling: int, control: int = 2, grid: tuple[int, int] = (16, 16), **changes: float
) -> MarkScores:
    """A row whose baselines hit in 1 to 3 of 100 images; where the ceiling is below 100, the mark is near it in 90."""
    example = np.zeros((32, 32), np.float32)
    example[4:8, 4:8] = 1
    return MarkScores(
        method=method,
        layer=layer,
        grid=grid,
        planted=made_up_score(hits, **changes),
        control=made_up_score(control, energy=0.03),
        other_image=made_up_score(1, energy=0.01),
        ceiling=made_up_score(ceiling, near=max(ceiling, 90), energy=0.7),
        random=made_up_score(3, energy=0.02),
        gaussian=made_up_score(2, energy=0.04),
        example=example,
    )


UNTRAINED = Classifier(nn.Identity(), ("cat", "dog", "frog"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), resolution=32)


def exactly(value: float) -> Interval:
    return Interval(value, value, value)


def made_up_planted(share: float = 0.97, steps: int = 24) -> PlantedNetwork:
    """A record with these numbers and no network."""
    return PlantedNetwork(
        classifier=UNTRAINED,
        original=UNTRAINED,
        target_class=2,
        to_class=exactly(share),
        to_class_before=exactly(0.0104),
        accuracy=exactly(0.868),
        accuracy_before=exactly(0.88),
        accuracy_change=exactly(-0.012),
        marked_images=270,
        clean_images=300,
        steps=steps,
        seconds=21.4,
    )


def made_up_result(*maps: MarkScores) -> ShortcutTest:
    """The result of 100 images with these rows, the mark of the first image at row 4 and column 4."""
    return ShortcutTest(
        maps=maps,
        noise=made_up_score(2, energy=0.015),
        indices=np.arange(100),
        marks=Marks(np.full(100, 4), np.full(100, 4), 4, 32),
        to_class=share_interval(96, 100),
        to_class_untouched=share_interval(1, 100),
        planted=made_up_planted(),
        example=np.full((32, 32, 3), 128, np.uint8),
        seed=0,
    )
