"""Where the cells of a layer lie in the image: by hand, and maps drawn there, by NumPy and by a spot at a known place."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gradcam_networks import LAYERS, layers_for
from torch import Tensor, nn

from era_support_packages.gradcam import METHODS, explain, upsample
from era_support_packages.gradcam.axis_tracker import AxisTracker
from era_support_packages.gradcam.cell_operations import together
from era_support_packages.gradcam.cells import Cells, Line, drawn
from era_support_packages.models.resnet import ResNet18

Step = Callable[[Tensor], Tensor]


def conv(kernel: int, **options: int) -> nn.Module:
    return nn.Conv2d(3, 3, kernel, **options)


def places(found: Tensor) -> Tensor:
    return found.flatten(2).transpose(1, 2)


def grid(found: Tensor) -> Tensor:
    side = round(found.shape[1] ** 0.5)
    return found.transpose(1, 2).unflatten(2, (side, side))


def attended(found: Tensor) -> Tensor:
    """Coarser places attend to finer ones."""
    queries, keys = places(conv(5, stride=2)(found)), places(found)
    return grid((queries @ keys.transpose(1, 2)).softmax(dim=2) @ keys)


def attended_at_once(found: Tensor) -> Tensor:
    queries, keys = places(conv(5, stride=2)(found))[:, None], places(found)[:, None]
    return grid(nn.functional.scaled_dot_product_attention(queries, keys, keys)[:, 0])


def enlarged(found: Tensor) -> Tensor:
    """Of half as many cells, one more where that is not even, and back."""
    return nn.functional.interpolate(nn.functional.avg_pool2d(found, 2, ceil_mode=True), size=found.shape[2:])


@torch.inference_mode()
def at_once(found: Tensor) -> Tensor:
    """Here PyTorch tells of a convolution with the arguments that were given, and none of its stride."""
    return nn.functional.conv2d(found, torch.ones(3, 3, 5, 5))


STEPS: dict[str, tuple[tuple[Step, ...], int, float]] = {
    "nothing": ((lambda x: x * 2,), 32, 1),
    "without padding": ((conv(5),), 28, 1),
    "with padding": ((conv(5, padding=2),), 32, 1),
    "strided": ((conv(3, stride=2, padding=1),), 16, 2),
    "as in LeNet": ((conv(5), nn.MaxPool2d(2), conv(5), nn.MaxPool2d(2)), 5, 4),
    "as in AlexNet": ((conv(11, stride=4, padding=2), nn.MaxPool2d(3, 2)), 3, 8),
    "dilated": ((conv(3, dilation=4),), 24, 1),
    "average pooling": ((nn.AvgPool2d(4, 2),), 15, 2),
    "pooling of its own stride": ((nn.AvgPool2d(5),), 6, 5),
    "adaptive pooling": ((conv(5), nn.AdaptiveAvgPool2d(7)), 7, 4),
    "enlarged": ((conv(3, stride=2), nn.Upsample(scale_factor=2)), 30, 1),
    "enlarged smoothly": ((conv(3, stride=2), nn.Upsample(size=(5, 5), mode="bilinear")), 5, 6),
    "transposed": ((conv(3, stride=2), nn.ConvTranspose2d(3, 3, 2, stride=2)), 30, 1),
    "transposed without padding": ((conv(3, stride=2), nn.ConvTranspose2d(3, 3, 3, stride=2)), 31, 1),
    "as many again": ((conv(5), nn.ConvTranspose2d(3, 3, 5)), 32, 1),
    "one cell and four again": ((nn.AdaptiveAvgPool2d(1), nn.ConvTranspose2d(3, 3, 4)), 4, 8),
    "all in one cell and four again": ((conv(4, stride=4), conv(8), nn.ConvTranspose2d(3, 3, 4)), 4, 8),
    "pooled by a fraction": ((nn.FractionalMaxPool2d(2, output_size=20),), 20, 1.6),
    "in inference mode": ((at_once, lambda x: x.clone()), 28, 1),
    "a pyramid": ((conv(4, stride=2), lambda x: x + enlarged(x), conv(3)), 13, 2),
    "a pyramid the other way": ((conv(4, stride=2), lambda x: enlarged(x) + x, conv(3)), 13, 2),
    "a pyramid side by side": ((conv(4, stride=2), lambda x: torch.cat([enlarged(x), x], 1), nn.Conv2d(6, 3, 3)), 13, 2),
    "weighted by what finer cells saw": ((lambda x: conv(7)(x) * x.mean(dim=(2, 3), keepdim=True), conv(3)), 24, 1),
    "attention to finer cells": ((conv(5), attended, conv(1)), 12, 2),
    "attention to finer cells at once": ((conv(5), attended_at_once, conv(1)), 12, 2),
    "shuffled": ((conv(3), nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 1)), 15, 2),
    "every second place": ((lambda x: x[:, :, ::2, 1::2],), 16, 2),
    "the four parts of blocks": ((lambda x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),), 16, 2),
    "all but one place": ((lambda x: x[:, :, 1:, :-1],), 31, 1),
    "padded": ((lambda x: nn.functional.pad(x, (1, 2, 1, 2)), conv(3, stride=2)), 17, 2),
    "blocks by a reshape": ((lambda x: x.unflatten(2, (16, 2)).unflatten(4, (16, 2)).amax(dim=(3, 5)), conv(3)), 14, 2),
    "channels last": ((conv(5), lambda x: x.permute(0, 2, 3, 1)[:, ::2, ::2].permute(0, 3, 1, 2)), 14, 2),
    "weighted by the whole image": ((conv(5), lambda x: x * x.mean(dim=(2, 3), keepdim=True)), 28, 1),
    "beside a coarser one": ((conv(5), lambda x: x + nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), size=28)), 28, 1),
    "added to": ((lambda x: x.clone().add_(1), nn.ReLU(inplace=True), conv(5)), 28, 1),
}


@pytest.mark.parametrize("how", STEPS)
def test_cells_behind_operations_by_hand(how: str) -> None:
    steps, count, step = STEPS[how]
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad(), AxisTracker(images) as tracker:
        found = images
        for one in steps:
            found = one(found)
        assert tuple(found.shape[2:]) == (count, count)
        cells = tracker.cells(found)
    assert cells is not None
    assert cells.resized(found.shape[2:]) == Cells(Line(count, step), Line(count, step))


def test_rows_and_columns_by_themselves() -> None:
    images = torch.rand(1, 3, 32, 20)
    with torch.no_grad(), AxisTracker(images) as tracker:
        found = nn.Conv2d(3, 3, (5, 3), stride=(2, 1))(images)
        pooled = nn.functional.max_pool2d(found, (1, 3))
        assert tracker.cells(found) == Cells(Line(14, 2), Line(18, 1))
        assert tracker.cells(pooled) == Cells(Line(14, 2), Line(6, 3))


def test_of_what_does_not_come_from_the_images_nothing_is_known() -> None:
    images = torch.rand(1, 3, 8, 8)
    with AxisTracker(images) as tracker:
        assert tracker.cells(torch.rand(1, 3, 8, 8) + 1) is None
        assert tracker.cells(images.roll(1, 2) + 1) is None  # nor of what is somewhere else
    assert together("add", []) is None


@pytest.mark.parametrize(
    ("size", "even"), [((32, 32), True), ((33, 32), False), ((32, 36), False), ((16, 16), False), ((64, 64), False)]
)
def test_cells_share_an_image_evenly(size: tuple[int, int], even: bool) -> None:
    assert Cells(Line(4, 8), Line(4, 8)).share_evenly(size) is even


@pytest.mark.parametrize("pixels", [16, 24, 32])
def test_cells_of_a_resnet_share_the_image(pixels: int) -> None:
    """So its maps are the library's."""
    network, images, found = ResNet18().eval(), torch.rand(1, 3, pixels, pixels), []
    with torch.no_grad(), AxisTracker(images) as tracker:
        for name in LAYERS:
            network.get_submodule(name).register_forward_hook(lambda _layer, _given, output: found.append(tracker.cells(output)))
        network(images)
    assert [cells.rows.step for cells in found if cells] == [1, 2, 4, 8]
    assert all(cells and cells.share_evenly((pixels, pixels)) for cells in found)


def test_maps_are_read_between_the_cells_by_numpy() -> None:
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    cells = Cells(Line(4, 6), Line(5, 2.5))  # rows 5.5, 11.5, 17.5, 23.5 and columns 2.5, 5, 7.5, 10, 12.5
    found = drawn(maps, (30, 16), cells)
    assert found.shape == (3, 30, 16)
    for one, ours in zip(maps.numpy(), found.numpy(), strict=True):
        down = np.stack([np.interp(np.arange(30), [5.5, 11.5, 17.5, 23.5], column) for column in one.T], axis=1)
        both = np.stack([np.interp(np.arange(16), [2.5, 5, 7.5, 10, 12.5], row) for row in down])
        np.testing.assert_allclose(ours, both, atol=1e-5)


def test_one_cell_is_the_same_everywhere() -> None:
    assert drawn(torch.tensor([[[3.0]]]), (2, 3), Cells(Line(1, 1), Line(1, 1))).tolist() == [[[3.0] * 3] * 2]


def test_maps_reach_from_zero_to_one_however_small_and_constant_ones_stay_dark() -> None:
    cells = Cells(Line(3, 2), Line(3, 2))
    assert not upsample(np.full((1, 3, 3), 2.0), (9, 9), cells).any()
    spot = np.zeros((1, 3, 3))
    spot[0, 1, 1] = 1e-20
    shown = upsample(spot, (9, 9), cells)
    assert shown.min() == 0
    assert shown[0, 4, 4] == shown.max() == pytest.approx(1, abs=1e-5)


class Tutorial(nn.Module):
    """The layers of PyTorch's first tutorial: two 5x5 convolutions and poolings without padding. Class 0 is what is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 2, 5), nn.Conv2d(2, 2, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            for layer in (self.conv1, self.conv2):
                layer.weight.zero_()
                layer.weight[0] = 0.01
                layer.bias.zero_()
            self.fc.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
            self.fc.bias.fill_(0.1)

    def forward(self, images: Tensor) -> Tensor:
        first = self.pool(self.conv1(images).relu())
        return self.fc(self.pool(self.conv2(first).relu()).mean(dim=(2, 3)))


def spots() -> tuple[Tensor, np.ndarray]:
    """Images of 32 px with a bright square of 4 px each, and the middles of these."""
    places = np.array([(2, 2), (6, 22), (26, 4), (14, 14), (10, 18), (22, 7)])
    images = torch.zeros(len(places), 3, 32, 32)
    for image, (top, left) in zip(images, places.tolist(), strict=True):
        image[:, top : top + 4, left : left + 4] = 1
    return images, places + 1.5


@pytest.mark.parametrize("method", METHODS)
def test_without_padding_maps_mark_a_spot_where_it_is(method: str) -> None:
    """On average, at most 1.5 px beside it. Stretched over the image, all but FullGrad's were 2 to 3 px beside it."""
    images, middles = spots()
    found = explain(Tutorial(), images, np.zeros(len(images), np.int64), layers_for(method, "conv2"), method)
    maps = found.maps[:, 0, 0]
    assert maps.max(axis=(1, 2)).min() > 0.9
    if not METHODS[method].all_layers:
        assert found.grids == ((10, 10),)
    beside = [np.abs(np.argwhere(one > 0.5).mean(axis=0) - middle).max() for one, middle in zip(maps, middles, strict=True)]
    assert np.mean(beside) <= 1.5


def test_without_padding_a_mean_of_layers_marks_a_spot_where_it_is() -> None:
    images, middles = spots()
    found = explain(Tutorial(), images, np.zeros(len(images), np.int64), "conv1+conv2", "hirescam")
    for one, middle in zip(found.maps[:, 0, 0], middles, strict=True):
        assert np.abs(np.argwhere(one > 0.8).mean(axis=0) - middle).max() <= 3


def test_behind_a_stem_in_inference_mode_maps_are_placed() -> None:
    class Stem(Tutorial):
        def forward(self, images: Tensor) -> Tensor:
            with torch.inference_mode():
                first = self.pool(self.conv1(images).relu())
            return self.fc(self.pool(self.conv2(first.clone()).relu()).mean(dim=(2, 3)))

    images, _ = spots()
    ids = np.zeros(len(images), np.int64)
    found, plain = (explain(network, images, ids, "conv2") for network in (Stem(), Tutorial()))
    np.testing.assert_array_equal(found.maps, plain.maps)


def test_of_a_persons_own_arrangement_nothing_is_known() -> None:
    """It is stretched, as before."""
    images, _ = spots()
    ids = np.zeros(len(images), np.int64)
    own = explain(Tutorial(), images, ids, "conv2", "hirescam", reshape=lambda output: output)
    placed = explain(Tutorial(), images, ids, "conv2", "hirescam")
    np.testing.assert_array_equal(own.raw_ranges, placed.raw_ranges)
    assert (own.cells, placed.cells) == ((None,), (Cells(Line(10, 2), Line(10, 2)),))
    assert np.abs(own.maps - placed.maps).max() > 0.3
