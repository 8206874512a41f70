"""A file is replaced as a whole or not at all, whatever interrupts the writer; its traces are tidied up, and nothing else."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from era_support_packages.system.atomic_file import remove_leftovers, write_atomically

ROOT = Path(__file__).resolve().parents[2]


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def run_writer(code: str, file: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own that runs the code with `file` and `write_atomically` defined."""
    start = "import os, sys\nfrom pathlib import Path\nfrom era_support_packages.system.atomic_file import write_atomically\n"
    command = [sys.executable, "-c", f"{start}file = Path(sys.argv[1])\n{code}", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_the_content_is_replaced(kind: type, tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    write_atomically(file, kind(b"old and long"))
    assert file.read_bytes() == b"old and long"
    write_atomically(file, kind(b"new"))
    assert file.read_bytes() == b"new"
    assert files(tmp_path) == ["file.txt"]


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "file.txt", []
    file.write_bytes(b"old")
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        seen.append(("fsync", os.fstat(descriptor).st_size, file.read_bytes()))
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        seen.append(("replace", Path(source).parent == tmp_path, Path(source).read_bytes(), target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomically(file, b"newer")
    assert seen == [("fsync", 5, b"old"), ("replace", True, b"newer", file)]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_fails_midway_leaves_the_old_content_and_no_other_file(
    function: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, function, failing(error))
    for path in (file, tmp_path / "another.txt"):
        with pytest.raises(type(error)) as raised:
            write_atomically(path, b"new")
        assert raised.value is error
    assert file.read_bytes() == b"old"
    assert files(tmp_path) == ["file.txt"]


def test_two_threads_that_write_the_same_file_keep_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, fsync = tmp_path / "file.txt", os.fsync
    other = threading.Thread(target=write_atomically, args=(file, b"from the other"))
    seen = []

    def overtaken(descriptor: int) -> None:
        if threading.current_thread() is not other:  # the other writes from its start to its end meanwhile
            other.start()
            other.join()
            seen.append(file.read_bytes())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", overtaken)
    write_atomically(file, b"from this one")
    assert seen == [b"from the other"]
    assert file.read_bytes() == b"from this one"
    assert files(tmp_path) == ["file.txt"]


def test_a_folder_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "file.txt", b"new")
    assert files(tmp_path) == []


def test_a_full_disk_leaves_the_old_content_and_no_other_file(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    file = tmp_path / "file.txt"
    file.write_bytes(b"old")
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    write_atomically(file, bytes(100_001))
except OSError as error:
    print(error.errno, os.listdir(file.parent))
write_atomically(file.with_name("fits.txt"), bytes(100_000))
"""
    ended = run_writer(code, file)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{errno.EFBIG} ['file.txt']\n"
    assert file.read_bytes() == b"old"
    assert files(tmp_path) == ["file.txt", "fits.txt"]


# ---- what a killed writer leaves -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_killed_writer_leaves_the_old_content_and_a_temporary_file_that_is_removed(function: str, tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(b"old")
    code = f"""
import signal, threading
print(os.getpid(), threading.get_ident(), sep="-", flush=True)
os.{function} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(file, b"new")
"""
    ended = run_writer(code, file)
    assert ended.returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old"
    assert files(tmp_path) == [f".file.txt.{ended.stdout.strip()}.tmp", "file.txt"]
    remove_leftovers(tmp_path)
    assert file.read_bytes() == b"old"
    assert files(tmp_path) == ["file.txt"]


def test_only_temporary_files_are_removed(tmp_path: Path) -> None:
    leftovers = [".checkpoint.pt.12-7.tmp", ".metrics.csv.4194304-140338581195648.tmp", ".a.1-2.3-4.tmp"]
    kept = [
        ".12-7.tmp",
        ".checkpoint.pt.12-7",
        ".checkpoint.pt.12-7.tmp.txt",
        ".checkpoint.pt.12-7a.tmp",
        ".checkpoint.pt.tmp",
        ".lock",
        ".notes.tmp",
        "checkpoint.pt",
        "checkpoint.pt.12-7.tmp",
        "notes.tmp",
    ]
    for name in leftovers + kept:
        (tmp_path / name).write_text("precious")
    folder = tmp_path / ".folder.12-7.tmp"
    folder.mkdir()
    (folder / leftovers[0]).write_text("precious")
    remove_leftovers(tmp_path)
    assert files(tmp_path) == sorted([*kept, folder.name])
    assert files(folder) == leftovers[:1]
    assert all((tmp_path / name).read_text() == "precious" for name in kept)
