"""JupyterLab on loopback for the time of a test, with nothing of the person's own settings, and ended with all its kernels."""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 60
SETTINGS = {
    # Every cell is in the page, also those that are not on the screen.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that answers at `url`, serves `folder`, and asks for `token`."""

    url: str
    token: str
    folder: Path

    def address(self, name: str) -> str:
        """Where a browser opens the notebook of this name, in a workspace of its own."""
        return f"{self.url}lab/workspaces/{Path(name).stem}/tree/{name}?token={self.token}"

    def is_connected(self, name: str) -> bool:
        """Whether the notebook of this name has a kernel that waits for it, and a page is connected to that."""
        kernels = [session["kernel"] for session in self.ask("api/sessions") if session["path"] == name]
        return any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels)

    def ask(self, path: str) -> Any:
        """What the server answers to a question of its interface. Raises OSError where it does not answer."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def running_lab(folder: Path, private: Path) -> Iterator[Lab]:
    """Serve `folder` by this Python's JupyterLab; settings, logs and runtime files go into the empty folder `private`.

    Raises RuntimeError with the last lines of its log where it does not answer within a minute.
    """
    for name, values in SETTINGS.items():
        file = private / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "JUPYTER_TOKEN": token,
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
        "IPYTHONDIR": str(private / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    log = private / "jupyterlab.log"
    with log.open("wb") as stream:
        server = psutil.Popen(
            [*command, f"--ServerApp.root_dir={folder}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _answering(server, private / "runtime", token, folder, log)
    finally:
        _end(server)


def _answering(server: psutil.Popen, runtime: Path, token: str, folder: Path, log: Path) -> Lab:
    """The server once it answers at the address that it has written down."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        time.sleep(0.2)
        try:
            lab = Lab(json.loads((runtime / f"jpserver-{server.pid}.json").read_text())["url"], token, folder)
            lab.ask("api/status")
        except (OSError, ValueError):  # not written yet, half written, or not listening yet
            continue
        return lab
    raise RuntimeError(f"JupyterLab does not answer. The end of its log:\n{log.read_text()[-2000:]}")


def _end(server: psutil.Popen) -> None:
    """End the server and its kernels, which are sessions of their own and would outlive it if it had to be killed."""
    family = [server, *server.children(recursive=True)] if server.is_running() else []
    for signal in ("terminate", "kill"):
        for process in family if signal == "kill" else family[:1]:
            if process.is_running():
                getattr(process, signal)()
        _, family = psutil.wait_procs(family, timeout=10)
