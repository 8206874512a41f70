"""Batch-norm statistics of short runs, taken anew from training images before the network is judged.

The running statistics follow the batches at a tenth each step, and every one of them was measured on earlier weights. After a few
dozen steps they still hold much of where they began, so that a network that is right in training is wrong in evaluation.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from era_support_packages.datasets.batches import batch_count, shuffled_order
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import images_at_once, normalize
from era_support_packages.system.machine import autocast
from era_support_packages.training.config import ConfigValues

FEW_STEPS = 200  # of a whole run; by then the beginning weighs nothing, and the weights change slowly
MOST_IMAGES = 2048  # more make the statistics no better
_BATCH = 256  # of images of 32 px
_FEWEST = 32  # for the variance among the images of a batch


def statistics_images(config: ConfigValues, train_size: int) -> int:
    """From how many training images the statistics are taken before each evaluation: 0 where the run has enough steps."""
    steps = sum(batch_count(epoch.images, config.batch_size) for epoch in config.planned_epochs(train_size))
    return min(train_size, MOST_IMAGES) if steps < FEW_STEPS and train_size > 1 else 0


def refreshed_images(network: nn.Module, config: ConfigValues, train_size: int, last: bool) -> int:
    """From how many training images the statistics are taken after an epoch: those of a mean of weights after the `last` in any
    case, as nothing was measured on it; 0 for none, and where norms keep what they came with.
    """
    if config.freeze_norms or not has_batch_norm(network):
        return 0
    return statistics_images(config, train_size) or (min(train_size, MOST_IMAGES) if last and config.average else 0)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether there are running statistics in it."""
    return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in network.modules())


def refresh_statistics(
    network: nn.Module, train: ImageDataset, images: int, resolution: int, seed: int, device: torch.device, precision: str
) -> None:
    """Replace all batch-norm statistics by those of `images` training images, not augmented, drawn by the seed.

    The global random state, the training flags and the momentum of each layer are as before afterwards.
    """
    chosen = shuffled_order(len(train), seed, 0)[:images]  # mixed: the variance within a batch must be that of all classes

    def batches() -> Iterator[Tensor]:
        batch = max(_FEWEST, images_at_once(_BATCH, resolution))
        for part in np.array_split(chosen, -(-images // batch)):
            yield normalize(torch.from_numpy(train.images[part]).to(device), train.mean, train.std, resolution)

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), autocast(device, precision):
        update_bn(batches(), network)
