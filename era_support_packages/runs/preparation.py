"""Before a run begins: its configuration, its data, and its folder, which the same values find again."""

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.datasets.fitting import Fitting
from era_support_packages.datasets.image_dataset import ImageDataset, data_fingerprint
from era_support_packages.datasets.validation import require_same_kind
from era_support_packages.evaluation.tables import print_wrapped
from era_support_packages.models.pretrained import ensure
from era_support_packages.runs.data_sets import (
    as_held,
    fitting_for,
    fitting_of,
    load_requested,
    note_few,
    split_data,
    tell_of_before_sizes,
)
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.same_data import named_run, run_of
from era_support_packages.runs.showing import (
    LEAVE_OUT,
    NEW_FOLDER,
    data_of,
    require_as_trained,
    require_its_data,
    unused,
    whole_checkpoint,
)
from era_support_packages.runs.starting import FROM_SCRATCH, counted, recipe_for, resources, suited, tell_of_earlier, with_weights
from era_support_packages.system.machine import overview, resolve_device, resolve_precision
from era_support_packages.system.paths import expanded, no_folder
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.adapting import changes
from era_support_packages.training.asked import in_few_passes
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.config import PreparedConfig, TrainingConfig
from era_support_packages.training.config_checks import tracker_problem
from era_support_packages.training.history import History
from era_support_packages.training.resolution import prepare_config
from era_support_packages.training.setup import build_model, normalized_for
from era_support_packages.training.sharing import process_count, require_shares

Report = Callable[[str], None]
Data = tuple[ImageDataset, ImageDataset]


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """What a run starts from: its folder, its configuration with everything but `max_lr` resolved, and its data.

    validation: the training images held out, where the configuration has a share; `train` is then without them. processes: what
    trains it, this process alone or several together. devices: how many processes are started for it, none where it is 1.

    >>> from era_support_packages.runs import prepare
    >>> prepared = prepare("smoke", dataset="digits")
    >>> prepared.config.max_lr, len(prepared.train), len(prepared.test)
    (0.01, 1437, 360)
    """

    run: Run
    config: PreparedConfig
    train: ImageDataset
    test: ImageDataset
    validation: ImageDataset | None = None
    processes: Processes = ALONE
    devices: int = 1
    data_root: str | None = None

    @property
    def images(self) -> dict[str, int] | None:
        """How many images each split has, by its name, where some are held out; None for a run that holds none out."""
        if self.validation is None:
            return None
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    def judged(self, history: History) -> ImageDataset:
        """The split that the predictions of a history are of: the test split, which one with validation keeps to its end."""
        return self.validation if self.validation is not None and history.judged == "validation" else self.test

    def build_model(self, report: Report = print_wrapped, to_show: bool = True) -> nn.Module:
        """The network that is trained, as `training.build_model` begins it: where the run goes on from its checkpoint, without
        the weights that it started from, which then need not be there.

        to_show: whether it will hold what a finished run has learned; before anything is done with it `RunError` is raised then
        where the run has no weights any more, and `CheckpointError` where they cannot be read.
        """
        if to_show and self.run.finished:
            whole_checkpoint(self.run, NEW_FOLDER)
        begun = self.run.checkpoint_file.exists()
        return build_model(self.config, len(self.train.classes), self.train, from_weights=not begun, report=report)

    def __str__(self) -> str:
        """The machine, and every value of the configuration."""
        return f"{overview(resolve_device(self.config.device))}\n\n{self.config}"


def prepare(
    preset: str = "auto",
    *,
    data_root: str | None = None,
    resume: bool = True,
    finished_run: str | None = None,
    data: Data | None = None,
    report: Report = print_wrapped,
    processes: Processes = ALONE,
    devices: int | str = 1,
    **overrides: Any,
) -> PreparedRun:
    """Configuration, data and folder of a run. If the same configuration has a folder, it is that one, as it was resolved then.

    preset, overrides: as for `TrainingConfig.preset`, but "auto" is "cpu" also where a GPU is there and the data set so small
    that "fast" would take fewer than 200 steps, and for a folder of photos of more than 48 px "finetune", or "scratch" where the
    pretrained weights cannot be had, which is said loudly. data_root: as for `datasets.load`. With `resume=False` the folder is
    always a new one. finished_run: the folder of a finished run, to show that one as it was trained: a line names the values
    that are given and are not its own, which are not used (`dataset` says where its data lies now, where that has moved). data:
    the (train, test) that `datasets.load` gave for this `dataset`, read once for many runs.

    A folder belongs to the data that it was trained on, told by a fingerprint: the same data finds it wherever it lies, other
    data under the same name makes a new run, and a line says what changed.

    The images of a folder have the `image_size` of the configuration; "auto" is that of the run which is gone on with, else what
    the median image and the device allow, said in a line.

    With a `validation` share the images that `datasets.hold_out` draws by the run's seed are held out of the training images.

    processes: those that will train it together. The first alone prepares it; `runs.together.prepare_together` tells the others.
    devices: how many devices of this machine train it together, each in a process that is started for it; "all" is every GPU.

    Raises `ValueError` for a bad value and a tracker that is not installed, `RunError` where a `run_name` belongs to another
    configuration, `FileNotFoundError` or `DatasetError` where the data cannot be used; nothing is made or changed then.

    >>> from era_support_packages.runs import prepare
    >>> prepared = prepare("smoke", dataset="digits", run_name="first")
    >>> prepared.run.name, prepared.run.finished
    ('first', False)
    >>> again = prepare("smoke", dataset="digits", run_name="first", report=lambda line: None)
    >>> again.run == prepared.run  # the same values find it again
    True
    """
    if not isinstance(resume, bool):
        raise ValueError(f"resume is {resume!r}; give True or False.")
    if finished_run is not None:
        run = Run.open(finished_run)
        given = {"preset": preset, **overrides, "resume": resume, "devices": devices}
        return shown(run, whole_checkpoint(run, LEAVE_OUT), data_root, given, report)
    stored = named_run(overrides) if resume else None
    if preset == "auto" and stored is not None:
        preset = stored.config().preset_name
    requested = recipe_for(preset, overrides, data_root, None if data is None else data[0].image_size)
    if reason := no_folder(requested.output_dir):
        raise RunError(f"output_dir {requested.output_dir!r} cannot be used ({reason}): give a folder that can be written.")
    if missing := tracker_problem(requested.tracker):
        raise ValueError(missing)
    device = resolve_device(requested.device)  # what this machine lacks is said before any data is loaded
    if requested.precision != "auto":
        resolve_precision(requested.precision, device)
    if requested.dataset == "auto" and stored is not None:
        requested = requested.replace(dataset=stored.config().dataset)
    if data is None:
        fitting, said = fitting_for(requested, data_root, resume)
        if said:
            report(said)
        data_set = load_requested(requested, data_root, fitting)
    else:
        require_same_kind(*data)
        data_set, fitting = data, Fitting(data[0].image_size, data[0].fit)
    fingerprint = data_fingerprint(*data_set)
    splits = split_data(*data_set, requested)
    train = splits["train"]
    requested = in_few_passes(suited(requested, preset, overrides, len(train), report), overrides, len(train))
    if resume and preset == "auto":
        tell_of_earlier(requested, {**overrides, "dataset": requested.dataset}, train.name, report)
    requested = with_weights(requested, preset, overrides, partial(_is_begun, fingerprint, resume), report)
    count = process_count(devices, requested.device, device)
    together = processes if processes.count > 1 else Processes(count=count)
    shared = counted(requested, len(train)).replace(device=together.device(str(device)))
    require_shares(shared, len(train), together)
    if count > 1 and device.type == "cpu" and requested.threads == "auto":
        requested = requested.replace(threads=max(1, torch.get_num_threads() // count))
    begun = partial(with_its_statistics, devices=count, data_root=data_root)
    name = requested.run_name or requested.default_run_name(train.name)
    run = run_of(requested, fingerprint, report) if resume else Run(expanded(requested.output_dir) / name)
    if not resume or not os.path.exists(run.folder):
        config = _prepared(requested, train, report)
        run = Run.create(requested.replace(run_name=run.name), train.name, config, fingerprint)
        if run.name != name:
            config = config.replace(run_name=run.name)  # the name by which it is found again
            run.write_config(config)
        return begun(run, config, splits, processes)
    if run.is_empty():  # made by hand, or by a process that was killed at once
        config = _prepared(requested, train, report)
        run.write_config(config)
        run.write_data(fingerprint)
        return begun(run, config, splits, processes)
    config = _adopted(run, requested, fingerprint, report)
    if fitting_of(config) != fitting:  # found under another name
        splits = split_data(*load_requested(requested, data_root, fitting_of(config)), config)
    config = as_held(run, config, splits["train"])
    tell_of_before_sizes(run, report)
    if not run.finished:
        done, planned = run.complete_epochs(), len(config.planned_epochs(len(train)))
        rows = f"{done} of {planned} epochs are done" if done else "it was stopped before its first epoch was complete"
        report(f"Going on with {run.folder}: {rows}.")
    return begun(run, config, splits, processes)


def _prepared(requested: TrainingConfig, train: ImageDataset, report: Report) -> PreparedConfig:
    """The configuration of a new run; says what the preset's values became for its images and its network."""
    config = prepare_config(requested, train)
    ensure(config.model, config.pretrained, config.weights)
    if adapted := changes(requested.to_dict(), config.to_dict()):
        report(f"For {config.model} and images of {config.image_size} px: {adapted}.")
    note_few(requested, train, report)
    return config


def with_its_statistics(
    run: Run, config: PreparedConfig, splits: dict[str, ImageDataset], processes: Processes = ALONE, **more: Any
) -> PreparedRun:
    """The run with its splits, which carry the mean and standard deviation that the weights it starts with want.

    Their titles say of a run without such weights, where photos ask for them, that it is one.
    """
    adjusted: dict[str, Any] = dict(zip(splits, normalized_for(config, *splits.values()), strict=True))
    if config.preset_name == FROM_SCRATCH:
        adjusted = {name: replace(split, title=f"{split.title}, from scratch") for name, split in adjusted.items()}
    return PreparedRun(run, config, **adjusted, processes=processes, **more)


def shown(
    run: Run, checkpoint: Checkpoint, data_root: str | None, given: Mapping[str, Any], report: Report = print_wrapped
) -> PreparedRun:
    """A finished run with its data as it was trained; says which of the given values are not used, as the run has others.

    Raises `RunError` where its files do not say what its checkpoint says, and where its data is another than is given.
    """
    require_as_trained(run, checkpoint)
    stored = run.config()
    require_its_data(run, stored, given.get("dataset"))
    config = _on_this_machine(stored)
    data_set, place = data_of(run, config, data_root, given.get("dataset"), report)
    if sentence := unused(run, config.replace(dataset=place), given):
        report(sentence)
    return with_its_statistics(run, config, split_data(*data_set, config))


def _is_begun(data: DataFingerprint, resume: bool, requested: TrainingConfig) -> bool:
    return resume and run_of(requested, data, lambda _: None).checkpoint_file.is_file()


def _adopted(run: Run, requested: TrainingConfig, data: DataFingerprint, report: Report) -> PreparedConfig:
    """The stored configuration of a run, on this machine; says where that makes the run another one, bit by bit.

    Raises `RunError` where it is the run of another configuration.
    """
    if run.finished:
        with contextlib.suppress(CheckpointError):  # a broken one is named where it is read for more than this
            require_as_trained(run, Checkpoint.load(run.checkpoint_file))
    stored = run.config()
    name = requested.run_name or (run.name if run.name != requested.default_run_name(data.name) else None)
    kept = run.data()
    if kept is not None and not data.changes(kept):  # the same data, wherever it lies now
        requested = requested.replace(dataset=stored.dataset)
    if differences := requested.differences(stored):
        raise RunError(
            f"{run.folder} holds a run of another configuration: {', '.join(differences)}. Give another run_name, or set "
            "resume=False to train in a new folder."
        )
    stored = stored.replace(run_name=name, output_dir=requested.output_dir)
    if run.finished:
        return _on_this_machine(stored).replace(tracker=requested.tracker)
    config = stored.replace(**resources(stored, requested), cuda_graph=requested.cuda_graph, tracker=requested.tracker)
    if changed := [
        f"{name} {getattr(config, name)!r} instead of {getattr(stored, name)!r}"
        for name in ("device", "precision", "threads")
        if getattr(config, name) != getattr(stored, name)
    ]:
        report(f"This goes on with {', '.join(changed)}: the result will not be bit-identical to that of a run in one go.")
    return config


def _on_this_machine(stored: PreparedConfig) -> PreparedConfig:
    """The configuration of a finished run with a device that is here, so that its network can be built and looked at; what
    tracked it then is not asked again.
    """
    anything = dict.fromkeys(("device", "precision", "workers", "threads"), "auto")
    return stored.replace(**resources(stored, TrainingConfig.from_dict({**stored.to_dict(), **anything})), tracker=None)
