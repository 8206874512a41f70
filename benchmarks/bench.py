"""What every benchmark shares: alternating measurements, a table, and the file of results."""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from era_support_packages.atomic_file import write_atomically
from era_support_packages.hardware import describe, versions


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
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(file), (json.dumps(result, indent=2) + "\n").encode())


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
