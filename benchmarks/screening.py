"""What a change of a recipe brings: paired seeds, on training images held out by class; the test split is not looked at.

python benchmarks/screening.py
python benchmarks/screening.py --full --data data/cifar10-jpeg --base '{"train_images": 30000}' --changes '{"norm_bias_lr": 16}'

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
from typing import Any

from bench import ROOT, RowFile, commit, report, row_options, table

from era_support_packages import datasets, training
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import describe, resolve_device
from era_support_packages.image_dataset import ImageDataset, stratified_split

STORED = RowFile(ROOT / "benchmarks" / "results" / "screening.json")
HELD_OUT = 0.1  # of the training images: 5,000 of CIFAR-10
FEWEST_SEEDS = 3
KEY = ("preset", "base", "change", "seed", "data")  # what makes a row
EXAMPLE = '{"norm_bias_lr": 16}'

Values = dict[str, Any]


def split(train: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The training split in two: what is trained on, and what is held out, every class in proportion."""
    kept, held_out = stratified_split(train.labels, HELD_OUT)
    return train.take(kept), train.take(held_out)


def trained(preset: str, base: Values, change: Values, seed: int, train: ImageDataset, held_out: ImageDataset) -> Values:
    """Train one row and return it."""
    config = training.resolve(TrainingConfig.preset(preset, **{**base, **change, "seed": seed}), train)
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


def _without(line: Values, *names: str) -> Values:
    return {name: value for name, value in line.items() if name not in names}


def _distinct(values: list[Any]) -> list[Any]:
    return [value for position, value in enumerate(values) if value not in values[:position]]


def _words(values: Values) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items()) or "unchanged"


def values(text: str) -> Values:
    """The values of one option. Raises `argparse.ArgumentTypeError` where it is not a table that leaves the seed alone."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or "seed" in found:
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON object like {EXAMPLE}; seeds are given with --seeds.")
    return found


def main() -> None:
    """The command line."""
    parser = row_options(__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu", help="what the changes are changes of (default: cpu)")
    parser.add_argument("--base", type=values, default={}, metavar="JSON", help="values set in every run")
    parser.add_argument("--changes", type=values, nargs="+", default=[], metavar="JSON", help="values of one change each")
    chosen = parser.parse_args()
    variants = [{}, *chosen.changes]
    try:
        for change in variants:  # before any work starts
            TrainingConfig.preset(chosen.preset, **{**chosen.base, **change})
    except ValueError as error:
        parser.error(str(error))
    if chosen.full:
        train, held_out = split(datasets.load(chosen.data)[0])
        for seed in chosen.seeds:
            for change in variants:
                key = (chosen.preset, chosen.base, change, seed, train.name)
                if key not in [tuple(row[name] for name in KEY) for row in STORED.rows()]:
                    STORED.add(trained(chosen.preset, chosen.base, change, seed, train, held_out))
    lines = compared(STORED.rows())
    if not lines:
        raise SystemExit("No two rows to compare are stored yet: train them with --full and --changes.")
    for of, data in _distinct([(line["of"], line["data"]) for line in lines]):
        print(f"\nChanges of {of}, {data}:")
        print(table([_without(line, "of", "data") for line in lines if (line["of"], line["data"]) == (of, data)]))
    STORED.copy(chosen.json)


if __name__ == "__main__":
    main()
