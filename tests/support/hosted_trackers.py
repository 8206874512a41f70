"""Stand-ins for trackio and Weights & Biases, as modules of their names: what `init` takes, and what a run of theirs does."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

BOTH = """
RUNS = {}    # by name or id: the rows, each with its step
OPEN = []    # those that nobody has finished
FAIL_AT = [] # numbers of calls of log, counted over all runs, that raise

class Image:
    def __init__(self, path):
        self.path = open(path, "rb").name

class Run:
    calls = 0

    def __init__(self, key, config):
        self.key, self.config = key, config
        self.rows = RUNS.setdefault(key, [])
        OPEN.append(key)

    def _add(self, values, step):
        assert self.key in OPEN, "it is finished"
        Run.calls += 1
        if Run.calls in FAIL_AT:
            raise RuntimeError("the network is gone\\nfor good")
        self.rows.append((step, dict(values)))

    def finish(self):
        print("synced")
        OPEN.remove(self.key)
"""
WANDB = """
class WandbRun(Run):
    id = property(lambda self: self.key)

    def define_metric(self, name, step_metric=None):
        assert (name, step_metric) == ("*", "epoch")

    def log(self, data, step=None, commit=None):
        taken = [number for number, _ in self.rows]
        if step is not None and taken and step < max(taken):
            return  # as there: a step that is over is dropped
        self._add(data, (max(taken) + 1 if taken else 0) if step is None else step)

def init(project=None, name=None, id=None, resume=None, config=None, allow_val_change=None, dir=None):
    assert resume == "allow" or id not in RUNS
    return WandbRun(id, config)
"""
TRACKIO = """
class TrackioRun(Run):
    name = property(lambda self: self.key)

    def log(self, metrics, step=None):
        self._add(metrics, step)

def init(project, name=None, config=None, resume="never"):
    if resume == "never" and name in RUNS:
        name = name + "-of-another-folder"
    return TrackioRun(name, config)
"""


def install(name: str, folder: Path, patch: pytest.MonkeyPatch) -> ModuleType:
    """The module "wandb" or "trackio", importable until the test ends."""
    (folder / f"{name}.py").write_text(BOTH + {"wandb": WANDB, "trackio": TRACKIO}[name])
    patch.delitem(sys.modules, name, raising=False)
    patch.syspath_prepend(str(folder))
    module = __import__(name)
    patch.setitem(sys.modules, name, module)
    return module
