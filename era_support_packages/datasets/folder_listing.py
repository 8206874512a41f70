"""What lies in a folder of images: its splits, its class folders, the files in them at any depth, and what is passed over.

Nothing is opened here: whether a file is an image its bytes say, when it is read.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from era_support_packages.datasets.decoding import IMAGE_ENDINGS

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that is there is the test split
_NOT_CLASSES = ("__MACOSX", "__pycache__")
_RUN_FILES = ("summary.json", "metrics.csv", "checkpoint.pt")  # beside config.json: a run of this package


@dataclass(frozen=True)
class Candidate:
    """A file that may be an image. name: relative to its class folder, with "/". key: changes with the file."""

    path: str
    split: str
    label: str
    name: str
    key: str

    @property
    def relative(self) -> str:
        """Its name in the data set, the same wherever that lies: "train/cat/0001.png", or "cat/0001.png"."""
        return f"{self.split}/{self.label}/{self.name}" if self.split else f"{self.label}/{self.name}"


@dataclass(frozen=True)
class Listing:
    """The candidates, training files first, in each split by class, then by name.

    folders: the class folders of each split by name, also those without images; the split is "" where there are none.
    passed_over: reasons for which things were left out, with their number. notes: what was decided, a sentence each.
    """

    candidates: list[Candidate]
    folders: dict[str, dict[str, Path]]
    passed_over: Counter[str]
    notes: list[str]


def check_folder(folder: Path) -> None:
    """Refuse what is no folder of images by its folders alone: quick, as no file in them is looked at.

    Raises as `list_folder`, and `ValueError` where there is only one class folder.
    """
    folders, _ = _class_folders(folder, Counter())
    classes = folders.get("train") or folders[""]
    if len(classes) == 1:
        [(name, top)] = classes.items()
        raise ValueError(only_one_class(top.parent, name, list(_folders(top))))


def only_one_class(top: Path, name: str, below: list[str]) -> str:
    """The sentence for a folder with images of one class; `below` are the folders in that of the class."""
    inner = f" (or is {top / name} the data set, with its folders {', '.join(below[:3])}?)" if len(below) > 1 else ""
    return f"{top} holds only one class folder with images, {name!r}: a classifier needs at least two{inner}."


def list_folder(folder: Path) -> Listing:
    """List a folder of images.

    Raises `FileNotFoundError` where there are no class folders or only one of two splits, and `ValueError` where there are two
    folders for one split.
    """
    passed_over: Counter[str] = Counter()
    folders, notes = _class_folders(folder, passed_over)
    candidates = [
        candidate
        for split, classes in folders.items()
        for label, top in classes.items()
        for candidate in sorted(_files(top, split, label, passed_over), key=lambda candidate: candidate.name)
    ]
    return Listing(candidates, folders, +passed_over, notes)


def _class_folders(folder: Path, passed_over: Counter[str]) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """`Listing.folders` and `Listing.notes`. Raises as `list_folder` does."""
    inside = _folders(folder, passed_over)
    splits, notes = _splits(folder, inside, passed_over)
    folders = {split: _folders(top, passed_over) for split, top in splits.items()}
    for split, top in splits.items():
        passed_over["outside of the class folders"] += _loose(top)
        if not folders[split]:
            what = "<class>/ or train/<class>/ and test/<class>/ in it."
            if split == "test":
                raise FileNotFoundError(f"{top} holds no class folders: it needs the same ones as train/.")
            raise FileNotFoundError(f"{top} holds no class folders: a folder of images has {what}")
    return folders, notes


def _splits(folder: Path, inside: dict[str, Path], passed_over: Counter[str]) -> tuple[dict[str, Path], list[str]]:
    """The folders of train and test, or the folder itself as "", and a note on a name that is not one of these."""
    found = {kind: _named(folder, inside, names) for kind, names in (("train", TRAIN_NAMES), ("test", TEST_NAMES))}
    if not any(found.values()):
        return {"": folder}, []
    for kind, other in (("train", "test"), ("test", "train")):
        if not found[kind]:
            there = found[other][0]
            raise FileNotFoundError(
                f"{folder} has a folder {there}/ but no {kind}/: give it both, or class folders alone, without {there}/."
            )
    (train, *_), (test, *others) = found["train"], found["test"]
    for name in others:
        passed_over[f"{name}/ ({test}/ is the test split)"] = 1
    for name in inside:
        if name not in (train, test, *others):
            passed_over[f"{name}/ (no split)"] = 1
    notes = [] if test.lower() in ("test", "testing") else [f"{test}/ is the test split."]
    passed_over["outside of the class folders"] += _loose(folder)
    return {"train": inside[train], "test": inside[test]}, notes


def _named(folder: Path, inside: dict[str, Path], names: tuple[str, ...]) -> list[str]:
    """The folders that have one of the names of a split and folders in them, in the order of the names."""
    found = []
    for wanted in names:
        same = [name for name in inside if name.lower() == wanted and (_folders(inside[name]) or not _loose(inside[name]))]
        if len(same) > 1:
            raise ValueError(f"{folder} has the folders {' and '.join(f'{name}/' for name in same)} for one split: keep one.")
        found += same
    return found


def _folders(folder: Path, passed_over: Counter[str] | None = None) -> dict[str, Path]:
    """The folders in a folder that may be a class or a split, by name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name))
    found = {}
    for name in names:
        if _holds_runs(folder / name):
            if passed_over is not None:
                passed_over[f"{name}/ (runs of this package)"] = 1
        else:
            found[name] = folder / name
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _NOT_CLASSES


def _holds_runs(folder: Path) -> bool:
    """Whether the folder is a run of this package, or holds runs or what was decoded for them."""
    try:
        with os.scandir(folder) as entries:
            inside = [entry for entry in entries if entry.is_dir()]
    except OSError:
        return False
    if _is_run(folder) or any(_is_run(Path(entry.path)) for entry in inside):
        return True
    return [entry.name for entry in inside] == [".cache"]


def _is_run(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in _RUN_FILES)


def _loose(folder: Path) -> int:
    """How many files with the name of an image lie in the folder itself."""
    with os.scandir(folder) as entries:
        return sum(_named_like_an_image(entry.name) and not entry.is_dir() for entry in entries)


def _named_like_an_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS and not name.startswith(".")


def _files(top: Path, split: str, label: str, passed_over: Counter[str]) -> Iterator[Candidate]:
    """The files below a class folder, in any order; links are followed, but not in a circle."""
    above = os.path.realpath(top)
    left: list[tuple[str, str, tuple[str, ...]]] = [(os.fspath(top), "", (above,))]
    while left:
        folder, prefix, parents = left.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{parents[-1]}/{entry.name}"
                    if not _is_hidden(entry.name) and real not in parents:
                        left.append((entry.path, f"{prefix}{entry.name}/", (*parents, real)))
                elif entry.name.startswith("."):
                    hidden = os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS
                    passed_over["hidden (a name that starts with a dot)"] += hidden
                elif not entry.is_file():
                    passed_over["broken links" if entry.is_symlink() else "no files"] += 1
                else:
                    status = entry.stat()
                    key = f"{prefix}{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
                    yield Candidate(entry.path, split, label, prefix + entry.name, f"{split}/{label}/{key}")
