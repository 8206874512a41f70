"""What makes a folder that of a finished run, by the names of its files and its summary: known before PyTorch is imported."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any


def summary(folder: Path) -> dict[str, Any]:
    """The contents of summary.json."""
    return json.loads((folder / "summary.json").read_text())


def is_finished(folder: Path) -> bool:
    """Whether the run is complete."""
    try:
        return os.path.isfile(folder / "checkpoint.pt") and bool(summary(folder).get("complete", True))
    except (OSError, ValueError, AttributeError):
        return False


def check_finished(folder: Path) -> None:
    """Raise `FileNotFoundError` where the folder holds no finished run, or one whose checkpoint is no whole file any more."""
    for name in ("checkpoint.pt", "summary.json"):
        if not os.path.isfile(folder / name):
            raise FileNotFoundError(
                f"{folder} is not the folder of a finished run: it has no {name}; give one that has, or train a new one."
            )
    if not is_finished(folder):
        raise FileNotFoundError(
            f"{folder} is not the folder of a finished run: it was stopped before its end; run it again with the same "
            "values, or train a new one."
        )
    if not zipfile.is_zipfile(folder / "checkpoint.pt"):  # PyTorch's files are; that of one cut short has no end
        raise FileNotFoundError(
            f"{folder} cannot be shown: its checkpoint.pt is empty, cut short, or no checkpoint; put back a copy of that file, "
            "give another run, or leave finished_run out and set resume=False to train it again."
        )
