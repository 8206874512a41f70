"""How many cores are there for this process."""

import os

from era_support_packages.system.torchrun import local_processes


def usable_cores() -> int:
    """The cores that this process may use, shared out among those that torchrun started beside it; at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux says
        cores = os.cpu_count() or 1
    return max(1, cores // local_processes())
