"""Grad-CAM for four layers: one pass for all of them against the library layer by layer.

python benchmarks/gradcam.py --json benchmarks/results/gradcam.json

The same ResNet18, the same images and classes on the same device; the maps of both ways are compared before anything is timed.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from bench import alternate, options, publish, ratio
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from era_support_packages import gradcam, hardware
from era_support_packages.resnet import ResNet18

IMAGES = 16
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def main() -> None:
    """The command line."""
    chosen = options(__doc__.splitlines()[0], rounds=5).parse_args()
    device = hardware.resolve_device()
    torch.manual_seed(0)
    model = ResNet18().to(device).eval()
    images, classes = torch.randn(IMAGES, 3, 32, 32, device=device), np.arange(IMAGES) % 10

    def one_pass() -> np.ndarray:
        return gradcam.explain(model, images, targets=classes, layers=list(LAYERS)).maps[:, 0]

    def layer_by_layer() -> np.ndarray:
        maps = []
        for name in LAYERS:
            with GradCAM(model=model, target_layers=[getattr(model, name)]) as library:
                maps.append(library(input_tensor=images, targets=[ClassifierOutputTarget(int(label)) for label in classes]))
        return np.stack(maps, axis=1)

    difference = float(np.abs(one_pass() - layer_by_layer()).max())
    if difference > 1e-4:
        raise SystemExit(f"The two ways differ by {difference}: there is nothing to compare.")
    ways = {"library, layer by layer": layer_by_layer, "one pass for four layers": one_pass}
    found = alternate({name: lambda way=way: seconds(way) for name, way in ways.items()}, chosen.rounds)
    rows = [
        {
            "way": name,
            "ms (median)": 1000 * float(np.median(values)),
            "fastest": 1000 * min(values),
            "slowest": 1000 * max(values),
        }
        for name, values in found.items()
    ]
    times = ratio(found["library, layer by layer"], found["one pass for four layers"])
    sentence = (
        f"{IMAGES} images, four layers: {times:.2f} times as fast as the library layer by layer; the maps differ by at most "
        f"{difference:.1g}."
    )
    publish("gradcam", rows, times, sentence, chosen.json)


def seconds(way: Callable[[], np.ndarray]) -> float:
    """How long one call takes; its result is on the CPU, so nothing is left under way."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
