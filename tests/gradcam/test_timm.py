"""Networks of timm, small and untrained: default layers, and maps equal to pytorch-grad-cam's with its `reshape_transform`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from era_support_packages.gradcam import METHODS, explain

timm = pytest.importorskip("timm")


def channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def behind_a_class_token(output: Tensor) -> Tensor:
    return output[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2)


def places(output: Tensor) -> Tensor:
    return output.unflatten(1, (6, 6)).permute(0, 3, 1, 2)


VIT = {"depth": 3, "embed_dim": 48, "num_heads": 3, "img_size": 96}
SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "img_size": 96}
CONVNEXT = {"depths": (1, 1, 2, 1), "dims": (12, 24, 48, 96)}
STAGES = ("stages.0", "stages.1", "stages.2", "stages.3")
Case = tuple[str, dict[str, Any], tuple[str, ...], "Callable[[Tensor], Tensor] | None", "tuple[str, ...] | None"]
NETWORKS: dict[str, Case] = {
    "ViT": ("vit_tiny_patch16_224", VIT, ("blocks.2.norm1",), behind_a_class_token, None),
    "ViT without a class token": (
        "vit_tiny_patch16_224",
        {**VIT, "class_token": False, "global_pool": "avg"},
        ("blocks",),
        places,
        None,
    ),
    "Swin": ("swin_tiny_patch4_window7_224", SWIN, ("layers.0", "layers.1", "layers.2", "layers.3"), channels_last, None),
    "ConvNeXt": ("convnext_atto", {}, STAGES, None, None),
    "ConvNeXt inside": ("convnext_tiny", CONVNEXT, ("stages.3.blocks.0.norm",), channels_last, ("stages.3.blocks.0.norm",)),
}
"""by name: the network, arguments, the layers found (or asked for, behind), and what the library needs to be told"""


def prepared(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """As of torchvision's networks: statistics of 16 images, a last layer drawn from N(0, 1), so that no map vanishes."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10, **arguments)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    images = torch.randn(16, 3, 96, 96)
    images = images + 2 * nn.functional.interpolate(torch.randn(16, 3, 6, 6), size=(96, 96), mode="bilinear")
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images[:2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_maps_equal_the_library(kind: str) -> None:
    name, arguments, layers, reshape, asked = NETWORKS[kind]
    model, images = prepared(name, arguments)
    for method in ("gradcam", "hirescam", "layercam"):
        found = explain(model, images, layers=asked, method=method)
        assert found.layers == layers
        targets = [ClassifierOutputTarget(class_id) for class_id in found.targets[:, 0].tolist()]
        for position, layer in enumerate(layers):
            cam = METHODS[method].library(model, [model.get_submodule(layer)], reshape_transform=reshape)
            theirs, own = cam(images, targets), found.maps[:, 0, position]
            cam.activations_and_grads.release()
            for maps in (own, theirs):
                assert maps.max(axis=(1, 2)).min() > 0.9, (method, layer)
                assert np.ptp(maps, axis=(1, 2)).min() > 0.5, (method, layer)
            np.testing.assert_allclose(own, theirs, atol=1e-5, err_msg=f"{method} {layer}")


def test_behind_the_last_attention_is_refused() -> None:
    model, images = prepared("vit_tiny_patch16_224", VIT)
    for layer in ("blocks.2", "blocks", "norm"):
        with pytest.raises(ValueError, match="lies behind the last attention"):
            explain(model, images, layers=layer)


def test_a_size_that_the_network_was_not_made_for() -> None:
    model, images = prepared("vit_tiny_patch16_224", VIT)
    with pytest.raises(ValueError, match=r"images of 64 x 64 px do not go through the network .* for, 96 x 96 px"):
        explain(model, images[..., :64, :64])
