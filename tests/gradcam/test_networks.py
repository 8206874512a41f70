"""Networks of every kind: explained with the right values, or refused in one sentence. The page in docs lists the same."""

import copy
import re
from collections.abc import Callable
from typing import Any, NamedTuple

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

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Around(nn.Module):
    """A network inside of a function."""

    def __init__(self, step: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.step = small_network(), step

    def forward(self, images: Tensor) -> Tensor:
        return self.step(self.network, images)


def autocast(network: nn.Module, images: Tensor) -> Tensor:
    """It switches to bfloat16 by itself."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return network(images)


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(small_network(), {nn.Linear})


def statically_quantized() -> nn.Module:
    model = nn.Sequential(torch.ao.quantization.QuantStub(), *small_network(), torch.ao.quantization.DeQuantStub()).eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.supported_engines[-1])
    torch.ao.quantization.prepare(model, inplace=True)
    model(small_images())
    return torch.ao.quantization.convert(model)


def exported() -> torch.export.ExportedProgram:
    return torch.export.export(small_network(), (small_images(),))


def unflattened() -> nn.Module:
    try:
        return torch.export.unflatten(exported())
    except RuntimeError as error:  # of torch 2.6
        pytest.skip(f"torch cannot unflatten it: {error}")


def with_lazy_layer() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))


def diverged() -> nn.Module:
    model = small_network()
    nn.init.constant_(model[5].weight, float("nan"))
    return model


LOOK = "whose layers cannot be looked into; pass the eager network it was made from"
SCRIPT, EXPORT = f"the model is a ScriptModule, {LOOK}", f"the model is an exported program, {LOOK}"
QUANTIZED = "the model is quantized (layer '{}'), and no gradient flows through it; pass the eager network"


class Served(NamedTuple):
    makes: list[Callable[[], nn.Module]]
    prefix: str = ""
    tolerance: float = 1e-5
    quantile: float = 1.0
    """the share of the places that are as near as that"""


NETWORKS: dict[str, Served | tuple[Callable[[], Any], str]] = {
    "in training mode, frozen, or in channels_last memory": Served(
        [
            lambda: small_network().train().requires_grad_(False),
            lambda: small_network().double().to(memory_format=torch.channels_last),
        ]
    ),
    "compiled by `torch.compile`": Served([lambda: torch.compile(small_network(), backend="eager")]),
    "`DataParallel`, `DistributedDataParallel`, `AveragedModel`": Served(
        [lambda: AveragedModel(small_network()), lambda: nn.DataParallel(small_network())]
    ),
    "traced by `torch.fx`": Served([lambda: torch.fx.symbolic_trace(small_network())]),
    "in half precision": Served([lambda: small_network().bfloat16()], tolerance=0.05, quantile=0.95),
    "autocast inside of `forward`": Served([lambda: Around(autocast)], prefix="network.", tolerance=0.1, quantile=0.95),
    "a ScriptModule, scripted or traced": (lambda: torch.jit.trace(small_network(), small_images()), SCRIPT),
    "an exported program, or its module": (exported, EXPORT),
    "quantized": (quantized, QUANTIZED.format(5)),
    "on the meta device": (lambda: small_network().to("meta"), "the model is on the meta device, which holds shapes and no"),
    "with lazy layers that have not run": (with_lazy_layer, "the model has parameters without a shape yet; run one batch"),
    "without parameters": (lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), "the model has no parameters"),
    "weights that are not finite": (diverged, "the model's logits are NaN or infinite"),
    "no `torch.nn.Module`": (lambda: small_network().forward, "the model is of type method; pass a torch.nn.Module"),
}
OUTCOMES = {kind: "served" if isinstance(case, Served) else "refused" for kind, case in NETWORKS.items()}


@pytest.mark.parametrize("kind", [kind for kind, outcome in OUTCOMES.items() if outcome == "served"])
@pytest.mark.parametrize("method", METHODS)
def test_networks_served(kind: str, method: str) -> None:
    case, images = NETWORKS[kind], small_images()
    expected = explain(small_network(), images, [0, 1, 2], layers_for(method, "0", "2"), method)
    for make in case.makes:
        model = make()
        before = state(model)
        found = explain(model, images, [0, 1, 2], layers_for(method, f"{case.prefix}0", f"{case.prefix}2"), method)
        assert np.quantile(np.abs(found.maps - expected.maps), case.quantile) < case.tolerance
        assert found.maps.dtype == np.float32
        assert state(model) == before


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", [kind for kind, outcome in OUTCOMES.items() if outcome == "refused"])
def test_networks_refused(kind: str) -> None:
    make, message = NETWORKS[kind]
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(make(), small_images(), layers="0")


def test_the_page_lists_these_networks() -> None:
    assert documented_rows("Networks") == OUTCOMES


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.jit.script(small_network()), SCRIPT),
        (lambda: exported().module(), EXPORT),
        (unflattened, EXPORT),
        (statically_quantized, QUANTIZED.format(0)),
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
    with pytest.raises(ValueError, match=re.escape("layer '1.2' lies in '1', a scripted or exported part")):
        explain(model, small_images(), layers="1.2")


# ---- FullGrad: input and biases times gradients add up to the score, or it is refused ----------------------------------


def relu_network(
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), norm(6), activation(), nn.MaxPool2d(2), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 5)
    )
    normalizing = model[1]
    if getattr(normalizing, "running_mean", None) is not None:
        normalizing.running_mean.uniform_(-1, 1)
        normalizing.running_var.uniform_(0.5, 2)
        if normalizing.weight is not None:
            nn.init.uniform_(normalizing.weight, 0.5, 2)
            nn.init.uniform_(normalizing.bias, -1, 1)
    return model.eval()


def test_fullgrad_counts_the_biases_of_every_batch_norm() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    plain = relu_network()
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
        (lambda: relu_network(activation=nn.SiLU), "layer '2' (SiLU)"),
        (lambda: relu_network(activation=nn.Hardswish), "layer '2' (Hardswish)"),
        (lambda: relu_network(activation=lambda: nn.Hardtanh(0, 0.5)), "layer '2' (Hardtanh)"),
        (lambda: nn.Sequential(*relu_network(), nn.Softmax(1)), "layer '7' (Softmax)"),
        (lambda: Around(lambda network, images: network(images) ** 2), "a step in the forward pass of Around"),
    ],
)
def test_fullgrad_is_refused_where_it_would_leave_out_a_part(model: Callable[[], nn.Module], culprit: str) -> None:
    message = f"{culprit} adds to it what is neither input nor bias; choose another method"
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(model(), small_images(), method="fullgrad")


def test_fullgrad_is_not_refused_for_rounding() -> None:
    # A score a million times smaller than what it is the difference of: in float32 the sum misses it, in float64 it does not.
    model = relu_network()
    with torch.no_grad():
        model[6].bias[0] -= model(small_images())[0, 0] - 1e-6
    assert explain(model, small_images(1), [0], method="fullgrad").maps.max() > 0.9


def test_batch_norm_without_running_statistics_is_pointed_out() -> None:
    model = relu_network(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False))
    with pytest.warns(UserWarning, match=r"layer '1' normalizes by the batch at hand .* depends on the images beside it"):
        together = explain(model, small_images(), [0, 1, 2], "0")
    with pytest.warns(UserWarning, match="images beside it"):
        apart = explain(model, small_images(), [0, 1, 2], "0", batch_size=1)
    assert np.abs(together.maps - apart.maps).max() > 1e-3
