"""The configuration of one training run: a frozen value with presets, checked as a whole when it is made."""

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MODELS = ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "resnet_custom")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def nearest_names(name: object, valid: Iterable[str]) -> str:
    """The valid names nearest to a mistyped one, as text for an error message; all of them where none is near."""
    valid = list(valid)
    near = difflib.get_close_matches(str(name), valid, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"choose one of {', '.join(map(repr, valid))}."


@dataclass(frozen=True)
class PlannedEpoch:
    """One row of a run: `images` training images shown at `resolution` px, the first of them being number `start` of the run."""

    epoch: int
    resolution: int
    start: int
    images: int

    @property
    def end(self) -> int:
        """The number of the first image after it."""
        return self.start + self.images


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a run. Make one with `TrainingConfig.preset(name, **overrides)`.

    The length is given by exactly one of `epochs` (passes over the training split) and `train_images` (images shown, whatever
    the size of the data set: a small one gets more passes, up to `max_epochs`). `resolutions` is a plan of (pixels, share of
    the images).
    A value of "auto" is resolved once, when the run starts, and written down with it.

    Raises `ValueError` with one sentence for each bad value, all of them at once.
    """

    preset_name: str
    dataset: str = "auto"  # "auto", "cifar10", "cifar100", "digits" or a folder of images
    model: str = "ResNet18"
    epochs: int | None = None  # passes over the training split, or
    train_images: int | None = None  # images shown in all, but
    max_epochs: int | None = None  # no more passes than this over a small data set
    resolutions: tuple[tuple[int, float], ...] = ((32, 1.0),)  # (pixels, share of the images), in the order they are used
    batch_size: int = 512
    max_lr: float | str = "auto"  # peak of the OneCycle schedule; "auto" takes the range test's suggestion
    warmup: float = 0.25  # share of the run in which the learning rate rises to max_lr
    anneal: str = "linear"  # how it falls to zero after that: "linear" or "cos"
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 5e-4  # on convolutions and the output layer; never on norms and biases
    label_smoothing: float = 0.0
    whitening: bool = False  # start the first convolution from the principal components of 3x3 training patches
    horizontal_flip: float | str = "auto"  # probability; "auto" is 0.5, but 0 for digits, which have no mirror image
    crop_padding: int = 0  # px of reflected border around the image before a random crop of the old size
    cutout: int = 0  # side in px of one square filled with the mean colour
    shift_scale_rotate: float = 0.0  # probability; shift and scale by up to 5 %, rotate by up to 15 degrees
    rgb_shift: float = 0.0  # probability; each channel by up to 20 of 255
    brightness_contrast: float = 0.0  # probability; each by up to 20 %
    range_test_iterations: int = 100
    test_images: int | None = None  # test images looked at between epochs; the last epoch always sees the whole test split
    test_time_flip: bool = False  # at the end, also score the mean over each test image and its mirror image
    precision: str = "auto"
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    workers: int | str = "auto"  # processes that augment; "auto" is 2 with a GPU, 0 on a CPU
    threads: int | str = "auto"  # of PyTorch on the CPU; "auto" is what PyTorch finds
    deterministic: bool = False  # on a GPU, only algorithms that give the same bits each time (slower); a CPU's always do
    seed: int = 0
    run_name: str | None = None  # None makes one from the values above
    output_dir: str = "runs"

    # ---- presets -----------------------------------------------------------------------------------------------------

    @classmethod
    def preset(cls, name: str, /, **overrides: Any) -> "TrainingConfig":
        """The preset of that name with some values changed; an override of `None` keeps the preset's value.

        "auto" is "fast" with a CUDA GPU and "cpu" without. Giving `epochs` replaces a preset's `train_images` and
        `max_epochs`, and the other way round. Raises `ValueError` for an unknown preset or parameter, or a bad value.
        """
        if name == "auto":
            import torch

            name = "fast" if torch.cuda.is_available() else "cpu"
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}: {nearest_names(name, ['auto', *PRESETS])}")
        names = {field.name for field in dataclasses.fields(cls)}
        given = {key: value for key, value in overrides.items() if value is not None or key not in names}
        values = {**PRESETS[name], "preset_name": name}
        if "epochs" in given and "train_images" not in given:
            values.pop("train_images", None)
        if "train_images" in given and "epochs" not in given:
            values.pop("epochs", None)
        if {"epochs", "train_images"} & given.keys():
            values.pop("max_epochs", None)
        return cls.from_dict({**values, **given})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingConfig":
        """The configuration written by `to_dict`. Raises `ValueError` for unknown names and bad values."""
        if not isinstance(values, dict):
            raise ValueError(f"A configuration is a table of names and values, not {values!r}.")
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in values if key not in names]
        if unknown:
            raise ValueError(" ".join(f"Unknown parameter {key!r}: {nearest_names(key, names)}" for key in unknown))
        if "preset_name" not in values:
            raise ValueError(f"A configuration needs preset_name: {nearest_names('', PRESETS)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps exactly."""
        values = dataclasses.asdict(self)
        values["resolutions"] = [list(step) for step in self.resolutions]
        return values

    def replace(self, **changes: Any) -> "TrainingConfig":
        """A copy with some values changed, checked again."""
        return self.from_dict({**self.to_dict(), **changes})

    # ---- what follows from the values --------------------------------------------------------------------------------

    def planned_epochs(self, training_images: int) -> tuple[PlannedEpoch, ...]:
        """The run as a list of epochs for a training split of that size; each is one row of the log.

        Planned in `epochs`, each is one pass, and the resolutions share out whole passes; where there are fewer passes than
        resolutions, the first resolutions are left out. Planned in `train_images`, each resolution is cut into passes, the
        last of which may be a partial one.
        """
        if self.epochs is not None:
            resolutions = self.resolutions[-self.epochs :]
            total_share = sum(share for _, share in resolutions)
            sizes, done, cumulative = [], 0, 0.0
            for position, (_, share) in enumerate(resolutions):
                cumulative += share / total_share
                left = len(resolutions) - position - 1  # each later resolution keeps at least one pass
                until = min(max(round(cumulative * self.epochs), done + 1), self.epochs - left)
                sizes.append((until - done) * training_images)
                done = until
        else:
            resolutions = self.resolutions
            sums = list(itertools.accumulate(share for _, share in resolutions))
            images = min(self.train_images, (self.max_epochs or math.inf) * training_images)
            ends = [0] + [round(share / sums[-1] * images) for share in sums]
            sizes = [end - start for start, end in itertools.pairwise(ends)]
        planned: list[PlannedEpoch] = []
        start = 0
        for (resolution, _), size in zip(resolutions, sizes, strict=True):
            while size > 0:
                images = min(size, training_images)
                if 0 < size - images < min(self.batch_size, training_images):  # less than a batch would be a row of its own
                    images = size
                planned.append(PlannedEpoch(len(planned) + 1, resolution, start, images))
                start, size = start + images, size - images
        return tuple(planned)

    def default_run_name(self, dataset: str) -> str:
        """A name that changes with every value that decides the result: `cpu-cifar10-3f2a91`.

        It is made from the values as they were asked for, and without those of the machine: the same request finds the same
        folder on another machine.
        """
        values = {key: value for key, value in self.to_dict().items() if key not in _NOT_IN_THE_NAME}
        values = json.loads(json.dumps(values), parse_int=float)  # 1 and 1.0 are the same value
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        return f"{self.preset_name}-{dataset}-{digest[:6]}"

    def differences(self, stored: "TrainingConfig") -> list[str]:
        """What a stored, resolved configuration has otherwise: "batch_size 64 (here 32)". "auto" differs from nothing."""
        own, other = self.to_dict(), stored.to_dict()
        return [
            f"{name} {other[name]!r} (here {own[name]!r})"
            for name in own
            if name not in _NOT_IN_THE_NAME and own[name] not in ("auto", other[name])
        ]

    def __str__(self) -> str:
        """The values, one a line."""
        values = self.to_dict()
        width = max(map(len, values))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items() if value is not None)

    # ---- validation --------------------------------------------------------------------------------------------------

    def __post_init__(self) -> None:
        if isinstance(self.resolutions, list | tuple):
            plan = tuple(tuple(step) if isinstance(step, list | tuple) else step for step in self.resolutions)
            object.__setattr__(self, "resolutions", plan)
        problems = [*_problems_with_names(self), *_problems_with_numbers(self), *_problems_with_length(self)]
        if problems:
            raise ValueError(" ".join(problems))


# Presets name only what differs from the defaults above.
PRESETS: dict[str, dict[str, Any]] = {
    # the course recipe of 2023 as its author meant it: the yardstick
    "original": {
        "epochs": 25,
        "batch_size": 512,
        "anneal": "cos",  # OneCycleLR's default
        "warmup": 0.3,
        "weight_decay": 0.0,
        "horizontal_flip": 0.1,
        "cutout": 16,
        "shift_scale_rotate": 0.5,
        "rgb_shift": 0.4,
        "brightness_contrast": 0.5,
        "range_test_iterations": 200,
    },
    # a good result in the fewest epochs on a GPU
    "fast": {
        "epochs": 10,
        "resolutions": ((24, 0.5), (32, 0.5)),  # half the run at 0.56 of the work
        "batch_size": 256,
        "max_lr": 0.3,
        "label_smoothing": 0.1,
        "whitening": True,
        "crop_padding": 2,
        "range_test_iterations": 150,
        "test_time_flip": True,
    },
    # the best result that an hour buys on a small GPU
    "best": {
        "epochs": 60,
        "batch_size": 256,
        "max_lr": 0.3,
        "label_smoothing": 0.1,
        "whitening": True,
        "crop_padding": 4,
        "cutout": 12,
        "range_test_iterations": 200,
        "test_time_flip": True,
    },
    # a few minutes on two cores: most images at a quarter of the work, the last ones at full size
    "cpu": {
        "train_images": 30_000,
        "max_epochs": 16,
        "resolutions": ((16, 0.7), (24, 0.18), (32, 0.12)),  # the tail lets it adapt to the size it is tested at
        "batch_size": 32,  # more steps for the same work
        "max_lr": 0.07,
        "label_smoothing": 0.1,
        "whitening": True,
        "range_test_iterations": 60,
        "test_images": 2000,
    },
    # seconds, for continuous integration: shows that all parts work, learns little
    "smoke": {
        "train_images": 1024,
        "resolutions": ((16, 1.0),),
        "batch_size": 32,
        "max_lr": 0.01,
        "crop_padding": 2,
        "range_test_iterations": 20,
        "test_images": 200,
    },
}

_NOT_IN_THE_NAME = ("run_name", "output_dir", "device", "workers", "threads")

# name: (type, lowest, highest); None as a bound means open
_RANGES: dict[str, tuple[type, float | None, float | None]] = {
    "epochs": (int, 1, 10_000),
    "train_images": (int, 1, 10**9),
    "max_epochs": (int, 1, 10_000),
    "batch_size": (int, 2, 65_536),
    "warmup": (float, 0, 1),
    "momentum": (float, 0, 0.9999),
    "weight_decay": (float, 0, 1),
    "label_smoothing": (float, 0, 0.99),
    "crop_padding": (int, 0, 31),
    "cutout": (int, 0, 32),
    "shift_scale_rotate": (float, 0, 1),
    "rgb_shift": (float, 0, 1),
    "brightness_contrast": (float, 0, 1),
    "range_test_iterations": (int, 16, 10_000),
    "test_images": (int, 1, 10**9),
    "seed": (int, 0, 2**32 - 1),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "model": MODELS,
    "precision": PRECISIONS,
    "anneal": ("linear", "cos"),
}


def _is_number(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind is float and isinstance(value, float) and math.isfinite(value))


def _problems_with_names(config: TrainingConfig) -> list[str]:
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
    for name in ("whitening", "test_time_flip", "deterministic"):
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


def _problems_with_numbers(config: TrainingConfig) -> list[str]:
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


def _problems_with_length(config: TrainingConfig) -> list[str]:
    if (config.epochs is None) == (config.train_images is None):
        return [
            f"epochs is {config.epochs!r} and train_images is {config.train_images!r}; give exactly one of them: the passes over "
            "the training split, or the images shown in all."
        ]
    return []
