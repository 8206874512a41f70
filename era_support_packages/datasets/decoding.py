"""One image file to pixels, with a word on what was found in it: its depth, its pictures, and whether it is whole.

OpenCV decodes, and Pillow what OpenCV does not read, or reads without its transparency.
"""

import importlib.util
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from era_support_packages.datasets import tiff
from era_support_packages.datasets.orientation import (
    UNTURNED,
    left_alone,
    noted_in_xmp,
    noted_orientation,
    says_how_to_turn,
    turned,
)
from era_support_packages.datasets.signatures import foreign_format, is_avif, is_heic

BITS = (8, 10, 12, 14, 16)
# A file of such a name that no decoder recognizes was an image once. What is read is asked of the decoders, not of this list.
IMAGE_ENDINGS = (
    *(".apng", ".avif", ".bmp", ".cur", ".dds", ".dib", ".gif", ".heic", ".heif", ".hif", ".icns", ".ico", ".j2k", ".jfif"),
    *(".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".pam", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".ras"),
    *(".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm", ".xpm"),
)
_VALUES = {"F": "float32", "I": "int32"}  # of Pillow's modes
_OUTSIDE_PILLOWS_SIGNATURES = ("TGA",)  # has none: any bytes could be taken for it


class UndecodableError(Exception):
    """A file that gives no pixels.

    damaged: it is an image, but not a whole one; else nobody here reads it, or it is none. remedy: what makes a whole one of
    another kind readable; such a one counts as an image that should have been read. Both stand in the message, "reason; remedy".
    """

    def __init__(self, reason: str, damaged: bool = True, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.damaged = damaged


class JpegUncheckedError(Exception):
    """A JPEG, whose damage shows in a warning of libjpeg only, where nobody reads the warnings."""


@dataclass(frozen=True, eq=False)
class Picture:
    """The pixels of a file.

    pixels: uint8 (H, W, 3), RGB; or, of a file with more than 8 bits, uint16 (H, W, 4): red, green, blue, each times its opacity,
        and the share of white that shines through, of 65535. `to_8_bits` brings them together.
    largest: the largest visible value of such a file, 0 for one of 8 bits. pictures: how many the file holds; this is its first.
    """

    pixels: np.ndarray
    largest: int = 0
    pictures: int = 1


def smallest_bits(largest: int) -> int:
    """The smallest of `BITS` that holds the value."""
    return next(bits for bits in BITS if largest < 2**bits)


def depth_of(largest: int, bits: int | None) -> int:
    """As how many bits a file of that largest value is read: those given, else the fewest that hold it; 0 for one of 8 bits."""
    return (bits or smallest_bits(largest)) if largest else 0


def to_8_bits(deep: np.ndarray, bits: int) -> np.ndarray:
    """Deep pixels (..., 4), as in `Picture`, to uint8 (..., 3): 0 to 2^bits - 1 become 0 to 255, more is clipped."""
    color = np.minimum(deep[..., :3].astype(np.float32) * (255 / (2**bits - 1)), 255)
    white = deep[..., 3:].astype(np.float32) * (255 / 65535)
    return np.minimum(np.rint(color + white), 255).astype(np.uint8)


def recognized(file: str) -> bool:
    """Whether a decoder knows the file by its first bytes, whatever its name."""
    try:
        if _is_utf8(file) and cv2.haveImageReader(file):  # OpenCV crashes the process for another name
            return True
        with Image.open(file) as image:
            return image.format not in _OUTSIDE_PILLOWS_SIGNATURES
    except Exception:  # the decoders raise all kinds of errors for bytes that are no image
        with open(file, "rb") as stream:
            start = stream.read(64)
        return is_heic(start) or foreign_format(start) is not None  # Pillow knows HEIC only once its package is asked for


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(data: bytes, jpeg_warnings: Callable[[], str] | None = None) -> Picture:
    """The picture in a file's bytes, upright as its camera noted, transparency on white.

    jpeg_warnings: gives what the decoders have written to stderr since it was called last.
    Raises `UndecodableError`, and `JpegUncheckedError` for a JPEG without `jpeg_warnings`.
    """
    if not data:
        raise UndecodableError("it is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return _decode_jpeg(data, jpeg_warnings)
    if (problem := tiff.unserved(data)) is not None:
        raise UndecodableError(problem[0], remedy=problem[1])
    chunks = _png_chunks(data) if data.startswith(b"\x89PNG\r\n\x1a\n") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on metadata
        header = _opened(data)
        pictures = _picture_count(header)
        noted = noted_orientation(data, header)
        if header is not None and _is_deep(header, chunks):
            return _decode_deep(data, header, chunks, pictures, noted)
        if header is not None and (_has_alpha(header) or (pictures > 1 and header.format != "TIFF")):
            return Picture(_decode_with_pillow(header), pictures=pictures)
        if header is not None and noted != 1 and is_avif(data):  # which OpenCV does not turn
            return Picture(_decode_with_pillow(header), pictures=pictures)
        if header is not None and header.format == "TIFF":
            _decode_with_pillow(header)  # OpenCV passes over what is missing
        depth = 0 if is_avif(data) else cv2.IMREAD_ANYDEPTH
        image = _imdecode(data, cv2.IMREAD_COLOR | depth | left_alone(header))
        if image is None and header is not None:
            return Picture(_decode_with_pillow(header), pictures=pictures)
    if image is None:
        foreign = foreign_format(data)
        raise UndecodableError(foreign or "it cannot be decoded", damaged=foreign is None)
    if header is None and is_avif(data) and says_how_to_turn(data):
        raise UndecodableError("it is an AVIF that is to be turned", remedy="install a newer Pillow, which turns it")
    image = turned(image, noted)
    if image.dtype == np.uint16:
        return _deep_picture(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None, pictures)
    if image.dtype != np.uint8:
        raise UndecodableError(f"it holds {image.dtype} values", remedy=tiff.EIGHT_OR_SIXTEEN)
    return Picture(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), pictures=pictures)


def _decode_jpeg(data: bytes, jpeg_warnings: Callable[[], str] | None) -> Picture:
    if jpeg_warnings is None:
        raise JpegUncheckedError
    # OpenCV 4 fills up a JPEG cut short with grey, and only warns: the last scan (FF DA) must reach the end (FF D9).
    if data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda"):
        raise UndecodableError("it is cut short")
    jpeg_warnings()
    noted = noted_in_xmp(data)
    image = _imdecode(data, cv2.IMREAD_COLOR | (0 if noted == 1 else UNTURNED))
    said = jpeg_warnings()
    if image is None:
        raise UndecodableError("it cannot be decoded")
    for line in said.splitlines():
        if line.startswith(("Corrupt JPEG data", "Premature end of JPEG")):
            raise UndecodableError(f"libjpeg: {line.strip()}")
    return Picture(cv2.cvtColor(turned(image, noted), cv2.COLOR_BGR2RGB))


def _imdecode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None


# ---- more than 8 bits ------------------------------------------------------------------------------------------------


def _is_deep(header: Image.Image, chunks: dict[bytes, bytes]) -> bool:
    if chunks:
        return chunks[b"IHDR"][8] == 16
    if not isinstance(header, TiffImageFile):
        return False
    return max(header.tag_v2.get(258, (1,))) > 8  # BitsPerSample


def _decode_deep(data: bytes, header: Image.Image, chunks: dict[bytes, bytes], pictures: int, noted: int) -> Picture:
    image = _imdecode(data, cv2.IMREAD_UNCHANGED)  # as stored, but for a TIFF
    if image is None:
        raise UndecodableError("it cannot be decoded")
    if image.dtype != np.uint16:
        raise UndecodableError(f"it holds {image.dtype} values", remedy=tiff.EIGHT_OR_SIXTEEN)
    image = turned(image if image.ndim == 3 else image[..., None], noted)
    opacity = None
    if image.shape[2] == 4:
        image, last = image[..., :3], image[..., 3]
        # ExtraSamples: 1 is alpha multiplied already, 2 alpha
        extra = header.tag_v2.get(338, ()) if isinstance(header, TiffImageFile) else (2,)
        if extra[:1] in ((1,), (2,)):
            full = int(last.max()) if last.max() in [2**bits - 1 for bits in BITS] else 65535  # opaque where all have fewer bits
            opacity = last / np.float32(full)
        if extra[:1] == (1,):
            return _deep_picture(image[..., ::-1], opacity, pictures, multiplied=True)
    elif image.shape[2] not in (1, 3):
        raise UndecodableError(f"it has {image.shape[2]} channels")
    colors = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., ::-1]
    if b"tRNS" in chunks:  # the one color that is transparent
        key = np.frombuffer(chunks[b"tRNS"], dtype=">u2")
        opacity = (colors != key).any(axis=2).astype(np.float32)
    return _deep_picture(colors, opacity, pictures)


def _deep_picture(colors: np.ndarray, opacity: np.ndarray | None, pictures: int, multiplied: bool = False) -> Picture:
    deep = np.zeros((*colors.shape[:2], 4), dtype=np.uint16)
    if opacity is None:
        deep[..., :3] = colors
        return Picture(deep, max(int(colors.max()), 1), pictures)
    deep[..., :3] = colors if multiplied else np.rint(colors * opacity[..., None])
    deep[..., 3] = np.rint((1 - opacity) * 65535)
    return Picture(deep, max(int((colors * (opacity > 0)[..., None]).max()), 1), pictures)


# ---- Pillow ----------------------------------------------------------------------------------------------------------


def _opened(data: bytes) -> Image.Image | None:
    """The file as Pillow knows it from its first bytes, not decoded yet.

    Raises `UndecodableError` for more pixels than Pillow opens: OpenCV alone would leave out its transparency without a word.
    """
    if is_heic(data) and importlib.util.find_spec("pillow_heif") is not None:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UndecodableError(f"it has more than {most} million pixels", remedy="save it with fewer pixels") from None
    except Exception:
        return None


def _has_alpha(header: Image.Image) -> bool:
    return header.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in header.info


def _picture_count(header: Image.Image | None) -> int:
    try:
        return getattr(header, "n_frames", 1)
    except Exception:  # it has to read the file for that
        return 1


def _decode_with_pillow(header: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of the first picture, on white where it is transparent."""
    if header.mode[0] in "FI":  # as numbers without a known range, which Pillow would clip
        raise UndecodableError(f"it holds {_VALUES.get(header.mode[0])} values", remedy=tiff.EIGHT_OR_SIXTEEN)
    try:
        image = ImageOps.exif_transpose(header)
        if not _has_alpha(image):
            return np.asarray(image.convert("RGB"))
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    except Exception as error:
        no_decoder = ("cannot find loader", "cannot load this image", "Ghostscript")
        if any(text in str(error) for text in no_decoder):
            raise UndecodableError(f"{header.format}, which nothing here decodes", damaged=False) from None
        raise UndecodableError("it cannot be decoded") from None


# ---- PNG -------------------------------------------------------------------------------------------------------------


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG by name, those with pixels aside. Raises `UndecodableError` where a checksum or the end is wrong."""
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name, end = data[place + 4 : place + 8], place + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[place + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise UndecodableError("a checksum in it is wrong")
        if name == b"IEND":
            if b"IHDR" in chunks and len(chunks[b"IHDR"]) == 13:
                return chunks
            break
        if name not in (b"IDAT", b"fdAT"):
            chunks[name] = data[place + 8 : end]
        place = end + 4
    raise UndecodableError("it is cut short")
