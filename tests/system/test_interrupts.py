"""SIGTERM becomes an exception while it is asked for, and is what it was before afterwards."""

import contextlib
import os
import signal
import threading

import pytest

from era_support_packages.system import interrupts
from era_support_packages.system.interrupts import Terminated, sigterm_interrupts


def unexpected(number, frame):
    raise AssertionError("SIGTERM reached the handler of before")


def current():
    return signal.getsignal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def handler():
    """A handler of our own at first: a signal that the package does not catch then fails a test and does not end pytest."""
    before = signal.signal(signal.SIGTERM, unexpected)
    yield
    signal.signal(signal.SIGTERM, before)


def send_sigterm() -> None:
    """A real signal to this process, and some time for Python to look for it."""
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        pass


def test_sigterm_raises_terminated_which_only_handlers_of_interrupts_catch():
    with pytest.raises(KeyboardInterrupt) as raised, sigterm_interrupts(), contextlib.suppress(Exception):
        send_sigterm()
    assert type(raised.value) is Terminated
    assert current() is unexpected


@pytest.mark.parametrize("before", [unexpected, signal.SIG_DFL, signal.SIG_IGN], ids=["function", "SIG_DFL", "SIG_IGN"])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Terminated, SystemExit])
def test_the_handler_of_before_is_restored_however_the_block_ends(before, error):
    signal.signal(signal.SIGTERM, before)
    with contextlib.nullcontext() if error is None else pytest.raises(error, match="on purpose"), sigterm_interrupts():
        inside = current()
        if error is not None:
            raise error("on purpose")
    assert current() == before
    assert callable(inside)
    assert inside is not before


def test_an_ignored_sigterm_is_heard_inside_and_ignored_again_afterwards():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(Terminated), sigterm_interrupts():
        send_sigterm()
    send_sigterm()  # would raise or end the process


def test_a_handler_that_python_did_not_set_becomes_the_default_one(monkeypatch):
    """`signal.signal` answers None for a handler set in C, and does not take None back."""
    calls = []
    monkeypatch.setattr(interrupts.signal, "signal", lambda number, action: calls.append((number, action)))
    with sigterm_interrupts(), pytest.raises(Terminated):
        calls[0][1](signal.SIGTERM, None)
    monkeypatch.undo()
    assert [number for number, _ in calls] == [signal.SIGTERM, signal.SIGTERM]
    assert calls[1][1] is signal.SIG_DFL


def test_no_other_signal_is_touched_and_blocks_inside_one_another_restore_in_turn():
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with sigterm_interrupts():
        outer = current()
        assert [number for number in before if before[number] is not signal.getsignal(number)] == [signal.SIGTERM]
        with sigterm_interrupts():
            assert current() is not outer
        assert current() is outer
    assert current() is unexpected


def test_in_another_thread_nothing_is_done_and_exceptions_pass():
    seen = []

    def work() -> None:
        try:
            with sigterm_interrupts():
                seen.append(current())
                raise LookupError("on purpose")
        except LookupError as error:
            seen.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [unexpected, "on purpose"]
    assert current() is unexpected
