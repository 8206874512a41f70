"""One network of every module of torchvision: found layers, and maps equal to pytorch-grad-cam's."""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from era_support_packages.gradcam import METHODS, explain

torchvision = pytest.importorskip("torchvision")

LAYERS = {
    "alexnet": "features.1 features.4 features.11 features",
    "convnext_tiny": "features.1 features.3 features.5 features",
    "densenet121": "features.relu0 features.denseblock1 features.denseblock2 features.denseblock3 features",
    "efficientnet_b0": "features.1 features.2 features.3 features.5 features",
    "googlenet": "conv1 conv3 inception3b inception4e inception5b",
    "inception_v3": "Conv2d_1a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3 Mixed_5d Mixed_6e",
    "maxvit_t": "stem blocks.0 blocks.1 blocks.2 blocks.3",
    "mnasnet0_5": "layers.7 layers.8 layers.9 layers.11 layers",
    "mobilenet_v2": "features.1 features.3 features.6 features.13 features",
    "mobilenet_v3_small": "features.0 features.1 features.3 features.8 features",
    "regnet_y_400mf": "stem trunk_output.block1 trunk_output.block2 trunk_output.block3 trunk_output",
    "resnet18": "layer1 layer2 layer3 layer4",
    "shufflenet_v2_x0_5": "conv1 stage2 stage3 conv5",
    "squeezenet1_1": "features.1 features.4 features.7 features",
    "swin_t": "features.1 features.3 features.5 permute",
    "swin_v2_t": "features.1 features.3 features.5 permute",
    "vgg11": "features.1 features.4 features.9 features.14 features.19 features",
    "vit_b_32": "encoder.layers.encoder_layer_11.ln_1",
}
"""by network: the layers that are to be found"""
INCEPTION = {"aux_logits": False, "init_weights": False}
OPTIONS: dict[str, dict[str, object]] = {"googlenet": INCEPTION, "inception_v3": INCEPTION, "vit_b_32": {"image_size": 96}}
PIXELS = {name: 224 if name == "maxvit_t" else 96 for name in LAYERS}


SEEDS = {"swin_v2_t": 2}
"""where 0 gives a layer at which LayerCAM marks nothing, here as in the library"""


def channels_last(output: Tensor) -> Tensor:
    """Of Swin: (N, height, width, channels)."""
    return output.permute(0, 3, 1, 2)


def tokens(output: Tensor) -> Tensor:
    """Of ViT at 96 px in patches of 32: a class token, then 3 x 3 places."""
    return output[:, 1:].reshape(len(output), 3, 3, -1).permute(0, 3, 1, 2)


RESHAPE: dict[str, Callable[[Tensor], Tensor]] = {"swin_t": channels_last, "swin_v2_t": channels_last, "vit_b_32": tokens}


def of(name: str) -> nn.Module:
    """With a last layer drawn from N(0, 1): torchvision starts some at zero, and then maps vanish."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(**OPTIONS.get(name, {})).eval()
    nn.init.normal_([module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1].weight)
    return model


def prepared(name: str) -> tuple[nn.Module, Tensor]:
    """A network whose batch norms have the statistics of 16 images, and two of these."""
    model, size = of(name), (PIXELS[name], PIXELS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    images = torch.randn(16, 3, *size) + 2 * nn.functional.interpolate(torch.randn(16, 3, 6, 6), size=size, mode="bilinear")
    with torch.no_grad():
        model.train()(images)
    return model.eval(), images[:2]


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
    def modules(names: Iterable[str]) -> set[str]:
        return {torchvision.models.get_model_builder(name).__module__ for name in names}

    assert modules(torchvision.models.list_models(module=torchvision.models)) == modules(LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_maps_equal_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = prepared(name)
    asked = tuple(LAYERS[name].split())
    ours = {method: explain(model, images, method=method) for method in ("gradcam", "hirescam", "layercam")}
    if name == "densenet121":
        # Behind `features` it runs an in-place ReLU, which changes what the library recorded; ours is right without this.
        plain = nn.functional.relu
        monkeypatch.setattr("torchvision.models.densenet.F.relu", lambda features, inplace: plain(features))
    for method, found in ours.items():
        assert found.layers == asked
        layers = [model.get_submodule(layer) for layer in asked]
        theirs = library_maps(name, method, model, layers, images, found.targets[:, 0].tolist())
        for position, layer in enumerate(asked):
            own, alone = found.maps[:, 0, position], theirs[position]
            for maps in (own, alone):
                assert maps.max(axis=(1, 2)).min() > 0.9, (method, layer)
                assert np.ptp(maps, axis=(1, 2)).min() > 0.5, (method, layer)
            np.testing.assert_allclose(own, alone, atol=1e-5, err_msg=f"{method} {layer}")


@pytest.mark.slow
def test_layers_named_by_hand() -> None:
    model, images = prepared("swin_t")
    found = explain(model, images, layers=["features.7", "features.7.1.norm2"], method="hirescam")
    assert found.grids == ((3, 3), (3, 3))
    alone = library_maps("swin_t", "hirescam", model, [model.features[7]], images, found.targets[:, 0].tolist())[0]
    np.testing.assert_allclose(found.maps[:, 0, 0], alone, atol=1e-5)
    inner = explain(of("convnext_tiny"), images[:1], layers=["features.7.2.block.2", "features.7"])
    assert inner.grids == ((3, 3), (3, 3))


WINDOWS = r"gives \(1, 1, 49, 512\): places split into windows"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("vit_b_32", "encoder.layers.encoder_layer_11", "lies behind the last attention"),
        ("vit_b_32", "encoder", "lies behind the last attention"),
        ("swin_t", "features.1.1.attn", "axes that are not images, channels, height and width"),
        ("maxvit_t", "blocks.3.layers.1.layers.window_attention.mlp_layer", WINDOWS),
    ],
)
def test_layers_refused(name: str, layer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(of(name), torch.randn(1, 3, PIXELS[name], PIXELS[name]), layers=layer)


CULPRITS = {"mobilenet_v2": "(ReLU6)", "efficientnet_b0": "(SiLU)", "mobilenet_v3_small": "(Hardswish)"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121", *CULPRITS])
def test_fullgrad_adds_up_or_is_refused_by_the_layers_name(name: str) -> None:
    model, images = prepared(name)
    if name in CULPRITS:
        with pytest.raises(ValueError, match=re.escape(CULPRITS[name])):
            explain(model, images, method="fullgrad")
    else:
        assert explain(model, images, method="fullgrad").maps.max() > 0.9
