"""Where the time of the notebook goes: seconds of each section of a copy that was executed.

python -m era_support_packages.notebook run -p preset fast
python benchmarks/notebook_sections.py runs/NAME/notebook.ipynb --json notebook_sections.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from bench import publish


def sections(notebook: dict[str, Any]) -> dict[str, float]:
    """Seconds of the code cells below each heading of the second level, from papermill's metadata.

    Raises `ValueError` for a notebook that papermill did not execute.
    """
    found: dict[str, float] = {}
    title = "before the first section"
    for cell in notebook["cells"]:
        first = "".join(cell["source"]).split("\n", 1)[0]
        if cell["cell_type"] == "markdown" and first.startswith("## "):
            title = first[3:]
        elif cell["cell_type"] == "code":
            duration = cell["metadata"].get("papermill", {}).get("duration")
            if duration is None:
                raise ValueError("a cell has no duration: give the copy that the notebook command executed, not the source.")
            found[title] = found.get(title, 0.0) + duration
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="the executed copy, notebook.ipynb in the folder of a run")
    parser.add_argument("--json", metavar="FILE", help="also write the result into this file")
    chosen = parser.parse_args()
    try:
        found = sections(json.loads(Path(chosen.notebook).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{chosen.notebook} cannot be used: {error}")
    whole = sum(found.values())
    rows = [{"section": title, "seconds": seconds, "share %": 100 * seconds / whole} for title, seconds in found.items()]
    longest = max(found, key=found.get)
    ratio = found[longest] / whole
    publish("notebook_sections", rows, ratio, f"{whole:.4g} s in all, {ratio:.2f} of it for {longest}.", chosen.json)


if __name__ == "__main__":
    main()
