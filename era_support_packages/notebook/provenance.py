"""What a page is made with: the values that were given, the data, the machine, the day."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from era_support_packages.evaluation.tables import wrapped
from era_support_packages.notebook.parameters import Parameters
from era_support_packages.runs.preparation import PreparedRun
from era_support_packages.system.machine import describe, resolve_device, versions
from era_support_packages.training.adapting import usual
from era_support_packages.training.config import ConfigValues, TrainingConfig
from era_support_packages.training.cost import duration

# "auto" in every preset: what the machine and the data make of it is no choice of the person
RESOLVED = ("device", "precision", "engine", "stream", "workers", "threads")


@dataclass(frozen=True)
class Provenance:
    """One sentence or two, as Markdown in a notebook and as wrapped text elsewhere."""

    sentence: str

    def _repr_markdown_(self) -> str:
        return self.sentence

    def __repr__(self) -> str:
        return wrapped(self.sentence.replace("`", ""))


def of_run(parameters: Parameters, prepared: PreparedRun) -> Provenance:
    """What the outputs of a notebook are made with, as far as it is known before training."""
    run, config = prepared.run, prepared.config
    values = parameters.changed
    if parameters.knobs["finished_run"] is not None:
        values = changed_values(run.config())
    elif parameters.knobs["preset"] == "auto":
        values = {"preset": config.preset_name, **values}  # what "auto" stands for here
    here = f"{describe(resolve_device(config.device))}; PyTorch {versions()['torch']}"
    if run.finished:
        summary = run.summary()
        trained = f"{summary['hardware']} with PyTorch {summary['versions']['torch']}, in {duration(summary['seconds'])}"
        how = f"the run `{run.folder}` was finished before (on {trained}) and is shown here"
    elif done := run.complete_epochs():
        how = f"the run `{run.folder}` was begun before and goes on here after epoch {done}"
    else:
        how = f"the run `{run.folder}` is trained here"
    return Provenance(
        f"These outputs are made with {listed(values)}; every other value is the preset's or the parameters cell's. "
        f"Data: {prepared.train.title}; hardware: {here}; {today()}; {how}."
    )


def of_failed(parameters: Parameters) -> str:
    """What is known of a notebook that ended before it could say what it is made with."""
    return (
        f"This notebook was run with {listed(parameters.changed)}; every other value is the preset's or the parameters cell's. "
        f"Hardware: {describe(resolve_device())}; PyTorch {versions()['torch']}; {today()}."
    )


def changed_values(config: ConfigValues) -> dict[str, Any]:
    """The preset of a stored configuration, and the values by which it differs from that preset."""
    values = config.to_dict()
    preset = TrainingConfig.preset(values.pop("preset_name"))
    standard = usual(preset.to_dict(), values)
    changed = {name: value for name, value in values.items() if value is not None and value != standard[name]}
    return {"preset": preset.preset_name, **{name: changed[name] for name in changed if name not in RESOLVED}}


def listed(values: Mapping[str, Any]) -> str:
    """Names and values as Markdown: `epochs = 3`, `seed = 1`."""
    return ", ".join(f"`{name} = {value!r}`" for name, value in values.items()) or "`preset = 'auto'`"


def today() -> str:
    """The day, as 2026-07-31."""
    return datetime.date.today().isoformat()
