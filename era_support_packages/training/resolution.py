"""From what was asked for to what a run uses: "auto" is answered here, once in a run."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from era_support_packages.datasets.batches import STREAMED_ON_DEVICE
from era_support_packages.datasets.fitting import IMAGE_SIZE, Fit
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.validation import require_same_kind
from era_support_packages.models.classifier_file import description
from era_support_packages.models.libraries import check_name, check_sizes, is_library_name
from era_support_packages.system.cores import usable_cores
from era_support_packages.system.machine import resolve_device, resolve_precision
from era_support_packages.training.adapting import adapted, images_shown, is_pretrained, usual_flip
from era_support_packages.training.config import ConfigValues, PreparedConfig, ResolvedConfig, TrainingConfig

BEFORE_SIZES: dict[str, Any] = {"image_size": IMAGE_SIZE, "fit": "squash", "pretrained": False}
"""how every run was made before these values were written down"""


def resolve(config: TrainingConfig, train: ImageDataset) -> ResolvedConfig:
    """The configuration that training uses, from the one asked for, this machine and the training split.

    Raises `ValueError` where the machine lacks what is asked for, and where `max_lr` is "auto": that takes a range test between
    `prepare_config` and `choose_max_lr`.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import resolve
    >>> train, _ = load("digits")
    >>> config = resolve(TrainingConfig.preset("smoke", device="cpu"), train)
    >>> config.dataset, config.device, config.engine
    ('digits', 'cpu', 'device')
    """
    return prepare_config(config, train).resolved()


def prepare_config(config: TrainingConfig, train: ImageDataset) -> PreparedConfig:
    """The configuration with every "auto" but `max_lr` replaced by what it means on this machine and for this data set.

    Raises `ValueError` for a device or a precision that this machine lacks, for images that are of another size than asked for or
    that the network cannot take, for streamed images with an engine that holds them, and where `validation` asks for images to be
    held out and none were held out of these (`datasets.hold_out` does it).

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import prepare_config
    >>> train, _ = load("digits")
    >>> config = prepare_config(TrainingConfig.preset("original", device="cpu", horizontal_flip="auto"), train)
    >>> config.horizontal_flip, config.max_lr  # digits have no mirror image; the range test finds the rate
    (0.0, 'auto')
    """
    device = resolve_device(config.device)
    if config.precision != "auto":
        resolve_precision(config.precision, device)
    require_held_out(config, train)
    require_fitted(config, train)
    require_held(config, train)
    answers = _answers(config, device, train.name, train.image_size, train.fit, train.streamed, len(train))
    found = PreparedConfig.from_dict(adapted({**config.to_dict(), **answers}, train.image_size))
    if is_library_name(found.model):
        check_name(found.model)
        check_sizes(found.model, sorted({pixels for pixels, _ in found.resolutions}))
    return found


def stored_config(values: dict[str, Any]) -> PreparedConfig:
    """The configuration that a run's files keep, as `to_dict` wrote it.

    What an older version did not write holds its default, and is answered for this machine where that is "auto". The rest is as
    it was, a device that is not here included. Raises `ValueError` where it is no configuration.
    """
    stored = TrainingConfig.from_dict({**BEFORE_SIZES, **values} if isinstance(values, dict) else values)
    try:
        device = resolve_device(stored.device)
    except ValueError:  # it was trained elsewhere
        device = resolve_device("auto")
    return PreparedConfig.from_dict({**stored.to_dict(), **_answers(stored, device, stored.dataset)})


def require_fitted(config: ConfigValues, train: ImageDataset) -> None:
    """Raise `ValueError` where the configuration asks for images of another size, or brought to it otherwise, than these are."""
    for name, found in (("image_size", train.image_size), ("fit", train.fit)):
        if (asked := getattr(config, name)) not in ("auto", found):
            raise ValueError(
                f"{name} is {asked!r}, but these images were loaded with {name}={found!r}: load them by "
                f"datasets.load(..., image_size={config.image_size!r}, fit={'crop' if config.fit == 'auto' else config.fit!r})."
            )


def require_held(config: ConfigValues, train: ImageDataset) -> None:
    """Raise `ValueError` where the images are streamed, or in memory, and the configuration asks for the other."""
    if config.stream not in ("auto", train.streamed):
        held = "streamed" if train.streamed else "held in memory"
        raise ValueError(
            f"stream is {config.stream}, but these images are {held}: load them by datasets.load(..., stream={config.stream}), "
            "or set stream to 'auto'."
        )
    if train.streamed and config.engine == "device":
        raise ValueError(STREAMED_ON_DEVICE.format(train.name))


def require_type(config: object, kind: type[PreparedConfig]) -> None:
    """Raise `TypeError` for a configuration in which more is open than that kind allows, with the way to one."""
    if not isinstance(config, kind):
        raise TypeError(
            f"A {kind.__name__} is needed, not a {type(config).__name__}: make one with training.resolve(config, train), or "
            "where max_lr is 'auto' with training.prepare_config, training.range_test and training.choose_max_lr."
        )


def require_held_out(config: ConfigValues, train: ImageDataset) -> None:
    """Raise `ValueError` where images are to be held out for validation, and the training images are still all that were read."""
    if config.validation and not train.held_out:
        raise ValueError(
            f"validation is {config.validation}, but nothing is held out of these training images: begin with train, validation, "
            f"test = datasets.hold_out(train, test, {config.validation}, seed={config.seed}), and give fit validation=validation."
        )


def require_splits(config: ConfigValues, train: ImageDataset, test: ImageDataset, validation: ImageDataset | None) -> None:
    """Raise `ValueError` where the splits are not those that the configuration speaks of, not of one data set, or empty.

    A test split that is left unread may be empty.
    """
    for name, split in (("training", train), ("test", test if config.final_test else None), ("validation", validation)):
        if split is not None and not len(split):
            raise ValueError(f"The {name} split has no images: give one of at least one image.")
    require_held_out(config, train)
    if (validation is None) == bool(config.validation):
        raise ValueError(
            f"validation is {config.validation} in the configuration, and {'no' if validation is None else 'a'} validation split "
            "is given: a share takes the split that datasets.hold_out held out, and 0 takes none."
        )
    if validation is not None and validation.split != "validation":
        raise ValueError(
            f"validation= is a split named {validation.split!r}, which a choice by its rows would not leave alone: give the "
            "one that datasets.hold_out held out, or name one of your own by dataclasses.replace(split, split='validation')."
        )
    require_same_kind(train, test, *([] if validation is None else [validation]))


def require_same_data(kept: Mapping[str, Any] | None, train: ImageDataset) -> None:
    """Raise `ValueError` where a run that goes on began with other classes, or with images made otherwise, than these.

    kept: what its checkpoint has of its classifier (`models.classifier_file.description`), None in one of before.
    """
    now, before = description(None, train, 0), kept or {}
    for name in ("classes", "mean", "std", "bits", "image_size", "fit"):
        if name in before and before[name] != now[name]:
            apart = "other classes, or in another order" if name == "classes" else f"{name} {before[name]!r}, not {now[name]!r}"
            raise ValueError(
                f"resume= is a run on other images than these ({apart}): give the splits that it began with, or train from the "
                "start."
            )


def _answers(
    config: ConfigValues,
    device: torch.device,
    dataset: str,
    image_size: int = IMAGE_SIZE,
    fit: Fit = "squash",
    streamed: bool = False,
    count: int = 0,
) -> dict[str, Any]:
    """What "auto" means for each value that is left open, `max_lr` aside."""
    answers: dict[str, Callable[[], Any]] = {
        "dataset": lambda: dataset,
        "image_size": lambda: image_size,
        "fit": lambda: fit,
        "pretrained": lambda: is_pretrained(config.to_dict()),
        "train_images": lambda: images_shown(config.preset_name, count, device.type),
        "device": lambda: str(device),
        "precision": lambda: resolve_precision("auto", device),
        "engine": lambda: "samples" if streamed else "device",
        "stream": lambda: streamed,
        "workers": lambda: usual_workers(device.type, streamed, config.engine),
        "threads": torch.get_num_threads,
        "horizontal_flip": lambda: usual_flip(dataset),
    }
    return {name: answer() for name, answer in answers.items() if getattr(config, name) == "auto"}


def usual_workers(device: str, streamed: bool, engine: str) -> int:
    """What `workers` becomes where it is left open: streamed images keep every core of a machine with a GPU busy, up to 8; on a
    CPU, where training itself does, one decodes ahead.
    """
    if streamed:
        return min(8, usable_cores()) if device == "cuda" else 1
    return 2 if device == "cuda" and engine == "samples" else 0
