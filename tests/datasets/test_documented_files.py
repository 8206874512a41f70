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


def write(*names: str, content: bytes = b"text") -> Change:
    def change(folder: Path) -> None:
        for name in names:
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


def heic(folder: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(PIXELS).save(folder / "a" / "x.heic")


def in_splits(*names: str) -> Change:
    def change(folder: Path) -> None:
        for label in "ab":
            for name in names:
                shutil.copytree(folder / label, folder / name / label)
                for file in (folder / name / label).iterdir():
                    file.write_bytes(file.read_bytes() + name.encode())  # behind the picture, so that no file is a copy
            shutil.rmtree(folder / label)

    return change


def hide(folder: Path) -> None:
    save("a/._x.png")(folder)
    for name in (".ipynb_checkpoints", "__MACOSX", "a/.DS_Store"):  # which nobody misses
        shutil.copytree(folder / "b", folder / name)
    (folder / "a" / "folder.png").mkdir()


def add_runs(folder: Path) -> None:
    shutil.copytree(folder / "a", folder / "runs" / "smoke-letters-123456")
    write("runs/smoke-letters-123456/config.json", "runs/smoke-letters-123456/metrics.csv", "runs/.cache/x")(folder)


def add_empty(folder: Path) -> None:
    write("docs/notes.md")(folder)
    (folder / "empty").mkdir()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
FILES: dict[str, tuple[Change, str]] = {
    "a JPEG, PNG, BMP, GIF, TIFF, WebP, or whatever else OpenCV or Pillow reads here": (save("a/x.tif"), "served"),
    "an image under a wrong name, or one without an ending": (save("a/x", format="PNG"), "served"),
    "in a folder below a class folder": (save("a/deeper/x.png"), "served"),
    "16 bits": (save("a/x.png", Image.fromarray(np.full((32, 32), 900, np.uint16))), "served"),
    "transparent": (save("a/x.png", Image.new("RGBA", (32, 32), (9, 9, 9, 0))), "served"),
    "HEIC, where `pillow-heif` is installed": (heic, "served"),
    "an animation, or several pages": (save("a/x.gif", save_all=True, append_images=[NOISE]), "served"),
    "a JPEG with zeros inside, or cut short": (damaged("a/x.jpg"), "refused"),
    "a PNG, GIF or compressed TIFF with bytes that are wrong": (damaged("a/x.png"), "refused"),
    "empty, with the name of an image": (write("a/x.jpg", content=b""), "refused"),
    "float or 32-bit values, or signed ones: many a TIFF, HDR, PFM": (save("a/x.tif", Image.new("F", (32, 32))), "refused"),
    "a TIFF of more than 4 channels, of Lab colors, or of 16 bits that are planar or count from white": (
        save("a/x.tif", Image.new("LAB", (32, 32))),
        "refused",
    ),
    "JPEG XL, or HEIC without its package": (
        write("a/x.HEIC", "b/x.heic", content=HEIC),
        "not used: 2 HEIC (`pip install pillow-heif` reads it)",
    ),
    "no image": (write("a/x.txt", "b/README"), "not used: 1 no image (.txt), 1 no image"),
    "a link to nowhere": (lambda folder: (folder / "a/x.jpg").symlink_to(folder / "nowhere"), "not used: 1 broken links"),
    "hidden": (hide, "not used: 1 hidden (a name that starts with a dot)"),
}
FOLDERS: dict[str, tuple[Change, str]] = {
    "class folders": (lambda folder: None, "served"),
    "`train/` and `test/` with class folders": (in_splits("train", "test"), "served"),
    "`Train/`, `training/`; `val/`, `valid/`, `validation/`, `testing/` without `test/`": (in_splits("Train", "val"), "served"),
    "`valid/` beside `train/` and `test/`": (
        in_splits("train", "test", "valid"),
        "not used: valid/ (test/ is the test split)",
    ),
    "a folder without images": (add_empty, "not used: 1 no image (.md), 2 folders without images (docs, empty)"),
    "`runs/` of this package": (add_runs, "not used: runs/ (runs of this package)"),
    "only one of `train/` and `test/`": (in_splits("train"), "refused"),
    "one class": (lambda folder: shutil.rmtree(folder / "b"), "refused"),
}


@pytest.mark.parametrize("kind", [*FILES, *FOLDERS])
def test_each_row(kind: str, letters: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not kind.startswith("HEIC, where"):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    change, outcome = (FILES | FOLDERS)[kind]
    change(letters)
    if outcome == "refused":
        with pytest.raises((ValueError, RuntimeError, FileNotFoundError)):
            load_image_folder(letters)
        return
    for _ in range(2):  # also from the cache
        count = sum(len(part) for part in load_image_folder(letters))
        said = capsys.readouterr().out
        assert "not used" not in said if outcome == "served" else said == f"letters: {outcome}.\n"
        assert count == (11 if outcome == "served" else 10) if kind in FILES else count in (10, 20)


@pytest.mark.parametrize(("section", "rows"), [("Files", FILES), ("Folders", FOLDERS)])
def test_the_page_lists_what_is_tested(section: str, rows: dict[str, tuple[Change, str]]) -> None:
    outcomes = {kind: "left out" if said.startswith("not used") else said for kind, (_, said) in rows.items()}
    assert documented_rows(section) == outcomes
