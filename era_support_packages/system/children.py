"""A process that this one starts, and what the two tell each other: whole Python values over its standard input and output."""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PATIENCE = 15.0  # seconds that a process has to end by itself
PACKAGES = Path(__file__).parents[2]  # where this package is found, whatever the working folder is


class ChildLostError(RuntimeError):
    """The process ended before it answered; the message says how: "was killed (signal 9)"."""


class ToldError(RuntimeError):
    """The traceback of another process, as the cause of the error that it told."""


class Child:
    """A process of its own session, so that Ctrl-C in a terminal reaches only the one that started it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        path = os.pathsep.join([str(PACKAGES), environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else [str(PACKAGES)])
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        self.process = subprocess.Popen(command, env={**environment, "PYTHONPATH": path}, **pipes)

    def tell(self, value: Any) -> None:
        """Send a value. Raises `ChildLostError` where the process has ended."""
        assert self.process.stdin is not None
        try:
            pickle.dump(value, self.process.stdin)
            self.process.stdin.flush()
        except (OSError, ValueError):
            self._lost()

    def hear(self) -> Any:
        """The next value that it sends. Raises `ChildLostError` where there is none, as it has ended."""
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self._lost()

    def _lost(self) -> NoReturn:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        raise ChildLostError(how_it_ended(self.process.poll()))

    def ask_to_end(self) -> None:
        """SIGTERM, if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self, seconds: float = PATIENCE) -> None:
        """Wait until it has ended; after so many seconds it is killed."""
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):  # not before: a thread may be reading
                with contextlib.suppress(OSError, ValueError):
                    assert pipe is not None
                    pipe.close()


def how_it_ended(code: int | None) -> str:
    """Of a process, by its exit code: "ended with exit code 1"."""
    if code is None:
        return "does not answer any more"
    if code >= 0:
        return f"ended with exit code {code}"
    hint = ", as the system does where the memory is full" if code == -9 else ""
    return f"was killed (signal {-code}{hint})"


class Parent:
    """What started this process: it speaks to it alone, whatever a library prints goes to stderr.

    Where the parent is gone this process gets a SIGTERM.
    """

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._heard.put(pickle.load(sys.stdin.buffer))
        except (EOFError, OSError, pickle.UnpicklingError):
            self._heard.put(None)
            os.kill(os.getpid(), signal.SIGTERM)

    def tell(self, value: Any) -> None:
        """Send a value."""
        pickle.dump(value, self._out)
        self._out.flush()

    def hear(self) -> Any:
        """The next value that it sends; None where it is gone."""
        return self._heard.get()


def portable(error: BaseException) -> tuple[BaseException, str]:
    """An error as another process can have it, with its traceback as text."""
    text = "".join(traceback.format_exception(error))
    try:
        return pickle.loads(pickle.dumps(error)), text
    except Exception:  # an error of a library with arguments of its own
        return RuntimeError(f"{type(error).__name__}: {error}"), text


def raise_told(told: tuple[BaseException, str]) -> NoReturn:
    """Raise here what another process made `portable`."""
    raise told[0] from ToldError(f"in another process:\n{told[1]}")
