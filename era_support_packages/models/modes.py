"""Evaluation mode, and parameters without gradients, for a while; afterwards every flag is as it was."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

_NORMS = (nn.modules.batchnorm._BatchNorm,)
# A network has no place of its own for its lock, as it is copied and pickled.
_IN_USE: WeakKeyDictionary[nn.Module, AbstractContextManager[Any]] = WeakKeyDictionary()
_ONE_BY_ONE = threading.Lock()


def training_mode(model: nn.Module, hold_norms: bool = False) -> None:
    """Put the model into training mode; with `hold_norms` its batch norms go on by the statistics that they have."""
    model.train()
    if hold_norms:
        for module in model.modules():
            if isinstance(module, _NORMS):
                module.eval()


class HeldNorms(nn.Module):
    """A network whose batch norms stay in evaluation mode, whoever calls `train`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """What the network says."""
        return self.network(images)

    def train(self, mode: bool = True) -> "HeldNorms":
        """Set the mode of all but the batch norms."""
        super().train(mode)
        if mode:
            training_mode(self.network, hold_norms=True)
        return self


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode; afterwards, also after an exception, each module's flag is as before.

    Other threads wait here until the block ends: the flags, and the hooks of an explanation, are those of the one network.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.models import evaluation_mode
    >>> model = ResNet18().train()
    >>> with evaluation_mode(model):
    ...     print(model.training)
    False
    >>> model.training
    True
    """
    with _ONE_BY_ONE:
        lock = _IN_USE.setdefault(model, threading.RLock())
    with lock:
        flags = [(module, module.training) for module in model.modules()]
        try:
            model.eval()
            yield
        finally:
            for module, training in flags:
                module.training = training


@contextmanager
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within the block these parameters take no gradients; afterwards those that did do again, also after an exception."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
