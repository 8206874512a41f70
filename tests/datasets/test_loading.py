"""Data sets: the official CIFAR layout, its archive and its download, the digits, names, statistics, splits."""

import dataclasses
import hashlib
import http.server
import io
import pickle
import re
import signal
import socket
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import serving, wait_until

from era_support_packages import bootstrap
from era_support_packages.datasets import cifar, loading as datasets
from era_support_packages.datasets.archives import ARCHIVES
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, channel_statistics, stratified_split
from era_support_packages.datasets.loading import default_root, load
from era_support_packages.system import download, download_attempt

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_pickle(file: Path, value: object) -> str:
    """Write as the official files were written, and return the md5."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(value, protocol=2))
    return hashlib.md5(file.read_bytes()).hexdigest()


def planes(count: int, seed: int) -> np.ndarray:
    """uint8 (count, 3072): the red, then the green, then the blue plane of each image, row by row."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with ten training images in five batches, and two test images, whose md5 torchvision expects."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "root" / CIFAR10.base_folder
    train_list = []
    for number in range(1, 6):
        batch = {"data": planes(2, seed=number), "labels": [number, number - 1], "batch_label": f"batch {number}"}
        train_list.append([f"data_batch_{number}", write_pickle(folder / f"data_batch_{number}", batch)])
    test_md5 = write_pickle(folder / "test_batch", {"data": planes(2, seed=9), "labels": [9, 0]})
    meta_md5 = write_pickle(folder / "batches.meta", {"label_names": CIFAR10_CLASSES, "num_vis": 3072})
    monkeypatch.setattr(CIFAR10, "train_list", train_list)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", test_md5]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta_md5})
    return tmp_path / "root"


@pytest.fixture
def small_archive(small_cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The same data packed, as torchvision expects it; the root is empty again."""
    from torchvision.datasets import CIFAR10

    archive = small_cifar10 / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(small_cifar10 / CIFAR10.base_folder, CIFAR10.base_folder)
    packed = archive.read_bytes()
    for file in (small_cifar10 / CIFAR10.base_folder).iterdir():
        file.unlink()
    (small_cifar10 / CIFAR10.base_folder).rmdir()
    archive.unlink()
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(packed).hexdigest())
    return packed


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees this machine's proxies or data folders, and none reaches beyond it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("ERA_DATA_ROOT", "ERA_CACHE_DIR", "ERA_CIFAR10_URL", "ERA_CIFAR100_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib looks at the proxies only once
    monkeypatch.chdir(tmp_path)
    connect = socket.create_connection

    def connect_here(address: tuple[str, int], *args: object, **kwargs: object) -> socket.socket:
        if address[0] != "127.0.0.1":
            raise OSError(101, "Network is unreachable")
        return connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", connect_here)


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server on this machine that answers every request with `.content` and notes the requests in `.seen`."""
    state = SimpleNamespace(content=b"", seen=[], status=200)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.seen.append(f"{self.command} {self.path}")
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(state.content)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.port = httpd.server_port
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
        yield state
        httpd.shutdown()


def image_dataset(**changes: object) -> ImageDataset:
    """Four images, image k of constant value k, of classes 0, 1, 0, 1."""
    images = np.repeat(np.arange(4, dtype=np.uint8), 2 * 2 * 3).reshape(4, 2, 2, 3)
    values = {
        "images": images,
        "labels": np.array([0, 1, 0, 1]),
        "classes": ("cat", "dog"),
        "name": "pets",
        "title": "Pets",
        "split": "test",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
    return ImageDataset(**(values | changes))


# ---- ImageDataset


@pytest.mark.parametrize(
    "indices", [[3, 0], (3, 0), np.array([3, 0]), np.array([3, 0], dtype=np.int32)], ids=["list", "tuple", "i64", "i32"]
)
def test_take_keeps_the_order_and_the_statistics(indices: object) -> None:
    taken = image_dataset().take(indices)
    assert len(taken) == 2
    assert taken.images[:, 0, 0, 0].tolist() == [3, 0]
    assert taken.labels.tolist() == [1, 0]
    assert (taken.mean, taken.std, taken.split, taken.classes) == (
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        "test",
        ("cat", "dog"),
    )


def test_take_accepts_a_mask_and_an_empty_list() -> None:
    assert image_dataset().take(np.array([False, True, False, True])).images[:, 0, 0, 0].tolist() == [1, 3]
    assert image_dataset().take([]).images.shape == (0, 2, 2, 3)


def test_take_refuses_an_index_beyond_the_end() -> None:
    with pytest.raises(IndexError, match="index 4 is out of bounds for axis 0 with size 4"):
        image_dataset().take([4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 2, 2, 3))}, "images are float64 (4, 2, 2, 3); they must be uint8 (N, H, W, 3)."),
        (
            {"images": np.zeros((4, 3, 2, 2), np.uint8)},
            "images are uint8 (4, 3, 2, 2); they must be uint8 (N, H, W, 3).",
        ),
        ({"labels": np.array([0, 1])}, "labels are int64 (2,); they must be int64 (4,), one an image."),
        ({"labels": np.zeros(4, np.int32)}, "labels are int32 (4,); they must be int64 (4,), one an image."),
        (
            {"labels": np.array([0, 1, 2, 1])},
            "labels reach from 0 to 2; with 2 classes they must lie in 0 ... 1.",
        ),
        (
            {"labels": np.array([0, -1, 0, 1])},
            "labels reach from -1 to 1; with 2 classes they must lie in 0 ... 1.",
        ),
    ],
)
def test_image_dataset_refuses_what_does_not_fit(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        image_dataset(**changes)


# ---- statistics and splits


def test_channel_statistics_equal_those_of_a_float_copy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (65, 256, 256, 3), dtype=np.uint8)  # more pixels than a block
    images[..., 1] //= 4
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-10)
    assert all(type(value) is float for value in (*mean, *std))


def test_channel_statistics_by_hand() -> None:
    images = np.zeros((1, 1, 2, 3), dtype=np.uint8)
    images[0, 0, :, 0] = 0, 255
    images[0, 0, :, 1] = 51, 102
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((0.5, 0.3, 0.0))
    assert std == pytest.approx((0.5, 0.1, 1.0))  # a constant channel must not become a division by zero


@pytest.mark.parametrize("count", [1, 3, 7, 10])
def test_a_constant_channel_has_standard_deviation_one_in_spite_of_rounding(count: int) -> None:
    for value in range(256):
        assert channel_statistics(np.full((count, 1, 1, 3), value, np.uint8))[1] == (1.0, 1.0, 1.0)


def test_channel_statistics_of_nothing() -> None:
    with pytest.raises(ValueError, match=r"^images are empty, of shape \(0, 2, 2, 3\): statistics need at least one"):
        channel_statistics(np.zeros((0, 2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("counts", "test_counts"),
    [
        ([10, 20, 30], [2, 4, 6]),  # exact fifths
        ([4, 3, 6], [1, 1, 1]),  # quotas 0.8, 0.6, 1.2, in all ceil(2.6) = 3
        ([9, 8, 7], [2, 2, 1]),  # quotas 1.8, 1.6, 1.4, in all ceil(4.8) = 5
        ([2, 2, 2], [1, 1, 1]),  # at least one a class, though a fifth of the whole is two
    ],
)
def test_stratified_split_shares_out_in_proportion(counts: list[int], test_counts: list[int]) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(3), counts))
    train, test = stratified_split(labels)
    assert np.bincount(labels[test], minlength=3).tolist() == test_counts
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert list(train) == sorted(train)
    assert list(test) == sorted(test)


def test_stratified_split_is_the_same_every_time() -> None:
    _, test = stratified_split(np.arange(20) % 2)
    assert test.tolist() == [1, 8, 18, 19]


# ---- digits


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    train, test = load("digits")
    assert (train.images.shape, test.images.shape) == ((1437, 32, 32, 3), (360, 32, 32, 3))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)
    assert train.classes == test.classes == tuple("0123456789")
    assert (train.name, train.split, test.split) == ("digits", "train", "test")
    assert train.title == test.title == "handwritten digits (embedded default, not CIFAR-10)"
    digits = load_digits()
    counts = np.bincount(digits.target)
    assert (np.bincount(train.labels) + np.bincount(test.labels)).tolist() == counts.tolist()
    assert np.abs(np.bincount(test.labels) - 0.2 * counts).max() < 1
    for split, indices in zip((train, test), stratified_split(digits.target), strict=True):
        assert np.array_equal(split.labels, digits.target[indices])
        originals = digits.images[indices] * 255 / 16
        averaged = split.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        for k in range(0, len(split), 50):  # averaged back to 8x8, an image is nearest to the original it is made of
            assert np.abs(originals - averaged[k]).mean(axis=(1, 2)).argmin() == k
    assert (test.images[..., 0] == test.images[..., 1]).all()
    assert (test.images[..., 0] == test.images[..., 2]).all()
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.mean == test.mean == pytest.approx((train.images[..., 0] / 255).mean().repeat(3))
    assert np.array_equal(load("digits")[1].images, test.images)


# ---- the official CIFAR layout


def test_cifar10_reads_the_official_layout(small_cifar10: Path) -> None:
    train, test = load("cifar10", small_cifar10)
    assert (train.images.shape, test.images.shape) == ((10, 32, 32, 3), (2, 32, 32, 3))
    assert train.labels.tolist() == [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]
    assert test.labels.tolist() == [9, 0]
    assert test.labels.dtype == np.int64
    assert train.classes == tuple(CIFAR10_CLASSES)
    assert (train.name, train.title, train.split, test.split) == ("cifar10", "CIFAR-10", "train", "test")
    raw = planes(2, seed=3)[1]  # the second image of the third batch
    for row, column in ((0, 0), (5, 7), (31, 30)):
        at = 32 * row + column
        assert train.images[5, row, column].tolist() == [raw[at], raw[1024 + at], raw[2048 + at]]
    assert train.images.flags.c_contiguous
    pixels = np.concatenate([planes(2, seed) for seed in range(1, 6)]).reshape(-1, 3, 1024) / 255
    assert train.mean == test.mean == pytest.approx(tuple(pixels.mean(axis=(0, 2))))
    assert train.std == test.std == pytest.approx(tuple(pixels.std(axis=(0, 2))))


def test_cifar10_equals_what_torchvision_reads(small_cifar10: Path) -> None:
    from torchvision.datasets import CIFAR10

    for split, ours in zip((True, False), load("cifar10", small_cifar10), strict=True):
        theirs = CIFAR10(small_cifar10, train=split)
        assert np.array_equal(ours.images, theirs.data)
        assert ours.labels.tolist() == theirs.targets
        assert list(ours.classes) == theirs.classes


def test_cifar100_takes_the_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    folder = tmp_path / CIFAR100.base_folder
    names = [f"class {k}" for k in range(100)]
    train = {"data": planes(2, seed=1), "fine_labels": [99, 4], "coarse_labels": [7, 8]}
    test = {"data": planes(1, seed=2), "fine_labels": [50], "coarse_labels": [9]}
    monkeypatch.setattr(CIFAR100, "train_list", [["train", write_pickle(folder / "train", train)]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", write_pickle(folder / "test", test)]])
    meta_md5 = write_pickle(folder / "meta", {"fine_label_names": names, "coarse_label_names": ["x"]})
    monkeypatch.setattr(CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": meta_md5})
    train, test = load("cifar100", tmp_path)
    assert (train.name, train.title, train.classes) == ("cifar100", "CIFAR-100", tuple(names))
    assert (train.labels.tolist(), test.labels.tolist()) == ([99, 4], [50])


def test_the_archives_are_those_that_torchvision_knows() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    for ours, theirs in ((ARCHIVES["cifar10"], CIFAR10), (ARCHIVES["cifar100"], CIFAR100)):
        files = [file for file, _ in (*theirs.train_list, *theirs.test_list)] + [theirs.meta["filename"]]
        assert (ours.url, ours.name, ours.md5) == (theirs.url, theirs.filename, theirs.tgz_md5)
        assert (ours.folder, list(ours.files)) == (theirs.base_folder, files)


def test_the_root_is_the_argument_else_the_environment_else_data(
    small_cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert datasets.default_root() == Path("data")
    small_cifar10.rename(tmp_path / "data")
    assert len(load("cifar10")[0]) == 10
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        load("cifar10")
    monkeypatch.setenv("ERA_DATA_ROOT", str(tmp_path / "elsewhere"))
    assert len(load("cifar10")[0]) == 10
    with pytest.raises(FileNotFoundError):
        load("cifar10", root=tmp_path / "nothing")


@pytest.mark.parametrize("file", ["data_batch_4", "test_batch", "batches.meta"])
def test_a_corrupt_batch_is_named_with_its_remedy(small_cifar10: Path, file: str) -> None:
    path = small_cifar10 / "cifar-10-batches-py" / file
    expected = hashlib.md5(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-1])
    found = hashlib.md5(path.read_bytes()).hexdigest()
    message = f"{path} is corrupt (md5 {found}, expected {expected}): delete it and run again."
    for name in ("cifar10", "auto"):  # "auto" must not hide it behind the digits
        with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
            load(name, small_cifar10)


def test_a_batch_cannot_run_code(small_cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.mkdir, (Path("attacked"),)

    md5 = write_pickle(small_cifar10 / CIFAR10.base_folder / "test_batch", Attack())
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5]])
    with pytest.raises(DatasetError, match=r"^A batch file asks to load .*, which no CIFAR file holds: delete it and run"):
        load("cifar10", small_cifar10)
    assert not Path("attacked").exists()


# ---- the archive and the download


def test_an_archive_in_the_root_is_unpacked_without_network(
    small_cifar10: Path, small_archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    (small_cifar10 / "cifar-10-python.tar.gz").write_bytes(small_archive)
    train, test = load("cifar10", small_cifar10)
    assert (len(train), len(test)) == (10, 2)


def test_a_deleted_batch_comes_back_from_the_archive(small_cifar10: Path, small_archive: bytes) -> None:
    (small_cifar10 / "cifar-10-python.tar.gz").write_bytes(small_archive)
    before, _ = load("cifar10", small_cifar10)
    (small_cifar10 / "cifar-10-batches-py" / "data_batch_2").unlink()
    after, _ = load("cifar10", small_cifar10)
    assert np.array_equal(before.images, after.images)


def test_what_is_missing_is_downloaded_once(
    small_cifar10: Path, small_archive: bytes, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    server.content = small_archive
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.port}/cifar-10-python.tar.gz")
    root = small_cifar10 / "new" / "folder"
    assert len(load("cifar10", root)[0]) == 10
    assert len(load("auto", root)[0]) == 10
    assert server.seen == ["GET /cifar-10-python.tar.gz"]


def test_a_download_that_arrives_damaged(
    small_cifar10: Path, small_archive: bytes, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    server.content = small_archive[:-5]
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.port}/cifar-10-python.tar.gz")
    message = (
        r"^CIFAR-10 is not in .*root \(there is no cifar-10-batches-py/ and there is no cifar-10-python.tar.gz\), "
        r"and http://127.0.0.1:\d+/cifar-10-python.tar.gz sent another file \(its md5 is wrong\). Put "
    )
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", small_cifar10)
    assert list(small_cifar10.iterdir()) == []
    server.content = small_archive  # the next run downloads it again
    assert len(load("cifar10", small_cifar10)[0]) == 10


def test_a_truncated_archive_stays_until_a_whole_one_is_there(
    small_cifar10: Path, small_archive: bytes, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    archive = small_cifar10 / "cifar-10-python.tar.gz"
    archive.write_bytes(small_archive[:100])
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.port}/cifar-10-python.tar.gz")
    server.content = b"not found"
    message = (
        r"^CIFAR-10 is not in .* \(there is no cifar-10-batches-py/ and cifar-10-python.tar.gz is incomplete or corrupt\), and"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", small_cifar10)
    assert archive.read_bytes() == small_archive[:100]
    server.content = small_archive
    assert len(load("cifar10", small_cifar10)[0]) == 10
    assert archive.read_bytes() == small_archive
    assert sorted(path.name for path in small_cifar10.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def packed(monkeypatch: pytest.MonkeyPatch, root: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """An archive of these members in the root, with an md5 that torchvision would accept."""
    from torchvision.datasets import CIFAR10

    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    digest = hashlib.md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "tgz_md5", digest)


def test_an_archive_cannot_write_outside_of_its_folder(
    small_cifar10: Path, small_archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = "cifar-10-batches-py"
    names = [f"{batches}/data_batch_{number}" for number in range(2, 6)] + [f"{batches}/test_batch", f"{batches}/batches.meta"]
    link = tarfile.TarInfo(f"{batches}/data_batch_1")
    link.type, link.linkname = tarfile.SYMTYPE, "../../escaped"
    others = [(tarfile.TarInfo(name), b"x") for name in (*names, "../escaped", f"{tmp_path}/escaped")]
    packed(monkeypatch, small_cifar10, (link, b""), *others)
    message = (
        r"\(there is no cifar-10-batches-py/ and cifar-10-python.tar.gz is there\), and cifar-10-batches-py/data_batch_1 in "
        r"cifar-10-python.tar.gz is not a file. Put"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", small_cifar10)
    assert not (tmp_path / "escaped").exists()
    assert [path.name for path in small_cifar10.iterdir()] == ["cifar-10-python.tar.gz"]

    whole = tarfile.TarInfo(f"{batches}/data_batch_1")
    packed(monkeypatch, small_cifar10, (whole, b"x"), *others)  # now all that is asked for is there, and more
    with pytest.raises(DatasetError, match="data_batch_1 is corrupt"):
        load("cifar10", small_cifar10)
    assert not (tmp_path / "escaped").exists()
    assert sorted(path.name for path in (small_cifar10 / batches).iterdir()) == sorted(
        ["data_batch_1", *(name.split("/")[1] for name in names)]
    )


def test_an_archive_without_a_batch_says_which(
    small_cifar10: Path, small_archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(monkeypatch, small_cifar10, (tarfile.TarInfo("cifar-10-batches-py/data_batch_2"), b"x"))
    message = r"unpacking cifar-10-python.tar.gz failed \(filename 'cifar-10-batches-py/data_batch_1' not found\). Put"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", small_cifar10)


@pytest.mark.parametrize("where", ["fetching", "unpacking"])
def test_a_full_disk_leaves_no_part_of_a_file(
    where: str, small_cifar10: Path, small_archive: bytes, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    server.content = small_archive
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.port}/cifar-10-python.tar.gz")
    monkeypatch.setattr(download_attempt if where == "fetching" else cifar, "write_atomically", full)
    message = rf"and {where} cifar-10-python.tar.gz failed \(\[Errno 28\] No space left on device\). Put"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", small_cifar10)
    monkeypatch.undo()
    left = sorted(str(path.relative_to(small_cifar10)) for path in small_cifar10.rglob("*"))
    assert left == ([] if where == "fetching" else ["cifar-10-batches-py", "cifar-10-python.tar.gz"])


def test_two_loads_at_once_share_one_download(
    small_cifar10: Path, small_archive: bytes, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    server.content = small_archive
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.port}/cifar-10-python.tar.gz")
    together = threading.Barrier(2)

    def begin(*arguments: object) -> object:
        together.wait(30)
        return download.begin(*arguments)

    monkeypatch.setattr(cifar, "begin", begin)
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load, "cifar10", small_cifar10) for _ in range(2)]
        sizes = [len(done.result()[0]) for done in loads]
    assert sizes == [10, 10]
    assert server.seen == ["GET /cifar-10-python.tar.gz"]
    assert sorted(path.name for path in small_cifar10.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_a_load_joins_the_download_of_the_bootstrap_cell(
    small_cifar10: Path, small_archive: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import CIFAR10

    with serving(small_archive, always={"chunk": len(small_archive) // 5, "every": 0.3}) as slow:
        monkeypatch.setattr(CIFAR10, "url", slow.url)
        archive = dataclasses.replace(ARCHIVES["cifar10"], url=slow.url, md5=CIFAR10.tgz_md5)
        monkeypatch.setattr(CIFAR10, "filename", archive.name)
        monkeypatch.setitem(ARCHIVES, "cifar10", archive)
        begun = bootstrap.start_download(data_root=str(small_cifar10))
        wait_until(lambda: begun.progress()[0])
        assert len(load("auto", small_cifar10)[0]) == 10
        assert begun.problem is None
        assert len(slow.seen) == 1
    out, err = capsys.readouterr()
    assert out == f"Downloading CIFAR-10 into {small_cifar10} in the background\n"
    assert "downloading CIFAR-10" in err
    assert "/s" in err


@pytest.fixture
def stop_button() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which a process that was started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("stop_button")
def test_the_stop_button_ends_the_wait_for_a_download(
    small_cifar10: Path, small_archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    with serving(small_archive, answers=[{"send": 500, "stall": 20}]) as server:
        monkeypatch.setattr(CIFAR10, "url", server.url)
        monkeypatch.setattr(cifar, "PATIENCE", download.Patience(silence=0.5))
        part = small_cifar10 / "cifar-10-python.tar.gz.part"
        main = threading.main_thread().ident

        def press() -> None:
            wait_until(lambda: part.exists() and part.stat().st_size == 500)
            signal.pthread_kill(main, signal.SIGINT)

        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            load("auto", small_cifar10)  # which is not "no network": no digits then
        assert part.stat().st_size == 500
        assert len(load("auto", small_cifar10)[0]) == 10
        assert server.ranges_asked == [None, "bytes=500-"]


def test_the_second_address_gives_the_same_archive(
    small_cifar10: Path, small_archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(small_archive) as second:
        monkeypatch.setenv("ERA_CIFAR10_URL", second.url)  # the first cannot be reached from here
        assert len(load("cifar10", small_cifar10)[0]) == 10


def test_both_addresses_are_named_where_neither_has_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CIFAR10_URL", "https://mirror.invalid/cifar.tar.gz?key=secret")
    with pytest.raises(FileNotFoundError) as error:
        load("cifar10")
    for part in (
        "and https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz cannot be reached ([Errno 101]",
        "and https://mirror.invalid/cifar.tar.gz cannot be reached ([Errno 101]",
        "ERA_CIFAR10_URL",
    ):
        assert part in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("given", ["mirror/cifar.tar.gz", "ftp://mirror/cifar.tar.gz", "https://", "http://[1"])
def test_a_second_address_that_is_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CIFAR10_URL", given)
    message = f"ERA_CIFAR10_URL is {given!r}: give an address that starts with https:// or http://, or none."
    for name in ("cifar10", "auto"):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            load(name)
    assert bootstrap.start_download() is None  # the run says it


def test_no_data_and_no_network_says_what_to_do(tmp_path: Path) -> None:
    message = (
        f"CIFAR-10 is not in {tmp_path / 'data'} (there is no cifar-10-batches-py/ and there is no "
        "cifar-10-python.tar.gz), and https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz cannot be reached ([Errno 101] "
        "Network is unreachable). Put cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz into "
        "that folder, name the folder it lies in by ERA_DATA_ROOT or another address of it by ERA_CIFAR10_URL, or choose "
        'dataset="digits", which works without a download.'
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        load("cifar10")
    assert not (tmp_path / "data").exists()
    with pytest.raises(
        FileNotFoundError, match=r"^CIFAR-100 is not in .*Put cifar-100-python.tar.gz from https://.*ERA_CIFAR100_URL"
    ):
        load("cifar100")


def test_an_incomplete_folder_says_which_file_it_lacks(small_cifar10: Path) -> None:
    (small_cifar10 / "cifar-10-batches-py" / "data_batch_3").unlink()
    message = r"^CIFAR-10 is not in .* \(cifar-10-batches-py/ lacks data_batch_3 and there is no cifar-10-python.tar.gz\)"
    with pytest.raises(FileNotFoundError, match=message):
        load("cifar10", small_cifar10)


def test_a_server_that_never_answers_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(cifar, "PATIENCE", download.Patience(answer=0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts the connection and then says nothing
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/cifar-10-python.tar.gz")
        with pytest.raises(FileNotFoundError, match=r"\), and http://127.0.0.1:\d+/\S+ did not answer within 0.2 s. Put "):
            load("cifar10")


def test_a_name_server_that_never_answers_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "PATIENCE", download.Patience(answer=0.2))
    done = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        done.wait(10)  # whatever time limit the connection was given
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", look_up)
    with pytest.raises(FileNotFoundError, match=r"www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz did not answer within 0.2 s"):
        load("cifar10")
    done.set()


def test_the_download_goes_through_the_proxy(server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    monkeypatch.setattr(CIFAR10, "url", "http://data.invalid/cifar-10-python.tar.gz")
    server.status = 403
    with pytest.raises(FileNotFoundError, match=r"data.invalid/cifar-10-python.tar.gz answered 403 \(Forbidden\)"):
        load("cifar10")
    assert server.seen == ["GET http://data.invalid/cifar-10-python.tar.gz"]


# ---- "auto" and names


def test_auto_is_cifar10_where_it_lies(small_cifar10: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("auto", small_cifar10)[0].name == "cifar10"
    assert capsys.readouterr().out == ""


def test_auto_announces_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    train, _ = load("auto")
    assert (train.name, train.title) == ("digits", "handwritten digits (embedded default, not CIFAR-10)")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "=" * 100
    assert lines[1] == "  NOT CIFAR-10: THIS RUN USES HANDWRITTEN DIGITS"
    assert "Put cifar-10-python.tar.gz from" in " ".join(line.strip() for line in lines)
    assert lines[-2] == "  Accuracies on the digits say nothing about CIFAR-10."
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("cifar-10", " (did you mean 'cifar10' or 'cifar100'?)"),
        ("CIFAR10", " (did you mean 'cifar10' or 'cifar100'?)"),
        ("digit", " (did you mean 'digits'?)"),
        ("flower", " (did you mean 'flowers'?)"),  # a folder in the root
        ("photos/cat_and_dogs", " (did you mean 'photos/cats_and_dogs'?)"),  # a folder beside
        ("mnist", ""),
        ("", ""),
    ],
)
def test_an_unknown_name_gets_the_nearest(given: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "data" / "flowers").mkdir(parents=True)
    (tmp_path / "photos" / "cats_and_dogs").mkdir(parents=True)
    allowed = "give one of auto, cifar10, cifar100, digits, or a path to a folder of images"
    place = f" No such folder is in {Path.cwd()} or in {Path.cwd() / 'data'}." if given else ""
    message = f"Unknown data set {given!r}{hint}: {allowed}.{place}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(given)


def test_a_path_object_is_never_a_name() -> None:
    with pytest.raises(ValueError, match=r"^Unknown data set 'digits' \(did you mean 'digits'\?\): give one of"):
        load(Path("digits"))


@pytest.mark.parametrize("given", [None, 10])
def test_something_else_than_a_name_or_path(given: object) -> None:
    message = f"Unknown data set {given}: give one of auto, cifar10, cifar100, digits, or a path to a folder of images."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load(given)


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "images.zip").touch()
    with pytest.raises(ValueError, match=r"^'images.zip' is a file, not a data set: give one of auto, .* or a path to a"):
        load("images.zip")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["1.png", "2.png"], "holds no class folders: a folder of images has <class>/ or train/<class>/"),
        (["train/cat/1.png", "train/dog/1.png"], "has a folder train/ but no test/: give it both"),
        (["train/cat/1.png", "train/dog/1.png", "test/"], "holds no class folders: it needs the same ones as train/"),
        (["cat/1.png"], "holds only one class folder with images, 'cat': a classifier needs at least two."),
        (["pets/cat/1.png", "pets/dog/1.png"], "at least two (or is {}/pets the data set, with its folders cat, dog?)."),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused_by_its_folders_alone(files: list[str], sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in files:
        place = folder / name
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_bytes(b"no image: it is not opened")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence.format(folder))):
        datasets.check("photos", str(tmp_path))


def test_a_folder_of_two_classes_passes_the_check(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
    datasets.check(tmp_path / "photos")


@pytest.mark.parametrize("given", ["x" * 300, f"{'x' * 300}/y", "~nobody-is-called-so/y", "~nobody-is-called-so"])
def test_a_path_that_no_system_takes_is_unknown(given: str) -> None:
    with pytest.raises(ValueError, match=f"^Unknown data set {given!r}"):
        load(given)
    with pytest.raises(ValueError, match=r"^data_root is "):
        datasets.check("cifar10", given)


def test_a_root_at_which_nothing_can_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cifar10", "auto", "mnist"):
        with pytest.raises(ValueError, match=r"^Data cannot lie in 'x{300}' \(.*\): name another folder"):
            load(name, "x" * 300)
    monkeypatch.setenv("ERA_DATA_ROOT", "x" * 300)
    with pytest.raises(ValueError, match=r"^Data cannot lie in "):
        datasets.check("auto")


def test_a_home_that_is_none_stays_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_DATA_ROOT", "~nobody-is-called-so/data")
    assert default_root() == Path("~nobody-is-called-so/data")
    assert bootstrap.start_download("digits", data_root="~nobody-is-called-so") is None


def test_a_folder_by_path_and_by_its_name_in_the_root(tmp_path: Path) -> None:
    import cv2

    for label in ("cat", "dog"):
        for k in range(2):
            file = tmp_path / "data" / "pets" / label / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.full((32, 32, 3), k, np.uint8))
    for given in ("pets", "data/pets", tmp_path / "data" / "pets"):
        train, test = load(given)
        assert (train.name, train.classes, len(train), len(test)) == ("pets", ("cat", "dog"), 2, 2)


def test_importing_is_cheap() -> None:
    import subprocess
    import sys

    slow = {"torch", "torchvision", "sklearn"}
    code = f"import sys, era_support_packages.datasets.loading; print({slow} & set(sys.modules))"
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")
