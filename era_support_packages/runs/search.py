"""A search: Optuna draws the values of each trial from what earlier ones gave, and gives up those that fall behind."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from era_support_packages.runs.entry import PRUNED_FILE, values_text
from era_support_packages.runs.folder import Run
from era_support_packages.runs.recording import Watch
from era_support_packages.runs.sweep_locks import claim, give_back, own_trial
from era_support_packages.runs.sweep_result import COMPLETE, FAILED, PRUNED, Combination, TrialRun
from era_support_packages.runs.sweep_values import Range, Space, SweepError
from era_support_packages.runs.trials import GO_ON, WAITING, Begin, Task, Trainer, Watcher, as_given
from era_support_packages.training.history import EpochRecord

if TYPE_CHECKING:
    from filelock import BaseFileLock

_FIRST_PRUNED = 2  # no trial is given up after its first epoch
_DIGITS = 4  # of a number that is drawn: one that can be typed


class PrunedError(Exception):
    """The trial falls behind the others and is given up."""


def run_search(trainer: Trainer, name: str, count: int) -> list[Combination]:
    """`count` trials in all, those of earlier calls and of other processes among them, in the order of their numbers.

    The trials are kept in `NAME.journal` in the folder of the runs. One that was left running by a process that ended goes on in
    its run's folder; one that another process trains is waited for; one that was given up is never trained again.

    Raises `SweepError` where the journal cannot be read or written.
    """
    import optuna

    file = trainer.root / f"{name}.journal"
    with _quiet(optuna):
        trainer.each(lambda _: _search(optuna, trainer, file, count), range(trainer.count))
        with claim(trainer.root):
            return _all_tried(_study(optuna, file, name))


def _search(optuna: Any, trainer: Trainer, file: Path, count: int) -> None:
    """Train one trial after another until none is left; of those at once each has a study of its own."""
    name = file.stem
    with claim(trainer.root):
        study = _study(optuna, file, name)
    while True:
        with claim(trainer.root):
            taken = _take(optuna, study, trainer, name, count)
        if taken is None:
            if not _running(optuna, study):
                return
            trainer.tell_once(WAITING)
            trainer.wait()
            continue
        trial, lock = taken
        try:
            _train(optuna, study, trial, trainer, count)
        finally:
            give_back(lock)


def _study(optuna: Any, file: Path, name: str) -> Any:
    """The study of that name in its journal, which is made where it is not there."""
    from optuna.storages import journal

    lock = journal.JournalFileOpenLock(str(file))
    pruner = optuna.pruners.MedianPruner(n_warmup_steps=_FIRST_PRUNED)
    try:
        if file.exists():
            lock.acquire()
            try:
                _mend(file)
            finally:
                lock.release()
        storage = optuna.storages.JournalStorage(journal.JournalFileBackend(str(file), lock_obj=lock))
        return optuna.create_study(study_name=name, storage=storage, direction="maximize", load_if_exists=True, pruner=pruner)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SweepError(
            f"The search's journal {file} cannot be used ({error}): make room, or move the file away; finished runs stay. {GO_ON}"
        ) from None


def _mend(file: Path) -> None:
    """Remove a last line that was cut short as a process was killed or the disk was full: what follows would be unreadable."""
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with open(file, "r+b") as journal:
            journal.truncate(whole)


def _running(optuna: Any, study: Any) -> list[Any]:
    """The trials that a process trains, or was training when it was killed."""
    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))


def _take(optuna: Any, study: Any, trainer: Trainer, name: str, count: int) -> "tuple[Any, BaseFileLock] | None":
    """A trial to train, with its lock: one that was left running, or a new one; None where there is none, or others have it."""
    for kept in _running(optuna, study):
        if (lock := own_trial(trainer.root, f"{name}-{kept.number}")) is not None:
            return optuna.trial.Trial(study, kept._trial_id), lock  # noqa: SLF001 (there is no public way to go on with one)
    trials = study.get_trials(deepcopy=False)
    if sum(trial.state != optuna.trial.TrialState.WAITING for trial in trials) >= count:  # values may be queued by hand
        return None
    # A new generator for each trial: what it draws follows from the trials so far, also after a restart.
    seed = int(np.random.SeedSequence([trainer.plan.seeds[0], len(trials)]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    trial = study.ask()
    lock = own_trial(trainer.root, f"{name}-{trial.number}")
    return None if lock is None else (trial, lock)


# ---- one trial -------------------------------------------------------------------------------------------------------


def _train(optuna: Any, study: Any, trial: Any, trainer: Trainer, count: int) -> None:
    """Train the runs of a trial, one for each seed, and tell the study what came of them."""
    states = optuna.trial.TrialState
    values = drawn(trial, trainer.plan.space)
    trial.set_user_attr("values", values)
    label = f"Trial {trial.number + 1} of {max(count, trial.number + 1)}"
    trainer.report(f"{label}: {as_given(values)}")
    names: list[str] = []

    def begin(run: Run) -> None:
        """The trial knows its runs before they are trained."""
        if run.name not in names:
            names.append(run.name)
            trial.set_user_attr("runs", names)
        if not run.finished and (run.folder / PRUNED_FILE).is_file():
            raise PrunedError

    found: list[TrialRun] = []
    for seed in trainer.plan.seeds:
        watcher = _pruning(trial) if seed == trainer.plan.seeds[0] else _no_pruning
        try:
            run = _until_trained(trainer, Task(values, seed), begin, watcher)
        except PrunedError:
            Run(trainer.root / names[-1]).write_json(PRUNED_FILE, {"search": study.study_name, "trial": trial.number})
            study.tell(trial, state=states.PRUNED)
            trainer.report(f"{label}: given up, as it falls behind the others.")
            return
        found.append(run)
        trial.set_user_attr("outcomes", [vars(run) for run in found])
        if run.problem:
            study.tell(trial, state=states.FAIL)
            trainer.report(f"{label}: failed ({run.problem.rstrip('.')}).")
            return
    accuracy = mean(run.validation_accuracy for run in found if run.validation_accuracy is not None)
    study.tell(trial, accuracy)
    best = study.best_trial
    now = "the best so far" if best.number == trial.number else f"the best so far is trial {best.number + 1}: {best.value:.2f} %"
    trainer.report(f"{label}: {accuracy:.2f} % of the validation images; {now}.")


def _until_trained(trainer: Trainer, task: Task, begin: Begin, watcher: Watcher) -> TrialRun:
    while (run := trainer.train(task, begin, watcher)) is None:
        trainer.tell_once(f"Another process trains the run of {task} now: waiting for it.")
        trainer.wait()
    return run


def _pruning(trial: Any) -> Watcher:
    """Makes what reports each epoch to the study and ends the training of a trial that falls behind, but not after its last."""

    def watcher(planned: int) -> Watch:
        reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

        def watch(record: EpochRecord) -> None:
            if record.validation_accuracy is None or record.epoch in reported:
                return
            trial.report(record.validation_accuracy, record.epoch)
            if record.epoch < planned and trial.should_prune():
                raise PrunedError

        return watch

    return watcher


def _no_pruning(_: int) -> Watch:
    def watch(_: EpochRecord) -> None:
        """Later seeds are trained to their end."""

    return watch


def drawn(trial: Any, space: Space) -> dict[str, Any]:
    """The values of a trial: asked again, they are the same. Numbers from a range are rounded to four digits."""
    values: dict[str, Any] = {}
    for name, found in space.items():
        if not isinstance(found, Range):
            texts = {_as_choice(value): value for value in found.values}
            values[name] = texts[trial.suggest_categorical(name, list(texts))]
        elif found.whole:
            values[name] = trial.suggest_int(name, int(found.low), int(found.high), log=found.log)
        else:
            value = trial.suggest_float(name, found.low, found.high, log=found.log)
            values[name] = min(max(float(f"{value:.{_DIGITS}g}"), found.low), found.high)
    return values


def _as_choice(value: Any) -> Any:
    """As Optuna keeps it: plain values, and lists as JSON."""
    return json.dumps(value) if isinstance(value, tuple | list) else value


# ---- all of them -----------------------------------------------------------------------------------------------------


def _all_tried(study: Any) -> list[Combination]:
    """What came of all trials; one whose values were drawn before stands once."""
    states = {"COMPLETE": COMPLETE, "PRUNED": PRUNED, "FAIL": FAILED}
    found: dict[str, Combination] = {}
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        if trial.state.name not in states or "values" not in attributes:
            continue
        runs = tuple(TrialRun(**values) for values in attributes.get("outcomes", ()))
        values = {name: _as_value(value) for name, value in attributes["values"].items()}
        found.setdefault(values_text(values), Combination(values, runs, states[trial.state.name]))
    return list(found.values())


def _as_value(value: Any) -> Any:
    """As it was before JSON made lists of tuples."""
    return tuple(map(_as_value, value)) if isinstance(value, list) else value


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna's own lines about each trial are left out while it lasts."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
