"""The trials of a sweep: ordinary runs, each found again by its values, trained once, and shared with other processes."""

import itertools
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from era_support_packages.datasets.image_dataset import data_fingerprint
from era_support_packages.datasets.validation import hold_out
from era_support_packages.runs.entry import PRUNED_FILE, is_locked
from era_support_packages.runs.folder import Run, RunBusyError
from era_support_packages.runs.preparation import Data, PreparedRun, Report, prepare
from era_support_packages.runs.recording import Watch, train_prepared
from era_support_packages.runs.sweep_locks import claim, give_back, own_trial
from era_support_packages.runs.sweep_plan import MOST_COMBINATIONS, SweepPlan
from era_support_packages.runs.sweep_result import TrialRun
from era_support_packages.runs.sweep_values import PRESET
from era_support_packages.system.paths import expanded
from era_support_packages.training.cost import duration
from era_support_packages.training.failures import OutOfMemoryError, TrainingDivergedError
from era_support_packages.training.resolution import prepare_config

PAUSE = 2.0  # seconds between looks at what another process trains
GO_ON = "Give the same command again to go on: what is finished is not trained again."
WAITING = "All that is left is being trained by other processes: waiting for them."
Begin = Callable[[Run], None]
Watcher = Callable[[int], Watch]  # of a run of so many epochs


@dataclass(frozen=True)
class Task:
    """One run that a sweep needs: which values, which seed, and whether it is the last training, on all images."""

    values: Mapping[str, Any]
    seed: int
    final: bool = False

    def __str__(self) -> str:
        """As the values are typed for one run: max_lr=0.1 cutout=8 seed=1."""
        return as_given({**self.values, "seed": self.seed})


def as_given(values: Mapping[str, Any]) -> str:
    """Values in a line of a report, which turns them into options where options are typed."""
    texts = {name: f"'{json.dumps(value)}'" if isinstance(value, tuple | list) else value for name, value in values.items()}
    return " ".join(f"{name}={text}" for name, text in texts.items())


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains the runs of a plan, each once, on data that was loaded once."""

    plan: SweepPlan
    data: Data
    data_root: str | None
    report: Report
    _said: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        """The folder of the runs."""
        return expanded(self.plan.fixed.get("output_dir") or "runs")

    @property
    def name(self) -> str:
        """The sweep's name."""
        fingerprint = data_fingerprint(*self.data)
        return self.plan.name(fingerprint.name, fingerprint.digest)

    def check(self) -> None:
        """Raise `ValueError` where this machine or this data cannot do what a trial asks for; nothing is made."""
        plan, (train, test) = self.plan, self.data
        hold_out(train, test, plan.fixed["validation"], plan.seeds[0])
        for values in itertools.islice(plan.corners(), MOST_COMBINATIONS):
            prepare_config(plan.config(values.get(PRESET, plan.preset), values, plan.seeds[0], final=True), train)

    def train(self, task: Task, begin: Begin | None = None, watcher: Watcher | None = None) -> TrialRun | None:
        """The run, trained where it is not yet finished; None while another process trains it.

        begin: is given the run before it is trained, or found finished. watcher: makes what gets its rows.
        What diverges or does not fit into the memory is a run with a `problem`.
        """
        lines: list[str] = []
        with claim(self.root):  # else two processes would make two folders for it
            prepared = prepare(
                task.values.get(PRESET, self.plan.preset),
                data_root=self.data_root,
                data=self.data,
                report=lines.append,
                **self.plan.overrides(task.values, task.seed, task.final),
            )
            run = prepared.run
            if run.finished:
                if begin is not None:
                    begin(run)
                return _outcome(run, task.seed)
            # From here on: the folder itself is locked only after the range test, and until then would look like a stopped run.
            lock = own_trial(self.root, run.name)
        if lock is None:
            return None
        try:
            if is_locked(run.folder):
                return None
            if begin is not None:
                begin(run)
            self.tell_once(*lines)
            return self._trained(task, prepared, watcher)
        finally:
            give_back(lock)

    def _trained(self, task: Task, prepared: PreparedRun, watcher: Watcher | None) -> TrialRun | None:
        run = prepared.run
        if watcher is None:  # what a search gave up is trained to its end
            (run.folder / PRUNED_FILE).unlink(missing_ok=True)
        try:
            planned = len(prepared.config.planned_epochs(len(prepared.train)))
            train_prepared(prepared, self._warn, None if watcher is None else watcher(planned))
        except RunBusyError:
            return None
        except (TrainingDivergedError, OutOfMemoryError) as error:
            return TrialRun(run.name, task.seed, problem=str(error))
        return _outcome(run, task.seed)

    @property
    def count(self) -> int:
        """How many trials are trained at once."""
        return 1

    def each(self, work: Callable[[int], None], numbers: Iterable[int]) -> None:
        """Do the work for each of the numbers."""
        for number in numbers:
            work(number)

    def wait(self) -> None:
        """For what others train."""
        time.sleep(PAUSE)

    def tell_once(self, *lines: str) -> None:
        """Report what was not reported before."""
        for line in lines:
            if line not in self._said:
                self._said.add(line)
                self.report(line)

    def _warn(self, line: str) -> None:
        """Of the many lines of a training only the warnings; the bar shows the rest."""
        if line.startswith("Warning"):
            self.report(line)


def _outcome(run: Run, seed: int) -> TrialRun:
    said = run.summary()
    accuracy, loss, tested = (said.get(name) for name in ("validation_accuracy", "validation_loss", "test_accuracy"))
    return TrialRun(run.name, seed, float(said.get("seconds") or 0.0), accuracy, loss, tested)


def train_all(trainer: Trainer, tasks: Sequence[Task], noun: str) -> list[TrialRun]:
    """The runs of these tasks in their order; those that another process trains are looked at again after the others."""
    found: dict[int, TrialRun] = {}
    spent: list[float] = []  # seconds of each that was trained now

    def train(position: int) -> None:
        name = f"{noun} {position + 1} of {len(tasks)}"
        label = f"{name}: {tasks[position]}"
        trained: list[str] = []

        def begin(run: Run) -> None:
            if not run.finished:
                trained.append(run.name)
                trainer.tell_once(label)

        started = time.perf_counter()
        run = trainer.train(tasks[position], begin)
        if run is None:
            trainer.tell_once(f"{label} is being trained by another process: left to that one.")
            return
        found[position] = run
        if trained:
            spent.append(time.perf_counter() - started)
            whose = "  " if trainer.count == 1 else f"{name}: "
            trainer.report(f"{whose}{_said(run)}{_time(spent, len(tasks) - len(found), trainer.count)}.")
        else:
            trainer.report(f"{label}: {_said(run)}, trained before.")

    left = list(range(len(tasks)))
    while left:
        trainer.each(train, left)
        waiting = [position for position in left if position not in found]
        if waiting and len(waiting) == len(left):
            trainer.tell_once(WAITING)
            trainer.wait()
        left = waiting
    return [found[position] for position in range(len(tasks))]


def _said(run: TrialRun) -> str:
    if run.problem:
        return f"failed ({run.problem.rstrip('.')})"
    if run.validation_accuracy is not None:
        return f"{run.validation_accuracy:.2f} % of the validation images"
    return f"{run.test_accuracy:.2f} % of the test images"


def _time(spent: Sequence[float], rest: int, at_once: int) -> str:
    """How long the last one took, and how long the others will."""
    took = f" in {duration(spent[-1])}"
    others = "the last one" if rest == 1 else f"the other {rest}"
    seconds = sum(spent) / len(spent) * max(rest / at_once, 1)
    return f"{took}; about {duration(seconds)} for {others}" if rest else took
