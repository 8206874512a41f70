"""Which changes of the data are seen, which are none, and what is said of them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from era_support_packages.datasets import ImageDataset, fingerprint_of, load
from era_support_packages.datasets.digits import load_digits
from era_support_packages.datasets.fingerprint import Fingerprint

DIGITS = "3d4762043b19"  # of scikit-learn's training digits, on every machine


@pytest.fixture
def folder(image_folder: Callable[..., Path]) -> Path:
    return image_folder({"train/a": [10, 11, 12], "train/b": [20, 21, 22], "test/a": [13, 14], "test/b": [23, 24]})


def said(folder: Path, before: tuple[ImageDataset, ImageDataset]) -> str:
    """What has changed in a folder, in words."""
    parts = zip(load(folder), before, ("training", "test"), strict=True)
    return "; ".join(line for now, then, name in parts for line in fingerprint_of(now).changes(fingerprint_of(then), name))


def replace_pixels(folder: Path) -> None:
    """Other pixels, with the size and the time of before."""
    file = folder / "train" / "a" / "11.bmp"
    before = file.stat()
    Image.new("RGB", (32, 32), (99, 99, 99)).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def swap_the_classes(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "a").rename(folder / split / "c")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (replace_pixels, "other files or names among the 3 training images of 'a'"),
        (
            lambda folder: (folder / "train/a/12.bmp").rename(folder / "train/b/23.bmp"),
            "2 training images of 'a' (before 3); 4 training images of 'b' (before 3)",
        ),
        (swap_the_classes, "the classes are b, c (before a, b); the classes are b, c (before a, b)"),
        (lambda folder: shutil.copy(folder / "test/a/13.bmp", folder / "test/a/15.bmp"), "3 test images of 'a' (before 2)"),
        (
            lambda folder: (folder / "test/b/23.bmp").rename(folder / "test/b/29.bmp"),
            "other files or names among the 2 test images of 'b'",
        ),
    ],
    ids=["pixels", "a label", "classes", "one more", "a name"],
)
def test_a_change_is_seen_and_said(change: Callable[[Path], object], sentence: str, folder: Path) -> None:
    before = load(folder)
    change(folder)
    assert said(folder, before) == sentence


def test_another_place_another_time_another_name_of_the_folder_are_no_change(folder: Path, tmp_path: Path) -> None:
    before = load(folder)
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "other")
    for file in elsewhere.rglob("*.bmp"):
        os.utime(file, (1, 1))
    assert said(elsewhere, before) == ""
    assert [part.fingerprint for part in load(elsewhere)] == [part.fingerprint for part in before]


def test_it_does_not_depend_on_how_the_files_are_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(folder)
    monkeypatch.setenv("ERA_CACHE_DIR", "other")
    monkeypatch.setattr("era_support_packages.datasets.scanning.fitted", lambda image, fitting: image[::-1] // 2)
    assert not np.array_equal(load(folder)[0].images, before[0].images)
    assert said(folder, before) == ""


def test_of_arrays() -> None:
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 1, 0, 1])
    other = images.copy()
    other[2, 0, 0, 0] = 1
    first = Fingerprint.of_arrays(["a", "b"], images, labels)
    assert first == Fingerprint.of_arrays(["a", "b"], images.copy(), labels.copy())
    assert {name: count for name, (count, _) in first.by_class.items()} == {"a": 2, "b": 2}
    for classes, now, numbers, change in (
        (["a", "b"], other, labels, "other files or names among the 2 test images of 'a'"),
        (["b", "a"], images, labels, "the classes are in another order (b, a; before a, b)"),
        (["a", "b"], images, np.array([0, 0, 1, 1]), "the test images are in another order"),
    ):
        assert Fingerprint.of_arrays(classes, now, numbers).changes(first, "test") == [change]


def test_many_changed_classes_are_counted() -> None:
    names = [f"class {number}" for number in range(10)]
    before, after = (Fingerprint.of_arrays(names, np.full((10, 1), value, np.uint8), np.arange(10)) for value in (0, 1))
    changes = after.changes(before, "training")
    assert (len(changes), changes[-1]) == (4, "and 7 more classes of the training images")


def test_the_digits_keep_theirs_whatever_enlarges_them(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_digits()[0].fingerprint
    monkeypatch.setattr("cv2.resize", lambda image, size, interpolation: np.zeros(size, np.uint8))
    after = load_digits()[0]
    assert after.images.max() == 0
    assert after.fingerprint == before
    assert before.digest.startswith(DIGITS)


def test_a_part_of_a_split_has_its_own() -> None:
    train, _ = load_digits()
    part = train.take(np.arange(100))
    assert part.fingerprint is None
    assert fingerprint_of(part) != fingerprint_of(train)


def test_json_keeps_it(folder: Path) -> None:
    train, _ = load(folder)
    assert Fingerprint.from_dict(json.loads(json.dumps(train.fingerprint.to_dict()))) == train.fingerprint
