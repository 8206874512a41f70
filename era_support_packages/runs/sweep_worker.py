"""One of the processes that share out the trials of a sweep: it trains one after another as it is told, and says what came of it.

Started by `sweep_jobs`, which alone prints.
"""

import sys
from typing import Any

from era_support_packages.runs.data_sets import load_asked
from era_support_packages.runs.folder import Run
from era_support_packages.runs.recording import Watch
from era_support_packages.runs.starting import data_asked
from era_support_packages.runs.sweep_values import SweepError
from era_support_packages.runs.trials import Task, Trainer
from era_support_packages.system.children import Parent, portable
from era_support_packages.training.failures import DeviceFailedError
from era_support_packages.training.history import EpochRecord


class StoppedError(Exception):
    """The parent wants no more of this trial."""


def main() -> int:
    """Do what the parent says until it says no more; returns the exit code."""
    parent = Parent()
    plan, data_root, name = parent.hear()
    try:
        data = load_asked(data_asked(plan.fixed, plan.preset, data_root), data_root, lambda _: None)
        trainer = Trainer(plan, data, data_root, lambda line: _tell(parent, line))
        if trainer.name != name:
            raise SweepError("The data changed as the sweep began: give the same command again.")
    except Exception as error:
        parent.hear()
        parent.tell(("failed", portable(error)))
        return 1
    while (asked := parent.hear()) is not None:
        try:
            answer = _train(parent, trainer, *asked)
        except KeyboardInterrupt as stop:  # told by the run, or where it was about to begin or had just ended
            return getattr(stop, "exit_code", 130)
        parent.tell(answer)
        if answer[0] == "lost":
            return 1
    return 0


def _tell(parent: Parent, line: str) -> None:
    parent.tell(("line", line))


def _train(parent: Parent, trainer: Trainer, task: Task, watched: bool) -> tuple[str, Any]:
    """Train a trial, asking the parent at its begin and, where it is watched, after each epoch."""

    def ask(*question: Any) -> None:
        parent.tell(question)
        if not parent.hear():
            raise StoppedError

    def begin(run: Run) -> None:
        ask("begin", run.name)

    def watcher(planned: int) -> Watch:
        ask("planned", planned)

        def watch(record: EpochRecord) -> None:
            ask("epoch", record)

        return watch

    try:
        return "done", trainer.train(task, begin, watcher if watched else None)
    except StoppedError:
        return "stopped", None
    except DeviceFailedError as error:
        return "lost", str(error)
    except Exception as error:
        return "failed", portable(error)


if __name__ == "__main__":
    sys.exit(main())
