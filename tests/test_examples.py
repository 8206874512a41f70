"""Every public function has an example in its docstring, and each example runs as it stands."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

TRUST = (".trust", ".trust.faithfulness", ".trust.sanity", ".trust.shortcut")
FACES = ("", ".datasets", ".models", ".evaluation", ".gradcam", ".training", ".runs", *TRUST, ".plots")


def public() -> dict[str, object]:
    """What the faces hand on, but for rooms and errors, by the name of the module that holds it and its own."""
    found = {}
    for face in FACES:
        module = importlib.import_module(f"era_support_packages{face}")
        for name in module.__all__:
            value = getattr(module, name)
            if (inspect.isfunction(value) or inspect.isclass(value)) and not (
                inspect.isclass(value) and issubclass(value, BaseException)
            ):
                found[f"{value.__module__}.{name}".removeprefix("era_support_packages.")] = value
    return found


def cases() -> list[object]:
    """The names; those whose example trains a ResNet18 may take over ten seconds."""
    slow = ("runs.recording.train_prepared", "training.loop.fit")
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in sorted(public())]


@pytest.mark.parametrize("name", cases())
def test_a_public_name_has_an_example_that_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tests = doctest.DocTestFinder(recurse=False).find(public()[name], name, globs={"__name__": "__main__"})
    assert sum(len(test.examples) for test in tests) > 0, "an example is missing"
    said: list[str] = []
    for test in tests:
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not said, "".join(said)
