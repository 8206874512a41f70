"""The rows on files and folders of docs/what-it-refuses.md, each run, and compared with the page."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from documented_rows import documented_rows
from PIL import Image

from era_support_packages.datasets.image_folder import load_image_folder


def pixels(value: int = 50) -> Image.Image:
    return Image.new("RGB", (32, 32), (value, 0, 0))


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def damaged(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    noise().save(stream, kind, **options)
    data = stream.getvalue()
    middle = len(data) // 2
    return data[:middle] + bytes(100) + data[middle + 100 :]


def write(name: str, content: bytes) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def save(name: str, image: Image.Image, **options: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)

    return change


def heic(folder: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(pixels()).save(folder / "a" / "x.heic")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a JPEG, PNG, BMP, GIF, TIFF, WebP, or whatever else OpenCV or Pillow reads here": (save("a/x.tif", pixels()), "served"),
    "an image under a wrong name, or one without an ending": (save("a/x", pixels(), format="PNG"), "served"),
    "in a folder below a class folder": (save("a/deeper/x.png", pixels()), "served"),
    "16 bits": (save("a/x.png", Image.fromarray(np.full((32, 32), 900, np.uint16))), "served"),
    "transparent": (save("a/x.png", Image.new("RGBA", (32, 32), (9, 9, 9, 0))), "served"),
    "HEIC, where `pillow-heif` is installed": (heic, "served"),
    "an animation, or several pages": (save("a/x.gif", pixels(), save_all=True, append_images=[pixels(90)]), "served"),
    "a JPEG with zeros inside, or cut short": (write("a/x.jpg", damaged("JPEG")), "refused"),
    "a PNG, GIF or compressed TIFF with bytes that are wrong": (write("a/x.png", damaged("PNG")), "refused"),
    "empty, with the name of an image": (write("a/x.jpg", b""), "refused"),
    "float or 32-bit values, or signed ones: many a TIFF, HDR, PFM": (save("a/x.tif", Image.new("F", (32, 32))), "refused"),
    "a TIFF of more than 4 channels, of Lab colors, or of 16 bits that are planar or count from white": (
        save("a/x.tif", Image.new("LAB", (32, 32))),
        "refused",
    ),
    "JPEG XL, or HEIC without its package": (write("a/x.jxl", b"\xff\x0a" + bytes(50)), "left out"),
    "no image": (write("a/x.txt", b"text"), "left out"),
    "a link to nowhere": (lambda folder: (folder / "a" / "x.jpg").symlink_to(folder / "nowhere"), "left out"),
    "hidden": (save("a/._x.png", pixels()), "left out"),
}


def in_splits(*names: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        for name in names:
            shutil.copytree(folder / "a", folder / name / "a")
            shutil.copytree(folder / "b", folder / name / "b")
        shutil.rmtree(folder / "a")
        shutil.rmtree(folder / "b")

    return change


def one_class(folder: Path) -> None:
    shutil.rmtree(folder / "b")


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "class folders": (lambda folder: None, "served"),
    "`train/` and `test/` with class folders": (in_splits("train", "test"), "served"),
    "`Train/`, `training/`; `val/`, `valid/`, `validation/`, `testing/` without `test/`": (in_splits("Train", "val"), "served"),
    "`valid/` beside `train/` and `test/`": (in_splits("train", "test", "valid"), "left out"),
    "a folder without images": (write("docs/x.md", b"text"), "left out"),
    "`runs/` of this package": (write("runs/r/config.json", b"{}"), "left out"),
    "only one of `train/` and `test/`": (in_splits("train"), "refused"),
    "one class": (one_class, "refused"),
}


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    for label in "ab":
        for number in range(5):
            save(f"{label}/{number}.bmp", pixels(number))(tmp_path / "letters")
    return tmp_path / "letters"


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_each_row(kind: str, letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, outcome = {**FILES, **FOLDERS}[kind]
    change(letters)
    if kind == "`runs/` of this package":
        write("runs/r/metrics.csv", b"epoch")(letters)
    if outcome == "refused":
        with pytest.raises((ValueError, RuntimeError, FileNotFoundError)):
            load_image_folder(letters, tmp_path / "cache")
        return
    count = sum(len(part) for part in load_image_folder(letters, tmp_path / "cache"))
    said = capsys.readouterr().out
    assert ("not used" in said) == (outcome == "left out")
    assert count == {"served": 11, "left out": 10}[outcome] if kind in FILES else count in (10, 20)


@pytest.mark.parametrize(("section", "rows"), [("Files", FILES), ("Folders", FOLDERS)])
def test_the_page_lists_what_is_tested(section: str, rows: dict[str, tuple[Callable[[Path], object], str]]) -> None:
    assert documented_rows(section) == {kind: outcome for kind, (_, outcome) in rows.items()}
