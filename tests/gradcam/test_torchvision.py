"""One network of every module of torchvision: found layers, and maps equal to pytorch-grad-cam's."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from era_support_packages.gradcam import METHODS, explain
from era_support_packages.gradcam.cells import Cells

torchvision = pytest.importorskip("torchvision")

NETWORKS: dict[str, tuple[dict[str, object], int, tuple[str, ...]]] = {
    "alexnet": ({}, 96, ("features.1", "features.4", "features.11", "features")),
    "convnext_tiny": ({}, 96, ("features.1", "features.3", "features.5", "features.7")),
    "densenet121": (
        {},
        96,
        ("features.relu0", "features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"),
    ),
    "efficientnet_b0": ({}, 96, ("features.1", "features.2", "features.3", "features.5", "features.8")),
    "googlenet": (
        {"aux_logits": False, "init_weights": False},
        96,
        ("conv1", "conv3", "inception3b", "inception4e", "inception5b"),
    ),
    "inception_v3": (
        {"aux_logits": False, "init_weights": False},
        96,
        ("Conv2d_1a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e"),
    ),
    "maxvit_t": ({}, 224, ("stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3")),
    "mnasnet0_5": ({}, 96, ("layers.7", "layers.8", "layers.9", "layers.11", "layers.16")),
    "mobilenet_v2": ({}, 96, ("features.1", "features.3", "features.6", "features.13", "features.18")),
    "mobilenet_v3_small": ({}, 96, ("features.0", "features.1", "features.3", "features.8", "features.12")),
    "regnet_y_400mf": (
        {},
        96,
        ("stem", "trunk_output.block1", "trunk_output.block2", "trunk_output.block3", "trunk_output.block4"),
    ),
    "resnet18": ({}, 96, ("layer1", "layer2", "layer3", "layer4")),
    "shufflenet_v2_x0_5": ({}, 96, ("conv1", "stage2", "stage3", "conv5")),
    "squeezenet1_1": ({}, 96, ("features.1", "features.4", "features.7", "features.12")),
    "swin_t": ({}, 96, ("features.1", "features.3", "features.5", "features.7")),
    "swin_v2_t": ({}, 96, ("features.1", "features.3", "features.5", "features.7")),
    "vgg11": ({}, 96, ("features.1", "features.4", "features.9", "features.14", "features.19", "features")),
    "vit_b_32": ({"image_size": 96}, 96, ("encoder.layers.encoder_layer_11.ln_1",)),
}
"""by name: arguments, px, and the layers that are to be found"""


UNEVEN = {"alexnet", "inception_v3", "squeezenet1_1"}
"""whose cells do not share the image evenly: here maps are drawn where they lie, and stretched in the library"""
SEEDS = {"swin_v2_t": 2}
"""where 0 gives a layer at which LayerCAM marks nothing, here as in the library"""


def channels_last(output: Tensor) -> Tensor:
    """Of Swin: (N, height, width, channels)."""
    return output.permute(0, 3, 1, 2)


def tokens(output: Tensor) -> Tensor:
    """Of ViT at 96 px in patches of 32: a class token, then 3 x 3 places."""
    return output[:, 1:].reshape(len(output), 3, 3, -1).permute(0, 3, 1, 2)


RESHAPE: dict[str, Callable[[Tensor], Tensor]] = {"swin_t": channels_last, "swin_v2_t": channels_last, "vit_b_32": tokens}


def prepared(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose maps do not vanish, and 16 images: statistics of these, a last layer drawn from N(0, 1)."""
    arguments, size, _ = NETWORKS[name]
    torch.manual_seed(SEEDS.get(name, 0))
    model = getattr(torchvision.models, name)(**arguments)
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    nn.init.normal_(last.weight)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    images = torch.randn(16, 3, size, size)
    images = images + 2 * nn.functional.interpolate(torch.randn(16, 3, 6, 6), size=(size, size), mode="bilinear")
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images


def library_maps(name: str, method: str, model: nn.Module, layers: list[nn.Module], images: Tensor, ids: list[int]) -> list:
    """pytorch-grad-cam's own map of each layer, (N, H, W)."""
    cam = METHODS[method].library(model, layers, reshape_transform=RESHAPE.get(name))
    targets = [ClassifierOutputTarget(class_id) for class_id in ids]
    cam(images, targets)
    found = cam.compute_cam_per_layer(images, targets, eigen_smooth=False)
    cam.activations_and_grads.release()
    model.zero_grad()
    return [cam.aggregate_multi_layers([one]) for one in found]  # of one alone: scaled as the library hands it out


def test_every_module_of_torchvision_has_a_network() -> None:
    names = torchvision.models.list_models(module=torchvision.models)

    def module(name: str) -> str:
        return torchvision.models.get_model_builder(name).__module__

    assert {module(name) for name in names} == {module(name) for name in NETWORKS}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_equal_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = prepared(name)
    images = images[:2]
    asked = NETWORKS[name][2]
    if name in UNEVEN:
        monkeypatch.setattr(Cells, "share_evenly", lambda _cells, _size: True)
    ours = {method: explain(model, images, method=method) for method in ("gradcam", "hirescam", "layercam")}
    if name == "densenet121":
        # Behind `features` it runs an in-place ReLU, which changes what the library recorded; ours is right without this.
        plain = nn.functional.relu
        monkeypatch.setattr("torchvision.models.densenet.F.relu", lambda features, inplace: plain(features))
    for method, found in ours.items():
        assert found.layers == asked
        ids = found.targets[:, 0].tolist()
        layers = [model.get_submodule(layer) for layer in asked]
        theirs = library_maps(name, method, model, layers, images, ids)
        for position, layer in enumerate(asked):
            own, alone = found.maps[:, 0, position], theirs[position]
            for maps in (own, alone):
                assert maps.max(axis=(1, 2)).min() > 0.9, (method, layer)
                assert np.ptp(maps, axis=(1, 2)).min() > 0.5, (method, layer)
            np.testing.assert_allclose(own, alone, atol=1e-5, err_msg=f"{method} {layer}")


def of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(**NETWORKS[name][0]).eval()


@pytest.mark.slow
def test_layers_named_by_hand() -> None:
    model, images = prepared("swin_t")
    found = explain(model, images[:2], layers=["features.7", "features.7.1.norm2"], method="hirescam")
    assert found.grids == ((3, 3), (3, 3))
    ids, layers = found.targets[:, 0].tolist(), [model.features[7]]
    np.testing.assert_allclose(
        found.maps[:, 0, 0], library_maps("swin_t", "hirescam", model, layers, images[:2], ids)[0], atol=1e-5
    )
    inner = explain(of("convnext_tiny"), images[:1], layers=["features.7.2.block.2", "features.7"])
    assert inner.grids == ((3, 3), (3, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("vit_b_32", "encoder.layers.encoder_layer_11", "lies behind the last attention"),
        ("vit_b_32", "encoder", "lies behind the last attention"),
        ("swin_t", "features.1.1.attn", "axes that are not images, channels, height and width"),
        (
            "maxvit_t",
            "blocks.3.layers.1.layers.window_attention.mlp_layer",
            r"gives \(1, 1, 49, 512\): places split into windows",
        ),
    ],
)
def test_layers_refused(name: str, layer: str, message: str) -> None:
    model = of(name)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    with pytest.raises(ValueError, match=message):
        explain(model, torch.randn(1, 3, NETWORKS[name][1], NETWORKS[name][1]), layers=layer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("resnet18", ""),
        ("densenet121", ""),
        ("mobilenet_v2", "(ReLU6)"),
        ("efficientnet_b0", "(SiLU)"),
        ("mobilenet_v3_small", "(Hardswish)"),
    ],
)
def test_fullgrad_adds_up_or_is_refused_by_the_layers_name(name: str, culprit: str) -> None:
    model, images = prepared(name)
    if culprit:
        with pytest.raises(ValueError, match=re.escape(culprit)):
            explain(model, images[:2], method="fullgrad")
    else:
        assert explain(model, images[:2], method="fullgrad").maps.max() > 0.9
