"""A network, a data set and a plan small enough for a test: real modules and images, a few channels and a few pixels."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.training.config import PreparedConfig, ResolvedConfig, TrainingConfig

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
CLASSES = ("red", "green", "blue")


def tiny_network(classes: int = 3, seed: int = 0, drop: float = 0.0, width: int = 8) -> nn.Sequential:
    """Convolution 3 -> width, batch norm, ReLU, global pooling, dropout, linear layer; in channels_last memory."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, width, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(width),
                relu=nn.ReLU(),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                drop=nn.Dropout(drop),
                linear=nn.Linear(width, classes),
            )
        ).to(memory_format=torch.channels_last)


def colored_images(
    count: int, size: int = 8, split: str = "train", seed: int = 0, classes: tuple[str, ...] = CLASSES
) -> ImageDataset:
    """Red, green and blue noise, the class of image i being i modulo their number: separable by the mean of each channel."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % len(classes)
    images = generator.integers(0, 120, (count, size, size, 3))
    images[np.arange(count), :, :, labels % 3] += 100
    return ImageDataset(images.astype(np.uint8), labels, classes, "colours", "colours", split, MEAN, STD)


def _plain(changes: dict[str, Any]) -> dict[str, Any]:
    values = {
        "preset_name": "smoke",
        "epochs": None if "train_images" in changes else 1,
        "resolutions": ((8, 1.0),),
        "batch_size": 8,
        "max_lr": 0.1,
        "horizontal_flip": 0.0,
        "device": "cpu",
        "precision": "fp32",
        "engine": "device",
        "stream": False,
        "workers": 0,
    }
    return {**values, **changes}


def asking(**changes: Any) -> TrainingConfig:
    """What a person asks for to get `plan`."""
    return TrainingConfig(**_plain(changes))


def plan(**changes: Any) -> PreparedConfig:
    """A plain run on the CPU: no augmentation, no smoothing, batches of 8 images at 8 px, one epoch.

    A `ResolvedConfig`, but for `max_lr="auto"`, which waits for a range test.
    """
    values = {
        "dataset": "colours",
        "image_size": 32,
        "fit": "squash",
        "pretrained": False,
        "threads": torch.get_num_threads(),
        **_plain(changes),
    }
    return (PreparedConfig if values["max_lr"] == "auto" else ResolvedConfig)(**values)


def quiet(_: str) -> None:
    """A report that goes nowhere."""
