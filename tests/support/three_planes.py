"""A network whose logits are the means of three planes, so that they and what is made of them are known by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Returns(nn.Module):
    """What it returns is made of the means of three planes."""

    def __init__(self, made: Callable[[Tensor], Any] = torch.sigmoid) -> None:
        super().__init__()
        self.planes, self.made = nn.Conv2d(3, 3, 1, bias=False), made
        with torch.no_grad():
            self.planes.weight.copy_(torch.eye(3)[:, :, None, None])

    def forward(self, images: Tensor) -> Any:
        return self.made(self.planes(images).mean(dim=(2, 3)))
