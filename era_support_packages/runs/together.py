"""One run trained by several processes: prepared by the first, and ended in all when it ends in one."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.image_dataset import DatasetError, data_fingerprint
from era_support_packages.models.pretrained import ensure
from era_support_packages.runs.data_sets import fitting_of, load_fitted, split_data
from era_support_packages.runs.folder import Run
from era_support_packages.runs.preparation import PreparedRun, Report, prepare, with_its_statistics
from era_support_packages.system.interrupts import ignore_signals, sigterm_interrupts
from era_support_packages.system.processes import Processes, ProcessLostError, is_lost
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import PreparedConfig
from era_support_packages.training.history import Trained

LOST = (
    "Another process of this run has ended, or does not answer, so this one ends too. The last checkpoint stays: run again with "
    "the same values to go on from there"
)


def prepare_together(processes: Processes, preset: str, data_root: str | None, report: Report, **values: Any) -> PreparedRun:
    """`prepare`, done by the first process; the others get its folder and its configuration, and load the same data.

    Raises what `prepare` does, on all of them, and `DatasetError` where one of them finds other data than the first.
    """
    own: list[PreparedRun] = []

    def first() -> tuple[Run, dict[str, Any], dict[str, Any]]:
        prepared = prepare(preset, data_root=data_root, report=report, processes=processes, **values)
        own.append(prepared)
        kept = prepared.run.data()
        return prepared.run, prepared.config.to_dict(), {} if kept is None else kept.to_dict()

    run, config, data = processes.settled(first)

    return processes.together(lambda: own[0] if own else load_prepared(processes, run, config, data, data_root))


def load_prepared(
    processes: Processes, run: Run, config: dict[str, Any], data: dict[str, Any], data_root: str | None
) -> PreparedRun:
    """A run that another process prepared, with the data that is found here.

    config, data: what that one has, as plain values; no data where it kept no fingerprint. Raises `DatasetError` for other data.
    """
    found = PreparedConfig.from_dict({**config, "device": processes.device(config["device"])})
    if not run.checkpoint_file.exists():  # which has them
        ensure(found.model, found.pretrained, found.weights)
    data_set = load_fitted(found.dataset, data_root, found.skip_broken, fitting_of(found), found.stream)
    changes = data_fingerprint(*data_set).changes(DataFingerprint.from_dict(data)) if data else ""
    if changes:
        raise DatasetError(f"The data here is not that of the first process: {changes}. Give all of them the same.")
    return with_its_statistics(run, found, split_data(*data_set, found), processes)


def train_together(
    prepared: PreparedRun,
    train: Callable[[], Trained],
    stop: Callable[[Checkpoint | None, KeyboardInterrupt], BaseException],
) -> Trained:
    """What `train` returns, run in all processes; the first holds the folder meanwhile. What ends one of them ends all.

    After Ctrl-C and SIGTERM the first raises what `stop` makes of the last checkpoint. From then on this process takes no signal:
    it is about to end, and torchrun sends each of them more than one.

    Raises `ProcessLostError` where another process ended or no longer answers, and whatever `train` raises.
    """
    run, processes = prepared.run, prepared.processes
    with ExitStack() as held:
        processes.settled(lambda: held.enter_context(run.locked()))
        try:
            with sigterm_interrupts():
                try:
                    return train()
                except BaseException:
                    ignore_signals()
                    raise
        except BaseException as error:
            ignore_signals()
            if isinstance(error, KeyboardInterrupt):
                if not processes.first:
                    raise
                raise stop(Checkpoint.load(run.checkpoint_file) if run.checkpoint_file.exists() else None, error) from None
            if is_lost(error):
                raise ProcessLostError(f"{LOST} ({run.folder}).") from None
            raise


def in_words(error: BaseException) -> BaseException:
    """What a process of several ends with: where another one was lost before or after the training, the sentence for it."""
    return ProcessLostError(f"{LOST}.") if is_lost(error) else error
