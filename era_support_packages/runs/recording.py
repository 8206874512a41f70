"""A recorded run, which is never lost: train into its folder, go on where it stopped, stop so that it can go on."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset, data_fingerprint
from era_support_packages.evaluation.cautions import told_once
from era_support_packages.evaluation.predictions import predict
from era_support_packages.evaluation.tables import print_wrapped
from era_support_packages.evaluation.temperature import temperature_of
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.launching import train_on_devices
from era_support_packages.runs.preparation import PreparedRun, Report
from era_support_packages.runs.together import train_together
from era_support_packages.runs.tracking import Tracker
from era_support_packages.runs.untrained import NOTHING_YET
from era_support_packages.system.atomic_file import remove_leftovers
from era_support_packages.system.interrupts import Terminated, sigterm_interrupts
from era_support_packages.system.machine import resolve_device
from era_support_packages.system.plain_error import PlainError
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import PreparedConfig, ResolvedConfig
from era_support_packages.training.cost import duration, training_flops
from era_support_packages.training.failures import device_failed, is_device_failure, is_out_of_memory, out_of_memory
from era_support_packages.training.history import EpochRecord, History, Trained, log_lines, trained
from era_support_packages.training.loop import fit
from era_support_packages.training.lr_finder import RangeTest, choose_max_lr, range_test
from era_support_packages.training.resources import use_resources
from era_support_packages.training.sharing import going_on_with

Watch = Callable[[EpochRecord], None]


class RunStopped(PlainError, KeyboardInterrupt):
    """Training was interrupted; `history` holds the complete epochs, `exit_code` is 130 after Ctrl-C and 143 after SIGTERM."""

    def __init__(self, history: History, exit_code: int) -> None:
        super().__init__(f"stopped after epoch {len(history.records)} of {history.planned}")
        self.history, self.exit_code = history, exit_code


# ---- the learning rate -----------------------------------------------------------------------------------------------


def choose_learning_rate(network: nn.Module, prepared: PreparedRun) -> tuple[PreparedRun, RangeTest, str]:
    """The run with a number for `max_lr`, its range test (made once and kept in its folder), and the sentence that says where
    the number came from.

    >>> from torch import nn
    >>> from era_support_packages.runs import choose_learning_rate, prepare
    >>> prepared = prepare("smoke", dataset="digits")
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))  # of images of 16 px
    >>> prepared, result, sentence = choose_learning_rate(network, prepared)
    >>> prepared.config.max_lr, sentence.split(",")[0]
    (0.01, 'max_lr = 0.01 is given')
    """
    run, config, processes = prepared.run, prepared.config, prepared.processes
    kept = processes.settled(run.range_test)
    if kept is not None:
        result, used = kept
    else:
        result, used = _range_test(network, prepared), config.max_lr == "auto"
        processes.settled(lambda: run.write_range_test(result, used))
    if used:  # also where its suggestion is in the configuration already
        config = PreparedConfig.from_dict({**config.to_dict(), "max_lr": "auto"})
    resolved, sentence = choose_max_lr(config, result)
    return replace(prepared, config=resolved), result, sentence


def _range_test(network: nn.Module, prepared: PreparedRun) -> RangeTest:
    train, config = prepared.train, prepared.config
    shared: dict[str, Any] = {"processes": prepared.processes} if prepared.processes.count > 1 else {}
    try:
        return range_test(network, train, len(prepared.test), config, **shared)
    except (RuntimeError, MemoryError) as error:
        if is_device_failure(error):
            raise device_failed(error, config, 0, len(config.planned_epochs(len(train)))) from None
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(network, config)


# ---- training --------------------------------------------------------------------------------------------------------


@told_once
def train_in_folder(
    model: nn.Module, prepared: PreparedRun, report: Report = print_wrapped, watch: Watch | None = None
) -> Trained:
    """`training.fit`, with a checkpoint in the run's folder after each epoch; goes on from the one that is there.

    Several processes train it together, and the first alone writes; where `prepared` asks for several devices, they are started
    here, and the model gets their weights. A finished run is loaded into the model and its log reported.
    Ctrl-C and SIGTERM stop within a batch or two and raise `RunStopped`, with the model and the files as after the last complete
    epoch. The configuration's tracker and `watch` get each new row once it is on the disk; what `watch` raises ends the training
    there.

    Raises `CheckpointError` for a checkpoint that cannot be used, `RunError` where another process trains into the folder,
    `DeviceFailedError` where a GPU stopped working, and whatever `fit` raises; the last checkpoint stays in each case.

    >>> from torch import nn
    >>> from era_support_packages.runs import prepare, train_in_folder
    >>> prepared = prepare("smoke", dataset="digits")
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))  # of images of 16 px
    >>> classifier, history = train_in_folder(network, prepared, report=lambda line: None)
    >>> history.complete, prepared.run.finished
    (True, True)
    """
    run, config, train, test = prepared.run, prepared.config, prepared.train, prepared.test
    if prepared.processes.count > 1:
        train_it = partial(_train, model, prepared, config.resolved(), report, watch)
        return train_together(prepared, train_it, partial(_stop, model, prepared, report))
    _check_data(run, train, test)
    if run.finished:
        remove_leftovers(run.folder)
        history = run.load(model, test, prepared.validation)
        said = run.summary()
        report(f"Not trained now: this is the run {run.name}, trained in {duration(said['seconds'])} on {said['hardware']}.")
        report("\n".join(log_lines(history.records)))
        with Tracker(run, config, report) as tracker:
            tracker.rows(history.records)
        return trained(model, train, history, config.precision)
    if prepared.devices > 1:
        return train_on_devices(model, prepared, report, watch, _stop)
    config = config.resolved()
    with run.locked(), sigterm_interrupts():
        before = {name: value.clone() for name, value in model.state_dict().items()}
        try:
            return _train(model, prepared, config, report, watch)
        except BaseException as error:
            if is_device_failure(error):  # nothing can be copied from it or to it any more
                planned = len(config.planned_epochs(len(train)))
                raise device_failed(error, config, run.complete_epochs(), planned) from None
            # Else the half-trained network would be the start of the next attempt in the same notebook.
            checkpoint = run.checkpoint(model, test) if not isinstance(error, CheckpointError) else None
            model.load_state_dict(before if checkpoint is None else checkpoint.model)
            if not isinstance(error, KeyboardInterrupt):
                raise
            raise _stop(model, prepared, report, checkpoint, error) from None


def _stop(
    model: nn.Module, prepared: PreparedRun, report: Report, checkpoint: Checkpoint | None, error: KeyboardInterrupt
) -> RunStopped:
    """Write down and report that the run was stopped; what then ends it."""
    config = prepared.config.resolved()
    history = _stopped(model, prepared, checkpoint, config)
    name = f" and run_name={config.run_name!r}" if config.run_name else ""
    report(
        f"Stopped after epoch {len(history.records)} of {history.planned}. Run again with the same values{name} to go on "
        f"from there ({prepared.run.folder})."
    )
    return RunStopped(history, 143 if isinstance(error, Terminated) else 130)


def _check_data(run: Run, train: ImageDataset, test: ImageDataset) -> None:
    """Raise `RunError` where the run belongs to other data."""
    kept = run.data()
    if kept is not None and (changes := data_fingerprint(train, test).changes(kept)):
        raise RunError(
            f"{run.folder} was trained on other data than is loaded: {changes}. Give the data that it was "
            "trained on, or set resume=False to train in a new folder."
        )


def _begun(model: nn.Module, prepared: PreparedRun, config: ResolvedConfig, report: Report) -> Checkpoint | None:
    """The checkpoint to go on from, with the folder as it was then; None at the start of a run."""
    run, train, test = prepared.run, prepared.train, prepared.test
    planned = config.planned_epochs(len(train))
    remove_leftovers(run.folder)
    checkpoint = run.checkpoint(model, test)
    if checkpoint is not None and checkpoint.planned != len(planned):
        raise CheckpointError(
            f"{run.checkpoint_file} belongs to a run of {checkpoint.planned} epochs, but this data makes {len(planned)}; give "
            "the data that it was trained on, or set resume=False to train in a new folder."
        )
    if checkpoint is not None:
        checkpoint.check_run(config, train, test, run.checkpoint_file)  # before the folder says anything else than it does
    run.write_config(config)
    if checkpoint is None and run.data() is None:
        run.write_data(data_fingerprint(train, test))
    if checkpoint is not None:  # it is the truth: the table is made again from it
        run.write_metrics(checkpoint.records)
        if sentence := going_on_with(prepared.processes.count, checkpoint.processes):
            report(sentence)
    return checkpoint


def _train(model: nn.Module, prepared: PreparedRun, config: ResolvedConfig, report: Report, watch: Watch | None) -> Trained:
    """From the checkpoint, if there is one, to the summary."""
    run, train, test, processes = prepared.run, prepared.train, prepared.test, prepared.processes
    checkpoint = processes.settled(lambda: _begun(model, prepared, config, report))
    tracker: Tracker | None = None  # of the first process

    def keep(state: Checkpoint) -> None:
        try:
            state.save(run.checkpoint_file)
            run.write_metrics(state.records)
        except OSError as error:
            raise RunError(
                f"The checkpoint cannot be written into {run.folder} ({error.strerror or error}): the previous one is still "
                "there. Make room, and run again with the same values to go on from it."
            ) from None
        if tracker is not None:
            tracker.rows(state.records)
        if watch is not None:
            watch(state.records[-1])

    with ExitStack() as held:

        def track() -> None:
            nonlocal tracker
            tracker = held.enter_context(Tracker(run, config, report))
            tracker.rows(() if checkpoint is None else checkpoint.records)

        processes.settled(track)  # the others wait, however long a service takes that keeps the rows
        result = fit(model, train, test, config, report, keep, checkpoint, prepared.validation, processes)
        processes.settled(held.close)
    history = result.history
    with use_resources(config):
        flipped = None
        if config.test_time_flip and config.final_test:
            device = resolve_device(config.device)
            said = predict(model, test, device, config.precision, history.resolution, flip=True, processes=processes)
            flipped = said.accuracy
        if processes.first:
            planned = config.planned_epochs(len(train))
            flops = training_flops(model, config, planned, len(train), run.range_test_batches())
            more: dict[str, Any] = {"images": prepared.images, "processes": processes.count}
            more["temperature"] = temperature_of(history.final_predictions)
            run.write_summary(history.records, config, train.name, flops, test_accuracy_tta=flipped, **more)
    return result


def _stopped(model: nn.Module, prepared: PreparedRun, checkpoint: Checkpoint | None, config: ResolvedConfig) -> History:
    """The complete epochs of a run that was stopped, written down as such."""
    run, train = prepared.run, prepared.train
    planned = config.planned_epochs(len(train))
    records = () if checkpoint is None else checkpoint.records
    run.write_metrics(records)
    with use_resources(config):
        flops = training_flops(model, config, planned[: len(records)], len(train), run.range_test_batches())
        more: dict[str, Any] = {"images": prepared.images, "processes": prepared.processes.count}
        run.write_summary(records, config, train.name, flops, complete=False, **more)
    return History(records, config, None, len(planned))


def train_prepared(prepared: PreparedRun, report: Report = print_wrapped, watch: Watch | None = None) -> Trained:
    """Train a prepared run from its first weights, with a range test where `max_lr` is "auto"; what the command line does.

    Raises what `train_in_folder` does.

    >>> from era_support_packages.runs import prepare, train_prepared
    >>> prepared = prepare("smoke", dataset="digits", train_images=8, batch_size=4, resolutions=((8, 1.0),))
    >>> classifier, history = train_prepared(prepared, report=lambda line: None)
    >>> history.complete, classifier.resolution
    (True, 8)
    """
    model = prepared.build_model(report)
    if prepared.config.max_lr == "auto" and prepared.devices == 1:  # else those that train make it together
        prepared, _, sentence = choose_learning_rate(model, prepared)
        report(sentence)
    if prepared.config.max_lr != "auto":
        report(f"Run {prepared.run.folder}\n{prepared.config.resolved()}")
    return train_in_folder(model, prepared, report, watch)


def train_or_stop(model: nn.Module, prepared: PreparedRun, report: Report = print_wrapped) -> Trained:
    """`train_in_folder` for a notebook: after the stop button, the classifier and the history as they were after the last
    complete epoch, so that they can be shown.

    Its predictions are made now, from the weights of the last complete epoch: of the test split, or in a run that holds images
    out for validation of those, since its test split is not looked at before the end. Raises `RunStopped` where no epoch is
    complete.

    >>> from torch import nn
    >>> from era_support_packages.runs import prepare, train_or_stop
    >>> prepared = prepare("smoke", dataset="digits")
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))  # of images of 16 px
    >>> classifier, history = train_or_stop(network, prepared, report=lambda line: None)
    >>> history.complete, classifier.resolution
    (True, 16)
    """
    try:
        return train_in_folder(model, prepared, report)
    except RunStopped as stop:
        history = stop.history
        if not history.records:
            stop.args = (f"Training was {stop}. {NOTHING_YET}",)
            raise
    report("What follows shows the run as it was then.")
    result = trained(model, prepared.train, history)
    return Trained(result.classifier, replace(history, predictions=result.classifier.predict(prepared.judged(history))))
