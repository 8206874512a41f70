"""The data of a run, its images at the size that the run is made with."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from era_support_packages.datasets import loading
from era_support_packages.datasets.fitting import IMAGE_SIZE, Fitting
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.sizing import Stream, auto_image_size, few_images
from era_support_packages.datasets.validation import hold_out
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.system.machine import resolve_device
from era_support_packages.system.paths import expanded
from era_support_packages.training.adapting import shows_few
from era_support_packages.training.config import ConfigValues, PreparedConfig, TrainingConfig

Splits = tuple[ImageDataset, ImageDataset]


def load_fitted(dataset: str, data_root: str | None, skip_broken: bool, fitting: Fitting, stream: Stream = "auto") -> Splits:
    """A data set by name or path: (train, test), with images of that size."""
    options: dict[str, Any] = {"skip_broken": True} if skip_broken else {}
    if stream is True or (stream is False and folder_of_images(dataset, data_root) is not None):
        options["stream"] = stream
    if folder_of_images(dataset, data_root) is not None:
        options |= {"image_size": fitting.size, "fit": fitting.fit}
    elif fitting.size != IMAGE_SIZE:
        options["image_size"] = fitting.size
    train, test = loading.load(dataset, data_root, **options)
    return replace(train, fit=fitting.fit), replace(test, fit=fitting.fit)


def load_requested(requested: TrainingConfig, data_root: str | None, fitting: Fitting) -> Splits:
    """The data set of a request, with images of that size, streamed or not as it says."""
    return load_fitted(requested.dataset, data_root, requested.skip_broken, fitting, stream_of(requested))


def load_asked(asked: TrainingConfig, data_root: str | None, report: Callable[[str], None]) -> Splits:
    """The data set that is asked for, at the size that a new run would have."""
    fitting, said = fitting_for(asked, data_root, resume=False)
    if said:
        report(said)
    return load_requested(asked, data_root, fitting)


def stream_of(config: ConfigValues) -> Stream:
    """Whether the images of a folder are streamed: not where an engine is asked for that holds them all."""
    return False if config.engine == "device" else config.stream


def fitting_of(config: ConfigValues) -> Fitting:
    """How the images of a stored run were brought to size."""
    assert config.image_size != "auto"  # a run is stored as it was resolved
    assert config.fit != "auto"
    return Fitting(config.image_size, config.fit)


def fitting_for(asked: TrainingConfig, data_root: str | None, resume: bool) -> tuple[Fitting, str]:
    """How images are brought to size for a request, and a sentence where that was decided here, else "".

    What is left open is as in the run that the request goes on with, where there is one; else by the data and the device.
    """
    folder = folder_of_images(asked.dataset, data_root)
    before = _run_before(asked, folder) if resume and "auto" in (asked.image_size, asked.fit) else None
    size, fit = asked.image_size, asked.fit
    if before is not None:
        size, fit = (before.image_size if size == "auto" else size), (before.fit if fit == "auto" else fit)
    said = ""
    if size == "auto" and folder is not None:
        size, said = auto_image_size(folder, resolve_device(asked.device).type, stream_of(asked), shows_few(asked.to_dict()))
    return Fitting(IMAGE_SIZE if size == "auto" else size, "crop" if fit == "auto" else fit), said if size != IMAGE_SIZE else ""


def tell_of_before_sizes(run: Run, report: Callable[[str], None]) -> None:
    """Say of a run of a folder of photos from before their size could be chosen what its images are; nothing of any other."""
    with contextlib.suppress(OSError, ValueError):
        values = json.loads((run.folder / "config.json").read_text())
        if "image_size" not in values and values["dataset"] not in loading.NAMES:
            report(
                f"{run.folder} is of an earlier version, whose images are squashed to {IMAGE_SIZE} px: give an image_size to "
                "train a new run with larger ones."
            )


def as_held(run: Run, config: PreparedConfig, train: ImageDataset) -> PreparedConfig:
    """The configuration of a run that goes on with its images as they are held here: streamed or not, the result is the same.

    Raises `RunError` where they are streamed and the run has the engine that holds them all, which is part of the result.
    """
    if run.finished:
        return config
    if train.streamed and config.engine == "device":
        raise RunError(
            f"{run.folder} was begun with engine 'device', which holds all images in memory, but those of {train.name} are "
            "streamed here: go on where they take less than a third of the free memory, without stream=True, or set resume=False "
            "to train in a new folder."
        )
    return config.replace(stream=train.streamed)


def note_few(requested: TrainingConfig, train: ImageDataset, report: Callable[[str], None]) -> None:
    """Say of a folder of photos where its images are too few to learn from."""
    if requested.dataset not in loading.NAMES and (few := few_images(train)):
        report(few)


def folder_of_images(dataset: str, data_root: str | None) -> Path | None:
    """The folder of images that is meant, None for one of the names and for what is neither."""
    with contextlib.suppress(ValueError):  # said by the loading itself
        return loading.folder_of(dataset, data_root)
    return None


def _run_before(asked: TrainingConfig, folder: Path | None) -> ConfigValues | None:
    """The stored configuration of the run that a request most likely goes on with."""
    name = asked.run_name or (asked.default_run_name(folder.resolve().name) if folder is not None else None)
    if name is None:
        return None
    run = Run(expanded(asked.output_dir) / name)
    with contextlib.suppress(RunError, OSError, ValueError):
        return run.config() if (run.folder / "config.json").is_file() else None
    return None


def split_data(train: ImageDataset, test: ImageDataset, config: ConfigValues) -> dict[str, ImageDataset]:
    """The splits by name, with that for validation where a share is held out."""
    if not config.validation:
        return {"train": train, "test": test}
    train, validation, test = hold_out(train, test, config.validation, config.seed)
    return {"train": train, "validation": validation, "test": test}
