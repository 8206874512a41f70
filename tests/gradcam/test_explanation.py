"""One call explains: passes through the network, targets, layers, and surroundings of every kind."""

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradcam_networks import KINDS, OneConvolution, Passes, layers_for, library_maps, red, small_images, small_network
from torch import Tensor, nn

from era_support_packages.gradcam.explanation import explain
from era_support_packages.gradcam.methods import METHODS
from era_support_packages.models.resnet import ResNet18


@pytest.mark.parametrize("method", METHODS)
def test_shapes_and_types_and_that_batches_change_nothing(method: str) -> None:
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
    whole, parts = (explain(small_network(), small_images(), "predicted", layers, method, batch_size=size) for size in (64, 2))
    for name in ("maps", "targets", "confidences", "raw_ranges"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-5)


# ---- passes ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("targets", ["predicted", [1, 2, 3]])
def test_one_forward_and_one_backward_pass_serve_all_layers_and_end_at_the_first(targets: str | list[int]) -> None:
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    model = ResNet18().eval()
    everywhere = [Passes(module) for module in (model, model.layer1, model.layer4[0].conv1, model.linear)]
    before = Passes(model.layer3)
    explain(model, images, targets, layers=["layer4", "layer1", "layer3", "layer2", "layer1"])
    assert [(count.forward, count.backward) for count in [*everywhere, before]] == [(1, 1)] * 5
    explain(model, images, targets, layers="layer4")
    assert (before.forward, before.backward) == (2, 1)
    assert (everywhere[-1].forward, everywhere[-1].backward) == (2, 2)


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


# ---- targets and layers ------------------------------------------------------------------------------------------------


def test_predicted_and_actual_targets_name_their_own_classes() -> None:
    model, images = small_network(), small_images()
    probabilities = model(images).detach().softmax(dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    labels = (predicted + 1) % 8
    why_predicted = explain(model, images, layers="2")
    why_actual = explain(model, images, "actual", layers="2", labels=labels)
    for found, ids in ((why_predicted, predicted), (why_actual, labels)):
        np.testing.assert_array_equal(found.targets[:, 0], ids)
        np.testing.assert_allclose(found.confidences[:, 0], probabilities[np.arange(3), ids], rtol=1e-5)
        np.testing.assert_array_equal(found.maps, explain(model, images, torch.tensor(ids), layers="2").maps)
    np.testing.assert_array_equal(why_predicted.maps, explain(model, images, predicted, layers="2").maps)
    assert np.abs(why_predicted.maps - why_actual.maps).max() > 0.1


def test_layers_are_named_by_modules_as_well() -> None:
    model, images = small_network(), small_images()
    by_name = explain(model, images, layers=["2", "0"])
    by_module = explain(model, images, layers=[model[2], model[0]])
    assert by_module.layers == ("2", "0")
    np.testing.assert_array_equal(by_module.maps, by_name.maps)
    np.testing.assert_array_equal(explain(model, images, layers=model[2]).maps, by_name.maps[:, :, :1])


def test_a_layer_with_two_names_has_a_map_under_each() -> None:
    model = OneConvolution()
    model.alias = model.conv
    result = explain(model, red([[1, 2], [3, 4]]), [0], layers=["alias", "conv", model.alias])
    assert result.layers == ("alias", "conv", "conv")
    np.testing.assert_allclose(result.maps[0, 0], [[[0, 1 / 3], [2 / 3, 1]]] * 3, atol=1e-5)


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


# ---- surroundings of every kind give the same maps ---------------------------------------------------------------------


@pytest.mark.parametrize("layers", [["target"], ["conv", "target"]])
def test_inplace_operation_on_the_input_of_a_layer_that_hands_it_on(layers: list[str]) -> None:
    class HandsOn(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.conv, self.target, self.linear = nn.Conv2d(3, 4, 1), nn.Identity(), nn.Linear(4, 3)
            self.relu = nn.ReLU(inplace)

        def forward(self, images: Tensor) -> Tensor:
            features = self.conv(images)
            kept = self.target(features)
            return self.linear((kept.square() + self.relu(features)).mean(dim=(2, 3)))

    maps = [explain(HandsOn(inplace), small_images(), [0, 1, 2], layers).maps for inplace in (True, False)]
    np.testing.assert_array_equal(*maps)
    assert maps[0].max() > 0.9


def maps_of(model: nn.Module, images: Tensor | np.ndarray, method: str) -> np.ndarray:
    return explain(model, images, [0, 1, 2], layers_for(method, "0", "2"), method).maps


AROUND: list[Callable[[], contextlib.AbstractContextManager]] = [
    torch.no_grad,
    torch.inference_mode,
    lambda: torch.autocast("cpu", dtype=torch.bfloat16),
]


@pytest.mark.parametrize("method", KINDS)
def test_surroundings_and_kinds_of_images_change_nothing(method: str) -> None:
    model, images = small_network(), small_images()
    expected = maps_of(model, images, method)
    np.testing.assert_array_equal(maps_of(small_network(inplace=True), images, method), expected)
    for around in AROUND:
        with around():
            model = small_network()
            enabled = torch.is_grad_enabled()
            np.testing.assert_array_equal(maps_of(model, small_images(), method), expected)
            assert torch.is_grad_enabled() == enabled
        assert all(parameter.requires_grad for parameter in model.parameters())
    array = images.numpy()
    negative_strides = array[..., ::-1].copy()[..., ::-1]
    for same in (array, negative_strides, images.double(), images.to(memory_format=torch.channels_last)):
        np.testing.assert_allclose(maps_of(small_network(), same, method), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", KINDS)
def test_half_precision_models_are_computed_in_float32(dtype: torch.dtype, method: str) -> None:
    half, in_float32 = small_network().to(dtype), small_network().to(dtype).float()
    layers = None if METHODS[method].all_layers else [half[0], half[2]]
    result = explain(half, small_images(), [0, 1, 2], layers, method)
    np.testing.assert_array_equal(result.maps, maps_of(in_float32, small_images(), method))
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}


@pytest.mark.parametrize("method", KINDS)
def test_a_model_compiled_in_place_runs_without_compiling_again(method: str) -> None:
    class OwnForward(nn.Sequential):
        """Older torch does not compile a plain `nn.Sequential` in place."""

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)

    compilations = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        compilations.append(graph)
        return graph.forward

    model = OwnForward(*small_network()).eval()
    model.compile(backend=backend)
    with torch.no_grad():
        model(small_images())
    found = maps_of(model, small_images(), method)
    assert len(compilations) == 1
    np.testing.assert_array_equal(found, maps_of(small_network(), small_images(), method))
