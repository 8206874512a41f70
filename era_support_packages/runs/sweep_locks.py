"""Several sweeps in one folder: what each claims for itself, and what is refused where the file system knows no locks."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, Timeout

from era_support_packages.runs.sweep_values import SweepError
from era_support_packages.system.locks import file_lock

_CLAIM = ".sweep.lock"
_ALONE = ".sweep-alone.json"
PATIENCE = 120  # seconds; a claim is held for a moment


@contextmanager
def at_work(root: Path, alone: bool = True) -> Iterator[None]:
    """A sweep is at work in this folder, which is made: beside others, or where the file system has no locks alone.

    alone: whether it is one process. Raises `SweepError` where another one may be at work, or it has several, and no lock could
    keep them apart, and for a folder that cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        shared = _has_locks(root)
        if not shared and not alone:
            raise SweepError(
                f"{root} lies where files cannot be locked, so that several processes cannot share it: do without --jobs, "
                "or give another output_dir."
            )
        if not shared:
            _mark(root / _ALONE)
    except OSError as error:
        raise SweepError(
            f"output_dir {str(root)!r} cannot be used ({error.strerror or error}): give a folder to write to."
        ) from None
    try:
        yield
    finally:
        if not shared:
            (root / _ALONE).unlink(missing_ok=True)


def _has_locks(root: Path) -> bool:
    lock = file_lock(root / _CLAIM)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    _let_go(lock)
    return True


def _mark(file: Path) -> None:
    """Make the file that says who is alone in the folder; that of a process of this machine that is gone is replaced."""
    own = {"host": socket.gethostname(), "pid": os.getpid()}
    for _ in range(2):
        try:
            with open(file, "x", encoding="utf-8") as mark:
                json.dump(own, mark)
            return
        except FileExistsError:
            owner = {}
            with contextlib.suppress(OSError, ValueError):
                owner = json.loads(file.read_text(encoding="utf-8"))
            if not (isinstance(owner, dict) and owner.get("host") == own["host"] and _is_gone(owner.get("pid"))):
                break
            file.unlink(missing_ok=True)
    who = f"process {owner.get('pid')} on {owner.get('host')}" if isinstance(owner, dict) and owner else "another process"
    raise SweepError(
        f"{file.parent} lies where files cannot be locked, so that two sweeps cannot share it, and {who} seems to be at work "
        f"there: wait until it is done, or give another output_dir. If none is, remove {file}."
    )


def _is_gone(pid: object) -> bool:
    """Whether no process of this machine has that number, as far as that can be told."""
    if not isinstance(pid, int) or os.name == "nt":  # there a signal of number 0 would end it
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def claim(root: Path) -> Iterator[None]:
    """Only one process at a time looks what is left to do in this folder and takes it.

    Raises `SweepError` where another one does not let go.
    """
    lock = file_lock(root / _CLAIM)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise SweepError(
            f"{root / _CLAIM} is held by another process for over {PATIENCE} s: end that one, and try again."
        ) from None
    except OSError:  # no locks: `at_work` has seen to it that nobody else is here
        yield
        return
    try:
        yield
    finally:
        _let_go(lock)


def own_trial(root: Path, name: str) -> BaseFileLock | None:
    """Take a trial of a search; None where another process has it. It is given back by `give_back`, or when the process ends."""
    lock = file_lock(root / f".{name}.lock")
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError:  # as in `claim`
        return lock
    return lock


def give_back(lock: BaseFileLock) -> None:
    """Let another process take the trial."""
    _let_go(lock)


def _let_go(lock: BaseFileLock) -> None:
    """The file goes while it is held: who waits for it sees that, and takes a new one."""
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()
