"""How much memory is free."""

import contextlib
from pathlib import Path

_CONTAINER = (  # limit and use, of both generations of control groups
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory() -> int | None:
    """Bytes that a process can still take: of the machine, or of the container it runs in; None where nobody says."""
    found = [value for value in (_of_machine(), _of_container()) if value is not None]
    return max(0, min(found)) if found else None


def _of_machine() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
    with contextlib.suppress(ImportError):
        import psutil

        return int(psutil.virtual_memory().available)
    return None


def _of_container() -> int | None:
    for limit, used in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
            return int(Path(limit).read_text()) - int(Path(used).read_text())
    return None


def in_words(count: float) -> str:
    """A number of bytes for people: "3.2 GB", "640 MB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
