"""Runs the notebook alone and the unit tests in the environment `colab` or `lowest` (environment.py makes it).

The notebook file lies alone in an empty folder, clones the repository and installs what the environment lacks, twice; nothing
that was there before may move. Then come the unit tests that are not `slow`. Colab has three wheels of OpenCV, which overwrite
each other in one `cv2`, so there the notebook first runs with the one, then again, and the tests, with the other.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from environment import ROOT, EnvironmentProblem, freeze, locked, pip, ready

NOTEBOOK = ROOT / "notebooks" / "gradcam_cifar10.ipynb"
OPENCV = re.compile(r"(opencv-[a-z-]+)==(\d+)\.")


class CheckFailed(Exception):
    """What does not hold in the environment, in one sentence."""


def restore(python: Path) -> None:
    """Bring back exactly what the environment was made with: a run before may have added packages."""
    wanted = (python.parents[1] / "installed.txt").read_text().split("\n")[:-1]
    now = freeze(python)
    names = {line.split("==")[0] for line in wanted}
    extra = [line.split("==")[0] for line in now if line.split("==")[0] not in names]
    moved = sorted(set(wanted) - set(now))
    if extra and pip(python, "uninstall", "--quiet", "--yes", *extra):
        raise CheckFailed(f"{', '.join(extra)} could not be removed from {python.parents[1]}.")
    if moved and pip(python, "install", "--quiet", "--no-deps", *moved):
        raise CheckFailed(f"{', '.join(moved)} could not be installed again in {python.parents[1]}.")


def opencv_wheels(python: Path) -> dict[str, str]:
    """For each major version of OpenCV among the installed wheels one wheel with its version; the newest comes first."""
    found: dict[str, str] = {}
    for line in freeze(python):
        wheel = OPENCV.match(line)
        if wheel:
            found.setdefault(wheel[2], line)
    return dict(sorted(found.items(), reverse=True))


def install_last(python: Path, wheel: str) -> None:
    """Install a wheel of OpenCV once more, over the others: its `cv2` is then the one that is imported."""
    if pip(python, "install", "--quiet", "--no-deps", "--force-reinstall", wheel):
        raise CheckFailed(f"{wheel} could not be installed again.")
    code = "import cv2; print(cv2.__version__)"
    imported = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if not wheel.split("==")[1].startswith(imported):
        raise CheckFailed(f"{wheel} was installed last, yet cv2 is {imported}.")
    print(f"cv2 is now {imported}", flush=True)


def pytest(python: Path, folder: Path, environment: dict[str, str], *arguments: str) -> None:
    """Run pytest; raises `CheckFailed` where a test fails."""
    result = subprocess.run([str(python), "-m", "pytest", *arguments], cwd=folder, env=environment, check=False)
    if result.returncode:
        raise CheckFailed(f"`pytest {' '.join(arguments)}` ended with exit code {result.returncode}.")


def commit_working_tree(repository: Path) -> None:
    """A new git repository that holds what this one has on disk, committed or not, except what git ignores."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name)
    author = ["-c", "user.name=check", "-c", "user.email=check@localhost"]
    for command in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "--message", "as on disk"]):
        subprocess.run(["git", *command], cwd=repository, check=True)


def notebook_alone(python: Path, between: Callable[[], None]) -> None:
    """Run the notebook twice in an otherwise empty folder, `between()` between the runs."""
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ERA_NOTEBOOK_FOLDER")}
    before = set(freeze(python))
    with tempfile.TemporaryDirectory() as work:
        repository, alone = Path(work, "repository"), Path(work, "alone")
        commit_working_tree(repository)
        alone.mkdir()
        shutil.copy(NOTEBOOK, alone)
        environment = outside | {"ERA_REPO_URL": repository.as_uri(), "NO_ALBUMENTATIONS_UPDATE": "1"}
        for attempt in range(2):
            if attempt:
                between()
            pytest(python, alone, environment, "--nbmake", "--nbmake-timeout=600", NOTEBOOK.name)
        if not (alone / "era_support_packages" / "era_support_packages").is_dir() or not list(alone.glob("runs/smoke/*")):
            raise CheckFailed("The notebook ran without cloning the repository beside it or without a folder of its run.")
    moved = sorted(before - set(freeze(python)))
    if moved:
        raise CheckFailed(f"The notebook replaced what was installed: {', '.join(moved)}.")
    kept = sorted(line for line in before if line.startswith(("torch==", "torchvision==", "numpy==")))
    print(f"The notebook ran alone, twice; {', '.join(kept)} stayed as they were.", flush=True)


def check(name: str) -> None:
    """All checks in environment `name`; raises `CheckFailed` at the first that fails."""
    started = time.monotonic()

    def took(part: str) -> None:
        nonlocal started
        print(f"{name}: {part} took {time.monotonic() - started:.0f} s", flush=True)
        started = time.monotonic()

    python = ready(name)
    with locked(python.parents[1].with_name(python.parents[1].name + ".check")):
        took("making the environment ready")
        restore(python)
        wheels = list(opencv_wheels(python).values())
        if len(wheels) > 1:
            install_last(python, wheels[0])
        notebook_alone(python, between=lambda: install_last(python, wheels[-1]) if len(wheels) > 1 else None)
        took("the notebook alone, twice")
        inside = os.environ | {"PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}
        options = ["-n", "2", "--dist", "worksteal", "-m", "not slow and not several", "--durations=15"]
        pytest(python, ROOT, inside, *options, *sys.argv[2:])
        took("the unit tests")


def main() -> int:
    """Check the environment that the command line names; further arguments go to the unit tests."""
    if len(sys.argv) < 2:
        print("usage: check.py colab|lowest [arguments of pytest for the unit tests]", file=sys.stderr)
        return 2
    try:
        check(sys.argv[1])
    except EnvironmentProblem as problem:
        print(problem, file=sys.stderr)
        return problem.code
    except CheckFailed as failed:
        print(f"{sys.argv[1]}: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
