"""The download of a file from one address: breaks, silence, lies, and a disk that is full."""

import errno
import hashlib
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from file_server import CONTENT, OTHER, QUICK, FileServer, closed_port, fetch, left, serving

from era_support_packages.system import download_attempt
from era_support_packages.system.download import Download, begin
from era_support_packages.system.download_attempt import MOST_BYTES, Patience


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def serve() -> Iterator[Callable[..., FileServer]]:
    """Starts a server; all end with the test."""
    with ExitStack() as stack:
        yield lambda content=CONTENT, **options: stack.enter_context(serving(content, **options))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "archive.tar.gz"


# ---- one address ------------------------------------------------------------------------------------------------------


def test_a_file_arrives_in_one_request_and_nothing_else_stays(file: Path, serve: Callable) -> None:
    server = serve()
    assert fetch(file, server) is None
    assert file.read_bytes() == CONTENT
    assert left(file) == [file.name]
    assert [(request.method, request.range) for request in server.seen] == [("GET", None)]
    assert fetch(file, server) is None  # it is there
    assert len(server.seen) == 1


def test_after_a_break_only_the_rest_is_asked_for(file: Path, serve: Callable) -> None:
    server = serve(answers=[{"send": 100_000}, {"send": 50_000}])
    assert fetch(file, server) is None
    assert file.read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=100000-", "bytes=150000-"]
    assert [request.if_range for request in server.seen] == [None, '"1"', '"1"']
    assert sum(request.sent for request in server.seen) == len(CONTENT)


@pytest.mark.parametrize("etag", ['W/"1"', None])
def test_without_a_strong_validator_the_length_must_be_the_same(file: Path, serve: Callable, etag: str | None) -> None:
    server = serve(answers=[{"send": 100_000}], etag=etag)
    assert fetch(file, server) is None
    assert [request.if_range for request in server.seen] == [None, None]
    assert server.ranges_asked == [None, "bytes=100000-"]


def test_a_server_without_ranges_begins_again(file: Path, serve: Callable) -> None:
    server = serve(answers=[{"send": 100_000}], ranges=False)
    assert fetch(file, server) is None
    assert file.read_bytes() == CONTENT
    assert server.ranges_asked == [None, "bytes=100000-"]


@pytest.mark.parametrize(("ranges", "requests"), [(False, 4), (True, 4)])
def test_an_address_is_given_up_where_nothing_new_arrives(file: Path, serve: Callable, ranges: bool, requests: int) -> None:
    server = serve(ranges=ranges, answers=[{"send": 100_000}], always={"send": 0 if ranges else 100_000})
    problem = fetch(file, server)
    assert problem == (f"{server.url} broke off after 0.1 of 0.3 MB and the 0.1 MB that have arrived are kept for the next try")
    assert len(server.seen) == requests  # the one that brought something, and three in vain
    assert left(file) == ["archive.tar.gz.part", "archive.tar.gz.part.json"]
    server.always = {}
    server.ranges = True
    assert fetch(file, server) is None  # the next attempt goes on
    assert server.ranges_asked[-1] == "bytes=100000-"
    assert left(file) == [file.name]


def test_a_server_that_falls_silent_is_asked_again(file: Path, serve: Callable) -> None:
    server = serve(answers=[{"send": 100_000, "stall": 20}])
    start = time.monotonic()
    assert fetch(file, server) is None
    assert server.ranges_asked == [None, "bytes=100000-"]
    assert 1 <= time.monotonic() - start < 5


def test_a_slow_server_is_waited_for_where_there_is_no_other(file: Path, serve: Callable) -> None:
    server = serve(always={"chunk": 20_000, "every": 0.05}, answers=[{"every": 0.1, "chunk": 5000, "send": 50_000}])
    assert fetch(file, server) is None
    assert server.ranges_asked == [None, "bytes=50000-"]


def test_a_network_that_is_gone_for_a_moment(file: Path, serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    server, opened, urlopen = serve(answers=[{"send": 100_000}]), [], urllib.request.urlopen

    def gone_at_second(*arguments: object, **options: object) -> object:
        opened.append(1)
        if len(opened) == 2:
            raise urllib.error.URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))
        return urlopen(*arguments, **options)

    monkeypatch.setattr(urllib.request, "urlopen", gone_at_second)
    assert fetch(file, server) is None
    assert server.ranges_asked == [None, "bytes=100000-"]


def test_a_server_that_says_nothing_at_all(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/archive.tar.gz"
        assert fetch(file, url, patience=Patience(answer=0.2)) == f"{url} did not answer within 0.2 s"
    assert not file.parent.exists()


def test_a_refused_connection_is_no_wait_and_leaves_no_folder(file: Path) -> None:
    url, start = closed_port(), time.monotonic()
    assert fetch(file, url, patience=Patience()) == f"{url} cannot be reached ([Errno {errno.ECONNREFUSED}] Connection refused)"
    assert time.monotonic() - start < 5
    assert not file.parent.exists()


@pytest.mark.parametrize(("status", "said", "requests"), [(404, "404 (Not Found)", 1), (503, "503 (Service Unavailable)", 3)])
def test_an_error_of_the_server(file: Path, serve: Callable, status: int, said: str, requests: int) -> None:
    server = serve(always={"status": status})
    assert fetch(file, server) == f"{server.url} answered {said}"
    assert len(server.seen) == requests
    assert not file.parent.exists()


def test_a_server_that_is_busy_for_a_moment(file: Path, serve: Callable) -> None:
    assert fetch(file, serve(answers=[{"status": 503}, {"status": 429}])) is None


def test_a_redirect_keeps_the_range(file: Path, serve: Callable) -> None:
    target = serve(answers=[{"send": 100_000}])
    server = serve(always={"status": 302, "location": target.url})
    assert fetch(file, server) is None
    assert target.ranges_asked == [None, "bytes=100000-"]
    loop = serve()
    loop.always = {"status": 302, "location": loop.url}
    assert "infinite loop" in fetch(file.with_name("other"), loop)


def test_without_a_length_progress_has_no_total(file: Path, serve: Callable) -> None:
    server = serve(always={"length": None, "chunk": 100_000, "every": 0.3})
    seen = []
    download = begin(file, [server.url], hashlib.md5(CONTENT).hexdigest(), QUICK)
    assert download.wait(lambda it: seen.append(it.progress())) is None
    assert (100_000, None) in seen
    assert file.read_bytes() == CONTENT


# ---- what is not as it was said ----------------------------------------------------------------------------------------


def test_wrong_bytes_never_take_the_place_of_a_file(file: Path, serve: Callable) -> None:
    file.parent.mkdir()
    file.write_bytes(b"old and not whole")
    liar = serve(OTHER)
    assert fetch(file, liar) == f"{liar.url} sent another file (its md5 is wrong)"
    assert len(liar.seen) == 1
    assert file.read_bytes() == b"old and not whole"
    assert left(file) == [file.name]
    assert fetch(file, liar, serve()) is None
    assert file.read_bytes() == CONTENT


def test_a_length_that_is_too_large_does_no_harm(file: Path, serve: Callable) -> None:
    assert fetch(file, serve(always={"length": len(CONTENT) + 1000})) is None
    assert file.read_bytes() == CONTENT


def test_a_length_that_is_too_small_is_another_file(file: Path, serve: Callable) -> None:
    server = serve(always={"length": 1000})
    assert fetch(file, server) == f"{server.url} sent another file (its md5 is wrong)"
    assert left(file) == []


@pytest.mark.parametrize("server_checks", [True, False])
@pytest.mark.parametrize(("new", "etag"), [(OTHER, '"2"'), (OTHER, None), (OTHER + b"longer", None), (OTHER[:9], '"2"')])
def test_a_file_that_has_changed_is_not_spliced(
    file: Path, serve: Callable, server_checks: bool, new: bytes, etag: str | None
) -> None:
    server = serve(etag=etag and '"1"', checks_if_range=server_checks, answers=[{"send": 100_000}], always={"status": 404})
    server.answers[0]["status"] = 200
    assert "404" in fetch(file, server)
    assert file.with_name("archive.tar.gz.part").read_bytes() == CONTENT[:100_000]
    server.always, server.content, server.etag = {}, new, etag
    server.seen.clear()
    assert fetch(file, server, md5=hashlib.md5(new).hexdigest()) is None
    assert server.ranges_asked == (["bytes=100000-"] if etag and server_checks else ["bytes=100000-", None])
    assert file.read_bytes() == new
    assert left(file) == [file.name]


@pytest.mark.parametrize("fault", [{"etag": '"2"'}, {"late": 10}], ids=["another version", "another range"])
def test_an_answer_that_does_not_fit_is_not_even_read(file: Path, serve: Callable, fault: dict) -> None:
    server = serve(answers=[{"send": 100_000}, {"send": 0, "stall": 20, **fault}])
    assert fetch(file, server) is None
    assert server.ranges_asked == [None, "bytes=100000-", None]


def test_a_part_that_is_whole_needs_no_request(file: Path) -> None:
    file.parent.mkdir()
    file.with_name("archive.tar.gz.part").write_bytes(CONTENT)  # a process that was killed just before it could rename it
    assert fetch(file, closed_port()) is None
    assert left(file) == [file.name]


def test_a_note_that_is_broken_costs_nothing(file: Path, serve: Callable) -> None:
    file.parent.mkdir()
    file.with_name("archive.tar.gz.part").write_bytes(CONTENT[:100_000])
    file.with_name("archive.tar.gz.part.json").write_text("[1")
    server = serve()
    assert fetch(file, server) is None
    assert server.ranges_asked == ["bytes=100000-"]


def test_a_server_that_never_ends(file: Path, serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_BYTES > 5 * 170_498_071
    monkeypatch.setattr(download_attempt, "MOST_BYTES", 200_000)
    assert "sends more than any archive has" in fetch(file, serve(always={"length": None}))


# ---- the disk, and faults of ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["at once", "later"])
def test_a_full_disk_keeps_no_part(full: str, file: Path, serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, synchronize = [], os.fsync

    def refuse(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > (full == "later"):  # of the note beside the part, or of the part
            raise OSError(errno.ENOSPC, "No space left on device")
        synchronize(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    second = serve()
    problem = "fetching archive.tar.gz failed ([Errno 28] No space left on device)"
    assert fetch(file, serve(), second) == problem
    assert second.seen == []  # another address would not help
    assert not file.parent.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path, serve: Callable) -> None:
    (tmp_path / "data").write_text("a file in its place")
    assert fetch(tmp_path / "data" / "archive.tar.gz", serve()).startswith("fetching archive.tar.gz failed ([Errno ")


def test_a_fault_of_ours_is_raised_where_it_is_waited_for(file: Path, serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_attempt, "is_whole", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch(file, serve())
    assert not [thread for thread in threading.enumerate() if isinstance(thread, Download)]
