"""CIFAR in its official layout: read, unpacked, downloaded; whatever is damaged, missing or hostile is named."""

import dataclasses
import hashlib
import io
import re
import shutil
import signal
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from file_server import FileServer, serving, wait_until
from torchvision.datasets import CIFAR10, CIFAR100

from era_support_packages import bootstrap
from era_support_packages.datasets import cifar
from era_support_packages.datasets.archives import ARCHIVES
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.loading import load
from era_support_packages.system import download, download_attempt

FOLDER, ARCHIVE = CIFAR10.base_folder, CIFAR10.filename


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The same data packed and served, as torchvision expects it; the root is empty again."""
    archive = root.parent / ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / FOLDER, FOLDER)
    shutil.rmtree(root / FOLDER)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with serving(archive.read_bytes()) as server:
        monkeypatch.setattr(CIFAR10, "url", server.url)
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- reading


def test_cifar10_is_what_torchvision_reads(root: Path) -> None:
    splits = load("cifar10", root)
    for is_train, ours in zip((True, False), splits, strict=True):
        theirs = CIFAR10(root, train=is_train)
        assert np.array_equal(ours.images, theirs.data)
        assert ours.images.flags.c_contiguous
        assert (ours.labels.tolist(), ours.labels.dtype) == (theirs.targets, np.int64)
        assert list(ours.classes) == theirs.classes
        assert (ours.name, ours.title, ours.split) == ("cifar10", "CIFAR-10", "train" if is_train else "test")
        assert ours.mean == pytest.approx(tuple((splits[0].images / 255).mean(axis=(0, 1, 2))))
        assert ours.std == pytest.approx(tuple((splits[0].images / 255).std(axis=(0, 1, 2))))
    assert [len(split) for split in splits] == [10, 2]


def test_cifar100_takes_the_fine_labels(
    tmp_path: Path, official: Callable[[Path, object], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, classes = tmp_path / CIFAR100.base_folder, [f"class {k}" for k in range(100)]
    pixels = np.zeros((2, 3072), np.uint8)
    train = official(folder / "train", {"data": pixels, "fine_labels": [99, 4], "coarse_labels": [7, 8]})
    test = official(folder / "test", {"data": pixels[:1], "fine_labels": [50], "coarse_labels": [9]})
    name, md5 = official(folder / "meta", {"fine_label_names": classes, "coarse_label_names": ["x"]})
    monkeypatch.setattr(CIFAR100, "train_list", [train])
    monkeypatch.setattr(CIFAR100, "test_list", [test])
    monkeypatch.setattr(CIFAR100, "meta", {"filename": name, "key": "fine_label_names", "md5": md5})
    train, test = load("cifar100", tmp_path)
    assert (train.name, train.title, train.classes) == ("cifar100", "CIFAR-100", tuple(classes))
    assert (train.labels.tolist(), test.labels.tolist()) == ([99, 4], [50])


@pytest.mark.parametrize(("ours", "theirs"), [(ARCHIVES["cifar10"], CIFAR10), (ARCHIVES["cifar100"], CIFAR100)])
def test_the_archives_are_those_that_torchvision_knows(ours: object, theirs: type) -> None:
    files = [file for file, _ in (*theirs.train_list, *theirs.test_list)] + [theirs.meta["filename"]]
    assert (ours.url, ours.name, ours.md5) == (theirs.url, theirs.filename, theirs.tgz_md5)
    assert (ours.folder, list(ours.files)) == (theirs.base_folder, files)


@pytest.mark.parametrize("file", ["data_batch_4", "test_batch", "batches.meta"])
def test_a_corrupt_batch_is_named_with_its_remedy(root: Path, file: str) -> None:
    path = root / FOLDER / file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    expected, found = (hashlib.md5(content).hexdigest() for content in (whole, whole[:-1]))
    message = f"{path} is corrupt (md5 {found}, expected {expected}): delete it and run again."
    for name in ("cifar10", "auto"):  # "auto" must not hide it behind the digits
        with pytest.raises(DatasetError, match=re.escape(message)):
            load(name, root)


def test_a_batch_cannot_run_code(
    root: Path, official: Callable[[Path, object], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.mkdir, (Path("attacked"),)

    monkeypatch.setattr(CIFAR10, "test_list", [official(root / FOLDER / "test_batch", Attack())])
    with pytest.raises(DatasetError, match=r"A batch file asks to load .*, which no CIFAR file holds: delete it and run"):
        load("cifar10", root)
    assert not Path("attacked").exists()


# ---- the archive


def test_an_archive_in_the_root_is_unpacked_without_network(root: Path, server: FileServer) -> None:
    (root / ARCHIVE).write_bytes(server.content)
    train, test = load("cifar10", root)
    assert (len(train), len(test)) == (10, 2)
    (root / FOLDER / "data_batch_2").unlink()
    assert np.array_equal(load("cifar10", root)[0].images, train.images)
    assert server.seen == []


def packed(monkeypatch: pytest.MonkeyPatch, root: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """An archive of these members in the root, with an md5 that torchvision would accept."""
    with tarfile.open(root / ARCHIVE, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5((root / ARCHIVE).read_bytes()).hexdigest())


@pytest.mark.usefixtures("server")
def test_an_archive_cannot_write_outside_of_its_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ARCHIVES["cifar10"].files
    link = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, "../../escaped"
    others = [(tarfile.TarInfo(f"{FOLDER}/{name}"), b"x") for name in files[1:]]
    others += [(tarfile.TarInfo(name), b"x") for name in ("../escaped", f"{tmp_path}/escaped")]
    packed(monkeypatch, root, (link, b""), *others)
    message = rf"\(there is no {FOLDER}/ and {ARCHIVE} is there\), and {FOLDER}/data_batch_1 in {ARCHIVE} is not a file. Put"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", root)
    assert names(root) == [ARCHIVE]

    packed(monkeypatch, root, (tarfile.TarInfo(f"{FOLDER}/data_batch_1"), b"x"), *others)  # all that is asked for, and more
    with pytest.raises(DatasetError, match="data_batch_1 is corrupt"):
        load("cifar10", root)
    assert names(root / FOLDER) == sorted(files)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.usefixtures("server")
def test_an_archive_without_a_batch_says_which(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(monkeypatch, root, (tarfile.TarInfo(f"{FOLDER}/data_batch_2"), b"x"))
    with pytest.raises(
        FileNotFoundError, match=rf"unpacking {ARCHIVE} failed \(filename '{FOLDER}/data_batch_1' not found\). Put"
    ):
        load("cifar10", root)


# ---- the download


def test_what_is_missing_is_downloaded_once(root: Path, server: FileServer) -> None:
    assert len(load("cifar10", root / "new" / "folder")[0]) == 10
    assert len(load("auto", root / "new" / "folder")[0]) == 10
    assert [request.method for request in server.seen] == ["GET"]


@pytest.mark.parametrize(
    ("there", "found"), [(None, f"there is no {ARCHIVE}"), (b"a part", f"{ARCHIVE} is incomplete or corrupt")]
)
def test_a_damaged_download_changes_nothing_and_the_next_run_repeats_it(
    there: bytes | None, found: str, root: Path, server: FileServer
) -> None:
    if there is not None:
        (root / ARCHIVE).write_bytes(there)
    whole, server.content = server.content, server.content[:-5]
    message = (
        rf"^CIFAR-10 is not in .*root \(there is no {FOLDER}/ and {found}\), and {server.url} sent another file \(its md5 is"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", root)
    assert [path.read_bytes() for path in root.iterdir()] == ([] if there is None else [there])
    server.content = whole
    assert len(load("cifar10", root)[0]) == 10
    assert (root / ARCHIVE).read_bytes() == whole
    assert names(root) == [FOLDER, ARCHIVE]


@pytest.mark.parametrize(("where", "left"), [("fetching", []), ("unpacking", [FOLDER, ARCHIVE])])
def test_a_full_disk_leaves_no_part_of_a_file(
    where: str, left: list[str], root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download_attempt if where == "fetching" else cifar, "write_atomically", full)
    with pytest.raises(FileNotFoundError, match=rf"and {where} {ARCHIVE} failed \(\[Errno 28\] No space left on device\). Put"):
        load("cifar10", root)
    assert sorted(path.name for path in root.rglob("*")) == left
    assert len(server.seen) == 1


def test_two_loads_at_once_share_one_download(root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def begin(*arguments: object) -> object:
        together.wait(30)
        return download.begin(*arguments)

    monkeypatch.setattr(cifar, "begin", begin)
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load, "cifar10", root) for _ in range(2)]
        assert [len(done.result()[0]) for done in loads] == [10, 10]
    assert len(server.seen) == 1
    assert names(root) == [FOLDER, ARCHIVE]


def test_a_load_joins_the_download_of_the_bootstrap_cell(
    root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.always = {"chunk": len(server.content) // 5, "every": 0.3}
    archive = dataclasses.replace(ARCHIVES["cifar10"], url=server.url, md5=CIFAR10.tgz_md5)
    monkeypatch.setattr(CIFAR10, "filename", archive.name)
    monkeypatch.setitem(ARCHIVES, "cifar10", archive)
    begun = bootstrap.start_download(data_root=str(root))
    wait_until(lambda: begun.progress()[0])
    assert len(load("auto", root)[0]) == 10
    assert begun.problem is None
    assert len(server.seen) == 1
    out, err = capsys.readouterr()
    assert out == f"Downloading CIFAR-10 into {root} in the background\n"
    assert "downloading CIFAR-10" in err
    assert "/s" in err


def test_the_stop_button_ends_the_wait_for_a_download(root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [{"send": 500, "stall": 20}]
    monkeypatch.setattr(cifar, "PATIENCE", download.Patience(silence=2))
    part, main = root / f"{ARCHIVE}.part", threading.main_thread().ident

    def press() -> None:
        wait_until(lambda: part.exists() and part.stat().st_size == 500)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        load("auto", root)  # which is not "no network": no digits then
    assert part.stat().st_size == 500
    assert len(load("auto", root)[0]) == 10
    assert server.ranges_asked == [None, "bytes=500-"]


# ---- addresses


def test_the_second_address_gives_the_same_archive(root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "https://nowhere.invalid/cifar-10-python.tar.gz")
    monkeypatch.setenv("ERA_CIFAR10_URL", server.url)
    assert len(load("cifar10", root)[0]) == 10


@pytest.mark.parametrize("given", ["mirror/cifar.tar.gz", "ftp://mirror/cifar.tar.gz", "https://", "http://[1"])
def test_a_second_address_that_is_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CIFAR10_URL", given)
    message = f"ERA_CIFAR10_URL is {given!r}: give an address that starts with https:// or http://, or none."
    for name in ("cifar10", "auto"):
        with pytest.raises(ValueError, match=re.escape(message)):
            load(name)
    assert bootstrap.start_download() is None  # the run says it


def test_without_data_and_network_both_addresses_and_what_to_do_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CIFAR10_URL", "https://mirror.invalid/cifar.tar.gz?key=secret")
    with pytest.raises(FileNotFoundError) as caught:
        load("cifar10")
    for part in (
        f"CIFAR-10 is not in {Path('data').resolve()} (there is no {FOLDER}/ and there is no {ARCHIVE}), and ",
        f"{CIFAR10.url} cannot be reached ([Errno 101] Network is unreachable)",
        "and https://mirror.invalid/cifar.tar.gz cannot be reached ([Errno 101]",
        f"Put {ARCHIVE} from {CIFAR10.url} into that folder, name the folder it lies in by ERA_DATA_ROOT",
        'another address of it by ERA_CIFAR10_URL, or choose dataset="digits", which works without a download.',
    ):
        assert part in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not Path("data").exists()
    with pytest.raises(
        FileNotFoundError, match=r"CIFAR-100 is not in .*Put cifar-100-python.tar.gz from https.*ERA_CIFAR100_URL"
    ):
        load("cifar100")


def test_an_incomplete_folder_says_which_file_it_lacks(root: Path) -> None:
    (root / FOLDER / "data_batch_3").unlink()
    message = rf"CIFAR-10 is not in .* \({FOLDER}/ lacks data_batch_3 and there is no {ARCHIVE}\)"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", root)


def test_a_server_that_never_answers_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "PATIENCE", download.Patience(answer=0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts the connection and then says nothing
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x.tar.gz")
        with pytest.raises(FileNotFoundError, match=r"\), and http://127.0.0.1:\d+/x.tar.gz did not answer within 0.2 s. Put "):
            load("cifar10")


def test_a_name_server_that_never_answers_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "PATIENCE", download.Patience(answer=0.2))
    done = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        done.wait(10)  # whatever time limit the connection was given
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", look_up)
    with pytest.raises(FileNotFoundError, match=rf"www.cs.toronto.edu/~kriz/{ARCHIVE} did not answer within 0.2 s"):
        load("cifar10")
    done.set()


def test_the_download_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://data.invalid/x.tar.gz")
    with serving(always={"status": 403}) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(FileNotFoundError, match=r"data.invalid/x.tar.gz answered 403 \(Forbidden\)"):
            load("cifar10")
    assert [(request.method, request.path) for request in proxy.seen] == [("GET", "http://data.invalid/x.tar.gz")]
