"""Training: one function that goes through a planned run epoch by epoch and returns its history."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from era_support_packages.batches import TrainingBatches, batch_count
from era_support_packages.config import PlannedEpoch, TrainingConfig
from era_support_packages.hardware import keep_freed_memory, resolve_device
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.predictions import Predictions, predict
from era_support_packages.progress import progress_bar
from era_support_packages.run_cost import announce_duration, duration, predicted_seconds, seconds_per_image
from era_support_packages.training_setup import (
    TrainingStep,
    augmentation_policy,
    build_batches,
    build_model,
    build_optimizer,
    build_scheduler,
    resolve,
)

__all__ = [
    "EpochRecord",
    "History",
    "TrainingDivergedError",
    "augmentation_policy",
    "build_model",
    "fit",
    "log_header",
    "log_row",
    "resolve",
]


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite."""


# ---- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpochRecord:
    """One row of the log. Accuracies in percent; the training loss includes label smoothing, the test loss does not."""

    epoch: int
    resolution: int  # px of the training and of the test images
    images: int  # training images shown
    lr: float  # learning rate of the last step
    train_loss: float
    train_accuracy: float  # on augmented images, while training
    test_loss: float
    test_accuracy: float
    test_correct: int
    test_total: int
    seconds: float


@dataclass(frozen=True, eq=False)
class History:
    """A finished run: its rows, the configuration it ran with, and the last epoch's predictions of the whole test split."""

    records: tuple[EpochRecord, ...]
    config: TrainingConfig
    predictions: Predictions

    @property
    def seconds(self) -> float:
        """Training and evaluation time of all epochs."""
        return sum(record.seconds for record in self.records)


_COLUMNS = "{:>5}  {:>3}  {:>9}  {:>10}  {:>9}  {:>9}  {:>13}  {:>8}  {:>7}"


def log_header() -> str:
    """The heading of the log's fixed-width columns."""
    return _COLUMNS.format("epoch", "px", "lr", "train loss", "train acc", "test loss", "correct/total", "test acc", "seconds")


def log_row(record: EpochRecord) -> str:
    """One epoch as a fixed-width row under `log_header`."""
    return _COLUMNS.format(
        record.epoch,
        record.resolution,
        f"{record.lr:.6f}",
        f"{record.train_loss:.4f}",
        f"{record.train_accuracy:.2f} %",
        f"{record.test_loss:.4f}",
        f"{record.test_correct}/{record.test_total}",
        f"{record.test_accuracy:.2f} %",
        f"{record.seconds:.1f}",
    )


# ---- the run ---------------------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    config: TrainingConfig,
    report: Callable[[str], None] = print,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> History:
    """Train the model as a resolved configuration says; the model holds the last epoch's weights afterwards.

    `report` gets the announcement and one fixed-width row an epoch; `on_epoch` gets each finished row.
    Raises `ValueError` where `max_lr` is still "auto", `TrainingDivergedError` when the loss is no longer a number.
    """
    if config.max_lr == "auto":
        raise ValueError("max_lr is still 'auto'; run the range test first and take its suggestion, or give a number.")
    config = resolve(config, train)
    device = resolve_device(config.device)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    planned = config.planned_epochs(len(train))
    steps = sum(batch_count(epoch.images, config.batch_size) for epoch in planned)
    seconds = predicted_seconds(config, len(train), len(test), seconds_per_image(model, config))
    report(announce_duration(config, seconds))

    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, steps))
    batches = build_batches(train, config)
    quick_test = _evenly_spread(test, config.test_images)
    torch.manual_seed(config.seed)  # dropout, where the network has it
    records: list[EpochRecord] = []
    report(log_header())
    with progress_bar(sum(epoch.images * epoch.resolution**2 for epoch in planned), unit="px²") as bar:
        for epoch in planned:
            start = time.perf_counter()
            loss, accuracy, lr = _train_epoch(step, batches, epoch, len(planned), bar)
            looked_at = test if epoch is planned[-1] else quick_test
            bar.set_postfix_str("testing")
            predictions = predict(model, looked_at, device, config.precision, epoch.resolution)
            record = EpochRecord(
                epoch=epoch.epoch,
                resolution=epoch.resolution,
                images=epoch.images,
                lr=lr,
                train_loss=loss,
                train_accuracy=accuracy,
                test_loss=predictions.mean_loss,
                test_accuracy=predictions.accuracy,
                test_correct=predictions.correct,
                test_total=len(predictions),
                seconds=time.perf_counter() - start,
            )
            records.append(record)
            bar.clear()
            report(log_row(record))
            if on_epoch is not None:
                on_epoch(record)
    return History(tuple(records), config, predictions)


def _train_epoch(
    step: TrainingStep, batches: TrainingBatches, epoch: PlannedEpoch, epochs: int, bar: tqdm
) -> tuple[float, float, float]:
    """One epoch: its mean training loss, training accuracy in percent, and the last step's learning rate."""
    step.model.train()
    device = step.device
    loss_sum, correct = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    shown, lr, start, refreshed = 0, 0.0, time.perf_counter(), 0.0
    for images, labels in batches.epoch(epoch.resolution, epoch.start, epoch.images):
        lr = step.optimizer.param_groups[0]["lr"]
        loss, hits = step(images, labels)
        loss_sum += loss * len(labels)
        correct += hits
        shown += len(labels)
        now = time.perf_counter()
        if now - refreshed > 1:  # the only place in an epoch that waits for the device
            refreshed = now
            _raise_if_diverged(loss_sum.item(), epoch, lr)
            left = (now - start) / shown * (epoch.images - shown)
            bar.set_description_str(f"epoch {epoch.epoch}/{epochs}", refresh=False)
            bar.set_postfix_str(
                f"loss {loss_sum.item() / shown:.3f}, accuracy {100 * correct.item() / shown:.1f} %, "
                f"epoch done in {duration(left)}",
                refresh=False,
            )
        bar.update(len(labels) * epoch.resolution**2)
    _raise_if_diverged(loss_sum.item(), epoch, lr)
    return loss_sum.item() / shown, 100 * correct.item() / shown, lr


def _raise_if_diverged(loss: float, epoch: PlannedEpoch, lr: float) -> None:
    if not math.isfinite(loss):
        raise TrainingDivergedError(
            f"The loss became {loss} in epoch {epoch.epoch} at a learning rate of {lr:.4g}; lower max_lr and run again."
        )


def _evenly_spread(dataset: ImageDataset, count: int | None) -> ImageDataset:
    """Every k-th image, `count` in all: the same share of each class where the classes lie one after another."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.take(torch.linspace(0, len(dataset) - 1, count).round().long().numpy())
