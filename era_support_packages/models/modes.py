"""Evaluation mode for a while, with every module's training flag put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block the model is in evaluation mode; afterwards, also after an exception, each module's flag is as before.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.models import evaluation_mode
    >>> model = ResNet18().train()
    >>> with evaluation_mode(model):
    ...     print(model.training)
    False
    >>> model.training
    True
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training
