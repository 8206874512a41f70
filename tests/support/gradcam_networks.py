"""Networks small enough to work their class activation maps out by hand, and what the tests of the maps share."""

import numpy as np
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from era_support_packages.gradcam.methods import METHODS

LAYERS = ("layer1", "layer2", "layer3", "layer4")
KINDS = ["gradcam", "eigengradcam", "eigencam", "scorecam", "ablationcam", "fullgrad"]
"""a method for each way of making maps"""


class OneConvolution(nn.Module):
    """Activation channels (x, -x) of the red plane x; logits 2 x - x and x - 3 x from their means."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, kernel_size=1, stride=stride, bias=False)
        self.linear = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
            self.linear.weight.copy_(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.conv(images).mean(dim=(2, 3)))


class TwoPlanes(nn.Module):
    """Layer `planes` gives the red and the green plane where they are positive; the logits are weighted sums of their means."""

    def __init__(self, weights: list[list[float]]) -> None:
        super().__init__()
        self.conv, self.planes = nn.Conv2d(3, 2, kernel_size=1, bias=False), nn.ReLU()
        self.linear = nn.Linear(2, len(weights), bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[:2, :, None, None])
            self.linear.weight.copy_(torch.tensor(weights))

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.planes(self.conv(images)).mean(dim=(2, 3)))


def red(plane: list[list[float]]) -> Tensor:
    """One image (1, 3, H, W) with the given red plane and noise in the planes that the network ignores."""
    image = torch.randn(1, 3, len(plane), len(plane[0]), generator=torch.Generator().manual_seed(0))
    image[0, 0] = torch.tensor(plane)
    return image


def red_and_green(first: list[list[float]], second: list[list[float]]) -> Tensor:
    """One image (1, 3, H, W) with the given red and green planes."""
    image = red(first)
    image[0, 1] = torch.tensor(second)
    return image


def small_network(inplace: bool = False) -> nn.Sequential:
    """Convolutions "0" and "2" with a ReLU behind each, eight classes."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(inplace),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace),
        nn.Flatten(),
        nn.Linear(8 * 16, 8),
    )


def small_images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def layers_for(method: str, *names: str) -> list[str] | None:
    """The layers to ask a method for: None where it takes none."""
    return None if METHODS[method].all_layers else list(names)


def library_maps(method: str, model: nn.Module, layer: nn.Module | None, images: Tensor, ids: list[int]) -> np.ndarray:
    """What pytorch-grad-cam itself gives (N, H, W) for one layer alone, or for all layers."""
    cam = METHODS[method].library(model.eval(), [] if layer is None else [layer])
    maps = cam(images, [ClassifierOutputTarget(class_id) for class_id in ids])
    cam.activations_and_grads.release()
    model.zero_grad()
    return maps


class Passes:
    """Counts forward and backward passes through a module by hooks, and the images in each forward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.backward = 0
        self.images: list[int] = []
        module.register_forward_hook(self._forward)
        module.register_full_backward_hook(self._backward)

    @property
    def forward(self) -> int:
        return len(self.images)

    def _forward(self, _module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        self.images.append(len(inputs[0]))

    def _backward(self, *_: object) -> None:
        self.backward += 1


def state(model: nn.Module) -> tuple[object, ...]:
    """Everything that an explanation could leave changed, in a form that compares."""
    modules = list(model.modules())
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return (
        [(name, id(module)) for name, module in model.named_modules(remove_duplicate=False)],
        [module.training for module in modules],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
        [(name, value.dtype, value.tolist()) for name, value in model.state_dict().items()],
        [list(getattr(module, kind)) for module in modules for kind in hooks],
    )
