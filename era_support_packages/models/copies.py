"""Copies of networks as training leaves them, where `copy.deepcopy` alone fails."""

import copy
from typing import TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def detached_copy(network: Network) -> Network:
    """A deep copy of a network. Tensors that it holds with a history of gradients are copied without that history.

    Weight norm, spectral norm and pruning leave such a tensor as `weight` behind after each step; features kept in an attribute,
    in a list or in a dict are others.
    """
    memo: dict[int, Tensor] = {}
    for module in network.modules():
        for value in vars(module).values():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
            for tensor in held:
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(network, memo)
