"""Photos of 16 bits for a network that was trained on none: each counts for itself, and a line says so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from era_support_packages.datasets.image_folder import decode_images
from era_support_packages.datasets.photos import decoded_photos, named_depths


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """One of up to 1,023, one of up to 65,535, and one of 8 bits."""
    for name, largest in (("dark", 1023), ("bright", 65535)):
        values = np.array([[0, largest], [largest // 2, largest]], np.uint16)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    Image.fromarray(np.full((2, 2, 3), 7, np.uint8)).save(tmp_path / "plain.png")
    return [tmp_path / f"{name}.png" for name in ("dark", "bright", "plain")]


def test_what_a_photo_becomes_does_not_depend_on_the_others(files: list[Path], capsys) -> None:
    together, alone = decode_images(files), [decode_images([file])[0] for file in files]
    (part,) = decoded_photos(files, None)
    for pixels, other, photo in zip(together, alone, part, strict=True):
        assert np.array_equal(pixels, other)
        assert np.array_equal(pixels, photo.pixels)
    assert [together[0].max(), together[1].max(), together[2].max()] == [255, 255, 7]
    assert [photo.bits for photo in part] == [10, 16, 0]
    assert capsys.readouterr().out.count("read as 10 bits") == 2  # together and alone


def test_those_of_a_network_that_knows_a_depth_are_read_by_it(files: list[Path]) -> None:
    (part,) = decoded_photos(files, 16)
    assert [photo.bits for photo in part] == [16, 16, 0]
    assert np.array_equal(part[0].pixels, decode_images([files[0]], 16)[0])
    assert part[0].pixels.max() == 4  # 1023 of 65535, of 255


@pytest.mark.parametrize(
    ("bits", "trained", "says"),
    [
        ([0, 0], None, ""),
        ([], 12, ""),
        ([12, 0], 12, "1 of 2 photos have 16 bits; they are read as 12 bits"),
        ([16, 10, 0], None, "2 of 3 photos have 16 bits, and none of the training had"),
        ([16, 10, 0], None, "10 or 16."),
    ],
)
def test_a_line_says_as_what_they_were_read(bits: list[int], trained: int | None, says: str) -> None:
    said = named_depths(bits, trained)
    assert (says in said) if says else not said
