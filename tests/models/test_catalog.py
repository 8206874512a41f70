"""Whether a network is the one of a name: what may differ without making it another one."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from era_support_packages.models.catalog import build_network, difference

SETTINGS: dict[str, Callable[[], None]] = {
    "as they come": lambda: None,
    "double by default": lambda: torch.set_default_dtype(torch.float64),
    "elsewhere by default": lambda: torch.set_default_device("meta"),  # as a notebook sets "cuda"
}


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_network_is_the_one_of_its_name_whatever_pytorch_takes_by_default(setting: str) -> None:
    network, changed = build_network("resnet_custom", 3), build_network("resnet_custom", 3)
    changed.register_forward_hook(lambda module, given, output: output.tanh())
    SETTINGS[setting]()
    assert difference(network, "resnet_custom", 3, 16) is None
    assert difference(changed, "resnet_custom", 3, 16) == "its forward pass"


def _filled(network: nn.Module, value: float) -> nn.Module:
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)
    return network


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(
    "trained",
    [
        lambda network: network.to(memory_format=torch.channels_last),
        lambda network: network.bfloat16(),
        lambda network: network.half(),
        lambda network: network.double(),
        lambda network: _filled(network, 0.0),
        lambda network: _filled(network, float("nan")),
    ],
    ids=["channels last", "bf16", "fp16", "double", "zeros", "not a number"],
)
def test_neither_weights_nor_their_precision_make_it_another_and_nothing_is_drawn(
    trained: Callable[[nn.Module], nn.Module], classes: int
) -> None:
    network = trained(build_network("ResNet18", classes))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert difference(network, "ResNet18", classes, 16) is None
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
