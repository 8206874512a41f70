"""One of the processes that torchrun starts for `train`: it trains with the others, and the first of them writes and prints."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from era_support_packages.commands.output import problem_of, reporter
from era_support_packages.runs.preparation import PreparedRun, Report
from era_support_packages.runs.recording import train_prepared
from era_support_packages.runs.together import in_words, prepare_together
from era_support_packages.system.interrupts import ignore_signals
from era_support_packages.system.processes import ALONE, Processes, SaidElsewhere, join, leave
from era_support_packages.system.torchrun import Started
from era_support_packages.training.failures import TrainingDivergedError
from era_support_packages.training.history import Trained

Show = Callable[[PreparedRun, Trained, dict[str, Any], Report], None]


def train_with_others(started: Started, options: dict[str, Any], values: dict[str, Any], show: Show) -> int:
    """Train as the values say, together with the other processes; returns the exit code. `show` is for the first alone.

    After a failure it ends the process at once, with the exit code: PyTorch would wait for those that have ended already. Raises
    `ValueError` for values that cannot be used before it meets the others.
    """
    if started.restarts and not values["resume"]:
        raise ValueError("torchrun has started the processes again, and --no-resume would begin another run: leave it out.")
    if values.pop("devices") != 1:
        raise ValueError("torchrun has started the processes, as many as it was told: leave --devices out.")
    if started.rank:
        os.environ["TQDM_DISABLE"] = "1"
        warnings.simplefilter("ignore")
    processes = join(started)
    try:
        _train(processes, {**options, "quiet": options["quiet"] or started.rank > 0}, values, show)
        leave()
        return 0
    except BaseException as error:
        code = 1
        try:
            ignore_signals()
            code = _said(in_words(error), processes)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except (KeyboardInterrupt, OSError) as later:  # a signal came just before, or nobody reads any more
            code = _said(later, processes)
        finally:
            os._exit(code)


def _train(processes: Processes, options: dict[str, Any], values: dict[str, Any], show: Show) -> None:
    report = reporter(options)
    report(f"{processes.count} processes train this run together, each on its own slice of every batch.")
    prepared = prepare_together(processes, report=report, **values)
    if processes.settled(lambda: prepared.run.finished):  # nothing to share
        if not processes.first:
            return
        prepared = replace(prepared, processes=ALONE)
    trained = train_prepared(prepared, report)
    if processes.first:
        show(prepared, trained, options, report)


def _said(error: BaseException, processes: Processes) -> int:
    """The exit code, after what there is to say."""
    if isinstance(error, KeyboardInterrupt):
        return getattr(error, "exit_code", 130)
    if isinstance(error, BrokenPipeError):
        return 141
    common = isinstance(error, SaidElsewhere | TrainingDivergedError)  # they are raised in all
    where = "" if processes.first else f" in process {processes.rank + 1} of {processes.count}"
    found = problem_of(error)
    if found is not None:
        if processes.first or not common:
            print(f"error{where}: {found[0]}", file=sys.stderr)
        return found[1]
    traceback.print_exception(error)
    return 1
