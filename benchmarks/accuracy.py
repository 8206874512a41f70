"""Test accuracy of the recipes, with and without test-time augmentation, over seeds: prints the rows that are stored.

python benchmarks/accuracy.py
python benchmarks/accuracy.py --full --data data/cifar10-jpeg --recipes cpu --seeds 0 1 2

With --full it trains the rows that are missing, one after another, and stores each as soon as it is there; a run that was
stopped goes on where it stopped. "at equal work" means the floating-point operations of the preset cpu. Accuracies are those at
the last epoch; the test split decides nothing.
"""

import datetime
import json
import shlex
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import ROOT, RowFile, commit, report, row_options, table

from era_support_packages import recording
from era_support_packages.config import TrainingConfig

STORED = RowFile(ROOT / "benchmarks" / "results" / "accuracy.json")
EPOCH = 50_000  # training images of CIFAR-10


@dataclass(frozen=True)
class Recipe:
    """A preset and what is changed of it; `equal_work`: as many images as the operations of the preset cpu pay for at 32 px."""

    preset: str
    changes: dict[str, Any] = field(default_factory=dict)
    equal_work: bool = False

    def overrides(self) -> dict[str, Any]:
        """What is changed of the preset, the number of images included."""
        values = {**self.changes, "test_time_flip": True}
        if self.equal_work:
            values["train_images"] = round(image_equivalents(TrainingConfig.preset("cpu")))
        return values


# What a tutorial would give: SGD with momentum, OneCycle, flip and padded crop, all at full resolution.
TEXTBOOK = {
    "batch_size": 128,
    "max_lr": 0.1,
    "anneal": "cos",
    "warmup": 0.3,
    "weight_decay": 5e-4,
    "crop_padding": 4,
    "horizontal_flip": 0.5,
    "cutout": 0,
    "shift_scale_rotate": 0.0,
    "rgb_shift": 0.0,
    "brightness_contrast": 0.0,
}
RECIPES = {
    "cpu": Recipe("cpu"),
    # its range test alone would show up to three times as many images as the training: the course's rate instead
    "original at equal work": Recipe("original", {"max_lr": 0.0445}, equal_work=True),
    "textbook at equal work": Recipe("original", TEXTBOOK, equal_work=True),
    "fast": Recipe("fast"),
    "best": Recipe("best"),
    "original": Recipe("original"),
}


def image_equivalents(config: TrainingConfig) -> float:
    """How many images at 32 px cost as much as the images of a plan: work grows with the pixels."""
    return sum(share * config.train_images * pixels**2 / 32**2 for pixels, share in config.resolutions)


def trained(name: str, data: str, seed: int) -> dict[str, Any]:
    """Train one row, or go on with it, and return it."""
    recipe = RECIPES[name]
    options = recipe.overrides()
    prepared = recording.prepare(recipe.preset, dataset=data, seed=seed, report=report, **options)
    recording.train_prepared(prepared, report)
    summary, size = prepared.run.summary(), len(prepared.train)
    planned = prepared.config.planned_epochs(size)
    words = [f"--{key.replace('_', '-')} {_word(value)}" for key, value in {"seed": seed, **options}.items()]
    return {
        "recipe": name,
        "preset": recipe.preset,
        "data": summary["dataset"],
        "seed": seed,
        "images": planned[-1].end,
        "epochs at 32 px": round(sum(epoch.images * epoch.resolution**2 for epoch in planned) / 32**2 / size, 2),
        "pflops": summary["pflops"],
        "test_accuracy": summary["test_accuracy"],
        "test_accuracy_tta": summary["test_accuracy_tta"],
        "seconds": summary["seconds"],
        "device": summary["hardware"],
        "torch": summary["versions"]["torch"],
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "command": f"python -m era_support_packages --preset {recipe.preset} --dataset {data} {' '.join(words)}",
    }


def _word(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each recipe, data set and device: mean and standard deviation over the seeds."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["data"], row["device"]), []).append(row)
    return [
        {
            "recipe": recipe,
            "data": data,
            "device": device,
            "seeds": len(group),
            "images": group[0]["images"],
            "PFLOP": statistics.mean(row["pflops"] for row in group),
            "test accuracy %": spread([row["test_accuracy"] for row in group]),
            "with flips averaged %": spread([row["test_accuracy_tta"] for row in group]),
            "seconds": statistics.mean(row["seconds"] for row in group),
        }
        for (recipe, data, device), group in groups.items()
    ]


def spread(values: list[float]) -> str:
    """Mean and standard deviation of the sample: "74.12 ± 0.31"; a single value alone."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def comparison(rows: list[dict[str, Any]]) -> str | None:
    """How many times the errors of the preset cpu a textbook recipe makes, in words; None before rows of both are there."""
    means = {
        name: statistics.mean(row["test_accuracy"] for row in rows if row["recipe"] == name)
        for name in {row["recipe"] for row in rows}
    }
    if not {"textbook at equal work", "cpu"} <= means.keys():
        return None
    ratio = (100 - means["textbook at equal work"]) / (100 - means["cpu"])
    return f"At equal work a textbook recipe makes {ratio:.2f} times the errors of the preset cpu."


def main() -> None:
    """The command line."""
    parser = row_options(__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES)[:3], metavar="NAME")
    chosen = parser.parse_args()
    if chosen.full:
        for seed in chosen.seeds:
            for name in chosen.recipes:
                done = {(row["recipe"], Path(row["data"]).name, row["seed"]) for row in STORED.rows()}
                if (name, Path(chosen.data).name, seed) not in done:
                    STORED.add(trained(name, chosen.data, seed))
    rows = STORED.rows()
    if not rows:
        raise SystemExit("No rows are stored yet: train them with --full.")
    print(table(summarised(rows)))
    if sentence := comparison(rows):
        print(sentence)
    STORED.copy(chosen.json)


if __name__ == "__main__":
    main()
