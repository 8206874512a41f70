"""What commands on photos share: their options, where they write, and the table that they write."""

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.paths import expanded, no_folder, printable_path


def add_photo_options(parser: CommandParser, out: str) -> None:
    """Which network, which photos, and where the results go."""
    parser.add_argument("network", metavar="RUN", help="folder of a run, or a file that Classifier.save wrote")
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files, or folders of them")
    parser.add_argument("--out", metavar="FOLDER", help=out)
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def network_file(name: str) -> Path:
    """The folder or file of a network: a path, or the name of a run in runs/."""
    path, run = expanded(name), Path("runs") / name
    return run if not path.exists() and (run / "checkpoint.pt").is_file() else path


def check_free(targets: Sequence[Path], force: bool, inputs: Sequence[Path] = (), give: str = "folder with --out") -> None:
    """Raise `CommandLineError` where a file would be overwritten, before anything is computed; an input never may be.

    give: what can be given instead, and by which option.
    """
    given = {file.resolve() for file in inputs}
    if own := next((target for target in targets if target.resolve() in given), None):
        raise CommandLineError(f"{printable_path(own)} is one of the photos and would be overwritten: give another {give}.")
    if problem := next((problem for target in targets if (problem := no_folder(target.parent))), ""):
        raise CommandLineError(f"Nothing can be written there ({problem}): give another {give}.")
    there = [] if force else [target for target in targets if os.path.lexists(target)]
    if there:
        more = f" and {len(there) - 1} more are" if len(there) > 1 else " is"
        raise CommandLineError(f"{there[0]}{more} there already: give another {give}, or --force to overwrite.")


@contextlib.contextmanager
def folder_for(folder: Path) -> Iterator[None]:
    """Make a folder; where writing into it fails, what was made and is still empty goes again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in made:
            with contextlib.suppress(OSError):  # something is in it
                place.rmdir()
        raise


def write_table(file: Path, rows: Sequence[dict[str, Any]], classes: int) -> None:
    """predictions.csv: a row a photo: its likeliest classes, the temperature of their confidences, and what is wrong with it."""
    from era_support_packages.runs.photos import TOP

    text = io.StringIO()
    has_panels = any("panel" in row for row in rows)
    tops = [f"{name}_{rank}" for rank in range(1, min(TOP, classes) + 1) for name in ("class", "confidence")]
    columns = ["file", *tops, "temperature", "problem", *(["panel"] if has_panels else [])]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        ranked = {
            f"{name}_{rank}": value
            for rank, (label, sure) in enumerate(row["top"], start=1)
            for name, value in (("class", label), ("confidence", f"{sure:.4f}"))
        }
        known: dict[str, Any] = {name: row[name] for name in ("file", "temperature", "problem", "panel") if name in row}
        writer.writerow({**known, **ranked})
    write_atomically(file, text.getvalue().encode())
