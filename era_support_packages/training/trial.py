"""Whether a run fits into memory, found before it trains: by a trial step on a GPU, by arithmetic on a CPU."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.models.copies import detached_copy
from era_support_packages.system.machine import resolve_device
from era_support_packages.system.memory import free_memory, in_words
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.failures import OutOfMemoryError, way_out
from era_support_packages.training.plan import PlannedEpoch
from era_support_packages.training.setup import build_optimizer
from era_support_packages.training.step import TrainingStep

MOST_OF_A_PIXEL = 32_768  # bytes that training keeps for each pixel of a batch: no usual network keeps as much


def require_memory(
    model: nn.Module,
    train: ImageDataset,
    config: ResolvedConfig,
    epochs: Sequence[PlannedEpoch],
    processes: Processes = ALONE,
) -> None:
    """Find out whether the largest step of these epochs fits into memory; model and random state stay as they are.

    On a GPU it is tried, on a copy of the model, except where the network is compiled, which takes longer than it saves.
    On a CPU nothing is tried, as a machine that runs out of memory ends the process without a word: what a step keeps at
    the very least is counted.

    Raises `OutOfMemoryError` where it plainly does not fit; on a GPU that may also be PyTorch's own error.
    """
    largest = max(epochs, key=lambda epoch: _pixels(epoch, config))
    images = min(config.batch_size, largest.images) // processes.count
    if is_tried(config):
        try_step(model, train, config, images, largest.resolution, processes)
    elif config.device == "cpu":
        _require_counted(model, config, images, largest.resolution)


def is_tried(config: ResolvedConfig) -> bool:
    """Whether a step is tried on the device of this configuration."""
    return config.device != "cpu" and not config.compile


def _pixels(epoch: PlannedEpoch, config: ResolvedConfig) -> int:
    return min(config.batch_size, epoch.images) * epoch.resolution**2


def try_step(
    model: nn.Module, train: ImageDataset, config: ResolvedConfig, images: int, resolution: int, processes: Processes = ALONE
) -> None:
    """Train a copy of the model on empty images for a step, and for one that finds what the optimizer holds since the first."""
    device = resolve_device(config.device)
    on_device = train.images.nbytes if config.engine != "samples" else 0
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        twin = detached_copy(model).train()
        step = TrainingStep(twin, build_optimizer(twin, config), config, processes=processes)
        data = torch.empty(on_device, dtype=torch.uint8, device=device)
        pixels = torch.zeros(images, 3, resolution, resolution, device=device).contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(images, dtype=torch.int64, device=device)
        for _ in range(2):
            step(pixels, labels)[0].item()
        del data


# ---- counted ---------------------------------------------------------------------------------------------------------


def _require_counted(model: nn.Module, config: ResolvedConfig, images: int, resolution: int) -> None:
    free = free_memory()
    if free is None or images * resolution**2 * MOST_OF_A_PIXEL < free:
        return
    needed = least_memory(model, config, images, resolution)
    if needed is not None and needed > free:
        raise OutOfMemoryError(
            f"A training step at batch_size={config.batch_size} and {resolution} px takes at least {in_words(needed)} of memory, "
            f"and {in_words(free)} are free: {way_out(config)}."
        )


def least_memory(model: nn.Module, config: ResolvedConfig, images: int, resolution: int) -> int | None:
    """Bytes that a training step takes at the very least beside the model: gradients, momentum, and what the backward pass needs.

    The last is counted by a forward pass without values, on PyTorch's meta device. None where the network has none.
    """
    learned = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    try:
        with torch.random.fork_rng(devices=[]):
            twin = copy.deepcopy(model).to("meta").train()
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                twin(torch.empty(images, 3, resolution, resolution, device="meta"))
    except Exception:  # a module that asks for values, or for another device
        return None
    own = {StorageWeakRef(parameter.untyped_storage()) for parameter in twin.parameters()}
    found = {StorageWeakRef(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in kept}  # views share one
    saved = sum(size for storage, size in found.items() if storage not in own)
    return learned * (2 if config.momentum else 1) + saved // (1 if config.precision == "fp32" else 2)
