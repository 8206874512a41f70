"""The archives of CIFAR-10 and CIFAR-100: where they lie, what they hold, and what would be there already. Standard library only.

The environment variables ERA_CIFAR10_URL and ERA_CIFAR100_URL name a second address each of the same archive, which is asked when
the first is slow or silent.
"""

import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from era_support_packages.system.download_attempt import is_whole
from era_support_packages.system.paths import expanded


@dataclass(frozen=True)
class Archive:
    """An archive as torchvision knows it, which is slow to import (a test compares the two)."""

    title: str
    url: str
    md5: str
    folder: str  # inside it
    files: tuple[str, ...]  # in that folder

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.url.rpartition("/")[2]

    def is_here(self, root: Path) -> bool:
        """Whether it needs no download: its files, or itself, are in the folder `root`."""
        return all((root / self.folder / file).is_file() for file in self.files) or is_whole(root / self.name, self.md5)


ARCHIVES = {
    "cifar10": Archive(
        title="CIFAR-10",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        files=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": Archive(
        title="CIFAR-100",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        files=("train", "test", "meta"),
    ),
}


def default_root() -> Path:
    """The folder that the environment variable ERA_DATA_ROOT names, else `data` in the current folder.

    >>> from era_support_packages.datasets import default_root
    >>> print(default_root() / "cifar-10-batches-py")  # where CIFAR-10 is looked for
    data...cifar-10-batches-py
    """
    return expanded(os.environ.get("ERA_DATA_ROOT") or "data")


def second_address(name: str) -> str:
    """The environment variable that names another address of the archive "cifar10" or "cifar100"."""
    return f"ERA_{name.upper()}_URL"


def addresses(name: str, first: str) -> tuple[str, ...]:
    """Where to ask for the archive "cifar10" or "cifar100": `first`, then the second address if there is one.

    Raises ValueError where that is no address.
    """
    second = os.environ.get(second_address(name), "").strip()
    if not second or second == first:
        return (first,)
    try:
        parts = urllib.parse.urlsplit(second)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{second_address(name)} is {second!r}: give an address that starts with https:// or http://, or none.")
    return first, second
