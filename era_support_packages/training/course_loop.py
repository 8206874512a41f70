"""The loop of the course of 2023, for networks, loaders and optimizers of a person's own: an epoch of training, a test.

`utils` hands it on under its names of then.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Sequence, Sized
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.progress import progress_bar


class _Log:
    """The rows of the run trained last. `plot_losses()` takes no arguments, so the module has to keep this one value."""

    def __init__(self) -> None:
        self.model: Callable[[], nn.Module | None] = lambda: None  # a weak reference: the log must not keep a network alive
        self.rows: dict[int, SimpleNamespace] = {}

    def add_train(self, model: nn.Module, epoch: int, loss: float, accuracy: float) -> None:
        """A new row; another model, or an epoch that does not come after the last one, begins a new run."""
        if self.model() is not model or epoch <= max(self.rows, default=-math.inf):
            self.model, self.rows = weakref.ref(model), {}
        self.rows[epoch] = SimpleNamespace(
            epoch=epoch,
            resolution=None,  # not known here, and the same in all rows
            train_loss=loss,
            train_accuracy=accuracy,
            test_loss=math.nan,
            test_accuracy=math.nan,
        )

    def add_test(self, model: nn.Module, loss: float, accuracy: float) -> None:
        """The test part of the last row, if this is the model that was trained."""
        if self.model() is model:
            row = self.rows[max(self.rows)]
            row.test_loss, row.test_accuracy = loss, accuracy


log = _Log()


class _Column(Sequence[float]):
    """One column of the run trained last, a value an epoch, as it is now. Nobody has to empty it before the next run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _values(self) -> list[float]:
        return [value for row in log.rows.values() if not math.isnan(value := getattr(row, self.name))]

    def __len__(self) -> int:
        return len(self._values())

    def __getitem__(self, index: Any) -> Any:
        return self._values()[index]

    def __repr__(self) -> str:
        return repr(self._values())


train_losses, train_acc = _Column("train_loss"), _Column("train_accuracy")
test_losses, test_acc = _Column("test_loss"), _Column("test_accuracy")


def train(
    model: nn.Module,
    device: torch.device | str,
    train_loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None,
    criterion: Callable[[Tensor, Tensor], Tensor],
    epoch: int,
) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss over its images and the accuracy in percent.

    `criterion` gives the mean loss of a batch. A OneCycleLR or CyclicLR is stepped after every batch, any other scheduler at
    the end of the epoch (ReduceLROnPlateau by the training loss). At the end of a OneCycleLR the rate stays as it is then, and a
    line says so: beyond it PyTorch's would rise again or be negative. Raises `ValueError` for a scheduler given by name or class
    (it would have to be made anew in every epoch), for a OneCycleLR too short for an epoch, and for a loader without images.
    """
    if scheduler is not None and (isinstance(scheduler, type) or not hasattr(scheduler, "step")):
        raise ValueError(f"scheduler is {scheduler!r}; give a scheduler object made once before the first epoch, or None.")
    _check_length(scheduler, train_loader)
    by_batch = scheduler if isinstance(scheduler, OneCycleLR | CyclicLR) else None
    model.train()
    loss_sum, correct, shown = 0.0, 0, 0
    with progress_bar(len(train_loader) if isinstance(train_loader, Sized) else None, f"epoch {epoch}", "batch") as bar:
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            logits = model(images)
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            if by_batch is not None and not _is_over(by_batch):
                by_batch.step()
            loss_sum += loss.item() * len(labels)
            correct += int((logits.argmax(dim=1) == labels).sum())
            shown += len(labels)
            bar.set_postfix_str(f"loss {loss_sum / shown:.4f}, accuracy {100 * correct / shown:.2f} %", refresh=False)
            bar.update()
    loss_mean, accuracy = _means(loss_sum, correct, shown)
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(loss_mean)
    elif scheduler is not None and by_batch is None:
        scheduler.step()
    log.add_train(model, epoch, loss_mean, accuracy)
    print(f"Epoch {epoch}: Train set: Average loss: {loss_mean:.4f}, Accuracy: {correct}/{shown} ({accuracy:.2f}%)")
    return loss_mean, accuracy


def _is_over(scheduler: LRScheduler) -> bool:
    """Whether a OneCycleLR has reached its last rate."""
    return isinstance(scheduler, OneCycleLR) and scheduler.last_epoch + 1 >= scheduler.total_steps


def _check_length(scheduler: LRScheduler | None, loader: Iterable[Any]) -> None:
    """Refuse a OneCycleLR that is shorter than one epoch; say where one is over before the epoch that begins."""
    if not isinstance(scheduler, OneCycleLR) or not isinstance(loader, Sized):
        return
    total, batches = scheduler.total_steps, len(loader)
    again = "OneCycleLR(optimizer, max_lr=..., epochs=EPOCHS, steps_per_epoch=len(train_loader))"
    if total < batches:
        raise ValueError(f"The schedule has {total} steps, and one epoch takes {batches}; make it with {again}.")
    if scheduler.last_epoch + batches > total:
        print(
            f"The schedule of {total} steps ends before this epoch does: from there on the learning rate stays at its last value."
            f" For more epochs make it with {again}."
        )


def test(
    model: nn.Module,
    device: torch.device | str,
    test_loader: Iterable[tuple[Tensor, Tensor]],
    criterion: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Mean loss over the images and accuracy in percent, in evaluation mode; training flags are as before afterwards.

    `criterion` gives the mean loss of a batch. Raises `ValueError` for a loader without images.
    """
    loss_sum, correct, shown = 0.0, 0, 0
    with evaluation_mode(model), torch.no_grad():
        for images, labels in test_loader:
            images, labels = images.to(device), labels.to(device)
            logits = model(images)
            loss_sum += criterion(logits, labels).item() * len(labels)
            correct += int((logits.argmax(dim=1) == labels).sum())
            shown += len(labels)
    loss_mean, accuracy = _means(loss_sum, correct, shown)
    log.add_test(model, loss_mean, accuracy)
    print(f"Test set: Average loss: {loss_mean:.4f}, Accuracy: {correct}/{shown} ({accuracy:.2f}%)")
    return loss_mean, accuracy


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it where a test module imports *


def _means(loss_sum: float, correct: int, shown: int) -> tuple[float, float]:
    """Mean loss over the images, and accuracy in percent."""
    if not shown:
        raise ValueError("The loader gave no images; give one that holds at least one batch.")
    return loss_sum / shown, 100 * correct / shown
