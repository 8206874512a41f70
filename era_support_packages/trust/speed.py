"""How fast this machine answers for a network, and what the linear systems of ROAD weigh beside its image passes."""

import time
from collections.abc import Callable

import numpy as np
import torch

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.normalization import images_at_once
from era_support_packages.evaluation.cautions import unspoken
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.models.modes import evaluation_mode
from era_support_packages.training.cost import flops_per_image
from era_support_packages.trust.faithfulness.imputation import imputed

Clock = Callable[[], float]
"""seconds from some moment on, as `time.perf_counter` counts them"""

SYSTEM, LIGHTEST = 3e5, 4e4
"""floating-point operations for each px of the image that a ResNet18 does in the time that a CPU takes for a system of ROAD, and
for a pass through a network of hardly any operations, whose memory traffic decides"""
_TIMED = 2  # of which the quicker counts: another process only makes it slower


@unspoken
def image_seconds(classifier: Classifier, clock: Clock = time.perf_counter) -> float:
    """Seconds of one image's forward pass in float32, on the device where the network is; it is left as it was found.

    A batch goes through the network once, so that memory is there, and is then timed twice.
    """
    side = classifier.resolution
    images = torch.zeros(images_at_once(64, side), 3, side, side)
    read = LogitReader(classifier.network)
    weight = next(classifier.network.parameters())
    taken = []
    with evaluation_mode(classifier.network), torch.inference_mode():
        for _ in range(1 + _TIMED):
            start = clock()
            read(images.to(weight.device, weight.dtype, copy=True)).cpu()  # to the CPU: a GPU has finished then
            taken.append(clock() - start)
    return min(taken[1:]) / len(images)


def system_seconds(side: int, clock: Clock = time.perf_counter) -> float:
    """Seconds of one linear system of ROAD, for half of an image of `side` px; always on the CPU."""
    image = torch.zeros(1, 3, side, side)
    removed = np.zeros((1, side, side), bool)
    removed[:, :, side // 2 :] = True
    taken = []
    with torch.random.fork_rng(devices=[]):  # it adds noise
        for _ in range(_TIMED):
            start = clock()
            imputed(image, removed)
            taken.append(clock() - start)
    return min(taken)


def pass_work(classifier: Classifier) -> float:
    """What one image's forward pass takes, in floating-point operations of a ResNet18: a third of a training step's, or more."""
    pixels = classifier.resolution**2
    return max(flops_per_image(classifier.network, classifier.resolution) / 3, LIGHTEST * pixels)


def passes_per_system(classifier: Classifier) -> float:
    """How many image passes a linear system of ROAD counts for, on every machine alike: one or, of a light network, more."""
    return max(1.0, SYSTEM * classifier.resolution**2 / pass_work(classifier))
