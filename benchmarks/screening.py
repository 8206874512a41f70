"""What a change of a recipe brings: paired seeds, on training images held out by class; the test split is not looked at.

python benchmarks/screening.py
python benchmarks/screening.py --full --data data/cifar10-jpeg --base '{"train_images": 30000}' --changes '{"norm_bias_lr": 16}'

With --full it trains the preset with the values of --base, alone and with each of the changes, once a seed, on nine tenths of the
training images, and stores each accuracy on the last tenth (the same images every time) as soon as it is there. A row that is
stored is not trained again on the same kind of device, unless it is of an older recipe: a preset has changed since. A change
pays where its mean difference, seed by seed, exceeds twice its standard error over at least three seeds.
"""

import argparse
import json
import math
import statistics
import time

from bench import ROOT, RowFile, commit, merge, report, row_options, table
from keys import OLDER, Values, digest, key_of, kind_of, recipe_values

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.image_dataset import ImageDataset, stratified_split
from era_support_packages.system.machine import describe, resolve_device
from era_support_packages.training import loop as training
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.resolution import resolve
from era_support_packages.training.setup import build_model

STORED = RowFile(ROOT / "benchmarks" / "results" / "screening.json")
HELD_OUT = 0.1  # of the training images: 5,000 of CIFAR-10
FEWEST_SEEDS = 3
IDENTITY = ("preset", "base", "change", "key", "kind", "data", "seed")  # what tells rows apart
EXAMPLE = '{"norm_bias_lr": 16}'


def split(train: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The training split in two: what is trained on, and what is held out, every class in proportion."""
    kept, held_out = stratified_split(train.labels, HELD_OUT)
    return train.take(kept), train.take(held_out)


def trained(
    preset: str, base: Values, change: Values, seed: int, train: ImageDataset, held_out: ImageDataset, shared: bool = False
) -> tuple[Values, Values]:
    """Train one row and return it with the values behind its key; `shared`: beside other work, so that its seconds say little."""
    asked = TrainingConfig.preset(preset, **{**base, **change, "seed": seed})
    config = resolve(asked, train)
    report(f"{preset} {_words(base)}: {_words(change)}, seed {seed}")
    start = time.perf_counter()
    model = build_model(config, len(train.classes), train)
    _, history = training.fit(model, train, held_out, config, report=report)
    device = describe(resolve_device(config.device))
    recipe = recipe_values(asked)
    row = {
        "preset": preset,
        "base": base,
        "change": change,
        "key": digest(recipe),
        "kind": kind_of(device),
        "seed": seed,
        "data": train.name,
        "images": sum(record.images for record in history.records),
        "accuracy": history.predictions.accuracy,
        "seconds": time.perf_counter() - start,
        "shared": shared,
        "device": device,
        "commit": commit(),
    }
    return row, recipe


def compared(rows: list[Values], recipes: dict[str, Values]) -> list[Values]:
    """A line for each base and change that share seeds: the accuracies without and with, their difference, and the verdict.

    A row is compared with those that differ from it in the change alone, on the same kind of device.
    """
    groups: dict[str, list[Values]] = {}
    for row in (row for row in rows if row["change"]):
        groups.setdefault(json.dumps([row[name] for name in IDENTITY if name != "seed"], sort_keys=True), []).append(row)
    lines = []
    for first, *others in groups.values():
        unchanged = {name: first[name] for name in ("preset", "base", "data", "kind")} | {"change": {}}
        bases = [
            row
            for row in rows
            if all(row[name] == value for name, value in unchanged.items())
            and _rest(recipes[row["key"]], first["change"]) == _rest(recipes[first["key"]], first["change"])
        ]
        without = {own["seed"]: found["accuracy"] for own in (first, *others) if (found := _base_of(own, bases))}
        with_it = {row["seed"]: row["accuracy"] for row in (first, *others)}
        seeds = sorted(without.keys() & with_it.keys())
        if seeds:
            difference, error, verdict = judged([with_it[seed] - without[seed] for seed in seeds])
            older = first["key"] != current_key(first["preset"], first["base"], first["change"])
            lines.append(
                {
                    "change": _words(first["change"]) + (f" ({OLDER} {first['key']})" if older else ""),
                    "of": f"{first['preset']} {_words(first['base'])}, {first['data']}, {first['kind']}",
                    "seeds": len(seeds),
                    "without %": f"{statistics.mean(without[seed] for seed in seeds):.2f}",
                    "with %": f"{statistics.mean(with_it[seed] for seed in seeds):.2f}",
                    "difference": f"{difference:+.2f}",
                    "standard error": "-" if math.isnan(error) else f"{error:.2f}",
                    "verdict": verdict,
                }
            )
    return lines


def _base_of(row: Values, bases: list[Values]) -> Values | None:
    """The unchanged run of the same seed, and of the same commit where there is one: other code may round otherwise."""
    of_seed = [base for base in bases if base["seed"] == row["seed"]]
    return next((base for base in of_seed if base.get("commit") == row.get("commit")), next(iter(of_seed), None))


def _rest(values: Values, change: Values) -> Values:
    """What a recipe is but for a change, and for the values that only one kind of optimizer or rate has."""
    return _without(values, *change, "muon_lr", "muon_outputs", "muon_iterations", "range_test_iterations")


def current_key(preset: str, base: Values, change: Values) -> str | None:
    """The key that a row of this preset and these changes would have now; None where there is no such recipe any more."""
    try:
        return key_of(TrainingConfig.preset(preset, **{**base, **change}))
    except ValueError:
        return None


def judged(differences: list[float]) -> tuple[float, float, str]:
    """Mean of the paired differences, its standard error, and whether the change pays."""
    mean = statistics.mean(differences)
    if len(differences) < FEWEST_SEEDS:
        return mean, math.nan, "too few seeds"
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return mean, error, "pays" if mean > 2 * error else "harms" if mean < -2 * error else "not shown"


def _without(line: Values, *names: str) -> Values:
    return {name: value for name, value in line.items() if name not in names}


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
    merge(parser, STORED, chosen.merge, IDENTITY)
    if chosen.full:
        train, held_out = split(datasets.load(chosen.data)[0])
        for seed in chosen.seeds:
            for change in variants:
                config = TrainingConfig.preset(chosen.preset, **{**chosen.base, **change})
                kind = resolve_device(config.device).type
                row = [chosen.preset, chosen.base, change, key_of(config), kind, train.name, seed]
                if row not in [[stored[name] for name in IDENTITY] for stored in STORED.rows()]:
                    STORED.add(*trained(chosen.preset, chosen.base, change, seed, train, held_out, chosen.shared))
    lines = compared(STORED.rows(), STORED.recipes())
    if not lines:
        raise SystemExit("No two rows to compare are stored yet: train them with --full and --changes.")
    for of in dict.fromkeys(line["of"] for line in lines):
        print(f"\nChanges of {of}:")
        print(table([_without(line, "of") for line in lines if line["of"] == of]))
    STORED.copy(chosen.json)


if __name__ == "__main__":
    main()
