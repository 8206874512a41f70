"""Which runs are kept, under which names, and with how much of their weights."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import fingerprint_of
from era_support_packages.datasets.validation import hold_out
from era_support_packages.runs.data_sets import fitting_of, load_fitted
from era_support_packages.runs.entry import COMPLETE, is_locked, read_entry
from era_support_packages.runs.folder import Run, RunBusyError, RunError
from era_support_packages.runs.listing import holds_run
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.tensor_file import read_tensors, write_tensors
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.config_checks import FOLDER_NAME, is_folder_name

_NOT_WRITABLE = "{} cannot be {} ({}): see that it and the folder around it can be written, and that there is room on the disk."


def rename(folder: Path, name: str) -> Path:
    """Give a run another name; returns its new folder. With `run_name` it is found again under that name.

    Raises `RunError` for a name that is none or is taken, and while the run is being trained.
    """
    run = Run(folder)
    check_run(folder)
    if not is_folder_name(name):
        raise RunError(f"{name!r} is no name for a run; give {FOLDER_NAME}.")
    target = folder.parent / name
    if os.path.lexists(target):
        raise RunError(f"{target} is there already: give another name.")
    _require_movable(folder, "renamed")
    with _changing(run, "renamed"):
        before = (folder / "config.json").read_bytes()
        values = {**json.loads(before.decode("utf-8")), "run_name": name}
        write_atomically(folder / "config.json", (json.dumps(values, indent=2) + "\n").encode())
        try:
            os.rename(folder, target)
        except OSError:
            write_atomically(folder / "config.json", before)
            raise
    (target / ".lock").unlink(missing_ok=True)
    return target


def delete(folder: Path) -> None:
    """Delete a run's folder for good. Raises `RunError` for a folder that holds no run, and while the run is being trained."""
    check_run(folder)
    _require_movable(folder, "deleted")
    with _changing(Run(folder), "deleted"):
        pass
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(
            f"{folder} could not be deleted as a whole ({error.strerror or error}): delete the rest yourself."
        ) from None


def prunable(folder: Path) -> str:
    """Why the weights of a run cannot be made smaller; "" where they can."""
    found = read_entry(folder)
    if found.state != COMPLETE:
        return f"it is {found.state}"
    if not os.path.isfile(folder / "checkpoint.pt"):
        return "it has no checkpoint.pt"
    return ""


def prune(folder: Path, weights: str = "half") -> int:
    """Keep the weights of a finished run in half precision, or with `weights="none"` not at all; returns the bytes saved.

    Before the old file goes, the network with the smaller weights must say what it said before of every test image, or for a
    run without a final test of every validation image. Record, figures and logits stay in both cases. Raises `RunError` where a
    prediction changes, where the images cannot be loaded, and for a run that is not finished; the file is as before then.
    """
    if problem := prunable(folder):
        raise RunError(f"{folder} cannot be pruned: {problem}.")
    run = Run(folder)
    with _changing(run, "pruned"):
        file = run.checkpoint_file
        content, before = read_tensors(file), file.stat().st_size
        if not content["model"]:
            return 0
        if weights == "none":
            content["model"] = {}
            write_tensors(file, content)
            return before - file.stat().st_size
        content["model"] = {
            name: value.half() if value.dtype == torch.float32 else value for name, value in content["model"].items()
        }
        smaller = folder / ".pruned.pt"
        try:
            write_tensors(smaller, content)
            changed = _changed_predictions(run, smaller)
            if changed:
                raise RunError(f"{changed} predictions would change in half precision, so that its weights stay as they are.")
            os.replace(smaller, file)
        finally:
            smaller.unlink(missing_ok=True)
        return before - file.stat().st_size


def _changed_predictions(run: Run, file: Path) -> int:
    """Of how many images of the split that a run is judged on the network of a file says another class than the run's own."""
    config = run.config()
    tested = config.final_test
    split = "test" if tested else "training"  # of which its validation images are held out
    try:
        train, test = load_fitted(config.dataset, None, config.skip_broken, fitting_of(config))
    except (ValueError, OSError, RuntimeError) as error:
        raise RunError(f"Its {split} images, by which one sees that no prediction changes, cannot be loaded: {error}") from None
    kept, loaded = run.data(), test if tested else train
    if kept is not None and fingerprint_of(loaded).changes(kept.test if tested else kept.train, split):
        raise RunError(f"{config.dataset!r} holds other {split} images now, so that nobody can see whether a prediction changes.")
    judged = test if tested else hold_out(train, test, config.validation, config.seed)[1]
    before, after = (Classifier.load(path).predict(judged).predicted for path in (run.checkpoint_file, file))
    return int((before != after).sum())


@contextmanager
def _changing(run: Run, done: str) -> Iterator[None]:
    """While no other process trains the run; what hinders a change to its files is a `RunError` that says what to do."""
    with ExitStack() as stack:
        try:
            stack.enter_context(run.locked())
        except RunBusyError:
            raise RunError(f"{run.folder} is being trained by another process: wait until it is done.") from None
        except RunError as error:
            reason = getattr(error.__context__, "strerror", None) or "no permission"
            raise RunError(_NOT_WRITABLE.format(run.folder, done, reason)) from None
        try:
            yield
        except OSError as error:
            raise RunError(_NOT_WRITABLE.format(run.folder, done, error.strerror or error)) from None


def _require_movable(folder: Path, done: str) -> None:
    """Raise `RunError` where the folder around a run may not be changed, before any of its files is."""
    if not os.access(folder.absolute().parent, os.W_OK | os.X_OK):
        raise RunError(_NOT_WRITABLE.format(folder, done, f"{folder.absolute().parent} is read-only"))


def check_run(folder: Path) -> None:
    """Raise `RunError` for what may not be moved or deleted: what is no run, holds other runs, is a link, or is being trained."""
    if folder.is_symlink():
        raise RunError(f"{folder} is a link to a folder: give the folder that it leads to, or remove the link yourself.")
    if not holds_run(folder):
        raise RunError(f"{folder} holds no run: it has no config.json.")
    try:
        TrainingConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        raise RunError(
            f"{folder} is not known to be a run, as its config.json is not one of a run: see to it yourself."
        ) from None
    if inside := sorted(file.parent.name for file in folder.glob("*/config.json")):
        raise RunError(f"{folder} holds other folders of that kind ({', '.join(inside[:5])}): see to it yourself.")
    if is_locked(folder):
        raise RunError(f"{folder} is being trained by another process: wait until it is done.")
