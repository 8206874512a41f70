"""A network with a mask of -inf among its buffers trains; one whose weights are no numbers does not."""

import pytest
import torch
from tiny import colored_images, plan, tiny_network
from torch import Tensor, nn

from era_support_packages.models.learned_state import learned
from era_support_packages.training.failures import TrainingDivergedError
from era_support_packages.training.loop import fit


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_network()
        self.register_buffer("mask", torch.full((3, 3), float("-inf")).triu(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) @ self.mask.softmax(dim=1)


def test_a_mask_is_nothing_learned() -> None:
    config = plan(epochs=1, threads=1)
    network = Masked()
    fit(network, colored_images(24), colored_images(6, split="test", seed=1), config, report=lambda line: None)
    assert not network.mask.isfinite().all()


@pytest.mark.parametrize("statistic", ["running_mean", "running_var"])
def test_statistics_of_norms_are_learned(statistic: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(1), nn.LazyLinear(3))
    assert f"1.{statistic}" in dict(learned(network))
    assert "1.num_batches_tracked" not in dict(learned(network))


def test_weights_that_are_no_numbers_end_the_run() -> None:
    network = tiny_network()
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_var.fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="The weights are no longer finite"):
        fit(network, colored_images(24), colored_images(6, split="test", seed=1), plan(epochs=1, threads=1), report=print)
