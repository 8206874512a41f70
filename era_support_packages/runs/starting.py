"""Which recipe a run takes where that is left open: by the data, its photos, the machine, and whether there are weights."""

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from era_support_packages.datasets.batches import batch_count
from era_support_packages.datasets.sizing import median_side_of
from era_support_packages.models.libraries import is_library_name
from era_support_packages.models.pretrained import WeightsError, ensure
from era_support_packages.runs.data_sets import folder_of_images
from era_support_packages.system.machine import resolve_device, resolve_precision
from era_support_packages.system.paths import expanded
from era_support_packages.training.adapting import OF_PHOTOS, images_shown, is_pretrained
from era_support_packages.training.config import PreparedConfig, TrainingConfig

FEWEST_STEPS = 200  # of a preset with large batches; the handwritten digits would give it 26
PHOTO = 48  # px: larger ones suit a network that has learned from photos
FROM_SCRATCH = "scratch"


def recipe_for(
    preset: str, overrides: Mapping[str, Any], data_root: str | None = None, size: int | None = None
) -> TrainingConfig:
    """What is asked for with a preset and values; "auto" is "finetune" for a folder of photos of more than 48 px.

    It is "scratch" there with `pretrained=False`. A network that has no pretrained weights, and a file of weights without a
    `model`, keep "cpu" or "fast". size: px of the images, where they are loaded already.
    """
    asked = TrainingConfig.preset(preset, **overrides)
    if preset != "auto" or asked.preset_name == "finetune":
        return asked
    if overrides.get("model") is None and overrides.get("weights") is not None:
        return asked
    if overrides.get("model") is not None and not is_library_name(asked.model) and asked.weights is None:
        return asked
    folder = folder_of_images(asked.dataset, data_root)
    if folder is None:
        return asked
    side = size or (median_side_of(folder) if asked.image_size == "auto" else asked.image_size)
    if side is None or side <= PHOTO:
        return asked
    return TrainingConfig.preset("finetune" if asked.pretrained is not False else FROM_SCRATCH, **overrides)


def data_asked(values: Mapping[str, Any], preset: str, data_root: str | None) -> TrainingConfig:
    """What decides on the images of a run with these values and that preset, whatever the other values are."""
    names = ("dataset", "image_size", "fit", "device", "skip_broken", "engine", "stream", "model", "weights", "pretrained")
    return recipe_for(preset, {name: values[name] for name in names if values.get(name) is not None}, data_root)


def with_weights(
    requested: TrainingConfig,
    preset: str,
    overrides: Mapping[str, Any],
    begun: Callable[[TrainingConfig], bool],
    report: Callable[[str], None],
) -> TrainingConfig:
    """What is asked for, or where "auto" chose "finetune" and its weights cannot be had, the same with "scratch", said loudly.

    begun: whether there is a run of a request already: its checkpoint holds its weights.
    """
    if preset != "auto" or requested.preset_name != "finetune" or requested.pretrained is True or requested.weights is not None:
        return requested
    if begun(requested):
        return requested
    try:
        ensure(requested.model, is_pretrained(requested.to_dict()), requested.weights)
    except WeightsError as error:
        report("\n".join(["=" * 100, *(f"  {line}" for line in _notice(str(error))), "=" * 100]))
        return TrainingConfig.preset(FROM_SCRATCH, **{**overrides, "dataset": requested.dataset})
    return requested


def _notice(reason: str) -> tuple[str, ...]:
    return (
        "NO PRETRAINED WEIGHTS: THIS RUN TRAINS FROM SCRATCH",
        reason,
        "A network that starts with random weights needs far more photos, and will be less accurate. With the weights at hand,",
        "run the same again: they are then taken, in a run of its own.",
    )


def suited(
    requested: TrainingConfig, preset: str, overrides: Mapping[str, Any], count: int, report: Callable[[str], None]
) -> TrainingConfig:
    """For a data set too small for large batches "cpu" where the preset was left open, else what was asked for, with a note."""
    if requested.preset_name not in ("fast", "best"):
        return requested
    planned = counted(requested, count).planned_epochs(count)
    steps = sum(batch_count(epoch.images, requested.batch_size) for epoch in planned)
    if steps >= FEWEST_STEPS:
        return requested
    if preset == "auto":
        return TrainingConfig.preset("cpu", **{**overrides, "dataset": requested.dataset})
    note = f"Note: the preset {preset!r} takes only {steps} steps on these {count:,} images"
    report(f"{note}; preset='cpu' suits a small data set better.")
    return requested


def counted(requested: TrainingConfig, count: int) -> TrainingConfig:
    """The same with a number for the images that are shown of a data set of `count`, so that its epochs can be planned."""
    if requested.train_images != "auto":
        return requested
    shown = images_shown(requested.preset_name, count, resolve_device(requested.device).type)
    return requested.replace(train_images=shown)


def chosen_preset(
    overrides: Mapping[str, Any], count: int, size: int, data_root: str | None, report: Callable[[str], None]
) -> str:
    """The preset that "auto" is with these values for a data set of `count` training images of `size` px."""
    requested = suited(recipe_for("auto", overrides, data_root, size), "auto", overrides, count, report)
    return with_weights(requested, "auto", overrides, lambda _: False, report).preset_name


def tell_of_earlier(requested: TrainingConfig, overrides: Mapping[str, Any], name: str, report: Callable[[str], None]) -> None:
    """Name the run of the same values with the preset that "auto" was before it became one for photos, if only that is there."""
    root = expanded(requested.output_dir)
    named = requested.run_name is not None
    if requested.preset_name not in OF_PHOTOS or named or (root / requested.default_run_name(name)).exists():
        return
    for preset in ("cpu", "fast"):
        with contextlib.suppress(ValueError):  # values that do not go with it
            folder = root / TrainingConfig.preset(preset, **overrides).default_run_name(name)
            if (folder / "config.json").is_file():
                report(f"{folder} holds a run with the preset that 'auto' was before: to go on with it, give that one by name.")
                return


def resources(stored: PreparedConfig, requested: TrainingConfig) -> dict[str, Any]:
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
    if requested.threads == "auto" and threads > (os.cpu_count() or 1):
        threads = torch.get_num_threads()
    return {
        "device": str(device),
        "precision": resolve_precision(precision, device),
        "workers": wanted("workers"),
        "threads": threads,
    }
