"""The parts of a run: the last layer alone, where it comes first, then all of the network; and the mean of the last weights."""

import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from era_support_packages.datasets.batches import batch_count
from era_support_packages.models.heads import head_parameters
from era_support_packages.models.modes import without_gradients
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import ConfigValues, ResolvedConfig
from era_support_packages.training.plan import PlannedEpoch
from era_support_packages.training.setup import build_optimizer, build_scheduler
from era_support_packages.training.step import TrainingStep


def steps_of(config: ConfigValues, planned: Sequence[PlannedEpoch], head_only: bool | None = None) -> int:
    """The optimizer's steps in these epochs: in all of them, or only where the last layer learns alone or where it does not."""
    counted = (epoch for epoch in planned if head_only is None or epoch.head_only == head_only)
    return sum(batch_count(epoch.images, config.batch_size) for epoch in counted)


def body_held(model: nn.Module) -> AbstractContextManager[None]:
    """While it lasts, nothing but the last layer takes gradients; afterwards each parameter does as before."""
    own = {id(parameter) for parameter in head_parameters(model)}
    return without_gradients(parameter for parameter in model.parameters() if id(parameter) not in own)


class Phases:
    """The steps of a run, each part of it with a schedule of its own; one optimizer goes through both.

    What takes no gradients before the run takes none in it. `close` puts the others back as they were.
    """

    def __init__(
        self, model: nn.Module, config: ResolvedConfig, planned: Sequence[PlannedEpoch], processes: Processes = ALONE
    ) -> None:
        self.model, self.config, self.planned, self.processes = model, config, planned, processes
        self.optimizer = build_optimizer(model, config)
        self.average = WeightAverage(model, config, planned)
        self.step: TrainingStep | None = None
        self._held = ExitStack()

    def step_for(self, epoch: PlannedEpoch) -> TrainingStep:
        """What trains an epoch: the same step within a part."""
        if self.step is None or self.step.head_only != epoch.head_only:
            self._begin(epoch.head_only)
        assert self.step is not None
        return self.step

    def _begin(self, head_only: bool) -> None:
        if self.step is not None:
            self.step = None
            gc.collect()  # the hooks by which several processes average the gradients go with what averaged them
        self.close()
        if head_only:
            self._held.enter_context(body_held(self.model))
        steps = steps_of(self.config, self.planned, head_only)
        scheduler = build_scheduler(self.optimizer, self.config, steps)
        self.step = TrainingStep(self.model, self.optimizer, self.config, scheduler, self.processes, head_only)

    def close(self) -> None:
        """Let every parameter take gradients as before the run."""
        self._held.close()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        assert self.step is not None
        assert self.step.scheduler is not None
        states = {name: getattr(self.step, name).state_dict() for name in ("optimizer", "scheduler", "scaler")}
        return {**states, "average": self.average.state()}

    def restore(self, checkpoint: Checkpoint) -> TrainingStep:
        """Put in the weights, optimizer, schedule and scaler of a checkpoint; returns the step that goes on from there."""
        if checkpoint.optimizer is None or checkpoint.scheduler is None:
            raise ValueError(
                f"resume= is a finished run ({checkpoint.planned} of {checkpoint.planned} epochs), which keeps no optimizer to "
                "go on with; train from the start."
            )
        done = len(checkpoint.records)
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        step = self.step_for(self.planned[done])
        assert step.scheduler is not None  # only trials have none
        if self.planned[done - 1].head_only == self.planned[done].head_only:  # else the schedule of this part begins
            self.optimizer.load_state_dict(checkpoint.optimizer)
            step.scheduler.load_state_dict(checkpoint.scheduler)
        if checkpoint.scaler:  # empty in a precision that needs none
            step.scaler.load_state_dict(checkpoint.scaler)
        self.average.restore(checkpoint.average, steps_of(self.config, self.planned[:done]))
        return step


class WeightAverage:
    """The mean of the weights after each of the last steps of a run (Izmailov et al. 2018, "Averaging weights leads to wider
    optima"), as long as its share asks for one; it changes nothing before `put_in`.
    """

    def __init__(self, model: nn.Module, config: ConfigValues, planned: Sequence[PlannedEpoch]) -> None:
        steps, of_head = steps_of(config, planned), steps_of(config, planned, head_only=True)
        self.model, self.done = model, 0
        self.first = max(of_head, steps - max(1, round(config.average * steps)))
        self.averaged: AveragedModel | None = None
        if config.average:
            self.averaged = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())

    def update(self) -> None:
        """Count a step, and take its weights in where it is one of the last."""
        self.done += 1
        if self.averaged is not None and self.done > self.first:
            self.averaged.update_parameters(self.model)

    @torch.no_grad()
    def put_in(self) -> None:
        """Give the network the mean instead of its last weights."""
        if self.averaged is not None:
            for own, mean in zip(self.model.parameters(), self.averaged.module.parameters(), strict=True):
                own.copy_(mean)

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint keeps; None where there is no average."""
        return None if self.averaged is None else dict(self.averaged.state_dict())

    def restore(self, state: dict[str, Any] | None, done: int) -> None:
        """Go on from a state after so many steps of the run."""
        self.done = done
        if self.averaged is not None and state is not None:
            self.averaged.load_state_dict(state)
