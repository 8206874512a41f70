"""What following `max_lr="auto"` costs, against the best rate of a grid: six short cases, two processes side by side.

python benchmarks/learning_rate.py
python benchmarks/learning_rate.py --full --data data/cifar10-jpeg

Each case shows 6,000 images at 16 px. With --full it trains the rows that are missing, two side by side, and stores each as soon
as it is there: first a grid of rates in powers of four, two seeds each; then the two neighbors of the best at a factor of two;
then the best rate, by the mean over its seeds, and "auto" with three fresh seeds. The loss of a case is the difference of these
two means on the test images. The grid looks at the test images, as no person should: it says what could be had.
"""

import argparse
import datetime
import functools
import statistics
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accuracy import markdown
from bench import ROOT, RowFile, commit, merge, report, table
from keys import Values, digest, recipe_values

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.system.machine import describe
from era_support_packages.training import loop as training
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.lr_finder import choose_max_lr, range_test
from era_support_packages.training.resolution import prepare_config
from era_support_packages.training.setup import build_model

STORED = RowFile(ROOT / "benchmarks" / "results" / "learning_rate.json")
IDENTITY = ("case", "rate", "key", "seed")
GRID = tuple(0.0005 * 4**power for power in range(7))  # 0.0005 to 2
GRID_SEEDS, FRESH_SEEDS = (0, 1), (10, 11, 12)
TRAIN, TEST, IMAGES = 5000, 2000, 6000


@dataclass(frozen=True)
class Case:
    """A preset and what is changed of it, on a subset of a data set."""

    preset: str
    changes: Values = field(default_factory=dict)
    digits: bool = False

    def config(self, rate: float | str, seed: int) -> TrainingConfig:
        """The run with that rate."""
        values: Values = {
            "train_images": IMAGES,
            "max_epochs": None,
            "epochs": None,
            "resolutions": [[16, 1.0]],
            "test_images": 1,
        }
        values |= {"device": "cpu", "threads": 1, "precision": "fp32", "max_lr": rate, "seed": seed}
        return TrainingConfig.preset(self.preset, **values, **self.changes)


BEFORE_MUON: Values = {"optimizer": "sgd", "momentum": 0.9, "batch_size": 32}  # what the preset was when its rows were trained
CASES = {
    "cpu": Case("cpu"),
    "cpu, SGD": Case("cpu", BEFORE_MUON),
    "cpu, SGD, batch 64": Case("cpu", {**BEFORE_MUON, "batch_size": 64}),
    "original, batch 64": Case("original", {"batch_size": 64}),
    "digits, cpu, SGD": Case("cpu", BEFORE_MUON, digits=True),
    "digits, original, batch 64, resnet_custom": Case("original", {"batch_size": 64, "model": "resnet_custom"}, digits=True),
}


@functools.cache  # a process trains many rows
def subset(data: str) -> tuple[ImageDataset, ImageDataset]:
    """The images of a case, the same every time: 5,000 and 2,000, or all digits."""
    train, test = datasets.load(data)
    if data == "digits":
        return train, test
    generator = np.random.default_rng(0)
    return tuple(
        split.take(np.sort(generator.permutation(len(split))[:count])) for split, count in ((train, TRAIN), (test, TEST))
    )


def trained(name: str, rate: float | str, seed: int, data: str) -> tuple[Values, Values]:
    """One row and the values behind its key; in a process of its own, with one thread."""
    torch.set_num_threads(1)
    case = CASES[name]
    asked = case.config(rate, seed)
    train, test = subset("digits" if case.digits else data)
    prepared = prepare_config(asked, train)
    model = build_model(prepared, len(train.classes), train)
    if rate == "auto":
        config, sentence = choose_max_lr(prepared, range_test(model, train, len(test), prepared))
    else:
        config, sentence = prepared.resolved(), ""
    _, history = training.fit(model, train, test, config, report=lambda _: None)
    recipe = recipe_values(asked)
    row = {
        "case": name,
        "rate": rate,
        "key": digest(recipe),
        "seed": seed,
        "max_lr": config.max_lr,
        "said": sentence,
        "accuracy": history.predictions.accuracy,
        "device": describe(torch.device("cpu")),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }
    return row, recipe


def missing(rows: list[Values], name: str) -> list[tuple[str, float | str, int]]:
    """The rows of a case that can be trained now: its grid, then the neighbors of the best, then the best and auto."""
    case, accuracies = CASES[name], by_rate(rows, name)

    def lacking(rates: list[float | str], seeds: tuple[int, ...]) -> list[tuple[str, float | str, int]]:
        there = {(row["rate"], row["key"], row["seed"]) for row in rows if row["case"] == name}
        wanted = [(rate, seed) for rate in rates for seed in seeds]
        return [
            (name, rate, seed)
            for rate, seed in wanted
            if (rate, digest(recipe_values(case.config(rate, seed))), seed) not in there
        ]

    grid = lacking(list(GRID), GRID_SEEDS)
    if grid:
        return grid
    coarse = max(GRID, key=lambda rate: statistics.mean(accuracies[rate][seed] for seed in GRID_SEEDS))
    neighbors = lacking([coarse / 2, coarse * 2], GRID_SEEDS)
    return neighbors or lacking([best_rate(rows, name), "auto"], FRESH_SEEDS)


def by_rate(rows: list[Values], name: str) -> dict[float | str, dict[int, float]]:
    """Accuracy by rate and seed."""
    found: dict[float | str, dict[int, float]] = {}
    for row in rows:
        if row["case"] == name:
            found.setdefault(row["rate"], {})[row["seed"]] = row["accuracy"]
    return found


def best_rate(rows: list[Values], name: str) -> float:
    """The rate with the highest mean over the grid's seeds."""
    complete = {
        rate: statistics.mean(seeds[seed] for seed in GRID_SEEDS)
        for rate, seeds in by_rate(rows, name).items()
        if rate != "auto" and set(GRID_SEEDS) <= set(seeds)
    }
    return max(complete, key=complete.__getitem__)


def train_missing(data: str, processes: int) -> None:
    """Train what is missing of all cases, so many rows side by side."""
    running: dict[Future[Any], tuple[str, float | str, int]] = {}
    with ProcessPoolExecutor(processes) as pool:
        while True:
            rows = STORED.rows()
            wanted = [row for name in CASES for row in missing(rows, name) if row not in running.values()]
            for row in wanted[: processes - len(running)]:
                report(f"{row[0]}: max_lr {row[1]}, seed {row[2]}")
                running[pool.submit(trained, *row, data)] = row
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(done)
                STORED.add(*done.result())


def summarized(rows: list[Values]) -> list[Values]:
    """A line for each case whose rows are complete."""
    lines = []
    for name in CASES:
        found = by_rate(rows, name)
        if "auto" not in found:
            continue
        best = best_rate(rows, name)
        if not set(FRESH_SEEDS) <= set(found["auto"]) & set(found[best]):
            continue
        means = [statistics.mean(found[rate][seed] for seed in FRESH_SEEDS) for rate in (best, "auto")]
        chosen = [row["max_lr"] for row in rows if row["case"] == name and row["rate"] == "auto"]
        lines.append(
            {
                "case": name,
                "best rate": f"{best:.3g}",
                "its accuracy %": f"{means[0]:.2f}",
                "auto's rates": ", ".join(f"{rate:.2g}" for rate in chosen),
                "auto's accuracy %": f"{means[1]:.2f}",
                "lost points": f"{means[0] - means[1]:+.2f}",
            }
        )
    return lines


def conclusion(lines: list[Values]) -> str:
    """What following "auto" costs over these cases."""
    lost = [float(line["lost points"]) for line in lines]
    mean, most = statistics.mean(lost), max(lost)
    return f"auto loses {mean:.2f} points on average and {most:.2f} at most, in {len(lines)} of {len(CASES)} cases."


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="train the rows that are missing")
    parser.add_argument("--data", default="data/cifar10-jpeg", help="the data set (default: data/cifar10-jpeg)")
    parser.add_argument("--processes", type=int, default=2, help="side by side (default: 2)")
    parser.add_argument("--merge", metavar="FILE", help="take over the rows of another file that are missing")
    parser.add_argument("--json", metavar="FILE", help="also write the stored rows into this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as a README has it")
    chosen = parser.parse_args()
    merge(parser, STORED, chosen.merge, IDENTITY)
    if chosen.full:
        train_missing(chosen.data, chosen.processes)
    lines = summarized(STORED.rows())
    if not lines:
        raise SystemExit("No case is complete yet: train the rows with --full.")
    print((markdown if chosen.markdown else table)(lines), conclusion(lines), sep="\n")
    STORED.copy(chosen.json)


if __name__ == "__main__":
    main()
