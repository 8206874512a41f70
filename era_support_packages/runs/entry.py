"""One run of a list: what its small files say, read without PyTorch and without its weights."""

import contextlib
import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import Timeout

from era_support_packages.runs.finished import summary
from era_support_packages.system.locks import file_lock
from era_support_packages.system.settings import is_number
from era_support_packages.training.adapting import PRESET_SIZE, is_built_in, usual
from era_support_packages.training.config import TrainingConfig

COMPLETE, STOPPED, TRAINING, UNREADABLE = "complete", "stopped", "being trained", "unreadable"
PRUNED = "pruned by a search"
PRUNED_FILE = "pruned.json"  # in the folder of a run that a search gave up
_OWN_COLUMNS = ("preset_name", "dataset", "seed")
_OF_THE_MACHINE = (
    *("run_name", "output_dir", "device", "precision", "engine", "stream", "workers", "threads", "cuda_graph"),
    *("skip_broken", "tracker"),
)


@dataclass(frozen=True)
class RunEntry:
    """One run of a list: what its config.json and summary.json say, without its weights.

    changed: what differs from its preset, seed, data and machine aside. test_accuracy, validation_accuracy: in percent, None
    where there is none yet. seconds: of training and evaluation. size: bytes of all its files. modified: of its newest record,
    in seconds since 1970. problem: why it is unreadable, else "".

    >>> from era_support_packages.runs import list_runs, prepare
    >>> _ = prepare("smoke", dataset="digits", epochs=3)  # not trained yet
    >>> run = list_runs("runs").entries[0]
    >>> run.state, run.changed
    ('stopped', {'epochs': 3})
    """

    folder: Path
    state: str
    modified: float
    size: int
    problem: str = ""
    preset: str = ""
    dataset: str = ""
    seed: int = 0
    changed: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 0
    test_accuracy: float | None = None
    validation_accuracy: float | None = None
    seconds: float | None = None
    pflops: float | None = None
    data: str | None = None
    """digest of its data's fingerprint, None where nobody kept one"""
    path: str = ""
    """its data as it was asked for: a name or a folder"""
    validation: float = 0.0
    """share of the training images held out, by the run's seed"""

    @property
    def judged_by(self) -> str:
        """The split whose accuracy it is judged by: "validation" where images were held out for that, else "test"."""
        return "test" if self.validation_accuracy is None else "validation"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps; the date as in ISO 8601."""
        values = {name: getattr(self, name) for name in ("name", "state", "preset", "dataset", "seed")}
        values |= {"changed": dict(self.changed), "epochs": self.epochs, "test_accuracy": self.test_accuracy}
        values |= {"validation_accuracy": self.validation_accuracy, "seconds": self.seconds, "pflops": self.pflops}
        date = datetime.fromtimestamp(self.modified).isoformat(timespec="seconds")
        return {**values, "bytes": self.size, "date": date, "folder": str(self.folder), "problem": self.problem}


def read_entry(folder: Path) -> RunEntry:
    """The run in a folder with a config.json; broken files make it unreadable, they raise nothing."""
    modified = max(_time(folder / name) for name in ("config.json", "metrics.csv", "summary.json"))
    size = sum(_size(os.path.join(inside, name)) for inside, _, names in os.walk(folder) for name in names)
    try:
        config = TrainingConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return RunEntry(folder, UNREADABLE, modified, size, problem=f"config.json cannot be used ({error})")
    found = RunEntry(
        folder,
        TRAINING if is_locked(folder) else PRUNED if (folder / PRUNED_FILE).is_file() else STOPPED,
        modified,
        size,
        preset=config.preset_name,
        dataset=_data_name(folder, config),
        seed=config.seed,
        changed=changed_values(config, folder),
        epochs=_rows(folder),
        path=config.dataset,
        validation=config.validation,
    )
    try:
        said = summary(folder)
        if not isinstance(said, dict):
            raise ValueError("summary.json is no table.")
        complete = bool(said.get("complete", True))
        names = ("test_accuracy", "validation_accuracy", "seconds", "pflops")
        data = said.get("data")
        numbers: dict[str, Any] = {name: _number(said.get(name)) for name in names}
    except FileNotFoundError:  # it was stopped before its end, hard
        return found
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return replace(found, state=UNREADABLE, problem=f"summary.json cannot be used ({error})")
    state = COMPLETE if complete and found.state != TRAINING else found.state
    if state == COMPLETE and not (folder / "checkpoint.pt").is_file():
        return replace(found, state=UNREADABLE, problem="checkpoint.pt is missing", **numbers)
    return replace(found, state=state, data=data if isinstance(data, str) else None, **numbers)


def changed_values(config: TrainingConfig, folder: Path) -> dict[str, Any]:
    """What a run has otherwise than its preset, without seed, data, what only the machine decides, and what "auto" became.

    Of a folder of images nobody can tell whether "auto" chose the image size: it is named.
    """
    preset, values = TrainingConfig.preset(config.preset_name).to_dict(), config.to_dict()
    preset = usual(preset, values)
    if values["fit"] != "auto":  # what wrote the file knew of it, so that "squash" was asked for
        preset |= {"fit": "crop", "image_size": PRESET_SIZE if is_built_in(values) else None}
    if preset["max_lr"] == "auto" and values["max_lr"] != "auto" and not _range_test_was_used(folder):
        preset["max_lr"] = None
    left_out = {*_OWN_COLUMNS, *_OF_THE_MACHINE}
    return {
        name: value
        for name, value in values.items()
        if name not in left_out and value is not None and preset[name] not in ("auto", value)
    }


def values_text(values: Mapping[str, Any], most: int | None = None) -> str:
    """Names and values in a line: "max_lr 0.1, epochs 3"; of more than `most` the first, and how many more there are."""
    texts = [f"{name} {value_text(value)}" for name, value in values.items()]
    if most is not None and len(texts) > most:
        texts[most - 1 :] = [f"{len(texts) - most + 1} more"]
    return ", ".join(texts)


def value_text(value: Any) -> str:
    """A value of a configuration as it is shown: 0.1, and not 0.10000000000000001."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_locked(folder: Path) -> bool:
    """Whether another process trains into the folder now, where the file system knows locks."""
    if not (folder / ".lock").exists():
        return False
    lock = file_lock(folder / ".lock")
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # it may not be written, or there are no locks
        return False
    lock.release()
    return False


def _data_name(folder: Path, config: TrainingConfig) -> str:
    """The short name of a run's data: as its fingerprint has it, else the last part of its path."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((folder / "data.json").read_text(encoding="utf-8"))["name"])
    return Path(config.dataset).name


def _range_test_was_used(folder: Path) -> bool:
    """Whether the range test of a run gave its peak rate."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return bool(json.loads((folder / "range_test.json").read_text(encoding="utf-8"))["used"])
    return False


def _rows(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError, csv.Error):
        return sum(1 for _ in csv.DictReader((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()))
    return 0


def _number(value: Any) -> float | None:
    return float(value) if is_number(value, whole=False) else None


def _size(file: str) -> int:
    """Bytes of a file; 0 for a temporary one that is gone by now, as the run is being written."""
    with contextlib.suppress(OSError):
        return os.stat(file).st_size
    return 0


def _time(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
