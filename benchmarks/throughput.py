"""Training throughput: this package's way against the way of the course project of 2023, side by side.

python benchmarks/throughput.py --json benchmarks/results/throughput.json

The same ResNet18, batch size and images with the same augmentation. The original's way: fp32, contiguous memory,
albumentations for each sample in a DataLoader with two workers, `.item()` after each step. Each measurement is a process of its
own, because the setting of the memory allocator holds for a process; on a CPU its peak memory is printed too. The batch is the
original's, 512, where not said otherwise. With --all it also measures what single parts of the package's way bring, and with
--against COMMIT this checkout and a worktree of that commit in turn, and nothing else.
"""

import functools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from bench import ROOT, alternate, commit, options, publish, ratio
from torch.utils.data import DataLoader, Dataset

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import mean_color
from era_support_packages.datasets.sample_augmentation import Augmenter
from era_support_packages.models.weight_gradients import FastWeightGradients, fast_weight_gradients
from era_support_packages.system import machine
from era_support_packages.training import setup as training_setup
from era_support_packages.training.config import ResolvedConfig, TrainingConfig
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.step import TrainingStep

WARM_UP = GraphedPass.WARM_UP + 1 if torch.cuda.is_available() else 1  # steps that are not timed
VARIANTS = ("original's way", "ours", "ours, memory given back", "ours, oneDNN's weight gradients")


def images(count: int) -> ImageDataset:
    """Noise: how long a step takes does not depend on what is in the images."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    classes = tuple("abcdefghij")
    return ImageDataset(pixels, generator.integers(0, 10, count), classes, "noise", "noise", "train", (0.5,) * 3, (0.25,) * 3)


def configuration(pixels: int, batch_size: int, precision: str = "auto") -> ResolvedConfig:
    """The recipe of the measurement: SGD, flip and padded crop."""
    values = {"epochs": 1, "batch_size": batch_size, "max_lr": 0.01, "crop_padding": 2, "horizontal_flip": 0.5}
    return resolve(TrainingConfig.preset("smoke", resolutions=[(pixels, 1.0)], precision=precision, **values), images(2))


class _Samples(Dataset):
    def __init__(self, data: ImageDataset, config: ResolvedConfig) -> None:
        self.data, mean, std = data, np.array(data.mean), np.array(data.std)
        self.augment = Augmenter(training_setup.augmentation_policy(config), 32, 32, mean_color(data), 0)
        self.pixels = config.resolutions[0][0]
        self.normalize = lambda image: ((image / 255 - mean) / std).astype(np.float32)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.augment(self.data.images[index], 0, index)
        if self.pixels != len(image):
            image = cv2.resize(image, (self.pixels, self.pixels), interpolation=cv2.INTER_AREA)
        image = self.normalize(image)
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), int(self.data.labels[index])


def original_way(config: ResolvedConfig, steps: int) -> float:
    """Images per second as the original trained."""
    size = config.batch_size
    device = machine.resolve_device()
    data = images(size * (steps + WARM_UP))
    model = training_setup.build_model(config, 10).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    start = 0.0
    for number, (pixels, labels) in enumerate(DataLoader(_Samples(data, config), size, shuffle=True, num_workers=2)):
        if number == WARM_UP:
            start = time.perf_counter()
        optimizer.zero_grad()
        logits = model(pixels.to(device))
        loss = F.cross_entropy(logits, labels.to(device))
        loss.backward()
        optimizer.step()
        loss.item()
        (logits.argmax(dim=1) == labels.to(device)).sum().item()
    return steps * size / (time.perf_counter() - start)


def our_way(config: ResolvedConfig, steps: int, variant: str) -> float:
    """Images per second as the package trains."""
    size, pixels = config.batch_size, config.resolutions[0][0]
    if variant != "ours, memory given back":
        machine.keep_freed_memory()
    data = images(size * (steps + WARM_UP))
    model = training_setup.build_model(config, 10)
    optimizer = training_setup.build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config)
    if variant == "ours, oneDNN's weight gradients":
        step.forward_backward.fast_gradients = machine.nullcontext()
    start, loss = 0.0, None
    with use_resources(config):
        for number, (batch, labels) in enumerate(training_setup.build_batches(data, config).epoch(pixels, 0, len(data))):
            if number == WARM_UP:
                if loss is not None:
                    loss.item()
                start = time.perf_counter()
            loss, _ = step(batch, labels)
        loss.item()
    return steps * size / (time.perf_counter() - start)


def measured(variant: str, config: ResolvedConfig, steps: int, root: Path = ROOT, precision: str = "auto") -> tuple[float, float]:
    """Images per second of a variant in a process of its own, from the checkout at `root`, and its peak memory in GB."""
    values = {"variant": variant, "steps": steps, "pixels": config.resolutions[0][0], "batch-size": config.batch_size}
    values |= {} if precision == "auto" else {"precision": precision}
    command = [sys.executable, str(root / "benchmarks" / "throughput.py")]
    command += [word for name, value in values.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    speed, memory = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    return float(speed), float(memory)


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A worktree of a commit while it lasts. Raises `ValueError` where the repository has none of that name."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "repository"
        made = subprocess.run(["git", "worktree", "add", "--detach", tree, commit], cwd=ROOT, capture_output=True, check=False)
        if made.returncode:
            raise ValueError(f"--against {commit} is no commit of this repository: give one that `git log` lists.")
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=False)


def compare_commits(commit: str, config: ResolvedConfig, steps: int, rounds: int) -> tuple[list[dict[str, Any]], float]:
    """The rows of this checkout and of another commit, and the ratio of their speeds."""
    with checkout(commit) as tree:
        trees = {"this checkout": ROOT, commit: tree}
        measures = {name: lambda root=root: measured("ours", config, steps, root)[0] for name, root in trees.items()}
        found = alternate(measures, rounds)
    return [row_of(name, values, found[commit], commit) for name, values in found.items()], ratio(*found.values())


def row_of(name: str, values: Sequence[float], others: Sequence[float], than: str) -> dict[str, Any]:
    """What is said of one variant, beside that with which it is compared."""
    spread = {"images/s (median)": float(np.median(values)), "slowest": min(values), "fastest": max(values)}
    return {"variant": name, **spread, f"times {than}": ratio(values, others)}


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=5)
    parser.add_argument("--pixels", type=int, default=32, help="resolution of the images (default: 32)")
    parser.add_argument("--batch-size", type=int, default=512, help="images a step (default: 512)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of ours (default: auto)")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a measurement (default: 2)")
    parser.add_argument(
        "--against", metavar="COMMIT", help="measure this checkout and that commit, instead of the original's way"
    )
    parser.add_argument("--all", action="store_true", help="measure our way with parts of it left out, too")
    parser.add_argument("--variant", choices=VARIANTS, help="measure one variant here and print images per second")
    chosen = parser.parse_args()
    config = configuration(chosen.pixels, chosen.batch_size, chosen.precision)
    if chosen.variant:
        way = (
            original_way(config, chosen.steps) if chosen.variant == VARIANTS[0] else our_way(config, chosen.steps, chosen.variant)
        )
        print(way, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
        return
    what = f"ResNet18, batch {chosen.batch_size}, {chosen.pixels} px, {config.precision}"
    if chosen.against:
        if chosen.precision != "auto":
            parser.error("--precision is of this checkout alone, so it does not go with --against: leave one of them out.")
        try:
            rows, times = compare_commits(chosen.against, config, chosen.steps, chosen.rounds)
        except ValueError as error:
            parser.error(str(error))
        sentence = f"{what}: commit {commit()} runs at {times:.2f} times the speed of commit {chosen.against}."
        publish("throughput", rows, times, sentence, chosen.json)
        return
    has_own = isinstance(fast_weight_gradients(torch.device(config.device), config.precision), FastWeightGradients)
    variants = [name for name in VARIANTS if has_own or name != "ours, oneDNN's weight gradients"]
    memory: dict[str, float] = {}

    def measure(name: str) -> float:
        speed, used = measured(name, config, chosen.steps, precision=chosen.precision)
        memory[name] = max(used, memory.get(name, 0.0))
        return speed

    measures = {name: functools.partial(measure, name) for name in (variants if chosen.all else variants[:2])}
    found = alternate(measures, chosen.rounds)
    rows = [row_of(name, values, found[VARIANTS[0]], "the original's way") for name, values in found.items()]
    times = ratio(found["ours"], found[VARIANTS[0]])
    sentence = f"{what}: {times:.2f} times the original's way."
    if config.device == "cpu":
        sentence += f" Peak memory of a process: {memory['ours']:.1f} GB, {memory[VARIANTS[0]]:.1f} GB the original's way."
    publish("throughput", rows, times, sentence, chosen.json)


if __name__ == "__main__":
    main()
