"""A run trained on several devices of this machine, by processes that this one starts through PyTorch's own launcher.

It shows what they say, passes Ctrl-C and SIGTERM on to them, and has the run in the end as if it had trained it itself.
"""

import contextlib
import os
import pickle
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from torch import nn

from era_support_packages.models.catalog import difference
from era_support_packages.runs.preparation import PreparedRun, Report
from era_support_packages.system.children import PACKAGES, how_it_ended, raise_told
from era_support_packages.system.interrupts import sigterm_interrupts
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.processes import Processes, ProcessLostError
from era_support_packages.system.progress import TextBar
from era_support_packages.system.tensor_file import write_tensors
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.history import EpochRecord, Trained, trained

KEY = "_ERA_LAUNCH_KEY"  # in the environment of the processes
PATIENCE = 90.0  # seconds that they have to end after a signal; one may be waiting for another that is gone
MODULE = "era_support_packages.runs.launched"
Stop = Callable[[nn.Module, PreparedRun, Report, Checkpoint | None, KeyboardInterrupt], BaseException]


class LaunchError(PlainError, RuntimeError):
    """The processes could not be started, or ended without a word."""


def train_on_devices(
    model: nn.Module, prepared: PreparedRun, report: Report, watch: Callable[[EpochRecord], None] | None, stop: Stop
) -> Trained:
    """What as many processes as the run has devices have trained, with their weights in the model, which they started from.

    report gets their lines as they come, and watch each row. After Ctrl-C and SIGTERM, which end them all, it raises what `stop`
    makes of the last checkpoint.

    Raises `LaunchError` for a network that the configuration does not make, and where they end without a word; `RunBusyError`
    where another process trains into the folder; and what any of them raised.
    """
    run, config, test = prepared.run, prepared.config, prepared.test
    _require_own_network(model, prepared)
    with run.locked():  # else it is another process's
        run.write_config(config)
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.pt"
        try:
            write_tensors(start, {name: values.cpu() for name, values in model.state_dict().items()})
        except OSError as error:
            raise LaunchError(
                f"{folder} cannot be written ({error.strerror or error}), where the weights lie that several devices start from: "
                "make room there, or name another folder in the environment variable TMPDIR."
            ) from None
        asked = {"folder": run.folder, "data_root": prepared.data_root, "start": start, "again": config.max_lr == "auto"}
        try:
            with sigterm_interrupts(), _Launched(prepared.devices, Path(folder), asked) as launched:
                launched.follow(report, watch)
        except KeyboardInterrupt as error:
            stored = run.config()
            if stored.max_lr == "auto":  # it was within its range test
                raise
            checkpoint = run.checkpoint(model, test)
            if checkpoint is not None:
                model.load_state_dict(checkpoint.model)
            prepared = replace(prepared, config=stored, processes=Processes(count=prepared.devices))
            raise stop(model, prepared, report, checkpoint, error) from None
    return trained(model, prepared.train, run.load(model, test, prepared.validation))


def _require_own_network(model: nn.Module, prepared: PreparedRun) -> None:
    name, px = prepared.config.model, prepared.config.resolutions[-1][0]
    if sign := difference(model, name, len(prepared.train.classes), px):
        raise LaunchError(
            f"This network is not the {name!r} of the configuration, which several devices train, as {sign} shows: give the one "
            "that training.build_model makes, or set devices to 1."
        )


class _Launched:
    """torchrun and its processes while they last; what they say comes in by connections of their own."""

    def __init__(self, count: int, folder: Path, asked: dict[str, Any]) -> None:
        key = secrets.token_bytes(16)
        self._heard: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        try:
            self._listener = Listener(authkey=key, backlog=count)
        except OSError:  # the path of the temporary folder is too long for a socket in it
            self._listener = Listener(("127.0.0.1", 0), authkey=key, backlog=count)
        self._connections: list[Connection] = []
        self._log = folder / "log"
        (folder / "asked").write_bytes(pickle.dumps({**asked, "address": self._listener.address}))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        command += ["-m", MODULE, str(folder / "asked")]
        path = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {"OMP_NUM_THREADS": "1", **os.environ, KEY: key.hex(), "PYTHONPATH": path}
        with open(self._log, "wb") as log:
            pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            self._process = subprocess.Popen(command, env=environment, **pipes)
        threading.Thread(target=self._accept, args=(count,), daemon=True).start()

    def __enter__(self) -> "_Launched":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """End all, and wait for that: they have something to write."""
        try:
            if self._process.poll() is None and kind is not None:
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        finally:
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            for connection in self._connections:
                _hang_up(connection)
            with contextlib.suppress(OSError):
                self._listener.close()

    def _accept(self, count: int) -> None:
        for _ in range(count):
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):
                return
            self._connections.append(connection)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                self._heard.put(connection.recv())

    def follow(self, report: Report, watch: Callable[[EpochRecord], None] | None) -> None:
        """Show what they say until they have ended. Raises what went wrong in one of them, and `LaunchError`."""
        failures: list[tuple[BaseException, str]] = []
        ended = 0.0
        with TextBar() as bar:
            while True:
                try:
                    kind, value = self._heard.get(timeout=0.2)
                except queue.Empty:
                    if self._process.poll() is None:
                        continue
                    if ended and time.monotonic() - ended > 1:  # their last words have come
                        break
                    ended = ended or time.monotonic()
                    continue
                if kind == "bar":
                    bar.write(value)
                elif kind == "line":
                    bar.clear()
                    report(value)
                elif kind == "epoch" and watch is not None:
                    watch(value)
                elif kind == "failed":
                    failures.append(value)
        log = self._log.read_text(errors="replace")
        if failures:
            worst = min(failures, key=lambda told: isinstance(told[0], ProcessLostError))
            if not (isinstance(worst[0], ProcessLostError) and _killed(log)):  # else how it was lost says more
                raise_told(worst)
        if self._process.returncode != 0:
            how = why(log, self._process.returncode)
            raise LaunchError(
                f"One of the processes that were started {how}. The last checkpoint stays: run again with the same values to "
                "go on from there."
            )


def why(log: str, code: int) -> str:
    """How one of several ended that said nothing itself, by what torchrun wrote: what it raised, else its exit code."""
    for line in log.splitlines():
        if re.match(r"[\w.]+(?<!ChildFailed)(?<!ProcessLost)(Error|Exception)\b", line):
            return f"failed ({line.strip().rstrip('.')})"
    codes = _exit_codes(log)
    own = [found for found in codes if found != -signal.SIGTERM]  # by which torchrun ends the others
    return how_it_ended([*_killed(log), *own, *codes, code][0])


def _exit_codes(log: str) -> list[int]:
    """The exit codes that torchrun wrote down, less those of processes that hung, which it killed itself in the end."""
    hung = re.findall(r"Unable to shutdown process (\d+)", log)
    found = re.findall(r"exitcode\s*:\s*(-?\d+)(?: +\(pid: (\d+)\))?", log)
    return [int(code) for code, process in found if process not in hung]


def _killed(log: str) -> list[int]:
    """The exit codes of those that a signal ended, less the one by which torchrun ends the others."""
    return [code for code in _exit_codes(log) if code < 0 and code != -signal.SIGTERM]


def _hang_up(connection: Connection) -> None:
    """End a process that is still there; who reads from the connection closes it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as ending:
        ending.shutdown(socket.SHUT_RDWR)
