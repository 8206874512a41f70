"""What of a folder is used: every format, every depth, and a word on whatever is left out."""

import os
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from era_support_packages.datasets import folder_listing, scanning
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import load_image_folder
from era_support_packages.datasets.loading import load

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """Classes a and b of five images each, without splits; their red is the number of the image, plus 100 for b."""
    for label, base in (("a", 0), ("b", 100)):
        for number in range(5):
            save(tmp_path / "letters" / label / f"{number}.bmp", base + number)
    return tmp_path / "letters"


def save(file: Path, value: int, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (value, 0, 0)).save(file, **options)


def reds(folder: Path, **options: bool) -> list[int]:
    """Of all images."""
    return sorted(value for part in load_image_folder(folder, **options) for value in part.images[:, 0, 0, 0].tolist())


BEFORE = [*range(5), *range(100, 105)]


# ---- formats and places


@pytest.mark.parametrize(
    "name",
    ["x.tif", "x.gif", "x.jfif", "x.JPE", "x.avif", "x.ppm", "x.tga", "x.ico", "x", "x.jpg.part", "x.webp", "deep/er/x.png"],
)
def test_what_a_decoder_reads_is_an_image(name: str, letters: Path) -> None:
    kind = {"jfif": "JPEG", "JPE": "JPEG", "x": "PNG", "part": "JPEG"}.get(name.split(".")[-1])
    if name.endswith("avif") and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    lossless = (
        {"sizes": [(32, 32)]} if name.endswith("ico") else {"lossless": True} if name.endswith("webp") else {"quality": 100}
    )
    save(letters / "a" / name, 50, format=kind, **lossless)
    assert np.abs(np.array(reds(letters)) - sorted([*BEFORE, 50])).max() <= 2


def test_folders_below_a_class_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """80 of 84 images were once left out."""
    for number in range(84):
        inner = "" if number < 4 else f"site{number % 3}/day{number % 5}/"
        save(tmp_path / "nested" / "ab"[number % 2] / f"{inner}{number}.bmp", number)
    assert reds(tmp_path / "nested") == list(range(84))
    assert "nested: 80 of 84 images lie in folders below the class folders, whose classes they have." in capsys.readouterr().out


def test_links_are_followed_but_not_in_a_circle(letters: Path, tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "x.bmp", 50)
    (letters / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (letters / "a" / "again").symlink_to(letters / "a")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    assert reds(letters) == sorted([*BEFORE, 50])


def test_of_an_animation_the_first_picture_said_once(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [Image.new("RGB", (32, 32), (value, 0, 0)) for value in (50, 60, 70)]
    for name in ("x.gif", "y.tif"):
        pictures[0].save(letters / "a" / name, save_all=True, append_images=pictures[1:])
    assert reds(letters) == sorted([*BEFORE, 50, 50])
    line = "letters: 2 of 12 files hold several pictures (animations, pages); the first of each is taken.\n"
    assert capsys.readouterr().out == line


@pytest.mark.parametrize("name", ["__background__", "__none__"])
def test_a_class_may_begin_with_underscores(name: str, letters: Path) -> None:
    save(letters / name / "0.bmp", 200)
    save(letters / name / "1.bmp", 201)
    assert load_image_folder(letters)[0].classes == (name, "a", "b")


# ---- splits


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("train", "val"), ("TRAINING", "valid"), ("train", "validation"), ("train", "Testing")]
)
def test_names_of_splits(train: str, test: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, count in ((train, 3), (test, 1)):
        for label in "ab":
            for number in range(count):
                save(tmp_path / "set" / split / label / f"{number}.bmp", number)
    parts = load_image_folder(tmp_path / "set")
    assert [len(part) for part in parts] == [6, 2]
    said = f"set: {test}/ is the test split.\n" if test.startswith("val") else ""
    assert capsys.readouterr().out == said


def test_a_third_split_is_not_used_and_that_is_said(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = letters.parent / "three"
    for split in ("train", "test", "valid"):
        shutil.copytree(letters, folder / split)
    assert [len(part) for part in load_image_folder(folder)] == [10, 10]
    assert capsys.readouterr().out == "three: not used: valid/ (test/ is the test split).\n"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for label in ("train", "plane"):
        for number in range(3):
            save(tmp_path / "vehicles" / label / f"{number}.bmp", number)
    assert load_image_folder(tmp_path / "vehicles")[0].classes == ("plane", "train")


def test_one_split_in_two_folders_is_refused(letters: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(letters, letters.parent / "double" / split)
    other = letters.parent / "double" / "Train"
    if other.exists():
        pytest.skip("this file system does not tell Train from train")
    shutil.copytree(letters, other)
    with pytest.raises(ValueError, match="has the folders Train/ and train/ for one split: keep one"):
        load_image_folder(letters.parent / "double")


# ---- what is left out


def leave_text(folder: Path) -> None:
    (folder / "a" / "labels.txt").write_text("cat")
    (folder / "b" / "README").write_text("read me")


def leave_heic(folder: Path) -> None:
    (folder / "a" / "IMG_1.HEIC").write_bytes(HEIC)
    (folder / "b" / "IMG_2.heic").write_bytes(HEIC)


def leave_link(folder: Path) -> None:
    (folder / "a" / "gone.jpg").symlink_to(folder / "nowhere.jpg")


def leave_hidden(folder: Path) -> None:
    shutil.copy(folder / "a" / "0.bmp", folder / "a" / "._0.bmp")
    (folder / "a" / ".DS_Store").touch()  # nobody misses it


def leave_loose(folder: Path) -> None:
    shutil.copy(folder / "a" / "0.bmp", folder / "cover.bmp")


def leave_empty(folder: Path) -> None:
    (folder / "docs").mkdir()
    (folder / "docs" / "notes.md").write_text("notes")
    (folder / "empty").mkdir()


def leave_runs(folder: Path) -> None:
    (folder / "runs" / "smoke-letters-123456").mkdir(parents=True)
    (folder / "runs" / ".cache").mkdir()
    for name in ("config.json", "metrics.csv"):
        (folder / "runs" / "smoke-letters-123456" / name).write_text("{}")
    shutil.copy(folder / "a" / "0.bmp", folder / "runs" / "smoke-letters-123456" / "gradCAM.png")


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (leave_text, "1 no image (.txt), 1 no image"),
        (leave_heic, "2 HEIC (`pip install pillow-heif` reads it)"),
        (leave_link, "1 broken links"),
        (leave_hidden, "1 hidden (a name that starts with a dot)"),
        (leave_loose, "1 outside of the class folders"),
        (leave_empty, "1 no image (.md), 2 folders without images (docs, empty)"),
        (leave_runs, "runs/ (runs of this package)"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(
    leave: Callable[[Path], None], words: str, letters: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("era_support_packages.datasets.decoding.importlib.util.find_spec", lambda name: None)
    leave(letters)
    for _ in range(2):  # also from the cache
        assert reds(letters) == BEFORE
        assert capsys.readouterr().out == f"letters: not used: {words}.\n"


def test_the_working_folder_itself(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own runs/ lies in it from the second time on."""
    monkeypatch.delenv("ERA_CACHE_DIR")
    monkeypatch.chdir(letters)
    first = load(".")
    assert (letters / "runs" / ".cache").is_dir()
    second = load(".")
    assert first[0].classes == second[0].classes == ("a", "b")
    assert first[0].fingerprint == second[0].fingerprint


def test_a_folder_with_nothing_but_what_nobody_reads(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "texts" / label).mkdir(parents=True)
        (tmp_path / "texts" / label / "0.txt").write_text("text")
    with pytest.raises(FileNotFoundError, match=r"holds no images in its class folders \(2 no image \(\.txt\)\)"):
        load_image_folder(tmp_path / "texts")


def test_a_folder_around_the_data_set_is_noticed(letters: Path, tmp_path: Path) -> None:
    shutil.move(letters, tmp_path / "archive" / "letters")
    with pytest.raises(
        ValueError, match=r"only one class folder with images, 'letters'.*is .*letters the data set, with its folders a, b"
    ):
        load_image_folder(tmp_path / "archive")


# ---- damage


def test_damaged_files_are_named_at_once(letters: Path) -> None:
    names = [f"{number:02d}.png" for number in range(12)]
    for name in names:
        (letters / "a" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    (letters / "b" / "empty.jpg").touch()
    with pytest.raises(DatasetError) as caught:
        load_image_folder(letters)
    message = str(caught.value)
    assert message.startswith("13 of 23 files cannot be decoded as images (")
    assert message.count(".png") == 10
    assert message.endswith(
        ", and 3 more): replace them or delete them, and run again, or set skip_broken=True to leave them out."
    )


def test_damaged_files_are_left_out_on_request(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (letters / "b" / "empty.jpg").touch()
    assert reds(letters, skip_broken=True) == BEFORE
    assert capsys.readouterr().out == "letters: not used: 1 damaged.\n"
    assert len(load(letters, skip_broken=True)[0]) == 8


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_file_that_may_not_be_read_is_named(letters: Path) -> None:
    (letters / "a" / "0.bmp").chmod(0)
    with pytest.raises(DatasetError, match=r"0\.bmp cannot be decoded"):
        load_image_folder(letters)


def test_a_film_is_not_read_whole(letters: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = letters / "a" / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    read: list[str] = []
    monkeypatch.setattr(scanning, "decode", lambda *_: read.append("decoded"))
    found = scanning.scan_file(str(film), small=True)
    assert (found.problem, read) == ("no image (.mp4)", [])


def test_long_lines_are_wrapped(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for leave in (leave_text, leave_link, leave_hidden, leave_loose, leave_empty):
        leave(letters)
    load_image_folder(letters)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    assert "2 folders without images (docs, empty)" in textwrap.dedent(out).replace("\n", " ")


def test_keys_change_with_the_file(letters: Path) -> None:
    def keys() -> list[str]:
        return [file.key for file in folder_listing.list_folder(letters).candidates]

    before = keys()
    file = letters / "a" / "0.bmp"
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time of before
    assert [now == then for now, then in zip(keys(), before, strict=True)] == [False, *[True] * 9]
