"""Copies of networks as training leaves them, where `copy.deepcopy` alone fails, and the network inside of a wrapped one."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Network = TypeVar("Network", bound=nn.Module)


def detached_copy(network: Network) -> Network:
    """A deep copy of a network. Tensors that it holds with a history of gradients are copied without that history, and the group
    of processes that synchronises its batch norms stays the same.

    Weight norm, spectral norm and pruning leave such a tensor as `weight` behind after each step; features kept in an attribute,
    in a list or in a dict are others.
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        if (group := getattr(module, "process_group", None)) is not None:  # it cannot be copied
            memo[id(group)] = group
        for value in vars(module).values():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
            for tensor in held:
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(network, memo)


def inner_network(model: nn.Module) -> nn.Module:
    """The network inside of a data-parallel, averaged or compiled model, whose layers have their plain names."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            model = model.module
        elif isinstance(inside := getattr(model, "_orig_mod", None), nn.Module):  # torch.compile
            model = inside
        else:
            return model


def eager(network: nn.Module) -> AbstractContextManager[object]:
    """While it lasts, compiled parts of a network run as they were written."""
    compiled = any(getattr(module, "_compiled_call_impl", None) or hasattr(module, "_orig_mod") for module in network.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
