"""Whole files whose values have no known range, or that a decoder would misread: said what they are, and what to do."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from era_support_packages.datasets.decoding import UndecodableError, decode, to_8_bits
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import decode_image, load_image_folder

tifffile = pytest.importorskip("tifffile")  # comes with scikit-image


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **{"photometric": "minisblack", **options})
    return stream.getvalue()


def filled(dtype: str, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    return np.full(shape, 7, dtype)


BITS = "save it with 8 or 16 bits"
TYPES = ["int8", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64", "complex64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=["plain", "big", "big-endian"])
def test_values_of_every_type_are_named(dtype: str, options: dict[str, object]) -> None:
    with pytest.raises(UndecodableError, match=f"^it holds {dtype} values; {BITS}"):
        decode(tiff(filled(dtype), **options))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (tiff(filled("uint8", (8, 8, 5)), planarconfig="contig"), "it has 5 channels; save it in gray or RGB"),
        (tiff(filled("uint16", (3, 8, 8)), photometric="rgb", planarconfig="separate"), "it holds each channel by itself"),
        (tiff(filled("uint16"), photometric="miniswhite"), "its zero is white (MinIsWhite); save it with black as zero"),
        (cv2.imencode(".hdr", np.full((8, 8, 3), 0.5, np.float32))[1].tobytes(), f"it holds float32 values; {BITS}"),
        (cv2.imencode(".pfm", np.full((8, 8, 3), 0.5, np.float32))[1].tobytes(), f"it holds float32 values; {BITS}"),
    ],
    ids=["channels", "planar", "from white", "hdr", "pfm"],
)
def test_other_kinds(data: bytes, sentence: str) -> None:
    with pytest.raises(UndecodableError, match=f"^{re.escape(sentence)}"):
        decode(data)


@pytest.mark.parametrize("form", ["TIFF", "IM"])
@pytest.mark.parametrize(("mode", "name"), [("F", "float32"), ("I", "int32")])
def test_pillow_does_not_clip_numbers(form: str, mode: str, name: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (8, 8), 1000).save(stream, form)
    with pytest.raises(UndecodableError, match=f"it holds {name} values"):
        decode(stream.getvalue())


def test_what_is_served_has_the_right_colors() -> None:
    assert (decode(tiff(filled("uint8"), photometric="miniswhite")).pixels == 248).all()
    assert (decode(tiff(filled("uint8", (3, 8, 8)), photometric="rgb", planarconfig="separate")).pixels == 7).all()
    deep = decode(tiff(filled("uint16", (8, 8, 3)) * 100, photometric="rgb"))
    assert (to_8_bits(deep.pixels, 10) == round(700 * 255 / 1023)).all()
    assert (decode(tiff(np.ones((8, 8), bool), photometric="minisblack")).pixels == 255).all()


def test_the_sentence_of_a_folder_gives_each_reason_and_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in "ab":
        (tmp_path / "x" / label).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "x" / label / f"{number}.bmp")
    floats = tmp_path / "x" / "a" / "f.tif"
    floats.write_bytes(tiff(filled("float32", (32, 32))))
    way_out = "and run again, or set skip_broken=True to leave it out."
    alone = f"{floats} cannot be decoded as an image (it holds float32 values): {BITS} (whole numbers from 0 up) or delete it, "
    with pytest.raises(DatasetError, match=f"^{re.escape(alone + way_out)}$"):
        load_image_folder(tmp_path / "x", tmp_path / "cache")
    with pytest.raises(DatasetError, match=re.escape(f"(it holds float32 values): {BITS}")):
        decode_image(floats)
    (tmp_path / "x" / "b" / "e.jpg").touch()
    both = f"2 of 12 files cannot be decoded as images (it holds float32 values: {floats}; it is empty: "
    with pytest.raises(DatasetError, match=re.escape(both)) as caught:
        load_image_folder(tmp_path / "x", tmp_path / "cache")
    assert "): replace them, save them with 8 or 16 bits (whole numbers from 0 up) or delete them, and run" in str(caught.value)
    train, test = load_image_folder(tmp_path / "x", tmp_path / "cache", skip_broken=True)
    assert len(train) + len(test) == 10
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "1 that cannot be used (it holds float32 values: save it with 8 or 16 bits (whole numbers from 0 up)), 1 damaged" in said
    )
