"""How much memory is free: of the machine, or of a container, whose cached files make room."""

import pytest

from era_support_packages.system.memory import free_memory, in_words

MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n"}
SECOND = {"memory.max": "3000000\n", "memory.current": "2500000\n", "memory.stat": "anon 9\ninactive_file 1500000\n"}
FIRST = {
    "memory.limit_in_bytes": "9000",
    "memory.usage_in_bytes": "5000",
    "memory.stat": "inactive_file 7\ntotal_inactive_file 100",
}


@pytest.mark.parametrize(
    ("container", "free"),
    [
        ({}, 4_096_000),
        (SECOND, 2_000_000),
        (SECOND | {"memory.stat": "anon 9"}, 500_000),
        (SECOND | {"memory.max": "max"}, 4_096_000),
        (SECOND | {"memory.max": "100000000000"}, 4_096_000),
        (SECOND | {"memory.current": "9000000"}, 0),
        ({f"memory/{name}": text for name, text in FIRST.items()}, 4_100),
    ],
)
def test_it_is_that_of_the_machine_or_the_container_whichever_is_less(container, free, tmp_path):
    for name, text in (MACHINE | {f"sys/fs/cgroup/{name}": text for name, text in container.items()}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert free_memory(tmp_path) == free


def test_this_machine_says_how_much_it_has():
    assert free_memory() > 0
    assert (in_words(3.21e9), in_words(640e6)) == ("3.2 GB", "640 MB")
