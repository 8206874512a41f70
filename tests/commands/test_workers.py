"""How one of several processes ends: with its exit code and one sentence, whatever ended it."""

import io
import sys

import pytest

from era_support_packages.commands import workers
from era_support_packages.system.interrupts import Terminated
from era_support_packages.system.processes import Processes
from era_support_packages.system.torchrun import Started

LOST = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:40000")


class Unread(io.StringIO):
    """What nobody reads any more."""

    def flush(self):
        raise BrokenPipeError


def ended(error, monkeypatch):
    """The exit code after such an error."""

    def leave(code):
        raise SystemExit(code)

    def fail(*_):
        raise error

    monkeypatch.setattr(workers, "join", lambda _: Processes(0, 2))
    monkeypatch.setattr(workers, "_train", fail)
    monkeypatch.setattr(workers, "ignore_signals", lambda: None)
    monkeypatch.setattr(workers.os, "_exit", leave)
    options = {"quiet": True, "json": False, "resume": True, "devices": 1}
    with pytest.raises(SystemExit) as stopped:
        workers.train_with_others(Started(0, 2, 0, 0), options, dict(options), lambda *_: None)
    return stopped.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LOST, 1, "error: Another process of this run has ended, or does not answer, so this one ends too. "),
        (ValueError("no such data."), 2, "error: no such data."),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (KeyboardInterrupt(), 130, ""),
        (Terminated(), 143, ""),
    ],
)
def test_it_ends_with_the_code_of_a_run_of_one_and_a_sentence(error, code, said, monkeypatch, capsys):
    assert ended(error, monkeypatch) == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == bool(said)


def test_it_ends_at_once_where_nobody_reads_any_more(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Unread())
    assert ended(ValueError("no such data."), monkeypatch) == 141
