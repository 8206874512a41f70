"""Single files: 16 bits, transparency, damage, formats. Pixels by hand, files by Pillow, or byte by byte."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from era_support_packages import Classifier, ResNet18
from era_support_packages.datasets import scanning
from era_support_packages.datasets.decoding import UndecodableError, decode, smallest_bits, to_8_bits
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import decode_image, decode_images, load_image_folder


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """uint8 (H, W[, C]) or uint16 (H, W) by Pillow."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def png(color_type: int, samples: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits, written byte by byte: Pillow writes no 16-bit color."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    key = chunk(b"tRNS", np.array(transparent, dtype=">u2").tobytes()) if transparent else b""
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def at(data: bytes, bits: int) -> list[int]:
    """The first pixel of a file with 16 bits, scaled by so many."""
    return to_8_bits(decode(data).pixels, bits)[0, 0].tolist()


# ---- 16 bits


@pytest.mark.parametrize(("largest", "bits"), [(1, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (65535, 16)])
def test_the_smallest_number_of_bits(largest: int, bits: int) -> None:
    assert smallest_bits(largest) == bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "bits", "expected"), [(4095, 12, 255), (2048, 12, 128), (200, 8, 200), (65535, 16, 255)])
def test_gray_of_16_bits(kind: str, value: int, bits: int, expected: int) -> None:
    picture = decode(encoded(np.full((32, 32), value, np.uint16), kind))
    assert picture.largest == value
    assert to_8_bits(picture.pixels, bits)[5, 5].tolist() == [expected] * 3


def test_color_of_16_bits_is_not_turned_around() -> None:
    assert at(png(2, np.full((4, 4, 3), (4095, 1365, 273))), 12) == [255, 85, 17]


def test_larger_values_than_in_training_are_white_and_a_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(encoded(np.full((32, 32), 5000, np.uint16)))
    assert (decode_image(file, bits=12) == 255).all()
    assert "0 to 4095 become 0 to 255; larger ones become white" in capsys.readouterr().out
    assert (decode_image(file) == round(5000 / 16383 * 255)).all()
    assert "read as 14 bits" in capsys.readouterr().out


def test_values_that_are_no_whole_numbers_are_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(stream, "TIFF")
    with pytest.raises(UndecodableError, match="float32 values; save it with 8 or 16 bits"):
        decode(stream.getvalue())


# ---- transparency


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparency_lies_on_white(kind: str) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 0] = 200  # red that nobody sees where the last value is 0
    pixels[:4, :, 3], pixels[4:, :, 3] = 0, 255
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = decode(encoded(pixels, kind, **options)).pixels
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[7, 7].tolist() == [200, 0, 0]


def test_half_transparent() -> None:
    found = decode(encoded(np.full((4, 4, 4), (200, 100, 0, 51), np.uint8))).pixels  # a fifth
    assert np.abs(found[0, 0].astype(int) - (244, 224, 204)).max() <= 1


def test_a_transparent_color_of_a_palette_and_of_gray() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=1)
    assert (decode(stream.getvalue()).pixels == 255).all()
    assert (decode(encoded(np.full((4, 4), 7, np.uint8), transparency=7)).pixels == 255).all()


def test_transparency_of_16_bits() -> None:
    assert at(png(6, np.full((4, 4, 4), (65535, 0, 0, 13107))), 16) == [255, 204, 204]  # a fifth red
    assert at(png(4, np.full((4, 4, 2), (300, 0))), 10) == [255, 255, 255]
    assert at(png(0, np.full((4, 4, 1), 300), (300,)), 10) == [255, 255, 255]
    assert at(png(0, np.full((4, 4, 1), 300), (301,)), 10) == [75, 75, 75]
    hidden = np.full((4, 4, 2), (60000, 0))
    hidden[0, 0] = 300, 65535
    assert decode(png(4, hidden)).largest == 300  # what nobody sees does not count


# ---- damage


def photo() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def with_zeros_inside(data: bytes, count: int = 200) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(count) + data[middle + count :]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_zeros_inside_is_damaged(progressive: bool, tmp_path: Path) -> None:
    file, whole = tmp_path / "x.jpg", encoded(photo(), "JPEG", progressive=progressive)
    file.write_bytes(with_zeros_inside(whole))
    Image.open(file).load()  # Pillow says nothing
    with pytest.raises(DatasetError, match=r"x\.jpg cannot be decoded as an image \(libjpeg: Corrupt JPEG data"):
        decode_image(file)
    file.write_bytes(whole)
    assert np.abs(decode_image(file).astype(int) - photo()).mean() < 5


def test_each_warning_belongs_to_its_file(tmp_path: Path) -> None:
    whole = encoded(photo(), "JPEG")
    files = [tmp_path / f"{number:03d}.jpg" for number in range(300)]
    for number, file in enumerate(files):
        file.write_bytes(with_zeros_inside(whole) if number % 7 == 3 else whole)
    found = scanning.scan([str(file) for file in files])
    assert [number for number, file in enumerate(found) if file.damaged] == list(range(3, 300, 7))


def test_a_jpeg_under_another_name_is_read_strictly_too(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(encoded(photo(), "JPEG"))
    assert decode_image(file).shape == (200, 200, 3)
    file.write_bytes(with_zeros_inside(file.read_bytes()))
    with pytest.raises(DatasetError, match="Corrupt JPEG data"):
        decode_image(file)


@pytest.mark.parametrize(
    "data",
    [
        with_zeros_inside(encoded(photo(), "PNG")),
        with_zeros_inside(encoded(photo(), "PNG", compress_level=0)),  # only its checksum tells
        encoded(photo(), "PNG")[:-12],
        with_zeros_inside(encoded(photo(), "TIFF", compression="tiff_lzw")),
        with_zeros_inside(encoded(photo(), "GIF")),
    ],
    ids=["png", "png stored", "png without its end", "tiff", "gif"],
)
def test_other_formats_with_zeros_inside(data: bytes) -> None:
    with pytest.raises(UndecodableError) as caught:
        decode(data)
    assert caught.value.damaged


def test_a_file_that_brings_the_decoder_down_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.jpg" for number in range(3)]
    for file in files:
        file.write_bytes(encoded(photo(), "JPEG"))
    child = "import json, os, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; import {module} as m; "
    child += "whole = m.scan_file; m.scan_file = lambda file, *a: os._exit(139) if '1.jpg' in file else whole(file, *a); serve()"
    monkeypatch.setattr(scanning, "_CHILD", child)
    found = scanning.scan([str(file) for file in files])
    assert [file.problem for file in found] == ["", "the decoder breaks down over it", ""]


def test_where_no_process_can_start_nothing_is_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(photo(), "JPEG"))
    monkeypatch.setattr(scanning, "_CHILD", "raise ImportError('no module {module}')")
    with pytest.raises(DatasetError, match="no process can be started that reads JPEG files: ImportError: no module"):
        decode_image(tmp_path / "x.jpg")


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path) -> None:
    """As processes of `multiprocessing` would."""
    (tmp_path / "x.jpg").write_bytes(encoded(photo(), "JPEG"))
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\nfrom era_support_packages.datasets import decode_image\nprint(decode_image('x.jpg').shape)\n"
    )
    result = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "once\n(200, 200, 3)\n"


# ---- formats


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_pictures_the_first(kind: str) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (200, 20))
    stream = io.BytesIO()
    first.save(stream, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    picture = decode(stream.getvalue())
    assert picture.pictures == 2
    assert (picture.pixels == 200).all()


def heic() -> bytes:
    """The beginning of a photo of an iPhone, as far as its format is told by it."""
    return struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(100)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(heic(), "pip install pillow-heif"), (b"\xff\x0a" + bytes(50), "JPEG XL")],
    ids=["heic", "jxl"],
)
def test_a_format_that_nothing_here_reads_is_not_damaged(data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UndecodableError, match=reason) as caught:
        decode(data)
    assert not caught.value.damaged


def test_heic_is_read_where_its_package_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(np.full((64, 64, 3), (200, 100, 50), np.uint8))).save(stream, quality=-1)
    assert np.abs(decode(stream.getvalue()).pixels.astype(int) - (200, 100, 50)).max() <= 4


def test_photos_for_a_classifier_go_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(np.full((40, 40, 4), (200, 0, 0, 0), np.uint8)))
    (tmp_path / "y.jpg").write_bytes(with_zeros_inside(encoded(photo(), "JPEG")))
    assert (decode_images([tmp_path / "x.png"])[0] == 255).all()
    classifier = Classifier(ResNet18(2), ("a", "b"), (0.5,) * 3, (0.25,) * 3, resolution=16)
    assert np.array_equal(classifier.seen([tmp_path / "x.png"]), np.full((1, 16, 16, 3), 255, np.uint8))
    with pytest.raises(DatasetError, match="Corrupt JPEG data"):
        classifier.predict([tmp_path / "y.jpg"])


def test_a_classifier_scales_16_bits_as_its_training_data_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, label, value in (("train", "a", 4095), ("train", "b", 273), ("test", "a", 2000), ("test", "b", 5000)):
        (tmp_path / "deep" / split / label).mkdir(parents=True)
        (tmp_path / "deep" / split / label / "0.png").write_bytes(encoded(np.full((32, 32), value, np.uint16)))
    train, test = load_image_folder(tmp_path / "deep", tmp_path / "cache")
    assert (train.images[:, 0, 0, 0].tolist(), test.images[:, 0, 0, 0].tolist()) == ([255, 17], [125, 255])
    assert (train.bits, test.bits) == (12, 12)
    said = capsys.readouterr().out
    assert "deep: files of 16 bits hold values up to 4095; read as 12 bits: 0 to 4095 become 0 to 255." in said
    assert "1 test images hold larger values, which become white" in said
    classifier = Classifier(ResNet18(2), train.classes, train.mean, train.std, resolution=16, bits=train.bits, model="ResNet18")
    kept = Classifier.load(classifier.save(tmp_path / "classifier.pt"), device="cpu", precision="fp32")
    photo = tmp_path / "photo.png"
    photo.write_bytes(encoded(np.full((32, 32), 273, np.uint16)))  # alone, its values would take 10 bits
    assert (kept.seen(photo) == 17).all()
