"""The rows on files and folders of docs/what-it-refuses.md, each run, and compared with the page."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from documented_rows import documented_rows
from PIL import Image

from era_support_packages.datasets.image_folder import load_image_folder

PIXELS = Image.new("RGB", (32, 32), (50, 0, 0))
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
Change = Callable[[Path], object]


def write(name: str, content: bytes = b"text") -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def save(name: str, image: Image.Image = PIXELS, **options: object) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        image.save(folder / name, **options)

    return change


def damaged(name: str) -> Change:
    def change(folder: Path) -> None:
        save(name, NOISE)(folder)
        data = (folder / name).read_bytes()
        middle = len(data) // 2
        (folder / name).write_bytes(data[:middle] + bytes(100) + data[middle + 100 :])

    return change


def in_splits(*names: str) -> Change:
    def change(folder: Path) -> None:
        for label in "ab":
            for name in names:
                shutil.copytree(folder / label, folder / name / label)
            shutil.rmtree(folder / label)

    return change


def a_run(folder: Path) -> None:
    write("runs/r/config.json")(folder)
    write("runs/r/metrics.csv")(folder)


FILES: dict[str, tuple[Change, str]] = {
    "a JPEG, PNG, BMP, GIF, TIFF, WebP, or whatever else OpenCV or Pillow reads here": (save("a/x.tif"), "served"),
    "an image under a wrong name, or one without an ending": (save("a/x", format="PNG"), "served"),
    "in a folder below a class folder": (save("a/deeper/x.png"), "served"),
    "16 bits": (save("a/x.png", Image.fromarray(np.full((32, 32), 900, np.uint16))), "served"),
    "transparent": (save("a/x.png", Image.new("RGBA", (32, 32), (9, 9, 9, 0))), "served"),
    "an animation, or several pages": (save("a/x.gif", save_all=True, append_images=[NOISE]), "served"),
    "a JPEG with zeros inside, or cut short": (damaged("a/x.jpg"), "refused"),
    "a PNG, GIF or compressed TIFF with bytes that are wrong": (damaged("a/x.png"), "refused"),
    "empty, with the name of an image": (write("a/x.jpg", b""), "refused"),
    "JPEG XL, or HEIC without its package": (write("a/x.jxl", b"\xff\x0a" + bytes(50)), "left out"),
    "no image": (write("a/x.txt"), "left out"),
    "a link to nowhere": (lambda folder: (folder / "a" / "x.jpg").symlink_to(folder / "nowhere"), "left out"),
    "hidden": (save("a/._x.png"), "left out"),
}
FOLDERS: dict[str, tuple[Change, str]] = {
    "class folders": (lambda folder: None, "served"),
    "`train/` and `test/` with class folders": (in_splits("train", "test"), "served"),
    "`Train/`, `training/`; `val/`, `valid/`, `validation/`, `testing/` without `test/`": (in_splits("Train", "val"), "served"),
    "`valid/` beside `train/` and `test/`": (in_splits("train", "test", "valid"), "left out"),
    "a folder without images": (write("docs/x.md"), "left out"),
    "`runs/` of this package": (a_run, "left out"),
    "only one of `train/` and `test/`": (in_splits("train"), "refused"),
    "one class": (lambda folder: shutil.rmtree(folder / "b"), "refused"),
}


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_each_row(kind: str, letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, outcome = (FILES | FOLDERS)[kind]
    change(letters)
    if outcome == "refused":
        with pytest.raises((ValueError, RuntimeError, FileNotFoundError)):
            load_image_folder(letters)
        return
    count = sum(len(part) for part in load_image_folder(letters))
    assert ("not used" in capsys.readouterr().out) == (outcome == "left out")
    assert count == {"served": 11, "left out": 10}[outcome] if kind in FILES else count in (10, 20)


@pytest.mark.parametrize(("section", "rows"), [("Files", FILES), ("Folders", FOLDERS)])
def test_the_page_lists_what_is_tested(section: str, rows: dict[str, tuple[Change, str]]) -> None:
    assert documented_rows(section) == {kind: outcome for kind, (_, outcome) in rows.items()}
