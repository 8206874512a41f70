"""The download of a file from two addresses, by several threads and processes, and the stop button."""

import errno
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from file_server import CONTENT, OTHER, QUICK, FileServer, fetch, left, serving, wait_until

from era_support_packages.system.download import Download, begin
from era_support_packages.system.download_attempt import shown

ROOT = Path(__file__).resolve().parents[2]


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


# ---- the second address ------------------------------------------------------------------------------------------------


def test_the_second_address_is_asked_only_in_need(file: Path, serve: Callable) -> None:
    first, second = serve(), serve()
    assert fetch(file, first, second) is None
    assert second.seen == []


@pytest.mark.parametrize("how", [{"send": 100_000, "stall": 20}, {"chunk": 1000, "every": 0.05}], ids=["silent", "slow"])
def test_the_second_goes_on_where_the_first_is_silent_or_slow(file: Path, serve: Callable, how: dict) -> None:
    first, second = serve(always=how), serve(etag='"another server"')
    assert fetch(file, first, second) is None
    assert file.read_bytes() == CONTENT
    assert len(first.seen) == 1
    (request,) = second.seen
    start = int(request.range.removeprefix("bytes=").removesuffix("-"))
    assert (start, request.if_range) == (100_000, None) if "stall" in how else 0 < start < 100_000
    assert request.sent == len(CONTENT) - start


def test_bytes_of_two_addresses_that_do_not_fit_are_fetched_again(file: Path, serve: Callable) -> None:
    first, second = serve(OTHER, always={"send": 100_000, "stall": 20}), serve()
    assert fetch(file, first, second) is None
    assert second.ranges_asked == ["bytes=100000-", None]
    assert file.read_bytes() == CONTENT


def test_a_slow_address_is_better_than_none(file: Path, serve: Callable) -> None:
    first, second = serve(always={"chunk": 5000, "every": 0.1}, answers=[{}, {"every": 0}]), serve(always={"status": 404})
    assert fetch(file, first, second) is None
    assert len(first.seen) == 2
    assert first.ranges_asked[1] is not None


def test_of_two_slow_addresses_the_faster_goes_on(file: Path, serve: Callable) -> None:
    first = serve(always={"chunk": 2000, "every": 0.1})
    second = serve(always={"chunk": 7000, "every": 0.1}, answers=[{}, {"every": 0.02}])
    assert fetch(file, first, second) is None
    assert (len(first.seen), len(second.seen)) == (1, 2)


def test_the_problem_names_both_addresses_without_their_keys(file: Path, serve: Callable) -> None:
    first, second = serve(always={"status": 403}), serve(OTHER)
    assert fetch(file, first, f"{second.url}?signature=secret#x") == (
        f"{first.url} answered 403 (Forbidden) and {second.url} sent another file (its md5 is wrong)"
    )
    assert shown("https://user:secret@host:8443/a/b.gz?key=secret#secret") == "https://host:8443/a/b.gz"


# ---- several at once, and the stop button ------------------------------------------------------------------------------


def test_who_begins_again_joins_what_is_under_way(file: Path, serve: Callable) -> None:
    server = serve(always={"chunk": 30_000, "every": 0.05})
    md5 = hashlib.md5(CONTENT).hexdigest()
    first = begin(file, [server.url], md5, QUICK)
    wait_until(lambda: first.progress()[0] > 0)
    assert begin(file, [server.url], md5) is first
    other = begin(file.with_name("other"), [server.url], md5, QUICK)
    assert other is not first
    progress = []
    assert first.wait(lambda it: progress.append(it.progress())) is None
    assert any(0 < arrived < total == len(CONTENT) for arrived, total in progress[:-1])
    assert other.wait() is None


def test_several_threads_make_one_download(file: Path, serve: Callable) -> None:
    server = serve(always={"chunk": 100_000, "every": 0.1})
    downloads = [Download(file, [server.url], hashlib.md5(CONTENT).hexdigest(), QUICK) for _ in range(4)]
    for download in downloads:
        download.start()
    assert [download.wait() for download in downloads] == [None] * 4
    assert len(server.seen) == 1
    assert left(file) == [file.name]


PROCESS = """
import sys
from pathlib import Path
from era_support_packages.system.download import begin
print(begin(Path(sys.argv[1]), [sys.argv[2]], sys.argv[3]).wait())
"""


def process(file: Path, server: FileServer) -> subprocess.Popen:
    command = [sys.executable, "-c", PROCESS, str(file), server.url, hashlib.md5(CONTENT).hexdigest()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_processes_share_one_download_and_go_on_for_one_that_is_killed(file: Path, serve: Callable) -> None:
    server = serve(answers=[{"chunk": 100_000, "every": 0.5, "stall": 20}])
    with process(file, server) as first:
        wait_until(lambda: len(server.seen) == 1)
        with process(file, server) as second:
            third = Download(file, [server.url], hashlib.md5(CONTENT).hexdigest(), QUICK)
            third.start()
            wait_until(lambda: third.progress() in ((100_000, len(CONTENT)), (200_000, len(CONTENT))))  # what another fetches
            first.send_signal(signal.SIGKILL)
            assert third.wait() is None
            assert second.communicate(timeout=20)[0] == "None\n"
    assert server.ranges_asked[0] is None
    assert server.ranges_asked[1:] in (["bytes=100000-"], ["bytes=200000-"])
    assert file.read_bytes() == CONTENT
    assert left(file) == [file.name]


def test_where_there_are_no_locks_each_has_a_part_of_its_own(
    file: Path, serve: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    server = serve(always={"chunk": 100_000, "every": 0.05})
    downloads = [Download(file, [server.url], hashlib.md5(CONTENT).hexdigest(), QUICK) for _ in range(2)]
    for download in downloads:
        download.start()
    assert [download.wait() for download in downloads] == [None, None]
    assert file.read_bytes() == CONTENT
    assert left(file) == [file.name]


def test_the_stop_button_ends_the_wait_and_the_next_attempt_goes_on(file: Path, serve: Callable) -> None:
    server = serve(answers=[{"chunk": 50_000, "every": 0.2, "stall": 20}])
    md5 = hashlib.md5(CONTENT).hexdigest()
    download = begin(file, [server.url], md5, QUICK)

    def stop(it: Download) -> None:
        if it.progress()[0]:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download.wait(stop)
    assert time.monotonic() - start < 5
    again = begin(file, [server.url], md5, QUICK)
    assert again is not download
    assert again.wait() is None
    assert len(server.seen) == 2
    assert server.seen[1].range is not None
    assert download.problem == "fetching archive.tar.gz was stopped"
    assert left(file) == [file.name]
