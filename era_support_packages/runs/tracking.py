"""A tracker beside a run's own files: its rows, values and figures in TensorBoard, trackio or Weights & Biases.

A tracker decides nothing about a run: one that fails is named once, and the run goes on without it.
"""

import contextlib
import importlib
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from era_support_packages.evaluation.tables import print_wrapped
from era_support_packages.runs.folder import Run
from era_support_packages.runs.preparation import PreparedRun, Report
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.training.config import ConfigValues
from era_support_packages.training.history import EpochRecord

if TYPE_CHECKING:
    from typing_extensions import Self

FIGURES = ("lr_finder.png", "training_log.png", "incorrect_classification.png", "gradCAM.png")
"""what a tracker gets to see of a run's figures"""
PROJECT = "era_support_packages"
_OF_FIGURES = ".figures"  # how the names of event files with figures end
_STATE = "tracker.json"


class Session(Protocol):
    """One opening of a tracker for a run: what all of them can do. epochs: how many of the run's it has been handed."""

    epochs: int

    def log(self, values: Mapping[str, float | Path], epoch: int, when: float) -> None:
        """Numbers and files of pictures by name, as they were after that epoch; when: in seconds since 1970."""

    def finish(self) -> None:
        """Write what is left, and close."""


class Tracker:
    """The tracker that a configuration names, open for one run; without one all of it does nothing.

    figures: for the run's figures instead of its rows. Whatever the tracker raises, at once or at a later call, is reported in
    one sentence, and nothing more is asked of it.

    >>> from era_support_packages.runs import Tracker, prepare
    >>> from era_support_packages.training import EpochRecord
    >>> prepared = prepare("smoke", dataset="digits")  # with tracker="tensorboard" event files are written
    >>> row = dict(lr=0.01, train_loss=1.5, train_accuracy=42, test_loss=1.25, test_accuracy=51, test_correct=51, test_total=100)
    >>> with Tracker(prepared.run, prepared.config) as tracker:  # `train_in_folder` does this; with `fit`, its `keep` can
    ...     tracker.rows([EpochRecord(epoch=1, resolution=32, images=1000, seconds=3, **row)])
    >>> tracker.active
    False
    """

    def __init__(self, run: Run, config: ConfigValues, report: Report = print_wrapped, figures: bool = False) -> None:
        self._name, self._report = config.tracker, report
        self._session: Session | None = None
        if self._name == "tensorboard":
            self._guarded(lambda: self._open(_EventFiles(run, config, figures)))
        elif self._name is not None:
            self._guarded(lambda: self._open(_Hosted(str(self._name), run, config)))

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    @property
    def active(self) -> bool:
        """Whether there is a tracker and it works."""
        return self._session is not None

    def rows(self, records: Sequence[EpochRecord]) -> None:
        """Hand on what the tracker does not have yet of all the epochs so far."""
        if self._session is None:
            return
        now, first = time.time(), self._session.epochs
        for position in range(first, len(records)):
            since = sum(record.seconds for record in records[position + 1 :])
            self.log(scalars(records[position]), records[position].epoch, now - since)

    def log(self, values: Mapping[str, float | Path], epoch: int, when: float | None = None) -> None:
        """Hand on numbers and files of pictures by name."""
        if (session := self._session) is not None:
            self._guarded(lambda: session.log(values, epoch, time.time() if when is None else when))

    def finish(self) -> None:
        """Close the tracker."""
        session, self._session = self._session, None
        if session is not None:
            self._guarded(session.finish)

    def _open(self, session: Session) -> None:
        self._session = session

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is no result of a command
                act()
        except Exception as error:
            self._session = None  # not even closed: a writer whose thread has died may wait for it for ever
            said = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            self._report(
                f"Warning: the tracker {self._name!r} failed ({said[0].strip().rstrip('.')}): the run goes on without it, and "
                "its own files are whole."
            )


def scalars(record: EpochRecord) -> dict[str, float]:
    """The numbers of one epoch by the names that trackers show; accuracies in percent. What was not looked at is left out."""
    values = {
        "train/loss": record.train_loss,
        "train/accuracy": record.train_accuracy,
        "test/loss": record.test_loss,
        "test/accuracy": record.test_accuracy,
        "validation/loss": record.validation_loss,
        "validation/accuracy": record.validation_accuracy,
        "lr": record.lr,
        "px": record.resolution,
        "seconds": record.seconds,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def track_figures(prepared: PreparedRun, report: Report = print_wrapped) -> None:
    """Hand figures that lie in a run's folder to the tracker of its configuration: those of the range test, the log, the wrong
    predictions and their Grad-CAM maps. Without a tracker, and before an epoch is complete, nothing is done.

    >>> from era_support_packages.runs import prepare, track_figures
    >>> track_figures(prepare("smoke", dataset="digits"))  # with tracker="tensorboard" they would be in its tab of images
    """
    run, config = prepared.run, prepared.config
    pictures = {f"figures/{Path(name).stem}": run.folder / name for name in FIGURES if (run.folder / name).is_file()}
    if config.tracker is None or not pictures or not (run.folder / "summary.json").is_file():
        return
    if epochs := run.summary()["epochs"]:
        with Tracker(run, config, report, figures=True) as tracker:
            tracker.log(pictures, epochs)


class _EventFiles:
    """TensorBoard's event files in the run's folder. They are made again from the run's rows each time, as metrics.csv is: so no
    epoch stands in them twice, and those of a process that was killed are complete again.
    """

    def __init__(self, run: Run, config: ConfigValues, figures: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self.epochs = 0
        folder = run.folder / "tensorboard"
        before = list(folder.glob("events.out.tfevents.*"))
        self._writer = SummaryWriter(str(folder), filename_suffix=_OF_FIGURES if figures else "")
        for file in before:
            of_figures = file.name.endswith(_OF_FIGURES)
            if of_figures == figures or not (figures or run.finished):  # figures of a run that goes on are of its last stop
                file.unlink()
        if not figures:
            values = _plain(config)
            rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
            self._writer.add_text("configuration", f"| value | |\n|---|---|\n{rows}", 0)
            files: Any = self._writer.file_writer
            for part in hparams(values, {"test/accuracy": 0.0, "test/loss": 0.0}):  # which numbers belong to the values
                files.add_summary(part)
        self._writer.flush()

    def log(self, values: Mapping[str, float | Path], epoch: int, when: float) -> None:
        for name, value in values.items():
            if isinstance(value, Path):
                with Image.open(value) as picture:
                    self._writer.add_image(name, np.asarray(picture.convert("RGB")), epoch, when, dataformats="HWC")
            else:
                self._writer.add_scalar(name, value, epoch, when)
        self._writer.flush()
        self.epochs = max(self.epochs, epoch)

    def finish(self) -> None:
        self._writer.close()


class _Hosted:
    """A run of trackio or Weights & Biases. tracker.json keeps which one it is and how many epochs it has: a run that goes on
    finds it again, and hands on the rest.
    """

    def __init__(self, name: str, run: Run, config: ConfigValues) -> None:
        self._module, self._name, self._file = importlib.import_module(name), name, run.folder / _STATE
        kept = self._kept().get(name, {})
        self.epochs: int = kept.get("epochs", 0)
        if name == "wandb":
            self._run = self._module.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=run.name,
                id=kept.get("run", uuid.uuid4().hex[:12]),
                resume="allow",
                config=_plain(config),
                allow_val_change=True,  # the device, where the run goes on elsewhere
                dir=str(run.folder),
            )
            self._run.define_metric("*", step_metric="epoch")
            self._of_theirs = self._run.id
        else:
            again = "allow" if kept else "never"  # else it might be the run of that name of another folder
            name_there = kept.get("run", run.name)
            self._run = self._module.init(project=PROJECT, name=name_there, config=_plain(config), resume=again)
            self._of_theirs = self._run.name

    def log(self, values: Mapping[str, float | Path], epoch: int, when: float) -> None:
        shown: dict[str, Any] = {
            name: self._module.Image(str(value)) if isinstance(value, Path) else value for name, value in values.items()
        }
        if self._name == "wandb":
            self._run.log({**shown, "epoch": epoch})  # its own steps only grow, and figures take one too
        else:
            self._run.log(shown, step=epoch)
        self.epochs = max(self.epochs, epoch)
        state = {**self._kept(), self._name: {"run": self._of_theirs, "epochs": self.epochs}}
        write_atomically(self._file, (json.dumps(state, indent=2) + "\n").encode())

    def finish(self) -> None:
        self._run.finish()

    def _kept(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            return kept if isinstance(kept, dict) else {}
        return {}


def _plain(config: ConfigValues) -> dict[str, Any]:
    """The values of a configuration as trackers take them: numbers, truth values and texts; what is not given is left out."""
    return {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in config.to_dict().items()
        if value is not None
    }
