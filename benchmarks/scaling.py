"""How training scales over processes: strong (one batch shared out) and weak (a batch for each), and what a link costs on paper.

python benchmarks/scaling.py --json benchmarks/results/scaling.json

With less than two GPUs one and two gloo processes of one thread each, so that two cores are enough; else an NCCL process for each
GPU, in powers of two. Each measurement starts its processes anew; the first steps are not timed. On CPUs the last two rows are
Muon with its products computed by each process, and shared out. On paper: what must go over a link in a step, in milliseconds.
"""

import argparse
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from unittest import mock

import numpy as np
import torch
from bench import alternate, options, publish, ratio, table
from throughput import images

from era_support_packages.models.resnet import ResNet18
from era_support_packages.system.machine import keep_freed_memory
from era_support_packages.system.processes import ALONE, join, leave
from era_support_packages.system.torchrun import started_by_torchrun
from era_support_packages.training import muon, setup as training_setup
from era_support_packages.training.config import ResolvedConfig, TrainingConfig
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.step import TrainingStep

WARM_UP = 2  # steps that are not timed: the first allocates, and gradients are gathered otherwise from the second on
LINKS = {"1 Gbit/s": 0.125e9, "10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9, "NVLink, 300 GB/s": 300e9}  # bytes a second
COUNTS = (2, 8, 64)  # processes, on paper


# ---- on paper ----------------------------------------------------------------------------------------------------------


def ring_bytes(parameters: int, count: int) -> float:
    """What each process sends in a step for the mean of all gradients in fp32: twice its share of (count - 1) / count."""
    return 2 * (count - 1) / count * 4 * parameters


def on_paper() -> list[dict[str, str | float]]:
    """Milliseconds of a link for the gradients of a ResNet18, if it were used to the full."""
    parameters = sum(values.numel() for values in ResNet18().parameters())
    return [
        {"processes": str(count), "MB sent": ring_bytes(parameters, count) / 1e6}
        | {f"ms at {name}": 1000 * ring_bytes(parameters, count) / speed for name, speed in LINKS.items()}
        for count in COUNTS
    ]


def gpu_count() -> int:
    """How many GPUs there are to compare; 0 where there is one, which leaves the CPU."""
    found = torch.cuda.device_count()
    return found if found > 1 else 0


# ---- one measurement ---------------------------------------------------------------------------------------------------


def configuration(chosen: argparse.Namespace, batch_size: int, optimizer: str) -> ResolvedConfig:
    """Flip and padded crop; fp32 on a CPU, and what "auto" takes on a GPU."""
    values = {"epochs": 1, "batch_size": batch_size, "max_lr": 0.01, "crop_padding": 2, "horizontal_flip": 0.5}
    values |= {"device": "cuda", "precision": "auto"} if gpu_count() else {"device": "cpu", "precision": "fp32"}
    values |= {"optimizer": optimizer, "threads": 1}
    return resolve(TrainingConfig.preset("smoke", resolutions=[(chosen.pixels, 1.0)], **values), images(2))


def work(chosen: argparse.Namespace) -> None:
    """What each of the processes does; the first prints the images a second of all."""
    started = started_by_torchrun()
    processes = ALONE if started is None else join(started)
    optimizer = "sgd" if chosen.products is None else "muon"
    config = configuration(chosen, chosen.batch, optimizer)
    config = config.replace(device=processes.device(config.device))
    if config.device == "cpu":
        keep_freed_memory()
    data = images(chosen.batch * (WARM_UP + chosen.steps))
    model = training_setup.build_model(config, 10)
    with use_resources(config), mock.patch.object(muon, "is_faster_shared", return_value=chosen.products == "shared"):
        step = TrainingStep(model, training_setup.build_optimizer(model, config), config, processes=processes)
        start = 0.0
        batches = training_setup.build_batches(data, config, processes).epoch(chosen.pixels, 0, len(data))
        for number, (batch, labels) in enumerate(batches):
            if number == WARM_UP:
                processes.total(torch.zeros(1, device=config.device)).item()  # all begin together
                start = time.perf_counter()
            loss, _ = step(batch, labels)
        processes.mean(loss).item()
    if processes.first:
        print(chosen.steps * chosen.batch / (time.perf_counter() - start))
    if processes.count > 1:
        leave()


def measured(chosen: argparse.Namespace, count: int, batch: int, products: str | None) -> float:
    """Images a second of so many processes together, at this global batch."""
    words = [sys.executable, __file__, "--batch", str(batch), "--steps", str(chosen.steps), "--pixels", str(chosen.pixels)]
    words += ["--products", products] if products else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common["WORLD_SIZE"] = str(count)
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    running = [subprocess.Popen(words, env=rank, stdout=subprocess.PIPE, text=True) for rank in ranks]
    try:
        said = [process.communicate(timeout=500)[0] for process in running]
        if codes := [process.returncode for process in running if process.returncode]:
            raise RuntimeError(f"A process ended with exit code {codes[0]}.")
        return float(said[0])
    finally:
        for process in running:
            process.kill()


# ---- the table -----------------------------------------------------------------------------------------------------------


def variants(chosen: argparse.Namespace, gpus: int) -> dict[str, tuple[int, int, str | None]]:
    """Name to (processes, global batch, how Muon's products are computed)."""
    size = chosen.batch_size
    counts = [2**power for power in range(1, max(gpus, 2).bit_length()) if 2**power <= max(gpus, 2)]
    found: dict[str, tuple[int, int, str | None]] = {"1 process": (1, size, None)}
    for count in counts:
        found[f"{count} processes, strong"] = (count, size, None)
        found[f"{count} processes, weak"] = (count, size * count, None)
    if not gpus:
        found["2 processes, Muon, each computes"] = (2, size, "each")
        found["2 processes, Muon, shared out"] = (2, size, "shared")
    return found


def rows_of(found: dict[str, list[float]], of: dict[str, tuple[int, int, str | None]]) -> list[dict[str, str | int | float]]:
    """A row for each variant."""
    return [
        {
            "variant": name,
            "batch": of[name][1],
            "images/s (median)": float(np.median(values)),
            "slowest": min(values),
            "fastest": max(values),
            "times one process": ratio(values, found["1 process"]),
        }
        for name, values in found.items()
    ]


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=3)
    gpus = gpu_count()
    parser.add_argument("--pixels", type=int, default=32 if gpus else 16, help="resolution of the images (default: %(default)s)")
    size = 512 if gpus else 64
    parser.add_argument("--batch-size", type=int, default=size, help="images a step of one process (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=60 if gpus else 6, help="timed steps of a measurement (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, help="be one of the processes of a measurement, at this global batch")
    parser.add_argument("--products", choices=("each", "shared"), help="with --batch: measure Muon, its products so")
    chosen = parser.parse_args(words)
    if chosen.batch:
        work(chosen)
        return
    of = variants(chosen, gpus)
    found = alternate({name: functools.partial(measured, chosen, *values) for name, values in of.items()}, chosen.rounds)
    most = max(count for count, _, _ in of.values())
    strong, weak = (ratio(found[f"{most} processes, {kind}"], found["1 process"]) for kind in ("strong", "weak"))
    where = f"{most} GPUs" if gpus else f"{most} processes of one thread"
    sentence = (
        f"ResNet18, {chosen.pixels} px: {where} train a batch of {chosen.batch_size} {strong:.2f} times as fast as one, and at "
        f"{chosen.batch_size} images each {weak:.3g} times as many images a second."
    )
    print(table(on_paper()), end="\n\n")
    publish("scaling", rows_of(found, of), strong, sentence, chosen.json)


if __name__ == "__main__":
    main()
