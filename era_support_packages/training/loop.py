"""Training: one function that goes through a planned run epoch by epoch and returns its history."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from era_support_packages.datasets.batches import TrainingBatches
from era_support_packages.datasets.image_dataset import ImageDataset, data_fingerprint
from era_support_packages.evaluation.predictions import Predictions, predict
from era_support_packages.models.catalog import name_of
from era_support_packages.models.classifier_file import description
from era_support_packages.models.learned_state import learned
from era_support_packages.system.machine import keep_freed_memory
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.system.progress import progress_bar
from era_support_packages.training.batch_norm import refresh_statistics, refreshed_images
from era_support_packages.training.checkpoint import Checkpoint, random_state, restore_random_state
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.cost import announce_duration, duration, predicted_seconds, seconds_per_image, with_decoding
from era_support_packages.training.failures import TrainingDivergedError, diverged, is_out_of_memory, loss_of_steps, out_of_memory
from era_support_packages.training.history import EpochRecord, History, Scores, Trained, log_lines, log_row, result_line, trained
from era_support_packages.training.phases import Phases
from era_support_packages.training.plan import PlannedEpoch
from era_support_packages.training.resolution import require_same_data, require_splits, require_type
from era_support_packages.training.resources import use_resources
from era_support_packages.training.setup import build_batches
from era_support_packages.training.sharing import (
    LOOK_EVERY,
    own_random_state,
    random_states,
    require_shares,
    settled_config,
    share_statistics,
)
from era_support_packages.training.trainable import require_trainable
from era_support_packages.training.trial import is_tried, require_memory


def fit(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    config: ResolvedConfig,
    report: Callable[[str], None] = print,
    keep: Callable[[Checkpoint], None] | None = None,
    resume: Checkpoint | None = None,
    validation: ImageDataset | None = None,
    processes: Processes = ALONE,
) -> Trained:
    """Train the model as a resolved configuration says; returns it as a `Classifier`, with the `History` of the run.

    The model itself is trained: it holds the last epoch's weights afterwards.

    `report` gets the announcement and one fixed-width row an epoch. `keep` gets the run's state after each epoch; it holds the
    live tensors, so it must be saved before `keep` returns. With `resume` the run goes on from such a state: on a CPU with the
    same number of threads, and on one GPU with `deterministic`, bit for bit as if it had not stopped.

    Where the configuration has a `validation` share, `validation` is the split that `datasets.hold_out` held out: what is looked
    at after each epoch. The test split is then predicted once, after the last, or with `final_test=False` not at all.

    All splits have the same classes in the same order, the same mean and standard deviation, and images made in the same way.

    With several `processes` each calls it with the same values; they share out every batch, and the first reports and keeps.

    Raises `TypeError` for a configuration that is not resolved, `ValueError` where `resume` is a run of another configuration, of
    another network or on other images, where the splits do not go together or not with the configuration, where the network gives
    not one tensor of logits that can learn, one for each class (probabilities are none), and where the processes cannot share out
    the batches, `TrainingDivergedError` when the loss is no longer a number, and `OutOfMemoryError` where a batch does not fit.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import build_model, fit, resolve
    >>> train, test = load("digits")
    >>> config = resolve(TrainingConfig.preset("smoke", train_images=8, batch_size=4), train)
    >>> classifier, history = fit(build_model(config, 10), train, test.take(range(10)), config, report=lambda line: None)
    >>> classifier.resolution, [(record.epoch, record.images) for record in history.records]
    (16, [(1, 8)])
    """
    require_type(config, ResolvedConfig)
    require_splits(config, train, test, validation)
    if resume is not None:
        require_same_data(resume.classifier, train)
        resume.check_network(model, "resume=")
        resume.check_run(config, train, test)
    require_shares(config, len(train), processes)
    config = settled_config(config, processes)
    if not processes.first:
        report, keep = (lambda _: None), None
    try:
        with use_resources(config):
            history = _fit(model, train, test, config, report, keep, resume, validation, processes)
        return trained(model, train, history)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(model, config)  # outside of the handler, where no traceback holds on to the tensors any more


def _fit(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    config: ResolvedConfig,
    report: Callable[[str], None],
    keep: Callable[[Checkpoint], None] | None,
    resume: Checkpoint | None,
    validation: ImageDataset | None,
    processes: Processes,
) -> History:
    planned = config.planned_epochs(len(train))
    records = list(resume.records) if resume is not None else []
    left = planned[len(records) :]
    if not left:
        assert resume is not None  # a run has at least one epoch
        assert resume.logits is not None  # as after every last one
        model.load_state_dict(resume.model)
        report("\n".join(log_lines(records)))
        judged = test if config.final_test or validation is None else validation
        said = Predictions(resume.logits.numpy(), judged.labels, judged.classes, judged.images)
        return History(tuple(records), config, said, len(planned))
    if config.device == "cpu":
        keep_freed_memory()
    memory = (model, train, config, left, processes)
    if not is_tried(config):  # it is counted, before anything is computed
        require_memory(*memory)
    require_trainable(model, train, config)
    if is_tried(config):
        require_memory(*memory)
    held_out = 0 if validation is None else len(validation)
    tested = len(test) if config.final_test else 0
    seconds = predicted_seconds(config, left, tested, seconds_per_image(model, config, processes), held_out)
    seconds = with_decoding(seconds, train, left, config, processes)
    report(announce_duration(config, seconds))
    if alone := [epoch.epoch for epoch in planned if epoch.head_only]:
        report(f"Up to epoch {alone[-1]} only the last layer learns, then all of the network.")
    phases = Phases(model, config, planned, processes)
    torch.manual_seed(config.seed + processes.rank)  # dropout, where the network has it
    try:
        if resume is not None:
            step = phases.restore(resume)
            restore_random_state(own_random_state(resume.random_state, processes), step.device)
        predictions = _train_epochs(phases, train, validation, test, records, report, keep)
    finally:
        phases.close()
    return History(tuple(records), config, predictions, len(planned))


def _train_epochs(
    phases: Phases,
    train: ImageDataset,
    validation: ImageDataset | None,
    test: ImageDataset,
    records: list[EpochRecord],
    report: Callable[[str], None],
    keep: Callable[[Checkpoint], None] | None,
) -> Predictions:
    """The epochs that `records` lacks, each appended to it; the predictions of the whole split that the run is judged on."""
    config, processes, planned, model = phases.config, phases.processes, phases.planned, phases.model
    batches = build_batches(train, config, processes)
    watched = test if validation is None else validation
    some_of_it = _evenly_spread(watched, config.test_images)
    largest_class = 100 * np.bincount(train.labels).max() / len(train)
    judged = next((epoch for epoch in planned if epoch.start >= config.warmup * planned[-1].end), planned[-1])
    left = planned[len(records) :]
    data, described = data_fingerprint(train, test).to_dict() if keep is not None else None, None
    last_px = config.resolutions[-1][0]
    report("\n".join(log_lines(records, "test" if validation is None else "validation")))
    with progress_bar(sum(epoch.work for epoch in left), unit="px²", **processes.bar) as bar:
        for epoch in left:
            start = time.perf_counter()
            step = phases.step_for(epoch)
            loss, accuracy, lr = _train_epoch(phases, batches, epoch, bar)
            last = epoch is planned[-1]
            if last:
                phases.average.put_in()
            again = refreshed_images(model, config, len(train), last) if not epoch.head_only else 0
            bar.set_postfix_str("testing" if validation is None else "validating")
            if again:
                refresh_statistics(model, train, again, epoch.resolution, config.seed, step.device, config.precision)
            share_statistics(model, processes, refreshed=bool(again))
            values = (step.device, config.precision, epoch.resolution)
            seen = predict(model, watched if last else some_of_it, *values, processes=processes)
            of_test = seen if validation is None else None
            if last and validation is not None and config.final_test:
                of_test = predict(model, test, *values, processes=processes)
            predictions = seen if of_test is None else of_test
            record = EpochRecord(
                epoch=epoch.epoch,
                resolution=epoch.resolution,
                images=epoch.images,
                lr=lr,
                train_loss=loss,
                train_accuracy=accuracy,
                seconds=time.perf_counter() - start,
                **_scores("test", of_test),
                **_scores("validation", None if validation is None else seen),
            )
            records.append(record)
            random = random_states(random_state(step.device), processes)
            if keep is not None:
                described = described or description(name_of(model, config.model, len(train.classes), last_px), train, 0)
                keep(_checkpoint(phases, described, data, records, predictions if last else None, random))
            bar.clear()
            report(log_row(record))
            if end := result_line(records):
                report(end)
            if epoch is judged and accuracy <= largest_class:
                report(
                    f"Warning: after the warm-up the training accuracy is {accuracy:.2f} %, no better than always naming the "
                    f"largest class ({largest_class:.2f} %); a lower max_lr may help."
                )
    return predictions


def _scores(split: str, said: Predictions | None) -> dict[str, Any]:
    """The values of a record that are those of one split, by name, None where it was not looked at; logits that are not finite
    raise `TrainingDivergedError`, also where weights and losses still are.
    """
    if said is None:
        values = dict.fromkeys(Scores._fields)
    else:
        try:
            said.check()
        except ValueError as error:
            raise TrainingDivergedError(str(error)) from None
        values = dict(zip(Scores._fields, (said.mean_loss, said.accuracy, said.correct, len(said)), strict=True))
    return {f"{split}_{name}": value for name, value in values.items()}


def _checkpoint(
    phases: Phases,
    described: dict[str, Any],
    data: dict[str, Any] | None,
    records: list[EpochRecord],
    final: Predictions | None,
    random: dict[str, Tensor],
) -> Checkpoint:
    """The state of the run as it is now; with its final predictions there is nothing left that needs the optimizer."""
    states = phases.state() if final is None else {}
    return Checkpoint(
        config=phases.config,
        planned=len(phases.planned),
        records=tuple(records),
        model=phases.model.state_dict(),
        **{name: states.get(name) for name in ("optimizer", "scheduler", "scaler", "average")},
        random_state=random,
        logits=None if final is None else torch.from_numpy(final.logits),
        classifier={**described, "resolution": records[-1].resolution},
        data=data,
        processes=phases.processes.count,
    )


def _train_epoch(phases: Phases, batches: TrainingBatches, epoch: PlannedEpoch, bar: tqdm) -> tuple[float, float, float]:
    """One epoch: its mean training loss, training accuracy in percent, and the last step's learning rate."""
    step, processes, epochs = phases.step_for(epoch), phases.processes, len(phases.planned)
    step.prepare()
    correct = torch.zeros((), dtype=torch.int64, device=step.device)
    losses: list[Tensor] = []  # they stay on the device until the bar refreshes
    rates: list[float] = []
    start, refreshed = time.perf_counter(), 0.0
    for images, labels in batches.epoch(epoch.resolution, epoch.start, epoch.images):
        rates.append(step.rate)
        loss, hits = step(images, labels)
        phases.average.update()
        losses.append(loss)
        correct += hits
        shown = len(losses) * len(labels) * processes.count
        now = time.perf_counter()
        due = now - refreshed > 1 if processes.count == 1 else len(losses) % LOOK_EVERY == 0  # clocks differ
        if due:  # the only place in an epoch that waits for the device
            refreshed = now
            mean_loss, right = loss_of_steps(losses, rates, epoch, processes), processes.total(correct)
            left = (now - start) / shown * (epoch.images - shown)
            bar.set_description_str(f"epoch {epoch.epoch}/{epochs}", refresh=False)
            bar.set_postfix_str(
                f"loss {mean_loss:.3f}, accuracy {100 * right.item() / shown:.1f} %, epoch done in {duration(left)}",
                refresh=False,
            )
        bar.update(len(labels) * processes.count * epoch.pixels_at_work)
    mean_loss, correct = loss_of_steps(losses, rates, epoch, processes), processes.total(correct)
    if processes.any(not all(bool(weights.isfinite().all()) for _, weights in learned(step.model))):
        raise TrainingDivergedError(diverged("The weights are no longer finite", len(rates), rates[-1], epoch))
    return mean_loss, 100 * correct.item() / shown, rates[-1]


def _evenly_spread(dataset: ImageDataset, count: int | None) -> ImageDataset:
    """Every k-th image, `count` in all: the same share of each class where the classes lie one after another."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.take(torch.linspace(0, len(dataset) - 1, count).round().long().numpy())
