"""Short trials that confirm a learning rate: each a whole small run, judged on training images that it did not see."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset, stratified_split
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.machine import autocast, resolve_device
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.resources import use_resources
from era_support_packages.training.setup import build_batches, build_optimizer, build_scheduler
from era_support_packages.training.step import TrainingStep

FACTOR = 4.0  # between neighbouring rates: shorter trials do not tell closer ones apart
FEWEST_STEPS = 40  # of all trials together: below, nothing can be told
MOST_TRIALS = 7
HELD_OUT = 1000  # training images that judge, or a tenth of them
SHARE, LEAST_IMAGES = 0.2, 4000  # of the run's images; but never over half of the run


@dataclass(frozen=True, eq=False)
class Trial:
    """One rate that was tried: `losses` float64 (H,), the cross entropy of each held-out image in nats; infinite where it
    diverged."""

    lr: float
    losses: np.ndarray

    @property
    def loss(self) -> float:
        """The mean cross entropy."""
        return float(self.losses.mean())


@dataclass(frozen=True, eq=False)
class Trials(Readable):
    """Rates that were tried from the same start, lowest first."""

    trials: tuple[Trial, ...]
    images: int
    """training images that each trial showed"""

    @property
    def best(self) -> Trial:
        """The trial with the lowest loss."""
        return min(self.trials, key=lambda trial: trial.loss)

    @property
    def runner_up(self) -> tuple[Trial, float, float]:
        """The best of the others, by how much its mean loss is higher, and the standard error of that difference over images."""
        best = self.best
        other = min((trial for trial in self.trials if trial is not best), key=lambda trial: trial.loss)
        if not math.isfinite(other.loss):
            return other, math.inf, math.nan
        differences = other.losses - best.losses
        return other, float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))

    def table(self) -> Table:
        """A row a rate."""
        rows = tuple((f"{trial.lr:.3g}", trial.loss) for trial in self.trials)
        caption = (
            f"Mean cross entropy of {len(self.best.losses):,} held-out training images, in nats, after {self.images:,} training "
            "images with the run's own warm-up and fall."
        )
        return Table((Column("max_lr"), Column("loss", ".3f")), rows, caption)

    def reading(self) -> str:
        """How sure the choice is, in one sentence."""
        if len(self.trials) < 2:
            return f"Only {self.best.lr:.3g} could be tried."
        other, difference, error = self.runner_up
        if not math.isfinite(difference):
            return f"{self.best.lr:.3g} was best; {other.lr:.3g} diverged."
        sure = "clearly" if difference > 2 * error else "not clearly"
        return (
            f"Of {len(self.trials)} rates tried, {self.best.lr:.3g} was {sure} the best: the loss of held-out images was "
            f"{self.best.loss:.2f}, with {other.lr:.3g} it was {other.loss:.2f} (difference {difference:.2f}, standard error "
            f"{error:.2f})."
        )


def trial_images(config: TrainingConfig, train_size: int, spent: int) -> int:
    """How many images all trials of a run may show: a fifth of the run's, or 4,000 where that is more, at most half of the run,
    less those already `spent`; 0 where that is too few to tell rates apart."""
    whole = config.planned_epochs(train_size)[-1].end
    allowed = int(min(max(SHARE * whole, LEAST_IMAGES), whole / 2))
    return max(allowed - spent, 0) if allowed >= FEWEST_STEPS * min(config.batch_size, train_size) else 0


def try_rates(
    model: nn.Module,
    train: ImageDataset,
    config: TrainingConfig,
    start: float,
    images: int,
    progress: Callable[[str], None] | None = None,
) -> Trials:
    """Climb from `start` in steps of a factor of four to the rate with the lowest loss, by trials of `images` images in all.

    Each trial trains a copy of the model with the run's recipe and its whole schedule on the training images but for those
    held out, at the plan's first resolution; all see the same images in the same order. Nothing of the caller's changes.
    """
    kept, held_out = stratified_split(train.labels, min(0.1, HELD_OUT / len(train)))
    part, judges = train.take(kept), train.take(held_out)
    count = MOST_TRIALS if images // MOST_TRIALS >= 2 * FEWEST_STEPS * config.batch_size else 4 if images >= LEAST_IMAGES else 3
    each = max(images // count, 2 * min(config.batch_size, len(part)))
    found: dict[float, Trial] = {}
    device = resolve_device(config.device)

    def tried(lr: float) -> float:
        if lr not in found:
            if progress is not None:
                progress(f"trying {lr:.3g}")
            found[lr] = Trial(lr, _trial(copy.deepcopy(model), part, judges, config.replace(max_lr=lr), each))
        return found[lr].loss

    with use_resources(config), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        best, step = start, FACTOR
        tried(best)
        if tried(best * step) >= found[best].loss:
            step = 1 / FACTOR
        while len(found) < count:
            following = best * step
            if tried(following) < found[best].loss:
                best = following
            elif step < 1 or best != start:
                break
            else:
                step = 1 / FACTOR
    return Trials(tuple(found[lr] for lr in sorted(found)), each)


def _trial(model: nn.Module, train: ImageDataset, judges: ImageDataset, config: TrainingConfig, images: int) -> np.ndarray:
    """The held-out losses after a whole small run at `max_lr`, float64 (H,)."""
    batch_size = min(config.batch_size, len(train))
    config = config.replace(batch_size=batch_size)
    steps = max(images // batch_size, 2)
    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, steps))
    resolution = config.resolutions[0][0]
    model.train()
    for batch, labels in build_batches(train, config).epoch(resolution, 0, steps * batch_size):
        step(batch, labels)
    return _losses(model, judges, config, resolution)


def _losses(model: nn.Module, judges: ImageDataset, config: TrainingConfig, resolution: int) -> np.ndarray:
    """Cross entropy of each image, by the statistics of the images themselves: the running ones lag behind after few steps."""
    device, found = resolve_device(config.device), []
    with evaluation_mode(model), torch.no_grad(), autocast(device, config.precision):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        for indices in np.array_split(np.arange(len(judges)), max(len(judges) // 250, 1)):
            logits = model(normalize_images(judges, indices, resolution).to(device)).float()
            labels = torch.from_numpy(judges.labels[indices]).to(device)
            found.append(F.cross_entropy(logits, labels, reduction="none").double().cpu().numpy())
    losses = np.concatenate(found)
    return np.where(np.isfinite(losses), losses, np.inf)
