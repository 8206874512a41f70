"""Evaluation mode for a while: each module's own training flag comes back."""

import threading

import pytest
from tiny import tiny_network

from era_support_packages.models.modes import evaluation_mode


def test_each_flag_is_put_back_also_after_an_interrupt() -> None:
    model = tiny_network().train()
    model.norm.eval()  # a frozen batch norm in a network that is being trained
    before = {name: module.training for name, module in model.named_modules()}
    assert set(before.values()) == {True, False}
    with evaluation_mode(model):
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(KeyboardInterrupt), evaluation_mode(model):
        raise KeyboardInterrupt
    assert {name: module.training for name, module in model.named_modules()} == before


def test_threads_wait_for_each_other_and_one_alone_never_does() -> None:
    """Else the first to end would put the others' network back into training mode."""
    model, found = tiny_network().train(), []

    def look() -> None:
        with evaluation_mode(model):
            found.append(model.training)

    other = threading.Thread(target=look)
    with evaluation_mode(model), evaluation_mode(model):
        other.start()
        other.join(0.2)
        assert found == []
    other.join()
    assert found == [False]
    assert model.training
