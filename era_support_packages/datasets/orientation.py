"""How a camera was held: what a file notes of it, and pixels turned upright.

OpenCV turns some of what it decodes: JPEG by its EXIF, TIFF always, nothing where it keeps all bits or the note is in XMP.
"""

import io
import warnings

import cv2
import numpy as np
from PIL import Image

UNTURNED = cv2.IMREAD_IGNORE_ORIENTATION
"""the flag by which OpenCV leaves pixels as they are stored, in all formats but TIFF"""
_TAG = 0x0112
_XMP, _JPEG_HEAD = b"tiff:Orientation", 2**18  # bytes in front of the pixels
_IN_PNG = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # a chunk, or keywords of texts, which are not compressed
_IN_AVIF, _AVIF_HEAD = (b"irot", b"imir"), 2**12


def noted_orientation(data: bytes, header: Image.Image | None) -> int:
    """The EXIF number, 1 to 8, by which Pillow's `exif_transpose` turns a file that it has opened as `header`.

    1 where there is none, and for a TIFF, which OpenCV turns in any case.
    """
    if header is None or header.format == "TIFF":
        return 1
    if header.format == "PNG" and not any(mark in data for mark in _IN_PNG):
        return 1  # Pillow would decode all of it, to look for a note behind the pixels
    try:
        noted = header.getexif().get(_TAG, 1)
    except Exception:  # all kinds, for a damaged note beside pixels that are whole
        return 1
    return noted if noted in range(1, 9) else 1


def left_alone(header: Image.Image | None) -> int:
    """The flag for OpenCV where `noted_orientation` tells how to turn a file; 0 where OpenCV is to do as it knows."""
    return 0 if header is None or header.format == "TIFF" else UNTURNED


def noted_in_xmp(jpeg: bytes) -> int:
    """The number of a JPEG that has one in its XMP, where OpenCV does not look; that in its EXIF goes before. 1 for others."""
    if jpeg.find(_XMP, 0, _JPEG_HEAD) < 0:
        return 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on metadata
        try:
            with Image.open(io.BytesIO(jpeg)) as header:
                return noted_orientation(jpeg, header)
        except Exception:  # it is none to Pillow
            return 1


def says_how_to_turn(avif: bytes) -> bool:
    """Whether the head of an AVIF holds a rotation or a mirror, of which OpenCV knows nothing."""
    return any(mark in avif[:_AVIF_HEAD] for mark in _IN_AVIF)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, ...) as stored, brought upright: 2 to 4 are mirrored or upside down, from 5 on the sides change places.

    >>> turned(np.array([[1, 2, 3]]), 6)
    array([[1],
           [2],
           [3]])
    >>> turned(np.array([[1, 2, 3]]), 8)
    array([[3],
           [2],
           [1]])
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
