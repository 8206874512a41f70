"""Networks whose reasons are known: what they look at is written into their weights."""

import torch
from torch import Tensor, nn


class TopLeft(nn.Module):
    """The logit of class 0 is `scale` times the sum of the red plane's top-left quadrant, plus `bias`; that of class 1 is 0.

    The layer "conv" hands on the red plane, so that HiResCAM's map there is exactly what each pixel contributes, while Grad-CAM
    spreads the mean gradient over the whole plane.
    """

    def __init__(self, scale: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(1)  # the identity in evaluation mode; in training mode every forward pass would move it
        self.scale, self.bias = scale, bias
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 0.0, 0.0])[None, :, None, None])
            self.norm.weight.fill_((1 + self.norm.eps) ** 0.5)

    def evidence(self, images: Tensor) -> Tensor:
        """What counts for class 0, where it counts at all: (N, 1, H, W)."""
        return self.norm(self.conv(images))

    def forward(self, images: Tensor) -> Tensor:
        plane = self.evidence(images)
        height, width = plane.shape[2] // 2, plane.shape[3] // 2
        logit = self.scale * plane[:, :, :height, :width].sum(dim=(2, 3)) + self.bias
        return torch.cat([logit, torch.zeros_like(logit)], dim=1)


class BrightTopLeft(TopLeft):
    """Counts only how far pixels are brighter than 1/2: neither the mean colour, which is 0, nor a blur of noise holds any.

    Of `red_noise` at 8 px, the quadrant holds evidence of 16 / 8 = 2 on average, so that logits lie around 4.
    """

    def __init__(self, scale: float = 4.0, bias: float = -4.0) -> None:
        super().__init__(scale, bias)

    def evidence(self, images: Tensor) -> Tensor:
        return (super().evidence(images) - 0.5).relu()


class MaskedBefore(BrightTopLeft):
    """The rest of the plane is taken away before "conv", so that no method's map can leak into it."""

    def forward(self, images: Tensor) -> Tensor:
        mask = torch.zeros_like(images)
        mask[:, :, : images.shape[2] // 2, : images.shape[3] // 2] = 1
        return super().forward(images * mask)


class Pooled(TopLeft):
    """The whole red plane counts alike: Grad-CAM and HiResCAM at "conv" are the same map."""

    def forward(self, images: Tensor) -> Tensor:
        logit = self.scale * self.conv(images).sum(dim=(2, 3)) + self.bias
        return torch.cat([logit, torch.zeros_like(logit)], dim=1)


def red_noise(count: int, size: int = 8, seed: int = 0) -> Tensor:
    """Images (count, 3, size, size) with uniform values in [0, 1], different in each image."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
