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
from era_support_packages.batches import batch_count
from era_support_packages.checkpoint import Checkpoint, CheckpointError
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import resolve_device, resolve_precision, use_resources
from era_support_packages.history import History, log_header, log_row
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.interrupts import Terminated, sigterm_interrupts
from era_support_packages.lr_finder import RangeTest, choose_max_lr, range_test
from era_support_packages.predictions import predict
from era_support_packages.run_cost import duration, training_flops
from era_support_packages.runs import Run, RunError
from era_support_packages.tables import print_wrapped
from era_support_packages.training import (
    build_model,
    device_failed,
    fit,
    is_device_failure,
    is_out_of_memory,
    out_of_memory,
    resolve,
)

Report = Callable[[str], None]
FEWEST_STEPS = 200  # of a preset with large batches; the handwritten digits would give it 26


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
    report: Report = print_wrapped,
    **overrides: Any,
) -> PreparedRun:
    """Configuration, data and folder of a run; where the same configuration has a folder, that one, as it was resolved then.

    preset, overrides: as for `TrainingConfig.preset`, but "auto" is "cpu" also where a GPU is there and the data set so small
    that "fast" would take fewer than 200 steps. data_root: as for `datasets.load`. With `resume=False` the folder is
    always a new one. finished_run: the folder of a finished run, to show that one whatever the other values are.

    Raises `ValueError` for a bad value, `RunError` where a `run_name` belongs to another configuration, `FileNotFoundError`
    or `DatasetError` where the data cannot be used; nothing is made or changed then.
    """
    if not isinstance(resume, bool):
        raise ValueError(f"resume is {resume!r}; give True or False.")
    if finished_run is not None:
        run = Run.open(finished_run)
        config = _on_this_machine(run.config())
        return PreparedRun(run, config, *datasets.load(config.dataset, data_root))
    stored = _named_run(overrides) if resume else None
    if preset == "auto" and stored is not None:
        preset = stored.config().preset_name
    requested = TrainingConfig.preset(preset, **overrides)
    device = resolve_device(requested.device)  # what this machine lacks is said before any data is loaded
    if requested.precision != "auto":
        resolve_precision(requested.precision, device)
    if requested.dataset == "auto" and stored is not None:
        requested = requested.replace(dataset=stored.config().dataset)
    train, test = datasets.load(requested.dataset, data_root)
    requested = _suited(requested, preset, overrides, len(train), report)
    name = requested.run_name or requested.default_run_name(train.name)
    run = Run(Path(requested.output_dir) / name)
    if not resume or not run.folder.exists():
        config = resolve(requested, train)
        run = Run.create(requested, train.name, config)
        if run.name != name:
            config = config.replace(run_name=run.name)  # the name by which it is found again
            run.write_config(config)
        return PreparedRun(run, config, train, test)
    if run.is_empty():  # made by hand, or by a process that was killed at once
        config = resolve(requested, train)
        run.write_config(config)
        return PreparedRun(run, config, train, test)
    config = _adopted(run, requested, report)
    if not run.finished:
        done, planned = run.complete_epochs(), len(config.planned_epochs(len(train)))
        rows = f"{done} of {planned} epochs are done" if done else "it was stopped before its first epoch was complete"
        report(f"Going on with {run.folder}: {rows}.")
    return PreparedRun(run, config, train, test)


def _suited(requested: TrainingConfig, preset: str, overrides: dict[str, Any], images: int, report: Report) -> TrainingConfig:
    """For a data set too small for large batches "cpu" where the preset was left open, else what was asked for, with a note."""
    steps = sum(batch_count(epoch.images, requested.batch_size) for epoch in requested.planned_epochs(images))
    if requested.preset_name not in ("fast", "best") or steps >= FEWEST_STEPS:
        return requested
    if preset == "auto":
        return TrainingConfig.preset("cpu", **{**overrides, "dataset": requested.dataset})
    note = f"Note: the preset {preset!r} takes only {steps} steps on these {images:,} images"
    report(f"{note}; preset='cpu' suits a small data set better.")
    return requested


def _named_run(overrides: dict[str, Any]) -> Run | None:
    """The run that a name given by hand belongs to, if it is there."""
    name, root = overrides.get("run_name"), overrides.get("output_dir") or "runs"
    if not isinstance(name, str) or not isinstance(root, str):
        return None
    run = Run(Path(root) / name)
    try:
        return run if (run.folder / "config.json").is_file() else None
    except (OSError, ValueError):  # no name of a folder; the configuration says so in its own words
        return None


def _adopted(run: Run, requested: TrainingConfig, report: Report) -> TrainingConfig:
    """The stored configuration of a run, on this machine; says where that makes the run another one, bit by bit.

    Raises `RunError` where it is the run of another configuration.
    """
    stored = run.config()
    if differences := requested.differences(stored):
        raise RunError(
            f"{run.folder} holds a run of another configuration: {', '.join(differences)}. Give another run_name, or set "
            "resume=False to train in a new folder."
        )
    stored = stored.replace(run_name=requested.run_name, output_dir=requested.output_dir)
    if run.finished:
        return _on_this_machine(stored)
    config = stored.replace(**_resources(stored, requested), cuda_graph=requested.cuda_graph)
    if changed := [
        f"{name} {getattr(config, name)!r} instead of {getattr(stored, name)!r}"
        for name in ("device", "precision", "threads")
        if getattr(config, name) != getattr(stored, name)
    ]:
        report(f"This goes on with {', '.join(changed)}: the result will not be bit-identical to that of a run in one go.")
    return config


def _on_this_machine(stored: TrainingConfig) -> TrainingConfig:
    """The configuration of a finished run with a device that is here, so that its network can be built and looked at."""
    anything = stored.replace(device="auto", precision="auto", workers="auto", threads="auto")
    return stored.replace(**_resources(stored, anything))


def _resources(stored: TrainingConfig, requested: TrainingConfig) -> dict[str, Any]:
    """Device, precision, workers and threads: as asked for now, else as they were, else what this machine has."""

    def wanted(name: str) -> Any:
        return getattr(stored if getattr(requested, name) == "auto" else requested, name)

    try:
        device = resolve_device(wanted("device"))
    except ValueError:  # it was trained on a device that this machine lacks
        device = resolve_device("auto")
    precision = requested.precision
    if precision == "auto" and stored.device.split(":")[0] == device.type:
        precision = stored.precision
    threads = wanted("threads")
    if threads == "auto" or (requested.threads == "auto" and threads > (os.cpu_count() or 1)):
        threads = torch.get_num_threads()
    return {
        "device": str(device),
        "precision": resolve_precision(precision, device),
        "workers": wanted("workers"),
        "threads": threads,
    }


def choose_learning_rate(
    model: nn.Module, train: ImageDataset, test_size: int, config: TrainingConfig, run: Run
) -> tuple[TrainingConfig, RangeTest, str]:
    """The run's range test (made once and kept in its folder), the configuration with a number for `max_lr`, and the sentence
    that says where it came from."""
    kept = run.range_test()
    if kept is not None:
        result, used = kept
    else:
        result, used = _range_test(model, train, test_size, config), config.max_lr == "auto"
        run.write_range_test(result, used)
    config, sentence = choose_max_lr(config.replace(max_lr="auto") if used else config, result)
    return config, result, sentence


def _range_test(model: nn.Module, train: ImageDataset, test_size: int, config: TrainingConfig) -> RangeTest:
    try:
        return range_test(model, train, test_size, config)
    except (RuntimeError, MemoryError) as error:
        if is_device_failure(error):
            raise device_failed(error, config, 0, len(config.planned_epochs(len(train)))) from None
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(model, config)


# ---- training --------------------------------------------------------------------------------------------------------


def train_in_folder(
    model: nn.Module, train: ImageDataset, test: ImageDataset, config: TrainingConfig, run: Run, report: Report = print_wrapped
) -> History:
    """`training.fit`, with a checkpoint in the run's folder after each epoch; goes on from the one that is there.

    A finished run is loaded into the model and its log reported. Ctrl-C and SIGTERM stop within a batch or two and raise
    `RunStopped`, with the model and the files as after the last complete epoch.

    Raises `CheckpointError` for a checkpoint that cannot be used, `RunError` where another process trains into the folder,
    `DeviceFailedError` where a GPU stopped working, and whatever `fit` raises; the last checkpoint stays in each case.
    """
    if run.finished:
        remove_leftovers(run.folder)
        history = run.load(model, test)
        summary = run.summary()
        report(
            f"Not trained now: this is the run {run.name}, trained in {duration(summary['seconds'])} on {summary['hardware']}."
        )
        report("\n".join([log_header(), *map(log_row, history.records)]))
        return history
    config = resolve(config, train)
    with run.locked(), sigterm_interrupts():
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            return _train(model, train, test, config, run, report)
        except BaseException as error:
            # Else the half-trained network would be the start of the next attempt in the same notebook.
            checkpoint = run.checkpoint(model, test) if not isinstance(error, CheckpointError) else None
            if is_device_failure(error):  # nothing can be copied to it any more
                done = 0 if checkpoint is None else len(checkpoint.records)
                raise device_failed(error, config, done, len(config.planned_epochs(len(train)))) from None
            model.load_state_dict(before if checkpoint is None else checkpoint.model)
            if not isinstance(error, KeyboardInterrupt):
                raise
            history = _stopped(model, train, checkpoint, config, run)
            name = f" and run_name={config.run_name!r}" if config.run_name else ""
            report(
                f"Stopped after epoch {len(history.records)} of {history.planned}. Run again with the same values{name} to go on "
                f"from there ({run.folder})."
            )
            raise RunStopped(history, 143 if isinstance(error, Terminated) else 130) from None


def _train(
    model: nn.Module, train: ImageDataset, test: ImageDataset, config: TrainingConfig, run: Run, report: Report
) -> History:
    """From the checkpoint, if there is one, to the summary."""
    planned = config.planned_epochs(len(train))
    remove_leftovers(run.folder)
    checkpoint = run.checkpoint(model, test)
    if checkpoint is not None and checkpoint.planned != len(planned):
        raise CheckpointError(
            f"{run.checkpoint_file} belongs to a run of {checkpoint.planned} epochs, but this data makes {len(planned)}; give "
            "the data that it was trained on, or set resume=False to train in a new folder."
        )
    run.write_config(config)
    if checkpoint is not None:  # it is the truth: the table is made again from it
        run.write_metrics(checkpoint.records)

    def keep(state: Checkpoint) -> None:
        try:
            state.save(run.checkpoint_file)
            run.write_metrics(state.records)
        except OSError as error:
            raise RunError(
                f"The checkpoint cannot be written into {run.folder} ({error.strerror or error}): the one of before is still "
                "there. Make room, and run again with the same values to go on from it."
            ) from None

    history = fit(model, train, test, config, report, keep, checkpoint)
    with use_resources(config):
        flipped = None
        if config.test_time_flip:
            device = resolve_device(config.device)
            flipped = predict(model, test, device, config.precision, history.resolution, flip=True).accuracy
        flops = training_flops(model, config, planned, len(train), run.range_test_batches())
        run.write_summary(history.records, config, train.name, flops, test_accuracy_tta=flipped)
    return history


def _stopped(model: nn.Module, train: ImageDataset, checkpoint: Checkpoint | None, config: TrainingConfig, run: Run) -> History:
    """The complete epochs of a run that was stopped, written down as such."""
    planned = config.planned_epochs(len(train))
    records = () if checkpoint is None else checkpoint.records
    run.write_metrics(records)
    with use_resources(config):
        flops = training_flops(model, config, planned[: len(records)], len(train), run.range_test_batches())
        run.write_summary(records, config, train.name, flops, complete=False)
    return History(records, config, None, len(planned))


def train_prepared(prepared: PreparedRun, report: Report = print_wrapped) -> History:
    """Train a prepared run from its first weights, with a range test where `max_lr` is "auto"; what the command line does.

    Raises what `train_in_folder` does.
    """
    run, config, train, test = prepared.run, prepared.config, prepared.train, prepared.test
    model = build_model(config, len(train.classes), train)
    if config.max_lr == "auto":
        config, _, sentence = choose_learning_rate(model, train, len(test), config, run)
        report(sentence)
    report(f"Run {run.folder}\n{config}")
    return train_in_folder(model, train, test, config, run, report)


def train_or_stop(
    model: nn.Module, train: ImageDataset, test: ImageDataset, config: TrainingConfig, run: Run, report: Report = print_wrapped
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
    predictions = predict(model, test, resolve_device(config.device), history.config.precision, history.resolution)
    return History(history.records, history.config, predictions, history.planned)


def require_complete(run: Run, history: History) -> None:
    """Raise `RunError` for a run that was stopped, so that whoever runs the notebook headless learns of it."""
    if not run.finished:
        raise RunError(f"The run was stopped after epoch {len(history.records)} of {history.planned}: run again to go on.")
