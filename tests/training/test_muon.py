"""Muon against NumPy's singular value decomposition, and against PyTorch's SGD."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from era_support_packages.models.resnet import ResNet18
from era_support_packages.training.cost import muon_flops
from era_support_packages.training.muon import COEFFICIENTS, Muon, MuonWithSGD, newton_schulz, orthogonalized
from era_support_packages.training.setup import muon_filters


def polynomial(matrix: np.ndarray, iterations: int) -> np.ndarray:
    """What the iteration makes of a matrix, by its singular values alone."""
    a, b, c = COEFFICIENTS
    left, values, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(iterations):
        values = a * values + b * values**3 + c * values**5
    return (left * values) @ right


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (1, 5)])
def test_the_iteration_acts_on_the_singular_values_alone(shape: tuple[int, int]) -> None:
    matrices = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *shape)))
    found = orthogonalized(matrices)
    assert found.dtype == torch.float32
    for matrix, result in zip(matrices.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(result, polynomial(matrix, 3), atol=1e-6)
    assert not orthogonalized(torch.zeros(1, *shape)).any()  # a matrix of zeros stays one


@pytest.mark.parametrize(
    ("smallest", "mean", "bound"),
    [(1.0, 0.0, 2e-3), (1e-4, 0.0, 2e-3), (1.0, 3.0, 2e-3), (1.0, 1e4, 3e-2)],  # the last has one direction, nearly
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_iteration_is_off_by_its_rounding_alone(smallest: float, mean: float, bound: float, dtype: torch.dtype) -> None:
    """In float16, as on a GPU, and in float32: singular values of very different sizes, whose squares no float16 holds."""
    scales = np.geomspace(1, smallest, 64)[:, None]
    matrix = scales * (mean + np.random.default_rng(0).normal(size=(64, 576)))
    given = torch.from_numpy(matrix / np.linalg.norm(matrix))[None].to(dtype)
    found, expected = newton_schulz(given, 3), polynomial(given[0].double().numpy(), 3)
    assert found.dtype == dtype
    off = np.linalg.norm(found[0].double().numpy() - expected) / np.linalg.norm(expected)
    assert off < bound / (1 if dtype == torch.float16 else 200)


def test_three_steps_of_several_shapes_against_numpy_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 4, 3, 3), (16, 4, 1, 1), (8, 4, 3, 3), (6, 6, 1, 1), (8, 4, 3, 3)]
    weights = [nn.Parameter(torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)) for shape in shapes]
    expected = [weight.detach().double().flatten(1).numpy() for weight in weights]
    buffers = [np.zeros_like(values) for values in expected]
    optimizer = Muon([{"params": weights}], lr=0.2, momentum=0.6)
    for _ in range(3):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)  # in another memory format than its weight
        optimizer.step()
        for number, weight in enumerate(weights):
            gradient = weight.grad.double().flatten(1).numpy()
            buffers[number] = 0.6 * buffers[number] + gradient
            direction = polynomial(gradient + 0.6 * buffers[number], 3)
            length = np.linalg.norm(expected[number])
            turned = expected[number] - 0.2 * length * direction / np.linalg.norm(direction)
            expected[number] = turned * length / np.linalg.norm(turned)
    for weight, values in zip(weights, expected, strict=True):
        assert weight.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(weight.detach().flatten(1).numpy(), values, rtol=1e-4, atol=1e-5)


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked for: on a GPU each takes a launch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def test_filters_of_one_shape_share_their_products() -> None:
    counts = []
    for number in (1, 6):
        weights = [nn.Parameter(torch.ones(4, 2, 3, 3).to(memory_format=torch.channels_last)) for _ in range(number)]
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        with Operations() as operations:
            Muon([{"params": weights}], lr=0.1, momentum=0.9).step()
        counts.append([operations.names.count(name) for name in ("bmm", "baddbmm", "stack", "clone", "copy_")])
    assert counts[0] == counts[1]
    assert counts[0][:2] == [2, 9]
    assert counts[0][3:] == [0, 0]  # nothing is rearranged


def test_all_other_groups_are_pytorchs_sgd() -> None:
    torch.manual_seed(0)
    filters, vector = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(5))
    twin = nn.Parameter(vector.detach().clone())
    groups = [{"params": [vector], "weight_decay": 0.1}, {"params": [filters], "orthogonal": True}]
    ours = MuonWithSGD(groups, lr=0.2, momentum=0.8)
    theirs = torch.optim.SGD([twin], lr=0.2, momentum=0.8, nesterov=True, weight_decay=0.1)
    for _ in range(3):
        filters.grad, vector.grad = torch.randn(4, 2, 3, 3), torch.randn(5)
        twin.grad = vector.grad.clone()
        assert ours.step(lambda: 3.5) == 3.5
        theirs.step()
        assert torch.equal(vector, twin)


def test_a_step_whose_gradients_are_not_finite_changes_nothing() -> None:
    """What a gradient scaler tells a fused optimizer: the scale, and whether anything was not finite."""
    results = []
    for overflow in (False, True):
        weight = nn.Parameter(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1))
        optimizer = Muon([{"params": [weight]}], lr=0.4, momentum=0.5)
        for gradient in ((7.0, 0.0), (float("inf") if overflow else 0.0, 0.0)):
            weight.grad = 64 * torch.tensor(gradient).reshape(1, 2, 1, 1)
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(64.0), torch.tensor(float(not weight.grad.isfinite().all()))
            before = weight.detach().clone()
            optimizer.step()
        results.append((weight.detach() - before).abs().max().item())
        expected = [7.0, 0.0] if overflow else [3.5, 0.0]
        assert optimizer.state[weight]["momentum_buffer"].flatten().tolist() == expected
    assert results[0] > 0.1
    assert results[1] == pytest.approx(0, abs=1e-6)


def network_and_optimizer() -> tuple[list[nn.Parameter], MuonWithSGD]:
    """A vector and filters that have made a step."""
    parameters = [nn.Parameter(random(5)), nn.Parameter(random(4, 2, 3, 3))]
    groups = [{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:], "orthogonal": True, "lr": 0.1}]
    optimizer = MuonWithSGD(groups, lr=0.2, momentum=0.8)
    step(parameters, optimizer)
    return parameters, optimizer


def step(parameters: list[nn.Parameter], optimizer: MuonWithSGD) -> list[Tensor]:
    for parameter in parameters:
        parameter.grad = random(*parameter.shape, seed=1)
    optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def test_the_state_that_an_unfinished_run_kept_before_there_were_two_parts_is_read() -> None:
    parameters, optimizer = network_and_optimizer()
    kept = {  # what a checkpoint held then: SGD's own values in both groups
        **{"dampening": 0, "nesterov": True, "maximize": False, "foreach": None, "differentiable": False},
        **{"fused": None, "momentum": 0.8, "weight_decay": 0},
    }
    groups = [{**kept, "orthogonal": n == 1, "lr": lr, "params": [n]} for n, lr in enumerate((0.25, 0.05))]
    assert [group.keys() for group in optimizer.state_dict()["param_groups"]] == [group.keys() for group in groups]
    others, resumed = network_and_optimizer()
    resumed.state.clear()
    resumed.load_state_dict(copy.deepcopy({"state": optimizer.state_dict()["state"], "param_groups": groups}))
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.25, 0.05
    torch.testing.assert_close(step(others, resumed), step(parameters, optimizer), rtol=0, atol=0)


def test_a_copy_goes_on_as_the_original_does() -> None:
    original = network_and_optimizer()
    copied = copy.deepcopy(original)
    torch.testing.assert_close(step(*copied), step(*original), rtol=0, atol=0)


def test_hooks_run_once_a_step_and_see_every_group() -> None:
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)  # from now on PyTorch wraps hooks around SGD's own step too
    parameters, optimizer = network_and_optimizer()
    seen: list[int] = []
    optimizer.register_step_pre_hook(lambda own, *_: seen.append(len(own.param_groups)))
    optimizer.register_step_post_hook(lambda own, *_: seen.append(len(own.param_groups)))
    step(parameters, optimizer)
    assert seen == [2, 2]


def test_the_filters_of_all_convolutions_but_the_first_are_turned_and_their_products_counted() -> None:
    model = ResNet18(10)
    filters = muon_filters(model)
    assert len(filters) == 19
    assert all(weight is not model.conv1.weight and weight.ndim == 4 for weight in filters)
    assert [len(weight) for weight in muon_filters(model, 128)] == [64] * 4 + [128] * 5
    # for 2 filters of 5 values: X Xᵀ and the product with X take 2·2·5 multiply-adds each, and nine small ones 2·2·2
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1))
    assert muon_flops(network, device="cpu") == 2 * (20 + 9 * 8 + 20)
    assert muon_flops(network, device="cuda") == 3 * 2 * (20 + 8 + 20)  # all of them three times
