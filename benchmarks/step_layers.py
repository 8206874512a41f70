"""Where the time of one training step on a CPU goes, part by part of the network.

python benchmarks/step_layers.py --json benchmarks/results/step_layers.json

ResNet18 at 16 px and batch 64, as in the first part of the preset `cpu` and with its optimizer, on images of noise. Marks at
the borders of the parts, in both passes, say when each began; the rate is that of the convolutions' work (2 operations per
multiply-add).
"""

import functools
import itertools
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from bench import options, publish
from step_profile import matrix_ceiling
from throughput import images
from torch.utils.flop_counter import FlopCounterMode

from era_support_packages.models.resnet import ResNet18
from era_support_packages.system import machine
from era_support_packages.training import setup as training_setup
from era_support_packages.training.config import ResolvedConfig, TrainingConfig
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.step import TrainingStep

WARM_UP = 3  # steps that are not timed
PARTS = ("conv1", "layer1", "layer2", "layer3", "layer4", "linear")  # each begins a part, in the forward pass
BACKWARD = {"bn1" if name == "conv1" else name: name for name in PARTS}  # whose output's gradient begins it on the way back


def configuration(pixels: int, batch_size: int) -> ResolvedConfig:
    """The preset `cpu` at one resolution."""
    values = {"resolutions": [(pixels, 1.0)], "batch_size": batch_size, "device": "cpu"}
    return resolve(TrainingConfig.preset("cpu", **values), images(batch_size))


def timeline(config: ResolvedConfig, steps: int) -> list[dict[str, float]]:
    """Of each timed step the milliseconds from each mark to the next, by the mark's name."""
    size, pixels = config.batch_size, config.resolutions[0][0]
    data = images(size * (steps + WARM_UP + 1))
    model = training_setup.build_model(config, 10, train=data)
    optimizer = training_setup.build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config)
    marks: list[tuple[str, float]] = []

    def mark(name: str, *_: Any) -> None:
        marks.append((name, time.perf_counter()))

    for name in PARTS:
        getattr(model, name).register_forward_pre_hook(functools.partial(mark, f"forward {name}"))
    for name, part in BACKWARD.items():
        getattr(model, name).register_full_backward_pre_hook(functools.partial(mark, f"backward {part}"))
    optimizer.register_step_pre_hook(functools.partial(mark, "update"))
    optimizer.register_step_post_hook(functools.partial(mark, "batch and all else"))
    with use_resources(config):
        for batch, labels in training_setup.build_batches(data, config).epoch(pixels, 0, len(data)):
            step(batch, labels)
    found, one = [], defaultdict(float)
    for (name, start), (_, end) in itertools.pairwise(marks):
        one[name] += 1000 * (end - start)
        if name == "batch and all else":
            found.append(dict(one))
            one.clear()
    return found[WARM_UP:]


def giga_flops(pixels: int, batch_size: int) -> dict[str, float]:
    """GFLOP of each part's forward pass of a batch."""
    with FlopCounterMode(display=False) as counter:
        ResNet18()(torch.zeros(1, 3, pixels, pixels))
    counts = counter.get_flop_counts()
    return {name: batch_size * sum(counts[f"ResNet.{name}"].values()) / 1e9 for name in PARTS}


def rows_of(found: list[dict[str, float]], work: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each part: the medians of its milliseconds, its share of a step and its rate; then what is no part."""
    middle = {name: float(np.median([one[name] for one in found])) for name in found[0]}
    whole = sum(middle.values())
    rows = []
    for name in PARTS:
        forward, backward = middle[f"forward {name}"], middle[f"backward {name}"]
        back = (1 if name == "conv1" else 2) * work[name]  # the images need no gradient
        shares = {"forward ms": forward, "backward ms": backward, "share %": 100 * (forward + backward) / whole}
        rates = {"forward GFLOP/s": work[name] / forward * 1000, "backward GFLOP/s": back / backward * 1000}
        rows.append({"part": name, **shares, **rates})
    for name in ("update", "batch and all else"):
        rows.append({"part": name, "forward ms": middle[name], "backward ms": "", "share %": 100 * middle[name] / whole})
        rows[-1] |= {"forward GFLOP/s": "", "backward GFLOP/s": ""}
    return rows


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=40)
    parser.add_argument("--pixels", type=int, default=16, help="resolution of the images (default: 16)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step (default: 64)")
    chosen = parser.parse_args()
    machine.keep_freed_memory()
    config = configuration(chosen.pixels, chosen.batch_size)
    with use_resources(config):
        ceiling = matrix_ceiling(torch.device("cpu"), config.precision, 2048) / 1e9
    found = timeline(config, chosen.rounds)
    work = giga_flops(chosen.pixels, chosen.batch_size)
    rows = rows_of(found, work)
    whole = sum(float(np.median([one[name] for one in found])) for name in found[0])
    rate = (3 * sum(work.values()) - work["conv1"]) / whole * 1000
    what = f"A step at {chosen.pixels} px and batch {chosen.batch_size} in {config.precision} takes {whole:.0f} ms"
    sentence = f"{what}; its work runs at {rate / ceiling:.2f} of the rate of a plain matrix product ({ceiling:.0f} GFLOP/s)."
    publish("step_layers", rows, rate / ceiling, sentence, chosen.json)


if __name__ == "__main__":
    main()
