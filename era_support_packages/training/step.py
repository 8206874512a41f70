"""One optimizer step on one batch, or on one process's share of it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages.models.modes import training_mode
from era_support_packages.models.weight_gradients import fast_weight_gradients
from era_support_packages.system.machine import autocast, resolve_device
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.cuda_graph import GraphedPass, Pass
from era_support_packages.training.muon import MuonWithSGD
from era_support_packages.training.sharing import parallel_network

# what draws random numbers on the device, which a recorded step must not
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class TrainingStep:
    """One optimizer step on one batch: forward in the run's precision, backward, update, schedule.

    One of several `processes` gives it its share of the batch; the gradients are averaged over all, and the weights stay equal.
    head_only: nothing but the last layer takes gradients (`phases.body_held` sees to it).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: ResolvedConfig,
        scheduler: torch.optim.lr_scheduler.OneCycleLR | None = None,
        processes: Processes = ALONE,
        head_only: bool = False,
    ) -> None:
        self.model, self.optimizer, self.config, self.scheduler = model, optimizer, config, scheduler
        self.head_only = head_only
        self.processes = processes
        if isinstance(optimizer, MuonWithSGD):
            optimizer.share_among(processes)
        self.device = resolve_device(config.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        parallel = parallel_network(model, config, processes)  # the same weights; the model itself stays as it is
        forward = torch.compile(parallel) if config.compile else parallel
        self.forward_backward = ForwardBackward(forward, optimizer, self.scaler, self.device, config)
        self.update = Update(optimizer, self.scaler, self.device)
        drops = any(isinstance(module, _DROPOUT) and module.p > 0 for module in model.modules())
        graphed = config.cuda_graph and self.device.type == "cuda" and not config.compile and not drops and processes.count == 1
        self.passes: Pass = self.forward_backward
        if self.update.on_device:
            self.passes = self._with_update
        self.passes = GraphedPass(self.passes) if graphed else self.passes

    def prepare(self) -> None:
        """Put the network into training mode: a body that does not learn keeps the statistics of its norms."""
        training_mode(self.model, self.config.freeze_norms or self.head_only)

    @property
    def rate(self) -> float:
        """The learning rate of the next step: of the body, or of the last layer where that learns alone."""
        group = self.optimizer.param_groups[-1 if self.head_only else 0]
        return float(group["lr"])

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of these images and their number of correct predictions, both still on the device."""
        if self.update.on_device:
            self.update.write_rates()
            loss, correct = self.passes(images, labels)
        else:
            loss, correct = self.passes(images, labels)
            self.update()
        if self.scheduler is not None and self.scheduler.last_epoch < self.scheduler.total_steps - 1:  # none after the last
            self.scheduler.step()
        return loss, correct

    def _with_update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both as one, which may be recorded as a whole."""
        results = self.forward_backward(images, labels)
        self.update()
        return results


class Update:
    """The update of a training step.

    Where `on_device` is true the learning rates are numbers on the GPU, which `write_rates` brings up to date: a recorded graph
    would keep those that it was recorded with. Recorded or not, the step reads the same numbers.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, device: torch.device) -> None:
        self.optimizer, self.scaler, self.device = optimizer, scaler, device
        # AdamW wants to be told beforehand that it will be recorded
        self.on_device = device.type == "cuda" and isinstance(optimizer, torch.optim.SGD | MuonWithSGD)
        self.rates: Sequence[Tensor] = ()

    def write_rates(self) -> None:
        """Put the rates of the schedule on the device, each by a kernel: a copy would wait for the steps before."""
        self.rates = self.rates or torch.zeros(len(self.optimizer.param_groups), device=self.device).unbind()
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    def __call__(self) -> None:
        """Move the weights by the gradients that they have now."""
        groups = self.optimizer.param_groups
        kept = [group["lr"] for group in groups]
        try:
            for group, rate in zip(groups, self.rates or kept, strict=True):
                group["lr"] = rate
            self.scaler.step(self.optimizer)
            self.scaler.update()
        finally:
            for group, rate in zip(groups, kept, strict=True):
                group["lr"] = rate


class ForwardBackward:
    """The part of a training step before the update: what it returns, and the gradients of the optimizer's parameters."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        config: ResolvedConfig,
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
