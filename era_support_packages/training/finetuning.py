"""A network that somebody has at hand, trained on for other classes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from era_support_packages.datasets.image_dataset import Channels, ImageDataset
from era_support_packages.datasets.normalization import STATISTICS, are_statistics
from era_support_packages.datasets.validation import hold_out, require_same_kind
from era_support_packages.models.heads import replace_head
from era_support_packages.system.machine import resolve_device
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.history import Trained
from era_support_packages.training.loop import fit
from era_support_packages.training.lr_finder import choose_max_lr, range_test
from era_support_packages.training.resolution import prepare_config

_OF_A_NAMED_NETWORK = ("model", "weights", "pretrained")


def finetune(
    network: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    *,
    mean: Channels,
    std: Channels,
    report: Callable[[str], None] = print,
    **overrides: Any,
) -> Trained:
    """Train a network that has learned already on these images, as the preset "finetune" does; returns what `fit` returns.

    Where it gives logits for another number of classes, it gets a new last layer (`models.replace_head`). The network itself is
    trained, on the device of the configuration. mean, std: of each channel, on the scale [0, 1], of the images that it learned
    from. overrides: values that change the preset, as for `TrainingConfig.preset`; with `validation` that share is held out.

    Raises `ValueError` for a mean and standard deviation that are none, a bad value, a value that names another network, and a
    network whose last layer is not found; for splits that do not go together; and what `fit` raises.

    >>> from torch import nn
    >>> from era_support_packages import load
    >>> from era_support_packages.training import finetune
    >>> train, test = load("digits")
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))
    >>> own = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> classifier, history = finetune(network, train, test, **own, train_images=64, report=lambda line: None)
    >>> network[3].out_features, classifier.mean, [record.images for record in history.records]
    (10, (0.5, 0.5, 0.5), [16, 48])
    """
    if not are_statistics(mean, std):
        raise ValueError(f"mean is {mean} and std {std}; give three numbers each, {STATISTICS}.")
    if named := [name for name in _OF_A_NAMED_NETWORK if name in overrides]:
        raise ValueError(f"{named[0]} names another network than the one that is given: leave it out.")
    require_same_kind(train, test, statistics=False)  # both get those of the network
    config = TrainingConfig.preset("finetune", **overrides)
    own: dict[str, Any] = {"mean": tuple(mean), "std": tuple(std)}
    validation = None
    if config.validation:
        train, validation, test = hold_out(train, test, config.validation, config.seed)
        validation = replace(validation, **own)
    train, test = replace(train, **own), replace(test, **own)
    prepared = prepare_config(config, train)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        replace_head(network, len(train.classes))
    network.to(resolve_device(prepared.device)).to(memory_format=torch.channels_last)
    if prepared.max_lr == "auto":
        resolved, sentence = choose_max_lr(prepared, range_test(network, train, len(test), prepared))
        report(sentence)
    else:
        resolved = prepared.resolved()
    classifier, history = fit(network, train, test, resolved, report, validation=validation)
    return Trained(replace(classifier, model=None), history)
