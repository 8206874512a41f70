"""A lock on a file that no crash leaves behind."""

from pathlib import Path

from filelock import BaseFileLock, FileLock


def file_lock(file: Path) -> BaseFileLock:
    """A lock of the system, which lifts it when the process ends, however it ends. It does not wait for its turn."""
    try:
        return FileLock(file, timeout=0, fallback_to_soft=False)
    except TypeError:  # an older filelock, as a kernel may bring it, knows no other kind to fall back to
        return FileLock(file, timeout=0)
