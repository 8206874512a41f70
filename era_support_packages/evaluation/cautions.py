"""What is warned of, and not refused: a network whose answer on an image rests on more than the image."""

import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import currentframe
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")
_PACKAGE = __name__.split(".")[0]


class _Everything(set[str]):
    """Whatever there is to say has been said."""

    def __contains__(self, message: object) -> bool:
        return True


_SAID: ContextVar[set[str] | None] = ContextVar("said", default=None)
"""what the call that is running has warned of; None where none keeps it"""


def told_once(function: Callable[_Given, _Returned]) -> Callable[_Given, _Returned]:
    """Make a function say each caution once in a call, however many passes and networks say it.

    >>> import warnings
    >>> from era_support_packages.evaluation.cautions import caution, told_once
    >>> @told_once
    ... def predict_twice():
    ...     for _ in range(2):
    ...         caution("The answer depends on chance.")
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     predict_twice()
    >>> len(said)
    1
    """
    return _keeping(function, set)


def unspoken(function: Callable[_Given, _Returned]) -> Callable[_Given, _Returned]:
    """Make a function say no caution: one whose result does not rest on the logits, or whose caller says it.

    >>> from era_support_packages.evaluation.cautions import caution, unspoken
    >>> unspoken(caution)("The answer depends on chance.")
    """
    return _keeping(function, _Everything, always=True)


def caution(message: str) -> None:
    """Warn of something, where the call that is running has not said it yet; the place shown is where the package was called.

    >>> import warnings
    >>> from era_support_packages.evaluation.cautions import caution
    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     caution("The answer depends on chance.")
    >>> str(said[0].message)
    'The answer depends on chance.'
    """
    said = _SAID.get()
    if said is not None:
        if message in said:
            return
        said.add(message)
    warnings.warn(message, stacklevel=_callers_level())


def warn_of_company(network: nn.Module) -> None:
    """Warn where a batch norm of a network in evaluation mode goes by its batch, so that logits depend on the images beside.

    That is one without running statistics, or one that stays in training mode.

    >>> from torch import nn
    >>> from era_support_packages.evaluation.cautions import warn_of_company
    >>> warn_of_company(nn.BatchNorm2d(3))  # has running statistics: nothing to say
    """
    for name, layer in network.named_modules():
        stays = isinstance(layer, _BatchNorm) and layer.training and not network.training
        if isinstance(layer, _BatchNorm) and (layer.running_mean is None or stays):
            why = "it stays in training mode" if stays else "track_running_stats=False"
            caution(
                f"Layer {name!r} normalizes by the batch at hand ({why}): what the network says of an image, and its map, "
                "depends on the images beside it and on batch_size; compare results of the same batches only, or train the "
                "network with running statistics and let its eval() use them."
            )
            return


@contextmanager
def warning_of_chance(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Around a pass: warn where a network in evaluation mode draws random numbers, so that it may answer otherwise each time.

    Seen by the state of the random generators, which are only read: no second pass, and rounding is not taken for chance.

    >>> import torch
    >>> from torch import nn
    >>> from era_support_packages.evaluation.cautions import warning_of_chance
    >>> dropout = nn.Dropout().eval()
    >>> with warning_of_chance(dropout, torch.device("cpu")):  # which does nothing in evaluation mode: nothing to say
    ...     values = dropout(torch.zeros(3))
    """
    if network.training:
        yield
        return
    before = _random_states(device)
    yield
    if _random_states(device) != before:
        caution(
            "The network draws random numbers in evaluation mode (or another thread did meanwhile), as F.dropout(x) without "
            "training=self.training does: what it says of an image, and its map, may be another each time; pass "
            "training=self.training, or use nn.Dropout, which eval() switches off."
        )


def _random_states(device: torch.device) -> bytes:
    """Of PyTorch on the CPU and on the device, of NumPy and of Python."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return pickle.dumps(([state.numpy() for state in states], np.random.get_state(), random.getstate()))


def _keeping(
    function: Callable[_Given, _Returned], said: Callable[[], set[str]], always: bool = False
) -> Callable[_Given, _Returned]:
    @wraps(function)
    def kept(*given: _Given.args, **named: _Given.kwargs) -> _Returned:
        if _SAID.get() is not None and not always:  # a call within a call
            return function(*given, **named)
        before = _SAID.set(said())
        try:
            return function(*given, **named)
        finally:
            _SAID.reset(before)

    return kept


def _callers_level() -> int:
    """The `stacklevel`, seen from the caller, of the frame that called into the package first."""
    frame, level, found = currentframe(), 0, 1
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] == _PACKAGE:
            found = level + 1
        frame, level = frame.f_back, level + 1
    return found
