"""The parts of a run that follow from its configuration: network, optimizer, schedule, batches, and the single step."""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages import custom_resnet, resnet
from era_support_packages.augmentation import AugmentationPolicy
from era_support_packages.batches import TrainingBatches
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import autocast, resolve_device, resolve_precision
from era_support_packages.image_dataset import ImageDataset
from era_support_packages.initialisation import start_residual_blocks, whiten_first_convolution
from era_support_packages.muon import Muon
from era_support_packages.step_graph import GraphedPass
from era_support_packages.weight_gradients import fast_weight_gradients

# what draws random numbers on the device, which a recorded step must not
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def resolve(config: TrainingConfig, dataset: ImageDataset | None = None) -> TrainingConfig:
    """The configuration with every "auto" but `max_lr` replaced by what it means on this machine and, where given, data set."""
    device = resolve_device(config.device)
    flip = config.horizontal_flip
    if flip == "auto" and dataset is not None:
        flip = 0.0 if dataset.name == "digits" else 0.5
    engine = "device" if config.engine == "auto" else config.engine
    busy = device.type == "cuda" and engine == "samples"
    workers = (2 if busy else 0) if config.workers == "auto" else config.workers
    return config.replace(
        dataset=dataset.name if dataset is not None and config.dataset == "auto" else config.dataset,
        device=str(device),
        precision=resolve_precision(config.precision, device),
        engine=engine,
        workers=workers,
        threads=torch.get_num_threads() if config.threads == "auto" else config.threads,
        horizontal_flip=flip,
    )


def build_model(config: TrainingConfig, classes: int, train: ImageDataset | None = None) -> nn.Module:
    """The network of a configuration, in channels_last memory on its device; the same weights for the same seed.

    Raises `ValueError` where the configuration asks for `whitening` and there are no training images to take it from.
    """
    if config.whitening and train is None:
        raise ValueError("whitening starts from the training images: pass them as train=, or set whitening=False.")
    device = resolve_device(config.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.model == "resnet_custom":
            model: nn.Module = custom_resnet.resnet_custom(num_classes=classes)
        else:
            model = getattr(resnet, config.model)(classes)
    start_residual_blocks(model, config.residual_start)
    if config.whitening:
        whiten_first_convolution(model, train)
    return model.to(device, memory_format=torch.channels_last)


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay on convolutions and the output layer, on norms and biases where asked for.

    Batch-norm biases learn at `norm_bias_lr` times `max_lr`. With `optimizer="muon"` the filters of all convolutions but the
    first go by `Muon`, without weight decay, at `muon_lr` times `max_lr`.
    """
    biases = [module.bias for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module.bias is not None]
    filters = muon_filters(model) if config.optimizer == "muon" else []
    apart = {id(parameter) for parameter in (*biases, *filters)}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    learning_rate = config.max_lr if config.max_lr != "auto" else 0.01
    decay = config.weight_decay if config.decay_norms_and_biases else 0.0
    groups = [
        {"params": [parameter for parameter in rest if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim <= 1], "weight_decay": decay},
        {"params": biases, "weight_decay": decay, "lr": config.norm_bias_lr * learning_rate},
    ]
    values = {
        "lr": learning_rate,
        "momentum": config.momentum,
        "fused": next(model.parameters()).device.type in ("cpu", "cuda"),
    }
    if config.optimizer == "muon":
        rate = config.muon_lr * learning_rate
        optimizer = Muon([*groups, {"params": filters, "orthogonal": True, "weight_decay": 0.0, "lr": rate}], **values)
    else:
        optimizer = torch.optim.SGD(groups, nesterov=config.momentum > 0, **values)
    if config.momentum:
        # PyTorch's fused step would leave them unset where a gradient scaler skips the very first step, and read them in the next
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def muon_filters(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the convolutions that Muon turns: all but the first, which sees colours and not features."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)][1:]


def build_scheduler(optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """OneCycle over all steps of the run: from `warmup_start` of each group's rate up to it during `warmup`, then down to zero
    (Smith & Topin 2017).

    The highest rate is that of the warm-up's last step, and zero (but for four millionths of the highest) that of the run's.
    The warm-up takes at least two steps: PyTorch divides by its length less one.
    """
    steps = max(steps, 2)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=min(1.0, max(config.warmup, 2 / steps)),
        anneal_strategy=config.anneal,
        div_factor=1 / config.warmup_start,
        final_div_factor=250_000 * config.warmup_start,  # of the first rate
        cycle_momentum=False,
    )


def augmentation_policy(config: TrainingConfig) -> AugmentationPolicy:
    """The part of a configuration that says what may happen to a training image."""
    return AugmentationPolicy(**{field.name: getattr(config, field.name) for field in dataclasses.fields(AugmentationPolicy)})


def build_batches(train: ImageDataset, config: TrainingConfig) -> TrainingBatches:
    """The augmented training batches of a resolved configuration."""
    device, policy = resolve_device(config.device), augmentation_policy(config)
    return TrainingBatches(train, policy, config.batch_size, device, config.seed, config.workers, config.engine)


class TrainingStep:
    """One optimizer step on one batch: forward in the run's precision, backward, update, schedule."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        scheduler: torch.optim.lr_scheduler.OneCycleLR | None = None,
    ) -> None:
        self.model, self.optimizer, self.config, self.scheduler = model, optimizer, config, scheduler
        self.device = resolve_device(config.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        forward = torch.compile(model) if config.compile else model  # the same weights; the model itself stays as it is
        single = ForwardBackward(forward, optimizer, self.scaler, self.device, config)
        drops = any(isinstance(module, _DROPOUT) and module.p > 0 for module in model.modules())
        graphed = config.cuda_graph and self.device.type == "cuda" and not config.compile and not drops
        self.forward_backward = GraphedPass(single) if graphed else single

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's mean loss and its number of correct predictions, both still on the device."""
        loss, correct = self.forward_backward(images, labels)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scheduler is not None and self.scheduler.last_epoch < self.scheduler.total_steps - 1:  # none after the last
            self.scheduler.step()
        return loss, correct


class ForwardBackward:
    """The part of a training step before the update: what it returns, and the gradients of the optimizer's parameters."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        config: TrainingConfig,
    ) -> None:
        self.forward, self.optimizer, self.scaler, self.device, self.config = forward, optimizer, scaler, device, config
        self.fast_gradients = fast_weight_gradients(device, config.precision)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's mean loss and its number of correct predictions."""
        with autocast(self.device, self.config.precision), self.fast_gradients:
            logits = self.forward(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        return loss.detach(), (logits.detach().argmax(dim=1) == labels).sum()
