"""One file fetched in the background, from one address or the next, so that no break costs what has arrived.

    download = begin(file, addresses, md5)      a daemon thread; the one that is under way already, if there is one
    problem = download.wait(watch)              None when the file is there, else what went wrong

What arrives is kept as FILE.part until it is whole and its md5 right; only then does it take the file's name. Standard library
only: it runs while the requirements are installed.
"""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from era_support_packages.system.download_attempt import (
    Attempts,
    BrokenOff,
    Part,
    Patience,
    Stopped,
    TooSlow,
    Unavailable,
    is_whole,
    shown,
)

PATIENCE = Patience()
POLL_SECONDS = 0.2  # how soon the stop button, or the end of another process's download, is noticed


def begin(file: Path, addresses: Sequence[str], md5: str, patience: Patience = PATIENCE) -> "Download":
    """The download of this file that is under way in this process, or else a new one."""
    wanted = Download(file, addresses, md5, patience)
    for thread in threading.enumerate():
        if isinstance(thread, Download) and thread.is_alive() and thread.serves(wanted):
            return thread
    wanted.start()
    return wanted


class Download(threading.Thread):
    """Fetches one file; `problem` says in the end what went wrong, None being nothing.

    Of all the processes that want the file one downloads and the others follow it; where it ends early, the next goes on. An
    address that is slow or silent is left for the next one, and taken up again only where no other is better.
    """

    def __init__(self, file: Path, addresses: Sequence[str], md5: str, patience: Patience = PATIENCE) -> None:
        super().__init__(name=f"download of {file.name}", daemon=True)
        self.file, self.addresses, self.md5, self.patience = file.absolute(), tuple(addresses), md5, patience
        self.problem: str | None = f"fetching {file.name} has not ended"
        self._part = Part(self.file.with_name(f"{file.name}.part"))
        self._lock_file = self.file.with_name(f".{file.name}.lock")
        self._fault: Exception | None = None
        self._halt = threading.Event()

    def serves(self, other: "Download") -> bool:
        """Whether who wants the other one may as well wait for this one."""
        same = (self.file, self.addresses, self.md5) == (other.file, other.addresses, other.md5)
        return same and not self._halt.is_set()

    def wait(self, watch: Callable[["Download"], Any] = lambda _download: None) -> str | None:
        """Wait for the end, calling `watch` several times a second; returns `problem`.

        An exception, such as that of the stop button, ends the waiting at once and the download soon after; the part stays.
        """
        try:
            while self.is_alive():
                self.join(POLL_SECONDS)
                watch(self)
        except BaseException:
            self._halt.set()
            raise
        if self._fault is not None:
            raise self._fault
        return self.problem

    def progress(self) -> tuple[int, int | None]:
        """Bytes that have arrived, by whichever process, and bytes in all, None where no server has said so."""
        return self._part.size(), self._part.source().get("total")

    # ---- in the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Fetch the file, unless it is there and whole."""
        folder = self.file.parent
        made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        try:
            self.problem = self._one_at_a_time()
        except Stopped:
            self.problem = f"fetching {self.file.name} was stopped"
        except OSError as error:  # of the disk; those of the network are caught where they arise
            self.problem = f"fetching {self.file.name} failed ({error.strerror or error})"
        except Exception as error:
            self._fault = error
        for parent in made:
            with suppress(OSError):  # which it is where it has content
                parent.rmdir()

    def _one_at_a_time(self) -> str | None:
        """Download while no other process does; None, or what went wrong."""
        lock = self._lock()
        if lock is None:  # a part of its own then, with which no one else can go on
            self._part = Part(self.file.with_name(f".{self.file.name}.{os.getpid()}-{threading.get_ident()}.part"))
        try:
            if is_whole(self.file, self.md5):  # the other one has fetched it
                return None
            return self._from_the_best_address()
        except OSError:
            self._part.discard()  # a disk that is full should not stay so
            raise
        finally:
            if lock is None:
                self._part.discard()
            else:
                self._lock_file.unlink(missing_ok=True)
                os.close(lock)

    def _lock(self) -> int | None:
        """The lock that one downloader at a time holds, waited for; None where the system or the drive knows no locks."""
        try:
            import fcntl
        except ImportError:  # Windows
            self.file.parent.mkdir(parents=True, exist_ok=True)
            return None
        while not self._halt.is_set():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # folder or lock are gone again, as their owner has just ended
                lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lifts it when the process ends, however it ends
                    if os.path.samestat(os.fstat(lock), os.stat(self._lock_file)):
                        return lock
                except (BlockingIOError, FileNotFoundError):
                    pass
                except OSError:  # as on some mounted drives
                    os.close(lock)
                    self._lock_file.unlink(missing_ok=True)
                    return None
                os.close(lock)
            self._halt.wait(POLL_SECONDS)
        raise Stopped

    def _from_the_best_address(self) -> str | None:
        """Try the addresses in their order, then those that were only slow, the fastest first; None, or what went wrong."""
        if self._part.finish(self.file, self.md5):  # the process before this one ended just before it could do that
            return None
        untried, problems = list(self.addresses), []
        slow: dict[str, float] = {}
        while untried or slow:
            first_time = bool(untried)
            address = untried.pop(0) if first_time else max(slow, key=slow.__getitem__)
            slow.pop(address, None)
            try:
                self._fetch(address, hurry=first_time and bool(untried or slow))
                return None
            except TooSlow as error:
                slow[address] = error.rate
            except Unavailable as error:
                problems.append(f"{shown(address)} {error}")
        if kept := self._part.size():
            problems.append(f"the {kept / 1e6:.1f} MB that have arrived are kept for the next try")
        return " and ".join(problems)

    def _fetch(self, address: str, hurry: bool) -> None:
        """Download from one address, going on after each break while something new arrives."""
        attempts = Attempts(address, self._part, self.patience, hurry, self._halt)
        most, in_vain, fresh = self._part.size(), 0, False
        while True:
            mixed = self._part.size() > 0  # with what came earlier, or from elsewhere
            try:
                attempts.receive()
            except BrokenOff as error:
                if self._part.finish(self.file, self.md5):  # these are the bytes, whatever length the server has promised
                    return
                in_vain = 0 if self._part.size() > most else in_vain + 1
                most = max(most, self._part.size())
                if in_vain >= self.patience.attempts:
                    raise Unavailable(str(error)) from None
                self._halt.wait(self.patience.pause * 2**in_vain)
                continue
            if self._part.finish(self.file, self.md5):
                return
            self._part.discard()
            if not mixed or fresh:
                raise Unavailable("sent another file (its md5 is wrong)")
            fresh, most = True, 0  # once from the start, to see whose bytes were wrong
