"""What runs there are: read from their folders' small files, without PyTorch, and shown as a table."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.runs.entry import COMPLETE, PRUNED, STOPPED, TRAINING, UNREADABLE, RunEntry, read_entry, values_text
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.paths import expanded
from era_support_packages.system.plain_error import PlainError
from era_support_packages.training.adapting import is_built_in
from era_support_packages.training.config import TrainingConfig

_MOST_NAMED = 5  # folders left out, in a sentence
_MOST_VALUES = 4  # of a run, in the table


class ListingError(PlainError, ValueError):
    """Runs that cannot be listed, sorted or found as asked; the message says why and what to do."""


_KEYS: dict[str, Callable[[RunEntry], Any]] = {
    "name": lambda run: run.name,
    "preset": lambda run: run.preset,
    "data": lambda run: run.dataset,
    "seed": lambda run: run.seed,
    "validation": lambda run: run.validation_accuracy,
    "test": lambda run: run.test_accuracy,
    "time": lambda run: run.seconds,
    "PFLOP": lambda run: run.pflops,
    "size": lambda run: run.size,
    "date": lambda run: run.modified,
    "state": lambda run: run.state,
}
SORT_KEYS = tuple(_KEYS)


@dataclass(frozen=True, eq=False)
class RunList(Readable):
    """The runs of a folder, and the names of the folders in it that hold none.

    >>> from era_support_packages.runs import list_runs, prepare, train_prepared
    >>> prepared = prepare("smoke", dataset="digits", train_images=8, batch_size=4, resolutions=((8, 1.0),))
    >>> _ = train_prepared(prepared, report=lambda line: None)
    >>> runs = list_runs("runs")
    >>> [(run.preset, run.state, run.changed["train_images"]) for run in runs.entries]
    [('smoke', 'complete', 8)]
    """

    root: Path
    entries: tuple[RunEntry, ...]
    strangers: tuple[str, ...] = ()
    asked: str = ""
    """the values of `where`, in words"""
    total: int = 0
    """with `asked`: how many runs there were to choose from"""

    def __len__(self) -> int:
        return len(self.entries)

    def table(self) -> Table:
        """A row a run."""
        columns = (
            Column("run"),
            Column("data"),
            Column("seed", "d"),
            Column("validation %", ".2f"),
            Column("test %", ".2f"),
            Column("seconds", ".0f"),
            Column("PFLOP", ".4g"),
            Column("MiB", ".1f"),
            Column("date"),
            Column("state"),
            Column("changed"),
        )
        rows = tuple(
            (
                run.name,
                run.dataset,
                run.seed if not run.problem else None,
                run.validation_accuracy,
                run.test_accuracy,
                run.seconds,
                run.pflops,
                run.size / 2**20,
                datetime.fromtimestamp(run.modified).strftime("%Y-%m-%d"),
                run.state,
                run.problem or values_text(run.changed, _MOST_VALUES) or "nothing",
            )
            for run in self.entries
        )
        shown = [
            i for i, column in enumerate(columns) if column.name != "validation %" or any(row[i] is not None for row in rows)
        ]
        caption = "changed: the values that differ from the preset; accuracies in percent, after the last epoch."
        return Table(tuple(columns[i] for i in shown), tuple(tuple(row[i] for i in shown) for row in rows), caption)

    def reading(self) -> str:
        """How many runs of each state there are, and what else lies in the folder."""
        states = (COMPLETE, STOPPED, PRUNED, TRAINING, UNREADABLE)
        counts = {state: sum(run.state == state for run in self.entries) for state in states}
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        count = f"{len(self)} run{'s' * (len(self) != 1)}"
        text = f"{count} in the folder {self.root}: {said}." if self.entries else f"There are no runs in the folder {self.root}."
        if self.asked and self.total:
            of = f"of the {self.total} runs" if self.total > 1 else "of the one run"
            has = "have" if len(self) > 1 else "has"
            text = f"{len(self) or 'None'} {of} in the folder {self.root} {has} {self.asked}{f': {said}' if said else ''}."
        if not self.strangers:
            return text
        more = len(self.strangers) - _MOST_NAMED
        names = ", ".join(self.strangers[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{text} Left out, as no run is in it: {names}."

    def sorted_by(self, key: str, descending: bool = False) -> "RunList":
        """The same runs in the order of a column of `SORT_KEYS`; runs without a value come last.

        Raises `ListingError` for another column.
        """
        if key not in _KEYS:
            raise ListingError(f"Runs cannot be sorted by {key!r}: {nearest_names(key, _KEYS)}")
        value = _KEYS[key]
        known = sorted((run for run in self.entries if value(run) is not None), key=value, reverse=descending)
        return replace(self, entries=(*known, *(run for run in self.entries if value(run) is None)))

    def where(self, **wanted: Any) -> "RunList":
        """The runs with these values: `state`, `preset`, `dataset`, `seed`, or any value of their configuration.

        Raises `ListingError` for a name that no run has.
        """
        names = {"name", "state", "preset", "dataset", "seed", *TrainingConfig.preset("smoke").to_dict()}
        for name in wanted:
            if name not in names:
                raise ListingError(f"Runs have no value {name!r}: {nearest_names(name, names)}")
        found = tuple(run for run in self.entries if all(_has(run, *item) for item in wanted.items()))
        asked = ", ".join(part for part in (self.asked, values_text(wanted)) if part)
        return replace(self, entries=found, asked=asked, total=self.total if self.asked else len(self))

    def beside(self, folder: Path, count: int = 5) -> "RunList":
        """The run in `folder` and the last `count` others on the same data, the oldest first."""
        own = next((run for run in self.entries if run.folder.resolve() == folder.resolve()), None)
        if own is None:
            raise ListingError(f"There is no run {folder.name!r} in {self.root}: {nearest_names(folder.name, [*self._names])}")
        others = [run for run in self.entries if run is not own and run.data is not None and run.data == own.data]
        chosen = sorted([*others[max(0, len(others) - count) :], own], key=lambda run: (run.modified, run.name))
        return replace(self, entries=tuple(chosen), strangers=(), asked="")

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(run.name for run in self.entries)

    def best(self, dataset: str | None = None) -> RunEntry:
        """The complete run with the highest accuracy: on the validation split where a run has one, else on the test split.

        `dataset`: the name of its data, or its folder. Runs that were judged on different splits are not compared, nor those
        that held out other images; of a sweep's trials, which were never tested, none is taken where others were. Raises
        `ListingError` for such runs, where there is no run, and where the runs are on different data and `dataset` does not say
        which is meant.
        """
        runs = [run for run in self.entries if run.state == COMPLETE and (dataset is None or _is_on(run, dataset))]
        if not runs:
            of = "" if dataset is None else f" on {dataset!r}"
            raise ListingError(f"There is no complete run{of} in {self.root}: train one first.")
        if len(data := sorted({run.dataset for run in runs})) > 1:
            raise ListingError(f"The runs are on different data ({', '.join(data)}): say on which, as in dataset={data[0]!r}.")
        if len({run.data for run in runs if run.data is not None}) > 1:
            raise ListingError(f"The runs on {data[0]!r} were given different data under that name: compare those of one.")
        runs = [run for run in runs if run.test_accuracy is not None] or runs
        validated = [run for run in runs if run.validation_accuracy is not None]
        if validated and len(validated) < len(runs):
            raise ListingError(
                f"{len(validated)} of {len(runs)} runs were judged on a validation split and the others on the test split: these "
                "accuracies cannot be compared; train them all with the same validation."
            )
        if len(drawn := sorted({(run.validation, run.seed) for run in validated})) > 1:
            held_out = " and ".join(f"a share of {share:g} by the seed {seed}" for share, seed in drawn[:2])
            raise ListingError(
                f"The runs were judged on different validation images ({held_out}): these accuracies cannot be compared; choose "
                "the runs of one validation share and one seed with where, which is --where on a command line."
            )
        return max(runs, key=lambda run: (_judged(run), -run.modified))


def list_runs(folder: str | os.PathLike[str] = "runs") -> RunList:
    """The runs in a folder, the oldest first; nothing is changed. A folder that is not there holds none.

    A run that another process trains is marked as such; one whose files are broken or of another version is listed with the
    reason; a link to another of the folders is left out. Raises `ListingError` for a file, and for a folder that cannot be read.

    >>> from era_support_packages.runs import list_runs
    >>> print(list_runs("nothing-yet").reading())
    There are no runs in the folder nothing-yet.
    """
    root = expanded(folder)
    try:
        inside = sorted(path for path in root.iterdir() if os.path.isdir(path) and not path.name.startswith("."))
    except FileNotFoundError:
        inside = []
    except OSError as error:
        raise ListingError(f"{root} cannot be listed ({error.strerror or error}): give the folder that holds the runs.") from None
    runs = [path for path in inside if holds_run(path)]
    strangers = tuple(path.name for path in inside if path not in runs)
    once = {path.resolve(): path for path in sorted(runs, key=lambda path: not path.is_symlink())}  # a link, else the folder
    entries = sorted(map(read_entry, once.values()), key=lambda run: (run.modified, run.name))
    return RunList(root, tuple(entries), strangers)


def holds_run(folder: Path) -> bool:
    """Whether there is a config.json in a folder; a folder that may not be looked into holds none."""
    return os.path.isfile(folder / "config.json")


def find_runs(names: Iterable[str], folder: str | os.PathLike[str] = "runs") -> tuple[Path, ...]:
    """The folders of runs given by name in `folder`, or by path. Raises `ListingError` for one that is not there."""
    root, found = expanded(folder), []
    for name in names:
        places = [root / name, expanded(name)]
        path = next((place for place in places if holds_run(place)), None)
        if path is None:
            there = [run.name for run in list_runs(root).entries]
            hint = nearest_names(name, there) if there else "there is none at all."
            raise ListingError(f"There is no run {name!r} in {root}: {hint}")
        found.append(path)
    return tuple(found)


def _judged(run: RunEntry) -> float:
    """The accuracy that a run is judged by."""
    by = run.test_accuracy if run.validation_accuracy is None else run.validation_accuracy
    return 0.0 if by is None else by


def _is_on(run: RunEntry, dataset: Any) -> bool:
    """Whether that is the data of a run: by its name, or by its folder."""
    if dataset == run.dataset:
        return True
    folders = [name for name in (dataset, run.path) if isinstance(name, str) and name and not is_built_in({"dataset": name})]
    if len(folders) < 2:
        return False
    return os.path.realpath(expanded(folders[0])) == os.path.realpath(expanded(folders[1]))


def _has(run: RunEntry, name: str, wanted: Any) -> bool:
    if name == "dataset":
        return _is_on(run, wanted)
    if name in ("name", "state", "preset", "seed"):
        return _is_same(getattr(run, name), wanted)
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        value = json.loads((run.folder / "config.json").read_text(encoding="utf-8")).get(name)
        return _is_same(value, json.loads(json.dumps(wanted)))  # tuples become lists
    return False


def _is_same(value: Any, wanted: Any) -> bool:
    """Equal, and both or neither of them true or false: to Python 1 is True."""
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)
