"""A finished run that is shown again: what its small files say of it must be what it was trained with."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from era_support_packages.datasets.image_dataset import data_fingerprint
from era_support_packages.datasets.loading import NAMES
from era_support_packages.runs.data_sets import Splits, fitting_of, folder_of_images, load_fitted
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.same_data import NO_FINGERPRINT
from era_support_packages.system.machine import resolve_device
from era_support_packages.system.paths import expanded
from era_support_packages.training.adapting import adapted
from era_support_packages.training.asked import NOT_IN_THE_NAME
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import PreparedConfig, TrainingConfig

NEW_FOLDER = "set resume=False to train it again in a new folder."
LEAVE_OUT = "give another run, or leave finished_run out and set resume=False to train it again."
_SHOWN = 0.005  # of what is shown with two decimals


def whole_checkpoint(run: Run, way_out: str) -> Checkpoint:
    """The checkpoint of a finished run with its weights; `way_out` is what to do without them.

    Raises `CheckpointError` where it cannot be read, and `RunError` where it holds no weights any more.
    """
    checkpoint = Checkpoint.load(run.checkpoint_file, f"put back a copy of the file, or {way_out}")
    if not checkpoint.model:
        raise RunError(
            f"{run.checkpoint_file} holds no weights any more, as they were removed from this run: the commands compare and "
            f"export --to card still tell of it; to have its network, {way_out}"
        )
    return checkpoint


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


def require_its_data(run: Run, stored: PreparedConfig, dataset: Any) -> None:
    """Raise `RunError` where the data set that is given beside a finished run is another: one of the names does not move."""
    if dataset not in (None, "auto", stored.dataset) and (dataset in NAMES or stored.dataset in NAMES):
        raise RunError(
            f"{run.folder} was trained on {stored.dataset!r}, and dataset is {dataset!r}: leave it out to show this run, "
            f"give a run of {dataset!r}, or leave finished_run out to train one."
        )


def data_of(
    run: Run, config: PreparedConfig, data_root: str | None, given: Any, report: Callable[[str], None]
) -> tuple[Splits, str]:
    """The data of a finished run, and the place that it was loaded from as that was written: where its configuration says, or
    else where the person says that it lies now: at `given`, in `data_root` under its name, or there under any other.
    """
    first = config.dataset
    gone = first not in NAMES and folder_of_images(first, data_root) is None
    places = [first, *([given] if given not in (None, "auto", first) else [])]
    kept = run.data()
    if first not in NAMES and kept is not None and data_root is not None:  # its fingerprint tells whether it is this one
        places.append(_below(data_root, first))
    problem: Exception | None = None
    for place in places:
        try:
            train, test = load_fitted(place, data_root, config.skip_broken, fitting_of(config))
        except (ValueError, FileNotFoundError) as error:
            problem = problem or error
            continue
        if kept is None:
            report(NO_FINGERPRINT.format(run.folder))
        elif changes := data_fingerprint(train, test).changes(kept):
            problem = RunError(
                f"{run.folder} was trained on other data than is loaded: {changes}. Give the data_root of the data that it was "
                "trained on, or train a new run."
            )
            continue
        same = given not in (None, "auto") and _is_same_folder(given, place, data_root)
        return (train, test), given if same else place
    if gone and not isinstance(problem, RunError):
        raise RunError(
            f"The data of {run.folder} is not at {first!r} any more: give the folder that it is now, or that is in, as data_root."
        ) from None
    assert problem is not None
    raise problem


def _below(data_root: str, dataset: str) -> str:
    """Where data that is gone may lie now: in that folder under its name of before, else that folder itself, under another."""
    root = expanded(data_root)
    inside = root / os.path.basename(os.path.normpath(dataset))
    return str(inside if inside.is_dir() else root)


def _is_same_folder(first: str, second: str, data_root: str | None) -> bool:
    folders = [folder_of_images(dataset, data_root) for dataset in (first, second)]
    return None not in folders and len({folder.resolve() for folder in folders if folder is not None}) == 1


def unused(run: Run, config: PreparedConfig, given: Mapping[str, Any]) -> str:
    """A sentence with the given values that are not used for a finished run, which is shown as it was trained; "" for none.

    given: values of a configuration, and `preset`, `resume` and `devices`. config: the run's, on this machine.
    """
    kept = {
        **config.to_dict(),
        "preset": config.preset_name,
        "run_name": run.name,
        "output_dir": str(run.folder.parent.resolve()),
        "devices": run.summary().get("processes", 1),
        "resume": True,
    }
    asked = {name: value for name, value in given.items() if value not in (None, "auto")}
    if asked.get("devices") == 1:  # where nothing is said
        del asked["devices"]
    asked = _as_kept(asked, config)
    found = [
        f"{name} {value!r}" + (f" (the run has {kept[name]!r})" if name != "resume" else "")
        for name, value in asked.items()
        if value != kept[name]
    ]
    if not found:
        return ""
    values = ", ".join(found)
    return f"{run.folder} is finished and shown as it was trained, so that these values are not used: {values}."


def _as_kept(asked: Mapping[str, Any], config: PreparedConfig) -> dict[str, Any]:
    """Values as a stored configuration has them: lengths in px of its images, and places in full."""
    own = {name: value for name, value in asked.items() if name not in ("preset", "resume", "devices")}
    found = dict(asked)
    try:
        values = TrainingConfig.preset(asked.get("preset", config.preset_name), **own).to_dict()
        found |= {name: value for name, value in adapted(values, config.image_size).items() if name in own}
    except ValueError:
        if own.keys() - config.to_dict().keys():  # of no configuration
            raise
    if "device" in own:
        found["device"] = str(resolve_device(own["device"]))
    if "output_dir" in own:
        found["output_dir"] = str(expanded(own["output_dir"]).resolve())
    return found
