"""TIFF files by their tags: those whose values no decoder here turns into the right colors."""

import io

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_BITS, _PHOTOMETRIC, _CHANNELS, _PLANES, _FORMAT = 258, 262, 277, 284, 339
_WHITE_IS_ZERO, _LAB, _SEPARATE = 0, 8, 2
_KINDS = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
EIGHT_OR_SIXTEEN = "save it with 8 or 16 bits (whole numbers from 0 up)"


def unserved(data: bytes) -> tuple[str, str] | None:
    """What a TIFF holds, and what to do, where its values have no known range or a decoder would misread them; else None."""
    tags = _tags(data)
    if tags is None:
        return None
    bits = max(tags.get(_BITS) or (1,))
    kind = _KINDS.get(max(tags.get(_FORMAT) or (1,)))
    channels = tags.get(_CHANNELS, 1)
    if kind is not None and (kind != "uint" or bits > 16):
        return f"it holds {kind}{bits} values", EIGHT_OR_SIXTEEN
    if channels > 4:
        return f"it has {channels} channels", "save it in gray or RGB"
    if tags.get(_PHOTOMETRIC) == _LAB:
        return "it holds Lab colors", "save it in RGB"
    if bits > 8 and channels > 1 and tags.get(_PLANES) == _SEPARATE:
        return "it holds each channel by itself (planar)", "save it with interleaved channels"
    if bits > 8 and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return "its zero is white (MinIsWhite)", "save it with black as zero"
    return None


def _tags(data: bytes) -> ImageFileDirectory_v2 | None:
    """The tags of the first picture; None where it is no TIFF, or its tags cannot be read."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    file = io.BytesIO(data)
    try:
        header = file.read(16 if b"+" in data[:4] else 8)
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        tags.get(_BITS), tags.get(_FORMAT)
    except Exception:  # what is wrong in it the decoders say
        return None
    return tags
