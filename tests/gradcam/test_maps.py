"""The maps of all ten methods: against numbers worked out by hand, pytorch-grad-cam layer by layer, and captum."""

import math

import numpy as np
import pytest
import torch
from gradcam_networks import (
    LAYERS,
    OneConvolution,
    TwoPlanes,
    layers_for,
    library_maps,
    red,
    red_and_green,
    small_images,
    small_network,
)
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import Tensor, nn

from era_support_packages.gradcam.cells import Cells
from era_support_packages.gradcam.explanation import Explanation, explain
from era_support_packages.gradcam.maps import principal_component
from era_support_packages.gradcam.methods import GRADIENT_METHODS, METHODS
from era_support_packages.models.resnet import ResNet18

IDS = [3, 0, 7]


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
    """16 px: layer1 ... layer4 have grids of 16, 8, 4 and 2."""
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# ---- numbers worked out by hand ----------------------------------------------------------------------------------------


def test_gradcam_of_two_classes() -> None:
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
    np.testing.assert_array_equal(result.constant, [[[False], [True]]])
    assert (result.layers, result.method, result.grids) == (("conv",), "gradcam", ((2, 2),))


# Two channels, both x, and a linear layer with weights of its own for each channel and place: v and w, so that they are the
# gradients, and the activations are x = 1 2 3 4.
# Grad-CAM: (mean v + mean w) x = (1 + 0) x.   HiResCAM: (v + w) x = (2 0 1 1) x.   LayerCAM: (v+ + w+) x = (4 2 1 2) x.
# XGrad-CAM: (sum of v x + sum of w x) / 10 = (8 + 1) / 10 times x.
# Grad-CAM++: sum over the places of g+ g^2 / (2 g^2 + 10 g^3): 4/42 + 2/22 for v and 2/22 + 1/12 for w, times x.
V, W = [[4.0, -2.0], [0.0, 2.0]], [[-2.0, 2.0], [1.0, -1.0]]
BY_PLACE = {
    "gradcam": [[1, 2], [3, 4]],
    "hirescam": [[2, 0], [3, 4]],
    "layercam": [[4, 4], [3, 8]],
    "xgradcam": [[0.9, 1.8], [2.7, 3.6]],
    "gradcam++": np.array([[1, 2], [3, 4]]) * (4 / 42 + 2 / 22 + 2 / 22 + 1 / 12),
}


@pytest.mark.parametrize("method", BY_PLACE)
def test_gradient_methods_of_weights_at_each_place(method: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 2, bias=False))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:, 0] = 1
        model[2].weight.copy_(torch.stack([torch.tensor([V, W]).flatten(), torch.zeros(8)]))
    result = explain(model, red([[1, 2], [3, 4]]), [0], layers="0", method=method)
    raw = np.array(BY_PLACE[method], float)
    np.testing.assert_allclose(result.raw_ranges[0, 0, 0], [raw.min(), raw.max()], rtol=1e-5)
    np.testing.assert_allclose(result.maps[0, 0, 0], (raw - raw.min()) / (raw.max() - raw.min()), atol=1e-5)


CORNERS = [[0, 0], [0, 4]], [[2, 0], [0, 0]]
"""red is 4 at one place, green 2 at another: their means are 1 and 1/2"""
LOG3 = math.log(3)
# Method, planes, and weights of the classes, to ranges and maps of each class:
BY_HAND = [
    # Channels 4 u and 3 u with u = 0 0 4 8, of mean 3: the component is (4, 3) / 5 and the projection 5 (u - 3) = -15 -15 5 25.
    ("eigencam", ([[0, 0], [16, 32]], [[0, 0], [12, 24]]), [[1, 0], [0, 1]], [[0, 25]] * 2, [[[0, 0], [0.2, 1]]] * 2),
    # It marks where the layer is active even where that is most of the image. u = 8 8 8 0, of mean 6: 5 (u - 6) = 10 10 10 -30.
    ("eigencam", ([[32, 32], [32, 0]], [[24, 24], [24, 0]]), [[1, 0]], [[0, 10]], [[[1, 1], [1, 0]]]),
    # The gradients of class 0 are (4, 3) / 4 everywhere, so gradient times activation is (4 u, 3 u) / 4 with u = 0 0 4 8: a
    # quarter of 5 (u - 3). Class 1 has the opposite gradients, so its evidence is where u is low: a quarter of 5 (3 - u).
    (
        "eigengradcam",
        ([[0, 0], [4, 8]], [[0, 0], [4, 8]]),
        [[4, 3], [-4, -3]],
        [[0, 6.25], [0, 3.75]],
        [[[0, 0], [0.2, 1]], [[1, 1], [0, 0]]],
    ),
    # Behind the red mask the means are (1, 0), behind the green one (0, 1/2). Class 0: scores log 3 and 0, softmax 3/4 and 1/4,
    # so 3/4 of 4 and 1/4 of 2. Class 1: scores 0 and log 3, so 1/4 of 4 and 3/4 of 2.
    ("scorecam", CORNERS, [[LOG3, 0], [0, 2 * LOG3]], [[0, 3], [0, 1.5]], [[[1 / 6, 0], [0, 1]], [[1, 0], [0, 2 / 3]]]),
    # Class 0: y = 2 (1) + 4 (1/2) = 4, without red 2, without green 2: weights 1/2 and 1/2.
    # Class 1: y = 3 - 1 = 2, without red -1, without green 3: weights 3/2 and -1/2, so green turns negative.
    ("ablationcam", CORNERS, [[2, 4], [3, -2]], [[0, 2], [0, 6]], [[[0.5, 0], [0, 1]], [[0, 0], [0, 1]]]),
    # Class 0: y = 2 (1) - 8 (1/2) = -2. Without red it falls to -4, without green it rises to 2: red speaks for the class, with
    # weight (-2 + 4) / 2 = 1, and green against it, with -2. Divided by y, as the library does, green alone would be marked.
    # Class 1: y = 1 - 2 (1/2) = 0, where the differences are taken as they are: weights 1 and -1.
    ("ablationcam", CORNERS, [[2, -8], [1, -2]], [[0, 4], [0, 4]], [[[0, 0], [0, 1]]] * 2),
]


@pytest.mark.parametrize(("method", "planes", "weights", "ranges", "maps"), BY_HAND)
def test_methods_of_two_planes(method: str, planes: tuple, weights: list, ranges: list, maps: list) -> None:
    classes = [list(range(len(weights)))]
    result = explain(TwoPlanes(weights), red_and_green(*planes), classes, layers="planes", method=method)
    np.testing.assert_allclose(result.raw_ranges[0, :, 0], ranges, rtol=1e-5)
    np.testing.assert_allclose(result.maps[0, :, 0], maps, atol=1e-5)


def test_ablationcam_sets_channels_to_zero_where_activations_are_negative_too() -> None:
    # Channels x and -x with means 2.5 and -2.5; class 0: y = 2.5, without the first -2.5, without the second 5: weights 2 and
    # -1, so the map is 2 x + x. The library would set each to about -1e7.
    result = explain(OneConvolution(), red([[1, 2], [3, 4]]), [0], layers="conv", method="ablationcam")
    np.testing.assert_allclose(result.raw_ranges[0, 0, 0], [3, 12], rtol=1e-5)


def test_ablationcam_takes_the_channel_from_the_layer_only_and_not_from_what_it_was_made_of() -> None:
    class BesideIt(TwoPlanes):
        def forward(self, images: Tensor) -> Tensor:
            features = self.conv(images).relu()
            return self.linear((self.planes(features) + features).mean(dim=(2, 3)))

    # y = 2 (1 + 1) + 4 (1/2 + 1/2) = 8. Without red behind the layer 6, without green 6: weights 1/4 and 1/4.
    model = BesideIt([[2, 4], [0, 0]])
    model.planes = nn.Identity()
    result = explain(model, red_and_green(*CORNERS), [0], layers="planes", method="ablationcam")
    np.testing.assert_allclose(result.raw_ranges[0, 0, 0], [0, 1], rtol=1e-5)


def test_fullgrad_adds_the_input_and_every_bias() -> None:
    # Red r = -3 1 3 7, convolution r + 1, ReLU, mean times 4. The gradient is 0 1 1 1, times the input 0 1 3 7, scaled to
    # 0 1/7 3/7 1; times the bias 0 1 1 1. The sum is 0 8/7 10/7 2.
    last = nn.Linear(1, 1, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 0.0, 0.0])[None, :, None, None])
        model[0].bias.fill_(1)
        last.weight.fill_(4)
    result = explain(model, red([[-3, 1], [3, 7]]), [0], method="fullgrad")
    np.testing.assert_allclose(result.raw_ranges, [[[[0, 2]]]], atol=1e-5)
    np.testing.assert_allclose(result.maps[0, 0, 0], [[0, 4 / 7], [5 / 7, 1]], atol=1e-5)
    assert (result.layers, result.grids) == (("all layers",), ((2, 2),))


@pytest.mark.parametrize("never", [False, True])
def test_fullgrad_counts_a_bias_each_time_its_layer_runs_and_passes_over_one_that_does_not(never: bool) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 1, 1), nn.Linear(1, 1)
            self.never = nn.Conv2d(5, 5, 1) if never else None
            for parameter, value in ((self.conv.weight, 2), (self.conv.bias, -1), (self.linear.weight, 4)):
                nn.init.constant_(parameter, value)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(self.conv(self.conv(images).relu()).relu().mean(dim=(2, 3)))

    # x = 0 .6 .9 2: 2 x - 1 = -1 .2 .8 3, again on its ReLU: -1 -.6 .6 5. Gradients behind the second run 0 0 1 1, behind the
    # first 0 0 2 2, at the input 0 0 4 4; times the input 0 0 3.6 8, scaled 0 0 .45 1. The sum is 0 0 2.45 3.
    result = explain(Twice(), torch.tensor([[[[0.0, 0.6], [0.9, 2.0]]]]), [0], method="fullgrad")
    np.testing.assert_allclose(result.raw_ranges, [[[[0, 3]]]], atol=1e-5)
    np.testing.assert_allclose(result.maps[0, 0, 0], [[0, 0], [2.45 / 3, 1]], atol=1e-5)


def test_fullgrad_pairs_biases_with_their_layers_in_whatever_order_these_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cells, "share_evenly", lambda _cells, _size: True)  # stretched, as in the library

    class InOrder(nn.Module):
        def __init__(self, *order: str) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers = {"first": nn.Conv2d(3, 3, 3), "last": nn.Conv2d(3, 3, 3)}
            nn.init.zeros_(layers["first"].bias)  # each channel is scaled by itself, so only a missing bias shows
            for name in order:
                self.add_module(name, layers[name])
            self.linear = nn.Linear(3, 2)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(self.last(self.first(images).relu()).relu().mean(dim=(2, 3)))

    images, orders = small_images(), (("first", "last"), ("last", "first"))
    maps = [explain(InOrder(*order), images, [0, 1, 0], method="fullgrad").maps[:, 0, 0] for order in orders]
    np.testing.assert_array_equal(*maps)
    np.testing.assert_allclose(maps[0], library_maps("fullgrad", InOrder(*orders[0]), None, images, [0, 1, 0]), atol=1e-5)


def test_maps_are_resized_to_the_images_height_and_width() -> None:
    # A stride of 2 sees only rows 0, 2 and columns 0, 2, 4: values 0 0 0 and 0 0 4. Half-pixel bilinear resizing from
    # two rows to four takes 0, 1/4, 3/4, 1 of the lower; from three columns to six 0, 0, 0, 1/4, 3/4, 1 of the last.
    plane = np.zeros((4, 6))
    plane[2, 4] = 4
    result = explain(OneConvolution(stride=2), red(plane.tolist()), [0], layers="conv")
    np.testing.assert_allclose(result.maps[0, 0, 0], np.outer([0, 0.25, 0.75, 1], [0, 0, 0, 0.25, 0.75, 1]), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_constant_and_zero_maps_are_zeros_and_counted(method: str, value: float) -> None:
    images = torch.full((1, 3, 2, 2), value)
    result = explain(OneConvolution(), images, [[0, 1]], layers_for(method, "conv"), method)
    np.testing.assert_array_equal(result.maps, np.zeros((1, 2, 1, 2, 2)))
    assert np.isfinite(result.raw_ranges).all()
    assert result.constant.all()


def test_zero_denominators_of_a_method_leave_no_nan() -> None:
    # XGrad-CAM divides by the channel's sum plus 1e-7: the sum of this plane is exactly its negative.
    result = explain(OneConvolution(), red([[1, -1], [0, -1e-7]]), [0], layers="conv", method="xgradcam")
    assert np.isfinite(result.maps).all()
    assert np.isfinite(result.raw_ranges).all()


# ---- against independent libraries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in GRADIENT_METHODS if name != "eigengradcam"])
def test_each_layer_equals_the_library_alone_in_any_order(method: str, resnet: nn.Module, images: Tensor) -> None:
    asked = ("layer4", "layer2.1", "layer4", "layer1")
    result = explain(resnet, images, IDS, layers=asked, method=method)
    assert result.layers == asked
    alone = {name: library_maps(method, resnet, resnet.get_submodule(name), images, IDS) for name in set(asked)}
    for position, name in enumerate(asked):
        np.testing.assert_allclose(result.maps[:, 0, position], alone[name], atol=1e-5, err_msg=name)
    assert np.abs(alone["layer4"] - alone["layer1"]).max() > 0.5  # maps that are alike could not tell


@pytest.mark.parametrize("shape", [(2, 5, 4, 6), (2, 40, 3, 3), (2, 1, 4, 4), (1, 4, 1, 1)])
def test_principal_component_equals_the_library_but_for_the_sign(shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    ours, theirs = principal_component(features), get_2d_projection(features)
    for one, other, total in zip(ours, theirs, features.sum(axis=1), strict=True):
        np.testing.assert_allclose(one, other if np.vdot(one, other) >= 0 else -other, atol=1e-5)
        assert np.vdot(one, total) >= 0


def test_principal_component_takes_a_missing_value_as_zero() -> None:
    np.testing.assert_allclose(principal_component(np.float32([[[[1, math.nan], [3, 4]]]])), [[[-1, -2], [1, 2]]])


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_passes_per_channel_equal_the_library(method: str, batch_size: int) -> None:
    model, images = small_network(), small_images()
    with torch.no_grad():
        model[5].bias += 5  # scores above zero: there the library's Ablation-CAM divides by a positive number
    result = explain(model, images, IDS, ["3", "1"], method, batch_size=batch_size)
    alone = [library_maps(method, model, model[position], images, IDS) for position in (3, 1)]
    np.testing.assert_allclose(result.maps[:, 0], np.stack(alone, axis=1), atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.5


def test_maps_equal_captum_at_each_layer(resnet: nn.Module, images: Tensor) -> None:
    attr = pytest.importorskip("captum.attr")
    result = explain(resnet, images, IDS)
    assert result.layers == LAYERS
    for position, name in enumerate(LAYERS):
        gradcam = attr.LayerGradCam(resnet, resnet.get_submodule(name))
        raw = gradcam.attribute(images, target=torch.tensor(IDS), relu_attributions=True).detach()
        lowest, highest = raw.amin(dim=(1, 2, 3)), raw.amax(dim=(1, 2, 3))
        np.testing.assert_allclose(result.raw_ranges[:, 0, position], torch.stack([lowest, highest], 1), rtol=1e-4)
    resnet.zero_grad()
