"""What a run will cost: seconds on this machine, and floating-point operations anywhere."""

import copy
import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from era_support_packages.datasets.batches import batch_count
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.system.machine import resolve_device
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.batch_norm import refreshed_images
from era_support_packages.training.config import ConfigValues, PreparedConfig, ResolvedConfig
from era_support_packages.training.config_fields import ALL_OUTPUTS
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.muon import ITERATIONS
from era_support_packages.training.muon_sharing import operations
from era_support_packages.training.phases import body_held, steps_of
from era_support_packages.training.plan import PlannedEpoch
from era_support_packages.training.setup import build_optimizer, muon_filters
from era_support_packages.training.step import TrainingStep

_DECODED = 16  # streamed images that are decoded to see how long it takes


@torch.random.fork_rng(devices=[])  # dropout draws from it
def seconds_per_image(model: nn.Module, config: ResolvedConfig, processes: Processes = ALONE, timed_steps: int = 2) -> float:
    """Seconds of training per image at the plan's first resolution, from a few timed steps of a copy of the model.

    With several processes those of all together; each measures its own, and they differ.
    """
    resolution = config.resolutions[0][0]
    device = resolve_device(config.device)
    twin = copy.deepcopy(model)
    step = TrainingStep(twin, build_optimizer(twin, config), config, processes=processes)
    step.prepare()
    share = config.batch_size // processes.count
    images = torch.zeros(share, 3, resolution, resolution, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(share, dtype=torch.int64, device=device)
    for _ in range(GraphedPass.WARM_UP + 1 if device.type == "cuda" else 1):  # these also allocate, choose kernels and record
        step(images, labels)[0].item()
    start = time.perf_counter()
    for _ in range(timed_steps):
        loss, _ = step(images, labels)
    loss.item()
    return (time.perf_counter() - start) / timed_steps / config.batch_size


def predicted_seconds(
    config: ConfigValues, planned: Sequence[PlannedEpoch], test_size: int, image_seconds: float, validation_size: int = 0
) -> float:
    """How long these epochs will take, from the cost of an image at the plan's first resolution: work grows with the pixels.

    An image of the test split costs a third of a training image, as one that only the last layer learns from: a forward pass
    without the two of the backward pass. Where there is a validation split, that is what is looked at after each epoch, and the
    test split only after the last.
    """
    first = config.resolutions[0][0]
    work = 0.0
    for epoch in planned:
        last = epoch is planned[-1]
        watched = validation_size or test_size
        seen = watched if last or config.test_images is None else min(config.test_images, watched)
        seen += test_size if last and validation_size else 0
        work += epoch.work + seen * epoch.resolution**2 / 3
    return work / first**2 * image_seconds


def with_decoding(
    seconds: float, train: ImageDataset, planned: Sequence[PlannedEpoch], config: PreparedConfig, processes: Processes = ALONE
) -> float:
    """The duration of these epochs of so many seconds with the decoding of their images, where they are streamed.

    A few are decoded for it. Workers decode while a GPU computes, and whatever takes longer counts; on a CPU they take turns.
    """
    if not train.streamed:
        return seconds
    few, start = train.evenly_spread(min(_DECODED, len(train))), time.perf_counter()
    for index in few:
        train.images[index]
    one = (time.perf_counter() - start) / len(few) / max(config.workers, 1) / processes.count
    decoding = one * sum(epoch.images for epoch in planned)
    return max(seconds, decoding) if config.workers and config.device != "cpu" else seconds + decoding


def training_flops(
    model: nn.Module, config: ConfigValues, planned: Sequence[PlannedEpoch], train_size: int, range_test_batches: int = 0
) -> int:
    """Floating-point operations of all forward and backward passes of these epochs and of Muon's products, 2 per multiply-add.

    `range_test_batches` counts the steps of a range test that `max_lr` came from. The forward passes by which a short run takes
    its batch-norm statistics anew count too.
    """
    whole, first = len(config.planned_epochs(train_size)), config.resolutions[0][0]
    price = {kind: flops_per_image(model, *kind) for kind in {(epoch.resolution, epoch.head_only) for epoch in planned}}
    work = 0
    for epoch in planned:
        shown = batch_count(epoch.images, config.batch_size) * min(config.batch_size, epoch.images)
        work += price[epoch.resolution, epoch.head_only] * shown
        if not epoch.head_only and (again := refreshed_images(model, config, train_size, epoch.epoch == whole)):
            work += forward_flops(model, epoch.resolution) * again
    if range_test_batches:
        work += flops_per_image(model, first) * range_test_batches * min(config.batch_size, train_size)
    if config.optimizer == "muon":
        work += muon_flops(model, config.muon_outputs, config.device) * (range_test_batches + steps_of(config, planned))
    return work


def muon_flops(model: nn.Module, outputs: int = ALL_OUTPUTS, device: str = "auto") -> int:
    """Floating-point operations of the matrix products of one step of Muon, for convolutions of at most so many outputs; 2 per
    multiply-add. On a CUDA GPU they are others than elsewhere; "auto" stands for this machine's.
    """
    kind = torch.device(resolve_device() if device == "auto" else device).type
    shapes = [(len(filters), filters[0].numel()) for filters in muon_filters(model, outputs)]
    return sum(operations(shape, ITERATIONS, kind) for shape in shapes)


@torch.random.fork_rng(devices=[])  # dropout draws from it
def flops_per_image(model: nn.Module, resolution: int, head_only: bool = False) -> int:
    """Floating-point operations of one image's forward and backward pass at that resolution, 2 per multiply-add; with
    `head_only` the backward pass ends at the last layer.

    Counted by `torch.utils.flop_counter` on a copy of the model with two images.
    """
    twin = copy.deepcopy(model).float().cpu().train()
    with body_held(twin) if head_only else nullcontext(), FlopCounterMode(display=False) as counter:
        twin(torch.zeros(2, 3, resolution, resolution)).sum().backward()
    return counter.get_total_flops() // 2


def forward_flops(model: nn.Module, resolution: int) -> int:
    """The same of its forward pass alone."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(model).float().cpu().train()(torch.zeros(2, 3, resolution, resolution))
    return counter.get_total_flops() // 2


def duration(seconds: float) -> str:
    """A duration for people: "45 s", "3 min 20 s", "1 h 05 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def announce_duration(config: ConfigValues, seconds: float) -> str:
    """The sentence before the first epoch: how long it will take, and where a GPU would help."""
    text = f"This run will take about {duration(seconds)} on this machine."
    if config.device == "cpu" and seconds > 600:
        text += " A free GPU on Colab (Runtime > Change runtime type > T4 GPU) would take a fraction of it."
    return text
