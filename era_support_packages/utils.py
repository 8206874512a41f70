"""The names that notebooks written for the original course project import; each a thin cover over the rest of the package.

    from era_support_packages.utils import *

A mistake is a tuple (image, predicted, actual) everywhere: a normalised tensor (3, H, W) and two class ids.
"""

import math
import weakref
from collections.abc import Callable, Iterable, Sequence, Sized
from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from era_support_packages import plots
from era_support_packages.datasets.normalization import unnormalize
from era_support_packages.gradcam.explanation import Explanation, explain
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.progress import progress_bar

__all__ = [
    "display_incorrect_images",
    "generate_gradcam",
    "get_incorrrect_predictions",
    "plot_gradcam",
    "plot_incorrect_prediction",
    "plot_losses",
    "test",
    "train",
]

Mistake = tuple[Tensor, int, int]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what those notebooks normalise with


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


_log = _Log()


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
    the end of the epoch (ReduceLROnPlateau by the training loss). Raises `ValueError` for a scheduler given by name or class
    (it would have to be made anew in every epoch), and for a loader without images.
    """
    if scheduler is not None and (isinstance(scheduler, type) or not hasattr(scheduler, "step")):
        raise ValueError(f"scheduler is {scheduler!r}; give a scheduler object made once before the first epoch, or None.")
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
            if by_batch is not None:
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
    _log.add_train(model, epoch, loss_mean, accuracy)
    print(f"Epoch {epoch}: Train set: Average loss: {loss_mean:.4f}, Accuracy: {correct}/{shown} ({accuracy:.2f}%)")
    return loss_mean, accuracy


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
    _log.add_test(model, loss_mean, accuracy)
    print(f"Test set: Average loss: {loss_mean:.4f}, Accuracy: {correct}/{shown} ({accuracy:.2f}%)")
    return loss_mean, accuracy


test.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it where a test module imports *


def plot_losses() -> Figure:
    """Loss and accuracy of the run trained last, by epoch. Raises `ValueError` before the first epoch."""
    if not _log.rows:
        raise ValueError("Nothing has been trained yet; call train() and test() first.")
    return _shown(plots.training_curves(SimpleNamespace(records=tuple(_log.rows.values())), "Training and test"))


def get_incorrrect_predictions(
    model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], device: torch.device | str
) -> list[Mistake]:
    """Every misclassified image of a loader, in its order, as (image on the CPU, predicted, actual)."""
    mistakes: list[Mistake] = []
    with evaluation_mode(model), torch.no_grad():
        for images, labels in loader:
            predicted = model(images.to(device)).argmax(dim=1).cpu()
            labels = labels.cpu()
            for position in (predicted != labels).nonzero()[:, 0].tolist():
                # A copy: a view of one image would keep its whole batch in memory.
                mistakes.append((images[position].cpu().clone(), int(predicted[position]), int(labels[position])))
    return mistakes


def plot_incorrect_prediction(
    mismatch: Sequence[Mistake],
    n: int = 10,
    classes: Sequence[str] = CIFAR10_CLASSES,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Figure:
    """The first `n` mistakes as a grid, un-normalised with the statistics the loader normalised with."""
    images, predicted, actual = _columns(mismatch[:n])
    captions = [f"predicted {classes[p]}\nactual {classes[a]}" for p, a in zip(predicted, actual, strict=True)]
    return _shown(plots.image_grid(unnormalize(images, mean, std), captions, "Wrong predictions"))


def display_incorrect_images(
    mismatch: Sequence[Mistake],
    n: int = 10,
    classes: Sequence[str] = CIFAR10_CLASSES,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Figure:
    """The same figure as `plot_incorrect_prediction`; the original had both names."""
    return plot_incorrect_prediction(mismatch, n, classes, mean, std)


def generate_gradcam(
    misclassified_images: Sequence[Mistake],
    model: nn.Module,
    target_layers: Sequence[str],
    device: torch.device | str,
) -> tuple[list[np.ndarray], Tensor, Tensor]:
    """Grad-CAM of mistakes for the class that was predicted.

    Returns the maps of each layer, float32 (N, H, W) in [0, 1]; each image's class probabilities in descending order,
    float32 (N, C); and the class ids they belong to, int64 (N, C).
    """
    images, predicted, _ = _columns(misclassified_images)
    explanation = explain(model.to(device), images, targets=predicted, layers=target_layers)
    with evaluation_mode(model), torch.no_grad():
        logits = torch.cat([model(part.to(device)) for part in images.split(64)])
    probabilities, ids = logits.softmax(dim=1).cpu().sort(dim=1, descending=True)
    return list(explanation.maps[:, 0].transpose(1, 0, 2, 3)), probabilities, ids


def plot_gradcam(
    gcam_layers: Sequence[np.ndarray],
    target_layers: Sequence[str],
    class_names: Sequence[str],
    image_size: tuple[int, int] | int,
    predicted: Sequence[int] | Tensor,
    misclassified_images: Sequence[Mistake],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Figure:
    """A column per mistake: the input, then each layer's map over it; captions say the actual and the predicted class.

    Both classes are read from the mistakes themselves; `predicted` and `image_size` are accepted as the original took them.
    """
    images, ids, actual = _columns(misclassified_images)
    maps = np.stack(list(gcam_layers), axis=1)[:, None]
    shape = maps.shape[:3]
    explanation = Explanation(
        maps,
        ids[:, None],
        tuple(target_layers),
        confidences=np.full(shape[:2], np.nan),  # the original's values do not tell it, and the figure does not show it
        raw_ranges=np.full((*shape, 2), np.nan),
        method="gradcam",
        grids=(maps.shape[3:],) * shape[2],
        predicted=ids,
        images=unnormalize(images, mean, std),
        labels=actual,
        classes=tuple(class_names),
    )
    return _shown(plots.gradcam_panels(explanation, "Grad-CAM of wrong predictions"))


def _columns(mistakes: Sequence[Mistake]) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Images (N, 3, H, W), predicted (N,), actual (N,). Raises `ValueError` where there is no mistake."""
    if not mistakes:
        raise ValueError("There are no mistakes to show; give at least one (image, predicted, actual).")
    images, predicted, actual = zip(*mistakes, strict=True)
    return torch.stack(list(images)), np.array(predicted, dtype=np.int64), np.array(actual, dtype=np.int64)


def _means(loss_sum: float, correct: int, shown: int) -> tuple[float, float]:
    """Mean loss over the images, and accuracy in percent."""
    if not shown:
        raise ValueError("The loader gave no images; give one that holds at least one batch.")
    return loss_sum / shown, 100 * correct / shown


def _shown(figure: Figure) -> Figure:
    """Show a figure in a notebook at once, wherever in a cell the call stands."""
    plots.show(figure)
    # where the call is a cell's last line, its value would be shown once more
    figure._ipython_display_ = lambda: None  # type: ignore[attr-defined]
    return figure
