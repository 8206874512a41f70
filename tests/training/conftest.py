"""What several files of this folder need."""

import pytest

from era_support_packages.training import batch_norm, loop, lr_finder


@pytest.fixture
def long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a short run keeps its batch-norm statistics: test_batch_norm.py is about the others."""
    monkeypatch.setattr(batch_norm, "FEW_STEPS", 0)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No steps are timed beforehand: an image costs two seconds."""
    for module in (loop, lr_finder):
        monkeypatch.setattr(module, "seconds_per_image", lambda model, config, *_: 2.0)


@pytest.fixture
def instant(untimed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs through a copy of the network beforehand, whose hooks would count it."""
    for module in (loop, lr_finder):
        monkeypatch.setattr(module, "require_trainable", lambda *_: None)
