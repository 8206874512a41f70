"""One call explains: passes through the network, targets, layers, and models and surroundings of every kind."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradcam_networks import (
    LAYERS,
    OneConvolution,
    Passes,
    layers_for,
    library_maps,
    red,
    small_images,
    small_network,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from era_support_packages.gradcam.explanation import explain, image_passes
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.models.resnet import ResNet18


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return ResNet18().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", METHODS)
def test_shapes_and_types(method: str) -> None:
    layers = layers_for(method, "0", "2", "0")
    result = explain(small_network(), small_images(), [[0, 1], [2, 3], [4, 5]], layers, method)
    count = 3 if layers else 1
    assert (result.maps.shape, result.maps.dtype) == ((3, 2, count, 8, 8), np.float32)
    assert (result.targets.shape, result.targets.dtype) == ((3, 2), np.int64)
    assert (result.confidences.shape, result.confidences.dtype) == ((3, 2), np.float32)
    assert (result.raw_ranges.shape, result.raw_ranges.dtype) == ((3, 2, count, 2), np.float32)
    assert (result.constant.shape, result.constant.dtype) == ((3, 2, count), bool)
    assert result.method == method
    assert result.layers == (("0", "2", "0") if layers else ("all layers",))
    assert result.grids == (((8, 8), (4, 4), (8, 8)) if layers else ((8, 8),))
    assert result.maps.min() == 0
    assert 0.99 < result.maps.max() <= 1


# Passes


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("targets", ["predicted", [1, 2, 3]])
def test_one_forward_and_one_backward_pass_serve_all_layers(targets: str | list[int], resnet: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(resnet)
    counts = [Passes(module) for module in (model, model.layer1, model.layer4[0].conv1, model.linear)]
    explain(model, images, targets, layers=["layer4", "layer1", "layer3", "layer2", "layer1"])
    assert [(count.forward, count.backward) for count in counts] == [(1, 1)] * 4


def test_the_backward_pass_ends_at_the_first_target_layer(resnet: nn.Module, images: Tensor) -> None:
    model = copy.deepcopy(resnet)
    before, after = Passes(model.layer3), Passes(model.linear)
    explain(model, images, layers="layer4")
    assert (before.forward, before.backward) == (1, 0)
    assert (after.forward, after.backward) == (1, 1)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_two_target_columns_share_the_forward_pass() -> None:
    model, images = small_network(), small_images()
    count = Passes(model)
    both = explain(model, images, [[0, 1], [2, 3], [4, 5]], layers=["0", "2"])
    assert (count.forward, count.backward) == (1, 2)
    for column, ids in enumerate(([0, 2, 4], [1, 3, 5])):
        single = explain(model, images, ids, layers=["0", "2"])
        np.testing.assert_array_equal(both.maps[:, column], single.maps[:, 0])
        np.testing.assert_array_equal(both.confidences[:, column], single.confidences[:, 0])


@pytest.mark.parametrize("method", METHODS)
def test_batches_change_nothing(method: str) -> None:
    whole = explain(small_network(), small_images(), layers=layers_for(method, "2", "0"), method=method)
    parts = explain(small_network(), small_images(), layers=layers_for(method, "2", "0"), method=method, batch_size=2)
    for name in ("maps", "targets", "confidences", "raw_ranges"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-5)


# Targets and layers


def test_predicted_and_actual_targets_name_their_own_classes() -> None:
    model, images = small_network(), small_images()
    logits = model(images).detach()
    predicted = logits.argmax(dim=1).numpy()
    labels = (predicted + 1) % 8
    why_predicted = explain(model, images, layers="2")
    why_actual = explain(model, images, "actual", layers="2", labels=labels)
    np.testing.assert_array_equal(why_predicted.targets[:, 0], predicted)
    np.testing.assert_array_equal(why_actual.targets[:, 0], labels)
    probabilities = logits.softmax(dim=1).numpy()
    np.testing.assert_allclose(why_predicted.confidences[:, 0], probabilities.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(why_actual.confidences[:, 0], probabilities[np.arange(3), labels], rtol=1e-5)
    np.testing.assert_array_equal(why_predicted.maps, explain(model, images, predicted, layers="2").maps)
    np.testing.assert_array_equal(why_actual.maps, explain(model, images, torch.tensor(labels), layers="2").maps)
    assert np.abs(why_predicted.maps - why_actual.maps).max() > 0.1


def test_layers_are_named_by_modules_as_well() -> None:
    model, images = small_network(), small_images()
    by_name = explain(model, images, layers=["2", "0"])
    by_module = explain(model, images, layers=[model[2], model[0]])
    assert by_module.layers == ("2", "0")
    np.testing.assert_array_equal(by_module.maps, by_name.maps)
    bare = explain(model, images, layers=model[2])
    np.testing.assert_array_equal(bare.maps, by_name.maps[:, :, :1])


def test_a_layer_with_two_names_has_a_map_under_each() -> None:
    model = OneConvolution()
    model.alias = model.conv
    result = explain(model, red([[1, 2], [3, 4]]), [0], layers=["alias", "conv", model.alias])
    assert result.layers == ("alias", "conv", "conv")
    for position in range(3):
        np.testing.assert_allclose(result.maps[0, 0, position], [[0, 1 / 3], [2 / 3, 1]], atol=1e-5)


def test_layers_are_paired_by_module_where_they_run_out_of_their_order() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.last, self.first, self.linear = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(self.last(self.first(images).relu()).relu().mean(dim=(2, 3)))

    model, images = Backwards(), small_images(2)
    result = explain(model, images, [0, 1], layers=["last", "first"])
    for position, name in enumerate(("last", "first")):
        alone = library_maps("gradcam", model, getattr(model, name), images, [0, 1])
        np.testing.assert_allclose(result.maps[:, 0, position], alone, atol=1e-5)


# Models and surroundings of every kind give the same maps


KINDS = ["gradcam", "eigengradcam", "eigencam", "scorecam", "ablationcam", "fullgrad"]
"""a method for each way of making maps"""


def maps_of(model: nn.Module, images: Tensor | np.ndarray, method: str) -> np.ndarray:
    return explain(model, images, [0, 1, 2], layers_for(method, "0", "2"), method).maps


@pytest.fixture(scope="module", params=KINDS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def expected(method: str) -> np.ndarray:
    return maps_of(small_network(), small_images(), method)


def test_inplace_relu_behind_the_layer(method: str, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(maps_of(small_network(inplace=True), small_images(), method), expected)


@pytest.mark.parametrize("layers", [["target"], ["conv", "target"]])
def test_inplace_operation_on_the_input_of_a_layer_that_hands_it_on(layers: list[str]) -> None:
    class HandsOn(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.conv, self.target, self.linear = nn.Conv2d(3, 4, 1), nn.Identity(), nn.Linear(4, 3)
            self.inplace = inplace

        def forward(self, images: Tensor) -> Tensor:
            features = self.conv(images)
            kept = self.target(features)
            other = features.relu_() if self.inplace else features.relu()
            return self.linear((kept.square() + other).mean(dim=(2, 3)))

    maps = [explain(HandsOn(inplace), small_images(), [0, 1, 2], layers).maps for inplace in (True, False)]
    np.testing.assert_array_equal(*maps)
    assert maps[0].max() > 0.9


@pytest.mark.parametrize("surrounding", [torch.no_grad, torch.inference_mode])
def test_without_gradients_around(surrounding: type, method: str, expected: np.ndarray) -> None:
    with surrounding():
        model, images = small_network(), small_images()
        found = maps_of(model, images, method)
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(found, expected)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_under_autocast(method: str, expected: np.ndarray) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = maps_of(small_network(), small_images(), method)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_computed_in_float32(dtype: torch.dtype, method: str) -> None:
    half = small_network().to(dtype)
    in_float32 = copy.deepcopy(half).float()
    layers = None if METHODS[method].all_layers else [half[0], half[2]]
    result = explain(half, small_images(), [0, 1, 2], layers, method)
    np.testing.assert_array_equal(result.maps, maps_of(in_float32, small_images(), method))
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}


@pytest.mark.parametrize(
    "prepare",
    [
        lambda model: model.requires_grad_(False),
        lambda model: model.train(),
        lambda model: model.double(),
        lambda model: model.to(memory_format=torch.channels_last),
        lambda model: torch.compile(model, backend="eager"),
        lambda model: nn.DataParallel(model),
        lambda model: AveragedModel(model),
    ],
    ids=["frozen", "training", "double", "channels_last", "compiled", "data_parallel", "averaged"],
)
def test_models_of_every_kind(prepare: Callable[[nn.Module], nn.Module], method: str, expected: np.ndarray) -> None:
    found = maps_of(prepare(small_network()), small_images(), method)
    np.testing.assert_allclose(found, expected, atol=1e-5)


class OwnForward(nn.Sequential):
    """A network whose `forward` is not torch's own: older torch does not compile a plain `nn.Sequential` in place."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)


def test_a_model_compiled_in_place_runs_without_compiling_again(method: str, expected: np.ndarray) -> None:
    compilations = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        compilations.append(graph)
        return graph.forward

    model = OwnForward(*small_network()).eval()
    model.compile(backend=backend)
    with torch.no_grad():
        model(small_images())
    assert len(compilations) == 1
    found = maps_of(model, small_images(), method)
    assert len(compilations) == 1
    np.testing.assert_array_equal(found, expected)


def test_images_as_array_or_in_other_types(method: str, expected: np.ndarray) -> None:
    array = small_images().numpy()
    negative_strides = array[..., ::-1].copy()[..., ::-1]
    channels_last = small_images().to(memory_format=torch.channels_last)
    for images in (array, negative_strides, small_images().double(), channels_last):
        np.testing.assert_allclose(maps_of(small_network(), images, method), expected, atol=1e-5)


def test_torchvision_resnet_takes_the_default_layers() -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.resnet18(num_classes=5).eval()
    images = torch.randn(1, 3, 128, 128)
    result = explain(model, images, [4])
    assert (result.layers, result.grids) == (LAYERS, ((32, 32), (16, 16), (8, 8), (4, 4)))
    for position, name in enumerate(LAYERS):
        alone = library_maps("gradcam", model, getattr(model, name), images, [4])
        np.testing.assert_allclose(result.maps[:, 0, position], alone, atol=1e-5, err_msg=name)
    assert image_passes(model, images, method="ablationcam") == 1 + 64 + 128 + 256 + 512


@pytest.fixture(scope="module")
def convnext() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    return models.convnext_tiny(num_classes=5).eval()


@pytest.mark.parametrize("method", ["hirescam", "eigencam"])
def test_torchvision_convnext(method: str, convnext: nn.Module) -> None:
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    result = explain(convnext, images, [4], ["features.7", "features.1"], method)
    assert result.grids == ((4, 4), (32, 32))
    assert not result.constant.any()
    assert result.maps.max(axis=(3, 4)).min() > 0.99
