"""Every public function has an example in its docstring, and each example runs as it stands."""

import doctest
import importlib
import inspect

import pytest

TRUST = (".trust", ".trust.faithfulness", ".trust.sanity", ".trust.shortcut")
FACES = ("", ".datasets", ".models", ".evaluation", ".gradcam", ".training", ".runs", *TRUST, ".plots")


def public() -> dict[str, object]:
    """What the faces hand on, but for rooms and errors, by the name of the module that holds it and its own."""
    modules = [importlib.import_module(f"era_support_packages{face}") for face in FACES]
    values = [(name, getattr(module, name)) for module in modules for name in module.__all__]
    classes = [(name, value) for name, value in values if inspect.isclass(value) and not issubclass(value, BaseException)]
    functions = [(name, value) for name, value in values if inspect.isfunction(value)]
    return {f"{value.__module__}.{name}".removeprefix("era_support_packages."): value for name, value in classes + functions}


MARKS = {  # they train
    "runs.recording.train_prepared": pytest.mark.slow,
    "training.loop.fit": pytest.mark.slow,
    "runs.comparison.compare": pytest.mark.unhurried,
    "runs.comparison.Comparison": pytest.mark.unhurried,
    "runs.card.model_card": pytest.mark.unhurried,
    "plots.comparison.run_curves": pytest.mark.unhurried,
    "plots.faithfulness.advantage_over_baselines": pytest.mark.unhurried,
    "plots.faithfulness.perturbation_curves": pytest.mark.unhurried,
    "runs.listing.RunList": pytest.mark.unhurried,
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS.get(name, ())) for name in sorted(public())])
def test_a_public_name_has_an_example_that_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tests = doctest.DocTestFinder(recurse=False).find(public()[name], name, globs={"__name__": "__main__"})
    assert sum(len(test.examples) for test in tests) > 0, "an example is missing"
    said: list[str] = []
    for test in tests:
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not said, "".join(said)
