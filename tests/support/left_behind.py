"""Processes that should have ended with the one that started them."""

import time
from collections.abc import Iterable
from pathlib import Path

PATIENCE = 20  # seconds


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended; Linux alone can tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def left_behind(pids: Iterable[int]) -> list[int]:
    """Those that are still running after a while."""
    left, end = list(pids), time.monotonic() + PATIENCE
    while (left := [pid for pid in left if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left
