"""What lies in the folder of a run, and epochs to put there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from era_support_packages.training.history import EpochRecord


def files(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def snapshot(root: Path) -> dict[str, tuple[bytes, int] | None]:
    """Names, contents and times of everything below a folder, but for the locks."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(root.rglob("*"))
        if path.name != ".lock"
    }


@contextmanager
def untouched(root: Path) -> Iterator[None]:
    """What happens within changes nothing below that folder."""
    before = snapshot(root)
    yield
    assert snapshot(root) == before


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def records(count: int) -> tuple[EpochRecord, ...]:
    """That many epochs of 24 images at 8 px, each of 1.5 seconds."""
    return tuple(EpochRecord(epoch, 8, 24, 0.05, 1.0, 50.0, 1.0, 50.0, 5, 10, 1.5) for epoch in range(1, count + 1))
