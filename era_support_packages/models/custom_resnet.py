"""The original's second network: a short residual network after David Page's "How to train your ResNet" (2018)."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

NORMS = ("BN", "GN", "LN")


def _norm(kind: str, groups: int) -> Callable[[int], nn.Module]:
    """Batch norm, group norm, or layer norm over (C, H, W), which is group norm with one group."""
    if kind == "BN":
        return nn.BatchNorm2d
    return lambda channels: nn.GroupNorm(groups if kind == "GN" else 1, channels)


class _ConvBlock(nn.Sequential):
    """3x3 convolution, 2x2 max pooling where asked, norm, ReLU, dropout."""

    def __init__(self, in_planes: int, planes: int, norm: Callable[[int], nn.Module], drop: float, pool: bool = False) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_planes, planes, 3, padding=1, bias=False)]
        if pool:
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, norm(planes), nn.ReLU(), nn.Dropout(drop))


class ResidualLayer(nn.Module):
    """A pooled convolution block, plus two more beside an identity: (N, in_planes, H, W) to (N, planes, H/2, W/2)."""

    def __init__(self, in_planes: int, planes: int, norm: Callable[[int], nn.Module], drop: float) -> None:
        super().__init__()
        self.down = _ConvBlock(in_planes, planes, norm, drop, pool=True)
        self.residual = nn.Sequential(_ConvBlock(planes, planes, norm, drop), _ConvBlock(planes, planes, norm, drop))

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, planes, H / 2, W / 2)."""
        out = self.down(x)
        return out + self.residual(out)


class CustomResNet(nn.Module):
    """Float images (N, 3, H, W), H and W at least 8, to float logits (N, num_classes); feature maps of 16, 8 and 4 px."""

    def __init__(self, norm: Callable[[int], nn.Module], drop: float, num_classes: int) -> None:
        super().__init__()
        self.prep = _ConvBlock(3, 64, norm, drop)
        self.layer1 = ResidualLayer(64, 128, norm, drop)
        self.layer2 = _ConvBlock(128, 256, norm, drop, pool=True)
        self.layer3 = ResidualLayer(256, 512, norm, drop)
        self.linear = nn.Linear(512, num_classes)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As every module's. Raises `ValueError` for the weights of the network of 2023, which had other blocks."""
        if "convblock1.0.weight" in state_dict:
            raise ValueError(
                "These are weights of the resnet_custom of 2023 (6,573,632 parameters), which has one more norm, and ReLU before "
                "each; they do not fit this network (6,573,130). Train it again, or load them into the class they came from."
            )
        return super().load_state_dict(state_dict, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        out = self.layer3(self.layer2(self.layer1(self.prep(x))))
        return self.linear(out.flatten(2).max(dim=2).values)  # AdaptiveMaxPool2d's gradient is not deterministic on a GPU


def resnet_custom(norm: str = "BN", groupsize: int = 1, drop: float = 0.02, num_classes: int = 10) -> CustomResNet:
    """The network with batch norm ("BN"), group norm ("GN", `groupsize` groups) or layer norm ("LN").

    `drop` is the dropout probability after each block. Raises `ValueError` for another norm, a number of groups that does
    not divide 64, or a probability outside [0, 1).

    >>> import torch
    >>> from era_support_packages.models import resnet_custom
    >>> resnet_custom().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}; choose one of 'BN', 'GN', 'LN'.")
    if groupsize < 1 or 64 % groupsize:
        raise ValueError(f"groupsize is {groupsize!r}; give a divisor of 64, such as 1, 2, 4, 8, 16, 32 or 64.")
    if not 0 <= drop < 1:
        raise ValueError(f"drop is {drop!r}; give a probability from 0 to below 1.")
    return CustomResNet(_norm(norm, groupsize), drop, num_classes)
