"""Grad-CAM of two classes at four layers: one call for all against the library layer by layer, class by class.

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

from era_support_packages import gradcam
from era_support_packages.gradcam.arguments import DEFAULT_LAYERS
from era_support_packages.models.resnet import ResNet18
from era_support_packages.system import machine

IMAGES = 10
LIBRARY, OURS = "library, layer by layer, class by class", "one call for all"


def main() -> None:
    """The command line."""
    chosen = options(__doc__.splitlines()[0], rounds=5).parse_args()
    device = machine.resolve_device()
    torch.manual_seed(0)
    model = ResNet18().to(device).eval()
    images = torch.randn(IMAGES, 3, 32, 32, device=device)
    with torch.no_grad():
        predicted = model(images).argmax(dim=1).cpu().numpy()
    actual = (predicted + 1 + np.arange(IMAGES) % 9) % 10  # every image a mistake, as in the notebook
    classes = np.stack([predicted, actual], axis=1)

    def one_call() -> np.ndarray:
        return gradcam.explain(model, images, classes).maps

    def one_by_one() -> np.ndarray:
        maps = np.zeros((IMAGES, 2, len(DEFAULT_LAYERS), 32, 32), np.float32)
        for layer, name in enumerate(DEFAULT_LAYERS):
            for column in range(2):
                with GradCAM(model=model, target_layers=[getattr(model, name)]) as library:
                    targets = [ClassifierOutputTarget(int(class_id)) for class_id in classes[:, column]]
                    maps[:, column, layer] = library(input_tensor=images, targets=targets)
        return maps

    difference = float(np.abs(one_call() - one_by_one()).max())
    if difference > 1e-4:
        raise SystemExit(f"The two ways differ by {difference}: there is nothing to compare.")
    ways = {LIBRARY: one_by_one, OURS: one_call}
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
    times = ratio(found[LIBRARY], found[OURS])
    sentence = (
        f"{IMAGES} images, four layers, predicted and actual class: {times:.2f} times as fast as the library layer by layer, "
        f"class by class; the maps differ by at most {difference:.1g}."
    )
    publish("gradcam", rows, times, sentence, chosen.json)


def seconds(way: Callable[[], np.ndarray]) -> float:
    """How long one call takes; its result is on the CPU, so nothing is left under way."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
