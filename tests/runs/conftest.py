"""What several files of tests of runs need."""

import pytest
from tiny import colored_images, tiny_network

from era_support_packages.datasets import loading
from era_support_packages.runs import recording, trials


@pytest.fixture
def small_sweeps(monkeypatch):
    """24 and 10 images in place of every data set, a network of a few channels, and no waiting for other processes."""
    data = colored_images(24), colored_images(10, split="test", seed=1)
    monkeypatch.setattr(loading, "load", lambda *_, **__: data)
    monkeypatch.setattr(recording.PreparedRun, "build_model", lambda *_: tiny_network())
    monkeypatch.setattr(trials, "PAUSE", 0.01)
