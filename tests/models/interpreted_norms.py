"""The kernels of the fused norms on a CPU; `test_fused_norms` runs these with Triton's interpreter switched on."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from norms import features, learned_norm
from torch import Tensor, nn
from torch.testing import assert_close

from era_support_packages.models import fused_norms


def results(norm: nn.BatchNorm2d, out: Tensor, gradient: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Output, gradients, and what the norm remembers."""
    out.backward(gradient)
    assert all(value.grad is not None for value in (*inputs, *norm.parameters()))
    return [out.detach(), *(value.grad for value in (*inputs, *norm.parameters())), *norm.buffers()]  # type: ignore[misc]


@pytest.mark.parametrize(("shortcut", "relu"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize(
    "shape", [(3, 16, 5, 7), (2, 80, 1, 1), (40, 144, 8, 8)]
)  # the last takes several strips, tiles, columns
def test_the_kernels_give_what_float64_gives(
    shape: tuple[int, ...], shortcut: bool, relu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_norms, "MOST_PROGRAMS", 4)  # the last shape takes two strips of several tiles, in two columns
    values = [features(*shape, seed=seed) for seed in range(3)]
    values[0] = 2 * values[0] + 3
    gradient, inputs = values.pop(), [value.requires_grad_() for value in (values if shortcut else values[:1])]
    norm = learned_norm(shape[1]).double()
    out = norm(inputs[0]) + (inputs[1] if shortcut else 0)
    near_zero = (out.detach().abs() < 1e-4) & relu  # rounding may put it on the other side: no gradient there
    gradient = gradient.masked_fill(near_zero, 0.0).contiguous(memory_format=torch.channels_last)
    theirs = results(norm, F.relu(out) if relu else out, gradient, *inputs)

    own = [value.detach().float().requires_grad_() for value in inputs]
    norm = learned_norm(shape[1])
    ours = results(norm, fused_norms.fused(norm, *own, relu=relu), gradient.float(), *own)
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype in (torch.float32, torch.int64)
        assert_close(one.double(), other.double(), rtol=2e-4, atol=2e-4)
    assert norm.num_batches_tracked == 1
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


def test_a_mean_far_from_zero_costs_the_variance_no_digits() -> None:
    x = 1000 + features(8, 16, 6, 6)
    norm = nn.BatchNorm2d(16, momentum=1.0)
    fused_norms.fused(norm, x.float())
    assert_close(norm.running_var.double(), x.float().double().var(dim=(0, 2, 3)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so(value: float) -> None:
    x = features(4, 16, 3, 3).float()
    x[0, 0, 0, 0] = value
    norm = nn.BatchNorm2d(16)
    out = fused_norms.fused(norm, x)
    assert out[:, 0].isnan().all()
    assert norm.running_var.isnan().tolist() == [True] + [False] * 15
    assert not out[:, 1:].isnan().any()


def test_the_trial_of_the_kernels_passes_and_a_wrong_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_norms, "MOST_PROGRAMS", 4)
    trial = partial(fused_norms._farthest, torch.device("cpu"), torch.float16, (6, 6))
    assert trial() < 0.001
    right = fused_norms.fused
    monkeypatch.setattr(fused_norms, "fused", lambda norm, x, shortcut, relu: right(norm, x, shortcut, relu=True))
    assert trial() > fused_norms.WORST
