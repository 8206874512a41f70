"""Every format that can note how the camera was held, in all eight orientations, against Pillow's `exif_transpose`."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, PngImagePlugin, features

from era_support_packages.datasets import decoding
from era_support_packages.datasets.decoding import UndecodableError, decode, to_8_bits
from era_support_packages.datasets.orientation import turned

ROWS, COLUMNS = np.mgrid[:48, :64]
COLORS = np.stack([4 * COLUMNS, 5 * ROWS, 90 * ((ROWS // 24 + COLUMNS // 32) % 2)], axis=2).astype(np.uint8)  # like no turned one
OPACITY = np.where(COLUMNS < 20, 60, 255).astype(np.uint8)
RGB = Image.fromarray(COLORS)
RGBA = Image.fromarray(np.dstack([COLORS, OPACITY]))
GRAY, PALETTE, BLACK = RGB.convert("L"), RGB.quantize(64), RGB.convert("1")
XMP = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="{}"/></rdf:RDF>'
Make = Callable[[int], bytes]


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noted(image: Image.Image, kind: str, **options: object) -> Make:
    return lambda orientation: saved(image, kind, exif=exif(orientation), **options)


def deep(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.uint16) * 257


def deep_png(image: Image.Image, behind: bool = False) -> Make:
    """16 bits, with the note in front of the pixels or behind them, where a PNG may have it too."""
    pixels = deep(image)
    order = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels
    return lambda orientation: with_chunk(cv2.imencode(".png", order)[1].tobytes(), orientation, behind)


def with_chunk(data: bytes, orientation: int, behind: bool) -> bytes:
    content = b"eXIf" + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    place = len(data) - 12 if behind else 33  # before IEND, or behind IHDR
    return data[:place] + chunk + data[place:]


def in_a_text(keyword: str, text: Callable[[int], str]) -> Make:
    def make(orientation: int) -> bytes:
        info = PngImagePlugin.PngInfo()
        (info.add_itxt if keyword.startswith("XML") else info.add_text)(keyword, text(orientation))
        return saved(RGB, "PNG", pnginfo=info)

    return make


def raw_profile(orientation: int) -> str:
    content = exif(orientation).tobytes()
    return f"\nexif\n{len(content):8}\n{content.hex()}\n"


def tiff(image: Image.Image, depth: int = 8, **options: object) -> Make:
    def make(orientation: int) -> bytes:
        stream = io.BytesIO()
        extra = (274, 3, 1, orientation, True)
        tifffile.imwrite(stream, deep(image) if depth == 16 else np.asarray(image), extratags=[extra], **options)
        return stream.getvalue()

    return make


def heic(orientation: int) -> bytes:
    stream = io.BytesIO()
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(RGB).save(stream, quality=100, exif=exif(orientation).tobytes())
    return stream.getvalue()


SHARP = {"quality": 100, "subsampling": 0}
FILES: dict[str, tuple[Make, Image.Image]] = {
    "JPEG": (noted(RGB, "JPEG", **SHARP), RGB),
    "JPEG, gray": (noted(GRAY, "JPEG", quality=100), GRAY),
    "JPEG, CMYK": (noted(RGB.convert("CMYK"), "JPEG", **SHARP), RGB),
    "JPEG, XMP": (lambda orientation: saved(RGB, "JPEG", xmp=XMP.format(orientation).encode(), **SHARP), RGB),
    "PNG": (noted(RGB, "PNG"), RGB),
    "PNG, note behind": (lambda orientation: with_chunk(saved(RGB, "PNG"), orientation, behind=True), RGB),
    "PNG, XMP": (in_a_text("XML:com.adobe.xmp", XMP.format), RGB),
    "PNG, note as text": (in_a_text("Raw profile type exif", raw_profile), RGB),
    "PNG, gray": (noted(GRAY, "PNG"), GRAY),
    "PNG, palette": (noted(PALETTE, "PNG"), PALETTE),
    "PNG, 1 bit": (noted(BLACK, "PNG"), BLACK),
    "PNG, transparent": (noted(RGBA, "PNG"), RGBA),
    "PNG, animated": (noted(RGB, "PNG", save_all=True, append_images=[GRAY.convert("RGB")]), RGB),
    "PNG, 16 bits, gray, by Pillow": (noted(Image.fromarray(deep(GRAY)), "PNG"), GRAY),
    "PNG, 16 bits, gray": (deep_png(GRAY), GRAY),
    "PNG, 16 bits": (deep_png(RGB), RGB),
    "PNG, 16 bits, note behind": (deep_png(RGB, behind=True), RGB),
    "PNG, 16 bits, transparent": (deep_png(RGBA), RGBA),
    "TIFF": (noted(RGB, "TIFF"), RGB),
    "TIFF, gray": (noted(GRAY, "TIFF"), GRAY),
    "TIFF, palette": (noted(PALETTE, "TIFF"), PALETTE),
    "TIFF, 1 bit": (noted(BLACK, "TIFF"), BLACK),
    "TIFF, CMYK": (noted(RGB.convert("CMYK"), "TIFF"), RGB),
    "TIFF, compressed": (noted(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "TIFF, transparent": (noted(RGBA, "TIFF"), RGBA),
    "TIFF, 16 bits, gray": (tiff(GRAY, 16, photometric="minisblack"), GRAY),
    "TIFF, 16 bits": (tiff(RGB, 16, photometric="rgb"), RGB),
    "TIFF, 16 bits, transparent": (tiff(RGBA, 16, photometric="rgb", extrasamples=["unassalpha"]), RGBA),
    "WebP": (noted(RGB, "WEBP", lossless=True), RGB),
    "WebP, XMP": (lambda orientation: saved(RGB, "WEBP", xmp=XMP.format(orientation).encode(), lossless=True), RGB),
    "WebP, transparent": (noted(RGBA, "WEBP", lossless=True), RGBA),
    "AVIF": (noted(RGB, "AVIF", quality=100), RGB),
    "AVIF, gray": (noted(GRAY, "AVIF", quality=100), GRAY),
    "AVIF, transparent": (noted(RGBA, "AVIF", quality=100), RGBA),
    "HEIC": (heic, RGB),
}


def on_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", FILES)
def test_each_file_is_turned_once(name: str, orientation: int) -> None:
    if name.startswith("AVIF") and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    make, stored = FILES[name]
    plain = saved(stored.convert("RGBA" if stored.mode == "RGBA" else "RGB"), "PNG", exif=exif(orientation))
    with Image.open(io.BytesIO(plain)) as file:
        wanted = on_white(ImageOps.exif_transpose(file))
    data = make(orientation)
    if "XMP" in name:
        with Image.open(io.BytesIO(data)) as file:
            by_pillow = on_white(ImageOps.exif_transpose(file))
        if by_pillow.shape != wanted.shape or np.abs(by_pillow - wanted).mean() > 30:
            pytest.skip("this Pillow reads no XMP here, and the promise is what it reads")
    if name == "TIFF, transparent" and tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 10):
        pytest.skip("this OpenCV turns no TIFF of four channels")
    picture = decode(data, str)
    found = to_8_bits(picture.pixels, 16) if picture.largest else picture.pixels
    assert bool(picture.largest) == ("16 bits" in name)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 4  # of lossy formats, and of palettes; another orientation is off by more than 30


def test_the_orientations_of_the_test_are_far_apart() -> None:
    every = [on_white(Image.fromarray(turned(COLORS, orientation))) for orientation in range(1, 9)]
    apart = [np.abs(a - b).mean() for i, a in enumerate(every) for b in every[:i] if a.shape == b.shape]
    assert min(apart) > 30


@pytest.mark.parametrize("number", [0, 9, 77])
def test_a_number_that_is_no_orientation_turns_nothing(number: int) -> None:
    assert np.array_equal(decode(noted(RGB, "PNG")(number)).pixels, COLORS)


def test_the_note_of_a_jpeg_in_exif_goes_before_that_in_xmp() -> None:
    data = saved(RGB, "JPEG", xmp=XMP.format(3).encode(), exif=exif(6), **SHARP)
    assert np.abs(decode(data, str).pixels.astype(int) - np.rot90(COLORS, -1)).mean() < 4


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_an_avif_that_nothing_here_turns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_opened", lambda data: None)  # as by a Pillow of before it read AVIF
    make = FILES["AVIF"][0]
    assert decode(make(1)).pixels.shape == (48, 64, 3)
    with pytest.raises(UndecodableError, match="to be turned; install a newer Pillow"):
        decode(make(6))
