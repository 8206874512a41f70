"""Predictions of a whole split, computed once; everything asked of them afterwards is arithmetic."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import image_batches
from era_support_packages.datasets.streaming import Pixels, taken
from era_support_packages.evaluation.intervals import Interval, percent, share_interval
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.evaluation.sharing import shared_logits
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.system.machine import autocast
from era_support_packages.system.processes import ALONE, Processes


@dataclass(frozen=True, eq=False)
class Predictions(Readable):
    """A network's predictions of the images of a split, in file order.

    logits float32 (N, C); labels int64 (N,), or None where they are unknown; classes: C names.

    What needs the labels (`losses`, `correct`, `accuracy`, `wrong`, ...) raises `ValueError` where there are none.

    >>> import numpy as np
    >>> from era_support_packages import Predictions
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> said.predicted
    array([0, 1, 0, 1])
    >>> said.accuracy
    50.0
    >>> said.wrong()
    array([2, 1])
    >>> said.confusion_matrix()
    array([[1, 1],
           [1, 1]])
    """

    logits: np.ndarray
    labels: np.ndarray | None
    classes: tuple[str, ...]
    images: Pixels | None = None
    """uint8 (N, H, W, 3): the images themselves, not normalised, which figures show; None where only numbers are wanted"""

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def actual(self) -> np.ndarray:
        """The labels. Raises `ValueError` where there are none."""
        if self.labels is None:
            raise ValueError("These images have no labels, so nothing can be said of right and wrong; predict a labelled split.")
        return self.labels

    @property
    def pictures(self) -> Pixels:
        """The images. Raises `ValueError` where these predictions came without them."""
        if self.images is None:
            raise ValueError("These predictions hold no images to show; take those that Classifier.predict made.")
        return self.images

    def table(self) -> Table:
        """A row a class with its accuracy, all images below; where no labels are known, a row an image with its prediction."""
        if self.labels is None:
            columns: tuple[Column, ...] = (Column("image", "d"), Column("predicted"), Column("confidence", ".1f", factor=100))
            names = [self.classes[class_id] for class_id in self.predicted]
            said = tuple(zip(range(len(self)), names, self.confidences, strict=True))
            return Table(columns, said, "confidence: the probability of the predicted class, in percent.")
        columns = (Column("class"), Column("images", "d"), Column("right", "d"), Column("accuracy", ".1f", factor=100))
        sizes = np.bincount(self.labels, minlength=len(self.classes))
        right = np.bincount(self.labels[self.predicted == self.labels], minlength=len(self.classes))

        def row(name: str, hits: int, size: int) -> tuple[str, int, int, Interval | None]:
            return name, size, hits, share_interval(hits, size) if size else None

        rows = [row(*values) for values in zip(self.classes, right.tolist(), sizes.tolist(), strict=True)]
        footer = (row("all", self.correct, len(self)),)
        return Table(columns, tuple(rows), "accuracy: in percent, with its 95 % interval.", footer)

    def reading(self) -> str:
        """One sentence: how many are right; where no labels are known, how often each class is predicted."""
        if self.labels is not None:
            return f"{self.correct:,} of {len(self):,} images are classified correctly: {self.accuracy:.2f} %."
        if len(self) == 1:
            return f"The image is taken for {self.classes[self.predicted[0]]} ({percent(self.confidences[0])})."
        counts = np.bincount(self.predicted, minlength=len(self.classes))
        found = [f"{self.classes[index]} ({counts[index]:,})" for index in np.argsort(-counts, kind="stable") if counts[index]]
        return f"{len(self):,} images are taken for: {', '.join(found)}."

    def take(self, indices: np.ndarray) -> "Predictions":
        """The predictions of the images at `indices` (K,), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        images = None if self.images is None else taken(self.images, indices)
        return Predictions(self.logits[indices], labels, self.classes, images)

    def check(self) -> None:
        """Raise `ValueError` where there is nothing to analyse: no image, or logits that are not finite."""
        if len(self) == 0:
            raise ValueError("There are no predictions to analyse; at least one image is needed.")
        unusable = int((~np.isfinite(self.logits)).any(axis=1).sum())
        if unusable:
            raise ValueError(
                f"The logits of {unusable} of {len(self)} images are NaN or infinite, so the training diverged; "
                "train again at a lower learning rate."
            )

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        """Log-softmax of the logits, float64 (N, C)."""
        return log_softmax(self.logits.astype(np.float64), axis=1)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, float64 (N, C)."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The class with the highest logit, int64 (N,)."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @cached_property
    def confidences(self) -> np.ndarray:
        """The probability of the predicted class, float64 (N,) in [0, 1]."""
        return np.take_along_axis(self.probabilities, self.predicted[:, None], axis=1)[:, 0]

    @cached_property
    def losses(self) -> np.ndarray:
        """Cross entropy of each image in nats, without label smoothing, float64 (N,)."""
        return -np.take_along_axis(self.log_probabilities, self.actual[:, None], axis=1)[:, 0]

    @property
    def mean_loss(self) -> float:
        """The mean cross entropy over the images (not over batches)."""
        return float(self.losses.mean())

    @property
    def correct(self) -> int:
        """How many images are classified correctly."""
        return int((self.predicted == self.actual).sum())

    @property
    def accuracy(self) -> float:
        """Percent of images classified correctly."""
        return 100 * self.correct / len(self)

    def wrong(self, order: str = "loss") -> np.ndarray:
        """Positions of the misclassified images in these predictions, int64 (K,): highest loss first, or in "file" order.

        Raises `ValueError` for another order.
        """
        if order not in ("loss", "file"):
            raise ValueError(f"order is {order!r}; use 'loss' for the worst mistakes first, or 'file'.")
        indices = np.flatnonzero(self.predicted != self.actual)
        return indices[np.argsort(-self.losses[indices], kind="stable")] if order == "loss" else indices

    def top_losses(self, count: int) -> np.ndarray:
        """Indices of the `count` images with the highest loss, right or wrong, highest first, int64 (K,); all if fewer.

        Raises `ValueError` where `count` is below 1.
        """
        _check_count(count)
        return np.argsort(-self.losses, kind="stable")[:count]

    def hardest(self, count: int) -> np.ndarray:
        """Indices of `count` images to look at, int64 (K,), all if fewer: wrong ones, then right ones, each highest loss first.

        Raises `ValueError` where `count` is below 1.
        """
        _check_count(count)
        right = self.predicted == self.actual
        return np.lexsort((-self.losses, right))[:count]  # stable, as all orders here

    def hardest_title(self, indices: np.ndarray) -> str:
        """What images from `hardest` are, for a title: how many of them are wrong."""
        wrong = int((self.predicted[indices] != self.actual[indices]).sum())
        right = len(indices) - wrong
        if not right:
            return "Wrong predictions with the highest loss"
        rest = "the right one with the highest loss" if right == 1 else f"the {right} right ones with the highest loss"
        if not wrong:
            return f"No prediction is wrong: {rest}"
        return f"{wrong} wrong prediction{'s' * (wrong > 1)}, then {rest}"

    def rivals_title(self, indices: np.ndarray) -> str:
        """What the `rivals` of images are, for a title."""
        right = self.predicted[indices] == self.actual[indices]
        if right.all():
            return "the runner-up"
        return "the actual class" + (" or, where that is predicted, the runner-up" if right.any() else "")

    @cached_property
    def rivals(self) -> np.ndarray:
        """The class to hold the predicted one against, int64 (N,): the actual one, or the runner-up where that was predicted.

        The runner-up is the class with the second-highest logit; it is the rival where no labels are known too. Raises
        `ValueError` where there is only one class.
        """
        if len(self.classes) < 2:
            raise ValueError("There is only one class, so nothing else could have been predicted; at least 2 are needed.")
        others = self.logits.copy()
        np.put_along_axis(others, self.predicted[:, None], -np.inf, axis=1)
        runners_up = others.argmax(axis=1)
        return runners_up if self.labels is None else np.where(self.predicted == self.labels, runners_up, self.labels)

    def confusion_matrix(self) -> np.ndarray:
        """Counts, int64 (C, C): rows are actual classes, columns predicted ones."""
        from sklearn.metrics import confusion_matrix  # takes a second to import

        classes = np.arange(len(self.classes))
        if len(self) == 0:  # scikit-learn refuses these
            return np.zeros((len(classes), len(classes)), dtype=np.int64)
        return confusion_matrix(self.actual, self.predicted, labels=classes)

    def class_accuracies(self) -> np.ndarray:
        """Percent of each actual class that is classified correctly, float64 (C,); NaN for a class without images."""
        counts = self.confusion_matrix()
        with np.errstate(invalid="ignore"):
            return 100 * counts.diagonal() / counts.sum(axis=1)


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least 1 image.")


def predict(
    model: nn.Module,
    dataset: ImageDataset,
    device: torch.device,
    precision: str = "fp32",
    resolution: int | None = None,
    batch_size: int = 250,
    flip: bool = False,
    processes: Processes = ALONE,
) -> Predictions:
    """The model's predictions of every image of a data set, in evaluation mode, in file order.

    `flip` averages the logits of each image and of its mirror image (test-time augmentation). The training flag of each
    module is as before afterwards. Several `processes` share out the batches; each has all predictions afterwards.

    >>> import torch
    >>> from era_support_packages import ResNet18, load
    >>> from era_support_packages.evaluation import predict
    >>> _, test = load("digits")
    >>> said = predict(ResNet18(), test.take(range(8)), torch.device("cpu"), resolution=16)
    >>> said.logits.shape
    (8, 10)
    """

    def logits(part: ImageDataset) -> np.ndarray:
        return predicted_logits(model, image_batches(part, batch_size, device, resolution), device, precision, flip)

    if processes.count == 1:
        said = logits(dataset)
    else:
        said = shared_logits(len(dataset), batch_size, processes, lambda own: logits(dataset.take(own)))
    return Predictions(said, dataset.labels, dataset.classes, dataset.images)


def predicted_logits(
    model: nn.Module, batches: Iterable[Tensor], device: torch.device, precision: str = "fp32", flip: bool = False
) -> np.ndarray:
    """The model's logits float32 (N, C) of batches of normalised images, in evaluation mode; `flip` as for `predict`.

    What is read as logits is told in `outputs.LogitReader`: one output is two classes, of probabilities the logarithms are taken.
    """
    logits, read = [], LogitReader(model)
    dtype = next((weights.dtype for weights in model.parameters() if weights.is_floating_point()), torch.float32)
    with evaluation_mode(model), torch.inference_mode(), autocast(device, precision):
        for batch in batches:
            images = batch.to(dtype)
            output = read(images).float()
            if flip:
                output = (output + read(images.flip(3)).float()) / 2
            logits.append(output.cpu())
    read.warn_of_shares()
    return torch.cat(logits).numpy()


def logits_problem(logits: np.ndarray, classes: int) -> str:
    """Why logits (N, C) say nothing of so many classes: "" where they do."""
    if logits.shape[1] != classes:
        return f"the network has {logits.shape[1]} outputs for {classes} class names; give one each."
    if not np.isfinite(logits).all():
        return "the network's logits are NaN or infinite, so nothing can be predicted; check its weights."
    return ""
