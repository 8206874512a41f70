"""Plant faults in the package, one at a time, and count how many the unit tests find.

python tools/plant_faults.py --count 40 --seed 0 [--tests FOLDER] [--json FILE]

A fault is a small change of one expression: another comparison, another operator, a number that is off by one, `not` lost, a
condition turned round. The seed decides which; the same package and seed give the same faults. Each is planted in a copy of the
package, and the tests of its module, then of its room, then all but the slow ones run until one fails. One that none fails, or
whose tests only run into the time limit, is printed with its place. --tests names the folder of another state of the tests, to
tell whether fewer of them find as much. With --json the result goes on where it stopped.
"""

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "era_support_packages"
OPERATORS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}
LIMIT = 600  # seconds for the tests of one fault


@dataclass(frozen=True)
class Fault:
    """One change of one file: `old` at that place becomes `new`; offsets in characters of the whole text."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str


def faults(file: Path) -> Iterator[Fault]:
    """Every fault that can be planted in a file."""
    text = file.read_text(encoding="utf-8")
    data, starts = text.encode(), [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(line: int, column: int) -> int:
        return len(data[: starts[line - 1] + column].decode())

    def fault(node: ast.expr, start: int, end: int, new: str) -> Fault:
        return Fault(str(file.relative_to(ROOT)), node.lineno, start, end, text[start:end], new)

    def between(left: ast.expr, right: ast.expr, operator: ast.AST) -> Iterator[Fault]:
        if type(operator) not in OPERATORS:
            return
        old, new = OPERATORS[type(operator)]
        start, end = place(left.end_lineno, left.end_col_offset), place(right.lineno, right.col_offset)
        if text[start:end].count(old) == 1:
            at = text.index(old, start, end)
            yield fault(right, at, at + len(old), new)

    for node in reached(ast.parse(text)):
        if isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                yield from between(left, right, operator)
        elif isinstance(node, ast.BinOp):
            yield from between(node.left, node.right, node.op)
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from between(left, right, node.op)
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            start, end = place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)
            value = node.value
            yield fault(node, start, end, str(not value) if isinstance(value, bool) else repr(value + 1))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            start, end = place(node.lineno, node.col_offset), place(node.operand.lineno, node.operand.col_offset)
            yield fault(node, start, end, "")
        elif isinstance(node, ast.IfExp):
            start, end = place(node.test.lineno, node.test.col_offset), place(node.test.end_lineno, node.test.end_col_offset)
            yield fault(node, start, end, f"not ({text[start:end]})")


def reached(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes whose meaning can matter: no annotation, nothing under TYPE_CHECKING, no part of a text."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            continue
        yield node
        for name, child in ast.iter_fields(node):
            if name not in ("annotation", "returns"):
                waiting.extend(part for part in (child if isinstance(child, list) else [child]) if isinstance(part, ast.AST))


def chosen(count: int, seed: int) -> list[Fault]:
    """So many faults, no two on one line."""
    every = [fault for file in sorted((ROOT / PACKAGE).rglob("*.py")) for fault in faults(file)]
    random.Random(seed).shuffle(every)
    found: dict[tuple[str, int], Fault] = {}
    for fault in every:
        if len(found) == count:
            break
        found.setdefault((fault.file, fault.line), fault)
    return list(found.values())


def test_sets(fault: Fault, tests: Path) -> Iterator[list[str]]:
    """What to run, the tests nearest to the fault first."""
    module = Path(fault.file).relative_to(PACKAGE)
    room = tests.joinpath(*module.parts[:1]) if len(module.parts) > 1 else tests / f"test_{module.stem}.py"
    nearest = [str(file) for file in sorted(tests.rglob(f"test_{module.stem}*.py"))]
    yield from ([files] for files in nearest)
    if room.exists():
        yield [str(room)]
    yield [str(tests)]


def first_failure(files: list[str], copy: Path, processes: int) -> str | None:
    """The first of these tests that fails, "time limit" where they did not end in time, None where all pass."""
    words = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *(["-n", str(processes)] if processes > 1 else [])]
    command = [sys.executable, "-m", "pytest", *words, *files]
    try:
        result = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return "time limit"
    failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if result.returncode in (0, 5):  # 5: none of these tests is chosen
        return None
    if not failed:
        raise SystemExit(f"The tests could not be run:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return failed[0]


def found_by(fault: Fault, tests: Path, copy: Path, processes: int) -> str | None:
    """The first test that fails with a fault planted; as `first_failure`."""
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    file.write_text(text[: fault.start] + fault.new + text[fault.end :], encoding="utf-8")
    try:
        return next((found for files in test_sets(fault, tests) if (found := first_failure(files, copy, processes))), None)
    finally:
        file.write_text(text, encoding="utf-8")


def environment(copy: Path) -> dict[str, str]:
    """The tests import the copy, in one thread, and write no byte code that an older text could leave behind."""
    return os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="faults (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="decides which (default: 0)")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="folder of the tests (default: this repository's)")
    parser.add_argument("--processes", type=int, default=2, help="of the tests (default: 2)")
    parser.add_argument("--unchecked", action="store_true", help="do not first see whether the tests pass without a fault")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results in this file, and go on from it")
    options = parser.parse_args()
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data", "__pycache__", ".*_cache"))
        if options.tests.resolve() != ROOT / "tests":
            shutil.rmtree(copy / "tests")
            shutil.copytree(options.tests, copy / "tests")
        if not options.unchecked and (broken := first_failure([str(copy / "tests")], copy, options.processes)):
            parser.error(f"without a fault the tests must pass: {broken}")
        for fault in chosen(options.count, options.seed):
            done = {name: value for name, value in asdict(fault).items() if name != "found by"}
            if any(done.items() <= row.items() for row in rows):
                continue
            start = time.monotonic()
            row = done | {"found by": found_by(fault, copy / "tests", copy, options.processes)}
            rows.append(row)
            said = row["found by"] or "NOT FOUND"
            print(
                f"{fault.file}:{fault.line}: {fault.old!r} -> {fault.new!r}: {said} ({time.monotonic() - start:.0f} s)",
                flush=True,
            )
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    missed = [row for row in rows if row["found by"] in (None, "time limit")]
    print(f"{len(rows) - len(missed)} of {len(rows)} faults were found.")


if __name__ == "__main__":
    main()
