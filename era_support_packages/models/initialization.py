"""Starting weights that know the data."""

from typing import Any

import numpy as np
import torch
from torch import nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import images_at_once, normalize_images
from era_support_packages.models.custom_resnet import ResidualLayer
from era_support_packages.models.resnet import BasicBlock, Bottleneck


@torch.no_grad()
def whiten_first_convolution(model: nn.Module, train: ImageDataset, count: int = 2000, epsilon: float = 1e-2) -> None:
    """Start the first convolution as a whitening transform of image patches; the network itself stays the same.

    With k x k filters over three channels, K = 3 k k: the first K filters become the eigenvectors of the covariance of
    normalised training patches, largest eigenvalue first, each divided by the root of its eigenvalue plus `epsilon`; the
    next K are their negatives, since a ReLU follows. Filters beyond 2 K keep their values. The patches come from `count`
    evenly spread training images. After tysam-code/hlb-CIFAR10 (2023) and Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on
    a Single GPU", where these filters stay fixed; here they are trained on.

    Raises `ValueError` where the first convolution does not take three channels or has fewer than 2 K filters.
    """
    convolution = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    size = 3 * convolution.kernel_size[0] * convolution.kernel_size[1] if convolution is not None else 0
    if convolution is None or convolution.in_channels != 3 or convolution.out_channels < 2 * size:
        raise ValueError(
            f"whitening needs a first convolution of 3 channels with at least {2 * size or 54} filters, but the network starts "
            f"with {convolution}; set whitening=False."
        )
    height, width = convolution.kernel_size
    chosen, products, number = train.evenly_spread(min(count, len(train))), torch.zeros(size, size).double(), 0
    for part in np.array_split(chosen, -(-len(chosen) // images_at_once(count, train.images.shape[1]))):
        pixels = normalize_images(train, part)  # of large images some at a time
        patches = pixels.unfold(2, height, 2).unfold(3, width, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, size).double()
        products, number = products + patches.T @ patches, number + len(patches)
    values, vectors = torch.linalg.eigh(products / number)
    filters = (vectors / torch.sqrt(values + epsilon)).T.flip(0).reshape(size, 3, height, width).to(convolution.weight)
    convolution.weight[:size] = filters
    convolution.weight[size : 2 * size] = -filters


@torch.no_grad()
def start_residual_blocks(model: nn.Module, start: str) -> None:
    """Choose how the last convolution of each residual block starts: "random" changes nothing.

    "dirac" makes it the identity on as many channels as it can carry, the rest zero (as in Jordan 2024, "94% on CIFAR-10 in
    3.29 Seconds on a Single GPU"); "zero" sets the weight of the batch norm behind it to zero, so that the block starts as its
    shortcut (Goyal et al. 2017, arXiv:1706.02677, section 5.1).

    Raises `ValueError` where the network has no residual blocks to start.
    """
    if start == "random":
        return
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock | Bottleneck | ResidualLayer)]
    if not blocks:
        raise ValueError(
            f"residual_start is {start!r}, but {type(model).__name__} has no residual blocks like those of ResNet18; set "
            "residual_start='random'."
        )
    for block in blocks:
        last, norm = _last(block)
        if start == "dirac":
            nn.init.dirac_(last.weight)
        else:
            nn.init.zeros_(norm.weight)


def _last(block: BasicBlock | Bottleneck | ResidualLayer) -> tuple[Any, Any]:
    """The last convolution of a residual block and the norm behind it."""
    if isinstance(block, BasicBlock):
        return block.conv2, block.bn2
    if isinstance(block, Bottleneck):
        return block.conv3, block.bn3
    last: Any = block.residual[-1]
    convolution, norm, *_ = last
    return convolution, norm
