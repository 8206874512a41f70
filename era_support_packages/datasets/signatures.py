"""Formats by their first bytes, where the decoders do not tell them."""

import importlib.util

from PIL import Image

HEIC_HINT = "HEIC (`pip install pillow-heif` reads it)"


def is_heic(data: bytes) -> bool:
    """Whether it is HEIC, by its brand."""
    return data[4:8] == b"ftyp" and not is_avif(data) and data[8:12] in (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")


def is_avif(data: bytes) -> bool:
    """Whether it is AVIF, by its brands."""
    return data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in (b"avif", b"avis"))


def foreign_format(data: bytes) -> str | None:
    """The name of a format that is known by its first bytes, but not read by any decoder that is installed here."""
    if is_heic(data):
        return None if importlib.util.find_spec("pillow_heif") else HEIC_HINT
    if is_avif(data):
        return None if "AVIF" in Image.registered_extensions().values() else "AVIF (a newer Pillow reads it)"
    signatures = {b"\xff\x0a": "JPEG XL", b"\x00\x00\x00\x0cJXL ": "JPEG XL", b"qoif": "QOI", b"8BPS": "PSD"}
    return next((name for start, name in signatures.items() if data.startswith(start)), None)
