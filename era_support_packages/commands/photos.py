"""Photos that somebody names on a command line: found, decoded in parts, and what cannot be read named."""

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.command_values import CommandLineError, CommandParser
from era_support_packages.system.paths import expanded, no_folder

PART = 64  # photos decoded at a time
TOP = 3  # classes named of each


@dataclass(frozen=True)
class Photo:
    """A file, its pixels uint8 (H, W, 3), or None and what is wrong with it."""

    file: Path
    pixels: np.ndarray | None
    problem: str = ""


def add_photo_options(parser: CommandParser, out: str) -> None:
    """Which network, which photos, and where the results go."""
    parser.add_argument("network", metavar="RUN", help="folder of a run, or a file that Classifier.save wrote")
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="image files, or folders of them")
    parser.add_argument("--out", metavar="FOLDER", help=out)
    parser.add_argument("--force", action="store_true", help="overwrite what is there")


def image_files(paths: Sequence[str]) -> list[Path]:
    """The files that are named, and those images that lie in named folders and below, in order.

    Raises `CommandLineError` for a path where nothing is, and where no image is found.
    """
    from era_support_packages.datasets.decoding import recognized

    found: list[Path] = []
    for path in map(expanded, paths):
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
            found += [file for file in inside if recognized(os.fspath(file)) or _named_like_an_image(file)]
        elif path.is_file():
            found.append(path)
        else:
            raise CommandLineError(f"{path} is not there: give image files, or folders of them.")
    if not found:
        raise CommandLineError(f"No image is in {', '.join(paths)}: give image files, or folders of them.")
    return list(dict.fromkeys(found))


def _named_like_an_image(file: Path) -> bool:
    return file.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def decoded(files: Sequence[Path], bits: int | None) -> Iterator[list[Photo]]:
    """The photos in parts; `bits` as for `decode_images`."""
    from era_support_packages.datasets.decoding import smallest_bits, to_8_bits
    from era_support_packages.datasets.scanning import scan

    for start in range(0, len(files), PART):
        part = files[start : start + PART]
        scanned = scan([os.fspath(file) for file in part], None)
        yield [
            Photo(file, None, found.problem)
            if found.pixels is None
            else Photo(file, to_8_bits(found.pixels, bits or smallest_bits(found.largest)) if found.largest else found.pixels)
            for file, found in zip(part, scanned, strict=True)
        ]


def network_file(name: str) -> Path:
    """The folder or file of a network: a path, or the name of a run in runs/."""
    path, run = expanded(name), Path("runs") / name
    return run if not path.exists() and (run / "checkpoint.pt").is_file() else path


def shown(file: Path) -> str:
    """A path as text that can be printed and written, whatever its bytes."""
    return str(file).encode("utf-8", "backslashreplace").decode()


def check_free(targets: Sequence[Path], force: bool, inputs: Sequence[Path] = (), give: str = "folder with --out") -> None:
    """Raise `CommandLineError` where a file would be overwritten, before anything is computed; an input never may be.

    give: what can be given instead, and by which option.
    """
    given = {file.resolve() for file in inputs}
    if own := next((target for target in targets if target.resolve() in given), None):
        raise CommandLineError(f"{shown(own)} is one of the photos and would be overwritten: give another {give}.")
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


def top_classes(probabilities: np.ndarray, classes: Sequence[str]) -> list[tuple[str, float]]:
    """The likeliest classes of one image with their probabilities (C,), the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:TOP]
    return [(classes[index], float(probabilities[index])) for index in order]


def write_table(file: Path, rows: Sequence[dict[str, Any]], classes: int) -> None:
    """predictions.csv: a row a photo, its likeliest classes, and what is wrong with it."""
    text = io.StringIO()
    has_panels = any("panel" in row for row in rows)
    tops = [f"{name}_{rank}" for rank in range(1, min(TOP, classes) + 1) for name in ("class", "confidence")]
    columns = ["file", *tops, "problem", *(["panel"] if has_panels else [])]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        ranked = {
            f"{name}_{rank}": value
            for rank, (label, sure) in enumerate(row["top"], start=1)
            for name, value in (("class", label), ("confidence", f"{sure:.4f}"))
        }
        known: dict[str, Any] = {name: row[name] for name in ("file", "problem", "panel") if name in row}
        writer.writerow({**known, **ranked})
    write_atomically(file, text.getvalue().encode())


def named_broken(rows: Sequence[dict[str, Any]]) -> str:
    """The sentence for photos that could not be read; "" where all could."""
    broken = [row for row in rows if row["problem"]]
    if not broken:
        return ""
    named = "; ".join(f"{row['file']} ({row['problem']})" for row in broken[:10])
    more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
    return f"{len(broken)} of {len(rows)} photos could not be read: {named}{more}."
