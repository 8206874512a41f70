"""A run's folder and what is written into it."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from torch import nn

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.image_dataset import ImageDataset, fingerprint_of
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.models.classifier_file import complete
from era_support_packages.runs.finished import check_finished, is_finished, summary
from era_support_packages.runs.metrics import as_csv
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.locks import file_lock
from era_support_packages.system.machine import describe, versions
from era_support_packages.system.paths import expanded
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.tensor_file import read_tensors
from era_support_packages.training.adapting import start_in_words
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import PreparedConfig, TrainingConfig
from era_support_packages.training.history import EpochRecord, History
from era_support_packages.training.lr_finder import RangeTest
from era_support_packages.training.lr_trials import Trials
from era_support_packages.training.resolution import stored_config


class RunError(PlainError, ValueError):
    """A run's folder that cannot be used as asked; the message says why and what to do."""


class RunBusyError(RunError):
    """Another process trains into the folder now."""


@dataclass(frozen=True)
class Run:
    """The folder of one run: config.json, data.json, range_test.json, metrics.csv, summary.json, checkpoint.pt, the figures.

    >>> from era_support_packages.runs import prepare
    >>> run = prepare("smoke", dataset="digits").run  # a finished one: Run.open("runs/NAME")
    >>> run.finished, run.config().max_lr
    (False, 0.01)
    """

    folder: Path

    @classmethod
    def create(cls, asked: TrainingConfig, dataset: str, config: PreparedConfig, data: DataFingerprint | None = None) -> "Run":
        """A new folder below `output_dir`; one that is already there is left alone.

        The name is `run_name` or follows from what was asked for; a name that is taken gets "-2", "-3", and so on. What is
        written into it is `config`, what the machine and the data made of it, and the fingerprint of its data where given.
        Raises `RunError` where nothing can be written there.
        """
        name = asked.run_name or asked.default_run_name(dataset)
        root, number = expanded(asked.output_dir), 1
        try:
            root.mkdir(parents=True, exist_ok=True)
            while True:
                folder = root / (name if number == 1 else f"{name}-{number}")
                if not folder.exists():
                    with contextlib.suppress(FileExistsError):  # another process was faster
                        folder.mkdir()
                        break
                number += 1
            run = cls(folder)
            run.write_config(config)
            if data is not None:
                run.write_data(data)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"output_dir {str(root)!r} cannot be used ({reason}): give a folder that can be written.") from None
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """A finished run. Raises `FileNotFoundError` where the folder holds none."""
        run = cls(expanded(folder))
        check_finished(run.folder)
        return run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether the run is complete."""
        return is_finished(self.folder)

    def is_empty(self) -> bool:
        """Whether nothing is in the folder, hidden files aside."""
        return self.folder.is_dir() and all(path.name.startswith(".") for path in self.folder.iterdir())

    @property
    def checkpoint_file(self) -> Path:
        """The state after the last complete epoch; absent before the first is."""
        return self.folder / "checkpoint.pt"

    def listing(self) -> str:
        """Where the files are: the folder, which may be long, in a line of its own, then one line a file with its size."""
        files = sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))
        width = max((len(path.name) for path in files), default=0)
        lines = [f"  {path.name:<{width}}  {max(1, path.stat().st_size // 1024):>6} KiB" for path in files]
        return "\n".join(["Everything is in", str(self.folder), *lines])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process at a time trains into the folder (where the file system knows locks).

        Raises `RunBusyError` while another one does, and `RunError` for a folder that cannot be written.
        """
        lock = file_lock(self.folder / ".lock")
        try:
            lock.acquire()
        except Timeout:
            raise RunBusyError(
                f"{self.folder} is being trained by another process: wait until it is done, give another run_name, or set "
                "resume=False to train in a new folder."
            ) from None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise RunError(
                    f"{self.folder} cannot be written ({error.strerror}): give another run_name, or set resume=False to train "
                    "in a new folder."
                ) from None  # any other: no locks there, as on some mounted drives
        try:
            yield
        finally:
            # The file goes while it is held: who waits for it sees that, and takes a new one.
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)
            lock.release()

    # ---- files -------------------------------------------------------------------------------------------------------

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """A JSON file in the run's folder."""
        write_atomically(self.folder / name, (json.dumps(values, indent=2) + "\n").encode())

    def write_config(self, config: PreparedConfig) -> None:
        """config.json: the configuration."""
        self.write_json("config.json", config.to_dict())

    def config(self) -> PreparedConfig:
        """The configuration that the run was made with. Raises `RunError` where config.json is missing or is none."""
        try:
            return stored_config(json.loads((self.folder / "config.json").read_text()))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.folder} is there, but its config.json cannot be used ({error}): move the folder away, give another "
                "run_name, or set resume=False to train in a new folder."
            ) from None

    def write_data(self, data: DataFingerprint) -> None:
        """data.json: the fingerprint of the data."""
        self.write_json("data.json", data.to_dict())

    def data(self) -> DataFingerprint | None:
        """The fingerprint of the data that the run is trained on; None where an earlier version began it, which kept none."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            return DataFingerprint.from_dict(json.loads((self.folder / "data.json").read_text()))
        with contextlib.suppress(OSError, CheckpointError):  # that one is named where it is read for more than this
            if (kept := Checkpoint.load(self.checkpoint_file).data) is not None:
                return DataFingerprint.from_dict(kept)
        return None

    def write_range_test(self, result: RangeTest, used: bool) -> None:
        """range_test.json: the curve and its suggestions; `used` says whether `max_lr` came from it."""
        curve = {name: getattr(result, name).tolist() for name in ("lrs", "losses", "smoothed")}
        found: dict[str, Any] = {}
        if result.trials is not None:
            found["trials"] = result.trials.to_dict()
        if result.too_short:
            found |= {"too_short": True, "preset_rate": result.preset_rate}
        self.write_json("range_test.json", {"used": used, "suggestions": result.suggestions, **found, **curve})

    def range_test(self) -> tuple[RangeTest, bool] | None:
        """The range test that was made for the run, and whether `max_lr` came from it; None where there was none."""
        try:
            values = json.loads((self.folder / "range_test.json").read_text())
            lrs, losses, smoothed = (np.array(values[name], dtype=np.float64) for name in ("lrs", "losses", "smoothed"))
            trials = Trials.from_dict(values["trials"]) if values.get("trials") else None  # older files have none
            short, rate = values.get("too_short", False), values.get("preset_rate")
            return RangeTest(lrs, losses, smoothed, values["suggestions"], trials, short, rate), values["used"]
        except (OSError, ValueError, KeyError, TypeError):  # absent or broken: it can be made again
            return None

    def range_test_batches(self) -> int:
        """Training steps of the range test that `max_lr` came from, its trials included; 0 where it was given."""
        result, used = self.range_test() or (None, False)
        trials = None if result is None else result.trials
        return 0 if result is None or not used else len(result.losses) + (0 if trials is None else trials.steps)

    def write_metrics(self, records: Sequence[EpochRecord]) -> None:
        """metrics.csv: one row an epoch, accuracies in percent."""
        write_atomically(self.folder / "metrics.csv", as_csv(records))

    def write_summary(
        self,
        records: Sequence[EpochRecord],
        config: PreparedConfig,
        dataset: str,
        flops: int,
        complete: bool = True,
        test_accuracy_tta: float | None = None,
        temperature: float | None = None,
        images: Mapping[str, int] | None = None,
        processes: int = 1,
    ) -> dict[str, Any]:
        """summary.json: what was run, where, and what came out; accuracies in percent at the last epoch, time in seconds.

        A run that is not complete has no test accuracy: only part of the test split may have been looked at. One with images held
        out for validation also has what came out on these. temperature: what divides logits for calibrated confidences.
        """
        values = {
            "dataset": dataset,
            "preset": config.preset_name,
            "complete": complete,
            "epochs": len(records),
            "test_accuracy": records[-1].test_accuracy if complete else None,
            "test_accuracy_tta": test_accuracy_tta,
            "temperature": temperature,
            "start": start_in_words(config.to_dict()),
            "pflops": flops / 1e15,
            "seconds": sum(record.seconds for record in records),
            "seed": config.seed,
            "versions": versions(),
            "hardware": describe(torch.device(config.device)),
            "processes": processes,
            "data": data.digest if (data := self.data()) is not None else None,
        }
        if images is not None:
            held_out = records[-1].scores("validation") if complete else None
            values |= {"validation": config.validation, "images": dict(images)}
            values |= {f"validation_{name}": held_out and getattr(held_out, name) for name in ("loss", "accuracy")}
        self.write_json("summary.json", values)
        return values

    def summary(self) -> dict[str, Any]:
        """The contents of summary.json."""
        return summary(self.folder)

    def complete_epochs(self) -> int:
        """How many epochs the checkpoint holds, 0 without one. Raises `CheckpointError` for a broken one."""
        return len(Checkpoint.load(self.checkpoint_file).records) if self.checkpoint_file.exists() else 0

    def checkpoint(self, model: nn.Module, test: ImageDataset) -> Checkpoint | None:
        """The state after the last complete epoch, None before the first is.

        Raises `CheckpointError` for a broken file, and where it belongs to another network or another test split.
        """
        if not self.checkpoint_file.exists():
            return None
        checkpoint = Checkpoint.load(self.checkpoint_file)
        logits = checkpoint.logits
        if checkpoint.data is not None:
            changes = fingerprint_of(test).changes(DataFingerprint.from_dict(checkpoint.data).test, "test")
            if changes:
                raise CheckpointError(
                    f"{self.folder} was trained on other data than is loaded: {', '.join(changes)}. Give the data "
                    "that it was trained on, or set resume=False to train in a new folder."
                )
        elif logits is not None and logits.shape != (len(test), len(test.classes)):
            raise CheckpointError(
                f"{self.folder} was tested on {len(logits)} images of {logits.shape[1]} classes, but the data set has "
                f"{len(test)} of {len(test.classes)}; give that data again, or set resume=False to train in a new folder."
            )
        checkpoint.check_network(model, self.checkpoint_file)
        return checkpoint

    def load(self, model: nn.Module, test: ImageDataset, validation: ImageDataset | None = None) -> History:
        """Put a finished run's weights into the model; returns its history with the predictions it ended with.

        A checkpoint of an earlier version is completed with the class names and statistics of the data set.

        Raises `CheckpointError` as `checkpoint` does, and `RunError` where the run is not finished; the model is as before then.
        """
        checkpoint = self.checkpoint(model, test)
        if checkpoint is None or checkpoint.logits is None:
            raise RunError(f"{self.folder} holds no finished run: run it again with the same values to finish it.")
        if checkpoint.classifier is None:
            complete(self.checkpoint_file, read_tensors(self.checkpoint_file), test)
        model.load_state_dict(checkpoint.model)
        judged = test if checkpoint.config.final_test or validation is None else validation
        predictions = Predictions(checkpoint.logits.numpy(), judged.labels, judged.classes, judged.images)
        return History(checkpoint.records, checkpoint.config, predictions, checkpoint.planned)
