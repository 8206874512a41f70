"""The recipes whose accuracy is measured: presets, the recipes they are compared with, and what others have published."""

from dataclasses import dataclass, field
from typing import Any

from era_support_packages.training.config import TrainingConfig


@dataclass(frozen=True)
class Recipe:
    """A preset and what is changed of it.

    `on_gpu`: what is changed besides on a CUDA GPU. `equal_work`: as many images as the operations of the preset cpu pay for at
    32 px.
    """

    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    on_gpu: dict[str, Any] = field(default_factory=dict)
    equal_work: bool = False

    def overrides(self, kind: str) -> dict[str, Any]:
        """What is changed of the preset on a kind of device ("cpu", "cuda" or "mps"), the number of images included."""
        values = {**self.changes, **(self.on_gpu if kind == "cuda" else {}), "test_time_flip": True}
        if self.equal_work:
            values["train_images"] = EQUAL_WORK
        return values

    def config(self, kind: str) -> TrainingConfig:
        """The configuration as it is asked for on a kind of device, but for data set and seed."""
        return TrainingConfig.preset(self.preset, **self.overrides(kind))


EQUAL_WORK = 32_625
"""images that cost as much at 32 px as the preset cpu did when their rows were trained, 0.1086 PFLOP: now it takes a
twentieth less"""
PLAIN = {"shift_scale_rotate": 0.0, "rgb_shift": 0.0, "brightness_contrast": 0.0}  # without what the course adds
# What a tutorial would give: SGD with momentum, OneCycle, flip and padded crop, all at full resolution.
TEXTBOOK = {
    "batch_size": 128,
    "max_lr": 0.1,
    "anneal": "cos",
    "warmup": 0.3,
    "weight_decay": 5e-4,
    "crop_padding": 4,
    "horizontal_flip": 0.5,
    "cutout": 0,
    **PLAIN,
}
# KellerJordan/cifar10-zoo, airbench/baselines/train_resnet18_94.py and train_resnet18_96.py, which differ in the epochs. There
# the losses of a batch are summed, the rate is divided by the batch size and the decay multiplied by it: the same as here.
PUBLISHED = {
    "batch_size": 500,
    "max_lr": 0.2,
    "warmup": 0.2,
    "warmup_start": 0.2,
    "anneal": "linear",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_norms_and_biases": True,
    "label_smoothing": 0.0,
    "horizontal_flip": 0.5,
    "crop_padding": 4,
    "cutout": 12,
    "cutout_first": True,
    **PLAIN,
    "test_images": 2000,
}


def published(epochs: int) -> Recipe:
    """The published recipe for ResNet18, in that many epochs."""
    return Recipe("original", {**PUBLISHED, "epochs": epochs}, on_gpu={"precision": "fp16"})


RECIPES = {
    "cpu": Recipe("cpu"),
    # its range test alone would show up to three times as many images as the training: the course's rate instead
    "original at equal work": Recipe("original", {"max_lr": 0.0445}, equal_work=True),
    "textbook at equal work": Recipe("original", TEXTBOOK, equal_work=True),
    "fast": Recipe("fast"),
    "published, 8 epochs": published(8),
    "published, 26 epochs": published(26),
    "best": Recipe("best"),
    "published, 80 epochs": published(80),
    "original": Recipe("original"),
}


def tiny(recipe: Recipe) -> Recipe:
    """The recipe on 32 images of 8 px, to try in seconds that all parts work."""
    small = {"train_images": 32, "resolutions": [[8, 1.0]], "batch_size": 16, "range_test_iterations": 20, "test_images": 50}
    changes = {name: value for name, value in recipe.changes.items() if name != "epochs"}
    return Recipe(recipe.preset, {**changes, **small}, on_gpu=recipe.on_gpu)


RECIPES |= {f"{name}, tiny": tiny(recipe) for name, recipe in RECIPES.items()}

# What is known of this network with its 11,173,962 parameters, trained by others on the official files of CIFAR-10.
BY_OTHERS = [
    {
        "recipe": "26 epochs, batch 500, SGD",
        "from": "cifar10-zoo, train_resnet18_94.py",
        "test accuracy %": "93.4 to 93.5",
        "with mirror images %": "94.00 (200 runs)",
        "PFLOP": "4.35",
        "seconds": "51 to 54 (A100)",
    },
    {
        "recipe": "80 epochs, batch 500, SGD",
        "from": "cifar10-zoo, train_resnet18_96.py",
        "test accuracy %": "95.3 to 95.6",
        "with mirror images %": "95.88 (100 runs)",
        "PFLOP": "13.35",
        "seconds": "156 to 180 (A100)",
    },
    {
        "recipe": "800 epochs with mixing (CutMix; SAMix)",
        "from": "OpenMixup",
        "test accuracy %": "96.7; 97.5",
        "with mirror images %": "-",
        "PFLOP": "133",
        "seconds": "-",
    },
]
