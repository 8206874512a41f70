"""The parts of a run that follow from its configuration: network, optimizer, schedule and batches."""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.models.catalog import build_network
from era_support_packages.models.heads import head_parameters
from era_support_packages.models.initialization import start_residual_blocks, whiten_first_convolution
from era_support_packages.models.pretrained import own_statistics, start
from era_support_packages.system.machine import resolve_device
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.adapting import is_pretrained
from era_support_packages.training.config import ConfigValues, PreparedConfig, ResolvedConfig
from era_support_packages.training.config_fields import ALL_OUTPUTS
from era_support_packages.training.muon import MuonWithSGD
from era_support_packages.training.sgd import SGD


def build_model(
    config: ConfigValues,
    classes: int,
    train: ImageDataset | None = None,
    from_weights: bool = True,
    report: Callable[[str], None] = print,
) -> nn.Module:
    """The network of a configuration, in channels_last memory on its device; the same weights for the same seed.

    from_weights: put in the weights that `pretrained` or `weights` name, and report where they are from; not needed for a run
    that goes on from its checkpoint.

    Raises `WeightsError` where these cannot be had or do not fit, and `ValueError` where `train` does not carry the mean and
    standard deviation that they want (`normalized_for`), and where the configuration asks for `whitening` and there are no
    training images to take it from.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import build_model
    >>> train, _ = load("digits")
    >>> network = build_model(TrainingConfig.preset("cpu"), classes=10, train=train)
    >>> type(network).__name__, network.linear.out_features
    ('ResNet', 10)
    """
    if config.whitening and train is None:
        raise ValueError("whitening starts from the training images: pass them as train=, or set whitening=False.")
    if train is not None and normalized_for(config, train)[0].mean != train.mean:
        raise ValueError(
            f"{config.model} wants images normalized as those that its weights were learned from: begin with train, test = "
            "training.normalized_for(config, train, test)."
        )
    device = resolve_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_network(config.model, classes)
    start_residual_blocks(model, config.residual_start)
    if config.whitening and train is not None:
        whiten_first_convolution(model, train)
    if from_weights and (said := start(model, config.model, is_pretrained(config.to_dict()), config.weights)):
        report(said)
    return model.to(device).to(memory_format=torch.channels_last)


def normalized_for(config: ConfigValues, *splits: ImageDataset) -> tuple[ImageDataset, ...]:
    """The splits with the mean and standard deviation that the weights which the network starts with want.

    They stay as they are where it starts with random weights, and where nothing is known of the weights' own images.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import normalized_for
    >>> config = TrainingConfig.preset("smoke", model="torchvision/resnet18", image_size=64)
    >>> train, test = normalized_for(config, *load("digits", image_size=64))
    >>> test.mean
    (0.485, 0.456, 0.406)
    """
    found = own_statistics(config.model, is_pretrained(config.to_dict()), config.weights)
    return splits if found is None else tuple(replace(split, mean=found[0], std=found[1]) for split in splits)


def build_optimizer(model: nn.Module, config: ResolvedConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on convolutions and the output layer, on norms and biases where asked
    for.

    Batch-norm biases learn at `norm_bias_lr` times `max_lr`, and where `head_lr` is not 1 the last layer at that multiple, in
    two groups at the end: its weight and its bias. With `optimizer="muon"` the filters of all convolutions but the
    first go by `Muon`, without weight decay, at `muon_lr` times `max_lr`, or those of no more than `muon_outputs` filters.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import build_model, build_optimizer, resolve
    >>> train, _ = load("digits")
    >>> config = resolve(TrainingConfig.preset("cpu"), train)
    >>> optimizer = build_optimizer(build_model(config, 10, train), config)
    >>> [round(group["lr"], 2) for group in optimizer.param_groups]  # weights, the output layer's bias, biases of norms, Muon's
    [0.1, 0.1, 6.4, 0.05]
    """
    biases = [module.bias for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.bias is not None]
    head = head_parameters(model) if config.head_lr != 1 or config.head_first else []
    filters = muon_filters(model, config.muon_outputs) if config.optimizer == "muon" else []
    filters = [weight for weight in filters if all(weight is not other for other in head)]
    apart = {id(parameter) for parameter in (*biases, *filters, *head)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    decay = config.weight_decay if config.decay_norms_and_biases else 0.0
    groups = [
        {"params": [parameter for parameter in rest if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim <= 1], "weight_decay": decay},
        {"params": biases, "weight_decay": decay, "lr": config.norm_bias_lr * config.max_lr},
    ]
    if filters:
        rate = config.muon_lr * config.max_lr
        groups.append({"params": filters, "orthogonal": True, "weight_decay": 0.0, "lr": rate})
    for weighs, part in ((config.weight_decay, head[:1]), (decay, head[1:])):
        if head:
            groups.append({"params": part, "weight_decay": weighs, "lr": config.head_lr * config.max_lr})
    if config.optimizer == "adamw":
        # PyTorch's fused step on a CPU takes gradients for laid out as their weights are
        fused = next(model.parameters()).device.type == "cuda"
        return torch.optim.AdamW(groups, lr=config.max_lr, betas=(config.momentum, 0.999), fused=fused)
    values: dict[str, Any] = {
        "lr": config.max_lr,
        "momentum": config.momentum,
        "fused": next(model.parameters()).device.type in ("cpu", "cuda"),
    }
    optimizer: torch.optim.Optimizer
    if config.optimizer == "muon":
        optimizer = MuonWithSGD(groups, **values)
    else:
        optimizer = SGD(groups, nesterov=config.momentum > 0, **values)
    if config.momentum:
        # PyTorch's fused step would leave them unset where a gradient scaler skips the very first step, and read them in the next
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def muon_filters(model: nn.Module, outputs: int = ALL_OUTPUTS) -> list[Tensor]:
    """The weights of the convolutions that Muon turns: all but the first, which sees colours and not features, and but for those
    of more than so many outputs, whose products cost the most.
    """
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)][1:]
    return [weight for weight in weights if len(weight) <= outputs]


def build_scheduler(optimizer: torch.optim.Optimizer, config: ResolvedConfig, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """OneCycle over all steps of the run: from `warmup_start` of each group's rate up to it during `warmup`, then down to zero
    (Smith & Topin 2017).

    The highest rate is that of the warm-up's last step, and zero (but for four millionths of the highest) that of the run's.
    The warm-up takes at least two steps: PyTorch divides by its length less one.
    """
    steps = max(steps, 2)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group.get("max_lr", group["lr"]) for group in optimizer.param_groups],  # of an earlier part's schedule
        total_steps=steps,
        pct_start=min(1.0, max(config.warmup, 2 / steps)),
        anneal_strategy=config.anneal,
        div_factor=1 / config.warmup_start,
        final_div_factor=250_000 * config.warmup_start,  # of the first rate
        cycle_momentum=False,
    )


def augmentation_policy(config: PreparedConfig) -> AugmentationPolicy:
    """The part of a configuration that says what may happen to a training image.

    >>> from era_support_packages import TrainingConfig, load
    >>> from era_support_packages.training import augmentation_policy, resolve
    >>> train, _ = load("digits")
    >>> policy = augmentation_policy(resolve(TrainingConfig.preset("smoke"), train))
    >>> policy.crop_padding, policy.horizontal_flip
    (2, 0.0)
    """
    return AugmentationPolicy(**{field.name: getattr(config, field.name) for field in dataclasses.fields(AugmentationPolicy)})


def build_batches(train: ImageDataset, config: PreparedConfig, processes: Processes = ALONE) -> TrainingBatches:
    """The augmented training batches of a configuration, or one process's share of each."""
    device, policy = resolve_device(config.device), augmentation_policy(config)
    return TrainingBatches(train, policy, config.batch_size, device, config.seed, config.workers, config.engine, processes)
