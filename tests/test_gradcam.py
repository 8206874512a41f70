"""Class activation maps: against numbers worked out by hand, pytorch-grad-cam layer by layer, and captum."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from era_support_packages.gradcam import METHODS, Explanation, explain
from era_support_packages.resnet import ResNet18

LAYERS = ("layer1", "layer2", "layer3", "layer4")


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


def red(plane: list[list[float]]) -> Tensor:
    """One image (1, 3, H, W) with the given red plane and noise in the planes that the network ignores."""
    image = torch.randn(1, 3, len(plane), len(plane[0]), generator=torch.Generator().manual_seed(0))
    image[0, 0] = torch.tensor(plane)
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


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """ResNet18 with batch-norm statistics that keep every layer's activations alive."""
    torch.manual_seed(0)
    model = ResNet18().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def library_maps(method: str, model: nn.Module, layer: nn.Module, images: Tensor, ids: list[int]) -> np.ndarray:
    """What pytorch-grad-cam itself gives for one layer alone."""
    cam = METHODS[method](model.eval(), [layer])
    maps = cam(images, [ClassifierOutputTarget(class_id) for class_id in ids])
    cam.activations_and_grads.release()
    model.zero_grad()
    return maps


class Passes:
    """Counts forward and backward passes through a module by hooks."""

    def __init__(self, module: nn.Module) -> None:
        self.forward = self.backward = 0
        module.register_forward_hook(self._forward)
        module.register_full_backward_hook(self._backward)

    def _forward(self, *_: object) -> None:
        self.forward += 1

    def _backward(self, *_: object) -> None:
        self.backward += 1


# Exact numbers


def test_maps_equal_numbers_worked_out_by_hand() -> None:
    # Class 0: the channel weights are the mean gradients (2, 1) / 4, so the map is 2/4 x - 1/4 x = x / 4 = 1/4 ... 1.
    # Class 1: the weights are (1, 3) / 4, so the map is 1/4 x - 3/4 x, negative everywhere: zeros after the ReLU.
    # The logits are 2 (2.5) - 2.5 = 2.5 and 2.5 - 3 (2.5) = -5.
    result = explain(OneConvolution(), red([[1, 2], [3, 4]]), [[0, 1]], layers="conv")
    assert isinstance(result, Explanation)
    np.testing.assert_allclose(result.maps[0, 0, 0], [[0, 1 / 3], [2 / 3, 1]], atol=1e-5)
    np.testing.assert_array_equal(result.maps[0, 1, 0], np.zeros((2, 2)))
    np.testing.assert_allclose(result.raw_ranges, [[[[0.25, 1]], [[0, 0]]]], atol=1e-6)
    probability = 1 / (1 + math.exp(-7.5))
    np.testing.assert_allclose(result.confidences, [[probability, 1 - probability]], rtol=1e-4)
    np.testing.assert_array_equal(result.targets, [[0, 1]])
    assert result.layers == ("conv",)


def test_maps_are_resized_to_the_images_height_and_width() -> None:
    # A stride of 2 sees only rows 0, 2 and columns 0, 2, 4: values 0 0 0 and 0 0 4. Half-pixel bilinear resizing from
    # two rows to four takes 0, 1/4, 3/4, 1 of the lower; from three columns to six 0, 0, 0, 1/4, 3/4, 1 of the last.
    plane = [[0.0] * 6 for _ in range(4)]
    plane[2][4] = 4.0
    result = explain(OneConvolution(stride=2), red(plane), [0], layers="conv")
    expected = np.outer([0, 0.25, 0.75, 1], [0, 0, 0, 0.25, 0.75, 1])
    np.testing.assert_allclose(result.maps[0, 0, 0], expected, atol=1e-5)


def test_shapes_and_types() -> None:
    result = explain(small_network(), small_images(), [[0, 1], [2, 3], [4, 5]], layers=["0", "2", "0"])
    assert (result.maps.shape, result.maps.dtype) == ((3, 2, 3, 8, 8), np.float32)
    assert (result.targets.shape, result.targets.dtype) == ((3, 2), np.int64)
    assert (result.confidences.shape, result.confidences.dtype) == ((3, 2), np.float32)
    assert (result.raw_ranges.shape, result.raw_ranges.dtype) == ((3, 2, 3, 2), np.float32)
    assert result.maps.min() == 0
    assert 0.99 < result.maps.max() <= 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_and_zero_maps_are_zeros(method: str, value: float) -> None:
    result = explain(OneConvolution(), red([[value, value], [value, value]]), [[0, 1]], layers="conv", method=method)
    np.testing.assert_array_equal(result.maps, np.zeros((1, 2, 1, 2, 2)))
    assert np.isfinite(result.raw_ranges).all()


def test_zero_denominators_of_a_method_leave_no_nan() -> None:
    # XGrad-CAM divides by the channel's sum plus 1e-7: the sum of this plane is exactly its negative.
    plane = np.float32([[1, -1], [0, -1e-7]]).tolist()
    result = explain(OneConvolution(), red(plane), [0], layers="conv", method="xgradcam")
    assert np.isfinite(result.maps).all()
    assert np.isfinite(result.raw_ranges).all()


# Against independent libraries


@pytest.mark.parametrize("method", METHODS)
def test_each_layer_equals_the_library_alone_in_any_order(method: str, resnet: nn.Module, images: Tensor) -> None:
    asked = ["layer4", "layer2", "layer2.1", "layer4", "layer3", "layer1"]
    ids = [3, 0, 7]
    result = explain(resnet, images, ids, layers=asked, method=method)
    assert result.layers == tuple(asked)
    alone = {name: library_maps(method, resnet, resnet.get_submodule(name), images, ids) for name in dict.fromkeys(asked)}
    for position, name in enumerate(asked):
        np.testing.assert_allclose(result.maps[:, 0, position], alone[name], atol=1e-5, err_msg=name)
    # The comparison could not fail between maps that are alike.
    assert np.abs(alone["layer4"] - alone["layer1"]).max() > 0.5


def test_maps_equal_captum_at_each_layer(resnet: nn.Module, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    result = explain(resnet, images, [3, 0, 7])
    assert result.layers == LAYERS
    for position, name in enumerate(LAYERS):
        gradcam = attr.LayerGradCam(resnet, resnet.get_submodule(name))
        raw = gradcam.attribute(images, target=torch.tensor([3, 0, 7]), relu_attributions=True).detach()
        lowest, highest = raw.amin(dim=(1, 2, 3)), raw.amax(dim=(1, 2, 3))
        np.testing.assert_allclose(result.raw_ranges[:, 0, position], torch.stack([lowest, highest], 1), rtol=1e-4)
        resized = nn.functional.interpolate(unit(raw), size=(32, 32), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(result.maps[:, 0, position], unit(resized)[:, 0], atol=1e-5, err_msg=name)
    resnet.zero_grad()


def unit(maps: Tensor) -> Tensor:
    """Each map (N, 1, h, w) scaled to [0, 1] by itself."""
    shifted = maps - maps.amin(dim=(2, 3), keepdim=True)
    return shifted / (1e-7 + shifted.amax(dim=(2, 3), keepdim=True))


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


def test_batches_change_nothing() -> None:
    whole = explain(small_network(), small_images(), layers=["2", "0"])
    parts = explain(small_network(), small_images(), layers=["2", "0"], batch_size=2)
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


# The model and the images are left as they were


def state(model: nn.Module) -> tuple[object, ...]:
    """Everything that an explanation could leave changed, in a form that compares."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
        [value.tolist() for value in model.state_dict().values()],
        [list(module._forward_hooks) for module in model.modules()],
        [list(module._forward_pre_hooks) for module in model.modules()],
        [list(module._backward_hooks) for module in model.modules()],
    )


def mixed_network() -> nn.Sequential:
    """Some modules in training mode, some in evaluation mode; some frozen; some with gradients; one with a hook."""
    model = nn.Sequential(nn.BatchNorm2d(3), *small_network(), nn.Dropout(0.5))
    model(small_images()).sum().backward()
    model[0].eval()
    model[1].weight.requires_grad_(False)
    model[1].weight.grad = None
    Passes(model[3])
    return model


def test_flags_gradients_buffers_and_hooks_are_restored() -> None:
    model, images = mixed_network(), small_images().requires_grad_()
    before, pixels, random_state = state(model), images.detach().clone(), torch.get_rng_state()
    explain(model, images, [[0, 1]] * 3, layers=["1", "3"])
    assert state(model) == before
    assert images.grad is None
    assert torch.equal(images, pixels)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("error", [IndexError, RuntimeError, KeyboardInterrupt])
def test_everything_is_restored_after_an_exception(error: type[BaseException]) -> None:
    class Failing(nn.Module):
        def forward(self, activation: Tensor) -> Tensor:
            if not self.training:
                raise error("midway")
            return activation

    model = mixed_network()
    model.insert(4, Failing())
    before = state(model)
    with pytest.raises(error, match="midway"):
        explain(model, small_images(), layers=["1", "3"])
    assert state(model) == before


def test_a_loss_that_waits_for_its_backward_pass_still_gets_it() -> None:
    model, images = small_network(), small_images()
    loss = model(images).square().sum()
    expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    explain(model, images, layers=["0", "2"])
    loss.backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_images_survive_a_network_that_begins_in_place() -> None:
    images = small_images()
    pixels = images.clone()
    explain(nn.Sequential(nn.ReLU(inplace=True), *small_network()), images, layers="1")
    assert torch.equal(images, pixels)


# Models and surroundings of every kind give the same maps


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return explain(small_network(), small_images(), [0, 1, 2], layers=["0", "2"]).maps


def test_inplace_relu_behind_the_layer(expected: np.ndarray) -> None:
    result = explain(small_network(inplace=True), small_images(), [0, 1, 2], layers=["0", "2"])
    np.testing.assert_array_equal(result.maps, expected)


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
def test_without_gradients_around(surrounding: type, expected: np.ndarray) -> None:
    with surrounding():
        model, images = small_network(), small_images()
        result = explain(model, images, [0, 1, 2], layers=["0", "2"])
        assert not torch.is_grad_enabled()
    np.testing.assert_array_equal(result.maps, expected)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_under_autocast(expected: np.ndarray) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = explain(small_network(), small_images(), [0, 1, 2], layers=["0", "2"])
    np.testing.assert_array_equal(result.maps, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_computed_in_float32(dtype: torch.dtype) -> None:
    half = small_network().to(dtype)
    in_float32 = copy.deepcopy(half).float()
    arguments = ([0, 1, 2], ["0", "2"])
    result = explain(half, small_images(), [0, 1, 2], layers=[half[0], half[2]])
    np.testing.assert_array_equal(result.maps, explain(in_float32, small_images(), *arguments).maps)
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
def test_models_of_every_kind(prepare: object, expected: np.ndarray) -> None:
    model = small_network()
    model = prepare(model) or model
    result = explain(model, small_images(), [0, 1, 2], layers=["0", "2"])
    np.testing.assert_allclose(result.maps, expected, atol=1e-5)


def test_a_model_compiled_in_place_runs_without_compiling_again(expected: np.ndarray) -> None:
    compilations = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        compilations.append(graph)
        return graph.forward

    model = small_network().eval()
    model.compile(backend=backend)
    with torch.no_grad():
        model(small_images())
    assert len(compilations) == 1
    result = explain(model, small_images(), [0, 1, 2], layers=["0", "2"])
    assert len(compilations) == 1
    np.testing.assert_array_equal(result.maps, expected)


def test_images_as_array_or_in_other_types(expected: np.ndarray) -> None:
    array = small_images().numpy()
    negative_strides = array[..., ::-1].copy()[..., ::-1]
    channels_last = small_images().to(memory_format=torch.channels_last)
    for images in (array, negative_strides, small_images().double(), channels_last):
        result = explain(small_network(), images, np.array([2, 1, 0])[::-1], layers=["0", "2"])
        np.testing.assert_allclose(result.maps, expected, atol=1e-5)


def test_torchvision_resnet_takes_the_default_layers() -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.resnet18(num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    result = explain(model, images, [0, 4])
    assert result.layers == LAYERS
    for position, name in enumerate(LAYERS):
        alone = library_maps("gradcam", model, getattr(model, name), images, [0, 4])
        np.testing.assert_allclose(result.maps[:, 0, position], alone, atol=1e-5, err_msg=name)


# Bad values: one sentence each, before the model runs where the model is not needed to know


BAD_VALUES = {
    "unknown method": ({"method": "gradcan"}, "unknown method 'gradcan'; the nearest valid names are 'gradcam', "),
    "method in capitals": ({"method": "HiResCAM"}, "the nearest valid names are 'hirescam', "),
    "method of a wrong type": ({"method": ["gradcam"]}, "unknown method ['gradcam']; the nearest valid names are"),
    "unknown targets": (
        {"targets": "actuall"},
        "unknown targets 'actuall'; the nearest valid names are 'actual', 'predicted' or integer class ids",
    ),
    "unknown layer": ({"layers": ["0", "20"]}, "unknown layer '20'; the nearest valid names are '2', '0', "),
    "layer of a wrong type": ({"layers": 2}, "unknown layer 2; the nearest valid names are '2', "),
    "foreign module": (
        {"layers": nn.Conv2d(1, 1, 1)},
        "the Conv2d in layers is not a layer of this model; pass one of",
    ),
    "no layers": ({"layers": []}, "layers is empty; name at least one layer, or pass None for layer1 ... layer4"),
    "no default layers": (
        {"layers": None},
        "Sequential has no layer1 ... layer4 to take by default; pass layers=, for example '0', '1', '2'",
    ),
    "one image": (
        {"images": torch.zeros(3, 8, 8)},
        "images must be a normalised float tensor (N, channels, height, width), not (3, 8, 8) torch.float32",
    ),
    "raw pixels": ({"images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)}, "not (3, 3, 8, 8) torch.uint8"),
    "list of images": ({"images": [1, 2]}, "(N, channels, height, width), not list"),
    "empty batch": (
        {"images": torch.zeros(0, 3, 8, 8)},
        "images of shape (0, 3, 8, 8) are empty; pass at least one image",
    ),
    "NaN": (
        {"images": torch.full((3, 3, 8, 8), math.nan)},
        "images contain NaN or infinite values; check how they were",
    ),
    "labels missing": (
        {"targets": "actual"},
        "targets 'actual' needs the labels; pass labels=, a class id for each image",
    ),
    "too few labels": (
        {"targets": "actual", "labels": [1, 2]},
        "labels must be integer class ids of shape (3,), not int64 of shape (2,)",
    ),
    "too many targets": (
        {"targets": [0, 1, 2, 3]},
        "targets must be integer class ids of shape (3,) or (3, T), not int64 of shape (4,)",
    ),
    "probabilities": ({"targets": torch.rand(3, 8)}, "or (3, T), not float32 of shape (3, 8)"),
    "no columns": ({"targets": np.zeros((3, 0), np.int64)}, "or (3, T), not int64 of shape (3, 0)"),
    "no targets": ({"targets": None}, "or (3, T), not object of shape ()"),
    "ragged targets": ({"targets": [[0], [1, 2], [3]]}, "or (3, T), not lists of unequal lengths"),
    "negative target": (
        {"targets": [0, -1, 2]},
        "class id -1 is out of range: the class ids in targets must be 0 or more",
    ),
    "no batch": ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values_are_refused_before_the_model_runs(arguments: dict[str, object], message: str) -> None:
    model = small_network()
    count = Passes(model)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        explain(model, **{"images": small_images(), "layers": ["0"], **arguments})
    assert count.forward == 0
    assert "\n" not in str(caught.value)


class Branches(nn.Module):
    """Layers that never run, run twice, give two tensors, see more images than were given, do not reach the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.never, self.twice, self.doubled, self.cut_off = (nn.Conv2d(3, 3, 1) for _ in range(5))
        self.pair = nn.LSTM(3, 3)
        self.linear = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.twice(self.twice(self.stem(images)))
        features = self.doubled(torch.cat([features, features]))[: len(images)]
        sequence, _ = self.pair(features.mean(dim=(2, 3)))
        return self.linear(sequence + self.cut_off(features).detach().mean(dim=(2, 3)))


BAD_LAYERS = {
    "never": "layer 'never' does not run in the model's forward pass; choose a layer that does",
    "twice": "layer 'twice' runs more than once in a forward pass; choose a layer that runs once",
    "pair": "layer 'pair' gives tuple, but a class activation map needs (2, channels, height, width); choose a",
    "linear": "layer 'linear' gives (2, 2), but a class activation map needs (2, channels, height, width); choose",
    "doubled": "layer 'doubled' gives (4, 3, 8, 8), but a class activation map needs (2, channels, height, width)",
    "cut_off": "no gradient flows from the logits to layer 'cut_off'; choose a layer on the way to them",
}


@pytest.mark.parametrize(("layer", "message"), BAD_LAYERS.items())
def test_layers_without_a_map_are_refused_and_the_model_is_restored(layer: str, message: str) -> None:
    model = Branches()
    before = state(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(model, small_images(2), layers=["stem", layer])
    assert state(model) == before


def test_a_network_that_detaches_everything_is_refused() -> None:
    class WithoutGradients(OneConvolution):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).detach()

    with pytest.raises(ValueError, match="no gradient flows from the logits to layer 'conv'"):
        explain(WithoutGradients(), red([[1, 2], [3, 4]]), layers="conv")


def test_class_ids_beyond_the_last_class_are_refused() -> None:
    model = small_network()
    with pytest.raises(ValueError, match=re.escape("class id 8 is out of range: the model's classes are 0 to 7")):
        explain(model, small_images(), [0, 1, 8], layers="0", batch_size=1)
    with pytest.raises(ValueError, match="class id 9 is out of range"):
        explain(model, small_images(), "actual", layers="0", labels=[9, 0, 0])


def test_unusable_models_are_refused() -> None:
    with pytest.raises(ValueError, match="the model has no parameters, so it has learnt nothing to explain; pass a trained"):
        explain(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), small_images(), layers="0")
    with pytest.raises(ValueError, match=re.escape("the model must return logits of shape (3, classes), not (3, 6, 8, 8)")):
        explain(small_network()[:2], small_images(), layers="0")
    diverged = small_network()
    nn.init.constant_(diverged[5].weight, math.nan)
    with pytest.raises(ValueError, match="the model's logits are NaN or infinite, so its weights are unusable; train it"):
        explain(diverged, small_images(), layers="0")
