"""A training step on a GPU, and what it would take otherwise: its rate, its start-up and its memory, in one run.

python benchmarks/step_variants.py --json benchmarks/results/step_variants.json

A step is that of the preset `fast` on images of noise: forward and backward pass and update as one recorded CUDA graph. Each
variant has a process of its own, because cuDNN remembers in a process what it has chosen. "Start-up" is all that lies before the
sixth step: loading libraries, choosing algorithms, recording, compiling. The ceiling is a product of two square matrices. It
needs a CUDA GPU.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from bench import options, publish
from step_profile import Steps, matrix_ceiling
from throughput import images

from era_support_packages.models import fused_norms
from era_support_packages.system.machine import resolve_device
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cost import flops_per_image, muon_flops
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.step import ForwardBackward


def package(steps: Steps) -> None:
    """The package's way."""


def trials(steps: Steps) -> None:
    """The same after cuDNN has tried its algorithms."""
    torch.backends.cudnn.benchmark = True


def pytorch_norms(steps: Steps) -> None:
    """With PyTorch's batch norm, addition and ReLU, one after the other."""
    fused_norms.works = lambda *_: False


def update_outside(steps: Steps) -> None:
    """The update launched by Python behind the recorded passes."""
    steps.step.update.on_device = False
    steps.step.passes = GraphedPass(steps.step.forward_backward)


def as_before(steps: Steps) -> None:
    """All three of these."""
    trials(steps)
    pytorch_norms(steps)
    update_outside(steps)


def kernel_by_kernel(steps: Steps) -> None:
    """Nothing recorded: each kernel launched by Python."""
    steps.step.passes = steps.step.passes.forward_backward


def compiled(steps: Steps) -> None:
    """`torch.compile` as it comes."""
    forward(steps, torch.compile(steps.model))
    kernel_by_kernel(steps)


def compiled_and_recorded(steps: Steps) -> None:
    """`torch.compile`, and the package's graph around it."""
    forward(steps, torch.compile(steps.model))


def reduced_overhead(steps: Steps) -> None:
    """PyTorch's own graphs around what it compiled."""
    forward(steps, torch.compile(steps.model, mode="reduce-overhead"))
    kernel_by_kernel(steps)


def forward(steps: Steps, network: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let these steps go through another form of their network."""
    step = steps.step
    step.forward_backward = ForwardBackward(network, step.optimizer, step.scaler, step.device, step.config)


VARIANTS = {
    "the package's": package,
    "cuDNN's trials": trials,
    "PyTorch's norms": pytorch_norms,
    "update outside": update_outside,
    "these three": as_before,
    "kernel by kernel": kernel_by_kernel,
    "compiled": compiled,
    "compiled, recorded": compiled_and_recorded,
    "compiled, reduce-overhead": reduced_overhead,
}


def measured(name: str, precision: str, batch_size: int, pixels: list[int], count: int) -> list[dict[str, Any]]:
    """One variant at each resolution, in this process: seconds before the sixth step, milliseconds of a step (the median of five
    series), peak memory in GB."""
    rows = []
    ceiling = matrix_ceiling(resolve_device("cuda"), precision, 8192)
    for side in pixels:
        values = {"epochs": 1, "resolutions": [(side, 1.0)], "batch_size": batch_size, "horizontal_flip": 0.5}
        config = resolve(TrainingConfig.preset("fast", **values, precision=precision), images(2))
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with use_resources(config):
            steps = Steps(config)
            VARIANTS[name](steps)
            steps.run(5)
            first = time.perf_counter() - start
            steps.run(3)
            series = []
            for _ in range(5):
                start = time.perf_counter()
                steps.run(count)
                series.append(1000 * (time.perf_counter() - start) / count)
            work = flops_per_image(steps.model, side) * batch_size + muon_flops(steps.model)
        milliseconds = statistics.median(series)
        rows.append(
            {
                "px": side,
                "variant": name,
                "start-up s": first,
                "ms a step": milliseconds,
                "TFLOP/s": work / milliseconds / 1e9,
                "peak GB": torch.cuda.max_memory_allocated() / 1e9,
                "of the ceiling": 1000 * work / milliseconds / ceiling,
                "ceiling, TFLOP/s": ceiling / 1e12,
            }
        )
    return rows


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=40)
    parser.add_argument("--pixels", type=int, nargs="+", default=[16, 24, 32], help="resolutions (default: 16 24 32)")
    parser.add_argument("--batch-size", type=int, default=512, help="images a step (default: 512)")
    parser.add_argument("--precision", choices=("bf16", "fp16"), default="bf16")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA GPU is here; this compares ways to drive one.")
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in chosen.variants:
            found = pool.apply(measured, (name, chosen.precision, chosen.batch_size, chosen.pixels, chosen.rounds))
            rows += found
            print(*found, sep="\n", flush=True)
    best = max(rows, key=lambda row: row["of the ceiling"])
    sentence = (
        f"Batch {chosen.batch_size} in {chosen.precision}; a matrix product reaches {best['ceiling, TFLOP/s']:.4g} TFLOP/s. The "
        f"highest rate is that of '{best['variant']}' at {best['px']} px: {best['of the ceiling']:.2f} of it."
    )
    publish("step_variants", rows, best["of the ceiling"], sentence, chosen.json)


if __name__ == "__main__":
    main()
