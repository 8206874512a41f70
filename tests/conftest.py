"""What the whole test run shares."""

import gc
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def pytest_collection_finish() -> None:
    """The million objects of the imports stay; each garbage collection in a test would look through them all again."""
    gc.collect()
    gc.freeze()


def pytest_sessionstart() -> None:
    """Ctrl-C works in the tests and in what they start, also in a job in the background, where a shell has switched it off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny_classifier():
    """A `Classifier` of three colors at 8 px, for the images of `tiny.colored_images`; its network has learnt nothing."""
    from tiny import CLASSES, MEAN, STD, tiny_network  # here, as many tests need no torch

    from era_support_packages.classifier import Classifier

    return Classifier(tiny_network().eval(), CLASSES, MEAN, STD, resolution=8)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """`image_folder({"train/a": [10, 11], "test/a": [12]})` writes 32x32 images, each of one red and named by it."""

    def write(reds: dict[str, Iterable[int]], name: str = "letters", kind: str = "bmp") -> Path:
        for label, values in reds.items():
            (tmp_path / name / label).mkdir(parents=True)
            for red in values:
                Image.new("RGB", (32, 32), (red, 0, 0)).save(tmp_path / name / label / f"{red}.{kind}")
        return tmp_path / name

    return write


@pytest.fixture
def run_code() -> Callable[..., str]:
    """`run_code(code, *arguments)` runs it in a Python of its own, in the repository's root, and gives what it printed."""

    def run(code: str, *arguments: object, returncode: int = 0, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == returncode, done.stderr[-2000:]
        return done.stdout

    return run
