"""What stops a training within one of its steps."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import nn


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def press_stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def terminate(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


STOPS = {"stop button": (press_stop, 130), "SIGTERM": (terminate, 143)}  # with the exit code of each


@contextmanager
def own_sigterm_handler() -> Iterator[Callable[[int, FrameType | None], None]]:
    """A SIGTERM that the package does not catch fails the test and does not end pytest; the handler must be there afterwards."""

    def unexpected(number: int, frame: FrameType | None) -> None:
        raise AssertionError("SIGTERM reached the handler of before")

    before = signal.signal(signal.SIGTERM, unexpected)
    yield unexpected
    restored = signal.signal(signal.SIGTERM, before) is unexpected
    assert restored


@dataclass
class Steps:
    """The training steps of the networks that are watched: how many there were, and what happens within the one of a number."""

    actions: dict[int, Callable[[], None]] = field(default_factory=dict)
    count: int = 0

    def watch(self, model: nn.Module) -> nn.Module:
        def begin(module: nn.Module, _: Any) -> None:
            if module is model and module.training:  # and not a copy, which measures the speed of the machine
                self.count += 1
                self.actions.get(self.count, lambda: None)()

        model.register_forward_pre_hook(begin)
        return model
