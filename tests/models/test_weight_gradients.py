"""The weight gradient as a matrix product: equal to PyTorch's own, used where it should be and nowhere else."""

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages.models import weight_gradients
from era_support_packages.models.resnet import ResNet18
from era_support_packages.models.weight_gradients import FastWeightGradients, fast_weight_gradients

FEWEST, FEWEST_STRIDED = weight_gradients.FEWEST_CHANNELS, weight_gradients.FEWEST_STRIDED_CHANNELS
BF16 = torch.autocast("cpu", torch.bfloat16)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Few channels suffice; the shapes of the weights whose gradient was a product."""
    shapes: list[tuple[int, ...]] = []

    def counting(function: type[torch.autograd.Function]) -> type:
        class Counting:
            @staticmethod
            def apply(*arguments: object) -> Tensor:
                shapes.append(tuple(arguments[1].shape))
                return function.apply(*arguments)

        return Counting

    for name in ("_Convolution", "_OfWholeImages"):
        monkeypatch.setattr(weight_gradients, name, counting(getattr(weight_gradients, name)))
    monkeypatch.setattr(weight_gradients, "FEWEST_CHANNELS", 3)
    monkeypatch.setattr(weight_gradients, "FEWEST_STRIDED_CHANNELS", 3)
    return shapes


def gradients(images: Tensor, weight: Tensor, fast: bool, **options: object) -> tuple[Tensor, Tensor, Tensor]:
    """Output, gradient of the images and gradient of the weight of a convolution under a weighted sum."""
    images, weight = images.clone().requires_grad_(), weight.clone().requires_grad_()
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=False, **options)
    layer.weight = nn.Parameter(weight)
    with FastWeightGradients() if fast else nullcontext():
        output = layer(images)
    generator = torch.Generator().manual_seed(1)
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    return output, images.grad, layer.weight.grad


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 1, 0), ((3, 2), (2, 1), (0, 1)), (5, 3, 2)])
@pytest.mark.parametrize("size", [(4, 4), (2, 2), (5, 3)])
def test_it_equals_the_gradient_of_pytorch(size, kernel, stride, padding, memory, applied) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel_size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    if min(size) + 2 * (padding if isinstance(padding, int) else min(padding)) < max(kernel_size):
        size = (4, 4)
    images = torch.randn(3, 4, *size, generator=generator).contiguous(memory_format=memory)
    weight = torch.randn(5, 4, *kernel_size, generator=generator).contiguous(memory_format=memory)
    usual = gradients(images, weight, False, stride=stride, padding=padding)
    ours = gradients(images, weight, True, stride=stride, padding=padding)
    assert max(usual[0].shape[2:]) > 4 or applied == [tuple(weight.shape)]
    assert torch.equal(ours[0], usual[0])
    assert torch.equal(ours[1], usual[1])
    torch.testing.assert_close(ours[2], usual[2], rtol=1e-5, atol=1e-5)


def test_a_gradient_by_hand(applied) -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    with FastWeightGradients():
        layer(torch.ones(1, 3, 2, 2)).sum().backward()  # the tap in the middle sees all 4 of them, one at a side 2, in a corner 1
    assert applied == [(3, 3, 3, 3)]
    expected = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    assert torch.equal(layer.weight.grad, expected.expand(3, 3, 3, 3))


def test_weights_that_need_no_gradient_get_none(applied) -> None:
    layer = nn.Conv2d(3, 3, 3, padding=1, bias=False).requires_grad_(False)
    images = torch.ones(1, 3, 2, 2, requires_grad=True)
    with FastWeightGradients():
        layer(images).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(images.grad, F.conv_transpose2d(torch.ones(1, 3, 2, 2), layer.weight, padding=1))


@pytest.mark.parametrize(
    ("channels", "size", "options"),
    [
        (3, 4, {"padding": 1, "bias": True}),
        (3, 4, {"kernel_size": 1}),
        (3, 4, {"padding": 1, "groups": 3}),
        (3, 4, {"padding": 2, "dilation": 2}),
        (3, 4, {"padding": "same"}),
        (3, 5, {"padding": 1}),  # too large
        (2, 4, {"padding": 1}),  # too few inputs
        (3, 4, {"padding": 1, "out_channels": 2}),
        (3, 4, {"padding": 1, "dtype": torch.float64}),
        (3, 3, {"padding": 1, "padding_mode": "reflect"}),  # padded beforehand, and then as any other
    ],
    ids=repr,
)
def test_other_convolutions_are_left_alone_and_work(channels: int, size: int, options: dict[str, Any], applied) -> None:
    layer = nn.Conv2d(channels, **{"out_channels": 3, "kernel_size": 3, "bias": False, **options})
    images = torch.ones(1, channels, size, size, dtype=layer.weight.dtype)
    usual = layer(images)
    with FastWeightGradients():
        output = layer(images)
    assert torch.equal(output, usual)
    assert applied == [(3, 3, 3, 3)] * (layer.padding_mode == "reflect")


def test_neither_in_other_precisions_nor_without_gradients_nor_after_an_error(applied) -> None:
    layer, images = nn.Conv2d(3, 3, 3, padding=1, bias=False), torch.ones(1, 3, 2, 2)
    with FastWeightGradients(), torch.no_grad():
        layer(images)
    with FastWeightGradients(), torch.autocast("cpu", torch.float16):
        layer(images)
    with FastWeightGradients():
        copy.deepcopy(layer).bfloat16()(images.bfloat16())
    with FastWeightGradients(), BF16:
        copy.deepcopy(layer).bfloat16()(images)
    with pytest.raises(RuntimeError, match="midway"), FastWeightGradients():
        raise RuntimeError("midway")
    layer(images)
    assert applied == []


@pytest.mark.parametrize(
    ("count", "side", "stride", "taken"),
    [
        (2, 2, 1, True),
        (2, 4, 1, True),
        (2, 5, 1, False),
        (312, 4, 1, True),
        (313, 4, 1, False),
        (2, 16, 2, True),
        (2, 17, 2, False),
    ],
)
def test_under_autocast_it_equals_the_gradient_of_pytorch_in_bf16(count, side, stride, taken, applied) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(3, 8, 3, stride, padding=1, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(count, 3, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
    twin = copy.deepcopy(layer)
    with BF16:
        usual = twin(images)
        with FastWeightGradients():
            output = layer(images)
    assert (output.dtype, applied) == (torch.bfloat16, [(8, 3, 3, 3)] * taken)
    assert output.is_contiguous(memory_format=torch.channels_last)
    same = {"rtol": 2**-7, "atol": 2**-7} if side == 2 else {"rtol": 0, "atol": 0}  # of 2 px, the output is a product too
    torch.testing.assert_close(output, usual, **same)
    for result in (output, usual):
        result.sum().backward()
    assert (layer.weight.grad.dtype, layer.weight.grad.stride()) == (torch.float32, layer.weight.stride())
    torch.testing.assert_close(layer.weight.grad, twin.weight.grad, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_products_of_whole_images_are_as_exact_as_pytorch_in_bf16(memory: torch.memory_format, applied) -> None:
    """Images of 2x2 px: the output and both gradients, against float64 of what bf16 makes of images and weights."""
    torch.manual_seed(0)
    layer = nn.Conv2d(48, 64, 3, padding=1, bias=False)
    layer.weight.data = layer.weight.data.bfloat16().float()
    layer = layer.to(memory_format=memory)
    images = torch.randn(16, 48, 2, 2).bfloat16().float().contiguous(memory_format=memory)
    weighing = torch.randn(16, 64, 2, 2).bfloat16()

    def passed(own: nn.Module, given: Tensor, factors: Tensor) -> list[Tensor]:
        given = given.clone().requires_grad_()
        output = own(given)
        return [output.detach(), *torch.autograd.grad((output * factors).sum(), [given, *own.parameters()])]

    right = passed(copy.deepcopy(layer).double(), images.double(), weighing.double())
    with BF16:
        usual = passed(layer, images, weighing)
        with FastWeightGradients():
            ours = passed(layer, images, weighing)
    assert applied == [(64, 48, 3, 3)]
    assert [found.stride() for found in ours[:2]] == [theirs.stride() for theirs in usual[:2]]
    for found, theirs, exact in zip(ours, usual, right, strict=True):
        assert found.dtype == theirs.dtype
        assert (found - exact).norm() <= max(1.5 * (theirs - exact).norm(), 2**-8 * exact.norm())
        assert (found - exact).norm() > 0  # it is bf16


def test_a_gradient_of_whole_images_by_hand_in_bf16(applied) -> None:
    layer, images = nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.ones(1, 3, 2, 2, requires_grad=True)
    nn.init.ones_(layer.weight)
    with BF16, FastWeightGradients():
        output = layer(images)
    output.sum().backward()
    assert applied == [(4, 3, 3, 3)]
    assert torch.equal(output, torch.full((1, 4, 2, 2), 12.0).bfloat16())  # four places of three channels
    assert torch.equal(images.grad, torch.full((1, 3, 2, 2), 16.0))  # four places of four outputs
    expected = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    assert torch.equal(layer.weight.grad, expected.expand(4, 3, 3, 3))


def test_no_image_at_all_gives_nothing_and_a_gradient_of_zero_in_bf16(applied) -> None:
    layer, images = nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.ones(0, 3, 2, 2, requires_grad=True)
    with BF16, FastWeightGradients():
        output = layer(images)
    output.sum().backward()
    assert applied == [(4, 3, 3, 3)]
    assert (output.shape, images.grad.shape) == ((0, 4, 2, 2), (0, 3, 2, 2))
    assert torch.equal(layer.weight.grad, torch.zeros(4, 3, 3, 3))


@pytest.mark.parametrize(
    ("size", "options", "unseen"),
    [
        (1, {"kernel_size": 3, "stride": 2, "padding": 1}, [0, 2]),  # of 1 px only the middle of the kernel sees anything
        (1, {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 32, "bias": False}, [0, 2]),
        (3, {"kernel_size": 3, "stride": 4, "padding": 1}, [0]),
        (2, {"kernel_size": 5, "padding": "same"}, [0]),
        (3, {"kernel_size": 3, "dilation": 4, "padding": 4}, [0, 2]),
        (3, {"kernel_size": 3, "padding": 1}, []),
        (3, {"kernel_size": 3, "padding": "valid"}, []),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_what_of_a_kernel_sees_only_padding_has_a_gradient_of_zero_in_bf16(size, options, unseen, by_name) -> None:
    """PyTorch's own may be anything there, as it is never written: often NaN where the memory held NaN before."""
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, **options)
    images = torch.randn(4, 32, size, size).requires_grad_()
    wanted = torch.autograd.grad(layer(images).square().sum(), [images, layer.weight])
    rest = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
    for _ in range(3):
        freed = [torch.full((1 << 15,), torch.nan, dtype=torch.bfloat16) for _ in range(30)]
        del freed
        with BF16, FastWeightGradients():
            output = F.conv2d(input=images, weight=layer.weight, bias=layer.bias, **rest) if by_name else layer(images)
        assert output.dtype == torch.bfloat16
        found = torch.autograd.grad(output.float().square().sum(), [images, layer.weight])
        for ours, right in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, right, rtol=2**-5, atol=2**-5 * float(right.abs().max()))
        assert not found[1][:, :, unseen].any()
        assert not found[1][..., unseen].any()


def test_the_output_lies_in_memory_as_that_of_pytorch(applied) -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    for memory in (torch.contiguous_format, torch.channels_last):
        layer, images = layer.to(memory_format=memory), torch.ones(2, 3, 2, 2).contiguous(memory_format=memory)
        with BF16:
            usual = layer(images)
            with FastWeightGradients():
                output = layer(images)
        assert output.stride() == usual.stride()
    assert applied == [(8, 3, 3, 3)] * 2


def test_an_image_without_the_axis_of_a_batch_is_left_alone(applied) -> None:
    layer, image = nn.Conv2d(3, 3, 3, bias=False), torch.ones(3, 4, 4)
    for context in (nullcontext(), BF16):
        with context, FastWeightGradients():
            assert layer(image).shape == (3, 2, 2)
    assert applied == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resnet_learns_the_same_with_some_of_its_convolutions_faster(precision, applied, monkeypatch) -> None:
    monkeypatch.setattr(weight_gradients, "FEWEST_CHANNELS", FEWEST)  # as they are elsewhere
    monkeypatch.setattr(weight_gradients, "FEWEST_STRIDED_CHANNELS", FEWEST_STRIDED)
    torch.manual_seed(0)
    model = ResNet18().to(memory_format=torch.channels_last)
    twin, exact = copy.deepcopy(model), copy.deepcopy(model)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    with BF16 if precision == "bf16" else nullcontext():
        with FastWeightGradients():
            fast = model(images)
        usual = twin(images)
    F.cross_entropy(fast, labels).backward()
    F.cross_entropy(usual, labels).backward()
    F.cross_entropy(exact(images), labels).backward()
    # at 16 px: the three convolutions of layer3 behind its first, and the four of layer4; in bf16 also what halves the images
    halving = [[(128, 64, 3, 3)], [(256, 128, 3, 3)]] if precision == "bf16" else [[], []]
    assert applied == halving[0] + halving[1] + [(256, 256, 3, 3)] * 3 + [(512, 256, 3, 3)] + [(512, 512, 3, 3)] * 3
    close = {"rtol": 0, "atol": 0} if precision == "fp32" else {"rtol": 2**-6, "atol": 2**-9}
    torch.testing.assert_close(fast, usual, **close)
    every = zip(model.named_parameters(), twin.parameters(), exact.parameters(), strict=True)
    for (name, ours), theirs, right in every:  # where one value is rounded otherwise, in bf16 many gradients are
        allowed = 1.25 * (theirs.grad - right.grad).norm() + 1e-4 * right.grad.norm()
        assert (ours.grad - right.grad).norm() <= allowed, name
        assert ours.grad.is_contiguous(memory_format=torch.channels_last) or ours.ndim < 4


@pytest.mark.parametrize(
    ("device", "precision", "fast"),
    [("cpu", "fp32", True), ("cpu", "bf16", True), ("cpu", "fp16", False), ("cuda", "fp32", False)],
)
def test_where_it_is_used(device: str, precision: str, fast: bool) -> None:
    context = fast_weight_gradients(torch.device(device), precision)
    assert isinstance(context, FastWeightGradients) == fast
    with context:
        pass
