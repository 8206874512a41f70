"""Runs beside each other: what they were given otherwise, what came of it, and whether that could be chance."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.fitting import Fitting
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, fingerprint_of
from era_support_packages.evaluation.comparison import PairedComparison
from era_support_packages.evaluation.intervals import Interval, share_interval
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.runs.compared_images import TRAINING, other_images
from era_support_packages.runs.data_sets import load_fitted
from era_support_packages.runs.entry import COMPLETE, RunEntry, read_entry, value_text, values_text
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.listing import find_runs
from era_support_packages.training.checkpoint import PUT_BACK, Checkpoint
from era_support_packages.training.history import EpochRecord

_NO_VALUES = ("run_name", "output_dir", "workers", "threads", "skip_broken", "tracker", "preset_name")
_MOST_VALUES = 12  # that differ, in the table


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One run of a comparison: its entry in a list, its configuration, its rows, and the logits it ended with.

    logits: float32 (N, C) of the test split; None for a run that was stopped before its end, or was not to be tested.
    """

    entry: RunEntry
    values: Mapping[str, Any]
    records: tuple[EpochRecord, ...]
    logits: np.ndarray | None
    pruned: bool = False
    """whether its weights were removed"""
    data: DataFingerprint | None = None
    """what it was trained and tested on; None where an earlier version trained it, which kept no fingerprint"""
    named: bool = True
    """whether a name makes its network again; else it was changed after it was built, or made elsewhere"""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.entry.name

    @property
    def has_weights(self) -> bool:
        """Whether it was run to its end and its network can be had."""
        return self.logits is not None and not self.pruned and self.named

    @property
    def run(self) -> Run:
        """Its folder."""
        return Run(self.entry.folder)


@dataclass(frozen=True, eq=False)
class Comparison(Readable):
    """Runs beside each other, in the order they were given.

    test: the split that all of them were tested on, None where it cannot be had; missing: why then.

    >>> from era_support_packages.runs import compare, prepare, train_prepared
    >>> small = dict(dataset="digits", train_images=8, batch_size=4, resolutions=((8, 1.0),), precision="fp32")
    >>> runs = [prepare("smoke", max_lr=rate, **small) for rate in (0.01, 0.02)]
    >>> trained = [train_prepared(run, report=lambda line: None) for run in runs]
    >>> found = compare(*(run.run.folder for run in runs))
    >>> found.differing
    {'max_lr': (0.01, 0.02)}
    """

    runs: tuple[ComparedRun, ...]
    test: ImageDataset | None
    missing: str = ""

    @cached_property
    def differing(self) -> dict[str, tuple[Any, ...]]:
        """The values that not all runs have in common, by name: one for each run. What only names a run is left out.

        Where runs have the same `dataset`, and it held other images for one than for another, "training images" or "test images"
        is among the names, with the number of images and the start of their fingerprint.
        """
        names = [name for name in self.runs[0].values if name not in _NO_VALUES]
        values = {name: tuple(run.values.get(name) for run in self.runs) for name in names}
        found = {name: given for name, given in values.items() if any(value != given[0] for value in given)}
        return {**found, **other_images([run.values["dataset"] for run in self.runs], [run.data for run in self.runs])}

    def values_of(self, run: ComparedRun) -> str:
        """What a run has otherwise than the others, in a line."""
        position = self.runs.index(run)
        return values_text({name: values[position] for name, values in self.differing.items()}, _MOST_VALUES)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The runs that differ in nothing but the seed, as positions in `runs`."""
        found: dict[str, list[int]] = {}
        for position in range(len(self.runs)):
            key = json.dumps({name: values[position] for name, values in self.differing.items() if name != "seed"})
            found.setdefault(key, []).append(position)
        return tuple(tuple(group) for group in found.values())

    def predictions(self, position: int) -> Predictions:
        """What run number `position` says of the test split.

        Raises `RunError` where the split cannot be had, and for a run that was stopped before its end or was not to be tested.
        """
        run = self.runs[position]
        if run.logits is None and run.entry.state == COMPLETE:
            raise RunError(
                f"{run.entry.folder} was never tested (final_test=False): train it with final_test=True to compare it."
            )
        if run.logits is None:
            raise RunError(f"{run.entry.folder} was stopped before its end: run it again with the same values to finish it.")
        if self.test is None:
            raise RunError(self.missing)
        return Predictions(run.logits, self.test.labels, self.test.classes, self.test.images)

    def paired(self, first: int = 0, second: int = 1) -> PairedComparison:
        """Two of the runs, by position, on the same test images. Raises `RunError` as `predictions` does."""
        said = (self.predictions(first), self.predictions(second))
        return PairedComparison(self.runs[first].name, self.runs[second].name, *said)

    def table(self) -> Table:
        """A row a run, or a group of runs that differ in their seed alone: what differs first, then what came out."""
        names = [name for name in self.differing if name != "seed" or len(self.groups) == len(self.runs)][:_MOST_VALUES]
        columns = [Column("run"), *map(Column, names)]
        columns += [Column("seeds", "d"), Column("validation accuracy", ".2f"), Column("its standard deviation", ".2f")]
        columns += [Column("test accuracy", ".2f"), Column("standard deviation", ".2f")]
        columns += [Column("seconds", ".0f"), Column("PFLOP", ".4g")]
        rows = [self._row(group, names) for group in self.groups]
        of_one = len(self.groups) == len(self.runs)
        empty = {column.name for i, column in enumerate(columns) if all(row[i] is None for row in rows)} - {"test accuracy"}
        if of_one:
            empty.add("seeds")
        kept = [i for i, column in enumerate(columns) if i <= len(names) or column.name not in empty]
        caption = "test accuracy: in percent after the last epoch, of one run with its 95 % interval, of several the mean."
        return Table(tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows), caption)

    def _row(self, group: tuple[int, ...], names: list[str]) -> tuple[Any, ...]:
        runs = [self.runs[position] for position in group]
        values = [value_text(self.differing[name][group[0]]) for name in names]
        name = runs[0].name + (f" and {len(runs) - 1} more" if len(runs) > 1 else "")
        accuracies = [run.entry.test_accuracy for run in runs if run.entry.test_accuracy is not None]
        accuracy: Any = float(np.mean(accuracies)) if accuracies else None
        if len(runs) == 1:
            accuracy = _interval(runs[0]) or accuracy
        held_out = [run.entry.validation_accuracy for run in runs if run.entry.validation_accuracy is not None]
        seconds = [run.entry.seconds for run in runs if run.entry.seconds is not None]
        flops = [run.entry.pflops for run in runs if run.entry.pflops is not None]
        return (
            name,
            *values,
            len(runs),
            float(np.mean(held_out)) if held_out else None,
            float(np.std(held_out, ddof=1)) if len(held_out) > 1 else None,
            accuracy,
            float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
            float(np.mean(seconds)) if seconds else None,
            float(np.mean(flops)) if flops else None,
        )

    def reading(self) -> str:
        """What differs; for two runs the paired difference on the same test images, or why there is none."""
        said = [f"They differ in {', '.join(self.differing)}." if self.differing else "They were given the same values."]
        if TRAINING in self.differing:
            said.append("The same data set held other training images for some of them: a difference may come from these images.")
        without = [run for run in self.runs if run.logits is None]
        untested = [run.name for run in without if run.entry.state == COMPLETE]
        stopped = [run.name for run in without if run.entry.state != COMPLETE]
        if stopped:
            said.append(f"Without a result, as not run to the end: {', '.join(stopped)}.")
        if untested:
            said.append(f"Never tested, as final_test is False: {', '.join(untested)}.")
        if len(unnamed := [run.name for run in self.runs if not run.named]) > 1:
            said.append(f"Nobody can tell whether these networks, which no name makes, are the same: {', '.join(unnamed)}.")
        if self.missing:
            said.append(self.missing)
        if len(self.groups) == 1:
            said += self._spread()
        elif len(self.runs) == 2 and not without and self.test is not None:
            said.append(self.paired().reading())
        return " ".join(said)

    def _spread(self) -> list[str]:
        """Of runs that differ in nothing but the seed: mean and standard deviation, as no one of them is the better choice."""
        known = {
            "test": [run.entry.test_accuracy for run in self.runs],
            "validation": [run.entry.validation_accuracy for run in self.runs],
        }
        of = "the seeds" if "seed" in self.differing else "the repeats"
        for split, given in known.items():
            if len(found := [value for value in given if value is not None]) == len(self.runs):
                return [
                    f"Over {of}, the {split} accuracy is {np.mean(found):.2f} % on average, with a standard deviation of "
                    f"{np.std(found, ddof=1):.2f} points ({len(found)} runs)."
                ]
        return []

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps: what differs, each run, and for two the paired comparison."""
        values: dict[str, Any] = {
            "differing": {name: list(values) for name, values in self.differing.items()},
            "runs": [run.entry.to_dict() for run in self.runs],
            "groups": [[self.runs[position].name for position in group] for group in self.groups],
            "missing": self.missing,
        }
        if len(self.runs) == 2 and self.test is not None and all(run.logits is not None for run in self.runs):
            found = self.paired()
            values["paired"] = {
                "difference": found.difference.estimate,
                "low": found.difference.low,
                "high": found.difference.high,
                "p_value": found.p_value,
                "only_first": len(found.only_first),
                "only_second": len(found.only_second),
                "images": len(found.of_first),
            }
        return values


def compare(*runs: str | os.PathLike[str], data_root: str | None = None) -> Comparison:
    """Two or more runs beside each other, given by their folders, or by their names in runs/.

    Their test split is loaded once, as config.json says (`data_root` as for `datasets.load`), to tell right from wrong image by
    image; where it cannot be had, or the runs were tested on different images, the rest is compared and a sentence says so.
    Raises `ListingError` for a run that is not there, `RunError` for one that cannot be read, and for fewer than two.

    >>> from era_support_packages.runs import compare, prepare, train_prepared
    >>> small = dict(dataset="digits", train_images=8, batch_size=4, resolutions=((8, 1.0),), precision="fp32")
    >>> for rate in (0.01, 0.02):
    ...     _ = train_prepared(prepare("smoke", max_lr=rate, run_name=f"rate-{rate}", **small), report=lambda line: None)
    >>> print(compare("rate-0.01", "rate-0.02").reading())
    They differ in max_lr. rate-0.02 against rate-0.01 on the same 360 test images: ...
    """
    if len(runs) < 2:
        raise RunError(f"{len(runs)} run{'s' * (len(runs) != 1)} given to compare: give two or more.")
    folders = [folder for run in runs for folder in find_runs([os.fspath(run)])]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError("A run is given twice: give each once.")
    found = tuple(_compared(folder) for folder in folders)
    test, missing = _common_split(found, data_root)
    return Comparison(found, test, missing)


def _compared(folder: Path) -> ComparedRun:
    entry = read_entry(folder)
    if entry.problem:
        raise RunError(f"{folder} cannot be compared: {entry.problem}.")
    if not (folder / "checkpoint.pt").is_file():
        raise RunError(f"{folder} has no checkpoint.pt, so that no epoch of it is known: run it again, or leave it out.")
    checkpoint = Checkpoint.load(folder / "checkpoint.pt", PUT_BACK)
    tested = checkpoint.logits is not None and entry.state == COMPLETE and checkpoint.config.final_test
    logits = checkpoint.logits.numpy() if tested and checkpoint.logits is not None else None
    values, named = checkpoint.config.to_dict(), checkpoint.classifier is None or checkpoint.classifier["model"] is not None
    if not named:
        values["model"] += ", changed"
    return ComparedRun(entry, values, checkpoint.records, logits, not checkpoint.model, Run(folder).data(), named)


def _common_split(runs: tuple[ComparedRun, ...], data_root: str | None) -> tuple[ImageDataset | None, str]:
    """The test split of all the runs, or None and why not."""
    kept = [run.data for run in runs]
    if any(data is None for data in kept):
        if len({run.values["dataset"] for run in runs}) > 1:
            return None, "They were trained on different data, so that they cannot be compared image by image."
    elif len({data.test.digest for data in kept if data is not None}) > 1:
        return None, "They were tested on different images, so that they cannot be compared image by image."
    # In the size of the largest, which the others make smaller: enlarged, images would be blurred for a network.
    by_size = sorted(runs, key=lambda run: run.values["image_size"])
    places = {run.values["dataset"]: Fitting(run.values["image_size"], run.values["fit"]) for run in by_size}
    for name, fitting in places.items():  # the same data may lie at several places
        try:
            _, test = load_fitted(name, data_root, False, fitting)
        except (ValueError, OSError, DatasetError) as error:
            problem = f"Its test images cannot be loaded, so that nothing is said image by image: {error}"
            continue
        data = kept[0]
        if data is None or not fingerprint_of(test).changes(data.test, "test"):
            return test, ""
        problem = f"{name!r} holds other test images now than the runs were tested on, so that nothing is said image by image."
    return None, problem


def _interval(run: ComparedRun) -> Interval | None:
    """The test accuracy in percent with its interval; None for a run that was stopped before its end."""
    scores = run.records[-1].scores("test")
    if run.logits is None or scores is None:
        return None
    found = share_interval(scores.correct, scores.total)
    return Interval(100 * found.estimate, 100 * found.low, 100 * found.high)
