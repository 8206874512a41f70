"""HEIC, which Pillow reads where pillow-heif is installed."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from era_support_packages.datasets.decoding import UndecodableError, decode
from era_support_packages.datasets.image_folder import decode_image

pillow_heif = pytest.importorskip("pillow_heif")


def heic(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=100, **options)
    return stream.getvalue()


def near(pixels: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixels.astype(int) - color).max() <= 6)


@pytest.mark.parametrize(("orientation", "red"), [(1, (slice(None), 5)), (6, (5, slice(None))), (8, (-5, slice(None)))])
def test_upright_as_the_camera_noted(orientation: int, red: tuple[object, object]) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = 200, 0, 0  # the left half is red
    exif = Image.Exif()
    exif[0x112] = orientation
    found = decode(heic(Image.fromarray(pixels), exif=exif.tobytes())).pixels
    assert found.shape == ((64, 96, 3) if orientation == 1 else (96, 64, 3))
    assert near(found[red], (200, 0, 0))


def test_transparency_lies_on_white() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[32:, :, 3] = 255
    found = decode(heic(Image.fromarray(pixels))).pixels
    assert near(found[5, 5], (255, 255, 255))
    assert near(found[60, 60], (200, 0, 0))


def test_ten_bits_become_eight() -> None:
    deep = np.full((64, 64, 3), 512 << 6, np.uint16)  # values of 10 bits, in the upper ones of 16
    deep[32:] = 1023 << 6
    stream = io.BytesIO()
    pillow_heif.from_bytes(mode="RGB;16", size=(64, 64), data=deep.tobytes()).save(stream, quality=100)
    assert pillow_heif.open_heif(io.BytesIO(stream.getvalue()), convert_hdr_to_8bit=False).info["bit_depth"] == 10
    found = decode(stream.getvalue())
    assert found.largest == 0
    assert near(found.pixels[5, 5], (128, 128, 128))
    assert near(found.pixels[60, 60], (255, 255, 255))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_damaged(kept: float) -> None:
    whole = heic(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(UndecodableError, match="it cannot be decoded") as caught:
        decode(whole[: int(kept * len(whole))])
    assert caught.value.damaged


def test_of_several_pictures_the_first_under_any_name(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((64, 64, 3), value, np.uint8)) for value in (200, 20))
    both = pillow_heif.from_pillow(first)
    both.add_from_pillow(second)
    both.save(tmp_path / "x", quality=100)
    assert near(decode_image(tmp_path / "x"), (200, 200, 200))
    assert decode((tmp_path / "x").read_bytes()).pictures == 2
