"""What this machine is and what follows from it: device, precision, memory format, allocator."""

import ctypes
import functools
import os
import platform
import sys
import textwrap
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def resolve_device(device: str = "auto") -> torch.device:
    """The device to train on: "auto" is the first CUDA GPU, else Apple's GPU, else the CPU.

    Raises `ValueError` when the device asked for is not there, or is none.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device is {device!r}; give one of 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.") from None
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device is {device!r}, but this machine has {count} CUDA GPUs; use 'auto' or 'cpu'.")
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device is 'mps', but PyTorch finds no Apple GPU here; use 'auto' or 'cpu'.")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """The arithmetic of the forward pass: "fp32", "bf16" or "fp16".

    "auto" on a GPU is fp16 before compute capability 8 (bf16 is emulated there) and bf16 from 8 on; on a CPU it is bf16 where
    the processor has instructions for it and a timed convolution confirms that they are faster, else fp32.
    Raises `ValueError` for fp16 without a CUDA GPU.
    """
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ValueError(f"precision is {precision!r}: choose one of 'auto', 'fp32', 'bf16', 'fp16'.")
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision is 'fp16' on {device.type}; it needs a CUDA GPU: use 'auto', 'fp32' or 'bf16'.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if device.type == "cpu" and _bf16_is_faster() else "fp32"


BF16_TOLD = "_ERA_BF16_IS_FASTER"  # environment, "1" or "0": what a process found out for those that it starts


@functools.cache  # timed once: on a busy machine a second look may say otherwise, and runs of one process would not be alike
def _bf16_is_faster() -> bool:
    """Whether a typical convolution of the network runs at least 1.2 times faster in bf16 on this CPU (well under a second)."""
    if (told := os.environ.get(BF16_TOLD)) in ("0", "1"):
        return told == "1"
    supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not supported:  # emulated, bf16 is 15 times slower: not even worth timing
        return False
    convolution = nn.Conv2d(128, 128, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    images = torch.zeros(16, 128, 16, 16).to(memory_format=torch.channels_last)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        layer, batch = convolution.to(dtype), images.to(dtype).requires_grad_()
        times = []
        for _ in range(6):
            start = time.perf_counter()
            layer(batch).sum().backward()
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times[1:])
    return seconds[torch.float32] > 1.2 * seconds[torch.bfloat16]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which forward passes of that precision run."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def keep_freed_memory() -> bool:
    """Let glibc keep and reuse freed blocks instead of giving each back to the kernel; True where that was possible.

    Every training step on a CPU allocates and frees the same large activations. By default glibc maps them anew each time and
    the kernel clears every page again; what that costs, `benchmarks/throughput.py` measures. The setting holds for the process.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch: ask for huge pages for large tensors
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
    return all((mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 2**28)))


def describe(device: torch.device) -> str:
    """The device in words: "Tesla T4" or "CPU (AMD EPYC, 2 threads)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    return f"CPU ({_processor_name()}, {torch.get_num_threads()} threads)"


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """The versions that decide a result."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "albumentations", "numpy", "grad-cam"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def overview(device: torch.device) -> str:
    """A few lines for the top of a notebook: device, memory, versions."""
    lines = [f"device    {describe(device)}"]
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        lines.append(
            f"memory    {memory:.1f} GiB, compute capability {'.'.join(map(str, torch.cuda.get_device_capability(device)))}"
        )
    # Broken between packages, not between a package and its version.
    numbers = "\n".join(f"{name}\N{NO-BREAK SPACE}{number}," for name, number in versions().items()).rstrip(",")
    lines.append(
        textwrap.fill(numbers, 100, initial_indent="versions  ", subsequent_indent=" " * 10, break_on_hyphens=False).replace(
            "\N{NO-BREAK SPACE}", " "
        )
    )
    return "\n".join(lines)
