"""The names that notebooks written for the original course project import; each a thin cover over the rest of the package.

    from era_support_packages.utils import *

A mistake is a tuple (image, actual, predicted) everywhere: a normalised tensor (3, H, W) and two class ids.
"""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from era_support_packages import plots
from era_support_packages.datasets.normalization import unnormalize
from era_support_packages.gradcam.explanation import Explanation, explain
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.training import course_loop
from era_support_packages.training.course_loop import test, test_acc, test_losses, train, train_acc, train_losses

__all__ = [
    "GetCorrectPredCount",
    "GradCAM",
    "Mistake",
    "display_incorrect_images",
    "generate_gradcam",
    "get_incorrrect_predictions",
    "load_data",
    "plot_gradcam",
    "plot_incorrect_prediction",
    "plot_losses",
    "test",
    "test_acc",
    "test_losses",
    "train",
    "train_acc",
    "train_losses",
]


class Mistake(NamedTuple):
    """A misclassified image: normalised (3, H, W), and the ids of the class it has and of the class it was taken for."""

    image: Tensor
    actual: int
    predicted: int


Mistakes = Sequence[Mistake | tuple[Tensor, int, int]]
"""plain tuples are (image, actual, predicted) too"""

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what those notebooks normalise with


def GetCorrectPredCount(pPrediction: Tensor, pLabels: Tensor) -> int:
    """How many of a batch are right."""
    return int((pPrediction.argmax(dim=1) == pLabels).sum())


def load_data() -> None:
    """Refused: it downloaded CIFAR-10 to learn its mean and standard deviation."""
    raise ValueError(
        "load_data() fetched CIFAR-10 only for its statistics; give these to the plots as mean= and std=, or load the data with "
        "train, test = era_support_packages.load('cifar10')."
    )


class GradCAM:
    """Refused: its hooks had to be removed by hand, and its maps were NaN where all gradients are zero."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ValueError(
            "The class GradCAM is not part of this package; use generate_gradcam(mistakes, model, layers, device), or "
            "era_support_packages.gradcam.explain(model, images, layers=[...]).maps."
        )


def plot_losses() -> Figure:
    """Loss and accuracy of the run trained last, by epoch. Raises `ValueError` before the first epoch."""
    if not course_loop.log.rows:
        raise ValueError("Nothing has been trained yet; call train() and test() first.")
    return _shown(plots.training_curves(SimpleNamespace(records=tuple(course_loop.log.rows.values())), "Training and test"))


def get_incorrrect_predictions(
    model: nn.Module, loader: Iterable[tuple[Tensor, Tensor]], device: torch.device | str
) -> list[Mistake]:
    """Every misclassified image of a loader, in its order, as (image on the CPU, actual, predicted)."""
    mistakes: list[Mistake] = []
    with evaluation_mode(model), torch.no_grad():
        for images, labels in loader:
            predicted = model(images.to(device)).argmax(dim=1).cpu()
            labels = labels.cpu()
            for position in (predicted != labels).nonzero()[:, 0].tolist():
                # A copy: a view of one image would keep its whole batch in memory.
                image = images[position].cpu().clone()
                mistakes.append(Mistake(image, actual=int(labels[position]), predicted=int(predicted[position])))
    return mistakes


def plot_incorrect_prediction(
    mismatch: Mistakes,
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
    mismatch: Mistakes,
    n: int = 10,
    classes: Sequence[str] = CIFAR10_CLASSES,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Figure:
    """The same figure as `plot_incorrect_prediction`; the original had both names."""
    return plot_incorrect_prediction(mismatch, n, classes, mean, std)


def generate_gradcam(
    misclassified_images: Mistakes,
    model: nn.Module,
    target_layers: Sequence[str],
    device: torch.device | str,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Grad-CAM of mistakes for the class that was predicted.

    Returns the maps of each layer, float32 (N, 1, H, W) in [0, 1]; each image's class probabilities in descending order,
    float32 (N, C); and the class ids they belong to, int64 (N, C).
    """
    images, predicted, _ = _columns(misclassified_images)
    explanation = explain(model.to(device), images, targets=predicted, layers=target_layers)
    with evaluation_mode(model), torch.no_grad():
        logits = torch.cat([model(part.to(device)) for part in images.split(64)])
    probabilities, ids = logits.softmax(dim=1).cpu().sort(dim=1, descending=True)
    maps = torch.from_numpy(explanation.maps[:, 0].transpose(1, 0, 2, 3).copy())
    return list(maps[:, :, None]), probabilities, ids


def plot_gradcam(
    gcam_layers: Sequence[Tensor | np.ndarray],
    target_layers: Sequence[str],
    class_names: Sequence[str],
    image_size: tuple[int, int] | int,  # noqa: ARG001 - accepted as the original took it
    predicted: Sequence[int] | Tensor,  # noqa: ARG001
    misclassified_images: Mistakes,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Figure:
    """A column per mistake: the input, then each layer's map over it; captions say the actual and the predicted class.

    Both classes are read from the mistakes themselves; `predicted` and `image_size` are accepted as the original took them.
    """
    images, ids, actual = _columns(misclassified_images)
    layers = [np.asarray(layer) for layer in gcam_layers]  # (N, 1, H, W), or (N, H, W)
    maps = np.stack([layer.reshape(len(images), *layer.shape[-2:]) for layer in layers], axis=1)[:, None]
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


def _columns(mistakes: Mistakes) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Images (N, 3, H, W), predicted (N,), actual (N,). Raises `ValueError` where there is no mistake."""
    if not mistakes:
        raise ValueError("There are no mistakes to show; give at least one (image, actual, predicted).")
    named = [Mistake(*mistake) for mistake in mistakes]
    predicted, actual = ([int(getattr(mistake, name)) for mistake in named] for name in ("predicted", "actual"))
    return torch.stack([mistake.image for mistake in named]), np.array(predicted, np.int64), np.array(actual, np.int64)


def _shown(figure: Figure) -> Figure:
    """Show a figure in a notebook at once, wherever in a cell the call stands."""
    plots.show(figure)
    # where the call is a cell's last line, its value would be shown once more
    figure._ipython_display_ = lambda: None  # type: ignore[attr-defined]  # IPython looks for it on any object
    return figure
