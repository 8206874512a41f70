"""Makes the environment NAME, or finds it made before, and prints its Python as the last line: `environment.py colab`.

NAME is the newest list here called NAME.txt or NAME-YEAR-MONTH.txt, whose first line names its Python (`# Python 3.13`;
without one it is the running Python), or `lowest`: what requirements.txt declares at the least, on the lowest Python that
pyproject.toml allows. Standard library only, since it runs before anything is installed.

Exit codes: 69 where there is no such Python, 75 where pip failed three times (then it is not our fault), 2 for a wrong NAME.
"""

import argparse
import contextlib
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NO_PYTHON, NOT_INSTALLED = 69, 75  # EX_UNAVAILABLE and EX_TEMPFAIL of sysexits.h
PAUSES = (10, 30)  # seconds before the second try and the third
UNUSED_DAYS = 30  # an environment of several GB that nobody asked for is removed after these


class EnvironmentProblem(Exception):
    """Why there is no such environment, and the exit code that says so."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def read_list(file: Path) -> list[str]:
    """The requirement lines of a file without comments, those of the files that it names by `-r` in their place."""
    lines: list[str] = []
    for raw in file.read_text().splitlines():
        line = re.split(r"(?:^|\s)#", raw)[0].strip()
        if line.startswith("-r "):
            lines += read_list(file.parent / line[3:].strip())
        elif line:
            lines.append(line)
    return lines


def lowest_versions(lines: list[str]) -> list[str]:
    """`name>=1.2,<3` becomes `name==1.2`; raises `ValueError` for a line that declares no lowest version."""
    pinned = []
    for line in lines:
        found = re.fullmatch(r"([\w.-]+)\s*>=\s*([\w.]+)(?:\s*,[^;]*)?", line)
        if not found:
            raise ValueError(f"requirements.txt: '{line}' must declare its lowest version, as in 'name>=1.2' or 'name>=1.2,<3'.")
        pinned.append(f"{found[1]}=={found[2]}")
    return pinned


def definition(name: str) -> tuple[list[str], str]:
    """The requirement lines of environment `name` and its Python, such as '3.13'."""
    if name == "lowest":
        declared = re.search(r'requires-python = ">=(\d+\.\d+)"', (ROOT / "pyproject.toml").read_text())
        lines = lowest_versions(read_list(ROOT / "requirements.txt")) + read_list(ROOT / "requirements-dev.txt")
        return lines, declared[1]
    dated = re.compile(re.escape(name) + r"(-\d{4}-\d{2})?\.txt")
    files = sorted(file for file in HERE.glob("*.txt") if dated.fullmatch(file.name))
    if not files:
        known = sorted({re.sub(r"(-\d{4}-\d{2})?\.txt$", "", file.name) for file in HERE.glob("*.txt")} | {"lowest"})
        raise EnvironmentProblem(f"There is no environment '{name}'; choose one of {', '.join(known)}.", 2)
    version = re.match(r"# Python (\d+\.\d+)\n", files[-1].read_text())
    return read_list(files[-1]), version[1] if version else "{}.{}".format(*sys.version_info)


def version_of(python: str) -> str | None:
    """The full version of an interpreter, such as '3.13.0', or None where it does not run (a shim of pyenv may not)."""
    code = "import sys; print('{}.{}.{}'.format(*sys.version_info))"
    try:
        result = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def candidates(version: str) -> Iterator[str]:
    """Where a Python of this version may be: this one, the PATH, and the folders of pyenv and uv."""
    yield sys.executable
    for command in (f"python{version}", "python3", "python"):
        yield from filter(None, [shutil.which(command)])
    pyenv = os.environ.get("PYENV_ROOT", "~/.pyenv")
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(os.environ.get("XDG_DATA_HOME", "~/.local/share"), "uv/python")
    for pattern in (f"{pyenv}/versions/{version}.*/bin/python", f"{uv}/cpython-{version}.*/bin/python3"):
        yield from sorted(glob.glob(os.path.expanduser(pattern)), reverse=True)


def find_python(name: str, version: str, asked: str | None) -> tuple[str, str]:
    """The interpreter for environment `name` and its full version; `asked` (or NAME_PYTHON) is taken instead of searching."""
    variable = f"{name.upper()}_PYTHON"
    asked = asked or os.environ.get(variable)
    for python in [shutil.which(os.path.expanduser(asked)) or asked] if asked else candidates(version):
        full = version_of(python)
        if full and full.startswith(version + "."):
            return python, full
    where = f"{asked} is not one" if asked else "there is none on the PATH or where pyenv and uv keep theirs"
    raise EnvironmentProblem(
        f"The environment '{name}' needs Python {version}, and {where}: get it by `pyenv install {version}` or "
        f"`uv python install {version}`, or name one by {variable}=/path/to/python.",
        NO_PYTHON,
    )


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("ERA_ENVIRONMENTS") or os.path.join(cache, "era-support-packages")).expanduser()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else makes or changes the environment in `folder` meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pip(python: Path, *arguments: str) -> int:
    """Run pip in an environment, its words on stderr; returns its exit code."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode


def freeze(python: Path) -> list[str]:
    """The packages of an environment with their versions."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "freeze", "--all"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def make(folder: Path, base: str, lines: list[str]) -> None:
    """Install `lines` into a new environment in `folder`; the list of what is there, written last, marks it as finished.

    Raises `EnvironmentProblem` after three tries.
    """
    python = folder / "bin/python"
    for pause in (*PAUSES, None):
        shutil.rmtree(folder, ignore_errors=True)
        failed = subprocess.run([base, "-m", "venv", str(folder)], stdout=sys.stderr, check=False).returncode
        if not failed:
            (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
            failed = pip(python, "install", "--quiet", "--upgrade", "pip") or pip(
                python, "install", "--quiet", "-r", str(folder / "requirements.txt")
            )
        if not failed:
            unfinished = folder / "installed.txt.unfinished"
            unfinished.write_text("\n".join(freeze(python)) + "\n")
            unfinished.rename(folder / "installed.txt")
            return
        if pause is not None:
            print(f"This did not install; trying again in {pause} s.", file=sys.stderr)
            time.sleep(pause)
    raise EnvironmentProblem(
        f"{folder.name} could not be installed in {len(PAUSES) + 1} tries; pip says why above.", NOT_INSTALLED
    )


def remove_unused(folder: Path) -> None:
    """Remove the environments beside `folder` that nobody has asked for in `UNUSED_DAYS`."""
    for mark in folder.parent.glob("*/installed.txt"):
        if mark.parent != folder and time.time() - mark.stat().st_mtime > UNUSED_DAYS * 86400:
            print(f"Removing {mark.parent}, which was not used in {UNUSED_DAYS} days.", file=sys.stderr)
            mark.unlink()
            shutil.rmtree(mark.parent, ignore_errors=True)


def ready(name: str, asked: str | None = None) -> Path:
    """The Python of environment `name`, which is made where there is none yet; `asked` is the Python to make it with."""
    lines, version = definition(name)
    base, full = find_python(name, version, asked)
    key = hashlib.sha256("\n".join([full, *lines]).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{key}"
    python = folder / "bin/python"
    with locked(folder):
        if not (folder / "installed.txt").is_file() or version_of(str(python)) != full:
            print(f"Making {folder} with Python {full}: several minutes and several GB.", file=sys.stderr)
            make(folder, base, lines)
        (folder / "installed.txt").touch()
        remove_unused(folder)
    return python


def main(arguments: list[str] | None = None) -> int:
    """Make or find the environment that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make an environment for tests, or find it, and print its Python.")
    parser.add_argument("name", help="colab, lowest, or another list in tests/environments/")
    parser.add_argument("--python", help="the interpreter to make it with; else NAME_PYTHON= or the first that is found")
    given = parser.parse_args(arguments)
    try:
        print(ready(given.name, given.python))
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        return problem.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
