"""Test accuracy of the recipes, with and without test-time augmentation, over seeds: prints the rows that are stored.

python benchmarks/accuracy.py
python benchmarks/accuracy.py --full --data data/cifar10-jpeg --recipes cpu --seeds 0 1 2

With --full it trains the rows that are missing, one after another, and stores each as soon as it is there; a run that was
stopped goes on where it stopped. A row that is stored is not trained again on the same kind of device, unless it is of an older
recipe: a preset has changed since. "at equal work" means the floating-point operations of the preset cpu. Accuracies are those
at the last epoch; the test split decides nothing.
"""

import argparse
import datetime
import gc
import json
import math
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench import ROOT, RowFile, commit, merge, report, row_options, table
from keys import OLDER, Values, digest, key_of, kind_of, recipe_values
from recipes import BY_OTHERS, RECIPES
from scipy.stats import t

from era_support_packages.runs import preparation, recording
from era_support_packages.system.machine import resolve_device

STORED = RowFile(ROOT / "benchmarks" / "results" / "accuracy.json")
IDENTITY = ("recipe", "key", "kind", "data", "seed")  # what tells rows apart
TRAINED_BY_DEFAULT = ("cpu", "original at equal work", "textbook at equal work")


def trained(name: str, data: str, seed: int, kind: str, shared: bool = False) -> tuple[Values, Values]:
    """Train one row, or go on with it, and return it with the values behind its key.

    `shared`: beside other work, so that its seconds say little.
    """
    recipe = RECIPES[name]
    options, values = recipe.overrides(kind), recipe_values(recipe.config(kind))
    if kind == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # what a run before has left
        torch.cuda.reset_peak_memory_stats()
    prepared = preparation.prepare(recipe.preset, dataset=data, seed=seed, report=report, **options)
    recording.train_prepared(prepared, report)
    summary, size = prepared.run.summary(), len(prepared.train)
    planned = prepared.config.planned_epochs(size)
    words = [f"--{key.replace('_', '-')} {_word(value)}" for key, value in {"seed": seed, **options}.items()]
    row = {
        "recipe": name,
        "key": digest(values),
        "kind": kind_of(summary["hardware"]),
        "preset": recipe.preset,
        "data": summary["dataset"],
        "seed": seed,
        "images": planned[-1].end,
        "epochs at 32 px": round(sum(epoch.images * epoch.resolution**2 for epoch in planned) / 32**2 / size, 2),
        "pflops": summary["pflops"],
        "test_accuracy": summary["test_accuracy"],
        "test_accuracy_tta": summary["test_accuracy_tta"],
        "seconds": summary["seconds"],
        "shared": shared,
        **({"peak_gpu_gb": torch.cuda.max_memory_reserved() / 1e9} if kind == "cuda" else {}),
        "device": summary["hardware"],
        "precision": prepared.config.precision,
        "torch": summary["versions"]["torch"],
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "command": f"python -m era_support_packages --preset {recipe.preset} --dataset {here(data)} {' '.join(words)}",
    }
    return row, values


def here(data: str) -> str:
    """The name of a data set, or its folder as seen from the repository: no row may name a folder of one machine."""
    path = Path(data)
    if not path.is_absolute():
        return data
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _word(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


# ---- what is printed -------------------------------------------------------------------------------------------------


def summarized(rows: list[Values]) -> list[Values]:
    """A line for each recipe, data set and kind of device: means over the seeds, and where a new run would fall.

    A row of an older recipe has a line of its own, with its key.
    """
    groups: dict[tuple[str, ...], list[Values]] = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["key"], row["data"], row["kind"]), []).append(row)
    lines = []
    for (recipe, key, data, kind), group in groups.items():
        plain, mirrored = ([row[name] for row in group] for name in ("test_accuracy", "test_accuracy_tta"))
        lines.append(
            {
                "recipe": recipe if key == current_key(recipe, kind) else f"{recipe} ({OLDER} {key})",
                "data": data,
                "device": ", ".join(dict.fromkeys(row["device"] for row in group)),
                "seeds": len(group),
                "images": group[0]["images"],
                "PFLOP": statistics.mean(row["pflops"] for row in group),
                "test accuracy %": f"{statistics.mean(plain):.2f}",
                "a new run": interval(plain),
                "with mirror images %": f"{statistics.mean(mirrored):.2f}",
                "a new run ": interval(mirrored),
                "seconds": seconds(group),
            }
        )
    order = {name: number for number, name in enumerate(RECIPES)}
    return sorted(lines, key=lambda line: (OLDER in line["recipe"], order.get(line["recipe"], len(order))))


def current_key(recipe: str, kind: str) -> str | None:
    """The key that a row of this recipe would have now; None where there is no such recipe any more."""
    return key_of(RECIPES[recipe].config(kind)) if recipe in RECIPES else None


def interval(values: Sequence[float]) -> str:
    """Where 95 of 100 new runs fall, in percent: "76.26 to 78.17"; "-" for one value, which says nothing of the spread.

    The prediction interval of a normal distribution: mean plus or minus t(0.975, n - 1) * s * sqrt(1 + 1 / n).
    """
    count = len(values)
    if count < 2:
        return "-"
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) * math.sqrt(1 + 1 / count)
    mean = statistics.mean(values)
    return f"{max(mean - half, 0):.2f} to {min(mean + half, 100):.2f}"


def seconds(group: list[Values]) -> str:
    """Mean seconds of training on each device, in the order in which they are named; "shared" where each was trained beside
    other work."""
    words = []
    for device in dict.fromkeys(row["device"] for row in group):
        alone = [row["seconds"] for row in group if row["device"] == device and not row["shared"]]
        words.append(_number(statistics.mean(alone)) if alone else "shared")
    return ", ".join(words)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def comparison(rows: list[Values]) -> str | None:
    """How many times the errors of the preset cpu a textbook recipe makes, in words; None before rows of both are there."""
    current = [row for row in rows if row["key"] == current_key(row["recipe"], row["kind"])]
    means = {
        name: statistics.mean(row["test_accuracy"] for row in current if row["recipe"] == name)
        for name in {row["recipe"] for row in current}
    }
    if not {"textbook at equal work", "cpu"} <= means.keys():
        return None
    ratio = (100 - means["textbook at equal work"]) / (100 - means["cpu"])
    return f"At equal work a textbook recipe makes {ratio:.2f} times the errors of the preset cpu."


def markdown(rows: list[Values]) -> str:
    """The rows as a table of a README."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)] + [[_cell(row[column]) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(str(cell).strip() for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return _number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def main() -> None:
    """The command line."""
    parser = row_options(__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=TRAINED_BY_DEFAULT, metavar="NAME")
    parser.add_argument("--markdown", action="store_true", help="print the tables as a README has them")
    parser.add_argument("--store", metavar="FILE", help="where rows are looked for and stored (default: that of this repository)")
    chosen = parser.parse_args()
    stored = RowFile(Path(chosen.store)) if chosen.store else STORED
    merge(parser, stored, chosen.merge, IDENTITY)
    if chosen.full:
        try:
            train_missing(stored, chosen)
        except recording.RunStopped as stop:
            raise SystemExit(stop.exit_code) from None
    rows = stored.rows()
    if not rows:
        raise SystemExit("No rows are stored yet: train them with --full.")
    drawn = markdown if chosen.markdown else table
    print(drawn(summarized(rows)))
    print(NOTE)
    if sentence := comparison(rows):
        print(sentence)
    print("\nOthers' results for this network, on the official files of CIFAR-10:\n" + drawn(BY_OTHERS))
    stored.copy(chosen.json)


NOTE = (
    'Each mean is over so many seeds; 95 of 100 new runs fall between the numbers of "a new run", for which one seed is too few. '
    "Mirror images: the mean of the logits of each image and its mirror image."
)


def train_missing(stored: RowFile, chosen: argparse.Namespace) -> None:
    """Train the chosen rows that are not stored."""
    for seed in chosen.seeds:
        for name in chosen.recipes:
            kind = resolve_device(RECIPES[name].changes.get("device", "auto")).type
            row = [name, current_key(name, kind), kind, Path(chosen.data).name, seed]
            if row not in [[there[column] for column in IDENTITY] for there in stored.rows()]:
                stored.add(*trained(name, chosen.data, seed, kind, chosen.shared))


if __name__ == "__main__":
    main()
