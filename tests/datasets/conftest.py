"""A machine without network, proxies and data folders, and a folder of images."""

import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def letters(image_folder: Callable[..., Path]) -> Path:
    """Classes a and b of five images each, without splits."""
    return image_folder({"a": range(5), "b": range(100, 105)})
