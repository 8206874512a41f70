"""The presets: each a recipe with its reasons, as what differs from the defaults of `TrainingConfig`."""

from collections.abc import Mapping
from typing import Any

# what the presets for a GPU share; Muon brought up to 2.4 points over SGD at batch 128, see benchmarks/README.md
_WITH_MUON: dict[str, Any] = {
    "batch_size": 512,
    "optimizer": "muon",
    "muon_lr": 0.25,
    "momentum": 0.6,
    "max_lr": 0.4,
    "norm_bias_lr": 16,
    "label_smoothing": 0.1,
    "whitening": True,
    "residual_start": "dirac",
}


def named_preset(preset: Any, overrides: Mapping[str, Any]) -> Any:
    """The preset whose values are checked before anything is known of machine and data: these decide on no value's range."""
    if preset != "auto":
        return preset
    return "finetune" if overrides.get("pretrained") is True else "cpu"


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
    # a good result for 1.30 PFLOP, as much as eight epochs at 32 px; for a GPU
    "fast": {
        "epochs": 13,
        "resolutions": ((16, 0.31), (24, 0.46), (32, 0.23)),  # 4, 6 and 3 epochs: more passes for the same work
        **_WITH_MUON,
        "crop_padding": 2,
        "alternating_flip": True,  # with few passes, a coin shows some images only one way round
        "range_test_iterations": 150,
        "test_images": 2000,  # between epochs; the whole split would add a twentieth to the run's work
        "test_time_flip": True,
    },
    # a better one for 9.6 PFLOP
    "best": {
        "epochs": 64,
        "resolutions": ((24, 0.3), (32, 0.7)),
        **_WITH_MUON,
        "crop_padding": 4,
        "alternating_flip": True,
        "cutout": 12,
        "range_test_iterations": 200,
        "test_images": 2000,
        "test_time_flip": True,
    },
    # 0.10 PFLOP, minutes on two cores: most images at a quarter of the work of 32 px, the rest at 0.56 of it
    "cpu": {
        "train_images": 79_400,
        "max_epochs": 10,  # of a small data set
        "resolutions": ((16, 0.6), (24, 0.4)),  # too few could be afforded at 32 px for it to adapt to that size
        "batch_size": 64,  # few, for more steps for the same work; with fewer still, Muon's products would be too much of it
        "optimizer": "muon",
        "muon_lr": 0.5,
        "muon_outputs": 256,  # the 512 filters of layer4 would take seven eighths of the products
        "momentum": 0.85,
        "max_lr": 0.1,
        "label_smoothing": 0.1,
        "whitening": True,
        "norm_bias_lr": 64,
        "residual_start": "dirac",
        "alternating_flip": True,  # with the two above 2.1 points more on held-out images
        "range_test_iterations": 60,
        "test_images": 2000,
    },
    # photos: a network that has learned from millions of them, first its new last layer alone, then all of it, gently
    "finetune": {
        "model": "torchvision/resnet18",
        "train_images": "auto",
        "max_epochs": 30,  # of a few photos
        "batch_size": 32,
        "optimizer": "adamw",
        "max_lr": 0.0005,
        "head_lr": 10.0,
        "head_first": 0.25,  # a random last layer would send noise into a body that has learned
        "freeze_norms": True,  # statistics of few photos are worse than those it came with
        "warmup": 0.2,
        "weight_decay": 0.05,
        "average": 0.1,
        "label_smoothing": 0.1,
        "crop_padding": 2,
        "alternating_flip": True,
        "range_test_iterations": 60,
        "test_images": 2000,
        "test_time_flip": True,
    },
    # photos without such weights: the same network from the start, longer, its first half on smaller images
    "scratch": {
        "model": "torchvision/resnet18",
        "pretrained": False,
        "train_images": "auto",
        "max_epochs": 60,
        "resolutions": ((0.5, 0.5), (1.0, 0.5)),
        "batch_size": 32,
        "max_lr": 0.05,
        "label_smoothing": 0.1,
        "random_resized_crop": 0.35,  # many passes over few photos need more variety
        "range_test_iterations": 60,
        "test_images": 2000,
        "test_time_flip": True,
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
