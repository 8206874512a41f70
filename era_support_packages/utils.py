"""The names that notebooks written for the original course project import; each a thin cover over the rest of the package.

    from era_support_packages.utils import *

A mistake is a tuple (image, predicted, actual) everywhere: a normalised tensor (3, H, W) and two class ids.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from era_support_packages import plots
from era_support_packages.batches import unnormalize
from era_support_packages.gradcam import explain
from era_support_packages.progress import progress_bar

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
    """Losses and accuracies by epoch. `plot_losses()` takes no arguments, so the module has to keep this one value."""

    def __init__(self) -> None:
        self.train: dict[int, tuple[float, float]] = {}
        self.test: dict[int, tuple[float, float]] = {}

    def add_train(self, epoch: int, loss: float, accuracy: float) -> None:
        """A row; training again from an earlier epoch drops the rows of the previous attempt."""
        for rows in (self.train, self.test):
            for later in [key for key in rows if key >= epoch]:
                del rows[later]
        self.train[epoch] = loss, accuracy

    def add_test(self, loss: float, accuracy: float) -> None:
        """The test row of the epoch trained last."""
        self.test[max(self.train, default=0)] = loss, accuracy


_log = _Log()


def train(
    model: nn.Module,
    device: torch.device | str,
    train_loader: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    criterion: Callable[[Tensor, Tensor], Tensor],
    epoch: int,
) -> tuple[float, float]:
    """Train for one epoch; returns the mean loss over its images and the accuracy in percent.

    A OneCycleLR or CyclicLR is stepped after every batch, any other scheduler at the end of the epoch. Raises `ValueError`
    for a scheduler given by name: it would have to be made anew in every epoch.
    """
    if scheduler is not None and not hasattr(scheduler, "step"):
        raise ValueError(f"scheduler is {scheduler!r}; give a scheduler object made once before the first epoch, or None.")
    every_batch = isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR | torch.optim.lr_scheduler.CyclicLR)
    model.train()
    loss_sum, correct, shown = 0.0, 0, 0
    with progress_bar(len(train_loader), f"epoch {epoch}", "batch") as bar:
        for images, labels in train_loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            logits = model(images)
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            if every_batch:
                scheduler.step()
            loss_sum += loss.item() * len(labels)
            correct += int((logits.argmax(dim=1) == labels).sum())
            shown += len(labels)
            bar.set_postfix_str(f"loss {loss_sum / shown:.4f}, accuracy {100 * correct / shown:.2f} %", refresh=False)
            bar.update()
    if scheduler is not None and not every_batch:
        scheduler.step()
    loss_mean, accuracy = loss_sum / shown, 100 * correct / shown
    _log.add_train(epoch, loss_mean, accuracy)
    print(f"Epoch {epoch}: Train set: Average loss: {loss_mean:.4f}, Accuracy: {correct}/{shown} ({accuracy:.2f}%)")
    return loss_mean, accuracy


def test(
    model: nn.Module,
    device: torch.device | str,
    test_loader: Iterable[tuple[Tensor, Tensor]],
    criterion: Callable[[Tensor, Tensor], Tensor],
) -> tuple[float, float]:
    """Mean loss over the images and accuracy in percent, in evaluation mode; the training flag is as before afterwards."""
    loss_sum, correct, shown = 0.0, 0, 0
    for _, labels, logits in _evaluated(model, device, test_loader):
        loss_sum += criterion(logits, labels).item() * len(labels)
        correct += int((logits.argmax(dim=1) == labels).sum())
        shown += len(labels)
    loss_mean, accuracy = loss_sum / shown, 100 * correct / shown
    _log.add_test(loss_mean, accuracy)
    print(f"Test set: Average loss: {loss_mean:.4f}, Accuracy: {correct}/{shown} ({accuracy:.2f}%)")
    return loss_mean, accuracy


test.__test__ = False  # pytest would collect it where a test module imports *


def plot_losses() -> Figure:
    """Loss and accuracy of the epochs trained last, as one figure. Raises `ValueError` before the first epoch."""
    if not _log.train:
        raise ValueError("Nothing has been trained yet; call train() and test() first.")
    records = [
        _Row(epoch, *_log.train[epoch], *_log.test.get(epoch, (float("nan"), float("nan")))) for epoch in sorted(_log.train)
    ]
    return _shown(plots.training_curves(_Rows(tuple(records)), "Training and test"))


class _Row:
    """What `plots.training_curves` reads of a row."""

    resolution = 32

    def __init__(self, epoch: int, train_loss: float, train_accuracy: float, test_loss: float, test_accuracy: float) -> None:
        self.epoch, self.train_loss, self.train_accuracy = epoch, train_loss, train_accuracy
        self.test_loss, self.test_accuracy = test_loss, test_accuracy


class _Rows:
    def __init__(self, records: tuple[_Row, ...]) -> None:
        self.records = records


def get_incorrrect_predictions(
    model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], device: torch.device | str
) -> list[Mistake]:
    """Every misclassified image of a loader, in its order, as (image on the CPU, predicted, actual)."""
    mistakes: list[Mistake] = []
    for images, labels, logits in _evaluated(model, device, loader):
        predicted = logits.argmax(dim=1)
        for position in (predicted != labels).nonzero()[:, 0].tolist():
            mistakes.append((images[position].cpu(), int(predicted[position]), int(labels[position])))
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
    labels = torch.zeros(len(images), dtype=torch.int64)
    batches = _evaluated(model, device, [(images, labels)])
    probabilities, ids = torch.cat([logits for _, _, logits in batches]).softmax(dim=1).cpu().sort(dim=1, descending=True)
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
    maps = np.stack(list(gcam_layers), axis=1)
    return _shown(
        plots.gradcam_panels(
            unnormalize(images, mean, std),
            maps,
            list(target_layers),
            ids,
            actual,
            list(class_names),
            "Grad-CAM of wrong predictions",
        )
    )


def _columns(mistakes: Sequence[Mistake]) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Images (N, 3, H, W), predicted (N,), actual (N,). Raises `ValueError` where there is no mistake."""
    if not mistakes:
        raise ValueError("There are no mistakes to show; give at least one (image, predicted, actual).")
    images, predicted, actual = zip(*mistakes, strict=True)
    return torch.stack(list(images)), np.array(predicted, dtype=np.int64), np.array(actual, dtype=np.int64)


def _evaluated(
    model: nn.Module, device: torch.device | str, loader: Iterable[tuple[Tensor, Tensor]]
) -> Iterable[tuple[Tensor, Tensor, Tensor]]:
    """Images, labels and logits of each batch, in evaluation mode."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            with torch.no_grad():
                logits = model(images)
            yield images, labels, logits
    finally:
        for module, training in flags:
            module.training = training


def _shown(figure: Figure) -> Figure:
    plots.show(figure)
    return figure
