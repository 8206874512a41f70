"""A process of a sweep that is asked to end."""

from types import SimpleNamespace

import pytest

from era_support_packages.runs import sweep_worker
from era_support_packages.system.interrupts import Terminated


@pytest.mark.parametrize(("stop", "code"), [(Terminated(), 143), (KeyboardInterrupt(), 130)])
def test_it_ends_without_a_traceback_wherever_it_is(stop, code, monkeypatch):
    def train(*_):
        raise stop

    plan = SimpleNamespace(fixed={}, preset="smoke")
    heard = iter([(plan, None, "sweep"), ("a task", False)])
    monkeypatch.setattr(sweep_worker, "Parent", lambda: SimpleNamespace(hear=lambda: next(heard)))
    monkeypatch.setattr(sweep_worker, "data_asked", lambda *_: None)
    monkeypatch.setattr(sweep_worker, "load_asked", lambda *_: None)
    monkeypatch.setattr(sweep_worker, "Trainer", lambda *_: SimpleNamespace(name="sweep", train=train))
    assert sweep_worker.main() == code
