"""CIFAR in its official layout: read, unpacked, downloaded; whatever is damaged, missing or hostile is named."""

import dataclasses
import hashlib
import io
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import FileServer, serving, wait_until
from torchvision.datasets import CIFAR10, CIFAR100

from era_support_packages import bootstrap
from era_support_packages.datasets import cifar
from era_support_packages.datasets.archives import ARCHIVES
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.loading import default_root, load

FOLDER, ARCHIVE = CIFAR10.base_folder, CIFAR10.filename
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`official(CIFAR10, train, test, meta)` writes the official files, whose md5 torchvision then expects."""

    def write(source: type, train: list[object], test: object, meta: object) -> Path:
        folder = tmp_path / "root" / source.base_folder
        folder.mkdir(parents=True)

        def listed(name: str, value: object) -> list[str]:
            (folder / name).write_bytes(pickle.dumps(value, protocol=2))
            return [name, md5(folder / name)]

        numbered = zip(source.train_list, train, strict=False)
        monkeypatch.setattr(source, "train_list", [listed(name, value) for (name, _), value in numbered])
        monkeypatch.setattr(source, "test_list", [listed(source.test_list[0][0], test)])
        monkeypatch.setattr(source, "meta", source.meta | {"md5": listed(source.meta["filename"], meta)[1]})
        return tmp_path / "root"

    return write


@pytest.fixture
def root(official: Callable[..., Path]) -> Path:
    """A root with ten training images in five batches, and two test images."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 2, 3072), dtype=np.uint8)
    train = [{"data": pixels[number], "labels": [number, number - 1]} for number in range(1, 6)]
    return official(CIFAR10, train, {"data": pixels[0], "labels": [9, 0]}, {"label_names": CLASSES})


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The same data packed and served, as torchvision expects it; the root is empty again."""
    archive = root.parent / ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / FOLDER, FOLDER)
    shutil.rmtree(root / FOLDER)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    with serving(archive.read_bytes()) as server:
        monkeypatch.setattr(CIFAR10, "url", server.url)
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_cifar10_is_what_torchvision_reads(root: Path) -> None:
    train, test = load("cifar10", root)
    assert (len(train), len(test)) == (10, 2)
    for ours, split in ((train, "train"), (test, "test")):
        theirs = CIFAR10(root, train=split == "train")
        assert np.array_equal(ours.images, theirs.data)
        assert ours.images.flags.c_contiguous
        assert (ours.labels.tolist(), ours.labels.dtype) == (theirs.targets, np.int64)
        assert (list(ours.classes), ours.name, ours.title, ours.split) == (theirs.classes, "cifar10", "CIFAR-10", split)
        assert ours.mean == pytest.approx(tuple((train.images / 255).mean(axis=(0, 1, 2))))
        assert ours.std == pytest.approx(tuple((train.images / 255).std(axis=(0, 1, 2))))


def test_cifar100_takes_the_fine_labels(official: Callable[..., Path]) -> None:
    names, pixels = [f"class {k}" for k in range(100)], np.zeros((2, 3072), np.uint8)
    train = {"data": pixels, "fine_labels": [99, 4], "coarse_labels": [7, 8]}
    test = {"data": pixels[:1], "fine_labels": [50], "coarse_labels": [9]}
    root = official(CIFAR100, [train], test, {"fine_label_names": names, "coarse_label_names": ["x"]})
    train, test = load("cifar100", root)
    assert (train.name, train.title, train.classes) == ("cifar100", "CIFAR-100", tuple(names))
    assert (train.labels.tolist(), test.labels.tolist()) == ([99, 4], [50])


@pytest.mark.parametrize(("ours", "theirs"), [(ARCHIVES["cifar10"], CIFAR10), (ARCHIVES["cifar100"], CIFAR100)])
def test_the_archives_are_those_that_torchvision_knows(ours: object, theirs: type) -> None:
    files = [file for file, _ in (*theirs.train_list, *theirs.test_list)] + [theirs.meta["filename"]]
    assert (ours.url, ours.name, ours.md5) == (theirs.url, theirs.filename, theirs.tgz_md5)
    assert (ours.folder, list(ours.files)) == (theirs.base_folder, files)


def test_the_root_is_the_argument_else_the_environment_else_data(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default_root() == Path("data")
    root.rename("data")
    assert len(load("cifar10")[0]) == 10
    Path("data").rename("elsewhere")
    with pytest.raises(FileNotFoundError):
        load("cifar10")
    monkeypatch.setenv("ERA_DATA_ROOT", "elsewhere")
    capsys.readouterr()
    assert [load(name)[0].name for name in ("cifar10", "auto")] == ["cifar10"] * 2
    assert capsys.readouterr().out == ""
    with pytest.raises(FileNotFoundError):
        load("cifar10", root=Path("nothing"))


@pytest.mark.parametrize("name", ["cifar10", "auto"])  # which must not hide it behind the digits
@pytest.mark.parametrize("file", ["data_batch_4", "test_batch", "batches.meta"])
def test_a_corrupt_batch_is_named_with_its_remedy(root: Path, file: str, name: str) -> None:
    path = root / FOLDER / file
    expected = md5(path)
    path.write_bytes(path.read_bytes()[:-1])
    message = f"{path} is corrupt (md5 {md5(path)}, expected {expected}): delete it and run again."
    with pytest.raises(DatasetError, match=re.escape(message)):
        load(name, root)


def test_a_batch_cannot_run_code(official: Callable[..., Path]) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.mkdir, (Path("attacked"),)

    with pytest.raises(DatasetError, match=r"A batch file asks to load .*, which no CIFAR file holds: delete it and run"):
        load("cifar10", official(CIFAR10, [Attack()], {}, {}))
    assert not Path("attacked").exists()


def test_an_archive_in_the_root_is_unpacked_without_network(root: Path, server: FileServer) -> None:
    (root / ARCHIVE).write_bytes(server.content)
    train, test = load("cifar10", root)
    assert (len(train), len(test)) == (10, 2)
    (root / FOLDER / "data_batch_2").unlink()
    assert np.array_equal(load("cifar10", root)[0].images, train.images)
    assert server.seen == []


@pytest.mark.usefixtures("server")
def test_an_archive_cannot_write_outside_of_its_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*members: tarfile.TarInfo) -> str:
        with tarfile.open(root / ARCHIVE, "w:gz") as tar:
            for member in members:
                member.size = 0 if member.issym() else 1
                tar.addfile(member, io.BytesIO(b"x"))
        monkeypatch.setattr(CIFAR10, "tgz_md5", md5(root / ARCHIVE))
        with pytest.raises((FileNotFoundError, DatasetError)) as caught:
            load("cifar10", root)
        return str(caught.value)

    first, *others = [tarfile.TarInfo(f"{FOLDER}/{name}") for name in ARCHIVES["cifar10"].files]
    assert f"unpacking {ARCHIVE} failed (filename '{FOLDER}/data_batch_1' not found). Put " in refused(*others)
    link = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, "../../escaped"
    others += [tarfile.TarInfo("../escaped"), tarfile.TarInfo(f"{tmp_path}/escaped")]
    said = f"(there is no {FOLDER}/ and {ARCHIVE} is there), and {FOLDER}/data_batch_1 in {ARCHIVE} is not a file. Put "
    assert said in refused(link, *others)
    assert names(root) == [ARCHIVE]
    assert "data_batch_1 is corrupt" in refused(first, *others)  # all that is asked for is there, and more
    assert names(root / FOLDER) == sorted(ARCHIVES["cifar10"].files)
    assert not (tmp_path / "escaped").exists()


def test_a_disk_that_is_full_leaves_no_part_of_a_file(root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cifar, "write_atomically", full)
    with pytest.raises(FileNotFoundError, match=rf"and unpacking {ARCHIVE} failed \(\[Errno 28\] No space left on device\). Put"):
        load("cifar10", root)
    assert sorted(path.name for path in root.rglob("*")) == [FOLDER, ARCHIVE]


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
    assert (begun.problem, len(server.seen)) == (None, 1)
    out, err = capsys.readouterr()
    assert out == f"Downloading CIFAR-10 into {root} in the background\n"
    assert "downloading CIFAR-10" in err
    assert "/s" in err


def test_a_download_that_stands_still_says_for_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Standing:
        def progress(self) -> tuple[int, int]:
            return 500, 46_000

        def wait(self, show: Callable[["Standing"], None]) -> str:
            show(self)
            show(self)
            return "it stood still"

    times = iter([0, 1, 9])
    monkeypatch.setattr(cifar, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(cifar, "begin", lambda *_: Standing())
    with pytest.raises(FileNotFoundError, match=r"and it stood still\. Put"):
        load("cifar10")
    err = capsys.readouterr().err
    assert "nothing new for 9 s" in err
    assert "nothing new for 1 s" not in err


def test_the_second_address_gives_the_same_archive_once(root: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "https://nowhere.invalid/cifar-10-python.tar.gz")
    monkeypatch.setenv("ERA_CIFAR10_URL", server.url)
    for name in ("cifar10", "auto"):
        assert len(load(name, root / "new" / "folder")[0]) == 10
    assert [request.method for request in server.seen] == ["GET"]


@pytest.mark.parametrize("given", ["mirror/cifar.tar.gz", "ftp://mirror/cifar.tar.gz", "https://", "http://[1"])
def test_a_second_address_that_is_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CIFAR10_URL", given)
    for name in ("cifar10", "auto"):
        with pytest.raises(ValueError, match=rf"ERA_CIFAR10_URL is {re.escape(repr(given))}: give an address that starts with"):
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
        f"Put {ARCHIVE} from {CIFAR10.url} into that folder, name the folder it lies in by ERA_DATA_ROOT or another",
        'address of it by ERA_CIFAR10_URL, or choose dataset="digits", which works without a download.',
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
    with pytest.raises(FileNotFoundError, match=rf"\({FOLDER}/ lacks data_batch_3 and there is no {ARCHIVE}\)"):
        load("cifar10", root)


def test_the_download_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://data.invalid/x.tar.gz")
    with serving(always={"status": 403}) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(FileNotFoundError, match=r"data.invalid/x.tar.gz answered 403 \(Forbidden\)"):
            load("cifar10")
    assert [(request.method, request.path) for request in proxy.seen] == [("GET", "http://data.invalid/x.tar.gz")]
