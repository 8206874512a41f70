"""The configuration of one training run: a frozen value with presets, checked as a whole when it is made."""

import dataclasses
import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from typing import Any

from era_support_packages.system.naming import nearest_names
from era_support_packages.training.config_checks import problems
from era_support_packages.training.presets import PRESETS

_NOT_IN_THE_NAME = ("run_name", "output_dir", "device", "workers", "threads", "cuda_graph")


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
    warmup_start: float = 0.04  # share of max_lr that the warm-up begins with
    anneal: str = "linear"  # how it falls to zero after that: "linear" or "cos"
    optimizer: str = "sgd"  # "sgd", or "muon" for the filters of all convolutions but the first and SGD for the rest
    muon_lr: float = 0.25  # Muon's rate as a multiple of max_lr; it is the share of its own length by which a filter bank turns
    momentum: float = 0.9  # Nesterov
    weight_decay: float = 5e-4  # on convolutions and the output layer, but not on what Muon turns
    decay_norms_and_biases: bool = False  # whether weight_decay is for norms and biases too
    label_smoothing: float = 0.0
    norm_bias_lr: float = 1.0  # learning rate of batch-norm biases as a multiple of max_lr
    residual_start: str = "random"  # last convolution of each residual block: "random", "dirac" (as the identity) or "zero"
    whitening: bool = False  # start the first convolution from the principal components of 3x3 training patches
    horizontal_flip: float | str = "auto"  # probability; "auto" is 0.5, but 0 for digits, which have no mirror image
    alternating_flip: bool = False  # mirror each image in every other pass instead of tossing a coin in each
    crop_padding: int = 0  # px of reflected border around the image before a random crop of the old size
    cutout: int = 0  # side in px of one square filled with the mean colour
    cutout_first: bool = False  # cut out before the crop, which moves the square and may mirror it into its border
    shift_scale_rotate: float = 0.0  # probability; shift and scale by up to 5 %, rotate by up to 15 degrees
    rgb_shift: float = 0.0  # probability; each channel by up to 20 of 255
    brightness_contrast: float = 0.0  # probability; each by up to 20 %
    range_test_iterations: int = 100
    test_images: int | None = None  # test images looked at between epochs; the last epoch always sees the whole test split
    test_time_flip: bool = False  # at the end, also score the mean over each test image and its mirror image
    precision: str = "auto"
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    engine: str = "auto"  # augments by the batch on the "device", which "auto" takes, or "samples" one by one in workers
    workers: int | str = "auto"  # processes of the engine "samples"; "auto" is 2 with a GPU, 0 on a CPU
    threads: int | str = "auto"  # of PyTorch on the CPU; "auto" is what PyTorch finds
    cuda_graph: bool = True  # on a GPU, launch a step's forward and backward pass as one recorded graph, to the same numbers
    compile: bool = False  # train the network compiled by torch.compile, which takes time before the first step
    deterministic: bool = False  # on a GPU, only algorithms that give the same bits each time (slower); a CPU's always do
    seed: int = 0
    run_name: str | None = None  # None makes one from the values above
    output_dir: str = "runs"

    # ---- presets -----------------------------------------------------------------------------------------------------

    @classmethod
    def preset(cls, name: str, /, **overrides: Any) -> "TrainingConfig":
        """The preset of that name with some values changed; an override of `None` keeps the preset's value.

        "auto" is "fast" with a CUDA GPU and "cpu" without. Giving `epochs` replaces a preset's `train_images` and
        `max_epochs`, and the other way round; a `horizontal_flip` that an alternating flip does not go with replaces the preset's
        `alternating_flip`. Raises `ValueError` for an unknown preset or parameter, or a bad value.
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
        if given.get("horizontal_flip", "auto") not in ("auto", 0, 0.5) and "alternating_flip" not in given:
            values.pop("alternating_flip", None)
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
        folder on another machine. What holds its default is left out, so that a parameter added later renames nothing.
        """
        default = TrainingConfig(self.preset_name, epochs=self.epochs, train_images=self.train_images).to_dict()
        values = {key: value for key, value in self.to_dict().items() if key not in _NOT_IN_THE_NAME and value != default[key]}
        values |= {"preset_name": self.preset_name, "epochs": self.epochs, "train_images": self.train_images}
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
        if found := problems(self):
            raise ValueError(" ".join(found))
