"""Our SGD against PyTorch's, which steps tensor by tensor."""

import copy

import pytest
import torch
from torch import Tensor, nn

from era_support_packages.training.sgd import SGD

LAYOUTS = (torch.channels_last, torch.contiguous_format)
SHAPES = [(8, 4, 3, 3), (4, 3, 1, 1), (5, 6), (7,)]


def weights(layout: torch.memory_format) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [nn.Parameter(value.contiguous(memory_format=layout) if value.ndim == 4 else value) for value in values]


def gradients(layout: torch.memory_format, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [value.contiguous(memory_format=layout) if value.ndim == 4 else value for value in values]


@pytest.mark.parametrize("gradient_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_it_equals_the_step_of_pytorch_however_tensors_lie(momentum, nesterov, layout, gradient_layout) -> None:
    ours, theirs = weights(layout), weights(layout)
    values = {"momentum": momentum, "nesterov": nesterov}
    groups = [[{"params": part[:2], "weight_decay": 0.1}, {"params": part[2:], "lr": 0.5}] for part in (ours, theirs)]
    optimizer, usual = SGD(groups[0], lr=0.1, fused=True, **values), torch.optim.SGD(groups[1], lr=0.1, fused=False, **values)
    for step in range(3):
        for part in (ours, theirs):
            for weight, gradient in zip(part, gradients(gradient_layout, step), strict=True):
                weight.grad = gradient
            part[3].grad = None if step == 1 else part[3].grad
        optimizer.step()
        usual.step()
    for weight, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-7)
        if momentum:
            buffers = optimizer.state[weight]["momentum_buffer"], usual.state[other]["momentum_buffer"]
            torch.testing.assert_close(*buffers, rtol=1e-6, atol=1e-7)


def test_it_goes_on_from_what_pytorchs_has_stored() -> None:
    ours, theirs = weights(torch.channels_last), weights(torch.channels_last)
    usual = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, fused=False)
    for weight, gradient in zip(theirs, gradients(torch.channels_last, 0), strict=True):
        weight.grad = gradient
    usual.step()
    optimizer = SGD(ours, lr=0.1, momentum=0.9, fused=True)
    stored = copy.deepcopy(usual.state_dict())
    for state in stored["state"].values():  # as a file may give them back
        state["momentum_buffer"] = state["momentum_buffer"].contiguous()
    optimizer.load_state_dict(stored)
    for weight, other in zip(ours, theirs, strict=True):
        weight.data.copy_(other.data)
        weight.grad = other.grad.clone()
    for group in optimizer.param_groups:
        group["fused"] = True
    optimizer.step()
    usual.step()
    for weight, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("finite", [True, False])
def test_a_gradient_scaler_unscales_and_skips(finite) -> None:
    ours = weights(torch.channels_last)
    before = [weight.detach().clone() for weight in ours]
    optimizer = SGD(ours, lr=0.1, momentum=0.9, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(1))
    for weight, gradient in zip(ours, gradients(torch.channels_last, 0), strict=True):
        weight.grad = 8 * gradient
    if not finite:
        ours[1].grad[0, 0, 0, 0] = torch.inf
    scaler.step(optimizer)
    for weight, old, gradient in zip(ours, before, gradients(torch.channels_last, 0), strict=True):
        torch.testing.assert_close(weight, old - 0.1 * gradient if finite else old, rtol=1e-5, atol=1e-6)


def test_a_closure_gives_the_loss_and_no_gradient_no_step() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.25, fused=True)
    assert optimizer.step() is None
    assert weight.tolist() == [1.0, 1.0]

    def closure() -> Tensor:
        loss = (weight * torch.tensor([1.0, 2.0])).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert weight.tolist() == [0.75, 0.5]
