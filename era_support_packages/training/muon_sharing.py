"""Muon's matrix products shared out among the processes of a run by layer: whose is which, and whether that is faster."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from era_support_packages.system.processes import Processes

Shape = tuple[int, int]
WORTH_A_BYTE = {"cpu": 50, "cuda": 3000}
"""Floating-point operations that a process computes while a byte comes in, by estimate (`benchmarks/scaling.py` times both ways):
a few cores at 50 GFLOP/s and 1 GB/s between machines, a GPU at 300 TFLOP/s in half precision and 100 GB/s between GPUs."""


def operations(shape: Shape, iterations: int, kind: str) -> int:
    """Of the products for one matrix on a kind of device, 2 per multiply-add.

    On a CUDA GPU, in float16, three in each iteration, two of which are of the whole matrix. Elsewhere two of the whole matrix in
    all, and four of small square ones in an iteration; the first needs no product with polynomials before it, and the last does
    not change the small matrix any more.
    """
    short, long = sorted(shape)
    if kind == "cuda":
        return iterations * (4 * short * short * long + 2 * short**3)
    return 4 * short * short * long + 2 * (4 * iterations - 3) * short**3


def owners(shapes: Sequence[Shape], count: int, iterations: int, kind: str) -> list[int]:
    """The process that computes each matrix: the most expensive first, each for the one that has the least to do so far."""
    loads = [0] * count
    found = [0] * len(shapes)
    for number in sorted(range(len(shapes)), key=lambda number: -operations(shapes[number], iterations, kind)):
        found[number] = loads.index(min(loads))
        loads[found[number]] += operations(shapes[number], iterations, kind)
    return found


def is_faster_shared(shapes: Sequence[Shape], count: int, iterations: int, kind: str) -> bool:
    """Whether sharing them out takes less time than each process computing all, by what it saves and what it must receive.

    kind: of device. What is saved is the whole but for the share of the process that has the most; what comes in, the results of
    all others, of 2 bytes a value on a GPU and 4 elsewhere. Other devices than CPUs and CUDA GPUs never share.
    """
    if count == 1 or kind not in WORTH_A_BYTE:
        return False
    costs = [operations(shape, iterations, kind) for shape in shapes]
    whose = owners(shapes, count, iterations, kind)
    loads, own = ([0] * count for _ in range(2))
    for shape, cost, owner in zip(shapes, costs, whose, strict=True):
        loads[owner] += cost
        own[owner] += math.prod(shape)
    received = (sum(own) - min(own)) * (2 if kind == "cuda" else 4)
    return sum(costs) - max(loads) > WORTH_A_BYTE[kind] * received


def exchange(found: dict[int, Tensor], shapes: Sequence[Shape], whose: Sequence[int], like: Tensor, processes: Processes) -> None:
    """Add to `found`, the results of this process by number, those of all others: float32, the same bits on each.

    On a GPU they were computed in half precision, and are sent so.
    """
    dtype = torch.float16 if like.device.type == "cuda" else torch.float32
    parts = []
    for rank in range(processes.count):
        numbers = [number for number, owner in enumerate(whose) if owner == rank]
        if rank == processes.rank:
            own = [found[number].reshape(-1).to(dtype) for number in numbers]
            parts.append(torch.cat(own) if own else like.new_empty(0, dtype=dtype))
        else:
            parts.append(like.new_empty(sum(math.prod(shapes[number]) for number in numbers), dtype=dtype))
    processes.share_out(parts)
    for rank, part in enumerate(parts):
        numbers = [number for number, owner in enumerate(whose) if owner == rank]
        for number, values in zip(numbers, part.split([math.prod(shapes[number]) for number in numbers]), strict=True):
            found[number] = values.view(shapes[number]).to(torch.float32, copy=True)  # in memory of its own, as if computed here
