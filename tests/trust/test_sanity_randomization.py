"""Redrawing: which modules in which order, from which distribution, and what happens to batch-norm statistics."""

import copy
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from tiny import tiny_network
from torch import Tensor, nn
from torch.nn.utils import prune

from era_support_packages.models.custom_resnet import resnet_custom
from era_support_packages.models.resnet import ResNet18
from era_support_packages.trust.sanity.randomization import cascade, checked_stages, estimate_batch_norm, redraw, run_order

STAGES = ("linear", "conv + norm")  # of the tiny network
IMAGES = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def settled_network() -> nn.Sequential:
    """The tiny network, in evaluation mode, with weights and statistics that no module starts with."""
    network = tiny_network().eval()
    with torch.no_grad():
        for values in (*network.parameters(), network.norm.running_mean, network.norm.running_var):
            values.copy_(torch.rand(values.shape, generator=torch.Generator().manual_seed(values.numel())) + 2)
    return network


def states(
    network: nn.Module, stages: Sequence[str] = STAGES, seed: Sequence[int] = (0,), batch_size: int = 64
) -> list[dict[str, Tensor]]:
    """Weights and buffers after each stage."""
    return [copy.deepcopy(step.state_dict()) for step in cascade(network, stages, IMAGES, seed, batch_size)]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def channels(weight: Tensor, bias: Tensor | None = None, padding: int = 0) -> Tensor:
    """What a convolution gives for each image, (12, C, 64)."""
    return nn.functional.conv2d(IMAGES, weight, bias, padding=padding).flatten(2).detach()


class Backwards(nn.Module):
    """Modules that run in the reverse of the order in which they are defined, one without parameters, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = nn.Linear(4, 3), nn.GroupNorm(2, 4)
        self.relu, self.stem, self.unused = nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.norm(self.stem(images))).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("build", "stages"),
    [
        (ResNet18, ("linear", "layer4", "layer3", "layer2", "layer1", "conv1 + bn1")),
        (resnet_custom, ("linear", "layer3", "layer2", "layer1", "prep")),
        (tiny_network, STAGES),
        (Backwards, ("head", "stem + norm", "unused")),
    ],
)
def test_stages_are_the_top_level_modules_from_the_output_back(build: Callable[[], nn.Module], stages: tuple[str, ...]) -> None:
    assert checked_stages(build().eval(), IMAGES[:1]) == stages


def test_the_order_is_that_of_the_forward_pass_and_leaves_no_hooks() -> None:
    network = Backwards()
    assert run_order(network, IMAGES[:1]) == {"": 0, "stem": 1, "norm": 2, "relu": 3, "head": 4}
    with pytest.raises(ValueError, match="takes 3 channels"):
        run_order(network, torch.zeros(1, 2, 8, 8))
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("stages", [("2", "0.2", "0.0"), ("2", "0.2 + 0.0")])
def test_stages_may_be_named_and_reach_into_modules(stages: tuple[str, ...]) -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), nn.Flatten(), nn.Linear(128, 2))
    assert checked_stages(network, IMAGES[:1], list(stages)) == stages


ONE = "Sequential would be redrawn in 1 stage, but the output layer must be redrawn before the others; name the modules from the"
ORDER = "stages {} do not lead from the output back; name the module that runs last first."
UNKNOWN = "Stage 'conv + nrm' names 'nrm', which is no module of Sequential; see its named_modules()."
LEFT_OUT = "Parameter 'conv.weight' of Sequential is in no stage and would stay as trained; add its module to stages=."


@pytest.mark.parametrize(
    ("network", "stages", "message"),
    [
        (tiny_network(), ("linear + conv + norm",), ONE),
        (nn.Sequential(tiny_network()), None, ONE),
        (tiny_network(), ("linear", "conv + nrm"), UNKNOWN),
        (tiny_network(), ("conv + norm", "linear"), ORDER.format("conv + norm, linear")),
        (tiny_network(), ("linear", "conv + norm", "conv"), ORDER.format("linear, conv + norm, conv")),
        (tiny_network(), ("linear", "norm"), LEFT_OUT),
    ],
)
def test_stages_that_do_not_redraw_everything_from_the_output_back_are_refused(
    network: nn.Module, stages: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        checked_stages(network, IMAGES[:1], stages)


def test_each_stage_redraws_its_own_modules_and_the_trained_network_stays() -> None:
    network = settled_network()
    before = copy.deepcopy(network.state_dict())
    head, everything = states(network)
    assert changed(before, head) == {"linear.weight", "linear.bias"}
    buffers = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert changed(head, everything) == {"conv.weight", "norm.weight", "norm.bias", *buffers}
    by_itself = states(network, ("linear", "norm", "conv"))[1]
    assert changed(head, by_itself) == {"norm.weight", "norm.bias", *buffers}
    assert changed(before, network.state_dict()) == set()


def test_weights_are_those_of_the_modules_own_initialization() -> None:
    head, everything = states(settled_network(), seed=(7, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((7, 1, 0)).generate_state(1)[0]))
        linear = nn.Linear(8, 3)
        torch.manual_seed(int(np.random.SeedSequence((7, 1, 1)).generate_state(1)[0]))
        conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert torch.equal(head["linear.weight"], linear.weight)
    assert torch.equal(head["linear.bias"], linear.bias)
    assert torch.equal(everything["conv.weight"], conv.weight)
    assert torch.equal(everything["norm.weight"], torch.ones(8))
    assert torch.equal(everything["norm.bias"], torch.zeros(8))


@pytest.mark.usefixtures("global_state_stays")
def test_weights_are_a_function_of_seed_draw_and_stage_alone() -> None:
    network = settled_network()
    first, again, *others = (states(network, seed=seed)[-1] for seed in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert changed(first, again) == set()
    assert all({"linear.weight", "conv.weight"} <= changed(first, other) for other in others)


def test_modules_alike_differ_by_stage_and_memory_format_and_flags_are_kept() -> None:
    alike = [nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last).requires_grad_(False) for _ in range(2)]
    for stage, layer in enumerate(alike):
        redraw([layer], (0, 0, stage))
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert not layer.weight.requires_grad
    assert not torch.equal(alike[0].weight, alike[1].weight)


def test_parameters_of_modules_that_cannot_redraw_them_are_shuffled() -> None:
    scale = nn.Module()
    scale.values = nn.Parameter(torch.arange(24.0).view(2, 12))
    redraw([scale], (0,))
    assert scale.values.shape == (2, 12)
    assert torch.equal(scale.values.flatten().sort().values, torch.arange(24.0))
    assert (scale.values.flatten() != torch.arange(24.0)).sum() > 12


@pytest.mark.parametrize(("batch_size", "batches"), [(64, 1), (5, 3)])
def test_statistics_behind_redrawn_layers_are_the_means_over_batches_of_the_training_images(
    batch_size: int, batches: int
) -> None:
    network = settled_network()
    head, everything = states(network, batch_size=batch_size)
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(head[name], network.state_dict()[name]), "in front of the redrawn layer they still hold"
    parts = channels(everything["conv.weight"], padding=1).tensor_split(batches)  # of nearly equal size
    means = torch.stack([part.mean(dim=(0, 2)) for part in parts]).mean(dim=0)
    torch.testing.assert_close(everything["norm.running_mean"], means)
    variances = torch.stack([part.var(dim=(0, 2)) for part in parts]).mean(dim=0)
    torch.testing.assert_close(everything["norm.running_var"], variances)
    assert everything["norm.num_batches_tracked"] == batches


def test_batch_norms_without_parameters_are_in_no_stage_but_are_estimated_again() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4 * 64, 2)).eval()
    assert checked_stages(network, IMAGES[:1]) == ("3", "0")
    everything = states(network, ["3", "0"])[-1]
    outputs = channels(everything["0.weight"], everything["0.bias"])
    torch.testing.assert_close(everything["1.running_mean"], outputs.mean(dim=(0, 2)))


def test_only_batch_norms_leave_evaluation_mode_and_they_return_to_it() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).eval()
    estimate_batch_norm(network, ["", "0", "1", "2"], IMAGES, batch_size=64)
    outputs = channels(network[1].weight, network[1].bias)
    torch.testing.assert_close(network[2].running_mean, outputs.mean(dim=(0, 2)))
    assert torch.equal(network[3].running_mean, torch.zeros(4)), "not among the names"
    assert not any(module.training for module in network.modules())


def pruned(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer.to(memory_format=torch.contiguous_format), "weight", amount=0.3)


def multiplied_with(network: nn.Module) -> list[Tensor]:
    network(IMAGES)
    return [network.conv.weight.detach().clone(), network.linear.weight.detach().clone()]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.weight_norm,  # by hooks, as the next
        nn.utils.spectral_norm,
        pruned,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_weights_that_are_computed_are_redrawn(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network = tiny_network()
    network.conv, network.linear = wrap(network.conv), wrap(network.linear)
    network(IMAGES).square().sum().backward()
    before = multiplied_with(network.eval())
    *_, last = cascade(network, STAGES, IMAGES, (0,), 64)
    for old, new in zip(before, multiplied_with(last), strict=True):
        assert not torch.equal(old, new)
        # Of a few weights, where those that are pruned stay zero, chance alone leaves some correlation.
        assert torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1].abs() < (0.3 if old.numel() > 100 else 0.8)
        if wrap.__name__ == "spectral_norm":
            assert torch.linalg.matrix_norm(new.flatten(1), ord=2) == pytest.approx(1, abs=0.05)
    assert all(torch.equal(old, now) for old, now in zip(before, multiplied_with(network), strict=True))


def test_weights_that_no_parameter_leads_to_are_refused() -> None:
    class Fixed(nn.Module):
        """Multiplies with a weight of its own, and adds a parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randn(3, 8))
            self.shift = nn.Parameter(torch.randn(3))

        def forward(self, features: Tensor) -> Tensor:
            return features @ self.weight.T + self.shift

    network = tiny_network()
    network.linear = Fixed()
    with pytest.raises(ValueError, match="redrawing 'linear' leaves the weights of layer 'linear' as they were"):
        next(cascade(network, STAGES, IMAGES, (0,), 64))
