"""The CIFAR ResNets: a 3x3 stem without pooling, so that 32x32 images keep their resolution up to `layer2`.

Architecture: He et al. 2016, "Deep Residual Learning for Image Recognition", in the variant for CIFAR that is common since
kuangliu/pytorch-cifar. Modules and parameters keep the names of the original course project (`conv1, bn1, layer1 ... layer4,
linear`; in a block `conv1, bn1, conv2, bn2, [conv3, bn3,] shortcut`), so weights saved by it load.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages.models.fused_norms import norm_relu


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (N, in_planes, H, W) to (N, planes, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = _shortcut(in_planes, self.expansion * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, planes, H / stride, W / stride)."""
        if torch.jit.is_scripting():  # which knows plain operations alone
            out = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))
        else:  # which a script leaves out
            out = norm_relu(self.bn1, self.conv1(x))
            return norm_relu(self.bn2, self.conv2(out), self.shortcut, x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut: (N, in_planes, H, W) to (N, 4 planes, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, in_planes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, self.expansion * planes, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * planes)
        self.shortcut = _shortcut(in_planes, self.expansion * planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, 4 * planes, H / stride, W / stride)."""
        if torch.jit.is_scripting():
            out = F.relu(self.bn1(self.conv1(x)))
            out = F.relu(self.bn2(self.conv2(out)))
            return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))
        else:
            out = norm_relu(self.bn1, self.conv1(x))
            out = norm_relu(self.bn2, self.conv2(out))
            return norm_relu(self.bn3, self.conv3(out), self.shortcut, x)


def _shortcut(in_planes: int, out_planes: int, stride: int) -> nn.Sequential:
    """The identity where the shape stays, else a 1x1 convolution with batch norm (option B of He et al.)."""
    if stride == 1 and in_planes == out_planes:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(in_planes, out_planes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_planes))


class ResNet(nn.Module):
    """A CIFAR ResNet: float images (N, 3, H, W), H and W at least 8, to float logits (N, num_classes).

    The last pooling is global, so any resolution works; 32x32 gives feature maps of 32, 16, 8 and 4 px at layer1 ... layer4.
    """

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], num_blocks: Sequence[int], num_classes: int = 10) -> None:
        super().__init__()
        self.in_planes = 64
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._make_layer(block, 64, num_blocks[0], stride=1)
        self.layer2 = self._make_layer(block, 128, num_blocks[1], stride=2)
        self.layer3 = self._make_layer(block, 256, num_blocks[2], stride=2)
        self.layer4 = self._make_layer(block, 512, num_blocks[3], stride=2)
        self.linear = nn.Linear(512 * block.expansion, num_classes)

    def _make_layer(self, block: type[BasicBlock] | type[Bottleneck], planes: int, num_blocks: int, stride: int) -> nn.Sequential:
        layers = []
        for block_stride in [stride] + [1] * (num_blocks - 1):
            layers.append(block(self.in_planes, planes, block_stride))
            self.in_planes = planes * block.expansion
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        out = self.conv1(x)
        out = F.relu(self.bn1(out)) if torch.jit.is_scripting() else norm_relu(self.bn1, out)
        out = self.layer1(out)
        out = self.layer2(out)
        out = self.layer3(out)
        out = self.layer4(out)
        out = F.adaptive_avg_pool2d(out, 1)
        return self.linear(torch.flatten(out, 1))


def ResNet18(num_classes: int = 10) -> ResNet:
    """ResNet-18 for CIFAR: 11,173,962 parameters at ten classes.

    >>> import torch
    >>> from era_support_packages import ResNet18
    >>> ResNet18(num_classes=3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes)


def ResNet34(num_classes: int = 10) -> ResNet:
    """ResNet-34 for CIFAR: 21,282,122 parameters at ten classes.

    >>> from era_support_packages import ResNet34
    >>> len(ResNet34().layer3)
    6
    """
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes)


def ResNet50(num_classes: int = 10) -> ResNet:
    """ResNet-50 for CIFAR: 23,520,842 parameters at ten classes.

    >>> from era_support_packages import ResNet50
    >>> ResNet50().linear.in_features
    2048
    """
    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes)


def ResNet101(num_classes: int = 10) -> ResNet:
    """ResNet-101 for CIFAR: 42,512,970 parameters at ten classes.

    >>> from era_support_packages import ResNet101
    >>> len(ResNet101().layer3)
    23
    """
    return ResNet(Bottleneck, [3, 4, 23, 3], num_classes)


def ResNet152(num_classes: int = 10) -> ResNet:
    """ResNet-152 for CIFAR: 58,156,618 parameters at ten classes.

    >>> from era_support_packages import ResNet152
    >>> len(ResNet152().layer3)
    36
    """
    return ResNet(Bottleneck, [3, 8, 36, 3], num_classes)
