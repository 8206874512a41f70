"""One batch of images to explain, and the maps that a method gives of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.cells import Cells
from era_support_packages.gradcam.layouts import Reshape
from era_support_packages.gradcam.passes import Recorded, forward, full_precision


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of images and what is asked about it."""

    logits: LogitReader
    """reads those of the network, which is in evaluation mode and frozen"""
    images: Tensor
    """float (B, channels, H, W), on the network's device"""
    layers: tuple[str, ...]
    """names of the L target layers, each once"""
    part: slice
    """which images of all these are"""
    class_ids: np.ndarray | None
    """int64 (N, T) of all images, None for the predicted classes"""
    batch_size: int
    """images in a forward pass, at most"""
    advance: Callable[[int], object]
    """told how many images went through the network"""
    reshape: Reshape | None = None
    """brings what a layer gives to (B, channels, h, w); None follows the axes"""

    def forward(self) -> tuple[Tensor, dict[str, Recorded]]:
        """The logits (B, C), and what each layer gives by name."""
        return forward(self.logits, self.images, self.layers, self.reshape)

    @property
    def network(self) -> nn.Module:
        """The network that is explained."""
        return self.logits.network

    def classes(self, logits: Tensor) -> Tensor:
        """The classes to explain, int64 (B, T); `ValueError` for one that the network does not have."""
        if self.class_ids is None:
            return logits.argmax(dim=1, keepdim=True)
        known = logits.shape[1]
        if (largest := self.class_ids.max()) >= known:
            raise ValueError(f"Class id {largest} is out of range: the model's classes are 0 to {known - 1}.")
        return torch.from_numpy(self.class_ids[self.part]).to(logits.device)


@dataclass(frozen=True, eq=False)
class BatchMaps:
    """What one batch gives."""

    logits: Tensor
    """(B, C)"""
    classes: Tensor
    """int64 (B, T): the classes explained"""
    raw: list[np.ndarray]
    """for each layer (B, T, h, w): the maps before their ReLU, possibly with NaN"""
    cells: list[Cells | None]
    """for each layer where the cells of its maps lie in the image; None where that is not known"""


def class_scores(logits: Tensor, classes: Tensor) -> Tensor:
    """(T,): images do not influence each other's logits, so the gradient of their sum holds the gradient of each."""
    return logits.gather(1, classes).sum(dim=0)


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's values, in float32 at least."""
    return full_precision(tensor.detach()).cpu().numpy()
