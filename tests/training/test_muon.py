"""Muon against NumPy's singular value decomposition, against PyTorch's SGD, and one step worked out by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from era_support_packages.models.resnet import ResNet18
from era_support_packages.training.cost import muon_flops
from era_support_packages.training.muon import COEFFICIENTS, Muon, MuonWithSGD, orthogonalized
from era_support_packages.training.setup import muon_filters


def polynomial(matrix: np.ndarray, iterations: int) -> np.ndarray:
    """What the iteration makes of a matrix, by its singular values alone."""
    a, b, c = COEFFICIENTS
    left, values, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(iterations):
        values = a * values + b * values**3 + c * values**5
    return (left * values) @ right


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (1, 5)])
def test_the_iteration_acts_on_the_singular_values_alone(shape: tuple[int, int]) -> None:
    matrices = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *shape)))
    found = orthogonalized(matrices)
    assert found.dtype == torch.float32
    for matrix, result in zip(matrices.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(result, polynomial(matrix, 3), atol=1e-6)


def test_the_singular_values_become_nearly_equal() -> None:
    matrix = torch.randn(1, 32, 288, generator=torch.Generator().manual_seed(0))
    values = np.linalg.svd(orthogonalized(matrix, 5)[0].numpy(), compute_uv=False)
    assert 0.67 < values.min() <= values.max() < 1.21


def test_a_matrix_of_zeros_stays_one() -> None:
    assert not orthogonalized(torch.zeros(1, 3, 4)).any()


def optimizer_of(weight: nn.Parameter, lr: float = 0.1, momentum: float = 0.0) -> Muon:
    return Muon([{"params": [weight], "lr": lr}], lr=1.0, momentum=momentum)


def test_one_step_worked_out_by_hand() -> None:
    # the gradient has one singular value, so its direction is itself; the weight (3, 4) has length 5
    weight = nn.Parameter(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1))
    weight.grad = torch.tensor([7.0, 0.0]).reshape(1, 2, 1, 1)
    optimizer_of(weight, lr=0.4).step()
    # 0.4 * 5 = 2 off the first: (1, 4) of length sqrt(17), brought back to length 5
    expected = np.array([1, 4]) * 5 / np.sqrt(17)
    np.testing.assert_allclose(weight.detach().flatten().numpy(), expected, rtol=1e-6)


def test_momentum_is_nesterovs() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1))
    optimizer = optimizer_of(weight, lr=0.0, momentum=0.5)
    directions: list[Tensor] = []
    for gradient in ((1.0, 0.0), (0.0, 1.0)):
        weight.grad = torch.tensor(gradient).reshape(1, 2, 1, 1)
        optimizer.step()
        directions.append(optimizer.state[weight]["momentum_buffer"].flatten().tolist())
    assert directions == [[1.0, 0.0], [0.5, 1.0]]
    optimizer.param_groups[0]["lr"] = 0.4
    weight.grad = torch.tensor([0.0, 0.0]).reshape(1, 2, 1, 1)
    optimizer.step()  # the buffer (0.25, 0.5), half of it is the step's direction: (1, 2) / sqrt(5)
    moved = np.array([3, 4]) - 2 * np.array([1, 2]) / np.sqrt(5)
    np.testing.assert_allclose(weight.detach().flatten().numpy(), moved * 5 / np.linalg.norm(moved), rtol=1e-6)


def test_filters_in_channels_last_memory_move_as_others_do() -> None:
    generator = torch.Generator().manual_seed(0)
    values, gradient = torch.randn(8, 4, 3, 3, generator=generator), torch.randn(8, 4, 3, 3, generator=generator)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(values.clone(memory_format=layout))
        weight.grad = gradient.clone(memory_format=layout)
        optimizer_of(weight, momentum=0.9).step()
        assert weight.is_contiguous(memory_format=layout)
        results.append(weight.detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)
    assert (results[1] - values).norm() == pytest.approx(0.1 * values.norm().item(), rel=0.01)  # a tenth of its length
    assert results[1].norm(dim=None) == pytest.approx(values.norm().item(), rel=1e-6)


def test_filters_of_one_shape_move_as_each_would_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [(torch.randn(4, 2, 3, 3, generator=generator), torch.randn(4, 2, 3, 3, generator=generator)) for _ in range(3)]
    together, alone = [[nn.Parameter(values.clone()) for values, _ in tensors] for _ in range(2)]
    for weights in (together, alone):
        for weight, (_, gradient) in zip(weights, tensors, strict=True):
            weight.grad = gradient.clone()
    Muon([{"params": together}], lr=0.1, momentum=0.9).step()
    for weight in alone:
        optimizer_of(weight, momentum=0.9).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


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
    assert counts[0][:2] == [3, 6]
    assert counts[0][3:] == [0, 0]  # nothing is rearranged


def test_all_other_groups_are_pytorchs_sgd() -> None:
    torch.manual_seed(0)
    filters, vector = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(5))
    twin = nn.Parameter(vector.detach().clone())
    ours = MuonWithSGD(
        [{"params": [vector], "weight_decay": 0.1}, {"params": [filters], "orthogonal": True}], lr=0.2, momentum=0.8
    )
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
        optimizer = optimizer_of(weight, lr=0.4, momentum=0.5)
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


def small_network_and_optimizer() -> tuple[list[nn.Parameter], MuonWithSGD]:
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5,), (4, 2, 3, 3))]
    groups = [{"params": parameters[:1], "lr": 0.3}, {"params": parameters[1:], "orthogonal": True, "lr": 0.1}]
    return parameters, MuonWithSGD(groups, lr=0.2, momentum=0.8)


def step_with(parameters: list[nn.Parameter], optimizer: MuonWithSGD, seed: int) -> list[Tensor]:
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def test_the_state_that_an_unfinished_run_kept_before_there_were_two_parts_is_read() -> None:
    parameters, optimizer = small_network_and_optimizer()
    step_with(parameters, optimizer, 1)
    kept = {  # what a checkpoint held then: SGD's own values in both groups
        "dampening": 0, "nesterov": True, "maximize": False, "foreach": None, "differentiable": False, "fused": None,
        "momentum": 0.8, "weight_decay": 0,
    }  # fmt: skip
    old = {
        "state": {number: {"momentum_buffer": optimizer.state[one]["momentum_buffer"]} for number, one in enumerate(parameters)},
        "param_groups": [
            {**kept, "orthogonal": False, "lr": 0.25, "params": [0]},
            {**kept, "orthogonal": True, "lr": 0.05, "params": [1]},
        ],
    }
    assert [sorted(group) for group in optimizer.state_dict()["param_groups"]] == [sorted(group) for group in old["param_groups"]]
    others, resumed = small_network_and_optimizer()
    for other, one in zip(others, parameters, strict=True):
        other.data.copy_(one)
    resumed.load_state_dict(copy.deepcopy(old))
    optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.25, 0.05
    for one, other in zip(step_with(parameters, optimizer, 2), step_with(others, resumed, 2), strict=True):
        assert torch.equal(one, other)


def test_a_copy_goes_on_as_the_original_does() -> None:
    parameters, optimizer = small_network_and_optimizer()
    step_with(parameters, optimizer, 1)
    others, copied = copy.deepcopy((parameters, optimizer))
    for one, other in zip(step_with(parameters, optimizer, 2), step_with(others, copied, 2), strict=True):
        assert torch.equal(one, other)


def test_the_first_convolution_and_the_output_layer_are_not_turned() -> None:
    model = ResNet18(10)
    filters = muon_filters(model)
    assert len(filters) == 19
    assert all(weight is not model.conv1.weight and weight.ndim == 4 for weight in filters)


def test_the_products_of_a_step_are_counted() -> None:
    # three times, for 2 filters of 3 values: X Xᵀ takes 2·2·3, its square 2·2·2, and the product with X 2·2·3 multiply-adds
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1))
    assert muon_flops(model) == 3 * 2 * (12 + 8 + 12)


def test_hooks_run_once_a_step_and_see_every_group() -> None:
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)  # from now on PyTorch wraps hooks around SGD's own step too
    filters, vector = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(5))
    optimizer = MuonWithSGD([{"params": [vector]}, {"params": [filters], "orthogonal": True}], lr=0.2, momentum=0.8)
    seen: list[int] = []
    optimizer.register_step_pre_hook(lambda own, *_: seen.append(len(own.param_groups)))
    optimizer.register_step_post_hook(lambda own, *_: seen.append(len(own.param_groups)))
    filters.grad, vector.grad = torch.ones_like(filters), torch.ones_like(vector)
    optimizer.step()
    assert seen == [2, 2]
