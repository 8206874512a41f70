"""Reads image files, each once: pixels, SHA-256, depth, size, and what is wrong with it.

JPEG files are read in child processes. libjpeg fills up what it cannot decode, and says so on stderr alone: no decoder that is
installed here raises an error. Only a process whose stderr is nobody else's can tell which file a warning belongs to.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

import cv2
import numpy as np

from era_support_packages.datasets.decoding import (
    BITS,
    IMAGE_ENDINGS,
    JpegUncheckedError,
    Picture,
    UndecodableError,
    decode,
    recognized,
    to_8_bits,
)
from era_support_packages.datasets.errors import DatasetError
from era_support_packages.datasets.fitting import Fitting, fitted
from era_support_packages.datasets.statistics import pixel_sums
from era_support_packages.system.progress import progress_bar

CHUNK = 128  # files a task: large enough to hide the cost of a task, small enough for a smooth progress bar
_JPEG_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif")
_READY = b"ready\n"
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; serve()"


@dataclass(frozen=True, eq=False)
class ScannedFile:
    """What one reading of a file has brought.

    problem: why it gives no picture, "" where it does, with what helps behind "; "; damaged: whether it should have given one.
    pixels: as in `decoding.Picture`, resized where that was asked for; or their sums alone, int64 (3, 2) as of `pixel_sums`, and
        (5, 3, 2) of a deep picture, one for each of `BITS` that it may be read as. size: (height, width) in the file.
    """

    problem: str = ""
    damaged: bool = False
    sha256: bytes = bytes(32)
    size: tuple[int, int] = (0, 0)
    largest: int = 0
    pictures: int = 0
    pixels: np.ndarray | None = None


def scan(
    files: Sequence[str],
    fitting: Fitting | None,
    name: str | None = None,
    sums: bool = False,
    so_far: Callable[[list[ScannedFile]], None] = lambda _: None,
) -> list[ScannedFile]:
    """Read files, in parallel: what was found, in their order; a bar shows progress where it has a name.

    fitting: how the pixels are brought to one size; None leaves them as they are. sums: keep the sums of the pixels alone.
    so_far: is given what was found of the first files, again and again.
    """
    found: list[ScannedFile] = []
    starts = range(0, len(files), CHUNK)
    workers = max(1, min(os.cpu_count() or 1, len(starts)))
    with contextlib.ExitStack() as stack:
        children = _Children(stack)
        # Threads, because OpenCV decodes without holding the interpreter's lock, and a child process works by itself.
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        bar = stack.enter_context(progress_bar(len(files), f"reading {name}", " images", delay=0.5, disable=name is None))
        for part in pool.map(lambda start: _scan_chunk(files[start : start + CHUNK], fitting, sums, children), starts):
            found += part
            bar.update(len(part))
            so_far(found)
    return found


def _scan_chunk(files: Sequence[str], fitting: Fitting | None, sums: bool, children: "_Children") -> list[ScannedFile]:
    found: dict[str, ScannedFile] = {}
    for file in files:
        if not file.lower().endswith(_JPEG_ENDINGS):
            with contextlib.suppress(JpegUncheckedError):  # by its content, whatever its name
                found[file] = scan_file(file, fitting, sums)
    if left := [file for file in files if file not in found]:
        found.update(zip(left, children.scan(left, fitting, sums), strict=True))
    return [found[file] for file in files]


def scan_file(
    file: str, fitting: Fitting | None, sums: bool = False, jpeg_warnings: Callable[[], str] | None = None
) -> ScannedFile:
    """Read one file. Raises `JpegUncheckedError` for a JPEG without `jpeg_warnings` (see `decoding.decode`)."""
    ending = os.path.splitext(file)[1].lower()
    sha256 = bytes(32)
    try:
        if ending not in IMAGE_ENDINGS and not recognized(file):  # it may be a film or an archive of many gigabytes
            return ScannedFile(f"no image ({ending})" if ending else "no image")
        with open(file, "rb") as stream:
            data = stream.read()
        sha256 = hashlib.sha256(data).digest()
        picture: Picture = decode(data, jpeg_warnings)
    except OSError as error:
        return ScannedFile(f"it cannot be read ({error.strerror or error})", damaged=True)
    except UndecodableError as error:
        return ScannedFile(str(error), error.damaged, sha256)
    pixels = picture.pixels if fitting is None else fitted(picture.pixels, fitting)
    if sums:
        deep = bool(picture.largest)
        pixels = np.stack([pixel_sums(to_8_bits(pixels, bits)) for bits in BITS]) if deep else pixel_sums(pixels)
    return ScannedFile("", False, sha256, picture.pixels.shape[:2], picture.largest, picture.pictures, pixels)


# ---- child processes -------------------------------------------------------------------------------------------------


class _Children:
    """A child process for each thread that asks, started when it first does, ended with the stack."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack, self.own, self.lock = stack, threading.local(), threading.Lock()

    def scan(self, files: Sequence[str], fitting: Fitting | None, sums: bool) -> list[ScannedFile]:
        """`scan_file` of each, in this thread's child."""
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            return self._ask(files, fitting, sums)
        self.own.child = None  # it ended: one of the files has brought a decoder down
        if len(files) == 1:
            return [ScannedFile("the decoder breaks down over it", damaged=True)]
        return [found for file in files for found in self.scan([file], fitting, sums)]

    def _ask(self, files: Sequence[str], fitting: Fitting | None, sums: bool) -> list[ScannedFile]:
        child: subprocess.Popen[bytes] | None = getattr(self.own, "child", None)
        if child is None:
            child = self.own.child = self._start()
        asked = [list(files), fitting and dataclasses.astuple(fitting), sums]
        _pipe(child.stdin).write(json.dumps(asked).encode() + b"\n")
        _pipe(child.stdin).flush()
        return pickle.load(_pipe(child.stdout))

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _CHILD.format(module=__name__), json.dumps(sys.path)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self.lock:
            self.stack.callback(_end, child)
        if _pipe(child.stdout).readline() != _READY:
            why = _pipe(child.stderr).read().decode(errors="replace").strip().splitlines()
            raise DatasetError(f"No process can be started that reads JPEG files: {why[-1] if why else 'it ended at once'}.")
        return child


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # a child has pipes for all three
    return stream


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def serve() -> None:
    """What a child process does: for each line with names of files on stdin, what was found in them on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is this one's
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), "wb")
    with tempfile.TemporaryFile() as log:
        answers.write(_READY)
        answers.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        said = _said(log.fileno())
        for line in sys.stdin.buffer:
            files, values, sums = json.loads(line)
            fitting = values and Fitting(*values)
            pickle.dump([scan_file(file, fitting, sums, said.__next__) for file in files], answers)
            answers.flush()


def _said(log: int) -> Iterator[str]:
    """What was written to the log since the last time."""
    while True:
        length = os.lseek(log, 0, os.SEEK_END)
        text = os.pread(log, length, 0).decode(errors="replace")
        os.ftruncate(log, 0)
        os.lseek(log, 0, os.SEEK_SET)
        yield text
