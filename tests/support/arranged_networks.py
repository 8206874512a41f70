"""The one-convolution network with its activation rearranged in a layer `target`, and brought back behind it."""

from collections.abc import Callable

import torch
from gradcam_networks import OneConvolution
from torch import Tensor, nn

RED = [[1.0, 2.0], [3.0, 4.0]]
MAP = [[0, 1 / 3], [2 / 3, 1]]
"""Grad-CAM of class 0 for the red plane `RED`, wherever the layer lies"""


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, features: Tensor) -> object:
        return self.function(features)


class Arranged(OneConvolution):
    """Layer `target` gives `there(features)` of features (N, 2, h, w), and the network goes on with `back` of that."""

    def __init__(self, there: Callable[[Tensor], object], back: Callable[[object], Tensor]) -> None:
        super().__init__()
        self.target = Apply(there)
        self.back = back

    def forward(self, images: Tensor) -> Tensor:
        features = self.back(self.target(self.conv(images)))
        return self.linear(features.mean(dim=(2, 3)) if features.ndim == 4 else features)


def side(tokens: int) -> int:
    """Of a square of places."""
    return round(tokens**0.5)


def sequence(features: Tensor) -> Tensor:
    """(N, h w, C)"""
    return features.flatten(2).transpose(1, 2)


def picture(tokens: Tensor) -> Tensor:
    """(N, C, h, w) of tokens (N, h w, C)"""
    return tokens.transpose(1, 2).unflatten(2, (side(tokens.shape[1]), -1))


def with_tokens(before: int, after: int = 0) -> Callable[[Tensor], Tensor]:
    """Tokens whose places stand behind and before others: here their mean."""

    def there(features: Tensor) -> Tensor:
        places = sequence(features)
        mean = places.mean(dim=1, keepdim=True)
        return torch.cat([*[mean] * before, places, *[mean] * after], dim=1)

    return there


def windows(features: Tensor) -> Tensor:
    """(N, windows, 4 places, C) of windows of 2 x 2, as MaxViT cuts them."""
    count, channels, height, width = features.shape
    cut = features.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
    return cut.reshape(count, height * width // 4, 4, channels)


def from_windows(cut: Tensor) -> Tensor:
    count, number, _, channels = cut.shape
    parts = cut.reshape(count, side(number), side(number), 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    return parts.reshape(count, channels, 2 * side(number), 2 * side(number))
