"""Plant faults in the package, one at a time, and count how many the unit tests find.

python tools/plant_faults.py --count 40 --seed 0 [--tests FOLDER] [--json FILE]

A fault is a small change of one expression: another comparison, another operator, a number that is off by one, `not` lost, a
condition turned round. The seed decides which; the same package and seed give the same faults. First all tests but the slow ones
run once in a copy of the package, and coverage.py notes which of them reach which line; the share of lines and branches that
they reach is printed. Then each fault is planted, and the tests that reach its statement run until one fails, those of its module
first. One that none finds, or whose tests only run into the time limit, is printed with its place. What a child process of a test
reaches is not noted. --tests names the folder of another state of the tests, to tell whether fewer of them find as much. With
--json the result goes on where it stopped.
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

from coverage import CoverageData

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
    line: int  # of the changed expression
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


def statement(text: str, line: int) -> range:
    """The lines of the innermost statement there; of one with a body, those above it."""
    spans = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.stmt):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        if first <= line <= node.end_lineno:
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body and body[0].lineno > line else node.end_lineno
            spans.append(range(first, max(last, node.lineno) + 1))
    return min(spans, key=len)


def reaching(fault: Fault, coverage: CoverageData, copy: Path) -> list[str]:
    """The tests that reach a fault's statement, the nearest first; where only an import runs it, all that reach its file."""
    module = Path(fault.file).relative_to(PACKAGE)
    contexts = coverage.contexts_by_lineno(fault.file)
    lines = statement((copy / fault.file).read_text(encoding="utf-8"), fault.line)
    tests = {name.rpartition("|")[0] for line in lines for name in contexts.get(line, []) if name}
    if any("" in contexts.get(line, []) for line in lines):
        tests |= {name.rpartition("|")[0] for names in contexts.values() for name in names if name}

    def distance(test: str) -> tuple[bool, bool, str]:
        file = Path(test.partition("::")[0])
        return not file.stem.startswith(f"test_{module.stem}"), file.parent.name != module.parent.name, test

    return sorted(tests, key=distance)


def pytest(words: list[str], copy: Path, processes: int, limit: float | None = LIMIT) -> tuple[int, str] | None:
    """Exit code and output of the tests but the slow ones; None where they did not end in time."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow and not several", "-p", "no:cacheprovider", *words]
    command += ["-n", str(processes)] if processes > 1 else []
    try:
        result = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    return result.returncode, result.stdout + result.stderr


def first_failure(tests: list[str], copy: Path, processes: int) -> str | None:
    """The first of these tests that fails, "time limit" where they did not end in time, None where all pass."""
    if not tests:
        return None
    ended = pytest(["-x", *tests], copy, processes if len(tests) > 20 else 1)
    if ended is not None and ended[0] == 4:  # the fault changed the names of a test's cases: all of the file's then
        ended = pytest(["-x", *dict.fromkeys(test.partition("::")[0] for test in tests)], copy, processes)
    if ended is None:
        return "time limit"
    code, said = ended
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if code == 3:  # the fault ended pytest itself, as a module does that leaves when it is imported
        failed = failed or [line for line in said.splitlines() if line.startswith("INTERNALERROR")][-1:]
    if code in (0, 5):  # 5: none of these tests is chosen
        return None
    if not failed:
        raise SystemExit(f"The tests could not be run:\n{said[-2000:]}")
    return failed[0]


def found_by(fault: Fault, coverage: CoverageData, copy: Path, processes: int) -> str | None:
    """The first test that fails with a fault planted; as `first_failure`."""
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    tests = reaching(fault, coverage, copy)
    file.write_text(text[: fault.start] + fault.new + text[fault.end :], encoding="utf-8")
    try:
        return first_failure(tests, copy, processes)
    finally:
        file.write_text(text, encoding="utf-8")


def covered(copy: Path, processes: int, kept: Path) -> CoverageData:
    """What each test reaches, from a run of all without a fault, which must pass; `kept` has it where there was one before."""
    if not kept.exists():
        (copy / ".coveragerc").write_text("[run]\nrelative_files = true\n")
        words = [f"--cov={PACKAGE}", "--cov-branch", "--cov-context=test", "--cov-report=json:reached.json"]
        ended = pytest(words, copy, processes, limit=None)
        if ended is None or ended[0]:
            raise SystemExit(f"Without a fault the tests must pass:\n{ended and ended[1][-2000:]}")
        shutil.copy(copy / ".coverage", kept)
        totals = json.loads((copy / "reached.json").read_text())["totals"]
        for what, done, of in (("lines", "covered_lines", "num_statements"), ("branches", "covered_branches", "num_branches")):
            print(f"The tests reach {totals[done]} of {totals[of]} {what} ({totals[done] / totals[of]:.2%}).", flush=True)
    data = CoverageData(str(kept))
    data.read()
    return data


def not_needed(folder: str, names: list[str]) -> set[str]:
    """What a copy of the repository leaves out; `runs` at its top only, as the package has a room of that name."""
    top = {"runs", "data"} & set(names) if Path(folder) == ROOT else set()
    return top | shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")(folder, names)


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
    parser.add_argument("--reached", type=Path, metavar="FILE", help="keep here which test reaches which line, and read it again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results in this file, and go on from it")
    options = parser.parse_args()
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        shutil.copytree(ROOT, copy, ignore=not_needed)
        if options.tests.resolve() != ROOT / "tests":
            shutil.rmtree(copy / "tests")
            shutil.copytree(options.tests, copy / "tests")
        reached = covered(copy, options.processes, options.reached or Path(folder) / "reached")
        for fault in chosen(options.count, options.seed):
            done = {name: value for name, value in asdict(fault).items() if name != "found by"}
            if any(done.items() <= row.items() for row in rows):
                continue
            start = time.monotonic()
            row = done | {"found by": found_by(fault, reached, copy, options.processes)}
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
