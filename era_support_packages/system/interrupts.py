"""SIGTERM as an exception, so that a run can tidy up before it ends; and children that end with it, however it ends."""

import contextlib
import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: what Ctrl-C is to a person, it is to a machine that is being shut down."""

    exit_code = 143


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """While it lasts, SIGTERM raises `Terminated` in the main thread; the handler of before is restored.

    Outside of the main thread, where Python allows no signal handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # else `ignore_signals` was called meanwhile
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def ignore_signals() -> None:
    """From now on Ctrl-C and SIGTERM do nothing: the process ends by itself, and has something to write or to say before."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it ends, however that ends; only Linux does."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
