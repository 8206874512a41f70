"""readings.json: what the figures in a run's folder say in words, by their names, for whoever reports on the run."""

import contextlib
import json
from pathlib import Path

from era_support_packages.system.atomic_file import write_atomically

_NAME = "readings.json"


def keep_reading(folder: Path, figure: str, text: str) -> None:
    """Write down what a figure of that name says, beside what others do."""
    readings = {**kept_readings(folder), figure: text}
    write_atomically(folder / _NAME, (json.dumps(readings, indent=2) + "\n").encode())


def kept_readings(folder: Path) -> dict[str, str]:
    """What was written down; nothing where the file is missing or broken."""
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        return {str(name): str(text) for name, text in kept.items()} if isinstance(kept, dict) else {}
    return {}
