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


def some_images(count: int = 12, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def settled_network() -> nn.Sequential:
    """The tiny network, in evaluation mode, with weights and statistics that no module starts with."""
    network = tiny_network().eval()
    with torch.no_grad():
        for values in (*network.parameters(), network.norm.running_mean, network.norm.running_var):
            values.copy_(torch.rand(values.shape, generator=torch.Generator().manual_seed(values.numel())) + 2)
    return network


def states(
    network: nn.Module, stages: Sequence[str], seed: Sequence[int] = (0,), batch_size: int = 64
) -> list[dict[str, Tensor]]:
    """Weights and buffers after each stage."""
    steps = cascade(network, stages, some_images(), seed, batch_size)
    return [copy.deepcopy(step.state_dict()) for step in steps]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name in before if not torch.equal(before[name], after[name])]


class Backwards(nn.Module):
    """Modules that run in the reverse of the order in which they are defined, one without parameters, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm = nn.Linear(4, 3), nn.GroupNorm(2, 4)
        self.relu, self.stem, self.unused = nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.norm(self.stem(images))).mean(dim=(2, 3)))


# ---- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "stages"),
    [
        (ResNet18, ("linear", "layer4", "layer3", "layer2", "layer1", "conv1 + bn1")),
        (resnet_custom, ("linear", "layer3", "layer2", "layer1", "prep")),
        (tiny_network, ("linear", "conv + norm")),
        (Backwards, ("head", "stem + norm", "unused")),
    ],
)
def test_stages_are_the_top_level_modules_from_the_output_back(build: Callable[[], nn.Module], stages: tuple[str, ...]) -> None:
    assert checked_stages(build().eval(), some_images(1)) == stages


def test_the_order_is_that_of_the_forward_pass_and_leaves_no_hooks() -> None:
    network = Backwards()
    assert run_order(network, some_images(1)) == {"": 0, "stem": 1, "norm": 2, "relu": 3, "head": 4}
    assert not any(module._forward_pre_hooks for module in network.modules())
    with pytest.raises(RuntimeError, match="expected input"):
        run_order(network, torch.zeros(1, 2, 8, 8))
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_stages_may_be_named_and_reach_into_modules() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), nn.Flatten(), nn.Linear(128, 2))
    assert checked_stages(network, some_images(1), ["2", "0.2", "0.0"]) == ("2", "0.2", "0.0")
    assert checked_stages(network, some_images(1), ["2", "0.2 + 0.0"]) == ("2", "0.2 + 0.0")


BAD_STAGES = {
    "one": (
        ("linear + conv + norm",),
        "Sequential would be redrawn in 1 stage, but the output layer must be redrawn before the others; name the modules from "
        "the output back with stages=.",
    ),
    "unknown": (
        ("linear", "conv + nrm"),
        "stage 'conv + nrm' names 'nrm', which is no module of Sequential; see its named_modules().",
    ),
    "forwards": (
        ("conv + norm", "linear"),
        "stages conv + norm, linear do not lead from the output back; name the module that runs last first.",
    ),
    "twice": (
        ("linear", "conv + norm", "conv"),
        "stages linear, conv + norm, conv do not lead from the output back; name the module that runs last first.",
    ),
    "incomplete": (
        ("linear", "norm"),
        "parameter 'conv.weight' of Sequential is in no stage and would stay as trained; add its module to stages=.",
    ),
}


@pytest.mark.parametrize(("stages", "message"), BAD_STAGES.values(), ids=BAD_STAGES)
def test_stages_that_do_not_redraw_everything_from_the_output_back_are_refused(stages: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checked_stages(tiny_network(), some_images(1), stages)


def test_a_network_within_a_single_module_is_refused() -> None:
    message = "Sequential would be redrawn in 1 stage, but the output layer must be redrawn before the others"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        checked_stages(nn.Sequential(tiny_network()), some_images(1))


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_each_stage_redraws_its_own_modules_and_the_trained_network_stays() -> None:
    network = settled_network()
    before = copy.deepcopy(network.state_dict())
    head, everything = states(network, ["linear", "conv + norm"])
    assert changed(before, head) == ["linear.weight", "linear.bias"]
    assert set(changed(head, everything)) == {
        *("conv.weight", "norm.weight", "norm.bias"),
        *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
    }
    assert changed(before, network.state_dict()) == []


def test_weights_are_those_of_the_modules_own_initialization() -> None:
    head, everything = states(settled_network(), ["linear", "conv + norm"], seed=(7, 1))
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


def test_weights_are_a_function_of_seed_draw_and_stage_alone() -> None:
    network, stages = settled_network(), ["linear", "conv + norm"]
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = states(network, stages, seed=(0, 0))
    assert torch.equal(torch.get_rng_state(), state), "the global random state is not used"
    torch.rand(5)
    again = states(network, stages, seed=(0, 0))
    assert changed(first[-1], again[-1]) == []
    for seed in ((0, 1), (1, 0)):
        assert {"linear.weight", "conv.weight"} <= set(changed(first[-1], states(network, stages, seed)[-1]))
    repeated = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    redraw([repeated[0]], (0, 0, 0))
    redraw([repeated[1]], (0, 0, 1))
    assert not torch.equal(repeated[0].weight, repeated[1].weight)


def test_memory_format_and_flags_are_kept() -> None:
    network = settled_network().to(memory_format=torch.channels_last)
    network.conv.weight.requires_grad_(False)
    redraw([network], (0,))
    assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not network.conv.weight.requires_grad
    assert network.linear.weight.requires_grad


def test_parameters_of_modules_that_cannot_redraw_them_are_shuffled() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.arange(24.0).view(2, 12))

    scale = Scale()
    redraw([scale], (0,))
    assert scale.values.shape == (2, 12)
    assert torch.equal(scale.values.flatten().sort().values, torch.arange(24.0))
    assert (scale.values.flatten() != torch.arange(24.0)).sum() > 12


# ---- batch-norm statistics -------------------------------------------------------------------------------------------


def test_statistics_behind_redrawn_layers_are_those_of_the_training_images() -> None:
    network = settled_network()
    head, everything = states(network, ["linear", "conv + norm"])
    for name in ("norm.running_mean", "norm.running_var"):
        assert torch.equal(head[name], network.state_dict()[name]), "in front of the redrawn layer they still hold"
    outputs = nn.functional.conv2d(some_images(), everything["conv.weight"], padding=1).transpose(0, 1).flatten(1).detach()
    torch.testing.assert_close(everything["norm.running_mean"], outputs.mean(dim=1))
    torch.testing.assert_close(everything["norm.running_var"], outputs.var(dim=1))


def test_statistics_are_the_mean_over_batches_of_nearly_equal_size() -> None:
    everything = states(settled_network(), ["linear", "conv + norm"], batch_size=5)[-1]  # 12 images in three batches of 4
    outputs = nn.functional.conv2d(some_images(), everything["conv.weight"], padding=1).detach()
    batches = [batch.transpose(0, 1).flatten(1) for batch in outputs.split(4)]
    torch.testing.assert_close(everything["norm.running_mean"], torch.stack([b.mean(dim=1) for b in batches]).mean(dim=0))
    torch.testing.assert_close(everything["norm.running_var"], torch.stack([b.var(dim=1) for b in batches]).mean(dim=0))
    assert everything["norm.num_batches_tracked"] == 3


def test_batch_norms_without_parameters_are_in_no_stage_but_are_estimated_again() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4 * 64, 2)).eval()
    assert checked_stages(network, some_images(1)) == ("3", "0")
    everything = states(network, ["3", "0"])[-1]
    outputs = nn.functional.conv2d(some_images(), everything["0.weight"], everything["0.bias"]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(everything["1.running_mean"], outputs.mean(dim=1))


def test_only_batch_norms_leave_evaluation_mode_and_they_return_to_it() -> None:
    network = nn.Sequential(nn.Dropout(0.9), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)).eval()
    estimate_batch_norm(network, ["", "0", "1", "2"], some_images(), batch_size=64)
    outputs = network[1](some_images()).transpose(0, 1).flatten(1).detach()
    torch.testing.assert_close(network[2].running_mean, outputs.mean(dim=1))
    assert torch.equal(network[3].running_mean, torch.zeros(4)), "not among the names"
    assert not any(module.training for module in network.modules())


def test_redrawn_networks_still_tell_images_apart_which_they_would_not_with_the_trained_statistics() -> None:
    network = settled_network()  # its statistics are far from those of any redrawn network
    *_, redrawn = cascade(network, ["linear", "conv + norm"], some_images(), (0,), 64)
    stale = copy.deepcopy(redrawn)
    stale.norm.load_state_dict({**redrawn.norm.state_dict(), "running_mean": network.norm.running_mean})
    with torch.no_grad():
        assert redrawn(some_images()).std(dim=0).min() > 0.01
        assert stale(some_images()).std(dim=0).max() < 0.1 * redrawn(some_images()).std(dim=0).min()


# ---- weights that are computed of parameters -------------------------------------------------------------------------


def pruned(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer.to(memory_format=torch.contiguous_format), "weight", amount=0.3)


REPARAMETRIZED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm by hooks": nn.utils.weight_norm,
    "spectral_norm by hooks": nn.utils.spectral_norm,
    "pruning": pruned,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
}


def reparametrized(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    """The tiny network with two layers whose weights are computed of others, after a training step."""
    network = tiny_network()
    network.conv, network.linear = wrap(network.conv), wrap(network.linear)
    network(some_images()).square().sum().backward()
    return network


def multiplied_with(network: nn.Module) -> list[Tensor]:
    network(some_images())
    return [network.conv.weight.detach().clone(), network.linear.weight.detach().clone()]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", REPARAMETRIZED)
def test_weights_that_are_computed_are_redrawn(kind: str) -> None:
    network = reparametrized(REPARAMETRIZED[kind])
    before = multiplied_with(network.eval())
    *_, last = cascade(network, ("linear", "conv + norm"), some_images(), (0,), 64)
    for old, new in zip(before, multiplied_with(last), strict=True):
        assert not torch.equal(old, new)
        # Of a few weights, where those that are pruned stay zero, chance alone leaves some correlation.
        assert torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1].abs() < (0.3 if old.numel() > 100 else 0.8)
        if kind.startswith("spectral_norm"):
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
        next(cascade(network, ("linear", "conv + norm"), some_images(), (0,), 64))
