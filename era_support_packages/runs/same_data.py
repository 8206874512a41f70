"""Which folder a run has: that of the same request over the same data, which a fingerprint tells, not the place where it lies."""

import json
from collections.abc import Callable
from typing import Any

from era_support_packages.datasets.fingerprint import DataFingerprint
from era_support_packages.runs.folder import Run
from era_support_packages.system.paths import expanded
from era_support_packages.training.config import TrainingConfig

NO_FINGERPRINT = (
    "{} was trained before runs kept a fingerprint of their data: whether it belongs to the data that is loaded cannot be told."
)


def run_of(requested: TrainingConfig, data: DataFingerprint, report: Callable[[str], None]) -> Run:
    """The run that a request has over this data; its folder may not be there yet.

    That is the folder of its name, unless a run over other data is in it. Then it is one that holds the same request over this
    data, from another path or another folder's name, or a new one named after the data: `NAME-data-3f2a91`. A line says so.
    """
    root = expanded(requested.output_dir)
    name = requested.run_name or requested.default_run_name(data.name)
    run = Run(root / name)
    if not run.folder.exists():
        return (requested.run_name is None and _elsewhere(requested, data)) or run
    if not (run.folder / "config.json").is_file() or requested.replace(dataset="auto").differences(run.config()):
        return run  # empty, or refused in other words
    kept = run.data()
    if kept is None:
        report(NO_FINGERPRINT.format(run.folder))
        return run
    changes = data.changes(kept)
    if not changes:
        return run
    other = (requested.run_name is None and _elsewhere(requested, data)) or Run(root / _with_data(name, data))
    report(f"{run.folder} belongs to other data ({changes}); this data has a run of its own, {other.folder}.")
    return other


def _with_data(name: str, data: DataFingerprint) -> str:
    return f"{name}-data-{data.digest[:6]}"


def _elsewhere(requested: TrainingConfig, data: DataFingerprint) -> Run | None:
    """A run of the same request over the same data that was given by another path."""
    for file in sorted(expanded(requested.output_dir).glob("*/data.json")):
        run = Run(file.parent)
        try:
            kept = DataFingerprint.from_dict(json.loads(file.read_text()))
            stored = json.loads((run.folder / "config.json").read_text())["dataset"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # no run, or a broken one
            continue
        if data.changes(kept):
            continue
        for dataset in (stored, "auto"):  # "auto" is written down as what it was
            name = requested.replace(dataset=dataset).default_run_name(kept.name)
            if run.name in (name, _with_data(name, data)):
                return run
    return None


def named_run(overrides: dict[str, Any]) -> Run | None:
    """The run that a name given by hand belongs to, if it is there."""
    name, root = overrides.get("run_name"), overrides.get("output_dir") or "runs"
    if not isinstance(name, str) or not isinstance(root, str):
        return None
    run = Run(expanded(root) / name)
    try:
        return run if (run.folder / "config.json").is_file() else None
    except (OSError, ValueError):  # no name of a folder; the configuration says so in its own words
        return None
