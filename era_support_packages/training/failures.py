"""The ways in which training fails, each with its sentence and the way out."""

import math

import torch
from torch import Tensor, nn

from era_support_packages.datasets.fitting import IMAGE_SIZE
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.processes import Processes
from era_support_packages.training.config import ConfigValues
from era_support_packages.training.plan import PlannedEpoch


class TrainingDivergedError(PlainError, RuntimeError):
    """The loss or the weights are no longer finite numbers."""


class OutOfMemoryError(PlainError, RuntimeError):
    """The device has not enough memory for the batch."""


class DeviceFailedError(PlainError, RuntimeError):
    """The device stopped working, and this process cannot use it any more."""


def diverged(what: str, step: int, lr: float, epoch: PlannedEpoch) -> str:
    """The sentence for a loss or weights that are no longer numbers."""
    return f"{what} at step {step} of epoch {epoch.epoch}, at a learning rate of {lr:.4g}; lower max_lr and run again."


def is_out_of_memory(error: Exception) -> bool:
    """Whether it was raised because the memory of a GPU or of the machine is full."""
    said = ("out of memory", "can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in said)


# after these CUDA errors a process cannot use the GPU any more
_LOST = (
    "unspecified launch failure",
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "illegal address",
    "invalid program counter",
    "hardware stack error",
    "uncorrectable",
    "device-side assert",
    "_STATUS_EXECUTION_FAILED",
)


def is_device_failure(error: BaseException) -> bool:
    """Whether it says that this process cannot use its GPU any more."""
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST)


def device_failed(error: BaseException, config: ConfigValues, done: int, planned: int) -> DeviceFailedError:
    """The error that says what to do after `done` of `planned` epochs."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if any(text in line for text in _LOST)]
    name = f" and run_name={config.run_name!r}" if config.run_name else ""
    then = f"the run goes on after epoch {done} of {planned}" if done else "nothing was finished that could be lost"
    again = " If it happens again, set cuda_graph=False." if config.cuda_graph else ""
    return DeviceFailedError(
        f"{config.device!r} stopped working ({lines[0]}), and this process cannot use it any more. Restart it (on Colab: Runtime "
        f"> Restart session) and run again with the same values{name}: {then}.{again}"
    )


def way_out(config: ConfigValues) -> str:
    """What makes a step smaller, as part of a sentence."""
    size = config.batch_size
    ways = [f"set batch_size={size // 2} (and halve max_lr with it)" if size >= 4 else "choose a smaller model"]
    if isinstance(config.image_size, int) and config.image_size > IMAGE_SIZE:
        ways.append("give a smaller image_size")
    if config.precision == "fp32" and config.device.startswith("cuda"):
        ways.append("set precision='auto'")
    return f"{', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]} and run again"


def out_of_memory(model: nn.Module, config: ConfigValues) -> OutOfMemoryError:
    """Free what the step that did not fit has left, and the error that says what to do."""
    model.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    pixels = max(pixels for pixels, _ in config.resolutions)
    large, ways = f" and {pixels:g} px" if pixels > IMAGE_SIZE else "", way_out(config)
    return OutOfMemoryError(f"The memory of {config.device!r} is full at batch_size={config.batch_size}{large}: {ways}.")


def loss_of_steps(losses: list[Tensor], rates: list[float], epoch: PlannedEpoch, processes: Processes) -> float:
    """The mean of the step losses. Raises `TrainingDivergedError` with the first step whose loss is not finite."""
    values = processes.mean(torch.stack(losses))
    mean = values.double().mean().item() if values.device.type != "mps" else values.mean().item()
    if not math.isfinite(mean):
        number = int((~values.isfinite()).nonzero()[0])
        raise TrainingDivergedError(diverged(f"The loss became {values[number].item()}", number + 1, rates[number], epoch))
    return mean
