"""A training step with and without a recorded CUDA graph, and compiled by torch.compile: its rate and its start-up, in one run.

python benchmarks/step_variants.py --json benchmarks/results/step_variants.json

A step is that of the preset `fast` on images of noise. "Start-up" is all that lies before the sixth step: choosing algorithms,
recording, compiling. The ceiling is a product of two square matrices, measured in the same process. It needs a CUDA GPU.
"""

import statistics
import time
from collections.abc import Callable

import torch
from bench import options, publish
from step_profile import Steps, matrix_ceiling
from throughput import images

from era_support_packages.system.machine import resolve_device
from era_support_packages.training.config import ResolvedConfig, TrainingConfig
from era_support_packages.training.cost import flops_per_image, muon_flops
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.step import ForwardBackward


def plain(steps: Steps) -> None:
    """Each kernel launched by Python."""
    steps.step.forward_backward = single(steps)


def recorded(steps: Steps) -> None:
    """The package's way: forward and backward pass recorded as one graph."""


def recorded_without_trials(steps: Steps) -> None:
    """The same with cuDNN's own choice of algorithms."""
    torch.backends.cudnn.benchmark = False


def compiled(steps: Steps) -> None:
    """`torch.compile` as it comes."""
    steps.step.forward_backward = single(steps, torch.compile(steps.model))


def compiled_and_recorded(steps: Steps) -> None:
    """`torch.compile`, and the package's graph around it."""
    steps.step.forward_backward = GraphedPass(single(steps, torch.compile(steps.model)))


def reduced_overhead(steps: Steps) -> None:
    """PyTorch's own graphs around what it compiled."""
    steps.step.forward_backward = single(steps, torch.compile(steps.model, mode="reduce-overhead"))


class WholeStep:
    """Forward and backward pass and the update, to be recorded as one graph.

    While it runs each group's rate is a number on the device, which is written before each step: a graph would keep the first.
    """

    def __init__(self, steps: Steps) -> None:
        self.single, self.scaler, self.optimizer = single(steps), steps.step.scaler, steps.step.optimizer
        self.rates = torch.zeros(len(self.optimizer.param_groups), device=steps.step.device)

    def write_rates(self) -> None:
        """The rates as the schedule has them now."""
        self.rates.copy_(torch.tensor([group["lr"] for group in self.optimizer.param_groups]))

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        results, groups = self.single(images, labels), self.optimizer.param_groups
        kept = [group["lr"] for group in groups]
        try:
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate
            self.scaler.step(self.optimizer)
            self.scaler.update()
        finally:
            for group, rate in zip(groups, kept, strict=True):
                group["lr"] = rate
        return results


class RecordedStep:
    """Stands for the training step: everything but the schedule in one graph."""

    def __init__(self, steps: Steps) -> None:
        self.whole, self.scheduler = WholeStep(steps), steps.step.scheduler
        self.graphed = GraphedPass(self.whole)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.whole.write_rates()
        results = self.graphed(images, labels)
        if self.scheduler is not None:
            self.scheduler.step()
        return results


def update_recorded(steps: Steps) -> None:
    """The update in the graph too."""
    steps.step = RecordedStep(steps)


def single(steps: Steps, forward: Callable[[torch.Tensor], torch.Tensor] | None = None) -> ForwardBackward:
    """The forward and backward pass of these steps, not recorded."""
    step = steps.step
    return ForwardBackward(step.model if forward is None else forward, step.optimizer, step.scaler, step.device, step.config)


VARIANTS = {
    "recorded": recorded,
    "update recorded too": update_recorded,
    "recorded, no trials": recorded_without_trials,
    "kernel by kernel": plain,
    "compiled, recorded": compiled_and_recorded,
    "compiled, reduce-overhead": reduced_overhead,
    "compiled": compiled,
}


def measured(name: str, config: ResolvedConfig, count: int) -> dict[str, float | str]:
    """One variant: seconds before the sixth step, milliseconds of a step (the median of five series), peak memory in GB."""
    torch.cuda.reset_peak_memory_stats()
    torch.compiler.reset()
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
        work = flops_per_image(steps.model, config.resolutions[0][0]) * config.batch_size + muon_flops(steps.model)
    milliseconds = statistics.median(series)
    return {
        "variant": name,
        "start-up s": first,
        "ms a step": milliseconds,
        "TFLOP/s": work / milliseconds / 1e9,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9,
    }


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=20)
    parser.add_argument("--pixels", type=int, nargs="+", default=[32, 16], help="resolutions (default: 32 16)")
    parser.add_argument("--batch-size", type=int, default=512, help="images a step (default: 512)")
    parser.add_argument("--precision", choices=("bf16", "fp16"), default="bf16")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA GPU is here; this compares ways to drive one.")
    rows, ceiling = [], matrix_ceiling(resolve_device("cuda"), chosen.precision, 8192)
    for pixels in chosen.pixels:
        values = {"epochs": 1, "resolutions": [(pixels, 1.0)], "batch_size": chosen.batch_size, "horizontal_flip": 0.5}
        config = resolve(TrainingConfig.preset("fast", **values, precision=chosen.precision), images(2))
        for name in chosen.variants:
            row = {"px": pixels, **measured(name, config, chosen.rounds)}
            rows.append({**row, "of the ceiling": row["TFLOP/s"] * 1e12 / ceiling})
            print(rows[-1], flush=True)
    best = max(rows, key=lambda row: row["of the ceiling"])
    sentence = (
        f"Batch {chosen.batch_size} in {chosen.precision}; a plain matrix product reaches {ceiling / 1e12:.4g} TFLOP/s. The "
        f"highest rate is that of '{best['variant']}' at {best['px']} px."
    )
    publish("step_variants", rows, best["of the ceiling"], sentence, chosen.json)


if __name__ == "__main__":
    main()
