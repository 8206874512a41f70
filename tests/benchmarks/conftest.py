"""The benchmarks can be imported, and run with the words of a command line."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def bench() -> ModuleType:
    import bench

    return bench


@pytest.fixture
def call(monkeypatch) -> Callable[..., None]:
    """`call(module, *words)` runs it as `python benchmarks/MODULE.py WORDS` does."""

    def run(module: ModuleType, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *words])
        module.main()

    return run
