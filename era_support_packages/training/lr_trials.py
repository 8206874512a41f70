"""Short trials that confirm a learning rate: each a whole small run, judged on training images that it did not see."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset, stratified_split
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.machine import autocast, resolve_device
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.system.progress import progress_bar
from era_support_packages.training.config import ConfigValues, ResolvedConfig
from era_support_packages.training.phases import Phases
from era_support_packages.training.plan import planned_epochs
from era_support_packages.training.resources import use_resources
from era_support_packages.training.setup import build_batches
from era_support_packages.training.sharing import share_size

FACTOR = 4.0  # between neighbouring rates: shorter trials do not tell closer ones apart
FEWEST_STEPS = 40  # of all trials together: below, nothing can be told
FEWEST_TRIALS, MOST_TRIALS = 3, 7
LOWEST, HIGHEST = 1e-6, 100.0  # rates beyond are no rates
HELD_OUT = 1000  # training images that judge, or a tenth of them
SHARE, LEAST_IMAGES = 0.2, 4000  # of the run's images; but never over half of the run


@dataclass(frozen=True)
class Trials(Readable):
    """What training from the same start at a few rates came to."""

    losses: dict[float, float]
    """mean cross entropy of the held-out images in nats by rate, lowest rate first; infinite where training diverged"""
    margin: float
    """by how much the second-best loss is higher than the best; infinite where no other rate held"""
    error: float
    """the standard error of that difference over the images"""
    images: int
    """training images that each trial showed"""
    held_out: int
    """images that judged"""
    steps: int
    """of all trials together, the forward passes of the judging counted as a third of a step"""

    @property
    def best(self) -> float:
        """The rate with the lowest loss."""
        return min(self.losses, key=self.losses.__getitem__)

    @property
    def sure(self) -> bool:
        """Whether the best is ahead by more than twice the standard error."""
        return self.margin > 2 * self.error

    def table(self) -> Table:
        """A row a rate."""
        caption = (
            f"Mean cross entropy of {self.held_out:,} held-out training images, in nats, after {self.images:,} training images "
            "with the run's own warm-up and fall."
        )
        rows = tuple((f"{rate:.3g}", loss if math.isfinite(loss) else "diverged") for rate, loss in self.losses.items())
        return Table((Column("max_lr"), Column("loss", ".3f")), rows, caption)

    def reading(self) -> str:
        """One sentence: which rates were tried, which was best, and how surely."""
        rates = ", ".join(f"{rate:.3g}" for rate in self.losses)
        tried = f"Of {rates}, each tried from the same start with {self.images:,} images, {self.best:.3g}"
        if not math.isfinite(self.losses[self.best]):
            return f"Each rate that was tried diverged: {rates}."
        if not math.isfinite(self.margin):
            return f"{tried} alone did not diverge."
        verdict = "was clearly best" if self.sure else "was best, though not clearly"
        return (
            f"{tried} {verdict} on held-out images (loss {self.losses[self.best]:.2f}, the next {self.margin:.2f} higher, "
            f"standard error {self.error:.2f})."
        )

    def to_dict(self) -> dict[str, Any]:
        """As it is kept in a file; `from_dict` reads it."""
        return {**vars(self), "losses": [[rate, loss if math.isfinite(loss) else None] for rate, loss in self.losses.items()]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trials":
        """What `to_dict` wrote. Raises `TypeError` or `ValueError` where it is something else."""
        losses = {float(rate): math.inf if loss is None else float(loss) for rate, loss in values["losses"]}
        return cls(**{**values, "losses": losses})


def trial_images(config: ConfigValues, train_size: int) -> int:
    """How many images the curve and all trials of a run may show: a fifth of the run's, or 4,000 where that is more, at most
    half of the run; 0 where that is too few steps to tell rates apart.
    """
    whole = config.planned_epochs(train_size)[-1].end
    allowed = int(min(max(SHARE * whole, LEAST_IMAGES), whole / 2))
    return allowed if allowed >= FEWEST_STEPS * min(config.batch_size, train_size) else 0


def try_rates(
    model: nn.Module, train: ImageDataset, config: ResolvedConfig, start: float, images: int, processes: Processes = ALONE
) -> Trials:
    """Climb from the rate `start` in steps of a factor of four to the lowest loss, by trials of `images` images in all.

    Each trial trains a copy of the model with the run's recipe and a whole schedule of its own on the training images but for
    those held out, at the plan's first resolution; all see the same images in the same order. Nothing of the caller's changes.
    Several `processes` train together, and go by what the first measures.
    """
    kept, judging = stratified_split(train.labels, min(0.1, HELD_OUT / len(train)))
    part, judges = train.take(kept), train.take(judging)
    batch_size = share_size(min(config.batch_size, len(part)), processes)
    config = config.replace(batch_size=batch_size)
    count = MOST_TRIALS if images >= MOST_TRIALS * FEWEST_STEPS * batch_size else 4 if images >= LEAST_IMAGES else FEWEST_TRIALS
    steps = max(images // count // batch_size, 2)
    found: dict[float, np.ndarray] = {}
    device = resolve_device(config.device)

    def loss(rate: float) -> float:
        if rate not in found:
            losses = _trial(copy.deepcopy(model), part, judges, config.replace(max_lr=rate), steps, processes)
            found[rate] = processes.from_first(losses)
            bar.update()
        return float(found[rate].mean())

    with (
        use_resources(config),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        progress_bar(count, "trying learning rates", "rate", **processes.bar) as bar,
    ):
        best, at_start = start, loss(start)
        factor = FACTOR if loss(start * FACTOR) < at_start else 1 / FACTOR
        while _left(found, best * factor, count) and loss(best * factor) < loss(best):
            best *= factor
    return _told(found, steps * batch_size, len(judges), steps + len(judges) / 3 / batch_size)


def _left(found: dict[float, np.ndarray], rate: float, count: int) -> bool:
    """Whether that rate was tried, or may be."""
    return rate in found or (len(found) < count and LOWEST <= rate <= HIGHEST)


def _told(found: dict[float, np.ndarray], images: int, held_out: int, steps: float) -> Trials:
    rates = sorted(found)
    losses = {rate: float(found[rate].mean()) for rate in rates}
    best, second = sorted(rates, key=losses.__getitem__)[:2]
    margin, error = math.inf, 0.0
    if math.isfinite(losses[second]):
        differences = found[second] - found[best]
        margin, error = float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(held_out))
    return Trials(losses, margin, error, images, held_out, math.ceil(len(found) * steps))


def _trial(
    model: nn.Module, train: ImageDataset, judges: ImageDataset, config: ResolvedConfig, steps: int, processes: Processes
) -> np.ndarray:
    """The held-out losses after a whole small run at `max_lr`, float64 (H,)."""
    resolution, images = config.resolutions[0][0], steps * config.batch_size
    head_images = round(config.head_first * steps) * config.batch_size
    planned = planned_epochs([(resolution, images)], images, config.batch_size, head_images)
    phases, batches = Phases(model, config, planned, processes), build_batches(train, config, processes)
    for epoch in planned:
        step = phases.step_for(epoch)
        step.prepare()
        for batch, labels in batches.epoch(resolution, epoch.start, epoch.images):
            step(batch, labels)
            phases.average.update()
    phases.average.put_in()
    return _losses(model, judges, config, resolution)


def _losses(model: nn.Module, judges: ImageDataset, config: ResolvedConfig, resolution: int) -> np.ndarray:
    """Cross entropy of each image, by the statistics of the images themselves: the running ones lag behind after few steps.

    Norms that keep what they came with go by that.
    """
    device, found = resolve_device(config.device), []
    with evaluation_mode(model), torch.no_grad(), autocast(device, config.precision):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not config.freeze_norms:
                module.train()
        for indices in np.array_split(np.arange(len(judges)), max(len(judges) // 250, 1)):
            logits = model(normalize_images(judges, indices, resolution).to(device)).float()
            labels = torch.from_numpy(judges.labels[indices]).to(device)
            found.append(F.cross_entropy(logits, labels, reduction="none").double().cpu().numpy())
    losses = np.concatenate(found)
    return losses if np.isfinite(losses).all() else np.full(len(losses), np.inf)
