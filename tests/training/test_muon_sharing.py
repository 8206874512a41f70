"""Muon's products shared out among processes: the same bits as where each computes all, and shared where that is faster."""

import copy

import muon_jobs as jobs
import numpy as np
import pytest
import torch
from several import in_processes
from tiny import plan, tiny_network
from torch.utils.flop_counter import FlopCounterMode

from era_support_packages.models.resnet import ResNet18
from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.cost import muon_flops
from era_support_packages.training.muon import ITERATIONS, MuonWithSGD, newton_schulz
from era_support_packages.training.muon_sharing import is_faster_shared, operations, owners
from era_support_packages.training.setup import build_optimizer, muon_filters

SHAPES = [(len(weight), weight[0].numel()) for weight in muon_filters(ResNet18())]


@pytest.mark.unhurried
@pytest.mark.parametrize("count", [2, 3])
def test_shared_out_the_weights_are_those_of_each_by_itself_bit_by_bit(count):
    apart, shared = (in_processes(count, jobs.turn, choice) for choice in (False, True))
    steps, layers = 3, len(jobs.SHAPES)
    assert [one["computed"] for one in apart] == [steps * layers] * count
    assert sum(one["computed"] for one in shared) == steps * layers
    assert min(one["computed"] for one in shared) > 0
    whole = jobs.turn(ALONE, False)["weights"]
    for found in (*apart, *shared):
        for values, other, alone in zip(found["weights"], apart[0]["weights"], whole, strict=True):
            assert np.array_equal(values, other)
            np.testing.assert_allclose(values, alone, atol=1e-5)


@pytest.mark.parametrize(("kind", "dtype"), [("cpu", torch.float32), ("cuda", torch.float16)])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_the_operations_are_those_that_pytorch_counts(kind, dtype, iterations):
    for shape in SHAPES:
        with FlopCounterMode(display=False) as counter:
            newton_schulz(torch.empty(1, min(shape), max(shape), dtype=dtype, device="meta"), iterations)
        assert operations(shape, iterations, kind) == operations(shape[::-1], iterations, kind) == counter.get_total_flops()
    assert sum(operations(shape, ITERATIONS, kind) for shape in SHAPES) == muon_flops(ResNet18(), device=kind)
    assert operations((4, 9), 1, kind) == 2 * (4 * 4 * 9) * 2 + 2 * 4**3


@pytest.mark.parametrize(
    ("shapes", "count", "found"),
    [
        ([(8, 8), (8, 8), (8, 8), (8, 8)], 2, [0, 1, 0, 1]),
        ([(2, 2), (8, 8), (2, 2), (2, 2)], 2, [1, 0, 1, 1]),  # the large one by itself
        ([(8, 8)], 3, [0]),
        ([], 2, []),
    ],
)
def test_each_gets_as_much_work_as_the_others(shapes, count, found):
    assert owners(shapes, count, 3, "cpu") == found


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_resnet18_is_shared_out_evenly(kind):
    loads = [0, 0]
    for shape, owner in zip(SHAPES, owners(SHAPES, 2, 3, kind), strict=True):
        loads[owner] += operations(shape, 3, kind)
    assert max(loads) / sum(loads) < 0.56


@pytest.mark.parametrize(
    ("shapes", "count", "kind", "shared"),
    [
        (SHAPES, 2, "cpu", True),
        (SHAPES, 8, "cpu", True),
        (SHAPES, 2, "cuda", False),  # a fraction of a millisecond is saved
        (SHAPES, 8, "cuda", False),
        ([(4096, 36864)] * 8, 8, "cuda", True),  # convolutions eight times as wide
        ([(8, 72)] * 8, 2, "cpu", False),
        (SHAPES[-1:], 2, "cpu", False),  # nothing is saved where one has all
        (SHAPES, 1, "cpu", False),
        (SHAPES, 2, "mps", False),
    ],
)
def test_they_are_shared_out_where_more_is_saved_than_sending_costs(shapes, count, kind, shared):
    assert is_faster_shared(shapes, count, ITERATIONS, kind) == shared


def test_the_rule_by_hand():
    """Two matrices of (100, 100) for two processes: one is saved, (4 + 2 * 9) * 100**3 operations, and one of 40 kB comes in."""
    assert operations((100, 100), 3, "cpu") == 22_000_000
    assert operations((100, 100), 3, "cuda") == 18_000_000
    assert is_faster_shared([(100, 100)] * 2, 2, 3, "cpu")  # 550 a byte
    assert not is_faster_shared([(9, 9)] * 2, 2, 3, "cpu")  # 49.5


def test_a_copy_of_the_optimizer_shares_nothing():
    optimizer = build_optimizer(tiny_network(), plan(optimizer="muon"))
    assert isinstance(optimizer, MuonWithSGD)
    optimizer.share_among(Processes(1, 2))
    assert optimizer.muon.processes.count == 2
    assert copy.deepcopy(optimizer).muon.processes.count == 1


def test_weights_on_one_process_are_as_they_were():
    """All of one shape in one product."""
    found = jobs.turn(Processes(), False)
    assert found["computed"] == 3 * len(jobs.SHAPES)
    assert all(torch.from_numpy(values).isfinite().all() for values in found["weights"])
