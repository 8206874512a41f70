"""CIFAR-10 and CIFAR-100 in their official python version: found on disk or downloaded, checked, and read.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

import hashlib
import pickle
import tarfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from era_support_packages.datasets.archives import addresses, second_address
from era_support_packages.datasets.fitting import IMAGE_SIZE
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, make_splits
from era_support_packages.system.atomic_file import write_atomically
from era_support_packages.system.download import PATIENCE, Download, begin
from era_support_packages.system.progress import progress_bar


def load_cifar(name: str, root: Path) -> tuple[ImageDataset, ImageDataset]:
    """CIFAR-10 or CIFAR-100 in the official python version, from `root`; downloaded into it where it is missing.

    A download that is under way is joined. ERA_CIFAR10_URL and ERA_CIFAR100_URL name a second address each of the archive.
    Every file is compared with the md5 that torchvision knows before it is read.
    Raises FileNotFoundError (no data, and no way to download it), DatasetError (a corrupt file), ValueError (a second address
    that is none).
    """
    from torchvision import datasets as torchvision_datasets  # here, because it is slow to import

    source, title = {
        "cifar10": (torchvision_datasets.CIFAR10, "CIFAR-10"),
        "cifar100": (torchvision_datasets.CIFAR100, "CIFAR-100"),
    }[name]
    folder = root / source.base_folder
    files = [file for file, _ in (*source.train_list, *source.test_list)] + [source.meta["filename"]]
    if missing := [file for file in files if not (folder / file).is_file()]:
        _fetch(name, source, title, root, files, missing)
    train = _read_batches(folder, source.train_list)
    test = _read_batches(folder, source.test_list)
    classes = _read_pickle(folder / source.meta["filename"], source.meta["md5"])[source.meta["key"]]
    return make_splits(train, test, classes, name, title)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numbers, strings, containers and numpy arrays, and refuses everything else."""

    ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise DatasetError(f"A batch file asks to load {module}.{name}, which no CIFAR file holds: delete it and run again.")
        return super().find_class(module, name)


def _read_pickle(file: Path, md5: str) -> dict[str, Any]:
    with open(file, "rb") as stream:
        found = hashlib.md5(stream.read(), usedforsecurity=False).hexdigest()
        if found != md5:
            raise DatasetError(f"{file} is corrupt (md5 {found}, expected {md5}): delete it and run again.")
        stream.seek(0)
        return _ArrayUnpickler(stream, encoding="latin1").load()


def _read_batches(folder: Path, files: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    batches = [_read_pickle(folder / file, md5) for file, md5 in files]
    planes = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    labels = [batch["labels"] if "labels" in batch else batch["fine_labels"] for batch in batches]
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(labels).astype(np.int64)


def _fetch(name: str, source: Any, title: str, root: Path, files: Sequence[str], missing: Sequence[str]) -> None:
    """Unpack the archive in `root`, after downloading it if it is not there or not whole."""
    from torchvision.datasets.utils import check_integrity

    archive = root / source.filename
    problem = None
    if not check_integrity(archive, source.tgz_md5):
        problem = _download(archive, addresses(name, source.url), source.tgz_md5, title)
    if problem is None and (problem := _unpack(archive, root, source.base_folder, files)) is None:
        return
    has_folder = (root / source.base_folder).is_dir()
    whole = check_integrity(archive, source.tgz_md5)
    found = (
        f"{source.base_folder}/ lacks {missing[0]}" if has_folder else f"there is no {source.base_folder}/",
        f"{source.filename} is {'there' if whole else 'incomplete or corrupt'}"
        if archive.exists()
        else f"there is no {source.filename}",
    )
    raise FileNotFoundError(
        f"{title} is not in {root.resolve()} ({' and '.join(found)}), and {problem}. "
        f"Put {source.filename} from {source.url} into that folder, name the folder it lies in by ERA_DATA_ROOT or another "
        f'address of it by {second_address(name)}, or choose dataset="digits", which works without a download.'
    )


def _download(archive: Path, urls: Sequence[str], md5: str, title: str) -> str | None:
    """Wait for the archive, with a bar of what arrives; None, or what went wrong.

    Where its download is under way already, begun by the notebook's second cell or by another process, this joins it.
    """
    download = begin(archive, urls, md5, PATIENCE)
    arrived, total = download.progress()
    with progress_bar(total, f"downloading {title}", "B", initial=arrived, unit_scale=True, delay=0.5) as bar:
        last = time.monotonic()

        def show(download: Download) -> None:
            nonlocal last
            arrived, bar.total = download.progress()
            if arrived != bar.n:
                last = time.monotonic()
            silent = time.monotonic() - last
            bar.set_postfix_str(f"nothing new for {silent:.0f} s" if silent >= 2 else "", refresh=False)
            bar.update(arrived - bar.n)
            if silent >= 2:
                bar.refresh()

        return download.wait(show)


def _unpack(archive: Path, root: Path, folder: str, files: Sequence[str]) -> str | None:
    """Unpack the files that a CIFAR archive has, each as a whole, and nothing else; None, or what went wrong."""
    try:
        with tarfile.open(archive) as tar:
            members = [tar.getmember(f"{folder}/{name}") for name in files]
            if others := [member.name for member in members if not member.isfile()]:
                return f"{others[0]} in {archive.name} is not a file"
            (root / folder).mkdir(exist_ok=True)
            for name, member in zip(files, members, strict=True):
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                write_atomically(root / folder / name, content.read())
    except (OSError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        return f"unpacking {archive.name} failed ({error.args[0] if isinstance(error, KeyError) else error})"
    return None
