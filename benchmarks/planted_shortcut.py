"""Would class activation maps find a planted shortcut in a pretrained network at 128 px?

python benchmarks/planted_shortcut.py --check-seconds 1800 --json benchmarks/results/planted_shortcut.json

EfficientNet-Lite0 with the weights that its package carries is finetuned as in finetune.py: 5,000 images of a JPEG copy of
CIFAR-10, enlarged to 128 px. A mark of 16 px is then planted in a copy of it, and in a second copy with labels drawn at random,
which must fail. All three networks are kept in `--work` and not trained again. The maps are those of the widest layer of each
resolution, and of two of these together; which two was chosen with another network, of seed 0.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import options, publish
from finetune import FIXED, MEAN, STD, enlarged, finetuned, pretrained, subset
from torch import nn

from era_support_packages import Classifier, TrainingConfig
from era_support_packages.datasets import ImageDataset, loading as datasets
from era_support_packages.evaluation import Interval
from era_support_packages.models import replace_head
from era_support_packages.training import EpochRecord, History, resolve
from era_support_packages.trust import CheckBudget
from era_support_packages.trust.shortcut import PlantedNetwork, ShortcutTest, find, plant

SIDE = 128
PLANTED, TESTED = 2000, 300  # images; the mark is planted with others than those of the training
SEED, RATE = 1, 0.0003
FAILING_STEPS = 24  # enough to see that labels drawn at random teach nothing
METHODS = ("gradcam", "hirescam", "layercam")
LAYERS = ("_blocks.1._bn0", "_blocks.3._bn0", "_blocks.5._bn0", "_blocks.11._bn0", "_bn1")
"""the widest one of each resolution: what is passed on between the blocks has few channels of either sign, without a ReLU"""
TOGETHER = ("_blocks.5._bn0+_blocks.11._bn0",)


def splits(data: str) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
    """Images to train with, others to plant the mark with, and test images, each at 128 px and drawn once."""
    train, test = subset(data)
    whole = datasets.load(data)[0]
    others = np.random.default_rng(0).permutation(len(whole))[len(train) : len(train) + PLANTED]  # as `subset` draws its own
    judged = np.random.default_rng(1).permutation(len(test))[:TESTED]  # of all classes, which `subset` has one after the other
    large, tested = enlarged(train, test.take(np.sort(judged)))
    return large, enlarged(whole.take(np.sort(others)), test.take(range(1)))[0], tested


def kept(file: Path, network: nn.Module, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` says beside the weights that it gives the network; both are kept in files and taken from there."""
    if file.is_file():
        network.load_state_dict(torch.load(file, weights_only=True))
        return json.loads(file.with_suffix(".json").read_text())
    words = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps(words))
    torch.save(network.state_dict(), file)
    return words


def trained(work: Path, train: ImageDataset, test: ImageDataset) -> tuple[Classifier, History]:
    """The network that was finetuned, and how it came to that."""
    network = pretrained()
    replace_head(network, len(train.classes))
    values = {**FIXED, "seed": SEED, "threads": "auto"}
    config = resolve(TrainingConfig.preset("finetune", **values, image_size=SIDE), train)

    def make() -> dict[str, Any]:
        found = finetuned(train, test, values)
        network.load_state_dict(found.classifier.network.state_dict())
        return {"rows": [asdict(row) for row in found.history.records]}

    rows = kept(work / "trained.pt", network, make)
    classifier = Classifier(network.eval(), train.classes, MEAN, STD, SIDE, image_size=SIDE)
    records = tuple(EpochRecord(**row) for row in rows["rows"])
    return classifier, History(records, config, classifier.predict(test), len(records))


def planted_in(file: Path, classifier: Classifier, train: ImageDataset, **how: Any) -> PlantedNetwork:
    """A copy of the network with the mark planted in it, kept in that file."""
    made: list[PlantedNetwork] = []
    network = copy.deepcopy(classifier.network)

    def make() -> dict[str, Any]:
        made.append(plant(classifier, train, rate=RATE, seed=SEED, **how))
        network.load_state_dict(made[0].classifier.network.state_dict())
        known = {field.name: getattr(made[0], field.name) for field in fields(PlantedNetwork)}
        known = {name: value for name, value in known.items() if not isinstance(value, Classifier)}
        return {name: asdict(value) if isinstance(value, Interval) else value for name, value in known.items()}

    words = kept(file, network, make)
    words = {name: Interval(**value) if isinstance(value, dict) else value for name, value in words.items()}
    return PlantedNetwork(classifier=replace(classifier, network=network), original=classifier, **words)


def row_of(found: ShortcutTest, number: int) -> dict[str, Any]:
    """What the maps of one method at one layer hit, in percent of the images."""
    maps = found.maps[number]
    hits = {"hits %": maps.planted, "ceiling %": maps.ceiling, "control %": maps.control}
    shares = {name: round(100 * score.hit_share.estimate, 1) for name, score in hits.items()}
    grid = f"{maps.grid[0]}x{maps.grid[1]}"
    return {"method": maps.method, "layer": maps.layer, "grid": grid, **shares, "verdict": maps.verdict}


def main() -> int:
    """Train, plant, find, and print what came out."""
    parser = options(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("--data", default="data/cifar10-jpeg", help="folder of the JPEG copy")
    parser.add_argument("--work", default="runs/planted_shortcut", help="folder for the networks")
    parser.add_argument("--check-seconds", type=float, default=900, help="seconds of all checks, of which planting takes a part")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    chosen = parser.parse_args()
    work = Path(chosen.work)
    train, fresh, test = splits(chosen.data)
    classifier, history = trained(work, train, test)
    plan = CheckBudget(classifier, history, fresh, check_seconds=chosen.check_seconds).shortcut(methods=chosen.methods)
    print(plan.sentence, flush=True)
    if not plan.runs:
        return 1

    planted = planted_in(work / "planted.pt", classifier, fresh)
    print(planted.reading(), flush=True)
    start = time.perf_counter()
    found = find(planted, test, layers=(*LAYERS, *TOGETHER), **plan.options)
    seconds = planted.seconds + time.perf_counter() - start
    failing = planted_in(work / "failing.pt", classifier, fresh, steps=FAILING_STEPS, random_labels=True)
    rows = [row_of(found, number) for number in range(len(found.maps))]
    best = max(found.maps, key=lambda maps: maps.planted.hit_share.estimate - maps.control.hit_share.estimate)
    spent = f"{seconds:.0f} of the {0.4 * chosen.check_seconds:.0f} s that its share allows"
    words = [
        f"{history.final_predictions.accuracy:.1f} % of {TESTED} test images are right. {plan.sentence} It took {spent}.",
        f"{planted.reading()} {found.reading()} With labels drawn at random: {failing.reading()}",
    ]
    reached = best.planted.hit_share.estimate / best.ceiling.hit_share.estimate
    words.append(f"The best map hits {reached:.2f} times as often as its grid allows.")
    publish("planted_shortcut", rows, reached, " ".join(words), chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
