"""The configuration of a training run, in three types: what was asked for, what is stored, what is used.

`TrainingConfig` is what a person asks for, and may hold "auto". `PreparedConfig` is what the machine and the data have made of
it; only `max_lr` may wait for the range test. It is what a run's config.json and checkpoint keep: the names and values of
`to_dict`, the same in every version, where a field that came later holds its default in a file that lacks it. `ResolvedConfig`
is what training uses: no value of it is "auto". `training.resolution` leads from one to the next.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from era_support_packages.datasets.fitting import Fit
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.settings import fields, narrowed, problems
from era_support_packages.training import asked, config_checks as checks
from era_support_packages.training.config_fields import ConfigFields, Engine, Precision
from era_support_packages.training.plan import (
    PlannedEpoch,
    Resolutions,
    blocks_of_images,
    blocks_of_passes,
    passes_for_head,
    planned_epochs,
)
from era_support_packages.training.presets import PRESETS

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ConfigValues(ConfigFields):
    """What all three types have in common; their fields stand in `config_fields`.

    Raises `ValueError` with one sentence for each bad value, all of them at once.
    """

    def __post_init__(self) -> None:
        if isinstance(self.resolutions, list | tuple):
            plan = tuple(tuple(step) if isinstance(step, list | tuple) else step for step in self.resolutions)
            object.__setattr__(self, "resolutions", plan)
        known = isinstance(self.preset_name, str) and self.preset_name in PRESETS
        unknown = [] if known else [f"Unknown preset {self.preset_name!r}: {nearest_names(self.preset_name, PRESETS)}"]
        if found := [*unknown, *problems(self), *checks.problems_together(self)]:
            raise ValueError(" ".join(found))

    # ---- as a table of plain values ------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Self":
        """The configuration written by `to_dict`. Raises `ValueError` for unknown names, missing ones and bad values."""
        if not isinstance(values, dict):
            raise ValueError(f"A configuration is a table of names and values, not {values!r}.")
        own = {field.name: field for field in dataclasses.fields(cls)}
        if unknown := [key for key in values if key not in own]:
            raise ValueError(" ".join(f"Unknown parameter {key!r}: {nearest_names(key, own)}" for key in unknown))
        if "preset_name" not in values:
            raise ValueError(f"A configuration needs preset_name: {nearest_names('', PRESETS)}")
        if missing := [name for name, field in own.items() if field.default is dataclasses.MISSING and name not in values]:
            raise ValueError(f"A resolved configuration needs {', '.join(missing)} too.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON keeps exactly."""
        values = dataclasses.asdict(self)
        values["resolutions"] = [list(step) for step in self.resolutions]
        return values

    def replace(self, **changes: Any) -> "Self":
        """A copy with some values changed, checked again."""
        return self.from_dict({**self.to_dict(), **changes})

    def __str__(self) -> str:
        """The values, one a line."""
        values = self.to_dict()
        width = max(map(len, values))
        return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items() if value is not None)

    # ---- what follows from the values ----------------------------------------------------------------------------------

    def planned_epochs(self, training_images: int) -> tuple[PlannedEpoch, ...]:
        """The run as a list of epochs for a training split of that size; each is one row of the log.

        Planned in `epochs`, each is one pass, and the resolutions share out whole passes; where there are fewer passes than
        resolutions, the first resolutions are left out. Planned in `train_images`, each resolution is cut into passes, the
        last of which may be a partial one. With `head_first` the first epochs are those of the last layer alone: whole passes
        where the run is planned in these.
        """
        if self.epochs is not None:
            blocks = blocks_of_passes(self.resolutions, self.epochs, training_images)
            head_images = passes_for_head(self.head_first, self.epochs) * training_images
        else:
            assert isinstance(self.train_images, int)  # a request is resolved before it is planned
            blocks = blocks_of_images(self.resolutions, self.train_images, self.max_epochs, training_images)
            head_images = round(self.head_first * sum(images for _, images in blocks))
        return planned_epochs(blocks, training_images, self.batch_size, head_images)


@dataclass(frozen=True)
class TrainingConfig(ConfigValues):
    """What a person asks for. Make one with `TrainingConfig.preset(name, **overrides)`.

    The length is given by exactly one of `epochs` (passes over the training split) and `train_images` (images shown, whatever
    the size of the data set: a small one gets more passes, up to `max_epochs`). `resolutions` is a plan of (pixels, share of
    the images), where pixels up to 1 are a share of `image_size`. What a preset says in px is for images of 32 px, and grows
    with them.
    A value of "auto" is resolved once, when the run starts, and written down with it.

    Raises `ValueError` with one sentence for each bad value, all of them at once.

    >>> from era_support_packages import TrainingConfig
    >>> config = TrainingConfig.preset("cpu", epochs=3)
    >>> config.epochs, config.batch_size, config.max_lr
    (3, 64, 0.1)
    >>> TrainingConfig.preset("cpu", epoch=3)
    Traceback (most recent call last):
        ...
    ValueError: Unknown parameter 'epoch': did you mean 'epochs' or 'max_epochs'?
    """

    @classmethod
    def preset(cls, name: str, /, **overrides: Any) -> "TrainingConfig":
        """The preset of that name with some values changed; an override of `None` keeps the preset's value.

        "auto" is "finetune" with `pretrained=True`, else "fast" with a CUDA GPU and "cpu" without; `runs.prepare` also looks at
        the data. Giving `epochs` replaces a preset's `train_images` and `max_epochs`, and the other way round; a
        `horizontal_flip` that an alternating flip does not go with replaces the preset's `alternating_flip`. Raises `ValueError`
        for an unknown preset or parameter, or a bad value.
        """
        if name == "auto":
            import torch

            name = "finetune" if overrides.get("pretrained") is True else "fast" if torch.cuda.is_available() else "cpu"
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"Unknown preset {name!r}: {nearest_names(name, ['auto', *PRESETS])}")
        return cls.from_dict(asked.preset_values(name, overrides, {field.name for field in dataclasses.fields(cls)}))

    def default_run_name(self, dataset: str) -> str:
        """A name that changes with every value that decides the result: `cpu-cifar10-3f2a91`.

        It is made from the values as they were asked for, and without those of the machine: the same request finds the same
        folder on another machine. What holds its default is left out, so that a parameter added later renames nothing.
        """
        default = TrainingConfig("cpu", epochs=self.epochs, train_images=self.train_images)
        return asked.run_name(self, default, dataset)

    def differences(self, stored: ConfigValues) -> list[str]:
        """What a stored configuration has otherwise: "batch_size 64 (here 32)". "auto" differs from nothing."""
        return asked.differences(self, stored)


_OPEN = fields(ConfigValues)


@dataclass(frozen=True)
class PreparedConfig(ConfigValues):
    """A request resolved for this machine and this data. Only `max_lr` may still be "auto", for the range test to find.

    This is what a run's folder keeps. Made by `training.prepare_config`.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import prepare_config
    >>> train, _ = load("digits")
    >>> config = prepare_config(TrainingConfig.preset("original"), train)
    >>> config.dataset, config.horizontal_flip, config.max_lr
    ('digits', 0.1, 'auto')
    """

    dataset: str = narrowed(_OPEN["dataset"], wanted="its name or its folder", test=checks.is_resolved_text)
    image_size: int = narrowed(_OPEN["image_size"])
    fit: Fit = narrowed(_OPEN["fit"])
    pretrained: bool = narrowed(_OPEN["pretrained"])
    resolutions: Resolutions = narrowed(_OPEN["resolutions"], test=checks.is_plan_in_pixels)
    train_images: int | None = narrowed(_OPEN["train_images"], default=None)
    horizontal_flip: float = narrowed(_OPEN["horizontal_flip"])
    precision: Precision = narrowed(_OPEN["precision"])
    device: str = narrowed(_OPEN["device"], wanted=f"one of {checks.DEVICES}", test=checks.is_device)
    engine: Engine = narrowed(_OPEN["engine"])
    stream: bool = narrowed(_OPEN["stream"])
    workers: int = narrowed(_OPEN["workers"])
    threads: int = narrowed(_OPEN["threads"])

    def resolved(self, max_lr: float | None = None) -> "ResolvedConfig":
        """With that `max_lr`, or the one that it has. Raises `ValueError` where neither is a number."""
        rate = self.max_lr if max_lr is None else max_lr
        if rate == "auto":
            raise ValueError("max_lr is still 'auto'; run the range test first and take its suggestion, or give a number.")
        return ResolvedConfig.from_dict({**self.to_dict(), "max_lr": rate})


@dataclass(frozen=True)
class ResolvedConfig(PreparedConfig):
    """What a run uses: no value of it is "auto". Made by `training.resolve`, or after a range test by `choose_max_lr`.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import resolve
    >>> train, _ = load("digits")
    >>> resolve(TrainingConfig.preset("cpu"), train).max_lr
    0.1
    """

    max_lr: float = narrowed(_OPEN["max_lr"])
