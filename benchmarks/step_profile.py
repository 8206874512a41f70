"""Where the time of one training step goes: by class of kernel, and against what the machine reaches in matrix products.

python benchmarks/step_profile.py --json benchmarks/results/step_profile.json

A step is augmentation, normalisation, forward and backward pass and update of the preset `fast` on images of noise. It is timed
without the profiler; the profiler only says how its time is shared out. The ceiling is a product of two square matrices in the
precision of the run, measured in the same process. On a CPU operations take the place of kernels.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from bench import options, publish
from throughput import images

from era_support_packages.system import machine
from era_support_packages.training import setup as training_setup
from era_support_packages.training.config import ResolvedConfig, TrainingConfig
from era_support_packages.training.cost import flops_per_image, muon_flops
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.step import TrainingStep

# A kernel belongs to the first class one of whose words is in its name.
CLASSES = {
    "copies and layouts": ("convert", "nchwtonhwc", "nhwctonchw", "memcpy", "memset", "copy", "clone", "_to_copy"),
    "matrix work": (
        *("conv", "gemm", "wgrad", "dgrad", "fprop", "cutlass", "xmma", "nvjet", "cublas"),
        *("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "mkldnn_linear"),
    ),
    "batch norm": (
        *("batch_norm", "batchnorm", "bn_fw", "bn_bw", "::bn"),
        *("norm_moments", "norm_statistics", "norm_forward", "norm_gradients", "norm_parameter", "norm_backward"),  # with ReLU
    ),
    "optimizer": ("multi_tensor", "fused_sgd", "fusedsgd", "foreach", "optimizer"),
    "loss": ("softmax", "nll_loss", "cross_entropy"),
    "gathering": ("index", "gather", "scatter"),
    "pooling and sums": ("pool", "reduce", "sum", "norm"),
    "elementwise": ("elementwise", "relu", "threshold", "aten::add", "aten::mul", "aten::div", "addcmul", "aten::fill", "zero"),
}


def class_of(kernel: str) -> str:
    """The class of a kernel or operation, by its name."""
    name = kernel.lower()
    return next((title for title, words in CLASSES.items() if any(word in name for word in words)), "other")


class Steps:
    """Training steps of the preset `fast` on noise; `run(count)` makes that many and waits for the last."""

    def __init__(self, config: ResolvedConfig) -> None:
        self.config, size = config, config.batch_size
        self.model = training_setup.build_model(config, 10, images(max(size, 512)))
        optimizer = training_setup.build_optimizer(self.model, config)
        self.step = TrainingStep(self.model, optimizer, config)
        self.batches = training_setup.build_batches(images(4 * size), config)

    def run(self, count: int) -> None:
        shown, loss = 0, None
        while shown < count:
            left = min(count - shown, 4)
            for batch, labels in self.batches.epoch(self.config.resolutions[0][0], 0, left * self.config.batch_size):
                loss, _ = self.step(batch, labels)
            shown += left
        loss.item()


def step_seconds(steps: Steps, count: int) -> float:
    """Seconds of a step, the mean of `count` after those in which algorithms are chosen and the graph is recorded."""
    steps.run(GraphedPass.WARM_UP + 2)
    start = time.perf_counter()
    steps.run(count)
    return (time.perf_counter() - start) / count


def kernels(steps: Steps, count: int) -> tuple[dict[str, tuple[float, int]], str]:
    """Milliseconds and calls a step of each kernel (on a CPU, of each operation), and the profiler's own table."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    on_gpu = steps.config.device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        steps.run(count)
    averages = profiler.key_averages()
    wanted, clock = (DeviceType.CUDA, "self_device_time_total") if on_gpu else (DeviceType.CPU, "self_cpu_time_total")
    found = {
        event.key: (getattr(event, clock) / 1000 / count, round(event.count / count))
        for event in averages
        # "Optimizer.step#..." is no kernel: a name for the time from the first of the step's kernels to the last
        if event.device_type == wanted and getattr(event, clock) > 0 and not event.key.startswith("Optimizer.step#")
    }
    return found, averages.table(sort_by=clock, row_limit=60, max_name_column_width=100)


def by_class(found: dict[str, tuple[float, int]]) -> list[dict[str, Any]]:
    """A row for each class, the longest first: milliseconds a step, its share, calls a step, and its longest kernel."""
    grouped: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for name, (milliseconds, calls) in found.items():
        grouped[class_of(name)].append((milliseconds, calls, name))
    whole = sum(milliseconds for milliseconds, _ in found.values())
    rows = []
    for title, group in grouped.items():
        total = sum(milliseconds for milliseconds, _, _ in group)
        calls, longest = sum(calls for _, calls, _ in group), max(group)[2][:70]
        rows.append({"class": title, "ms a step": total, "share %": 100 * total / whole, "calls": calls, "longest": longest})
    return sorted(rows, key=lambda row: -row["ms a step"])


def matrix_ceiling(device: torch.device, precision: str, side: int) -> float:
    """FLOP/s of a product of two square matrices in that precision, the best of eight."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    matrix = torch.randn(side, side, device=device).to(dtype)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        for _ in range(4):
            product = matrix @ matrix
        product[0, 0].item()  # waits for the device
        best = max(best, 4 * 2 * side**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=20)
    parser.add_argument("--pixels", type=int, default=32, help="resolution of the images (default: 32)")
    parser.add_argument("--batch-size", type=int, default=512, help="images a step (default: 512)")
    parser.add_argument("--side", type=int, help="rows of the ceiling's matrices (default: 8192 on a GPU, 2048 on a CPU)")
    parser.add_argument("--table", metavar="FILE", help="also write the profiler's own table into this file")
    chosen = parser.parse_args()
    values = {"epochs": 1, "resolutions": [(chosen.pixels, 1.0)], "batch_size": chosen.batch_size, "horizontal_flip": 0.5}
    config = resolve(TrainingConfig.preset("fast", **values), images(2))
    device = machine.resolve_device(config.device)
    with use_resources(config):
        ceiling = matrix_ceiling(device, config.precision, chosen.side or (8192 if device.type == "cuda" else 2048))
        steps = Steps(config)
        seconds = step_seconds(steps, chosen.rounds)
        found, page = kernels(steps, min(chosen.rounds, 10))
        how = ""
        if not found:  # a profiler that does not see into a recorded graph
            steps, how = Steps(config.replace(cuda_graph=False)), " (profiled without the recorded graph)"
            steps.run(2)
            found, page = kernels(steps, min(chosen.rounds, 10))
    rows = by_class(found)
    work = flops_per_image(steps.model, chosen.pixels) * chosen.batch_size + muon_flops(steps.model)
    ratio = work / seconds / ceiling
    share = sum(row["share %"] for row in rows if row["class"] == "matrix work")
    sentence = (
        f"A step at batch {chosen.batch_size}, {chosen.pixels} px in {config.precision} takes {1000 * seconds:.4g} ms{how}; "
        f"matrix work is {share:.0f} % of its kernels' time. It makes {work / 1e12:.3g} TFLOP, at {ratio:.2f} of the rate of a "
        f"plain matrix product ({ceiling / 1e12:.4g} TFLOP/s)."
    )
    publish("step_profile", rows, ratio, sentence, chosen.json)
    if chosen.table:
        Path(chosen.table).write_text(page)


if __name__ == "__main__":
    main()
