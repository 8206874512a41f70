"""The original's second network: size, shapes, norms, dropout, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from era_support_packages.models.custom_resnet import resnet_custom


def of_type(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def test_the_number_of_parameters() -> None:
    with torch.device("meta"):
        model, hundred = resnet_custom(), resnet_custom(num_classes=100)
    convolutions = 9 * (3 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256 + 256 * 512 + 2 * 512 * 512)
    norms = 2 * (64 + 3 * 128 + 256 + 3 * 512)
    assert convolutions + norms + 10 * 513 == 6_573_130  # the figure of Page's network
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_573_130
    assert sum(parameter.numel() for parameter in hundred.parameters()) == 6_573_130 + 90 * 513


@pytest.mark.parametrize(("size", "maps"), [(32, (16, 8, 4)), (16, (8, 4, 2)), (8, (4, 2, 1))])
def test_logits_and_maps(size: int, maps: tuple[int, int, int]) -> None:
    model = resnet_custom(num_classes=7).eval()
    shapes: list[tuple[int, ...]] = []
    for layer in (model.layer1, model.layer2, model.layer3):
        layer.register_forward_hook(lambda _module, _input, output: shapes.append(tuple(output.shape)))
    with torch.inference_mode():
        logits = model(torch.zeros(2, 3, size, size))
    assert tuple(logits.shape) == (2, 7)
    assert shapes == [(2, channels, side, side) for channels, side in zip((128, 256, 512), maps, strict=True)]


@pytest.mark.parametrize(
    ("norm", "groupsize", "groups"), [("GN", 4, 4), ("GN", 64, 64), ("GN", 1, 1), ("LN", 1, 1), ("LN", 8, 1), ("BN", 1, 0)]
)
@pytest.mark.parametrize("drop", [None, 0.25])
def test_norms_and_dropout(norm: str, groupsize: int, groups: int, drop: float | None) -> None:
    """Layer norm is one over channels and pixels: group norm of one group."""
    with torch.device("meta"):
        model = resnet_custom(norm, groupsize, **({} if drop is None else {"drop": drop}))
        default = resnet_custom()
    batch, group = ([layer for layer in model.modules() if isinstance(layer, kind)] for kind in (nn.BatchNorm2d, nn.GroupNorm))
    assert [layer.weight.numel() for layer in batch or group] == [64, 128, 128, 128, 256, 512, 512, 512]
    assert (len(batch), {layer.num_groups for layer in group}) == ((0, {groups}) if groups else (8, set()))
    assert [layer.p for layer in of_type(model, nn.Dropout)] == [0.02 if drop is None else drop] * 8
    assert len(of_type(default, nn.BatchNorm2d)) == 8


def test_a_residual_layer_adds_to_the_pooled_block_and_the_head_takes_the_maximum() -> None:
    model = resnet_custom(drop=0.0).eval()
    layer = model.layer1
    images = torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(0))

    def block(x: Tensor, convolution: nn.Conv2d, pool: bool) -> Tensor:
        x = F.conv2d(x, convolution.weight, padding=1)
        return F.relu((F.max_pool2d(x, 2) if pool else x) / (1 + 1e-5) ** 0.5)  # a fresh norm's statistics are 0 and 1

    first, second, third = of_type(layer, nn.Conv2d)
    with torch.inference_mode():
        down = block(images, first, pool=True)
        torch.testing.assert_close(layer(images), down + block(block(down, second, pool=False), third, pool=False))
        model.prep, model.layer1, model.layer2, model.layer3 = (nn.Identity() for _ in range(4))
        features = torch.randn(2, 512, 3, 3, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model(features), model.linear(features.amax(dim=(2, 3))))


NORMS = "choose one of 'BN', 'GN', 'LN'."
DIVISORS = "give a divisor of 64, such as 1, 2, 4, 8, 16, 32 or 64."
DROPS = "give a probability from 0 to below 1."


@pytest.mark.parametrize(
    ("name", "values", "way_out"),
    [("norm", ["bn", None], NORMS), ("groupsize", [3, 0, -2, 128], DIVISORS), ("drop", [1, -0.1, float("nan")], DROPS)],
)
def test_bad_values_are_refused(name: str, values: list, way_out: str) -> None:
    for value in values:
        with pytest.raises(ValueError, match=r"^(norm|groupsize|drop) is ") as error:
            resnet_custom(**{"norm": "GN", name: value})
        assert str(error.value) == f"{name} is {value!r}; {way_out}"
