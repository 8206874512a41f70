"""The download of a file: breaks, silence, lies, a full disk; several addresses, threads and processes; the stop button."""

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest
from file_server import CALM, CONTENT, OTHER, SILENT, SLOW, FileServer, closed_port, fetch, left, serving, wait_until

from era_support_packages.system import download_attempt
from era_support_packages.system.download import Download, begin
from era_support_packages.system.download_attempt import MOST_BYTES, Patience, shown

pytestmark = pytest.mark.unhurried

ROOT = Path(__file__).resolve().parents[2]
MD5 = hashlib.md5(CONTENT).hexdigest()
REST, LITTLE = "bytes=100000-", "bytes=5000-"
BREAK, SILENCE = {"send": 100_000}, {"send": 100_000, "stall": 20}
WRONG = "sent another file (its md5 is wrong)"


@pytest.fixture
def serve(monkeypatch):
    """Starts a server; all end with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ExitStack() as stack:
        yield lambda content=CONTENT, **options: stack.enter_context(serving(content, **options))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "data" / "archive.tar.gz"


@pytest.fixture
def part(file):
    return file.with_name("archive.tar.gz.part")


# ---- one address -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, [None]),
        ({"answers": [BREAK, {"send": 50_000}]}, [None, REST, "bytes=150000-"]),
        ({"answers": [BREAK], "etag": 'W/"1"'}, [None, REST]),  # without a strong validator the length must be the same
        ({"answers": [BREAK], "etag": None}, [None, REST]),
        ({"answers": [BREAK], "ranges": False}, [None, REST]),
        ({"answers": [SILENCE]}, [None, REST]),
        # slow, and waited for where there is no other
        ({"always": {"chunk": 20_000, "every": 0.05}, "answers": [{"every": 0.1, "chunk": 1000, "send": 5000}]}, [None, LITTLE]),
        ({"answers": [{"status": 503}, {"status": 429}]}, [None, None, None]),
        ({"always": {"length": len(CONTENT) + 1000}}, [None]),
        # what does not fit is not even read: another version, another range
        ({"answers": [BREAK, {"send": 0, "stall": 20, "etag": '"2"'}]}, [None, REST, None]),
        ({"answers": [BREAK, {"send": 0, "stall": 20, "late": 10}]}, [None, REST, None]),
    ],
)
def test_a_file_arrives_and_after_a_break_only_the_rest_is_asked_for(options, asked, file, serve):
    server, start = serve(**options), time.monotonic()
    assert fetch(file, server, patience=SILENT if SILENCE in options.get("answers", []) else SLOW) is None
    assert file.read_bytes() == CONTENT
    assert left(file) == [file.name]
    assert server.ranges_asked == asked
    strong = server.etag if server.etag == '"1"' else None
    assert [request.if_range for request in server.seen] == [strong if request.range else None for request in server.seen]
    assert {request.method for request in server.seen} == {"GET"}
    assert time.monotonic() - start < 10
    assert fetch(file, server) is None  # it is there
    assert len(server.seen) == len(asked)


def test_a_network_that_is_gone_for_a_moment(file, serve, monkeypatch):
    server, urlopen = serve(answers=[BREAK]), Mock(wraps=urllib.request.urlopen)
    gone = urllib.error.URLError(OSError(errno.ENETUNREACH, "Network is unreachable"))
    urlopen.side_effect = [DEFAULT, gone, DEFAULT]
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert fetch(file, server) is None
    assert server.ranges_asked == [None, REST]


@pytest.mark.parametrize("ranges", [False, True])
def test_an_address_is_given_up_where_nothing_new_arrives(ranges, file, serve):
    server = serve(ranges=ranges, answers=[BREAK], always={"send": 0 if ranges else 100_000})
    problem = f"{server.url} broke off after 0.1 of 0.3 MB and the 0.1 MB that have arrived are kept for the next try"
    assert fetch(file, server) == problem
    assert len(server.seen) == 4  # the one that brought something, and three in vain
    assert left(file) == ["archive.tar.gz.part", "archive.tar.gz.part.json"]
    server.always, server.ranges = {}, True
    assert fetch(file, server) is None  # the next attempt goes on
    assert server.ranges_asked[-1] == REST
    assert left(file) == [file.name]


@pytest.mark.parametrize(
    ("options", "problem", "requests"),
    [
        ({"always": {"status": 404}}, "answered 404 (Not Found)", 1),
        ({"always": {"status": 503}}, "answered 503 (Service Unavailable)", 3),
        ({"content": OTHER}, WRONG, 1),
        ({"always": {"length": 1000}}, WRONG, 1),
    ],
)
def test_an_error_of_the_server_leaves_nothing(options, problem, requests, file, serve):
    server = serve(**options)
    assert fetch(file, server) == f"{server.url} {problem}"
    assert len(server.seen) == requests
    assert not file.parent.exists()


def test_a_server_that_says_nothing_at_all_or_is_not_there(file):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/archive.tar.gz"
        for limits in ({"answer": 0.2}, {"silence": 0.2}):  # of the whole answer, and of each wait for a byte
            assert fetch(file, url, patience=Patience(**limits)) == f"{url} did not answer within 0.2 s"
    url, start = closed_port(), time.monotonic()
    assert fetch(file, url, patience=Patience()) == f"{url} cannot be reached ([Errno {errno.ECONNREFUSED}] Connection refused)"
    assert time.monotonic() - start < 5
    assert not file.parent.exists()


def test_a_redirect_keeps_the_range(file, serve):
    target, loop = serve(answers=[BREAK]), serve()
    assert fetch(file, serve(always={"status": 302, "location": target.url})) is None
    assert target.ranges_asked == [None, REST]
    loop.always = {"status": 302, "location": loop.url}
    assert "infinite loop" in fetch(file.with_name("other"), loop)


def test_without_a_length_progress_has_no_total_and_the_download_an_end(file, serve, monkeypatch):
    server, seen = serve(always={"length": None, "chunk": 100_000, "every": 0.3}), []
    assert begin(file, [server.url], MD5, CALM).wait(lambda it: seen.append(it.progress())) is None
    assert {total for _, total in seen} == {None}
    assert any(0 < count < len(CONTENT) for count, _ in seen)
    assert file.read_bytes() == CONTENT
    assert MOST_BYTES > 5 * 170_498_071
    monkeypatch.setattr(download_attempt, "MOST_BYTES", 200_000)
    assert "sends more than any archive has" in fetch(file.with_name("other"), serve(always={"length": None}))


def test_wrong_bytes_never_take_the_place_of_a_file(file, serve):
    file.parent.mkdir()
    file.write_bytes(b"old and not whole")
    liar = serve(OTHER)
    assert fetch(file, liar) == f"{liar.url} {WRONG}"
    assert file.read_bytes() == b"old and not whole"
    assert left(file) == [file.name]
    assert fetch(file, liar, serve()) is None
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("server_checks", [True, False])
@pytest.mark.parametrize(("new", "etag"), [(OTHER, '"2"'), (OTHER, None), (OTHER + b"longer", None), (OTHER[:9], '"2"')])
def test_a_file_that_has_changed_is_not_spliced(new, etag, server_checks, file, part, serve):
    answers = [{**BREAK, "status": 200}]
    server = serve(etag=etag and '"1"', checks_if_range=server_checks, answers=answers, always={"status": 404})
    assert "404" in fetch(file, server)
    assert part.read_bytes() == CONTENT[:100_000]
    server.always, server.content, server.etag = {}, new, etag
    server.seen.clear()
    assert fetch(file, server, md5=hashlib.md5(new).hexdigest()) is None
    assert server.ranges_asked == ([REST] if etag and server_checks else [REST, None])
    assert file.read_bytes() == new
    assert left(file) == [file.name]


def test_a_part_that_is_whole_needs_no_request_and_a_note_that_is_broken_costs_nothing(file, part, serve):
    part.parent.mkdir()
    part.write_bytes(CONTENT)  # a process that was killed just before it could rename it
    assert fetch(file, closed_port()) is None
    assert left(file) == [file.name]
    file.unlink()
    part.write_bytes(CONTENT[:100_000])
    part.with_name(f"{part.name}.json").write_text("[1")
    server = serve()
    assert fetch(file, server) is None
    assert server.ranges_asked == [REST]


# ---- the disk, and faults of ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("written_before", [0, 1])
def test_a_full_disk_keeps_no_part(written_before, file, serve, monkeypatch):
    calls, synchronize, second = [], os.fsync, serve()

    def refuse(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > written_before:  # of the note beside the part, or of the part
            raise OSError(errno.ENOSPC, "No space left on device")
        synchronize(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    assert fetch(file, serve(), second) == "fetching archive.tar.gz failed (No space left on device)"
    assert second.seen == []  # another address would not help
    assert not file.parent.exists()
    file.parent.write_text("a file in the place of the folder")
    assert fetch(file, serve()).startswith("fetching archive.tar.gz failed (")


def test_a_fault_of_ours_is_raised_where_it_is_waited_for(file, serve, monkeypatch):
    monkeypatch.setattr(download_attempt, "is_whole", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fetch(file, serve())
    assert not [thread for thread in threading.enumerate() if isinstance(thread, Download)]


# ---- the second address ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "patience"),
    [({}, CALM), (SILENCE, SILENT), ({"chunk": 500, "every": 0.05}, SLOW)],
    ids=["well", "silent", "slow"],
)
def test_the_second_goes_on_only_where_the_first_is_silent_or_slow(how, patience, file, serve):
    first, second = serve(always=how), serve(etag='"another server"')
    assert fetch(file, first, second, patience=patience) is None
    assert file.read_bytes() == CONTENT
    assert (len(first.seen), bool(second.seen)) == (1, how != {})
    if second.seen:
        start = int(second.seen[0].range.removeprefix("bytes=").removesuffix("-"))
        assert (start, second.seen[0].if_range) == (100_000, None) if how == SILENCE else 0 < start < 100_000
        assert [request.sent for request in second.seen] == [len(CONTENT) - start]


def test_bytes_of_two_addresses_that_do_not_fit_are_fetched_again(file, serve):
    first, second = serve(OTHER, always=SILENCE), serve()
    assert fetch(file, first, second, patience=SILENT) is None
    assert second.ranges_asked == [REST, None]
    assert file.read_bytes() == CONTENT


def test_a_slow_address_is_better_than_none_and_of_two_the_faster_goes_on(file, serve):
    slowly = {"chunk": 1000, "every": 0.1}  # the first answer; a later one gives all at once
    first, second = serve(answers=[slowly]), serve(always={"status": 404})
    assert fetch(file, first, second, patience=SLOW) is None
    assert len(first.seen) == 2
    assert first.ranges_asked[1] is not None
    slower, faster = serve(answers=[{"chunk": 10, "every": 0.1}]), serve(answers=[slowly])
    assert fetch(file.with_name("other"), slower, faster, patience=SLOW) is None
    assert (len(slower.seen), len(faster.seen)) == (1, 2)


def test_the_problem_names_both_addresses_without_their_keys(file, serve):
    first, second = serve(always={"status": 403}), serve(OTHER)
    problem = f"{first.url} answered 403 (Forbidden) and {second.url} {WRONG}"
    assert fetch(file, first, f"{second.url}?signature=secret#x") == problem
    assert shown("https://user:secret@host:8443/a/b.gz?key=secret#secret") == "https://host:8443/a/b.gz"


# ---- several at once, and the stop button ------------------------------------------------------------------------------


def started(file: Path, server: FileServer, count: int) -> list[Download]:
    downloads = [Download(file, [server.url], MD5, CALM) for _ in range(count)]
    for download in downloads:
        download.start()
    return downloads


def test_who_begins_again_joins_what_is_under_way(file, serve):
    server, progress = serve(always={"chunk": 30_000, "every": 0.2}), []
    first = begin(file, [server.url], MD5, CALM)
    wait_until(lambda: first.progress()[0] > 0)
    assert begin(file, [server.url], MD5) is first
    other = begin(file.with_name("other"), [server.url], MD5, CALM)
    assert other is not first
    assert first.wait(lambda it: progress.append(it.progress())) is None
    assert any(0 < arrived < total == len(CONTENT) for arrived, total in progress[:-1])
    assert other.wait() is None


@pytest.mark.parametrize("locks", [True, False])
def test_several_threads_make_one_download_and_without_locks_each_has_a_part_of_its_own(locks, file, serve, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if not locks:
        monkeypatch.setattr("fcntl.flock", refuse)
    server = serve(always={"chunk": 100_000, "every": 0.1})
    assert [download.wait() for download in started(file, server, 3)] == [None] * 3
    if locks:
        assert len(server.seen) == 1
    assert file.read_bytes() == CONTENT
    assert left(file) == [file.name]


PROCESS = """
import sys
from pathlib import Path
from era_support_packages.system.download import begin
print(begin(Path(sys.argv[1]), [sys.argv[2]], sys.argv[3]).wait())
"""


def test_processes_share_one_download_and_go_on_for_one_that_is_killed(file, serve):
    server = serve(answers=[{"chunk": 100_000, "every": 5, "stall": 20}])
    command = [sys.executable, "-c", PROCESS, str(file), server.url, MD5]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as first:
        wait_until(lambda: len(server.seen) == 1)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as second:
            (third,) = started(file, server, 1)
            wait_until(lambda: third.progress() in ((100_000, len(CONTENT)), (200_000, len(CONTENT))))  # what another fetches
            first.send_signal(signal.SIGKILL)
            assert third.wait() is None
            assert second.communicate(timeout=20)[0] == "None\n"
    assert server.ranges_asked[0] is None
    assert server.ranges_asked[1:] in ([REST], ["bytes=200000-"])
    assert file.read_bytes() == CONTENT
    assert left(file) == [file.name]


def test_the_stop_button_ends_the_wait_and_the_next_attempt_goes_on(file, serve):
    def stop(it: Download) -> None:
        if it.progress()[0]:
            raise KeyboardInterrupt

    server = serve(answers=[{"chunk": 50_000, "every": 1, "stall": 20}])
    download, start = begin(file, [server.url], MD5, CALM), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download.wait(stop)
    assert time.monotonic() - start < 5
    again = begin(file, [server.url], MD5, CALM)
    assert again is not download
    assert again.wait() is None
    assert len(server.seen) == 2
    assert server.seen[1].range is not None
    assert download.problem == "fetching archive.tar.gz was stopped"
    assert left(file) == [file.name]
