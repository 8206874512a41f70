"""Folders of images: layout, decoding, the cache file, bad input; and the real images where they are unpacked."""

import io
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from era_support_packages.datasets import decoding, folder_cache, scanning
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import decode_image, default_cache_dir, load_image_folder
from era_support_packages.datasets.loading import load

REPOSITORY = Path(__file__).parents[2]
REAL_FOLDER = REPOSITORY / "data" / "cifar10-jpeg"


def save(file: Path, value: int | np.ndarray = 0, **options: object) -> Path:
    """Save uint8 (H, W[, C]), or the one value of a 32x32 RGB image, with Pillow: an encoder that is not OpenCV."""
    pixels = np.full((32, 32, 3), value, dtype=np.uint8) if isinstance(value, int) else value
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """train/ with cats 10, 11 and dogs 20, 21; test/ with a cat 12 and a dog 22: the value of all their pixels."""
    folder = tmp_path / "pets"
    for part, label, value in (
        ("train", "dog", 21),
        ("train", "dog", 20),
        ("train", "cat", 10),
        ("train", "cat", 11),
        ("test", "dog", 22),
        ("test", "cat", 12),
    ):
        save(folder / part / label / f"{value}.png", value)
    return folder


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


# ---- layout


def test_train_and_test_folders(pets: Path, cache_dir: Path) -> None:
    train, test = load_image_folder(pets, cache_dir)
    assert train.images.shape == (4, 32, 32, 3)
    assert values(train.images) == [10, 11, 20, 21]
    assert values(test.images) == [12, 22]
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    assert (train.labels.dtype, train.classes) == (np.int64, ("cat", "dog"))
    assert (train.name, train.title) == ("pets", "pets (folder of images)")
    assert (train.split, test.split) == ("train", "test")
    assert train.mean == test.mean == pytest.approx((15.5 / 255,) * 3)
    assert train.std == test.std == pytest.approx((np.std([10, 11, 20, 21]) / 255,) * 3)


def test_class_folders_alone_are_split_in_proportion(tmp_path: Path, cache_dir: Path) -> None:
    for label, count in (("a", 10), ("b", 5)):
        for k in range(count):
            save(tmp_path / "letters" / label / f"{k:02d}.png", 100 * (label == "b") + k)
    train, test = load_image_folder(tmp_path / "letters", cache_dir)
    assert np.bincount(train.labels).tolist() == [8, 4]
    assert np.bincount(test.labels).tolist() == [2, 1]
    assert sorted(values(train.images) + values(test.images)) == [*range(10), *range(100, 105)]
    assert (np.array(values(test.images)) // 100).tolist() == test.labels.tolist()
    assert values(load_image_folder(tmp_path / "letters", tmp_path / "other")[1].images) == values(test.images)


def test_what_is_hidden_or_no_image_is_ignored(pets: Path, cache_dir: Path) -> None:
    (pets / "README.md").touch()
    (pets / "train" / "list.csv").touch()
    save(pets / "train" / ".ipynb_checkpoints" / "0.png")
    save(pets / "train" / "__MACOSX" / "0.png")
    save(pets / "train" / "cat" / "._10.png")
    (pets / "train" / "cat" / "Thumbs.db").touch()
    (pets / "train" / "cat" / "folder.png").mkdir()
    train, _ = load_image_folder(pets, cache_dir)
    assert (train.classes, values(train.images)) == (("cat", "dog"), [10, 11, 20, 21])


def test_a_class_may_lack_test_images(pets: Path, cache_dir: Path) -> None:
    save(pets / "train" / "bird" / "30.png", 30)
    train, test = load_image_folder(pets, cache_dir)
    assert train.classes == test.classes == ("bird", "cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1, 2, 2], [1, 2])


# ---- decoding


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".JPG"])
def test_every_extension_decodes_to_rgb(extension: str, pets: Path, cache_dir: Path) -> None:
    color = np.full((32, 32, 3), (200, 100, 50), dtype=np.uint8)
    save(pets / "test" / "cat" / f"0{extension}", color)
    _, test = load_image_folder(pets, cache_dir)
    assert np.abs(test.images[0].astype(int) - (200, 100, 50)).max() <= 4
    assert test.labels.tolist() == [0, 0, 1]


def test_a_jpeg_decodes_as_pillow_decodes_it(tmp_path: Path) -> None:
    pixels = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), (7, 7), 0)
    file = save(tmp_path / "x.jpg", pixels, quality=90)
    ours, theirs = decode_image(file), np.asarray(Image.open(file))
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_gray_becomes_rgb(tmp_path: Path) -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (decode_image(save(tmp_path / "gray.png", gray)) == gray[..., None]).all()


def test_the_orientation_a_camera_noted_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise by 90 degrees to see it upright
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255  # bright on the left, so bright at the top when turned
    image = decode_image(save(tmp_path / "x.jpg", pixels, exif=exif, quality=95))
    assert image.shape == (32, 16, 3)
    assert image[:12].min() > 200
    assert image[20:].max() < 50


def test_larger_images_are_averaged_by_area(pets: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stripes = np.zeros((64, 128, 3), dtype=np.uint8)
    stripes[:, ::4] = 200  # one column in four: picking columns gives 200 or 0, averaging 50
    for file in list(pets.rglob("*.png")):
        save(file, stripes)
    train, _ = load_image_folder(pets, cache_dir)
    assert (train.images == 50).all()
    line = "pets: images of 128x64 are resized to 32x32.\n"
    assert capsys.readouterr().out == line
    load_image_folder(pets, cache_dir)
    assert capsys.readouterr().out == line  # also when they come from the cache


def test_images_of_several_sizes(pets: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(pets / "train" / "cat" / "10.png", np.full((20, 10, 3), 60, np.uint8))
    save(pets / "train" / "cat" / "11.png", np.full((40, 50, 3), 70, np.uint8))
    train, test = load_image_folder(pets, cache_dir)
    assert train.images.shape[1:] == test.images.shape[1:] == (32, 32, 3)
    assert values(train.images) == [60, 70, 20, 21]
    assert capsys.readouterr().out == "pets: images of 3 sizes (10x20 ... 50x40) are resized to 32x32.\n"


def test_images_of_32_px_are_not_touched(pets: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    save(pets / "test" / "cat" / "12.png", noise)
    _, test = load_image_folder(pets, cache_dir)
    assert np.array_equal(test.images[0], noise)
    assert capsys.readouterr() == ("", "")


def test_more_images_than_a_chunk_keep_their_order(tmp_path: Path, cache_dir: Path) -> None:
    count = 2 * scanning.CHUNK + 1
    for k in range(count):
        save(tmp_path / "many" / "train" / "ab"[k % 2] / f"{k:04d}.bmp", k % 251)
    for label in "ab":
        save(tmp_path / "many" / "test" / label / "0.bmp")
    train, _ = load_image_folder(tmp_path / "many", cache_dir)
    assert values(train.images) == [k % 251 for k in [*range(0, count, 2), *range(1, count, 2)]]


# ---- the cache


def test_the_second_time_nothing_is_decoded(pets: Path, cache_dir: Path, decoded: list[str]) -> None:
    first = load_image_folder(pets, cache_dir)
    assert len(decoded) == 6
    second = load_image_folder(pets, cache_dir)
    assert len(decoded) == 6
    for before, after in zip(first, second, strict=True):
        assert np.array_equal(before.images, after.images)
        assert np.array_equal(before.labels, after.labels)
    assert [re.fullmatch(r"pets-[0-9a-f]{10}\.npz", file.name) is not None for file in cache_dir.iterdir()] == [True]


def test_the_cache_lies_beside_the_runs(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERA_CACHE_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    load_image_folder(pets)
    assert len(list((tmp_path / "runs" / ".cache").iterdir())) == 1
    monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / "elsewhere"))
    load_image_folder(pets)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_two_folders_of_one_name_have_two_caches(tmp_path: Path, cache_dir: Path) -> None:
    for parent, value in (("one", 1), ("two", 2)):
        for label in "ab":
            for k in range(2):
                save(tmp_path / parent / "pets" / label / f"{k}.png", value)
    for _ in range(2):
        assert values(load_image_folder(tmp_path / "one" / "pets", cache_dir)[1].images) == [1, 1]
        assert values(load_image_folder(tmp_path / "two" / "pets", cache_dir)[1].images) == [2, 2]
    assert len(list(cache_dir.iterdir())) == 2


def change_pixels(pets: Path) -> None:
    file = pets / "train" / "cat" / "10.png"
    before = file.stat()
    save(file, 99)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # even within the clock's resolution


def change_size_only(pets: Path) -> None:
    file = pets / "train" / "cat" / "10.png"
    before = file.stat()
    save(file, 98, pnginfo=long_comment())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def long_comment() -> PngInfo:
    comment = PngInfo()
    comment.add_text("Comment", "x" * 1000)
    return comment


def rename(pets: Path) -> None:
    (pets / "train" / "cat" / "10.png").rename(pets / "train" / "cat" / "19.png")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_pixels, [99, 11, 20, 21]),
        (change_size_only, [98, 11, 20, 21]),
        (rename, [11, 10, 20, 21]),
        (lambda pets: (pets / "train" / "cat" / "10.png").unlink(), [11, 20, 21]),
        (lambda pets: save(pets / "train" / "cat" / "13.png", 13), [10, 11, 13, 20, 21]),
    ],
    ids=["changed", "changed in size alone", "renamed", "removed", "added"],
)
def test_a_change_in_the_folder_renews_the_cache(
    change: Callable[[Path], object], expected: list[int], pets: Path, cache_dir: Path, decoded: list[str]
) -> None:
    load_image_folder(pets, cache_dir)
    change(pets)
    assert values(load_image_folder(pets, cache_dir)[0].images) == expected
    assert len(decoded) <= 7  # of what did not change nothing is read again
    decoded.clear()
    assert values(load_image_folder(pets, cache_dir)[0].images) == expected
    assert decoded == []
    assert len(list(cache_dir.iterdir())) == 1


def flip_a_pixel(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def without_images(content: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, texts=np.load(io.BytesIO(content))["texts"])
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-1000], lambda content: b"no cache", flip_a_pixel, without_images],
    ids=["empty", "truncated", "another file", "flipped bit", "no images"],
)
def test_a_damaged_cache_is_made_again(damage: Callable[[bytes], bytes], pets: Path, cache_dir: Path, decoded: list[str]) -> None:
    load_image_folder(pets, cache_dir)
    (cache,) = cache_dir.iterdir()
    cache.write_bytes(damage(cache.read_bytes()))
    decoded.clear()
    for _ in range(2):
        assert values(load_image_folder(pets, cache_dir)[0].images) == [10, 11, 20, 21]
        assert len(decoded) == 6


def test_a_cache_of_another_format_is_made_again(
    pets: Path, cache_dir: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_image_folder(pets, cache_dir)
    monkeypatch.setattr(folder_cache, "CACHE_FORMAT", folder_cache.CACHE_FORMAT + 1)
    load_image_folder(pets, cache_dir)
    assert len(decoded) == 12


def test_writing_the_cache_fails_midway(pets: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_image_folder(pets, cache_dir)
    (cache,) = cache_dir.iterdir()
    whole = cache.read_bytes()

    def disk_full(stream: io.BufferedWriter, **_: object) -> None:
        stream.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    save(pets / "train" / "cat" / "13.png", 13)
    with pytest.warns(UserWarning, match=r"cannot be kept in .*cache \(No space left on device\)"):
        train, _ = load_image_folder(pets, cache_dir)
    assert values(train.images) == [10, 11, 13, 20, 21]
    assert list(cache_dir.iterdir()) == [cache]
    assert cache.read_bytes() == whole


def test_a_tilde_is_the_home_folder(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(pets.parent))
    monkeypatch.setenv("ERA_CACHE_DIR", "~/kept")
    train, _ = load_image_folder(f"~/{pets.name}")
    assert values(train.images) == [10, 11, 20, 21]
    assert len(list((pets.parent / "kept").iterdir())) == 1
    assert decode_image(f"~/{pets.name}/train/cat/10.png")[0, 0, 0] == 10
    monkeypatch.setenv("ERA_CACHE_DIR", "~nobody-is-called-so")
    assert default_cache_dir() == Path("~nobody-is-called-so")


def test_without_a_place_for_the_cache_it_goes_on(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = (
        f"The decoded images of pets cannot be kept in {tmp_path / 'file' / 'cache'} (Not a directory): they are "
        "decoded again every time, unless ERA_CACHE_DIR names a folder that can be written."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        train, _ = load_image_folder(pets, tmp_path / "file" / "cache")
    assert len(train) == 4


# ---- bad input


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_corrupt_file_is_named(extension: str, kept: float, pets: Path, cache_dir: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    file = save(pets / "train" / "dog" / f"x{extension}", noise)
    assert len(load_image_folder(pets, cache_dir)[0]) == 5
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    way_out = r"replace it or delete it, and run again, or set skip_broken=True to leave it out\."
    with pytest.raises(DatasetError, match=rf"^{re.escape(str(file))} cannot be decoded as an image \(it .+\): {way_out}$"):
        load_image_folder(pets, cache_dir)
    assert len(load_image_folder(pets, cache_dir, skip_broken=True)[0]) == 4


def test_a_jpeg_cut_short_is_refused_where_opencv_decodes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save(tmp_path / "x.jpg", 77).read_bytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((32, 32, 3), 128, np.uint8))  # as before version 5
    assert decoding.decode(content, lambda: "").pixels.shape == (32, 32, 3)
    with pytest.raises(decoding.UndecodableError, match="it is cut short"):
        decoding.decode(content[:-2], lambda: "")


def test_bytes_after_the_end_of_a_jpeg_are_harmless(tmp_path: Path) -> None:
    file = save(tmp_path / "x.jpg", 77)
    file.write_bytes(file.read_bytes() + bytes(100))
    assert (decode_image(file) == 77).all()


def remove(*parts: str) -> Callable[[Path], None]:
    def change(pets: Path) -> None:
        for part in parts:
            for file in sorted((pets / part).rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            (pets / part).rmdir()

    return change


def single_image(pets: Path) -> None:
    remove("test")(pets)
    (pets / "train" / "cat" / "11.png").unlink()
    for label in ("cat", "dog"):
        (pets / "train" / label).rename(pets / label)
    (pets / "train").rmdir()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            remove("test"),
            FileNotFoundError,
            "{pets} has a folder train/ but no test/: give it both, or class folders alone, without train/.",
        ),
        (
            remove("train"),
            FileNotFoundError,
            "{pets} has a folder test/ but no train/: give it both, or class folders alone, without test/.",
        ),
        (
            remove("train", "test"),
            FileNotFoundError,
            "{pets} holds no class folders: a folder of images has <class>/ or train/<class>/ and test/<class>/ in it.",
        ),
        (
            remove("train/cat", "train/dog"),
            FileNotFoundError,
            "{pets}/train holds no class folders: a folder of images has <class>/ or train/<class>/ and test/<class>/ in it.",
        ),
        (
            remove("test/cat", "test/dog"),
            FileNotFoundError,
            "{pets}/test holds no class folders: it needs the same ones as train/.",
        ),
        (
            remove("train/cat", "test/cat"),
            ValueError,
            "{pets}/train holds only one class folder with images, 'dog': a classifier needs at least two.",
        ),
        (
            lambda pets: save(pets / "test" / "horse" / "0.png"),
            ValueError,
            "{pets}/test/horse is a class that train/ lacks: train/ must have every class of test/.",
        ),
        (
            single_image,
            ValueError,
            "class folder {pets}/cat holds one image: it needs two, one to train and one to test.",
        ),
    ],
    ids=[
        "no test",
        "no train",
        "nothing",
        "empty train",
        "empty test",
        "one class",
        "class only in test",
        "one image to split",
    ],
)
def test_a_folder_that_cannot_be_used(
    change: Callable[[Path], object], error: type[Exception], message: str, pets: Path, cache_dir: Path
) -> None:
    change(pets)
    with pytest.raises(error, match=f"^{re.escape(message.format(pets=pets))}$"):
        load_image_folder(pets, cache_dir)


# ---- the real images


@pytest.mark.skipif(not REAL_FOLDER.is_dir(), reason="the JPEG copy of CIFAR-10 is not unpacked in data/cifar10-jpeg")
def test_the_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CACHE_DIR", str(REPOSITORY / "runs" / ".cache"))  # decoded once, for every run of the tests
    load(REAL_FOLDER)
    start = time.process_time()  # which other processes do not lengthen
    train, test = load(REAL_FOLDER)
    assert time.process_time() - start < 3  # less than one, from the cache; 60,000 files take five to decode
    assert (train.images.shape, test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert train.classes == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.mean == pytest.approx((0.4912, 0.4821, 0.4465), abs=1e-4)  # as the copy's README says
    assert train.std == pytest.approx((0.2452, 0.2428, 0.2606), abs=1e-4)
    assert train.mean == pytest.approx((0.49125038, 0.48209027, 0.44652094), abs=1e-6)  # as decoded with Pillow
    assert train.std == pytest.approx((0.24523161, 0.24278155, 0.26062877), abs=1e-6)
    assert (train.name, train.title) == ("cifar10-jpeg", "cifar10-jpeg (folder of images)")
    for split, index, file in ((train, 15_007, "train/cat/0007.jpg"), (test, 9_999, "test/truck/0999.jpg")):
        theirs = np.asarray(Image.open(REAL_FOLDER / file)).astype(int)
        assert np.abs(split.images[index] - theirs).max() <= 3
