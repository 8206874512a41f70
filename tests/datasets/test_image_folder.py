"""Folders of images: layout, sizes, the cache file, bad input; and the real images where they are unpacked."""

import io
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from era_support_packages.datasets import folder_cache, scanning
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import decode_image, default_cache_dir, load_image_folder
from era_support_packages.datasets.loading import check, load

REPOSITORY = Path(__file__).parents[2]
REAL_FOLDER = REPOSITORY / "data" / "cifar10-jpeg"
CACHE = Path("runs/.cache")  # in the folder of the test


def save(file: Path, value: int | np.ndarray = 0, **options: object) -> Path:
    """Save uint8 (H, W[, C]), or the one value of a 32x32 RGB image, with Pillow: an encoder that is not OpenCV."""
    pixels = np.full((32, 32, 3), value, dtype=np.uint8) if isinstance(value, int) else value
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


@pytest.fixture
def pets(image_folder: Callable[..., Path]) -> Path:
    """Six images, each called as its red value; the other colors are black."""
    reds = {"train/dog": [21, 20], "train/cat": [10, 11], "test/dog": [22], "test/cat": [12]}
    return image_folder(reds, "pets", "png")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded, in any order."""
    names: list[str] = []

    def spy(files: list[str], **options: Any) -> list[scanning.ScannedFile]:
        names.extend(Path(file).name for file in files)
        return scanning.scan(files, **options)

    monkeypatch.setattr(folder_cache, "scan", spy)
    return names


def values(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def training_values(folder: Path) -> list[int]:
    return values(load_image_folder(folder)[0].images)


def test_train_and_test_folders_of_which_test_may_lack_a_class(image_folder: Callable[..., Path]) -> None:
    reds = {"train/dog": [21, 20], "train/cat": [10, 11], "train/bird": [30], "test/dog": [22], "test/cat": [12]}
    train, test = load_image_folder(image_folder(reds, "pets"))
    assert train.images.shape == (5, 32, 32, 3)
    assert (values(train.images), values(test.images)) == ([30, 10, 11, 20, 21], [12, 22])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1, 2, 2], [1, 2])
    assert (train.labels.dtype, train.classes, test.classes) == (np.int64, ("bird", "cat", "dog"), ("bird", "cat", "dog"))
    assert (train.name, train.title) == ("pets", "pets (folder of images)")
    assert (train.split, test.split) == ("train", "test")
    assert train.mean == test.mean == pytest.approx((18.4 / 255, 0, 0))
    assert train.std == test.std == pytest.approx((np.std([30, 10, 11, 20, 21]) / 255, 1, 1))


def test_class_folders_alone_are_split_in_proportion_and_always_alike(image_folder: Callable[..., Path]) -> None:
    folder = image_folder({"a": range(10), "b": range(100, 105)})
    train, test = load_image_folder(folder)
    assert np.bincount(train.labels).tolist() == [8, 4]
    assert np.bincount(test.labels).tolist() == [2, 1]
    assert sorted(values(train.images) + values(test.images)) == [*range(10), *range(100, 105)]
    assert (np.array(values(test.images)) // 100).tolist() == test.labels.tolist()
    assert values(load_image_folder(folder, "another cache")[1].images) == values(test.images)


def test_files_that_are_both_trained_and_tested_on_or_lie_in_two_classes_are_told_of(
    image_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    reds = {"train/cat": [10, 11, 12], "train/dog": [20, 21, 10], "test/cat": [12, 13], "test/dog": [20, 22, 21]}
    train, test = load_image_folder(image_folder(reds, "pets", "png"))
    assert (len(train), len(test)) == (6, 5)
    said = capsys.readouterr().out.replace("\n", " ")
    assert "pets: Warning: 3 of 5 test images are, byte for byte, also trained on (test/cat/12.png is train/cat/12.png" in said
    assert "keep each in one split only." in said
    assert "pets: Warning: 1 picture lies, byte for byte, in more than one class (train/cat/10.png is train/dog/10.png)" in said


def test_copies_in_one_class_of_one_split_and_different_files_are_not_warned_of(pets: Path, capsys) -> None:
    save(pets / "train" / "cat" / "again.png", np.asarray(Image.open(pets / "train" / "cat" / "10.png")))
    load_image_folder(pets)
    assert "Warning" not in capsys.readouterr().out


def test_copies_that_the_split_shares_out_are_told_of_too(image_folder: Callable[..., Path], capsys) -> None:
    folder = image_folder({"a": range(10), "b": range(100, 110)}, "pets", "png")
    for number in range(10):
        save(folder / "a" / f"copy{number}.png", np.asarray(Image.open(folder / "a" / f"{number}.png")))
    load_image_folder(folder)
    assert "of 6 test images are, byte for byte, also trained on (a/" in capsys.readouterr().out.replace("\n", " ")


def test_more_images_than_a_chunk_keep_their_order(image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "CHUNK", 7)
    even, odd = range(100, 140, 2), range(101, 140, 2)
    assert training_values(image_folder({"train/a": even, "train/b": odd, "test/a": [0]})) == [*even, *odd]


def test_larger_images_are_averaged_by_area(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stripes = np.zeros((64, 128, 3), dtype=np.uint8)
    stripes[:, ::4] = 200  # one column in four: picking columns gives 200 or 0, averaging 50
    for number, file in enumerate(pets.rglob("*.png")):
        data = save(file, stripes).read_bytes()
        file.write_bytes(data + bytes([number]))  # behind the picture, so that no file is a copy
    for _ in range(2):  # also when they come from the cache
        assert (load_image_folder(pets)[0].images == 50).all()
        assert capsys.readouterr().out == "pets: images of 128x64 are resized to 32x32.\n"


def test_images_of_several_sizes(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(pets / "train/cat/10.png", np.full((20, 10, 3), 60, np.uint8))
    save(pets / "train/cat/11.png", np.full((40, 50, 3), 70, np.uint8))
    assert training_values(pets) == [60, 70, 20, 21]
    assert capsys.readouterr().out == "pets: images of 3 sizes (10x20 ... 50x40) are resized to 32x32.\n"


def test_images_of_32_px_are_not_touched(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    save(pets / "test" / "cat" / "12.png", noise)
    assert np.array_equal(load_image_folder(pets)[1].images[0], noise)
    assert capsys.readouterr() == ("", "")


def test_the_cache_lies_beside_the_runs_or_where_it_is_asked_for(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pets.parent))
    load_image_folder("~/pets")
    load_image_folder(pets, "asked")
    monkeypatch.setenv("ERA_CACHE_DIR", "~/elsewhere")
    load_image_folder(pets)
    for place in (CACHE, Path("asked"), pets.parent / "elsewhere"):
        [file] = place.iterdir()
        assert re.fullmatch(r"pets-[0-9a-f]{10}\.npz", file.name)
    assert decode_image("~/pets/train/cat/10.png")[0, 0, 0] == 10
    monkeypatch.setenv("ERA_CACHE_DIR", "~nobody-is-called-so")
    assert default_cache_dir() == Path("~nobody-is-called-so")


def test_two_folders_of_one_name_have_two_caches(image_folder: Callable[..., Path]) -> None:
    one, two = (image_folder({"a": [red, red + 1], "b": [red + 2, red + 3]}, f"{red}/pets") for red in (10, 20))
    for _ in range(2):
        assert min(training_values(one)) // 10 == 1
        assert min(training_values(two)) // 10 == 2
    assert len(list(CACHE.iterdir())) == 2


def rewrite(value: int, later: int, **options: object) -> Callable[[Path], None]:
    """An image with another value, its time of change later by so many nanoseconds."""

    def change(pets: Path) -> None:
        file = pets / "train" / "cat" / "10.png"
        before = file.stat()
        save(file, value, **options)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + later))

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (rewrite(99, later=1), [99, 11, 20, 21]),
        (rewrite(98, later=0, compress_level=0), [98, 11, 20, 21]),
        (lambda pets: (pets / "train/cat/10.png").rename(pets / "train/cat/19.png"), [11, 10, 20, 21]),
        (lambda pets: (pets / "train/cat/10.png").unlink(), [11, 20, 21]),
        (lambda pets: save(pets / "train/cat/13.png", 13), [10, 11, 13, 20, 21]),
    ],
    ids=["changed", "changed in size alone", "renamed", "removed", "added"],
)
def test_a_change_in_the_folder_renews_the_cache(
    change: Callable[[Path], object], expected: list[int], pets: Path, decoded: list[str]
) -> None:
    load_image_folder(pets)
    change(pets)
    assert training_values(pets) == expected
    assert len(decoded) <= 7  # of what did not change nothing is read again
    decoded.clear()
    assert training_values(pets) == expected
    assert decoded == []
    assert len(list(CACHE.iterdir())) == 1


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def without_images(content: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, texts=np.load(io.BytesIO(content))["texts"])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-1000], lambda content: b"no cache", flip_a_bit, without_images],
    ids=["empty", "truncated", "another file", "flipped bit", "no images"],
)
def test_a_damaged_cache_is_made_again(damage: Callable[[bytes], bytes], pets: Path, decoded: list[str]) -> None:
    load_image_folder(pets)
    [cache] = CACHE.iterdir()
    cache.write_bytes(damage(cache.read_bytes()))
    decoded.clear()
    for _ in range(2):
        assert training_values(pets) == [10, 11, 20, 21]
        assert len(decoded) == 6


def test_a_cache_of_another_format_is_made_again(pets: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    load_image_folder(pets)
    monkeypatch.setattr(folder_cache, "CACHE_FORMAT", folder_cache.CACHE_FORMAT + 1)
    load_image_folder(pets)
    assert len(decoded) == 12


def test_writing_the_cache_fails_midway(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_image_folder(pets)
    [cache] = CACHE.iterdir()
    whole = cache.read_bytes()

    def disk_full(stream: io.BufferedWriter, **_: object) -> None:
        stream.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    save(pets / "train" / "cat" / "13.png", 13)
    with pytest.warns(UserWarning, match=r"cannot be kept in .*cache \(No space left on device\)"):
        assert training_values(pets) == [10, 11, 13, 20, 21]
    assert list(CACHE.iterdir()) == [cache]
    assert cache.read_bytes() == whole


def test_without_a_place_for_the_cache_it_goes_on(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = re.escape(str(tmp_path / "file" / "cache"))
    message = rf"images of pets cannot be kept in {place} \(Not a directory\): .* again every time, unless ERA_CACHE_DIR names"
    with pytest.warns(UserWarning, match=message):
        train, _ = load_image_folder(pets, tmp_path / "file" / "cache")
    assert len(train) == 4


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_corrupt_file_is_named(extension: str, kept: float, pets: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    file = save(pets / "train" / "dog" / f"x{extension}", noise)
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    way_out = "replace it or delete it, and run again, or set skip_broken=True to leave it out"
    with pytest.raises(DatasetError, match=f"^{re.escape(str(file))} cannot be decoded as an image.*: {way_out}"):
        load_image_folder(pets)
    assert len(load_image_folder(pets, skip_broken=True)[0]) == 4


NO_CLASSES = " holds no class folders: a folder of images has <class>/ or train/<class>/ and test/<class>/ in it."
BOTH = "give it both, or class folders alone, without"
TRAIN = {"train/cat": [1], "train/dog": [2]}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (TRAIN, f" has a folder train/ but no test/: {BOTH} train/."),
        ({"test/cat": [1], "test/dog": [2]}, f" has a folder test/ but no train/: {BOTH} test/."),
        ({".": [1, 2]}, NO_CLASSES),
        ({"train": [], "test/cat": [1]}, f"/train{NO_CLASSES}"),
        (TRAIN | {"test": []}, "/test holds no class folders: it needs the same ones as train/."),
        (
            {"train/dog": [1], "test/dog": [2]},
            "/train holds only one class folder with images, 'dog': a classifier needs at least",
        ),
        ({"a/cat": [1], "a/dog": [2]}, " holds only one class folder with images, 'a': a classifier needs at least two (or is"),
        (TRAIN | {"test/horse": [3]}, "/test/horse is a class that train/ lacks: train/ must have every class of test/."),
        ({"cat": [1], "dog": [2, 3]}, "/cat holds one image: it needs two, one to train and one to test."),
    ],
)
def test_a_folder_that_cannot_be_used(
    folders: dict[str, list[int]], message: str, image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_folder(folders)
    with pytest.raises((FileNotFoundError, ValueError), match=re.escape(f"{folder}{message}")) as caught:
        load_image_folder(folder)
    assert type(caught.value) is (FileNotFoundError if "no class folders" in message or BOTH in message else ValueError)
    monkeypatch.setattr(folder_cache, "scan", None)  # the check opens no file
    if "is a class that" in message or "one image" in message:
        check(folder)
        return
    with pytest.raises(type(caught.value), match=re.escape(str(caught.value))):
        check(folder.name, str(folder.parent))


@pytest.mark.unhurried
@pytest.mark.skipif(not REAL_FOLDER.is_dir(), reason="the JPEG copy of CIFAR-10 is not unpacked in data/cifar10-jpeg")
def test_the_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CACHE_DIR", str(REPOSITORY / "runs" / ".cache"))  # decoded once, for every run of the tests
    load(REAL_FOLDER)
    start = time.process_time()  # which other processes do not lengthen
    train, test = load(REAL_FOLDER)
    assert time.process_time() - start < 3  # less than one, from the cache; 60,000 files take five to decode
    assert train.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.mean == pytest.approx((0.49125038, 0.48209027, 0.44652094), abs=1e-6)  # as decoded with Pillow
    assert train.std == pytest.approx((0.24523161, 0.24278155, 0.26062877), abs=1e-6)
    for split, index, file in ((train, 15_007, "train/cat/0007.jpg"), (test, 9_999, "test/truck/0999.jpg")):
        theirs = np.asarray(Image.open(REAL_FOLDER / file)).astype(int)
        assert np.abs(split.images[index] - theirs).max() <= 3
