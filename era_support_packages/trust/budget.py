"""How large the checks of the heat maps may be: decided by the run's own work, so that every machine decides alike.

The unit is one image passing once through the network at the run's resolution; a backward pass counts double. The training
has taken so many of them, each check may take a share of that, and one for which its share is too small, or which cannot tell
anything of a network that has hardly learnt, is left out with a sentence that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.intervals import percent
from era_support_packages.gradcam import exploration
from era_support_packages.gradcam.explanation import default_layers
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.training.cost import flops_per_image
from era_support_packages.training.history import History
from era_support_packages.trust.extent import Extent
from era_support_packages.trust.faithfulness import scores as faithfulness
from era_support_packages.trust.sanity import check as sanity
from era_support_packages.trust.shortcut import planting, search

EXPLORER, FAITHFULNESS, SANITY, SHORTCUT = 0.1, 0.3, 0.2, 0.4
"""the share of the budget of each; what is left of a share goes to none of the others, so that each is decided by itself"""
LEAST = 8e12
"""floating-point operations of the whole budget however short the training was: less than a minute on two cores"""
LEARNED = 0.25
"""of the errors of always naming the most frequent class: a network that avoids fewer has hardly learnt"""
FEWEST_IMAGES = 12
"""test images; corrected for the comparisons of four maps with three baselines, fewer than nine show no difference for sure"""


@dataclass(frozen=True)
class CheckPlan:
    """What one check will do, decided before it starts.

    >>> from era_support_packages.trust import CheckPlan
    >>> plan = CheckPlan("Left out, as check_sanity = False.")  # as `CheckBudget` makes it
    >>> plan.runs, plan.passes
    (False, 0)
    """

    sentence: str
    """what it costs, or why it is left out"""
    runs: bool = False
    passes: int = 0
    """of an image through the network; a backward pass counts double"""
    count: int = 0
    """of test images, at most"""
    draws: int = 0
    """of random networks"""
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class CheckBudget:
    """How large each check may be, given the work of the training and what the network learnt.

    >>> from torch import nn
    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import fit, resolve
    >>> from era_support_packages.trust import CheckBudget
    >>> train, test = load("digits")
    >>> config = resolve(TrainingConfig.preset("smoke"), train)
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> classifier, history = fit(network, train, test, config, report=lambda line: None)
    >>> budget = CheckBudget(classifier, history, train, extent="full")
    >>> budget.faithfulness().count, budget.sanity(wanted=False).sentence
    (24, 'Left out, as check_sanity = False.')
    """

    classifier: Classifier
    history: History
    train: ImageDataset
    extent: Extent = "auto"
    """"auto", or "full": every check as large as after a long training, whatever it costs and whatever was learnt"""

    def __post_init__(self) -> None:
        check_extent(self.extent)

    @cached_property
    def training(self) -> int:
        """Image passes of the training at the last epoch's resolution: three an image, one where the last layer learned alone,
        and work grows with the pixels.
        """
        config, records = self.history.config, self.history.records
        planned = config.planned_epochs(len(self.train)) if config.head_first else ()
        alone = {epoch.epoch for epoch in planned if epoch.head_only}
        shown = sum(record.images * record.resolution**2 / (3 if record.epoch in alone else 1) for record in records)
        return round(3 * shown / self.classifier.resolution**2)

    @cached_property
    def allowed(self) -> int:
        """Image passes that all checks together may take."""
        single = flops_per_image(self.classifier.network, self.classifier.resolution) / 3
        return max(self.training, int(LEAST / single))

    @cached_property
    def learned(self) -> bool:
        """Whether the network avoids at least a quarter of the errors of always naming the most frequent class."""
        return self._accuracy - self._guess >= LEARNED * (1 - self._guess)

    def explorer(self, wanted: bool = True) -> CheckPlan:
        """Section 13. Never left out by itself; where its share is too small, the methods that take hundreds of passes are."""
        if not wanted:
            return _unwanted("explore_methods")
        many = tuple(name for name, method in METHODS.items() if method.pass_per_channel)
        for left_out in ((), many):
            methods = tuple(name for name in METHODS if name not in left_out)
            passes = exploration.image_passes(self.classifier.network, self._image, methods=methods)
            if self._affordable(passes, EXPLORER):
                break
        said = f"{len(methods)} methods for one image: {self._cost_text(passes)}."
        if left_out:
            titles = " and ".join(METHODS[name].title for name in left_out)
            said += f" {titles} are left out: they take a pass for each channel, too many after so short a training. {REMEDY}"
        return CheckPlan(said, True, passes, 1, methods=methods)

    def faithfulness(self, wanted: bool = True) -> CheckPlan:
        """Section 14, for two methods at two layers: as many of 24 images as its share allows, 12 at least."""
        if (reason := self._cannot_tell("check_faithfulness", wanted, "marks what it uses")) is not None:
            return reason
        layers = len(default_layers(self.classifier.network, self._image)[1::2])
        sizes = [
            CheckPlan("", True, faithfulness.image_passes(count, 2, layers), count)
            for count in range(min(24, self._tested), FEWEST_IMAGES - 1, -1)
        ]
        return self._largest("Faithfulness", FAITHFULNESS, sizes)

    def sanity(self, wanted: bool = True) -> CheckPlan:
        """Section 15, for Grad-CAM and EigenCAM: 24 images and 12 random networks, or fewer of both."""
        if (reason := self._cannot_tell("check_sanity", wanted, "depends on what it learnt")) is not None:
            return reason
        sizes = []
        for count, draws in ((24, 12), (16, 8), (16, 6)):
            passes = sanity.image_passes(self.classifier.network, self._image, min(count, self._tested), draws=draws)
            sizes.append(CheckPlan("", True, passes, count, draws))
        return self._largest("The sanity check", SANITY, sizes)

    def shortcut(self, wanted: bool = True) -> CheckPlan:
        """Section 16. Planting takes the same steps after every run, so little can be saved."""
        if (reason := self._cannot_tell("plant_shortcut", wanted, "finds a cause")) is not None:
            return reason
        first = planting.image_passes(len(self.train))
        sizes = [CheckPlan("", True, first + search.image_passes(min(count, self._tested)), count) for count in (200, 100)]
        return self._largest("The planted shortcut", SHORTCUT, sizes)

    # ---- parts ---------------------------------------------------------------------------------------------------------

    @property
    def _tested(self) -> int:
        """How many test images there are."""
        return len(self.history.final_predictions)

    @cached_property
    def _image(self) -> Tensor:
        """One image of the size that the network takes, float32 (1, 3, r, r)."""
        return torch.zeros(1, 3, self.classifier.resolution, self.classifier.resolution)

    @cached_property
    def _accuracy(self) -> float:
        return self.history.final_predictions.correct / self._tested

    @cached_property
    def _guess(self) -> float:
        """The share that always naming the most frequent class of the test images gets right."""
        labels = self.history.final_predictions.actual
        return float(np.bincount(labels).max() / len(labels))

    def _affordable(self, passes: int, share: float) -> bool:
        return self.extent == "full" or passes <= share * self.allowed

    def _cost_text(self, passes: int) -> str:
        return f"about {passes:,} image passes, where the training took {self.training:,} (a backward pass counts double)"

    def _cannot_tell(self, knob: str, wanted: bool, what: str) -> CheckPlan | None:
        """The plan of a check that was not asked for, or that no size would make meaningful."""
        if not wanted:
            return _unwanted(knob)
        if self._tested < FEWEST_IMAGES:
            images = f"{self._tested} {self.history.judged} images"
            return CheckPlan(f"Left out: of {images} no map's figures are sure; {FEWEST_IMAGES} are needed.")
        if self.learned or self.extent == "full":
            return None
        return CheckPlan(
            f"Left out: the network has hardly learnt, so that asking whether its map {what} can come to nothing. It gets "
            f"{percent(self._accuracy)} of the {self.history.judged} images right, always naming the most frequent class "
            f"{percent(self._guess)}; a quarter of the way from there to 100 % is asked for. {REMEDY}"
        )

    def _largest(self, name: str, share: float, sizes: list[CheckPlan]) -> CheckPlan:
        """The first of the sizes, from the largest on, that its share of the budget pays for."""
        for size in sizes:
            if self._affordable(size.passes, share):
                said = f"{name}: {self._cost_text(size.passes)}."
                if size is not sizes[0]:
                    drawn = f" and {size.draws} draws" if size.draws else ""
                    said += f" After so short a training {size.count} images{drawn} are taken instead of {sizes[0].count}"
                    said += f" and {sizes[0].draws}. {REMEDY}" if size.draws else f". {REMEDY}"
                return CheckPlan(said, True, size.passes, size.count, size.draws)
        least = sizes[-1].passes
        return CheckPlan(
            f"Left out: it would take {self._cost_text(least)}, and {int(share * self.allowed):,} are allowed after so short a "
            f"training. {REMEDY}"
        )


REMEDY = 'Set checks = "full" to run all of it.'


def check_extent(extent: str) -> None:
    """Raise `ValueError` where `extent` is not one of `Extent`."""
    if extent not in get_args(Extent):
        raise ValueError(f"checks is {extent!r}; give 'auto' (as much as the training allows) or 'full'.")


def _unwanted(knob: str) -> CheckPlan:
    return CheckPlan(f"Left out, as {knob} = False.")
