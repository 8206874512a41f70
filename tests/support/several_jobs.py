"""What the processes of `several.in_processes` do in the tests."""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import nn

from era_support_packages.datasets import loading
from era_support_packages.evaluation.predictions import predict
from era_support_packages.runs import recording
from era_support_packages.runs.together import prepare_together
from era_support_packages.system import machine
from era_support_packages.system.processes import ALONE, Processes, is_lost
from era_support_packages.training import batch_norm, loop, lr_finder
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.loop import fit
from era_support_packages.training.setup import build_batches, build_optimizer, build_scheduler
from era_support_packages.training.sharing import share_statistics
from era_support_packages.training.step import TrainingStep

STEPS = 20
TRAIN, TEST = colored_images(48), colored_images(30, split="test", seed=1)


def network(norm: bool = True, drop: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Two convolutions, so that Muon has one to turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(drop),
            nn.Linear(8, 3),
        ).to(memory_format=torch.channels_last)


def steps_config(optimizer: str) -> Any:
    """All that may happen to an image, so that order and draws count too."""
    augmentation = {"horizontal_flip": 0.5, "crop_padding": 2, "cutout": 3, "rgb_shift": 0.5}
    return plan(optimizer=optimizer, batch_size=16, label_smoothing=0.1, norm_bias_lr=2.0, weight_decay=0.01, **augmentation)


def steps(processes: Processes, norm: bool, optimizer: str) -> dict[str, Any]:
    """The losses of 20 steps, each the mean over the processes, and the state in the end."""
    model, config = network(norm, seed=processes.rank), steps_config(optimizer)  # the first one's weights are taken
    rule = build_optimizer(model, config)
    step = TrainingStep(model, rule, config, build_scheduler(rule, config, STEPS), processes)
    model.train()
    losses = [
        processes.mean(step(images, labels)[0]).item()
        for images, labels in build_batches(TRAIN, config, processes).epoch(8, 0, STEPS * 16)
    ]
    share_statistics(model, processes, refreshed=False)
    return {"losses": losses, "state": {name: value.numpy() for name, value in model.state_dict().items()}}


def batches(processes: Processes, engine: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """This process's part of the batches of an epoch."""
    config = steps_config("sgd").replace(engine=engine)
    return [(images.numpy(), labels.numpy()) for images, labels in build_batches(TRAIN, config, processes).epoch(8, 0, 48)]


def evaluate(processes: Processes, parts: list[tuple[int, bool]]) -> list[np.ndarray]:
    """The logits of so many test images in batches of 7, with or without their mirror images."""
    network, cpu = tiny_network().eval(), torch.device("cpu")
    return [
        predict(network, colored_images(images, split="test"), cpu, batch_size=7, flip=flip, processes=processes).logits
        for images, flip in parts
    ]


def disagree(processes: Processes, folder: Path) -> dict[str, Any]:
    """Prepare, find the rate and train where clocks and precision differ between the processes; what each of them used."""
    rank = processes.rank
    seconds = mock.Mock(side_effect=lambda *_: 1e-4 * 10**rank)
    with (
        mock.patch.object(machine, "_bf16_is_faster", return_value=rank == 1),
        mock.patch.object(lr_finder, "seconds_per_image", seconds),
        mock.patch.object(loading, "load", return_value=(TRAIN, TEST)),
    ):
        values = {"epochs": 20, "batch_size": 8, "resolutions": ((8, 1.0),), "max_lr": "auto", "preset": "smoke", "resume": True}
        values |= {"device": "cpu", "dataset": "digits", "output_dir": str(folder), "range_test_iterations": 16}
        prepared = prepare_together(processes, data_root=None, report=quiet, **values)
        model = tiny_network(seed=rank)
        prepared, result, _ = recording.choose_learning_rate(model, prepared)
        history = recording.train_in_folder(model, prepared, quiet).history
    rows = [dataclasses.replace(record, seconds=0) for record in history.records]
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    return {
        "config": prepared.config.to_dict(),
        "losses": result.losses,
        "rows": rows,
        "weights": weights,
        "measured": seconds.call_count,
    }


def run(processes: Processes, epochs: int, resume: str = "", norm: bool = True, until: int = 0, file: str = "") -> dict[str, Any]:
    """`fit` with dropout; with `until` it is broken off after that epoch, and its checkpoint stays in `file`.

    resume: the file of such a one. Tensors that are handed to processes would be shared between them.
    """

    def keep(state: Checkpoint) -> None:
        if until == len(state.records):
            state.save(Path(file))

    def stop(epoch: int) -> None:
        if until and epoch > until:
            raise InterruptedError

    begin, model = loop._train_epoch, network(norm, drop=0.3 if norm else 0.0)
    with (
        mock.patch.object(batch_norm, "FEW_STEPS", 0),
        mock.patch.object(loop, "_train_epoch", lambda *given: (stop(given[2].epoch), begin(*given))[1]),
    ):
        try:
            config = plan(epochs=epochs, batch_size=12, threads=1)
            checkpoint = Checkpoint.load(Path(resume)) if resume else None
            history = fit(model, TRAIN, TEST, config, quiet, keep, checkpoint, processes=processes).history
        except InterruptedError:
            return {}
    rows = [dataclasses.replace(record, seconds=0) for record in history.records]
    return {"rows": rows, "state": {name: value.numpy() for name, value in model.state_dict().items()}}


def tuned(processes: Processes) -> dict[str, Any]:
    """`fit` that begins with the last layer alone and ends with the mean of its last weights."""
    recipe = {"optimizer": "adamw", "max_lr": 0.01, "head_lr": 5.0, "head_first": 0.5, "freeze_norms": True, "average": 0.3}
    model = network(norm=False)
    config = plan(epochs=4, batch_size=12, threads=1, **recipe)
    history = fit(model, TRAIN, TEST, config, quiet, processes=processes).history
    return {"rows": list(history.records), "state": {name: value.numpy() for name, value in model.state_dict().items()}}


def diverge(processes: Processes) -> None:
    """One process alone gets a loss that is not a number, in its third step."""
    model, calls = network(), []

    def spoil(called: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        if called is not model:  # a copy that is asked for its logits before
            return None
        calls.append(1)
        return (given[0] * float("nan"),) if model.training and len(calls) == 3 and processes.rank == 1 else None

    config = plan(epochs=3, batch_size=12, threads=1)
    with mock.patch.object(loop, "seconds_per_image", return_value=1.0):
        model.register_forward_pre_hook(spoil)
        fit(model, TRAIN, TEST, config, quiet, processes=processes)


def settle(processes: Processes, failing: tuple[int, ...]) -> int:
    """What all do together, which fails in some."""

    def work() -> int:
        if processes.rank in failing:
            raise ValueError(f"no data in {processes.rank}")
        return processes.rank

    return processes.together(work)


def lost(processes: Processes, how: str) -> bool:
    """Whether a run ends as one that lost a process, where the second is gone or stands still in the middle of it."""
    calls = []

    def stop(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 5 and processes.rank == 1:
            if how == "gone":
                os._exit(9)
            time.sleep(10)

    model = network()
    model.register_forward_pre_hook(stop)
    try:
        fit(model, TRAIN, TEST, plan(epochs=3, batch_size=12, threads=1), quiet, processes=processes)
    except RuntimeError as error:
        return is_lost(error)
    return False


def alone(function: Any, *arguments: Any) -> Any:
    """The same in this process."""
    return function(ALONE, *arguments)
