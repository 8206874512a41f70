"""What a training run leaves behind: one row an epoch, and the whole as a value."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.training.config import ResolvedConfig


@dataclass(frozen=True)
class EpochRecord:
    """One row of the log. Accuracies in percent; the training loss includes label smoothing, the test loss does not.

    >>> from era_support_packages.training import EpochRecord
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> record = EpochRecord(epoch=1, resolution=32, images=1000, seconds=3, **row)
    >>> record.test_accuracy
    51
    """

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
class History(Readable):
    """A run: its rows, the configuration it ran with, and the predictions of the whole test split.

    `planned` is the number of epochs the run was to have. One that was stopped before has fewer rows, and no predictions until
    somebody makes them.

    >>> from era_support_packages import TrainingConfig
    >>> from era_support_packages.training import EpochRecord, History
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> record = EpochRecord(epoch=1, resolution=32, images=1000, seconds=3, **row)
    >>> history = History((record,), TrainingConfig.preset("cpu"), None, planned=5)  # as `fit` makes one
    >>> print(history.reading())
    It was stopped after 1 of 5 epochs in 3.0 s.
    """

    records: tuple[EpochRecord, ...]
    config: ResolvedConfig
    predictions: Predictions | None
    planned: int

    @property
    def final_predictions(self) -> Predictions:
        """The predictions. Raises `ValueError` for a run that was stopped before it made them."""
        if self.predictions is None:
            raise ValueError(
                f"this run was stopped after {len(self.records)} of {self.planned} epochs, so it has no predictions; finish it, "
                "or give it those that Classifier.predict makes: dataclasses.replace(history, predictions=...)."
            )
        return self.predictions

    @property
    def seconds(self) -> float:
        """Training and evaluation time of all epochs."""
        return sum(record.seconds for record in self.records)

    @property
    def resolution(self) -> int:
        """The px at which the last complete epoch was trained and tested: what the network is used to."""
        return self.records[-1].resolution

    @property
    def complete(self) -> bool:
        """Whether the run reached its last epoch."""
        return len(self.records) == self.planned

    @property
    def stopped(self) -> str:
        """For the title of a figure: "" for a complete run, else ", stopped after epoch 3 of 8"."""
        return "" if self.complete else f", stopped after epoch {len(self.records)} of {self.planned}"

    def table(self) -> Table:
        """A row an epoch: what the log shows."""
        columns = (
            Column("epoch", "d"),
            Column("px", "d"),
            Column("lr", ".6f"),
            Column("train loss", ".4f"),
            Column("train accuracy", ".2f"),
            Column("test loss", ".4f"),
            Column("test images", "d"),
            Column("test accuracy", ".2f"),
            Column("seconds", ".1f"),
        )
        rows = tuple(
            (r.epoch, r.resolution, r.lr, r.train_loss, r.train_accuracy, r.test_loss, r.test_total, r.test_accuracy, r.seconds)
            for r in self.records
        )
        return Table(columns, rows, "Accuracies in percent; the training loss includes label smoothing, the test loss does not.")

    def reading(self) -> str:
        """One or two sentences: how far the run came, and what the network gets right then."""
        count = f"{len(self.records)} epoch{'s' * (len(self.records) != 1)}"
        done = count if self.complete else f"It was stopped after {len(self.records)} of {self.planned} epochs"
        text = f"{done} in {self.seconds:.1f} s." if self.records else "No epoch of the run is complete."
        return text if self.predictions is None else f"{text} {self.predictions.reading()}"


class Trained(NamedTuple):
    """What training returns: the `Classifier`, and the `History` of its training.

    >>> from torch import nn
    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import fit, resolve
    >>> train, test = load("digits")
    >>> config = resolve(TrainingConfig.preset("smoke"), train)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))  # of images of 16 px
    >>> trained = fit(network, train, test, config, report=lambda line: None)
    >>> trained.classifier.resolution, trained.history.complete
    (16, True)
    """

    classifier: Classifier
    history: History


def trained(network: nn.Module, split: ImageDataset, history: History, precision: str | None = None) -> Trained:
    """A network with its history, of at least one epoch, and with the class names and statistics of its data.

    precision: of its forward passes from now on; None is that of the training.
    """
    precision = precision or history.config.precision
    values = (split.classes, split.mean, split.std, history.resolution, precision, history.config.model, split.bits)
    classifier = Classifier(network, *values)
    return Trained(classifier, history)


_COLUMNS = "{:>5}  {:>3}  {:>9}  {:>10}  {:>9}  {:>9}  {:>13}  {:>8}  {:>7}"


def log_header() -> str:
    """The heading of the log's fixed-width columns.

    >>> from era_support_packages.training import log_header
    >>> print(log_header())
    epoch   px         lr  train loss  train acc  test loss  correct/total  test acc  seconds
    """
    return _COLUMNS.format("epoch", "px", "lr", "train loss", "train acc", "test loss", "correct/total", "test acc", "seconds")


def log_row(record: EpochRecord) -> str:
    """One epoch as a fixed-width row under `log_header`.

    >>> from era_support_packages.training import EpochRecord, log_row
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> record = EpochRecord(epoch=1, resolution=32, images=1000, seconds=3, **row)
    >>> print(log_row(record))
        1   32   0.010000      1.5000    42.00 %     1.2500         51/100   51.00 %      3.0
    """
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
