"""Makes a notebook's kernel ready: installs what is missing with the kernel's own Python, and never moves torch; meanwhile
CIFAR-10 is downloaded.

Standard library only: this runs before the requirements are there.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from era_support_packages.datasets.archives import ARCHIVES, addresses, default_root
from era_support_packages.system.download import Download, begin
from era_support_packages.system.paths import expanded

KEPT = ("torch", "torchvision", "numpy")  # whatever is installed of these stays
REPLACEABLE = ("filelock",)  # small and pure Python: older ones take a drive that knows no locks for a busy one
OPENCV_WHEELS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def repository_folder() -> Path:
    """The folder that holds the package: the root of a clone, or site-packages."""
    return Path(__file__).resolve().parents[1]


def project_folder() -> Path:
    """What relative paths mean: the repository's root in a clone, else the folder the notebook was started in.

    The notebook's first cell sets ERA_NOTEBOOK_FOLDER where it cloned the repository itself. A bare clone that was imported from
    the folder above it is not the project either.
    """
    if "ERA_NOTEBOOK_FOLDER" in os.environ:
        return Path(os.environ["ERA_NOTEBOOK_FOLDER"])
    root = repository_folder()
    spec = sys.modules["era_support_packages"].__spec__
    from_above = spec is not None and spec.origin is not None and Path(spec.origin).resolve().parent == root
    return root if (root / "notebooks").is_dir() and not from_above else Path.cwd()


def requirements(text: str) -> dict[str, str]:
    """Package names and their full lines in the text of a requirements file."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]: line for line in lines if line}


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def missing(lines: dict[str, str]) -> list[str]:
    """The requirement lines whose package is not installed at all; versions that are there are left alone, but for old ones of
    `REPLACEABLE`.

    Any OpenCV wheel counts as `opencv-python-headless`: they all bring the same `cv2`, and two of them overwrite each other.
    """
    have_opencv = any(map(installed_version, OPENCV_WHEELS))
    return [
        line
        for name, line in lines.items()
        if (installed_version(name) is None and not (name in OPENCV_WHEELS and have_opencv))
        or (name in REPLACEABLE and is_older(installed_version(name), line))
    ]


def is_older(installed: str | None, line: str) -> bool:
    """Whether an installed version is below the lowest that a requirement line allows, by its numbers alone."""
    lowest = re.search(r">=\s*([\d.]+)", line)
    if installed is None or lowest is None:
        return False
    first, second = ([int(part) for part in re.findall(r"\d+", text)] for text in (installed, lowest[1]))
    return first < second


def install_missing(requirements_file: Path | None = None) -> list[str]:
    """Install the packages of requirements.txt that are missing; returns their lines.

    Every installed package of `KEPT` is pinned meanwhile, so that nothing can replace it. Raises `RuntimeError` with pip's
    last words where it fails, or where torch itself is missing.
    """
    file = requirements_file or repository_folder() / "requirements.txt"
    if not file.is_file():  # installed with pip, which has seen to its requirements
        return []
    wanted = requirements(file.read_text())
    lines = missing(wanted)
    without_torch = [wanted[name] for name in ("torch", "torchvision") if wanted.get(name) in lines]
    if without_torch:
        raise RuntimeError(
            f"{' and '.join(without_torch)} must be there before the notebook starts, in the build that fits this machine; "
            "see https://pytorch.org/get-started/locally/, or run `make run`, which installs everything."
        )
    if not lines:
        return []
    print(textwrap.fill(f"Installing {', '.join(lines)}", 100, break_on_hyphens=False), flush=True)
    pins = [f"{name}=={installed_version(name)}" for name in KEPT if installed_version(name)]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(pins))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *lines]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"pip could not install {', '.join(lines)}: {result.stderr.strip()[-1000:]}")
    importlib.invalidate_caches()
    return lines


def start_download(
    dataset: str = "auto",
    data_root: str | None = None,
    finished_run: str | None = None,
    run_name: str | None = None,
    output_dir: str = "runs",
    resume: bool = True,
) -> Download | None:
    """Begin to download CIFAR-10 or CIFAR-100 where these parameters of the notebook want it and it is not here yet.

    `datasets.load` joins what is under way. For other data nothing happens, nor for bad values: the run names those.
    """
    wanted: str | None = dataset
    try:
        if finished_run is not None:
            wanted = _stored_dataset(expanded(finished_run))
        elif dataset == "auto":
            wanted = (_stored_dataset(expanded(output_dir or "runs") / run_name) if run_name and resume else None) or "cifar10"
        root = default_root() if data_root is None else expanded(data_root)
        if wanted not in ARCHIVES or (archive := ARCHIVES[wanted]).is_here(root):
            return None
        download = begin(root / archive.name, addresses(wanted, archive.url), archive.md5)
    except (TypeError, ValueError, OSError):
        return None
    print(f"Downloading {archive.title} into {root} in the background", flush=True)
    return download


def _stored_dataset(run: Path) -> str | None:
    """The data set of a run that is there."""
    try:
        return json.loads((run / "config.json").read_text())["dataset"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
