"""How large the checks of the heat maps may be: decided by the run's own work, so that every machine decides alike.

The unit is one image passing once through the network at the run's resolution; a backward pass counts double. The training
has taken so many of them, and each check may take a share of that, or of the seconds that are given instead. Where a share is
small, a check takes fewer images, then fewer maps. It is left out, with a sentence that says so, where it does not even pay for
the fewest images that can show anything, or where the network has hardly learnt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.intervals import percent
from era_support_packages.gradcam import exploration
from era_support_packages.gradcam.explanation import default_layers, image_passes
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.training.cost import duration
from era_support_packages.training.history import History
from era_support_packages.trust import speed
from era_support_packages.trust.extent import Extent
from era_support_packages.trust.faithfulness import scores as faithfulness
from era_support_packages.trust.faithfulness.result import BASELINES, needed_images
from era_support_packages.trust.plan import REMEDY, CheckPlan, check_extent, check_limit, not_wanted, taken_instead
from era_support_packages.trust.sanity import check as sanity
from era_support_packages.trust.sanity.verdict import FEWEST_IMAGES
from era_support_packages.trust.shortcut import planting, search
from era_support_packages.trust.shortcut.scores import FEWEST_MARKED

EXPLORER, FAITHFULNESS, SANITY, SHORTCUT = 0.1, 0.3, 0.2, 0.4
"""the share of the budget of each; what is left of a share goes to none of the others, so that each is decided by itself"""
LEAST = 8e12
"""floating-point operations of the whole budget however short the training was: less than a minute on two cores"""
LEARNED = 0.25
"""of the errors of always naming the most frequent class: a network that avoids fewer has hardly learnt"""
FEWEST_DRAWS = 4
"""of random networks: of fewer, more than a fortieth of the bootstrap samples hold one network alone, and no pair to compare"""
STATISTICS = 128, 32
"""training images for batch-norm statistics of redrawn networks: at up to 32 px, and at least; larger images have more places"""


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
    >>> CheckBudget(classifier, history, train, check_seconds=0.001).sanity().runs
    False
    """

    classifier: Classifier
    history: History
    train: ImageDataset
    extent: Extent = "auto"
    """"auto", or "full": every check as large as after a long training, whatever it costs and whatever was learnt"""
    check_seconds: float | None = None
    """that all checks together may take on this machine; None: no more work than the training took"""
    clock: speed.Clock = time.perf_counter
    """by which the speed of this machine is measured"""

    def __post_init__(self) -> None:
        check_extent(self.extent)
        check_limit(self.check_seconds, self.extent)

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
        if self.check_seconds is not None:
            return int(self.check_seconds / self.pass_seconds)
        return max(self.training, int(LEAST / speed.pass_work(self.classifier)))

    @cached_property
    def pass_seconds(self) -> float:
        """Seconds of one image pass on this machine, measured once."""
        return max(speed.image_seconds(self.classifier, self.clock), 1e-9)

    @cached_property
    def passes_per_system(self) -> float:
        """Image passes that a linear system of ROAD counts for: measured where seconds are given, else alike on every machine."""
        if self.check_seconds is None:
            return speed.passes_per_system(self.classifier)
        return speed.system_seconds(self.classifier.resolution, self.clock) / self.pass_seconds

    @cached_property
    def learned(self) -> bool:
        """Whether the network avoids at least a quarter of the errors of always naming the most frequent class."""
        return self._accuracy - self._guess >= LEARNED * (1 - self._guess)

    def explorer(self, wanted: bool = True) -> CheckPlan:
        """Section 13. Never left out by itself; where its share is too small, the methods that take hundreds of passes are."""
        if not wanted:
            return not_wanted("explore_methods")
        few = tuple(name for name, method in METHODS.items() if not method.pass_per_channel)
        for methods in (tuple(METHODS), few, few[:1]):
            passes = exploration.image_passes(self.classifier.network, self._image, methods=methods)
            if self._affordable(passes, EXPLORER):
                break
        said = f"{len(methods)} method{'s' if len(methods) > 1 else ''} for one image: {self._cost_text(passes)}."
        if methods == few:
            titles = " and ".join(METHODS[name].title for name in METHODS if name not in few)
            said += f" {titles} are left out: they take a pass for each channel, too many {self._small}. {self._remedy}"
        elif methods != tuple(METHODS):
            said += f" The others are left out {self._small}. {self._remedy}"
        return CheckPlan(said, True, passes, 1, methods=methods, options={"methods": methods})

    def faithfulness(self, wanted: bool = True, methods: Sequence[str] = ("gradcam", "hirescam")) -> CheckPlan:
        """Section 14, for these methods at two layers: as many of 24 images as its share allows, then fewer maps.

        The fewest images are those that can show a difference for sure, corrected for the comparisons of these maps.
        """
        layers = default_layers(self.classifier.network, self._image)[1::2] or default_layers(
            self.classifier.network, self._image
        )
        sizes = list(self._faithful_sizes(tuple(methods), tuple(layers)))
        fewest = needed_images(len(BASELINES))
        if (reason := self._cannot_tell("check_faithfulness", wanted, "marks what it uses", fewest, self._tested)) is not None:
            return reason
        return self._largest("Faithfulness", FAITHFULNESS, sizes)

    def sanity(self, wanted: bool = True) -> CheckPlan:
        """Section 15, for Grad-CAM and EigenCAM: 24 images and 12 random networks, or fewer of both."""
        if (
            reason := self._cannot_tell("check_sanity", wanted, "depends on what it learnt", FEWEST_IMAGES, self._tested)
        ) is not None:
            return reason
        most, least = STATISTICS
        statistics = max(least, min(most, round(most * 32**2 / self.classifier.resolution**2)))
        sizes = []
        for count, draws in ((24, 12), (16, 8), (16, 6), (8, FEWEST_DRAWS), (FEWEST_IMAGES, FEWEST_DRAWS)):
            options: dict[str, Any] = {
                "count": min(count, self._tested),
                "draws": draws,
                "train_count": min(statistics, len(self.train)),
            }
            passes = sanity.image_passes(self.classifier.network, self._image, **options)
            sizes.append(CheckPlan("", True, passes, count, draws, options=options))
        return self._largest("The sanity check", SANITY, sizes)

    def shortcut(self, wanted: bool = True, methods: Sequence[str] = ("gradcam", "hirescam")) -> CheckPlan:
        """Section 16. Planting takes the same steps after every run, so little can be saved."""
        others = int((self.history.final_predictions.actual != 0).sum())  # the mark means the first class
        reason = self._cannot_tell("plant_shortcut", wanted, "finds a cause", FEWEST_MARKED, others)
        if reason is not None:
            return reason
        first, more = planting.image_passes(len(self.train)), 2 * self._channel_passes(methods)  # in two networks
        sizes = []
        for count in (200, 100, 50, 25, FEWEST_MARKED):
            marked = min(count, self._tested)
            passes = first + search.image_passes(marked, methods=methods) + marked * more
            sizes.append(CheckPlan("", True, passes, count, options={"count": count, "methods": tuple(methods)}))
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

    @property
    def _small(self) -> str:
        """Why a share is small."""
        return "after so short a training" if self.check_seconds is None else f"for check_seconds = {self.check_seconds:g}"

    @property
    def _remedy(self) -> str:
        """How all of a check would run."""
        return REMEDY if self.check_seconds is None else f"{REMEDY[:-1]}, without check_seconds."

    def _faithful_sizes(self, methods: tuple[str, ...], layers: tuple[str, ...]) -> Iterator[CheckPlan]:
        """From the largest on: fewer images, then one method, then one layer, the coarser one."""
        most = min(24, self._tested)
        for some, at in ((methods, layers), (methods[:1], layers), (methods[:1], layers[-1:])):
            more = self._channel_passes(some, at)
            for count in range(most, needed_images(len(some) * len(at) * len(BASELINES)) - 1, -1):
                passes = faithfulness.image_passes(count, len(some), len(at), passes_per_system=self.passes_per_system)
                passes += count * more
                options = {"count": count, "methods": some, "layers": at}
                yield CheckPlan("", True, passes, count, methods=some, options=options)

    def _channel_passes(self, methods: Sequence[str], layers: tuple[str, ...] | None = None) -> int:
        """How many passes the methods that take one for each channel add to an image's own."""
        many = [method for method in methods if METHODS[method].pass_per_channel]
        return sum(image_passes(self.classifier.network, self._image, layers, method) - 1 for method in many)

    def _affordable(self, passes: int, share: float) -> bool:
        return self.extent == "full" or passes <= share * self.allowed

    def _cost_text(self, passes: int) -> str:
        text = f"about {passes:,} image passes or {duration(passes * self.pass_seconds)} here"
        if self.check_seconds is not None:
            return text
        return f"{text}, where the training took {self.training:,} (a backward pass counts double)"

    def _cannot_tell(self, knob: str, wanted: bool, what: str, fewest: int, there: int) -> CheckPlan | None:
        """The plan of a check that was not asked for, or that no size would make meaningful."""
        if not wanted:
            return not_wanted(knob)
        if there < fewest:
            images = f"{there} {self.history.judged} images"
            return CheckPlan(f"Left out: of {images} no map's figures are sure; {fewest} are needed.")
        if self.learned or self.extent == "full":
            return None
        return CheckPlan(
            f"Left out: the network has hardly learnt, so that asking whether its map {what} can come to nothing. It gets "
            f"{percent(self._accuracy)} of the {self.history.judged} images right, always naming the most frequent class "
            f"{percent(self._guess)}; a quarter of the way from there to 100 % is asked for. {self._remedy}"
        )

    def _largest(self, name: str, share: float, sizes: Sequence[CheckPlan]) -> CheckPlan:
        """The first of the sizes, from the largest on, that its share of the budget pays for."""
        for size in sizes:
            if self._affordable(size.passes, share):
                said = f"{name}: {self._cost_text(size.passes)}."
                if size is not sizes[0]:
                    said += f" {self._small.capitalize()}, {taken_instead(size, sizes[0])}. {self._remedy}"
                return replace(size, sentence=said)
        least = min(sizes, key=lambda size: size.passes)
        needed = math.ceil(least.passes * self.pass_seconds / share)
        if self.check_seconds is None:
            limit = f"{int(share * self.allowed):,} are allowed after so short a training"
        else:
            limit = f"check_seconds = {self.check_seconds:g} leaves it {duration(share * self.check_seconds)}"
        return CheckPlan(
            f"Left out: with {least.size}, the fewest that can show anything, it would take {self._cost_text(least.passes)}, and "
            f"{limit}. Set check_seconds = {needed} to run that. {self._remedy}"
        )
