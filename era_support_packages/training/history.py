"""What a training run leaves behind: one row an epoch, and the whole as a value."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.models.catalog import name_of
from era_support_packages.training.config import ResolvedConfig


class Scores(NamedTuple):
    """What came out on one split: the mean loss without label smoothing, the accuracy in percent, and how many of how many."""

    loss: float
    accuracy: float
    correct: int
    total: int


@dataclass(frozen=True)
class EpochRecord:
    """One row of the log. Accuracies in percent; the training loss includes label smoothing, the others do not.

    With a validation split that is what is looked at after each epoch, and the test values are None but in the last row, and
    there too with `final_test=False`.

    >>> from era_support_packages.training import EpochRecord
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> record = EpochRecord(epoch=1, resolution=32, images=1000, seconds=3, **row)
    >>> record.test_accuracy
    51
    """

    epoch: int
    resolution: int  # px of all images
    images: int  # training images shown
    lr: float  # learning rate of the last step
    train_loss: float
    train_accuracy: float  # on augmented images, while training
    test_loss: float | None
    test_accuracy: float | None
    test_correct: int | None
    test_total: int | None
    seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_correct: int | None = None
    validation_total: int | None = None

    @property
    def watched(self) -> str:
        """The split that was looked at after each epoch: "validation" where there is one, else "test"."""
        return "test" if self.validation_total is None else "validation"

    def scores(self, split: str) -> Scores | None:
        """What came out on the "test" or the "validation" split; None where that was not looked at."""
        values = [getattr(self, f"{split}_{name}") for name in Scores._fields]
        return None if None in values else Scores(*values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name; without those of a validation split where there is none, as before there could be one."""
        values = asdict(self)
        return {name: value for name, value in values.items() if value is not None or not name.startswith("validation")}


@dataclass(frozen=True, eq=False)
class History(Readable):
    """A run: its rows, the configuration it ran with, and the predictions of the whole split that it is judged on.

    `planned` is the number of epochs the run was to have. One that was stopped before has fewer rows, and no predictions until
    somebody makes them: of the test split, or where images are held out for validation, of those.

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
                f"This run was stopped after {len(self.records)} of {self.planned} epochs, so it has no predictions; finish it, "
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

    @property
    def watched(self) -> str:
        """The split that was looked at after each epoch, "test" or "validation"."""
        return _watched(self.records)

    @property
    def judged(self) -> str:
        """The split that `predictions` are of: "test", or "validation" for a run with one that never came to its test split."""
        return "test" if self.complete and self.config.final_test else self.watched

    @property
    def choice(self) -> str:
        """One sentence: by which images a choice between values was made, and what that does to the figures at the end."""
        if self.watched == "test":
            return (
                "These figures were also looked at on the way: where values were chosen by the test rows of the log, they are a "
                "little too good (validation = 0.1 holds out training images to choose by)."
            )
        held_out = f"the validation images, held out of the training images (validation = {self.config.validation:g})"
        if not self.config.final_test:
            return f"These figures are those of {held_out}: the test split is left unread (final_test = False)."
        if not self.complete:
            return f"These figures are those of {held_out}: the test split is not looked at before the last epoch."
        return (
            f"The log shows {held_out}: a choice by its rows leaves the test split alone, which was looked at once, at the end."
        )

    def table(self) -> Table:
        """A row an epoch: what the log shows."""
        split, end = self.watched, result_line(self.records)
        columns = (
            Column("epoch", "d"),
            Column("px", "d"),
            Column("lr", ".6f"),
            Column("train loss", ".4f"),
            Column("train accuracy", ".2f"),
            Column(f"{split} loss", ".4f"),
            Column(f"{split} images", "d"),
            Column(f"{split} accuracy", ".2f"),
            Column("seconds", ".1f"),
        )
        rows = tuple(
            (r.epoch, r.resolution, r.lr, r.train_loss, r.train_accuracy, seen.loss, seen.total, seen.accuracy, r.seconds)
            for r, seen in ((record, _seen(record)) for record in self.records)
        )
        caption = f"Accuracies in percent; the training loss includes label smoothing, the {split} loss does not."
        return Table(columns, rows, f"{caption} {end}" if end else caption)

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


def trained(network: nn.Module, train: ImageDataset, history: History, precision: str | None = None) -> Trained:
    """A network with its history, of at least one epoch, and with the class names and statistics of its training images.

    It has the name of its configuration only where that name would make it again. precision: of its forward passes from now on;
    None is that of the training.
    """
    precision = precision or history.config.precision
    name = name_of(network, history.config.model, len(train.classes), history.config.resolutions[-1][0])
    values = (train.classes, train.mean, train.std, history.resolution, precision, name, train.bits)
    classifier = Classifier(network, *values, image_size=train.image_size, fit=train.fit)
    return Trained(classifier, history)


_COLUMNS = "{:>5}  {:>3}  {:>9}  {:>10}  {:>9}  {:>9}  {:>13}  {:>8}  {:>7}"


def log_header(split: str = "test") -> str:
    """The heading of the log's fixed-width columns, for the split that is looked at after each epoch, "test" or "validation".

    >>> from era_support_packages.training import log_header
    >>> print(log_header())
    epoch   px         lr  train loss  train acc  test loss  correct/total  test acc  seconds
    >>> print(log_header("validation"))
    epoch   px         lr  train loss  train acc   val loss  correct/total   val acc  seconds
    """
    short = "val" if split == "validation" else split
    return _COLUMNS.format(
        "epoch", "px", "lr", "train loss", "train acc", f"{short} loss", "correct/total", f"{short} acc", "seconds"
    )


def log_row(record: EpochRecord) -> str:
    """One epoch as a fixed-width row under `log_header` of the split that was looked at.

    >>> from era_support_packages.training import EpochRecord, log_row
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> record = EpochRecord(epoch=1, resolution=32, images=1000, seconds=3, **row)
    >>> print(log_row(record))
        1   32   0.010000      1.5000    42.00 %     1.2500         51/100   51.00 %      3.0
    """
    seen = _seen(record)
    return _COLUMNS.format(
        record.epoch,
        record.resolution,
        f"{record.lr:.6f}",
        f"{record.train_loss:.4f}",
        f"{record.train_accuracy:.2f} %",
        f"{seen.loss:.4f}",
        f"{seen.correct}/{seen.total}",
        f"{seen.accuracy:.2f} %",
        f"{record.seconds:.1f}",
    )


def result_line(records: Sequence[EpochRecord]) -> str:
    """What came out on the test split at the end of a run that was watched on a validation split; "" for any other."""
    found = records[-1].scores("test") if _watched(records) == "validation" else None
    if found is None:
        return ""
    right = f"{found.correct}/{found.total} right, {found.accuracy:.2f} %"
    return f"Test split, looked at once, at the end: loss {found.loss:.4f}, {right}."


def log_lines(records: Sequence[EpochRecord], split: str | None = None) -> list[str]:
    """The log so far: heading, rows, and for a run that is complete the line about its test split, where that is not in the rows.

    split: what is looked at after each epoch; None takes it from the rows.
    """
    end = result_line(records)
    return [log_header(split or _watched(records)), *map(log_row, records), *([end] if end else [])]


def _watched(records: Sequence[EpochRecord]) -> str:
    return records[-1].watched if records else "test"


def _seen(record: EpochRecord) -> Scores:
    """What the log shows of an epoch."""
    found = record.scores(record.watched)
    if found is None:
        raise ValueError(f"The record of epoch {record.epoch} has the values of no split; it is none that training made.")
    return found
