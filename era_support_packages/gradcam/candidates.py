"""Which layers of a network can be explained: the last of each resolution, with what they give."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from era_support_packages.evaluation.cautions import unspoken
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.arguments import checked_images, named_by_default
from era_support_packages.gradcam.passes import forward, prepared, to_network, unwrapped
from era_support_packages.gradcam.resolutions import last_of_each_resolution

_TRIED = (224, 32, 299, 512)  # px of the image that is made where none is given


@dataclass(frozen=True)
class Layer:
    """A layer that gives a grid of places with several channels.

    >>> from era_support_packages.gradcam import Layer
    >>> Layer("layer4", "Sequential", (4, 4), 512).grid
    (4, 4)
    """

    name: str
    """as in `named_modules()`, and as `explain` takes it"""
    kind: str
    """the class of the module"""
    grid: tuple[int, int]
    """rows and columns of its places: how fine its maps are before they are resized to the image"""
    channels: int


@dataclass(frozen=True, repr=False)
class Layers:
    """The layers that can be explained, in the order in which they run; printed as a table.

    >>> from era_support_packages.gradcam import Layer, Layers
    >>> print(Layers((Layer("layer4", "Sequential", (4, 4), 512),), (32, 32)))
    for images of 32 x 32 px
    layer   kind        grid  channels
    layer4  Sequential  4x4        512
    """

    found: tuple[Layer, ...]
    size: tuple[int, int]
    """height and width of the image that went through the network"""

    @property
    def names(self) -> tuple[str, ...]:
        """What `explain` takes as layers."""
        return tuple(layer.name for layer in self.found)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.found)

    def __getitem__(self, index: int) -> Layer:
        return self.found[index]

    def __str__(self) -> str:
        """A heading, and a line a layer."""
        rows = [("layer", "kind", "grid", "channels")]
        rows += [(layer.name, layer.kind, "x".join(map(str, layer.grid)), f"{layer.channels:,}") for layer in self.found]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {grid:<{widths[2]}}  {channels:>{widths[3]}}"
            for name, kind, grid, channels in rows
        ]
        return "\n".join([f"for images of {self.size[0]} x {self.size[1]} px", *lines])

    __repr__ = __str__


@unspoken
def layers(model: nn.Module, images: Tensor | np.ndarray | None = None) -> Layers:
    """The layers of a network that are worth explaining, with grid and channels, found by one probing pass.

    Of a convolutional network the last module of each resolution; of Swin, ConvNeXt and MaxViT the end of each stage; of a
    network that classifies by a class token the input of its last attention.

    images: float (N, channels, H, W), of which the first goes through the network; None is noise of 224 px, or of the first
    size that the network takes. Raises `ValueError` where no layer gives a grid, and where the network takes none of these sizes.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.gradcam import layers
    >>> import torch
    >>> print(layers(ResNet18(), torch.rand(1, 3, 32, 32)))
    for images of 32 x 32 px
    layer   kind        grid   channels
    layer1  Sequential  32x32        64
    layer2  Sequential  16x16       128
    layer3  Sequential  8x8         256
    layer4  Sequential  4x4         512
    """
    model = unwrapped(model)
    with prepared(model) as network:
        logits = LogitReader(network)
        image = _noise(network) if images is None else to_network(checked_images(images)[:1], network)
        names = named_by_default(model) or last_of_each_resolution(logits, image)
        with torch.no_grad():
            _, given = forward(logits, image, names, None)
    modules = dict(model.named_modules())
    found = []
    for name in names:
        _, channels, height, width = given[name].channels.shape
        found.append(Layer(name, type(modules[name]).__name__, (height, width), channels))
    return Layers(tuple(found), (image.shape[2], image.shape[3]))


def _noise(network: nn.Module) -> Tensor:
    """An image of noise (1, channels, H, W) of the first size that the network takes."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    problem = ""
    for size in _TRIED:
        noise = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(0))
        image = to_network(noise, network)
        try:
            with torch.no_grad():
                network(image)
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            continue
        return image
    raise ValueError(f"{type(network).__name__} takes no images of {', '.join(map(str, _TRIED))} px ({problem}): pass images=.")
