"""What the processes of `several.in_processes` do in the tests of Muon's shared products."""

from typing import Any
from unittest import mock

import torch
from torch import nn

from era_support_packages.system.processes import Processes
from era_support_packages.training import muon
from era_support_packages.training.muon import MuonWithSGD

SHAPES = [(8, 4, 3, 3), (16, 4, 1, 1), (8, 4, 3, 3), (6, 12, 1, 1), (8, 4, 3, 3), (160, 48, 1, 1), (64, 24, 3, 3)]


def turn(processes: Processes, shared: bool) -> dict[str, Any]:
    """The weights after three steps, whose products are shared out or not, and how many matrices this process computed."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)) for shape in SHAPES]
    optimizer = MuonWithSGD([{"params": weights, "orthogonal": True}], lr=0.2, momentum=0.6)
    optimizer.share_among(processes)
    computed: list[int] = []
    compute = muon.orthogonalized

    def counted(matrices: torch.Tensor) -> torch.Tensor:
        computed.append(len(matrices))
        return compute(matrices)

    with (
        mock.patch.object(muon, "is_faster_shared", return_value=shared),
        mock.patch.object(muon, "orthogonalized", counted),
    ):
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
    return {"weights": [weight.detach().numpy() for weight in weights], "computed": sum(computed)}
