"""Networks of every kind: explained with the right values, or refused in one sentence. The page in docs lists the same."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from documented_rows import documented_rows
from gradcam_networks import layers_for, small_images, small_network, state
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from era_support_packages.gradcam import METHODS, default_layers, explain, image_passes
from era_support_packages.trust.faithfulness import judge
from era_support_packages.trust.sanity.check import check_network


class Autocast(nn.Module):
    """A network that switches to bfloat16 by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(images)


class Masked(nn.Module):
    """A network that holds a mask of -inf, as of attention, beside what it has learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()
        self.register_buffer("mask", torch.full((2, 2), float("-inf")))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + self.mask.softmax(dim=0).nan_to_num()[0, 0]


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(small_network(), {nn.Linear})


def statically_quantized() -> nn.Module:
    model = nn.Sequential(torch.ao.quantization.QuantStub(), *small_network(), torch.ao.quantization.DeQuantStub()).eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.supported_engines[-1])
    torch.ao.quantization.prepare(model, inplace=True)
    model(small_images())
    return torch.ao.quantization.convert(model)


def unflattened() -> nn.Module:
    program = torch.export.export(small_network(), (small_images(),))
    try:
        return torch.export.unflatten(program)
    except RuntimeError as error:  # of torch 2.6
        pytest.skip(f"torch cannot unflatten it: {error}")


def with_lazy_layer() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))


def diverged() -> nn.Module:
    model = small_network()
    nn.init.constant_(model[5].weight, float("nan"))
    return model


SCRIPT = "The model is a ScriptModule, whose layers cannot be looked into; pass the eager network it was made from"
EXPORT = "The model is an exported program, whose layers cannot be looked into; pass the eager network it was made from"


@dataclass(frozen=True)
class Case:
    make: Callable[[], Any]
    refused: str = ""
    prefix: str = ""
    tolerance: float = 1e-5


NETWORKS: dict[str, Case] = {
    "in training mode, frozen, or in channels_last memory": Case(lambda: small_network().train().requires_grad_(False)),
    "compiled by `torch.compile`": Case(lambda: torch.compile(small_network(), backend="eager")),
    "`DataParallel`, `DistributedDataParallel`, `AveragedModel`": Case(lambda: AveragedModel(small_network())),
    "traced by `torch.fx`": Case(lambda: torch.fx.symbolic_trace(small_network())),
    "in half precision": Case(lambda: small_network().bfloat16(), tolerance=0.05),
    "autocast inside of `forward`": Case(lambda: Autocast(small_network()), prefix="network.", tolerance=0.1),
    "a ScriptModule, scripted or traced": Case(lambda: torch.jit.trace(small_network(), small_images()), SCRIPT),
    "an exported program, or its module": Case(lambda: torch.export.export(small_network(), (small_images(),)), EXPORT),
    "quantized": Case(quantized, "The model is quantized (layer '5'), and no gradient flows through it; pass the eager network"),
    "on the meta device": Case(lambda: small_network().to("meta"), "The model is on the meta device, which holds shapes and no"),
    "with lazy layers that have not run": Case(with_lazy_layer, "The model has parameters without a shape yet; run one batch"),
    "without parameters": Case(lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), "The model has no parameters"),
    "weights that are not finite": Case(diverged, "The model's logits are NaN or infinite"),
    "masks of -inf in its buffers": Case(lambda: Masked(), prefix="network."),
    "no `torch.nn.Module`": Case(lambda: small_network().forward, "The model is of type method; pass a torch.nn.Module"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", NETWORKS)
def test_network(kind: str) -> None:
    case, images = NETWORKS[kind], small_images()
    model = case.make()
    if case.refused:
        with pytest.raises(ValueError, match=re.escape(case.refused)):
            explain(model, images, layers="0")
        return
    before = state(model)
    for method in METHODS:
        expected = explain(small_network(), images, [0, 1, 2], layers_for(method, "0", "2"), method)
        names = layers_for(method, case.prefix + "0", case.prefix + "2")
        if isinstance(model, AveragedModel) or hasattr(model, "_orig_mod"):
            names = layers_for(method, "0", "2")
        found = explain(model, images, [0, 1, 2], names, method)
        assert np.quantile(np.abs(found.maps - expected.maps), 0.95) < case.tolerance, method
        assert found.maps.dtype == np.float32
    assert state(model) == before


def test_the_page_lists_these_networks() -> None:
    assert documented_rows("Networks") == {kind: "refused" if case.refused else "served" for kind, case in NETWORKS.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.jit.script(small_network()), SCRIPT),
        (lambda: torch.export.export(small_network(), (small_images(),)).module(), EXPORT),
        (lambda: unflattened(), EXPORT),
        (statically_quantized, "The model is quantized (layer '0'), and no gradient flows through it"),
    ],
)
def test_kinds_are_refused_by_everything_that_explains(make: Callable[[], Any], message: str) -> None:
    model, images = make(), small_images()
    for call in (
        lambda: explain(model, images),
        lambda: image_passes(model, images),
        lambda: default_layers(model, images),
        lambda: judge(model, images, layers="0"),
        lambda: check_network(model, images, images),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()


def test_logits_that_lie_between_0_and_1_behind_a_recurrent_layer_are_logits() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.recurrent, self.linear = nn.Conv2d(3, 4, 1), nn.LSTM(4, 4), nn.Linear(4, 2)
            nn.init.normal_(self.linear.weight, std=0.1)
            nn.init.constant_(self.linear.bias, 0.5)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(self.recurrent(self.conv(images).relu().mean(dim=(2, 3))[None])[0][0])

    model = Recurrent()
    logits = model(small_images()).detach()
    assert 0 < logits.min() < logits.max() < 1
    found = explain(model, small_images(), [[0, 1]] * 3, "conv")
    np.testing.assert_allclose(found.confidences, logits.softmax(dim=1), rtol=1e-5)


def test_a_scripted_part_is_left_alone_and_its_layers_are_refused() -> None:
    model = nn.Sequential(small_network()[:2], torch.jit.script(small_network()[2:]))
    expected = explain(small_network(), small_images(), layers="1")
    np.testing.assert_allclose(explain(model, small_images(), layers="0.1").maps, expected.maps, atol=1e-5)
    assert default_layers(model, small_images()) == ("0",)
    with pytest.raises(ValueError, match=re.escape("Layer '1.2' lies in '1', a scripted or exported part")):
        explain(model, small_images(), layers="1.2")


# FullGrad: input and biases times gradients add up to the score, or it is refused


def relu_network(norm: Callable[[int], nn.Module], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), norm(6), activation(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 5)
    )
    for module in model.modules():
        if hasattr(module, "running_mean") and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return model.eval()


def test_fullgrad_counts_the_biases_of_every_batch_norm() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    plain = relu_network(nn.BatchNorm2d)
    expected = explain(plain, small_images(), [0, 1, 2], method="fullgrad").maps
    for kind in (nn.SyncBatchNorm, FrozenBatchNorm2d):
        other = copy.deepcopy(plain)
        other[1] = kind(6)
        other[1].load_state_dict(plain[1].state_dict(), strict=False)
        found = explain(other.eval(), small_images(), [0, 1, 2], method="fullgrad").maps
        np.testing.assert_allclose(found, expected, atol=1e-5)
    explain(relu_network(lambda channels: nn.BatchNorm2d(channels, affine=False)), small_images(), method="fullgrad")


@pytest.mark.parametrize(
    ("model", "culprit"),
    [
        (lambda: relu_network(lambda channels: nn.GroupNorm(2, channels)), "layer '1' (GroupNorm)"),
        (lambda: relu_network(nn.BatchNorm2d, nn.SiLU), "layer '2' (SiLU)"),
        (lambda: relu_network(nn.BatchNorm2d, nn.Hardswish), "layer '2' (Hardswish)"),
        (lambda: relu_network(nn.BatchNorm2d, lambda: nn.Hardtanh(0, 0.5)), "layer '2' (Hardtanh)"),
        (lambda: nn.Sequential(*relu_network(nn.BatchNorm2d), nn.Softmax(1)), "layer '7' (Softmax)"),
        (lambda: Squared(), "a step in the forward pass of Squared"),
    ],
)
def test_fullgrad_is_refused_where_it_would_leave_out_a_part(model: Callable[[], nn.Module], culprit: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"{culprit} adds to it what is neither input nor bias; choose another method")
    ):
        explain(model(), small_images(), method="fullgrad")


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) ** 2


def test_fullgrad_is_not_refused_for_rounding() -> None:
    # A score a million times smaller than what it is the difference of: in float32 the sum misses it, in float64 it does not.
    model = relu_network(nn.BatchNorm2d)
    with torch.no_grad():
        scores = model(small_images())[:, 0]
        model[6].bias[0] -= scores[0] - 1e-6
    found = explain(model, small_images(1), [0], method="fullgrad")
    assert found.maps.max() > 0.9


def test_batch_norm_without_running_statistics_is_pointed_out() -> None:
    model = relu_network(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False))
    with pytest.warns(UserWarning, match=r"Layer '1' normalizes by the batch at hand .* depends on the images beside it"):
        together = explain(model, small_images(), [0, 1, 2], "0")
    with pytest.warns(UserWarning, match="images beside it"):
        apart = explain(model, small_images(), [0, 1, 2], "0", batch_size=1)
    assert np.abs(together.maps - apart.maps).max() > 1e-3
