"""Pictures of any size as squares: what is kept, what is cut off, what is put around, and the way back for a map."""

import cv2
import numpy as np
import pytest

from era_support_packages.datasets.decoding import to_8_bits
from era_support_packages.datasets.fitting import FITS, Fitting, fitted, unfitted

COLUMNS = np.repeat(np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 12, axis=0), 3, axis=2)
"""12 x 24 px, each column of a value of its own"""


def test_a_crop_keeps_the_middle_and_the_aspect_ratio():
    square = fitted(COLUMNS, Fitting(12, "crop"))
    assert np.array_equal(square, COLUMNS[:, 6:18])
    half = fitted(COLUMNS, Fitting(6, "crop"))
    assert half[0, :, 0].tolist() == [65, 85, 105, 125, 145, 165]  # the mean of two columns each


def test_the_crop_is_the_center_of_the_image_resized_to_its_shorter_side():
    photo = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    whole = cv2.resize(photo, (80, 48), interpolation=cv2.INTER_AREA)
    assert np.array_equal(fitted(photo, Fitting(48, "crop")), whole[:, 16:64])


def test_a_squash_is_what_it_was_before_there_was_a_choice():
    photo = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    assert np.array_equal(fitted(photo, Fitting()), cv2.resize(photo, (32, 32), interpolation=cv2.INTER_AREA))
    small = photo[:20]
    assert np.array_equal(fitted(small, Fitting()), cv2.resize(small, (32, 32), interpolation=cv2.INTER_LINEAR))


def test_padding_puts_gray_around_the_whole_picture():
    square = fitted(COLUMNS, Fitting(24, "pad"))
    assert np.array_equal(square[6:18], COLUMNS)
    assert (square[:6] == 128).all()
    assert (square[18:] == 128).all()


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_the_gray_around_deep_pixels_is_the_same_whatever_their_bits(bits):
    deep = np.full((4, 8, 4), 100, np.uint16)
    square = fitted(deep, Fitting(8, "pad"))
    assert square.dtype == np.uint16
    assert (to_8_bits(square, bits)[:2] == 128).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(5, 300), (300, 5), (1, 1), (31, 33), (32, 32), (640, 480)])
def test_any_picture_becomes_a_square_and_one_that_is_one_stays(fit, shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    square = fitted(picture, Fitting(32, fit))
    assert (square.shape, square.dtype) == ((32, 32, 3), np.uint8)
    assert shape != (32, 32) or square is picture


@pytest.mark.parametrize(
    ("fit", "lit"), [("squash", (slice(0, 40), slice(40, 80))), ("crop", (slice(0, 40), slice(40, 60))), ("pad", ())]
)
def test_a_map_lies_on_the_photo_where_the_network_saw_it(fit, lit):
    """The right half of what the network saw, at half of its resolution, on a photo of 40 x 80 px."""
    heat = np.zeros((16, 16), np.float32)
    heat[:, 8:] = 1
    whole = unfitted(heat, 40, 80, Fitting(32, fit))
    assert (whole.shape, whole.dtype) == ((40, 80), np.float32)
    expected = np.zeros((40, 80))
    expected[lit or (slice(0, 40), slice(40, 80))] = 1
    assert np.abs(whole - expected)[:, [5, 25, 35, 45, 55, 70]].max() == 0  # away from the edge, which is smooth


@pytest.mark.parametrize(("values", "name"), [((0, "crop"), "image_size is 0"), ((32, "corp"), "did you mean 'crop'")])
def test_what_is_no_fitting_is_refused(values, name):
    with pytest.raises(ValueError, match=name):
        Fitting(*values)
