"""What the benchmarks share: alternating measurements, rows that are trained one by one, a table, and the files of results."""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.machine import describe, versions

ROOT = Path(__file__).resolve().parents[1]


# ---- measurements of minutes -----------------------------------------------------------------------------------------


def alternate(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each measure once a round, in turn: what slows the machine for a while slows them all."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
            print(f"  round {number + 1}/{rounds}  {name}: {found[name][-1]:.4g}", file=sys.stderr, flush=True)
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios within the rounds."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def options(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", help="also write the result into this file")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"alternating rounds (default: {rounds})")
    return parser


def publish(name: str, rows: list[dict[str, Any]], ratio: float, sentence: str, file: str | None) -> None:
    """Print the rows as a table and the sentence below it; write both to a file if one is named."""
    print(table(rows))
    print(sentence)
    if file:
        command = " ".join(["python", f"benchmarks/{name}.py", *sys.argv[1:]])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        result = {
            "benchmark": name,
            "command": command,
            "hardware": describe(device),
            "versions": versions(),
            "rows": rows,
            "ratio": ratio,
            "sentence": sentence,
        }
        _write(Path(file), result)


# ---- rows that are trained one by one ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowFile:
    """The rows of a benchmark that trains for hours: each is written as soon as it is there.

    A row's "key" is the digest of what was trained; the values behind each digest stand once in the file, under "recipes".
    """

    path: Path

    def rows(self) -> list[dict[str, Any]]:
        """The rows there are."""
        return self._content()["rows"]

    def recipes(self) -> dict[str, dict[str, Any]]:
        """The values behind each key."""
        return self._content()["recipes"]

    def add(self, row: dict[str, Any], recipe: dict[str, Any]) -> None:
        """Write one row more and the values behind its key, the file as a whole or not at all."""
        self._write([*self.rows(), row], {**self.recipes(), row["key"]: recipe})

    def merge(self, file: str | Path, identity: Sequence[str]) -> int:
        """Take over the rows of another file that are missing here, by the columns that tell rows apart; returns how many.

        Raises `ValueError` where the other file holds no rows with keys.
        """
        other = RowFile(Path(file))
        if not other.path.is_file():
            raise ValueError(f"{file} is not there: give a file of rows such as {self.path.name}.")
        try:
            rows, recipes = other.rows(), other.recipes()
            names = [[row[name] for name in identity] for row in rows]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file} holds no rows with keys: give a file of rows such as {self.path.name}.") from None
        there = [[row[name] for name in identity] for row in self.rows()]
        missing = [row for row, name in zip(rows, names, strict=True) if name not in there]
        if missing:
            self._write([*self.rows(), *missing], {**recipes, **self.recipes()})
        return len(missing)

    def copy(self, file: str | None) -> None:
        """Write the rows into another file too, if one is named."""
        if file and Path(file).resolve() != self.path:
            _write(Path(file), json.loads(self.path.read_text()))

    def _content(self) -> dict[str, Any]:
        return json.loads(self.path.read_text()) if self.path.exists() else {"rows": [], "recipes": {}}

    def _write(self, rows: list[dict[str, Any]], recipes: dict[str, dict[str, Any]]) -> None:
        name = self.path.stem
        command = f"python benchmarks/{name}.py --full --json benchmarks/results/{name}.json"
        content = {"benchmark": name, "command": command, "versions": versions(), "recipes": recipes, "rows": rows}
        _write(self.path, content)


def row_options(description: str) -> argparse.ArgumentParser:
    """The options of the benchmarks that train their rows."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="train the rows that are missing")
    parser.add_argument("--data", default="auto", help="data set to train on (default: auto)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument(
        "--shared", action="store_true", help="mark the rows as trained beside other work: their seconds are not averaged"
    )
    parser.add_argument("--merge", metavar="FILE", help="take over the rows of another file that are missing")
    parser.add_argument("--json", metavar="FILE", help="also write the stored rows into this file")
    return parser


def merge(parser: argparse.ArgumentParser, stored: RowFile, file: str | None, identity: Sequence[str]) -> None:
    """Take over the rows of the file given with --merge, if there is one, and say how many."""
    if file is not None:
        try:
            report(f"{stored.merge(file, identity)} rows taken over from {file}.")
        except ValueError as error:
            parser.error(str(error))


def report(line: str) -> None:
    """Progress goes beside the table."""
    print(line, file=sys.stderr, flush=True)


def commit() -> str:
    """The commit of the checkout, with "+" where files other than stored results were changed since; "unknown" outside of one."""
    name = _git("rev-parse", "--short", "HEAD").stdout.strip()
    changed = _git("diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results").returncode
    return f"{name}{'+' if changed else ''}" if name else "unknown"


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


# ---- what is printed and written ---------------------------------------------------------------------------------------


def _write(file: Path, result: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(result, indent=2) + "\n").encode())


def table(rows: list[dict[str, Any]]) -> str:
    """The rows under their headings in columns of fixed width, the first at the left and the others at the right."""
    columns = list(rows[0])
    cells = [columns] + [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    lines = []
    for line in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
