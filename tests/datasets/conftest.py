"""A machine without network, and CIFAR-10 in the official layout with twelve images."""

import hashlib
import pickle
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's proxies or data folders, and none reaches beyond it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("ERA_DATA_ROOT", "ERA_CACHE_DIR", "ERA_CIFAR10_URL", "ERA_CIFAR100_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib looks at the proxies only once
    monkeypatch.chdir(tmp_path)
    connect = socket.create_connection

    def connect_here(address: tuple[str, int], *args: object, **kwargs: object) -> socket.socket:
        if address[0] != "127.0.0.1":
            raise OSError(101, "Network is unreachable")
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", connect_here)


@pytest.fixture
def official() -> Callable[[Path, object], list[str]]:
    """Writes a value as the official files were written; gives the file's name and md5, as torchvision lists them."""

    def write(file: Path, value: object) -> list[str]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(value, protocol=2))
        return [file.name, hashlib.md5(file.read_bytes()).hexdigest()]

    return write


@pytest.fixture
def root(tmp_path: Path, official: Callable[[Path, object], list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with ten training images in five batches, and two test images, whose md5 torchvision expects."""
    folder = tmp_path / "root" / CIFAR10.base_folder
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 3072), dtype=np.uint8)
    batches = [
        official(folder / f"data_batch_{number}", {"data": pixels[number], "labels": [number, number - 1]})
        for number in range(1, 6)
    ]
    test = official(folder / "test_batch", {"data": pixels[0], "labels": [9, 0]})
    name, md5 = official(folder / "batches.meta", {"label_names": CLASSES, "num_vis": 3072})
    monkeypatch.setattr(CIFAR10, "train_list", batches)
    monkeypatch.setattr(CIFAR10, "test_list", [test])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path / "root"
