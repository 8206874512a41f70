"""What a change of a recipe brings: paired seeds, on training images held out by class; the test split is not looked at.

python benchmarks/screening.py
python benchmarks/screening.py --full --data data/cifar10-jpeg --base '{"train_images": 36000}' --changes '{"norm_bias_lr": 16}'

With --full it trains the preset with the values of --base, alone and with each of the changes, once a seed, on nine tenths of the
training images, and stores each accuracy on the last tenth (the same images every time) as soon as it is there; rows that are
stored are not trained again. A change pays where its mean difference, seed by seed, exceeds twice its standard error over at
least three seeds.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

from accuracy import commit, report
from bench import table

from era_support_packages import datasets, training
from era_support_packages.atomic_file import write_atomically
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import describe, resolve_device, versions
from era_support_packages.image_dataset import ImageDataset, stratified_split

STORED = Path(__file__).resolve().parent / "results" / "screening.json"
HELD_OUT = 0.1  # of the training images: 5,000 of CIFAR-10
FEWEST_SEEDS = 3

Values = dict[str, Any]


def split(train: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The training split in two: what is trained on, and what is held out, every class in proportion."""
    kept, held_out = stratified_split(train.labels, HELD_OUT)
    return train.take(kept), train.take(held_out)


def trained(preset: str, base: Values, change: Values, seed: int, train: ImageDataset, held_out: ImageDataset) -> Values:
    """Train one row and return it."""
    config = training.resolve(TrainingConfig.preset(preset, **{**base, **change}, seed=seed), train)
    report(f"{preset} {_words(base)}: {_words(change)}, seed {seed}")
    start = time.perf_counter()
    model = training.build_model(config, len(train.classes), train)
    history = training.fit(model, train, held_out, config, report=report)
    return {
        "preset": preset,
        "base": base,
        "change": change,
        "seed": seed,
        "data": train.name,
        "images": sum(record.images for record in history.records),
        "accuracy": history.predictions.accuracy,
        "seconds": time.perf_counter() - start,
        "device": describe(resolve_device(config.device)),
        "commit": commit(),
    }


def compared(rows: list[Values]) -> list[Values]:
    """A line for each base and change that share seeds: the accuracies without and with, their difference, and the verdict."""
    lines = []
    for preset, base, data in _distinct([(row["preset"], row["base"], row["data"]) for row in rows]):
        same = [row for row in rows if (row["preset"], row["base"], row["data"]) == (preset, base, data)]
        without = {row["seed"]: row["accuracy"] for row in same if not row["change"]}
        for change in _distinct([row["change"] for row in same if row["change"]]):
            with_it = {row["seed"]: row["accuracy"] for row in same if row["change"] == change}
            seeds = sorted(without.keys() & with_it.keys())
            if seeds:
                difference, error, verdict = judged([with_it[seed] - without[seed] for seed in seeds])
                lines.append(
                    {
                        "change": _words(change),
                        "of": f"{preset} {_words(base)}",
                        "data": data,
                        "seeds": len(seeds),
                        "without %": f"{statistics.mean(without[seed] for seed in seeds):.2f}",
                        "with %": f"{statistics.mean(with_it[seed] for seed in seeds):.2f}",
                        "difference": f"{difference:+.2f}",
                        "standard error": "-" if math.isnan(error) else f"{error:.2f}",
                        "verdict": verdict,
                    }
                )
    return lines


def judged(differences: list[float]) -> tuple[float, float, str]:
    """Mean of the paired differences, its standard error, and whether the change pays."""
    mean = statistics.mean(differences)
    if len(differences) < FEWEST_SEEDS:
        return mean, math.nan, "too few seeds"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error, "pays" if mean > 2 * error else "harms" if mean < -2 * error else "not shown"


def summary(lines: list[Values]) -> tuple[float, str]:
    """The share of the changes that pay, in words too."""
    share = sum(line["verdict"] == "pays" for line in lines) / max(len(lines), 1)
    return share, f"{share:.2f} of the changes that were tried pay."


def _distinct(values: list[Any]) -> list[Any]:
    return [value for position, value in enumerate(values) if value not in values[:position]]


def _words(values: Values) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items()) or "unchanged"


def stored() -> list[Values]:
    """The rows there are."""
    return json.loads(STORED.read_text())["rows"] if STORED.exists() else []


def store(row: Values) -> None:
    """Add one row to those that are there."""
    rows = [*stored(), row]
    ratio, sentence = summary(compared(rows))
    result = {
        "benchmark": "screening",
        "command": "python benchmarks/screening.py --full --json benchmarks/results/screening.json",
        "hardware": row["device"],
        "versions": versions(),
        "rows": rows,
        "ratio": ratio,
        "sentence": sentence,
    }
    STORED.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(STORED, (json.dumps(result, indent=2) + "\n").encode())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="train the rows that are missing")
    parser.add_argument("--data", default="auto", help="data set to train on (default: auto)")
    parser.add_argument("--preset", default="cpu", help="what the changes are changes of (default: cpu)")
    parser.add_argument("--base", type=json.loads, default={}, metavar="JSON", help="values set in every run")
    parser.add_argument("--changes", type=json.loads, nargs="+", default=[], metavar="JSON", help="values of one change each")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--json", metavar="FILE", help="also write the stored rows into this file")
    chosen = parser.parse_args()
    if chosen.full:
        train, held_out = split(datasets.load(chosen.data)[0])
        for seed in chosen.seeds:
            for change in ({}, *chosen.changes):
                key = (chosen.preset, chosen.base, change, seed, train.name)
                if not any((row["preset"], row["base"], row["change"], row["seed"], row["data"]) == key for row in stored()):
                    store(trained(chosen.preset, chosen.base, change, seed, train, held_out))
    lines = compared(stored())
    if not lines:
        raise SystemExit("No two rows to compare are stored yet: train them with --full and --changes.")
    print(table(lines))
    print(summary(lines)[1])
    if chosen.json and Path(chosen.json).resolve() != STORED:
        write_atomically(Path(chosen.json), STORED.read_bytes())


if __name__ == "__main__":
    main()
