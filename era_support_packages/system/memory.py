"""How much memory is free."""

import contextlib
from pathlib import Path

_CONTAINER = (  # limit, use, and the line of memory.stat with cached files that make room: of both generations of control groups
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a process can still take: of the machine, or of the container it runs in; None where nobody says."""
    found = [value for value in (_of_machine(root), _of_container(root)) if value is not None]
    return max(0, min(found)) if found else None


def _of_machine(root: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return 1024 * _line(root / "proc/meminfo", "MemAvailable:")
    with contextlib.suppress(ImportError):
        import psutil

        return int(psutil.virtual_memory().available)
    return None


def _of_container(root: Path) -> int | None:
    folder = root / "sys/fs/cgroup"
    for limit, used, cached in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            free = int((folder / limit).read_text()) - int((folder / used).read_text())
            with contextlib.suppress(OSError, ValueError):
                free += _line((folder / used).with_name("memory.stat"), cached)
            return free
    return None


def _line(file: Path, name: str) -> int:
    """The number behind a name in a file of lines. Raises `OSError` or `ValueError` where it is not there."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name} "):
            return int(line.split()[1])
    raise ValueError(f"{file} has no line {name!r}.")


def in_words(count: float) -> str:
    """A number of bytes for people: "3.2 GB", "640 MB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
