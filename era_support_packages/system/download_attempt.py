"""One request for the missing rest of a file, and the part of it that is there already. Standard library only."""

import hashlib
import http.client
import json
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from era_support_packages.system.atomic_file import write_atomically

CHUNK = 2**16
MOST_BYTES = 2**30  # six times CIFAR's archive: a server that never ends must not fill the disk


@dataclass(frozen=True)
class Patience:
    """When an attempt or an address is given up; times in seconds."""

    answer: float = 10.0  # a server that is there answers within two; without a network nobody should wait long to hear so
    silence: float = 20.0  # several times as long as a lost packet takes to be sent again
    slow_rate: float = 100_000.0  # bytes a second: CIFAR's 170 MB would take half an hour, longer than most trainings
    slow_window: float = 30.0  # over which the rate is taken: connections begin slowly, and pip downloads at the same time
    attempts: int = 3  # in a row that bring nothing new
    pause: float = 1.0  # between two attempts, doubled after each that was in vain: a server that restarts needs a while


class BrokenOff(Exception):
    """The attempt ended early; the same address may still give the rest."""


class TooSlow(Exception):
    """The address gives only `rate` bytes a second, and there is another one to ask."""

    def __init__(self, rate: float) -> None:
        super().__init__(f"gives only {rate:.0f} bytes a second")
        self.rate = rate


class Unavailable(Exception):
    """The address cannot give the file; the message goes on from "the address ..."."""


class Stopped(Exception):
    """Nobody wants the file any more."""


def shown(address: str) -> str:
    """An address without the passwords and keys that it may carry."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_whole(file: Path, md5: str) -> bool:
    """Whether a file is there with this md5."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(file, "rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == md5


class Part:
    """What has arrived of a file, and beside it where that came from, so that a later attempt, or process, can go on with it."""

    def __init__(self, path: Path) -> None:
        self.path, self.note = path, path.with_name(f"{path.name}.json")

    def size(self) -> int:
        """Bytes that have arrived."""
        with suppress(OSError):
            return self.path.stat().st_size
        return 0

    def source(self) -> dict[str, Any]:
        """`address`, `total` bytes or None, `validator` (by which that server knows this version of the file) or None."""
        with suppress(OSError, ValueError):
            source = json.loads(self.note.read_text())
            return source if isinstance(source, dict) else {}
        return {}

    def came_from(self, address: str, total: int | None, validator: str | None) -> None:
        """Note where what comes next is from."""
        source = {"address": shown(address), "total": total, "validator": validator}
        write_atomically(self.note, json.dumps(source).encode())

    def finish(self, file: Path, md5: str) -> bool:
        """Give the part the file's name if it is whole; whether it was."""
        if not is_whole(self.path, md5):
            return False
        os.replace(self.path, file)
        self.note.unlink(missing_ok=True)
        return True

    def discard(self) -> None:
        """Remove it."""
        for path in (self.path, self.note):
            with suppress(OSError):
                path.unlink()


class Attempts:
    """Attempts at one address to complete a part. With `hurry`, slowness or silence ends them with `TooSlow`."""

    def __init__(self, address: str, part: Part, patience: Patience, hurry: bool, halt: threading.Event) -> None:
        self.address, self.part, self.patience, self.hurry, self.halt = address, part, patience, hurry, halt
        self._was_there = False  # whether the address has answered
        self._since, self._received = time.monotonic(), 0

    def receive(self) -> None:
        """Append what is missing, until the server has sent all that it promised.

        Raises `BrokenOff`, `TooSlow`, `Unavailable`, `Stopped`, or `OSError` where the disk cannot take it.
        """
        if self.halt.is_set():
            raise Stopped
        position = self.part.size()
        with self._ask(position) as response:
            self._was_there = True
            goes_on = self._note_source(response, position)
            total, length = self.part.source()["total"], position if goes_on else 0
            with open(self.part.path, "ab" if goes_on else "wb") as file:
                while chunk := self._read(response):
                    file.write(chunk)
                    file.flush()  # others look at its size
                    length += len(chunk)
                    if length > MOST_BYTES:
                        raise Unavailable("sends more than any archive has")
                os.fsync(file.fileno())
        if total is not None and length < total:
            raise BrokenOff(f"broke off after {length / 1e6:.1f} of {total / 1e6:.1f} MB")

    def _ask(self, position: int) -> Any:
        """The server's answer to a request for everything from `position` on, if the file is still the same."""
        headers = {"User-Agent": "era_support_packages"}
        if position:
            headers["Range"] = f"bytes={position}-"
            source = self.part.source()
            if source.get("validator") and source.get("address") == shown(self.address):
                headers["If-Range"] = source["validator"]
        try:
            response = self._open(urllib.request.Request(self.address, headers=headers))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and position:
                self.part.discard()
                raise BrokenOff("has a shorter file than before") from None
            said = f"answered {error.code} ({error.reason})"
            passing = error.code in (408, 425, 429) or error.code >= 500
            raise (BrokenOff if passing else Unavailable)(said) from None
        except TimeoutError as error:
            said = f"did not answer within {error.args[0]:g} s"
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = f"cannot be reached ({getattr(error, 'reason', error)})"
        else:
            if response.status in (200, 206):
                return response
            response.close()
            raise Unavailable(f"answered {response.status}")
        # Without a network nothing is gained by trying again; once something has come, it was there.
        raise (BrokenOff if self._was_there else Unavailable)(said)

    def _open(self, request: urllib.request.Request) -> Any:
        """`urlopen`, in a thread of its own, because its time limit does not cover looking up the host's name.

        Raises `TimeoutError` with the seconds of the limit that has passed.
        """
        outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def ask() -> None:
            try:
                outcome.put(urllib.request.urlopen(request, timeout=self.patience.silence))
            except Exception as error:
                outcome.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = outcome.get(timeout=self.patience.answer)
        except queue.Empty:
            raise TimeoutError(self.patience.answer) from None
        if isinstance(getattr(answer, "reason", answer), TimeoutError):
            raise TimeoutError(self.patience.silence)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _note_source(self, response: Any, position: int) -> bool:
        """Note where the bytes come from; whether they go on from `position`, else they are the file from its start.

        Raises `BrokenOff`, with the part discarded, where they fit what is there in neither way.
        """
        etag, source = response.headers.get("ETag"), self.part.source()
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        if response.status == http.HTTPStatus.OK:
            self.part.came_from(self.address, response.length, validator)
            return False
        bounds = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        first, total = map(int, bounds.groups()) if bounds else (None, None)
        same_server = source.get("address") == shown(self.address)
        changed = same_server and validator and source.get("validator") not in (None, validator)
        if first != position or source.get("total") not in (None, total) or changed:
            self.part.discard()
            raise BrokenOff("has another file than before")
        self.part.came_from(self.address, total, validator)
        return True

    def _read(self, response: Any) -> bytes:
        """The next bytes, b"" being the end."""
        if self.halt.is_set():
            raise Stopped
        self._require_speed()
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            silent = isinstance(error, TimeoutError)
            if silent and self.hurry:
                raise TooSlow(0) from None
            what = f"sent nothing for {self.patience.silence:g} s" if silent else f"broke off ({error})"
            raise BrokenOff(what) from None
        self._received += len(chunk)
        return chunk

    def _require_speed(self) -> None:
        """Raise `TooSlow` where that is so; asked before each read, when all that has come is in the part."""
        seconds = time.monotonic() - self._since
        if self._received and seconds >= self.patience.slow_window:
            rate = self._received / seconds
            if self.hurry and rate < self.patience.slow_rate:
                raise TooSlow(rate)
            self._since, self._received = time.monotonic(), 0
