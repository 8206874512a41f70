"""What of a folder is used: every format, every depth, and a word on whatever is left out."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from era_support_packages.datasets import folder_listing, scanning
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import load_image_folder
from era_support_packages.datasets.loading import load

BEFORE = [*range(5), *range(100, 105)]


def red(value: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (value, 0, 0))


def reds(folder: Path, **options: bool) -> list[int]:
    """Of all images."""
    return sorted(value for part in load_image_folder(folder, **options) for value in part.images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((f"x.{ending}", {}) for ending in ("png", "bmp", "tif", "gif", "ppm", "tga")),
        *((f"x.{ending}", {"quality": 100}) for ending in ("jpg", "jpeg", "JPG", "avif")),
        *((f"x.{ending}", {"quality": 100, "format": "JPEG"}) for ending in ("jfif", "JPE", "jpg.part")),
        ("x.webp", {"lossless": True}),
        ("x.ico", {"sizes": [(32, 32)]}),
        ("x", {"format": "PNG"}),
        ("deep/er/x.png", {}),
    ],
)
def test_what_a_decoder_reads_is_an_image(name: str, options: dict[str, object], letters: Path) -> None:
    if name == "x.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (letters / "a" / name).parent.mkdir(parents=True, exist_ok=True)
    red(50).save(letters / "a" / name, **options)
    assert np.abs(np.array(reds(letters)) - sorted([*BEFORE, 50])).max() <= 2


def test_folders_below_a_class_folder(image_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = image_folder({"a": [0, 1], "b": [2, 3], "a/site/day1": [4, 5], "a/site/day2": [6], "b/site": [7]}, "nested")
    train, test = load_image_folder(folder)
    assert sorted([*train.images[:, 0, 0, 0], *test.images[:, 0, 0, 0]]) == list(range(8))
    assert train.classes == ("a", "b")
    assert capsys.readouterr().out.startswith("nested: 4 of 8 images lie in folders below the class folders, whose classes they")


def test_links_are_followed_but_not_in_a_circle(letters: Path, image_folder: Callable[..., Path]) -> None:
    elsewhere = image_folder({"x": [50]}, "elsewhere")
    (letters / "a" / "more").symlink_to(elsewhere)
    (letters / "a" / "again").symlink_to(letters / "a")
    (elsewhere / "back").symlink_to(elsewhere)
    assert reds(letters) == sorted([*BEFORE, 50])


def test_of_an_animation_the_first_picture_said_once(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x.gif", "y.tif"):
        red(50).save(letters / "a" / name, save_all=True, append_images=[red(60), red(70)])
    assert reds(letters) == sorted([*BEFORE, 50, 50])
    line = "letters: 2 of 12 files hold several pictures (animations, pages); the first of each is taken.\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("name", ["__background__", "__none__", "train"])
def test_names_of_classes(name: str, image_folder: Callable[..., Path]) -> None:
    assert load_image_folder(image_folder({name: [1, 2], "a": [3, 4]}))[0].classes == tuple(sorted([name, "a"]))


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["Train", "Test"], ""),
        (["train", "Testing"], ""),
        (["train", "val"], "set: val/ is the test split.\n"),
        (["TRAINING", "valid"], "set: valid/ is the test split.\n"),
        (["train", "validation"], "set: validation/ is the test split.\n"),
        (["train", "test", "valid"], "set: not used: valid/ (test/ is the test split).\n"),
    ],
)
def test_names_of_splits(
    splits: list[str], said: str, image_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {f"{split}/{label}": 3 if split == splits[0] else 1 for split in splits for label in "ab"}
    reds = {name: range(10 * place, 10 * place + size) for place, (name, size) in enumerate(sizes.items())}
    assert [len(part) for part in load_image_folder(image_folder(reds, "set"))] == [6, 2]
    assert capsys.readouterr().out == said


def test_one_split_in_two_folders_is_refused(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "CASE").mkdir()
    if (tmp_path / "case").exists():
        pytest.skip("this file system does not tell Train from train")
    folder = image_folder({f"{split}/a": [] for split in ("train", "test", "Train")})
    with pytest.raises(ValueError, match=r"has the folders Train/ and train/.* one"):
        load_image_folder(folder)


def test_lines_on_what_is_left_out_are_wrapped(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/x.txt", "a/README", "a/._x.png", "cover.bmp", "docs/notes.md", "empty/notes.rst"):
        (letters / name).parent.mkdir(exist_ok=True)
        (letters / name).write_text("text")
    assert reds(letters) == BEFORE
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    assert "1 outside of the class folders" in out.replace("\n", " ")
    assert "2 folders without images (docs, empty)" in out.replace("\n", " ")


def test_the_working_folder_itself(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own runs/ lies in it from the second time on."""
    monkeypatch.chdir(letters)
    first, second = load("."), load(".")
    assert (letters / "runs" / ".cache").is_dir()
    assert first[0].classes == second[0].classes == ("a", "b")
    assert first[0].fingerprint == second[0].fingerprint


def test_a_folder_with_nothing_but_what_nobody_reads(image_folder: Callable[..., Path]) -> None:
    folder = image_folder({"a": [], "b": []})
    (folder / "a" / "x.txt").write_text("text")
    with pytest.raises(FileNotFoundError, match=r"holds no images in its class folders \(1 no image \(\.txt\)\)"):
        load_image_folder(folder)


def test_damaged_files_are_named_at_once_or_left_out_on_request(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (letters / "a" / f"{number:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (letters / "b" / "empty.jpg").touch()
    with pytest.raises(DatasetError) as caught:
        load_image_folder(letters)
    message = str(caught.value)
    assert message.startswith("13 of 23 files cannot be decoded as images (")
    assert message.count(".png") == 10
    assert ", and 3 more): replace them or delete them, and run again, or set skip_broken=True to leave them out." in message
    assert reds(letters, skip_broken=True) == BEFORE
    assert capsys.readouterr().out == "letters: not used: 13 damaged.\n"
    assert len(load(letters, skip_broken=True)[0]) == 8


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_that_may_not_be_read_is_named(letters: Path) -> None:
    (letters / "a" / "0.bmp").chmod(0)
    with pytest.raises(DatasetError, match=r"0\.bmp cannot be decoded"):
        load_image_folder(letters)


def test_a_film_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    monkeypatch.setattr(scanning, "decode", lambda *_: pytest.fail("it was decoded"))
    assert scanning.scan_file(str(tmp_path / "film.mp4"), None).problem == "no image (.mp4)"


def test_keys_change_with_the_file(letters: Path) -> None:
    def keys() -> list[str]:
        return [file.key for file in folder_listing.list_folder(letters).candidates]

    before, file = keys(), letters / "a" / "0.bmp"
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time of before
    assert [now == then for now, then in zip(keys(), before, strict=True)] == [False, *[True] * 9]
