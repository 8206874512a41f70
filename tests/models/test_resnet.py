"""The CIFAR ResNets: sizes, names of the original's weights, shapes, and the original's formula by other means."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from era_support_packages.models import resnet
from era_support_packages.models.resnet import ResNet18

BLOCKS = {
    **{"ResNet18": [2, 2, 2, 2], "ResNet34": [3, 4, 6, 3], "ResNet50": [3, 4, 6, 3]},
    **{"ResNet101": [3, 4, 23, 3], "ResNet152": [3, 8, 36, 3]},
}


def original_shapes(name: str, classes: int = 10) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that the original saves, in its order."""
    bottleneck = name not in ("ResNet18", "ResNet34")
    expansion = 4 if bottleneck else 1
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, into: int, out: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (out, into, kernel, kernel)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    convolution("conv1", 3, 64, 3)
    norm("bn1", 64)
    into = 64
    for layer, (planes, blocks) in enumerate(zip((64, 128, 256, 512), BLOCKS[name], strict=True), start=1):
        for block in range(blocks):
            prefix = f"layer{layer}.{block}"
            out = planes * expansion
            sizes = [(into, planes, 1), (planes, planes, 3), (planes, out, 1)] if bottleneck else [(into, out, 3), (out, out, 3)]
            for number, (first, second, kernel) in enumerate(sizes, start=1):
                convolution(f"{prefix}.conv{number}", first, second, kernel)
                norm(f"{prefix}.bn{number}", second)
            if block == 0 and (layer > 1 or into != out):
                convolution(f"{prefix}.shortcut.0", into, out, 1)
                norm(f"{prefix}.shortcut.1", out)
            into = out
    shapes["linear.weight"], shapes["linear.bias"] = (classes, into), (classes,)
    return shapes


def original_weights() -> dict[str, Tensor]:
    """Random weights of ResNet18 under the original's names, batch-norm statistics included."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in original_shapes("ResNet18").items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values *= math.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith(("running_var", ".weight")):
            values = 0.75 + values.abs() / 2
        elif not shape:
            values = torch.tensor(7)
        weights[name] = values
    return weights


def original_forward(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The original's ResNet18 in evaluation mode, written with functions; its last pooling is `avg_pool2d(out, 4)`."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, *(weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    out = F.relu(norm(F.conv2d(x, weights["conv1.weight"], padding=1), "bn1"))
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            prefix, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = F.relu(norm(F.conv2d(out, weights[f"{prefix}.conv1.weight"], stride=stride, padding=1), f"{prefix}.bn1"))
            inner = norm(F.conv2d(inner, weights[f"{prefix}.conv2.weight"], padding=1), f"{prefix}.bn2")
            if stride == 2:
                out = norm(F.conv2d(out, weights[f"{prefix}.shortcut.0.weight"], stride=2), f"{prefix}.shortcut.1")
            out = F.relu(inner + out)
    out = F.avg_pool2d(out, 4)
    return F.linear(out.view(out.size(0), -1), weights["linear.weight"], weights["linear.bias"])


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        *[("ResNet18", 11_173_962), ("ResNet34", 21_282_122), ("ResNet50", 23_520_842)],
        *[("ResNet101", 42_512_970), ("ResNet152", 58_156_618)],
    ],
)
def test_weights_have_the_originals_names_shapes_and_number(name: str, parameters: int) -> None:
    for classes in (10, 100):
        with torch.device("meta"):
            model = getattr(resnet, name)(num_classes=classes)
        expected = original_shapes(name, classes)
        assert list(model.state_dict()) == list(expected)
        assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected
        found = sum(parameter.numel() for parameter in model.parameters())
        assert found == parameters + (classes - 10) * (model.linear.in_features + 1)


@pytest.fixture(scope="module")
def loaded() -> tuple[resnet.ResNet, dict[str, Tensor]]:
    weights = original_weights()
    model = ResNet18()
    model.load_state_dict(weights, strict=True)
    return model.eval(), weights


def test_weights_saved_by_the_original_give_the_originals_logits(loaded: tuple[resnet.ResNet, dict[str, Tensor]]) -> None:
    model, weights = loaded
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, expected = model(images), original_forward(weights, images)
    assert expected.std() > 0.1
    assert not torch.allclose(expected[0], expected[1], rtol=0.01)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(model.state_dict()["layer3.1.bn2.running_var"], weights["layer3.1.bn2.running_var"])


@pytest.mark.parametrize(("size", "maps"), [(32, [32, 16, 8, 4]), (24, [24, 12, 6, 3]), (16, [16, 8, 4, 2]), (8, [8, 4, 2, 1])])
def test_any_resolution_gives_logits_and_maps_of_its_size(
    size: int, maps: list[int], loaded: tuple[resnet.ResNet, dict[str, Tensor]]
) -> None:
    model, found = copy.deepcopy(loaded[0]), []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        layer.register_forward_hook(lambda _module, _input, output: found.append((output, output.clone())))
    with torch.inference_mode():
        logits = model(torch.ones(2, 3, size, size))
    assert tuple(logits.shape) == (2, 10)
    channels = [64, 128, 256, 512]
    assert [tuple(output.shape) for output, _ in found] == [(2, c, s, s) for c, s in zip(channels, maps, strict=True)]
    assert all(torch.equal(output, early) for output, early in found)  # nothing behind a layer overwrites its output


def test_a_bottleneck_keeps_the_originals_strides() -> None:
    block = resnet.Bottleneck(8, 4, stride=2)
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))
    with torch.inference_mode():
        assert tuple(block.eval()(torch.zeros(1, 8, 6, 6)).shape) == (1, 16, 3, 3)
    assert len(resnet.Bottleneck(16, 4).shortcut) == 0
