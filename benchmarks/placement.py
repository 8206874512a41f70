"""How far from where they are drawn the cells of a layer look: in a trained ResNet18, and in a pretrained EfficientNet-Lite0.

python -m era_support_packages.notebook run -p preset cpu -p dataset data/cifar10-jpeg
python benchmarks/placement.py runs/NAME/checkpoint.pt --data data/cifar10-jpeg --json placement.json

A map's middle cells are drawn in the middle of the image. Where they look is the centre of their effective receptive field (Luo
et al. 2016, arXiv:1701.04128): of the squares of the slopes, at each pixel, of what the layer gives there, its positive values
summed. The edges of the image cut it off on all sides alike. EfficientNet-Lite0 is the one of finetune.py; it sees crops of two
photographs, those of scikit-learn, at 224 px, and these mirrored in both directions.
"""

import numpy as np
import torch
from bench import options, publish
from finetune import MEAN, STD, pretrained
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets import loading as datasets
from era_support_packages.models.modes import evaluation_mode

COUNT = 200  # test images
SIDE = 224
LITE_LAYERS = ["_blocks.2", "_blocks.4", "_blocks.10", "_bn1"]  # the last of 56, 28, 14 and 7 cells a side


def looked_at(network: nn.Module, layer: str, images: Tensor) -> tuple[int, float, float]:
    """How many cells a layer has a side, and how far below and to the right of the images' middle its middle ones look, in px."""
    given = images.clone().requires_grad_()
    found: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _layer, _given, output: found.append(output))
    with evaluation_mode(network), torch.enable_grad():
        network(given)
    handle.remove()
    side = found[0].shape[2]
    middle = slice((side - 1) // 2, side // 2 + 1)
    (slopes,) = torch.autograd.grad(found[0][:, :, middle, middle].clamp(min=0).sum(), given)
    squares = slopes.double().square().sum(dim=(0, 1))
    places = torch.arange(len(squares), dtype=torch.float64) - (len(squares) - 1) / 2
    down, across = (squares.sum(dim=axis) @ places / squares.sum() for axis in (1, 0))
    return side, float(down), float(across)


def pictures() -> Tensor:
    """Crops of photographs, as the pretrained network takes them: float32 (24, 3, 224, 224)."""
    squares = []
    for photo in load_sample_images().images:
        height, width = photo.shape[:2]
        for left in (0, (width - height) // 2, width - height):
            crop = Image.fromarray(photo[:, left : left + height]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            square = np.asarray(crop)
            squares += [square, square[:, ::-1], square[::-1], square[::-1, ::-1]]
    values = (np.stack(squares) / 255 - MEAN) / STD
    return torch.from_numpy(values.astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def rows_of(name: str, network: nn.Module, layers: list[str], images: Tensor) -> list[dict[str, object]]:
    """A row for each layer."""
    rows = []
    for layer in layers:
        side, down, across = looked_at(network, layer, images)
        cell = images.shape[2] / side
        farthest = max(abs(down), abs(across)) / cell
        words = {"network": name, "px": images.shape[2], "layer": layer, "grid": f"{side}x{side}"}
        rows.append({**words, "down px": round(down, 2), "right px": round(across, 2), "cells": round(farthest, 2)})
    return rows


def main() -> None:
    """The command line."""
    parser = options(__doc__.splitlines()[0], rounds=1)
    parser.add_argument("checkpoint", help="of a ResNet18 that was trained")
    parser.add_argument("--data", default="auto", help="the data set that it was trained on (default: auto)")
    chosen = parser.parse_args()
    classifier = Classifier.load(chosen.checkpoint)
    _, test = datasets.load(chosen.data)
    shown = np.sort(np.random.default_rng(0).permutation(len(test))[:COUNT])
    network = classifier.network.float()
    rows = rows_of("ResNet18", network, [f"layer{k}" for k in (1, 2, 3, 4)], classifier.inputs(test, shown).cpu())
    rows += rows_of("EfficientNet-Lite0", pretrained().eval(), LITE_LAYERS, pictures())
    farthest = max(row["cells"] for row in rows)
    sentence = f"The middle cells of a layer look at most {farthest:.2f} of a cell beside the place where they are drawn."
    publish("placement", rows, farthest, sentence, chosen.json)


if __name__ == "__main__":
    main()
