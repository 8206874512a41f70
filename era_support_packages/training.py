"""Training: one function that goes through a planned run epoch by epoch and returns its history."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from era_support_packages import custom_resnet, resnet
from era_support_packages.augmentation import AugmentationPolicy
from era_support_packages.batches import TrainingBatches, batch_count
from era_support_packages.config import PlannedEpoch, TrainingConfig
from era_support_packages.hardware import autocast, keep_freed_memory, resolve_device, resolve_precision
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.predictions import Predictions, predict
from era_support_packages.progress import progress_bar


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite."""


# ---- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EpochRecord:
    """One row of the log. Accuracies in percent; the training loss includes label smoothing, the test loss does not."""

    epoch: int
    resolution: int  # px of the training images; the last epoch's test images are at full resolution, earlier ones at this
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


# ---- parts of a run --------------------------------------------------------------------------------------------------


def resolve(config: TrainingConfig, dataset: ImageDataset | None = None) -> TrainingConfig:
    """The configuration with every "auto" but `max_lr` replaced by what it means on this machine and, where given, data set."""
    device = resolve_device(config.device)
    flip = config.horizontal_flip
    if flip == "auto" and dataset is not None:
        flip = 0.0 if dataset.name == "digits" else 0.5
    workers = (2 if device.type == "cuda" else 0) if config.workers == "auto" else config.workers
    return config.replace(
        dataset=dataset.name if dataset is not None and config.dataset == "auto" else config.dataset,
        device=str(device),
        precision=resolve_precision(config.precision, device),
        workers=workers,
        horizontal_flip=flip,
    )


def build_model(config: TrainingConfig, classes: int) -> nn.Module:
    """The network of a configuration, in channels_last memory on its device; the same weights for the same seed."""
    device = resolve_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.model == "resnet_custom":
            model: nn.Module = custom_resnet.resnet_custom(num_classes=classes)
        else:
            model = getattr(resnet, config.model)(classes)
    return model.to(device, memory_format=torch.channels_last)


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay on convolutions and the output layer, none on norms and biases."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    learning_rate = config.max_lr if config.max_lr != "auto" else 0.01
    return torch.optim.SGD(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=next(model.parameters()).device.type in ("cpu", "cuda"),
    )


def build_scheduler(optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """OneCycle over all steps of the run: up to `max_lr` during `warmup`, then down to zero (Smith & Topin 2017).

    The warm-up takes at least two steps: PyTorch divides by its length less one.
    """
    steps = max(steps, 2)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.max_lr,
        total_steps=steps,
        pct_start=min(1.0, max(config.warmup, 2 / steps)),
        anneal_strategy=config.anneal,
        cycle_momentum=False,
    )


def augmentation_policy(config: TrainingConfig) -> AugmentationPolicy:
    """The part of a configuration that says what may happen to a training image."""
    return AugmentationPolicy(**{field.name: getattr(config, field.name) for field in dataclasses.fields(AugmentationPolicy)})


def build_batches(train: ImageDataset, config: TrainingConfig) -> TrainingBatches:
    """The augmented training batches of a resolved configuration."""
    device = resolve_device(config.device)
    return TrainingBatches(train, augmentation_policy(config), config.batch_size, device, config.seed, config.workers)


class TrainingStep:
    """One optimizer step on one batch: forward in the run's precision, backward, update, schedule."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        scheduler: torch.optim.lr_scheduler.OneCycleLR | None = None,
    ) -> None:
        self.model, self.optimizer, self.config, self.scheduler = model, optimizer, config, scheduler
        self.device = resolve_device(config.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's mean loss and its number of correct predictions, both still on the device."""
        with autocast(self.device, self.config.precision):
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scheduler is not None and self.scheduler.last_epoch < self.scheduler.total_steps - 1:  # none after the last
            self.scheduler.step()
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()


# ---- what a run will cost --------------------------------------------------------------------------------------------


@torch.random.fork_rng(devices=[])  # dropout draws from it
def seconds_per_image(model: nn.Module, config: TrainingConfig, timed_steps: int = 2) -> float:
    """Seconds of training per image at the plan's first resolution, from a few timed steps of a copy of the model."""
    resolution = config.resolutions[0][0]
    device = resolve_device(config.device)
    twin = copy.deepcopy(model).train()
    step = TrainingStep(twin, build_optimizer(twin, config), config)
    images = torch.zeros(config.batch_size, 3, resolution, resolution, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(config.batch_size, dtype=torch.int64, device=device)
    step(images, labels)[0].item()  # the first step also allocates and chooses kernels
    start = time.perf_counter()
    for _ in range(timed_steps):
        loss, _ = step(images, labels)
    loss.item()
    return (time.perf_counter() - start) / timed_steps / config.batch_size


def predicted_seconds(config: TrainingConfig, train_size: int, test_size: int, image_seconds: float) -> float:
    """How long the run will take, from the cost of an image at the plan's first resolution: work grows with the pixels.

    An image of the test split costs a third of a training image: a forward pass without the two of the backward pass.
    """
    planned = config.planned_epochs(train_size)
    first = config.resolutions[0][0]
    work = 0.0
    for epoch in planned:
        last = epoch is planned[-1]
        test_images = test_size if last or config.test_images is None else min(config.test_images, test_size)
        work += epoch.images * epoch.resolution**2 + test_images * _test_resolution(epoch, planned) ** 2 / 3
    return work / first**2 * image_seconds


def training_flops(model: nn.Module, config: TrainingConfig, train_size: int, range_test_batches: int = 0) -> int:
    """Floating-point operations of all forward and backward passes of the run, 2 per multiply-add.

    `range_test_batches` counts the steps of a range test that `max_lr` came from.
    """
    price = {resolution: flops_per_image(model, resolution) for resolution, _ in config.resolutions}
    range_test = price[config.resolutions[0][0]] * range_test_batches * min(config.batch_size, train_size)
    return range_test + sum(
        price[epoch.resolution] * batch_count(epoch.images, config.batch_size) * min(config.batch_size, epoch.images)
        for epoch in config.planned_epochs(train_size)
    )


@torch.random.fork_rng(devices=[])  # dropout draws from it
def flops_per_image(model: nn.Module, resolution: int) -> int:
    """Floating-point operations of one image's forward and backward pass at that resolution, 2 per multiply-add.

    Counted by `torch.utils.flop_counter` on a copy of the model with two images.
    """
    twin = copy.deepcopy(model).float().cpu().train()
    with FlopCounterMode(display=False) as counter:
        twin(torch.zeros(2, 3, resolution, resolution)).sum().backward()
    return counter.get_total_flops() // 2


def duration(seconds: float) -> str:
    """A duration for people: "45 s", "3 min 20 s", "1 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def announce_duration(config: TrainingConfig, seconds: float) -> str:
    """The sentence before the first epoch: how long it will take, and where a GPU would help."""
    text = f"This run will take about {duration(seconds)} on this machine."
    if config.device == "cpu" and seconds > 600:
        text += " A free GPU on Colab (Runtime > Change runtime type > T4 GPU) would take a fraction of it."
    return text


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
            predictions = predict(model, looked_at, device, config.precision, _test_resolution(epoch, planned))
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


def _test_resolution(epoch: PlannedEpoch, planned: tuple[PlannedEpoch, ...]) -> int | None:
    """Between epochs the network is tested at the resolution it just trained at, at the end at the plan's last one."""
    return (planned[-1] if epoch is planned[-1] else epoch).resolution


def _evenly_spread(dataset: ImageDataset, count: int | None) -> ImageDataset:
    """Every k-th image, `count` in all: the same share of each class where the classes lie one after another."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.take(torch.linspace(0, len(dataset) - 1, count).round().long().numpy())


__all__ = [
    "EpochRecord",
    "History",
    "TrainingDivergedError",
    "TrainingStep",
    "augmentation_policy",
    "build_batches",
    "build_model",
    "build_optimizer",
    "build_scheduler",
    "duration",
    "fit",
    "flops_per_image",
    "log_header",
    "log_row",
    "predicted_seconds",
    "resolve",
    "seconds_per_image",
    "training_flops",
]
