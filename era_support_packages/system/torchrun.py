"""What torchrun tells the processes that it starts, in their environment; read before PyTorch is imported."""

import os
from dataclasses import dataclass

_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Started:
    """rank: of this process, from 0. count: of all processes. local_rank: among those of this machine. restarts: so far."""

    rank: int
    count: int
    local_rank: int
    restarts: int


def started_by_torchrun() -> Started | None:
    """What torchrun said to this process; None where it is no process of several."""
    if any(name not in os.environ for name in _NEEDED) or os.environ["WORLD_SIZE"] == "1":
        return None
    rank, count, local_rank = (int(os.environ[name]) for name in _NEEDED[:3])
    return Started(rank, count, local_rank, int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")))


def local_processes() -> int:
    """How many processes torchrun started on this machine; 1 where it started none."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if started_by_torchrun() and "LOCAL_WORLD_SIZE" in os.environ else 1
