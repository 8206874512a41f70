"""A file is replaced as a whole or not at all, whatever interrupts the writer; its traces are tidied up, and nothing else."""

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from era_support_packages.system.atomic_file import remove_leftovers, write_atomically

START = "import os, sys\nfrom pathlib import Path\nfrom era_support_packages.system.atomic_file import write_atomically\n"
START += "file = Path(sys.argv[1])\n"


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old and long")
    return path


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_the_content_is_replaced_and_on_the_disk_before_it_takes_the_name(kind, file, monkeypatch):
    seen, fsync, replace = [], os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        seen.append(("fsync", os.fstat(descriptor).st_size, file.read_bytes()))
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        seen.append(("replace", Path(source).parent == file.parent, Path(source).read_bytes(), target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_atomically(file, kind(b"newer"))
    assert seen == [("fsync", 5, b"old and long"), ("replace", True, b"newer", file)]
    assert file.read_bytes() == b"newer"
    write_atomically(file.with_name("another.txt"), kind(b"first"))
    assert file.with_name("another.txt").read_bytes() == b"first"
    assert files(file.parent) == ["another.txt", "file.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_write_that_fails_midway_leaves_the_old_content_and_no_other_file(function, error, file, monkeypatch):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, function, fail)
    for path in (file, file.with_name("another.txt")):
        with pytest.raises(type(error)) as raised:
            write_atomically(path, b"new")
        if isinstance(error, OSError):  # it names the file itself, which a full disk does not
            assert str(raised.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{path}'"
        else:
            assert raised.value is error
    assert file.read_bytes() == b"old and long"
    assert files(file.parent) == ["file.txt"]


def test_two_threads_that_write_the_same_file_keep_apart(file, monkeypatch):
    other, fsync, seen = threading.Thread(target=write_atomically, args=(file, b"from the other")), os.fsync, []

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
    assert files(file.parent) == ["file.txt"]


def test_a_folder_that_is_not_there_is_said_and_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "file.txt", b"new")
    assert files(tmp_path) == []


def test_a_full_disk_leaves_the_old_content_and_no_other_file(file, run_code):
    pytest.importorskip("resource")
    code = f"""{START}
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    write_atomically(file, bytes(100_001))
except OSError as error:
    print(error.errno, os.listdir(file.parent))
write_atomically(file.with_name("fits.txt"), bytes(100_000))
"""
    assert run_code(code, file) == f"{errno.EFBIG} ['file.txt']\n"
    assert file.read_bytes() == b"old and long"
    assert files(file.parent) == ["file.txt", "fits.txt"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_killed_writer_leaves_the_old_content_and_a_temporary_file_that_is_removed(function, file, run_code):
    code = f"""{START}
import signal, threading
print(os.getpid(), threading.get_ident(), sep="-", flush=True)
os.{function} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(file, b"new")
"""
    temporary = f".file.txt.{run_code(code, file, returncode=-signal.SIGKILL).strip()}.tmp"
    assert files(file.parent) == [temporary, "file.txt"]
    remove_leftovers(file.parent)
    assert file.read_bytes() == b"old and long"
    assert files(file.parent) == ["file.txt"]


def test_only_temporary_files_are_removed(tmp_path):
    checkpoint = ".checkpoint.pt.12-7"
    leftovers = [f"{checkpoint}.tmp", ".metrics.csv.4194304-140338581195648.tmp", ".a.1-2.3-4.tmp"]
    kept = [".12-7.tmp", checkpoint, f"{checkpoint}.tmp.txt", f"{checkpoint}a.tmp", ".checkpoint.pt.tmp", ".lock", ".notes.tmp"]
    kept += ["checkpoint.pt", "checkpoint.pt.12-7.tmp", "notes.tmp"]
    folder = tmp_path / ".folder.12-7.tmp"
    folder.mkdir()
    for path in (*(tmp_path / name for name in leftovers + kept), folder / leftovers[0]):
        path.write_text("precious")
    remove_leftovers(tmp_path)
    assert files(tmp_path) == sorted([*kept, folder.name])
    assert files(folder) == leftovers[:1]
    assert all((tmp_path / name).read_text() == "precious" for name in kept)
