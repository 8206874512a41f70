"""SIGTERM becomes an exception while it is asked for, and is what it was before afterwards."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from era_support_packages.system import interrupts
from era_support_packages.system.interrupts import Terminated, sigterm_interrupts


def unexpected(number: int, frame: FrameType | None) -> None:
    raise AssertionError("SIGTERM reached the handler of before")


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """A handler of our own at first: a signal that the package does not catch then fails a test and does not end pytest."""
    before = signal.signal(signal.SIGTERM, unexpected)
    yield
    signal.signal(signal.SIGTERM, before)


def send_sigterm() -> None:
    """A real signal to this process, and some time for Python to look for it."""
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass


def test_sigterm_raises_terminated_which_only_handlers_of_interrupts_catch() -> None:
    with pytest.raises(KeyboardInterrupt) as raised, sigterm_interrupts(), contextlib.suppress(Exception):
        send_sigterm()
    assert type(raised.value) is Terminated
    assert signal.getsignal(signal.SIGTERM) is unexpected


@pytest.mark.parametrize("before", [unexpected, signal.SIG_DFL, signal.SIG_IGN], ids=["function", "SIG_DFL", "SIG_IGN"])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Terminated, SystemExit])
def test_the_handler_of_before_is_restored_however_the_block_ends(before: Any, error: type[BaseException] | None) -> None:
    signal.signal(signal.SIGTERM, before)
    inside = []

    def work() -> None:
        with sigterm_interrupts():
            inside.append(signal.getsignal(signal.SIGTERM))
            if error is not None:
                raise error("on purpose")

    with contextlib.nullcontext() if error is None else pytest.raises(error, match="on purpose"):
        work()
    assert signal.getsignal(signal.SIGTERM) == before
    assert callable(inside[0])
    assert inside[0] is not before


def test_an_ignored_sigterm_is_heard_inside_and_ignored_again_afterwards() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(Terminated), sigterm_interrupts():
        send_sigterm()
    send_sigterm()  # would raise or end the process


def test_a_handler_that_python_did_not_set_becomes_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`signal.signal` answers None for a handler set in C, and does not take None back."""
    calls: list[tuple[int, Any]] = []

    def fake_signal(number: int, action: Any) -> None:
        calls.append((number, action))

    monkeypatch.setattr(interrupts.signal, "signal", fake_signal)
    with sigterm_interrupts():
        assert len(calls) == 1
        with pytest.raises(Terminated):
            calls[0][1](signal.SIGTERM, None)
    monkeypatch.undo()
    assert [number for number, _ in calls] == [signal.SIGTERM, signal.SIGTERM]
    assert calls[1][1] is signal.SIG_DFL


def test_no_other_signal_is_touched() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with sigterm_interrupts():
        inside = {number: signal.getsignal(number) for number in signal.valid_signals()}
    assert [number for number in before if before[number] is not inside[number]] == [signal.SIGTERM]


def test_blocks_inside_one_another_restore_in_turn() -> None:
    with sigterm_interrupts():
        outer = signal.getsignal(signal.SIGTERM)
        with sigterm_interrupts():
            assert signal.getsignal(signal.SIGTERM) is not outer
        assert signal.getsignal(signal.SIGTERM) is outer
    assert signal.getsignal(signal.SIGTERM) is unexpected


def in_thread(work: Callable[[], None]) -> list[BaseException]:
    """What the work raised in a thread of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_in_another_thread_nothing_is_done_and_exceptions_pass() -> None:
    seen = []

    def work() -> None:
        with sigterm_interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))
            raise LookupError("on purpose")

    (error,) = in_thread(work)
    assert (type(error), str(error)) == (LookupError, "on purpose")
    assert seen == [unexpected]
    assert signal.getsignal(signal.SIGTERM) is unexpected
