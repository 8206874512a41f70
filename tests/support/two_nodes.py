"""Two nodes on one machine: network namespaces joined by one link, each with an address and a file of hosts of its own."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LINK = "era0"  # how both call their end


@dataclass(frozen=True)
class Node:
    """A node by the name of its namespace and its address."""

    name: str
    address: str

    def command(self, *words: str) -> list[str]:
        """What runs the words there."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Let nothing pass the link any more; no connection is told."""
        _ip("-n", self.name, "link", "set", LINK, "down")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def why_not() -> str:
    """Why no namespaces can be made here, "" where they can."""
    if shutil.which("ip") is None:
        return "there is no ip (iproute2)"
    name = f"era{os.getpid()}try"
    try:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "add", LINK, "type", "veth", "peer", "name", "era1")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces may not be made here: {str(getattr(error, 'stderr', error)).strip()}"
    finally:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            _ip("netns", "delete", name)
    return ""


@contextmanager
def two_nodes() -> Iterator[tuple[Node, Node]]:
    """Two of them while it lasts; whatever still runs in them in the end is killed."""
    nodes = tuple(Node(f"era{os.getpid()}{letter}", f"10.213.7.{number}") for number, letter in enumerate("ab", 1))
    hosts = [Path("/etc/netns") / node.name for node in nodes]
    try:
        for node, folder in zip(nodes, hosts, strict=True):
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{node.address} {socket.gethostname()}\n")
            _ip("netns", "add", node.name)
        first, second = nodes
        _ip("-n", first.name, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", second.name)
        for node in nodes:
            _ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", LINK)
            for device in ("lo", LINK):
                _ip("-n", node.name, "link", "set", device, "up")
        yield first, second
    finally:
        for node, folder in zip(nodes, hosts, strict=True):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                there = subprocess.run(["ip", "netns", "pids", node.name], capture_output=True, text=True, check=False).stdout
                for pid in there.split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), 9)
                _ip("netns", "delete", node.name)
            shutil.rmtree(folder, ignore_errors=True)
