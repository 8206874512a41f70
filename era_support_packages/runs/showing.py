"""A finished run that is shown again: what its small files say of it must be what it was trained with."""

import json
from collections.abc import Mapping
from typing import Any

from era_support_packages.runs.folder import Run, RunError
from era_support_packages.training.asked import NOT_IN_THE_NAME
from era_support_packages.training.checkpoint import Checkpoint

_SHOWN = 0.005  # of what is shown with two decimals


def require_as_trained(run: Run, checkpoint: Checkpoint) -> None:
    """Raise `RunError` where config.json or summary.json of a finished run says another thing than its checkpoint.

    Whatever is told of it from these files would be wrong then; the sentence names the first value that differs. What only the
    machine decides may differ, and the place of data that a fingerprint tells. What an older version did not write holds its
    default.
    """
    stored, trained = run.config().to_dict(), checkpoint.config.to_dict()
    free = set(NOT_IN_THE_NAME)
    if stored["device"].split(":")[0] != trained["device"].split(":")[0]:  # another one suits where it went on
        free.add("precision")
    if run.data() is not None:
        free.add("dataset")
    _require_same(run, "config.json", {name: value for name, value in stored.items() if name not in free}, trained)
    if checkpoint.complete:
        last = checkpoint.records[-1]
        accuracies = {name: getattr(last, name) for name in ("test_accuracy", "validation_accuracy")}
        _require_same(run, "summary.json", run.summary(), {**accuracies, "epochs": len(checkpoint.records)}, _SHOWN)


def _require_same(run: Run, file: str, said: Mapping[str, Any], trained: Mapping[str, Any], apart: float = 0.0) -> None:
    for name, value in said.items():
        if name in trained and value != trained[name] and not _close(value, trained[name], apart):
            here, there = json.dumps(value), json.dumps(trained[name])
            raise RunError(
                f'{run.folder / file} was changed after the run: it says "{name}": {here}, but checkpoint.pt, which is the run '
                f"itself, says {there}; put {there} back into {file}."
            )


def _close(value: Any, other: Any, apart: float) -> bool:
    """Whether two figures are the same as they are shown."""
    try:
        return abs(value - other) <= apart or (value != value and other != other)  # what is no number equals nothing
    except TypeError:
        return False
