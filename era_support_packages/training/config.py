"""The configuration of a training run, in three types: what was asked for, what is stored, what is used.

`TrainingConfig` is what a person asks for, and may hold "auto". `PreparedConfig` is what the machine and the data have made of
it; only `max_lr` may wait for the range test. It is what a run's config.json and checkpoint keep: the names and values of
`to_dict`, the same in every version, where a field that came later holds its default in a file that lacks it. `ResolvedConfig`
is what training uses: no value of it is "auto". `training.resolution` leads from one to the next.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from era_support_packages.datasets.fitting import Fit
from era_support_packages.models.catalog import Network, is_network
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.settings import fields, is_text, narrowed, problems, setting
from era_support_packages.training import asked, config_checks as checks
from era_support_packages.training.plan import PlannedEpoch, Resolutions, blocks_of_images, blocks_of_passes, planned_epochs
from era_support_packages.training.presets import PRESETS

if TYPE_CHECKING:
    from typing_extensions import Self

Auto = Literal["auto"]
Precision = Literal["fp32", "bf16", "fp16"]
Engine = Literal["device", "samples"]


@dataclass(frozen=True)
class ConfigValues:
    """The fields of a configuration, each with its range and its help beside it, and what all three types have in common.

    Raises `ValueError` with one sentence for each bad value, all of them at once.
    """

    preset_name: str
    dataset: str = setting(
        "auto",
        "auto (CIFAR-10, else handwritten digits), cifar10, cifar100, digits, or a folder of images",
        group="data and network",
    )
    image_size: int | Auto = setting(
        "auto", 'px of the square images; "auto" is 32, or what suits a folder', low=32, high=512, auto="what suits the data"
    )
    fit: Auto | Fit = setting("auto", 'how they are made square: "crop", which "auto" takes, "pad" with gray, or "squash"')
    model: Network = setting("ResNet18", "the network", test=is_network)
    pretrained: bool | Auto = setting(
        "auto", 'start from the weights of torchvision or timm; "auto" does for their networks', auto="these"
    )
    weights: str | None = setting(
        None, "file of weights to start from (.pth, .safetensors)", wanted="the path of a file as text, or None", test=is_text
    )
    epochs: int | None = setting(None, "passes over the training images", low=1, high=10_000, group="length")
    train_images: int | None = setting(None, "instead of epochs: images shown in all", low=1, high=10**9)
    max_epochs: int | None = setting(None, "with train_images: no more passes than this", low=1, high=10_000)
    resolutions: Resolutions = setting(
        ((32, 1.0),),
        "(pixels, share of the images) in the order they are used; up to 1, pixels are a share of image_size",
        wanted=checks.PLAN,
        test=checks.is_plan,
    )
    batch_size: int = setting(512, "images a step", low=2, high=65_536)
    max_lr: float | Auto = setting(
        "auto",
        'peak learning rate; "auto" takes the range test\'s suggestion',
        above=0,
        high=100,
        auto="the range test's suggestion",
        group="learning rate and optimizer",
    )
    warmup: float = setting(0.25, "share of the run in which the learning rate rises to max_lr", low=0, high=1)
    warmup_start: float = setting(0.04, "share of max_lr that the warm-up begins with", low=0.0001, high=1)
    anneal: Literal["linear", "cos"] = setting("linear", "how the learning rate falls to zero after the warm-up")
    optimizer: Literal["sgd", "muon"] = setting(
        "sgd", "sgd, or muon for the filters of all convolutions but the first and SGD for the rest"
    )
    muon_lr: float = setting(
        0.25, "Muon's rate as a multiple of max_lr: the share of its own length by which a filter bank turns", low=0, high=1000
    )
    momentum: float = setting(0.9, "Nesterov momentum", low=0, high=0.9999)
    weight_decay: float = setting(5e-4, "on convolutions and the output layer, but not on what Muon turns", low=0, high=1)
    decay_norms_and_biases: bool = setting(False, "whether weight_decay is for norms and biases too")
    label_smoothing: float = setting(0.0, "share of the target that is spread over all classes", low=0, high=0.99)
    norm_bias_lr: float = setting(1.0, "learning rate of batch-norm biases as a multiple of max_lr", low=0, high=1000)
    residual_start: Literal["random", "dirac", "zero"] = setting(
        "random", "last convolution of each residual block: random, dirac (as the identity) or zero", group="start of the network"
    )
    whitening: bool = setting(False, "start the first convolution from the principal components of 3x3 training patches")
    horizontal_flip: float | Auto = setting(
        "auto",
        'probability; "auto" is 0.5, but 0 for digits, which have no mirror image',
        low=0,
        high=1,
        group="augmentation of the training images",
    )
    alternating_flip: bool = setting(False, "mirror each image in every other pass instead of tossing a coin in each")
    crop_padding: int = setting(0, "px of reflected border around the image before a random crop of its size", low=0, high=511)
    random_resized_crop: float = setting(
        0.0, "smallest share of the area that a random crop keeps, enlarged to the whole; 0 for none", low=0, high=1
    )
    cutout: int = setting(0, "side in px of one square filled with the mean color", low=0, high=512)
    cutout_first: bool = setting(False, "cut out before the crop, which moves the square and may mirror it into its border")
    shift_scale_rotate: float = setting(
        0.0, "probability; shift and scale by up to 5 %, rotate by up to 15 degrees", low=0, high=1
    )
    rgb_shift: float = setting(0.0, "probability; each channel by up to 20 of 255", low=0, high=1)
    brightness_contrast: float = setting(0.0, "probability; each by up to 20 %", low=0, high=1)
    range_test_iterations: int = setting(100, "steps of the learning-rate range test", low=16, high=10_000, group="tests")
    validation: float = setting(0.0, "share of the training images held out by class and seed, to choose by", low=0, high=0.5)
    test_images: int | None = setting(
        None, "test or validation images looked at between epochs; the last epoch always sees the whole split", low=1, high=10**9
    )
    final_test: bool = setting(True, "look at the test split; false leaves it unread to the end, which takes a validation share")
    skip_broken: bool = setting(False, "leave damaged image files out, and say how many, instead of naming them and ending")
    test_time_flip: bool = setting(False, "at the end, also score the mean over each test image and its mirror image")
    precision: Auto | Precision = setting("auto", "of the forward pass", group="machine")
    device: str = setting(
        "auto", "where to train: auto, cpu, cuda, cuda:1, mps", wanted=checks.ASKED_DEVICES, test=checks.is_asked_device
    )
    engine: Auto | Engine = setting(
        "auto", 'augment by the batch on the "device", or "samples" one by one in workers; "auto": the device, unless streamed'
    )
    stream: bool | Auto = setting("auto", "decode a folder's images when they are used", auto="what memory asks for")
    workers: int | Auto = setting("auto", 'processes of the engine "samples"; "auto": by what they do', low=0, high=64)
    threads: int | Auto = setting("auto", 'of PyTorch on the CPU; "auto" is what PyTorch finds', low=1, high=1024)
    cuda_graph: bool = setting(
        True, "on a GPU, launch a step's forward and backward pass as one recorded graph, to the same numbers"
    )
    compile: bool = setting(False, "train the network compiled by torch.compile, which takes time before the first step")
    sync_batch_norm: bool = setting(False, "several processes on GPUs share the statistics of batch norm at every step")
    deterministic: bool = setting(
        False, "on a GPU, only algorithms that give the same bits each time (slower); a CPU's always do"
    )
    seed: int = setting(0, "of weights, order and augmentation", low=0, high=2**32 - 1, group="run")
    run_name: str | None = setting(
        None, "name of the run's folder; None makes one from the values", wanted=checks.FOLDER_NAME, test=checks.is_folder_name
    )
    output_dir: str = setting("runs", "folder for the folders of runs")
    tracker: checks.TrackerName | None = setting(None, "where the rows, values and figures of the run are shown too")

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
        last of which may be a partial one.
        """
        if self.epochs is not None:
            blocks = blocks_of_passes(self.resolutions, self.epochs, training_images)
        else:
            assert self.train_images is not None  # one of them is given
            blocks = blocks_of_images(self.resolutions, self.train_images, self.max_epochs, training_images)
        return planned_epochs(blocks, training_images, self.batch_size)


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
    (3, 32, 0.07)
    >>> TrainingConfig.preset("cpu", epoch=3)
    Traceback (most recent call last):
        ...
    ValueError: Unknown parameter 'epoch': did you mean 'epochs' or 'max_epochs'?
    """

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
        return cls.from_dict(asked.preset_values(name, overrides, {field.name for field in dataclasses.fields(cls)}))

    def default_run_name(self, dataset: str) -> str:
        """A name that changes with every value that decides the result: `cpu-cifar10-3f2a91`.

        It is made from the values as they were asked for, and without those of the machine: the same request finds the same
        folder on another machine. What holds its default is left out, so that a parameter added later renames nothing.
        """
        default = TrainingConfig(self.preset_name, epochs=self.epochs, train_images=self.train_images)
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
    0.07
    """

    max_lr: float = narrowed(_OPEN["max_lr"])
