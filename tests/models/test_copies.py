"""Copies of networks that hold tensors with a history of gradients, as they are after a training step."""

from collections.abc import Callable

import pytest
import torch
from tiny import tiny_network
from torch import distributed, nn
from torch.nn.utils import prune

from era_support_packages.models.copies import detached_copy
from era_support_packages.models.summary import model_summary


class Keeps(nn.Module):
    """Keeps features in an attribute, a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.features = self.network.conv(images)
        self.kept, self.named = [self.features * 2], {"three": self.features * 3}
        return self.network(images)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.random_unstructured(layer.to(memory_format=torch.contiguous_format), "weight", amount=0.3),
        nn.utils.parametrizations.weight_norm,
    ],
)
def test_a_network_after_a_step_is_copied_and_summed_up(wrap: Callable[[nn.Module], nn.Module]) -> None:
    network, images = tiny_network(), torch.randn(2, 3, 8, 8)
    network.conv = wrap(network.conv)
    network(images).sum().backward()
    network.eval()
    twin = detached_copy(network)
    torch.testing.assert_close(twin(images), network(images))
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in network.parameters()}
    assert "Conv2d-1" in model_summary(network, (3, 8, 8)) or "ParametrizedConv2d" in model_summary(network, (3, 8, 8))


def test_features_that_a_network_keeps_are_copied_without_their_history() -> None:
    network = Keeps()
    network(torch.randn(2, 3, 8, 8))
    twin = detached_copy(network)
    copied, kept = ([net.features, net.kept[0], net.named["three"]] for net in (twin, network))
    for own, other in zip(copied, kept, strict=True):
        torch.testing.assert_close(own, other.detach())
        assert not own.requires_grad


def test_the_processes_of_a_synchronised_norm_stay_the_same(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(tiny_network(), distributed.group.WORLD)
        copied = detached_copy(network)
        assert copied.norm.process_group is network.norm.process_group is not None
        assert copied.norm.weight is not network.norm.weight
    finally:
        distributed.destroy_process_group()
