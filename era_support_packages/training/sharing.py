"""What several processes that train one network agree on: its configuration, its gradients, its batch-norm statistics."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from era_support_packages.system.processes import Processes, timeout
from era_support_packages.training.config import ConfigValues, PreparedConfig, ResolvedConfig

Config = TypeVar("Config", bound=PreparedConfig)
LOOK_EVERY = 50  # steps: how often several processes bring their losses together within an epoch


def process_count(devices: int | str, asked: str, device: torch.device) -> int:
    """How many processes train on so many devices of this machine: "all" is one for each GPU, and one where there is none.

    asked: the device of the configuration; device: what it is here. Raises `ValueError` where there are not as many GPUs, and for
    several where one GPU is named or the time that they wait for each other is no number.
    """
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    count = max(gpus, 1) if devices == "all" else int(devices)
    if count == 1:
        return 1
    timeout()  # what they would refuse
    if device.type == "cuda" and asked not in ("auto", "cuda"):
        raise ValueError(f"device is {asked!r} and devices is {devices!r}: set device to 'cuda', or devices to 1.")
    if device.type == "cuda" and count > gpus:
        raise ValueError(f"devices is {devices!r}, but this machine has {gpus} CUDA GPU{'s' * (gpus > 1)}: set devices to 'all'.")
    if device.type not in ("cuda", "cpu"):
        raise ValueError(f"devices is {devices!r}, but {device.type!r} is one device: set devices to 1, or device to 'cpu'.")
    return count


def require_shares(config: ConfigValues, training_images: int, processes: Processes) -> None:
    """Raise `ValueError` where the batches cannot be shared out evenly, with the nearest size that can.

    Each process needs two images of a batch, as its batch norm takes its statistics from them.
    """
    count = processes.count
    if count == 1:
        return
    if config.sync_batch_norm and config.device == "cpu":
        raise ValueError(
            "sync_batch_norm is True, but PyTorch synchronises batch norm on GPUs alone: set it to False, or device to 'cuda'."
        )
    size = config.batch_size
    if size % count or size < 2 * count:
        below, above = (size // count * count, (size // count + 1) * count)
        near = [value for value in (below, above) if value >= 2 * count] or [2 * count]
        raise ValueError(
            f"batch_size is {size}, which {count} processes cannot share out evenly with two images or more for each: give "
            f"{' or '.join(map(str, near))}, or start another number of processes."
        )
    small = {epoch.images for epoch in config.planned_epochs(training_images) if epoch.images < size}
    for images in sorted(images for images in small if images % count or images < 2 * count):
        raise ValueError(
            f"An epoch of {images} images is less than a batch (batch_size {size}), and {count} processes cannot share it out "
            "evenly with two images or more for each: give a batch_size below that, or start another number of processes."
        )


def share_size(batch_size: int, processes: Processes) -> int:
    """The largest batch up to that size that the processes can share out evenly."""
    return batch_size - batch_size % processes.count


def settled_config(config: Config, processes: Processes) -> Config:
    """The configuration of the first process, with the device of this one: what was timed may differ between them."""
    if processes.count == 1:
        return config
    values = processes.from_first(config.to_dict())
    return type(config).from_dict({**values, "device": processes.device(values["device"])})


def parallel_network(network: nn.Module, config: ResolvedConfig, processes: Processes) -> nn.Module:
    """The network with its gradients averaged over the processes, and its batch norm synchronised where that is asked for."""
    if processes.count > 1 and config.sync_batch_norm:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network, processes.group)  # in place; the parameters stay the same
    return processes.parallel(network)


def share_statistics(network: nn.Module, processes: Processes, refreshed: bool) -> None:
    """Give the network the same running statistics on all processes: their mean, or where they were taken anew the first's."""
    if processes.count == 1:
        return
    buffers = [values for values in network.buffers() if values.is_floating_point()]
    if refreshed:
        processes.send(buffers)
        return
    for values in buffers:
        values.copy_(processes.mean(values))


def random_states(state: dict[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """The random state of all processes by name, "cpu" that of the first and "cpu 1" that of the next."""
    found = processes.gathered(state)
    return {name if rank == 0 else f"{name} {rank}": value for rank, values in enumerate(found) for name, value in values.items()}


def own_random_state(states: dict[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """What `random_states` kept of this process; empty where there were fewer of them."""
    if processes.first:
        return states
    ending = f" {processes.rank}"
    return {name.removesuffix(ending): value for name, value in states.items() if name.endswith(ending)}


def going_on_with(now: int, before: int) -> str:
    """The sentence for a run that goes on with another number of processes than it had; "" for the same."""
    if now == before:
        return ""
    return (
        f"This goes on with {_counted(now)} instead of {before}: each takes its batch-norm statistics from its own share of a "
        "batch, so that their number is part of the result, which will not be bit-identical to that of a run in one go."
    )


def _counted(count: int) -> str:
    return f"{count} process{'es' * (count != 1)}"
