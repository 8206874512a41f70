"""Features and a batch norm for the tests of the fused norms."""

import torch
from torch import Tensor, nn


def features(*shape: int, seed: int = 0) -> Tensor:
    """Random float64 numbers in channels_last memory."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.contiguous(memory_format=torch.channels_last)


def learned_norm(channels: int) -> nn.BatchNorm2d:
    """A norm with weights of both signs."""
    norm = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1, 2, channels))
        norm.bias.copy_(torch.linspace(1, -1, channels))
    return norm
