"""Single files: 16 bits, transparency, damage, formats. Pixels by hand, files by Pillow, or byte by byte."""

import io
import struct
import zlib
from collections.abc import Callable
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


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """uint8 (H, W[, C]) or uint16 (H, W) by Pillow."""
    stream = io.BytesIO()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(stream, kind, **options)
    return stream.getvalue()


def gray(value: int) -> np.ndarray:
    return np.full((32, 32), value, np.uint16)


def png(color_type: int, samples: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits, written byte by byte: Pillow writes no 16-bit color."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in samples)
    key = chunk(b"tRNS", np.array(transparent, dtype=">u2").tobytes()) if transparent else b""
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def photo() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


JPEG = encoded(photo(), "JPEG")


def with_zeros_inside(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


def write(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def test_a_jpeg_decodes_as_pillow_decodes_it(tmp_path: Path) -> None:
    found = decode_image(write(tmp_path / "x.jpg", JPEG))
    assert np.abs(found.astype(int) - np.asarray(Image.open(io.BytesIO(JPEG)))).max() <= 2
    assert np.array_equal(decode_image(write(tmp_path / "y.jpg", JPEG + bytes(100))), found)  # what follows its end is harmless


def test_gray_becomes_rgb() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert (decode(encoded(pixels)).pixels == pixels[..., None]).all()
    assert decode(encoded(pixels)).pixels.shape == (8, 8, 3)


def test_the_orientation_a_camera_noted_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise by 90 degrees to see it upright
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255  # bright on the left, so bright at the top when turned
    image = decode_image(write(tmp_path / "x.jpg", encoded(pixels, "JPEG", exif=exif, quality=95)))
    assert image.shape == (32, 16, 3)
    assert image[:12].min() > 200
    assert image[20:].max() < 50


@pytest.mark.parametrize(("largest", "bits"), [(1, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (65535, 16)])
def test_the_smallest_number_of_bits(largest: int, bits: int) -> None:
    assert smallest_bits(largest) == bits


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "bits", "expected"), [(4095, 12, 255), (2048, 12, 128), (200, 8, 200), (65535, 16, 255)])
def test_gray_of_16_bits(kind: str, value: int, bits: int, expected: int) -> None:
    picture = decode(encoded(gray(value), kind))
    assert picture.largest == value
    assert to_8_bits(picture.pixels, bits)[5, 5].tolist() == [expected] * 3


@pytest.mark.parametrize(
    ("data", "bits", "expected"),
    [
        (png(2, np.full((4, 4, 3), (4095, 1365, 273))), 12, [255, 85, 17]),  # colors are not turned around
        (png(6, np.full((4, 4, 4), (65535, 0, 0, 13107))), 16, [255, 204, 204]),  # a fifth red
        (png(4, np.full((4, 4, 2), (300, 0))), 10, [255, 255, 255]),
        (png(0, np.full((4, 4, 1), 300), (300,)), 10, [255, 255, 255]),
        (png(0, np.full((4, 4, 1), 300), (301,)), 10, [75, 75, 75]),
    ],
)
def test_color_and_transparency_of_16_bits(data: bytes, bits: int, expected: list[int]) -> None:
    assert to_8_bits(decode(data).pixels, bits)[0, 0].tolist() == expected


def test_a_value_that_nobody_sees_is_not_the_largest() -> None:
    hidden = np.full((4, 4, 2), (60000, 0))
    hidden[0, 0] = 300, 65535
    assert decode(png(4, hidden)).largest == 300


def test_larger_values_than_in_training_are_white_and_a_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = write(tmp_path / "x.png", encoded(gray(5000)))
    assert (decode_image(deep, bits=12) == 255).all()
    assert "0 to 4095 become 0 to 255; larger ones become white" in capsys.readouterr().out
    assert (decode_image(deep) == round(5000 / 16383 * 255)).all()
    assert "read as 14 bits" in capsys.readouterr().out


def test_values_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(UndecodableError, match="float32 values; save it with 8 or 16 bits"):
        decode(encoded(np.full((8, 8), 0.5, np.float32), "TIFF"))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_transparency_lies_on_white(kind: str, options: dict[str, bool]) -> None:
    pixels = np.full((8, 8, 4), (200, 100, 0, 255), np.uint8)
    pixels[:2, :, 3], pixels[2:4, :, 3] = 0, 51  # a color that nobody sees, and a fifth of it
    found = decode(encoded(pixels, kind, **options)).pixels
    assert [found[0, 0].tolist(), found[7, 7].tolist()] == [[255, 255, 255], [200, 100, 0]]
    assert np.abs(found[2, 0].astype(int) - (244, 224, 204)).max() <= 1


def test_a_transparent_color_of_a_palette_and_of_gray() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert (decode(encoded(image, transparency=1)).pixels == 255).all()
    assert (decode(encoded(np.full((4, 4), 7, np.uint8), transparency=7)).pixels == 255).all()


@pytest.mark.parametrize(("name", "progressive"), [("x.jpg", False), ("x.jpg", True), ("x.png", False)])
def test_a_jpeg_with_zeros_inside_is_damaged(name: str, progressive: bool, tmp_path: Path) -> None:
    whole = encoded(photo(), "JPEG", progressive=progressive)
    assert np.abs(decode_image(write(tmp_path / name, whole)).astype(int) - photo()).mean() < 5
    with pytest.raises(DatasetError, match=rf"{name} cannot be decoded as an image \(libjpeg: Corrupt JPEG data"):
        decode_image(write(tmp_path / name, with_zeros_inside(whole)))


def test_each_warning_belongs_to_its_file(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number:03d}.jpg", with_zeros_inside(JPEG) if number % 7 == 3 else JPEG) for number in range(300)]
    found = scanning.scan([str(file) for file in files], None)
    assert [number for number, file in enumerate(found) if file.damaged] == list(range(3, 300, 7))


def test_a_jpeg_cut_short_is_refused_where_opencv_decodes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.full((32, 32, 3), 128, np.uint8))  # as before version 5
    assert decode(JPEG, lambda: "").pixels.shape == (32, 32, 3)
    with pytest.raises(UndecodableError, match="it is cut short"):
        decode(JPEG[:-2], lambda: "")


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
    child = "import json, os, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import serve; import {module} as m; "
    child += "whole = m.scan_file; m.scan_file = lambda file, *a: os._exit(139) if '1.jpg' in file else whole(file, *a); serve()"
    monkeypatch.setattr(scanning, "_CHILD", child)
    found = scanning.scan([str(write(tmp_path / f"{number}.jpg", JPEG)) for number in range(3)], None)
    assert [file.problem for file in found] == ["", "the decoder breaks down over it", ""]


def test_where_no_process_can_start_nothing_is_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_CHILD", "raise ImportError('no module {module}')")
    with pytest.raises(DatasetError, match="No process can be started that reads JPEG files: ImportError: no module"):
        decode_image(write(tmp_path / "x.jpg", JPEG))


def test_a_script_without_a_guard_is_not_run_again(tmp_path: Path, run_code: Callable[..., str]) -> None:
    """As processes of `multiprocessing` would."""
    write(tmp_path / "x.jpg", JPEG)
    script = b"print('once')\nfrom era_support_packages.datasets import decode_image\nprint(decode_image('x.jpg').shape)\n"
    code = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    assert run_code(code, write(tmp_path / "script.py", script), cwd=tmp_path) == "once\n(200, 200, 3)\n"


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("TIFF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_of_several_pictures_the_first(kind: str, options: dict[str, bool]) -> None:
    first, second = (Image.new("RGB", (8, 8), (value,) * 3) for value in (200, 20))
    picture = decode(encoded(first, kind, save_all=True, append_images=[second], **options))
    assert picture.pictures == 2
    assert (picture.pixels == 200).all()


@pytest.mark.parametrize(
    ("data", "reason"), [(b"\0\0\0\x18ftypheic" + bytes(100), "pip install pillow-heif"), (b"\xff\x0a" + bytes(50), "JPEG XL")]
)
def test_a_format_that_nothing_here_reads_is_not_damaged(data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UndecodableError, match=reason) as caught:
        decode(data)
    assert not caught.value.damaged


def test_heic_is_read_where_its_package_is_installed() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (200, 100, 50))).save(stream, quality=-1)
    assert np.abs(decode(stream.getvalue()).pixels.astype(int) - (200, 100, 50)).max() <= 4


def test_photos_for_a_classifier_go_the_same_way(tmp_path: Path, tiny_classifier: Classifier) -> None:
    clear = write(tmp_path / "x.png", encoded(np.full((40, 40, 4), (200, 0, 0, 0), np.uint8)))
    assert (decode_images([clear])[0] == 255).all()
    assert np.array_equal(tiny_classifier.seen([clear]), np.full((1, 8, 8, 3), 255, np.uint8))
    with pytest.raises(DatasetError, match="Corrupt JPEG data"):
        tiny_classifier.predict([write(tmp_path / "y.jpg", with_zeros_inside(JPEG))])


def test_a_classifier_scales_16_bits_as_its_training_data_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, value in (("train/a", 4095), ("train/b", 273), ("test/a", 2000), ("test/b", 5000)):
        (tmp_path / "deep" / place).mkdir(parents=True)
        Image.fromarray(gray(value)).save(tmp_path / "deep" / place / "0.png")
    train, test = load_image_folder(tmp_path / "deep")
    assert (train.images[:, 0, 0, 0].tolist(), test.images[:, 0, 0, 0].tolist()) == ([255, 17], [125, 255])
    assert (train.bits, test.bits) == (12, 12)
    said = capsys.readouterr().out
    assert "deep: files of 16 bits hold values up to 4095; read as 12 bits: 0 to 4095 become 0 to 255." in said
    assert "1 test images hold larger values, which become white" in said
    classifier = Classifier(ResNet18(2), train.classes, train.mean, train.std, resolution=16, bits=train.bits, model="ResNet18")
    kept = Classifier.load(classifier.save(tmp_path / "classifier.pt"), device="cpu", precision="fp32")
    assert (kept.seen(tmp_path / "deep/train/b/0.png") == 17).all()  # alone, its values would take 10 bits


def test_more_pixels_than_pillow_opens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV would decode it, with black in place of what is transparent."""
    clear = encoded(np.zeros((3000, 1000, 4), np.uint8))
    assert decode(clear).pixels.min() == 255
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    with pytest.raises(UndecodableError, match=r"^it has more than 2 million pixels; save it with fewer pixels$"):
        decode(clear)
