"""A recorded run, which is never lost: find its folder again, go on where it stopped, stop so that it can go on."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from era_support_packages import datasets
from era_support_packages.atomic_file import remove_leftovers
from era_support_packages.checkpoint import Checkpoint
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import resolve_device, resolve_precision, use_resources
from era_support_packages.history import History, log_header, log_row
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.interrupts import Terminated, sigterm_interrupts
from era_support_packages.lr_finder import RangeTest, choose_max_lr, range_test
from era_support_packages.predictions import predict
from era_support_packages.run_cost import duration, training_flops
from era_support_packages.runs import Run, RunError
from era_support_packages.training import fit, resolve

Report = Callable[[str], None]


class RunStopped(KeyboardInterrupt):
    """Training was interrupted; `history` holds the complete epochs, `exit_code` is 130 after Ctrl-C and 143 after SIGTERM."""

    def __init__(self, history: History, exit_code: int) -> None:
        super().__init__(f"stopped after epoch {len(history.records)} of {history.planned}")
        self.history, self.exit_code = history, exit_code


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """What a run starts from: its folder, its configuration with everything but `max_lr` resolved, and its data."""

    run: Run
    config: TrainingConfig
    train: ImageDataset
    test: ImageDataset


# ---- before training -------------------------------------------------------------------------------------------------


def prepare(
    preset: str = "auto",
    *,
    data_root: str | None = None,
    resume: bool = True,
    finished_run: str | None = None,
    report: Report = print,
    **overrides: Any,
) -> PreparedRun:
    """Configuration, data and folder of a run; where the same configuration has a folder, that one, as it was resolved then.

    preset, overrides: as for `TrainingConfig.preset`. data_root: as for `datasets.load`. With `resume=False` the folder is
    always a new one. finished_run: the folder of a finished run, to show that one whatever the other values are.

    Raises `ValueError` for a bad value, `RunError` where a `run_name` belongs to another configuration, `FileNotFoundError`
    or `DatasetError` where the data cannot be used; nothing is made or changed then.
    """
    if not isinstance(resume, bool):
        raise ValueError(f"resume is {resume!r}; give True or False.")
    if finished_run is not None:
        run = Run.open(finished_run)
        config = run.config()
        return PreparedRun(run, config, *datasets.load(config.dataset, data_root))
    stored = _named_run(overrides) if resume else None
    if preset == "auto" and stored is not None:
        preset = stored.config().preset_name
    requested = TrainingConfig.preset(preset, **overrides)
    resolve_device(requested.device)  # a device that is not there is said before any data is loaded
    if requested.dataset == "auto" and stored is not None:
        requested = requested.replace(dataset=stored.config().dataset)
    train, test = datasets.load(requested.dataset, data_root)
    run = Run(Path(requested.output_dir) / (requested.run_name or requested.default_run_name(train.name)))
    if not resume or not run.folder.exists():
        config = resolve(requested, train)
        return PreparedRun(_created(requested, config, train.name), config, train, test)
    config = _adopted(run, requested, train, report)
    if not run.finished:
        done, planned = run.complete_epochs(), len(config.planned_epochs(len(train)))
        rows = f"{done} of {planned} epochs are done" if done else "it was stopped before its first epoch was complete"
        report(f"Going on with {run.folder}: {rows}.")
    return PreparedRun(run, config, train, test)


def _named_run(overrides: dict[str, Any]) -> Run | None:
    """The run that a name given by hand belongs to, if it is there."""
    name, root = overrides.get("run_name"), overrides.get("output_dir") or "runs"
    if not isinstance(name, str) or not isinstance(root, str):
        return None
    run = Run(Path(root) / name)
    return run if (run.folder / "config.json").is_file() else None


def _created(requested: TrainingConfig, config: TrainingConfig, dataset: str) -> Run:
    """A new folder, named after what was asked for, with the resolved configuration in it."""
    run = Run.create(requested, dataset)
    run.write_config(config)
    return run


def _adopted(run: Run, requested: TrainingConfig, train: ImageDataset, report: Report) -> TrainingConfig:
    """The stored configuration of a run, on this machine; says where that makes the run another one, bit by bit.

    Raises `RunError` where it is the run of another configuration.
    """
    stored = run.config()
    if differences := requested.differences(stored):
        raise RunError(
            f"{run.folder} holds a run of another configuration: {', '.join(differences)}. Give another run_name, or set "
            "resume=False to train in a new folder."
        )
    place = {"run_name": requested.run_name, "output_dir": requested.output_dir}
    if run.finished:
        return stored.replace(**place)
    config = stored.replace(**place, **_resources(stored, requested))
    if changed := [
        f"{name} {getattr(config, name)!r} instead of {getattr(stored, name)!r}"
        for name in ("device", "precision", "threads")
        if getattr(config, name) != getattr(stored, name)
    ]:
        report(f"This goes on with {', '.join(changed)}: the result will not be bit-identical to that of a run in one go.")
    return config


def _resources(stored: TrainingConfig, requested: TrainingConfig) -> dict[str, Any]:
    """Device, precision, workers and threads: as asked for now, else as they were, else what this machine has."""
    values = {
        name: getattr(stored if getattr(requested, name) == "auto" else requested, name)
        for name in ("device", "precision", "workers", "threads")
    }
    try:
        device = resolve_device(values["device"])
        values["precision"] = resolve_precision(values["precision"], device)
    except ValueError:  # it was trained on a device that this machine lacks
        device = resolve_device("auto")
        values["precision"] = resolve_precision("auto", device)
    values["device"] = str(device)
    if values["threads"] == "auto" or (values["threads"] > (os.cpu_count() or 1) and requested.threads == "auto"):
        values["threads"] = torch.get_num_threads()
    return values


def choose_learning_rate(
    model: nn.Module, train: ImageDataset, test_size: int, config: TrainingConfig, run: Run
) -> tuple[TrainingConfig, RangeTest, str]:
    """The run's range test (made once and kept in its folder), the configuration with a number for `max_lr`, and the sentence
    that says where it came from."""
    kept = run.range_test()
    if kept is not None:
        result, used = kept
    else:
        result, used = range_test(model, train, test_size, config), config.max_lr == "auto"
        run.write_range_test(result, used)
    config, sentence = choose_max_lr(config.replace(max_lr="auto") if used else config, result)
    return config, result, sentence


# ---- training --------------------------------------------------------------------------------------------------------


def train_in_folder(
    model: nn.Module, train: ImageDataset, test: ImageDataset, config: TrainingConfig, run: Run, report: Report = print
) -> History:
    """`training.fit`, with a checkpoint in the run's folder after each epoch; goes on from the one that is there.

    A finished run is loaded into the model and its log reported. Ctrl-C and SIGTERM stop within a batch or two and raise
    `RunStopped`, with the model and the files as after the last complete epoch.

    Raises `CheckpointError` for a checkpoint that cannot be used, `RunError` where another process trains into the folder,
    and whatever `fit` raises; the last checkpoint stays in each case.
    """
    if run.finished:
        history = run.load(model, test)
        summary = run.summary()
        report(
            f"Not trained now: this is the run {run.name}, trained in {duration(summary['seconds'])} on {summary['hardware']}."
        )
        report("\n".join([log_header(), *map(log_row, history.records)]))
        return history
    config = resolve(config, train)
    planned = config.planned_epochs(len(train))
    with run.locked(), sigterm_interrupts():
        remove_leftovers(run.folder)
        checkpoint = run.checkpoint(model, test)
        run.write_config(config)
        if checkpoint is not None:  # it is the truth: the table is made again from it
            run.write_metrics(checkpoint.records)

        def keep(state: Checkpoint) -> None:
            state.save(run.checkpoint_file)
            run.write_metrics(state.records)

        try:
            history = fit(model, train, test, config, report, keep, checkpoint)
            flipped = None
            if config.test_time_flip:
                device, resolution = resolve_device(config.device), config.resolutions[-1][0]
                with use_resources(config):
                    flipped = predict(model, test, device, config.precision, resolution, flip=True).accuracy
            flops = training_flops(model, config, planned, len(train), run.range_test_batches())
            run.write_summary(history.records, config, train.name, flops, test_accuracy_tta=flipped)
        except KeyboardInterrupt as interrupt:
            stopped = _stopped(model, train, test, config, run, 143 if isinstance(interrupt, Terminated) else 130)
            report(
                f"Stopped after epoch {len(stopped.history.records)} of {len(planned)}. Run again with the same values to go on "
                f"from there ({run.folder})."
            )
            raise stopped from None
    return history


def _stopped(
    model: nn.Module, train: ImageDataset, test: ImageDataset, config: TrainingConfig, run: Run, exit_code: int
) -> RunStopped:
    """Model and files as after the last complete epoch, and the exception that says so."""
    checkpoint = run.checkpoint(model, test)
    planned = config.planned_epochs(len(train))
    records = () if checkpoint is None else checkpoint.records
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model)
    run.write_metrics(records)
    flops = training_flops(model, config, planned[: len(records)], len(train), run.range_test_batches())
    run.write_summary(records, config, train.name, flops, complete=False)
    return RunStopped(History(records, config, None, len(planned)), exit_code)


def train_or_stop(
    model: nn.Module, train: ImageDataset, test: ImageDataset, config: TrainingConfig, run: Run, report: Report = print
) -> History:
    """`train_in_folder` for a notebook: after the stop button, the history of the complete epochs, so that they can be shown.

    Its predictions are made now, from the weights of the last complete epoch. Raises `RunStopped` where no epoch is complete.
    """
    try:
        return train_in_folder(model, train, test, config, run, report)
    except RunStopped as stop:
        history = stop.history
        if not history.records:
            raise
    report("What follows shows the run as it was then.")
    device, resolution = resolve_device(config.device), history.records[-1].resolution
    predictions = predict(model, test, device, history.config.precision, resolution)
    return History(history.records, history.config, predictions, history.planned)


def require_complete(history: History) -> None:
    """Raise `RunError` for a run that was stopped, so that whoever runs the notebook headless learns of it."""
    if not history.complete:
        raise RunError(f"The run was stopped after epoch {len(history.records)} of {history.planned}: run again to go on.")
