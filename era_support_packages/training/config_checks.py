"""What a configuration's values may be, and the sentence for each that is not."""

import math
import re
from typing import Any

from era_support_packages.datasets.augmentation_policy import ENGINES
from era_support_packages.models.catalog import MODELS
from era_support_packages.system.naming import nearest_names
from era_support_packages.training.presets import PRESETS

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CHECK_EXTENTS = ("auto", "full")
CAM_METHODS = (  # the keys of gradcam.methods.METHODS, here because that module takes seconds to import
    "gradcam",
    "gradcam++",
    "hirescam",
    "xgradcam",
    "layercam",
    "eigengradcam",
    "eigencam",
    "scorecam",
    "ablationcam",
    "fullgrad",
)


def problems(config: Any) -> list[str]:
    """One sentence for each bad value of a `TrainingConfig` (which imports this module): what was given, and what is allowed."""
    return [*_problems_with_names(config), *_problems_with_numbers(config), *_problems_with_length(config)]


# name: (type, lowest, highest); None as a bound means open
_RANGES: dict[str, tuple[type, float | None, float | None]] = {
    "epochs": (int, 1, 10_000),
    "train_images": (int, 1, 10**9),
    "max_epochs": (int, 1, 10_000),
    "batch_size": (int, 2, 65_536),
    "warmup": (float, 0, 1),
    "warmup_start": (float, 1e-4, 1),
    "muon_lr": (float, 0, 1000),
    "momentum": (float, 0, 0.9999),
    "weight_decay": (float, 0, 1),
    "label_smoothing": (float, 0, 0.99),
    "norm_bias_lr": (float, 0, 1000),
    "crop_padding": (int, 0, 31),
    "cutout": (int, 0, 32),
    "shift_scale_rotate": (float, 0, 1),
    "rgb_shift": (float, 0, 1),
    "brightness_contrast": (float, 0, 1),
    "range_test_iterations": (int, 16, 10_000),
    "test_images": (int, 1, 10**9),
    "seed": (int, 0, 2**32 - 1),
}
_SWITCHES = (
    "decay_norms_and_biases",
    "whitening",
    "alternating_flip",
    "cutout_first",
    "test_time_flip",
    "cuda_graph",
    "compile",
    "deterministic",
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "model": MODELS,
    "precision": PRECISIONS,
    "anneal": ("linear", "cos"),
    "optimizer": ("sgd", "muon"),
    "residual_start": ("random", "dirac", "zero"),
    "engine": ENGINES,
}


def _is_number(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind is float and isinstance(value, float) and math.isfinite(value))


def _problems_with_names(config: Any) -> list[str]:
    problems = []
    if not isinstance(config.preset_name, str) or config.preset_name not in PRESETS:
        problems.append(f"Unknown preset {config.preset_name!r}: {nearest_names(config.preset_name, PRESETS)}")
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            problems.append(f"{name} is {value!r}: {nearest_names(value, choices)}")
    for name in ("dataset", "output_dir"):
        value = getattr(config, name)
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            problems.append(f"{name} is {value!r}; give it as text.")
    if not isinstance(config.device, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,2})?", config.device, re.ASCII):
        problems.append(f"device is {config.device!r}: choose one of 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.")
    for name in _SWITCHES:
        if not isinstance(getattr(config, name), bool):
            problems.append(f"{name} is {getattr(config, name)!r}; give True or False.")
    name = config.run_name
    if name is not None and (
        not isinstance(name, str)
        or not name.strip()
        or name != name.strip()
        or name[0] == "."
        or set(name) & set('/\\:*?"<>|\n\0')
        or len(name.encode(errors="replace")) > 200  # file systems take 255, a suffix and temporary names included
    ):
        problems.append(
            f"run_name is {name!r}; give a folder name of at most 200 bytes without slashes, quotes, line breaks and "
            ": * ? < > |, with no space at its ends and no dot at its start."
        )
    return problems


def _problems_with_numbers(config: Any) -> list[str]:
    problems = []
    for name, (kind, low, high) in _RANGES.items():
        value = getattr(config, name)
        if value is None and name in ("epochs", "train_images", "max_epochs", "test_images"):
            continue
        if not _is_number(value, kind) or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            problems.append(f"{name} is {value!r}; give {noun} from {low} to {high}.")
    if config.max_lr != "auto" and not (_is_number(config.max_lr, float) and 0 < config.max_lr <= 100):
        problems.append(
            f"max_lr is {config.max_lr!r}; give a number above 0 and up to 100, or 'auto' for the range test's suggestion."
        )
    if config.horizontal_flip != "auto" and not (_is_number(config.horizontal_flip, float) and 0 <= config.horizontal_flip <= 1):
        problems.append(f"horizontal_flip is {config.horizontal_flip!r}; give a number from 0 to 1, or 'auto'.")
    elif config.alternating_flip is True and config.horizontal_flip not in ("auto", 0, 0.5):
        problems.append(
            f"alternating_flip is True and horizontal_flip is {config.horizontal_flip!r}; an alternating flip mirrors each image "
            "in every other pass: set horizontal_flip to 0.5, to 'auto', or to 0 for no flip, or alternating_flip to False."
        )
    if config.workers != "auto" and not (_is_number(config.workers, int) and 0 <= config.workers <= 64):
        problems.append(f"workers is {config.workers!r}; give a whole number from 0 to 64, or 'auto'.")
    if config.threads != "auto" and not (_is_number(config.threads, int) and 1 <= config.threads <= 1024):
        problems.append(f"threads is {config.threads!r}; give a whole number from 1 to 1024, or 'auto'.")
    plan = config.resolutions
    well_formed = isinstance(plan, tuple) and plan and all(isinstance(step, tuple) and len(step) == 2 for step in plan)
    if not (
        well_formed
        and all(_is_number(pixels, int) and 8 <= pixels <= 32 for pixels, _ in plan)
        and all(_is_number(share, float) and 0 < share <= 1 for _, share in plan)
        and math.isclose(sum(share for _, share in plan), 1, abs_tol=1e-6)
    ):
        problems.append(
            f"resolutions is {plan!r}; give a list of (pixels from 8 to 32, share of the images), with shares that add up to 1, "
            "such as [(16, 0.7), (32, 0.3)]."
        )
    return problems


def _problems_with_length(config: Any) -> list[str]:
    if (config.epochs is None) == (config.train_images is None):
        return [
            f"epochs is {config.epochs!r} and train_images is {config.train_images!r}; give exactly one of them: the passes over "
            "the training split, or the images shown in all."
        ]
    return []
