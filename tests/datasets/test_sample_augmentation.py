"""What each operation of the policy does to pixels through albumentations, and that it follows from (seed, pass, index) alone."""

import random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from era_support_packages.datasets import sample_augmentation as augmentation
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.sample_augmentation import Augmenter

FILL = (200, 100, 50)
EVERYTHING = AugmentationPolicy(
    horizontal_flip=0.5, crop_padding=2, cutout=4, shift_scale_rotate=0.5, rgb_shift=0.5, brightness_contrast=0.5
)


def noise(size: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def ramp() -> np.ndarray:
    """All 256 values in each channel, uint8 (16, 16, 3)."""
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)


def variants(image: np.ndarray, count: int, **policy: float) -> list[np.ndarray]:
    """The image in `count` passes under a policy with nothing but the given operations."""
    height, width = image.shape[:2]
    augmenter = Augmenter(AugmentationPolicy(**{"horizontal_flip": 0.0, **policy}), height, width, FILL, seed=0)
    return [augmenter(image, pass_number, 0) for pass_number in range(count)]


# ---- each operation alone ----------------------------------------------------------------------------------------------


def test_a_policy_that_is_off_changes_nothing() -> None:
    image = noise()
    for result in variants(image, 5):
        np.testing.assert_array_equal(result, image)
        assert not np.shares_memory(result, image)


def test_every_result_is_a_new_uint8_image_of_the_same_size() -> None:
    image = noise(20)[:, :12]
    before = image.copy()
    augmenter = Augmenter(EVERYTHING, 20, 12, FILL, seed=0)
    for index in range(40):
        result = augmenter(image, 0, index)
        assert (result.dtype, result.shape) == (np.uint8, (20, 12, 3))
    np.testing.assert_array_equal(image, before)


def test_a_certain_flip_is_the_exact_mirror_image() -> None:
    image = noise()
    for result in variants(image, 5, horizontal_flip=1.0):
        np.testing.assert_array_equal(result, image[:, ::-1])


@pytest.mark.parametrize(("probability", "low", "high"), [(0.5, 120, 180), (0.1, 15, 45)])
def test_a_flip_happens_with_its_probability(probability: float, low: int, high: int) -> None:
    image = noise()
    results = variants(image, 300, horizontal_flip=probability)
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    same = [np.array_equal(result, image) for result in results]
    assert [a != b for a, b in zip(mirrored, same, strict=True)] == [True] * 300
    assert low <= sum(mirrored) <= high


def test_a_crop_is_a_window_of_the_reflected_image() -> None:
    image = noise(12)
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")  # numpy's name for OpenCV's REFLECT_101
    windows = {padded[y : y + 12, x : x + 12].tobytes(): (y, x) for y in range(7) for x in range(7)}
    corners = [windows[result.tobytes()] for result in variants(image, 300, crop_padding=3)]
    assert {y for y, _ in corners} == set(range(7))
    assert {x for _, x in corners} == set(range(7))
    assert len(set(corners)) > 40  # of 49: rows and columns are drawn apart


def test_a_cutout_is_one_whole_square_of_the_fill_color() -> None:
    image = noise(16)
    image[image == FILL] = 0  # no pixel has it by chance
    corners = []
    for result in variants(image, 300, cutout=5):
        rows, columns = np.nonzero((result == FILL).all(axis=2))
        y, x = rows.min(), columns.min()
        expected = image.copy()
        expected[y : y + 5, x : x + 5] = FILL
        np.testing.assert_array_equal(result, expected)
        assert len(rows) == 25  # albumentations keeps the square inside: nothing is clipped at a border
        corners.append((y, x))
    assert {y for y, _ in corners} == set(range(12))
    assert {x for _, x in corners} == set(range(12))


@pytest.mark.parametrize("side", [16, 32])
def test_a_cutout_may_cover_the_image(side: int) -> None:
    (result,) = variants(noise(16), 1, cutout=side)
    assert (result == FILL).all()


def test_a_border_wider_than_the_image_is_reflected_again_and_again() -> None:
    image = noise(3)
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    windows = {padded[y : y + 3, x : x + 3].tobytes() for y in range(17) for x in range(17)}
    assert {result.tobytes() for result in variants(image, 200, crop_padding=8)} <= windows


def test_rgb_shift_adds_one_constant_a_channel() -> None:
    image = ramp()
    shifts = []
    for result in variants(image, 200, rgb_shift=1.0):
        shift = result[8, 8].astype(int) - image[8, 8]  # 136 is far from both ends
        np.testing.assert_array_equal(result, np.clip(image.astype(int) + shift, 0, 255))
        shifts.append(shift)
    assert -20 <= np.min(shifts) < -17
    assert 17 < np.max(shifts) <= 20
    red, green, blue = np.transpose(shifts)
    for one, other in ((red, green), (green, blue), (red, blue)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.2  # drawn apart


def test_brightness_and_contrast_are_a_line_within_the_limits() -> None:
    image = ramp()
    values = np.arange(256)
    factors, offsets = [], []
    for result in variants(image, 200, brightness_contrast=1.0):
        np.testing.assert_array_equal(result[..., 0], result[..., 1])
        np.testing.assert_array_equal(result[..., 0], result[..., 2])
        found = result[..., 0].ravel().astype(float)
        inside = (found > 0) & (found < 255)
        factor, offset = np.polyfit(values[inside], found[inside], 1)
        assert np.abs(np.clip(factor * values + offset, 0, 255) - found).max() < 1
        factors.append(factor)
        offsets.append(offset / 255)
    assert 0.795 < min(factors) < 0.82
    assert 1.18 < max(factors) < 1.205
    assert -0.205 < min(offsets) < -0.18
    assert 0.18 < max(offsets) < 0.205
    assert abs(np.corrcoef(factors, offsets)[0, 1]) < 0.2


def test_shift_scale_rotate_stays_within_its_limits_and_reaches_them() -> None:
    bar = np.zeros((64, 64, 3), dtype=np.uint8)
    bar[28:36, 20:44] = FILL  # 24 x 8 px, centred at (31.5, 31.5)
    y, x = np.mgrid[:64, :64]
    measured = []
    height, width = bar.shape[:2]
    policy = AugmentationPolicy(horizontal_flip=0.0, shift_scale_rotate=1.0)
    augmenter = Augmenter(policy, height, width, (0, 0, 0), seed=0)
    for index in range(300):
        weights = augmenter(bar, 0, index)[..., 0] / FILL[0]
        total = weights.sum()
        center_x, center_y = (weights * x).sum() / total, (weights * y).sum() / total
        xx, yy = (weights * (x - center_x) ** 2).sum(), (weights * (y - center_y) ** 2).sum()
        xy = (weights * (x - center_x) * (y - center_y)).sum()
        angle = np.degrees(np.arctan2(2 * xy, xx - yy) / 2)
        measured.append((center_x - 31.5, center_y - 31.5, angle, np.sqrt(total / 192)))
    lowest, highest = np.min(measured, axis=0), np.max(measured, axis=0)
    limits = np.array([0.05 * 64, 0.05 * 64, 15, 0.05])
    center = np.array([0, 0, 0, 1])
    assert (lowest - center >= -limits - 0.05).all()
    assert (highest - center <= limits + 0.05).all()
    assert (lowest - center <= -0.85 * limits).all()
    assert (highest - center >= 0.85 * limits).all()


def test_corners_that_a_rotation_opens_have_the_fill_color() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    opened = 0
    for result in variants(image, 100, shift_scale_rotate=1.0):
        share = result / np.array(FILL)  # 0 is the image, 1 the fill, and interpolation lies between, alike in each channel
        assert (np.ptp(share, axis=2) <= 1 / 50 + 1e-9).all()
        assert (result[8:24, 8:24] == 0).all()
        opened += any((result[y, x] == FILL).all() for y in (0, -1) for x in (0, -1))
    assert opened > 50


# ---- randomness --------------------------------------------------------------------------------------------------------


def test_a_result_follows_from_seed_pass_and_index_whatever_was_drawn_before() -> None:
    image = noise()
    keys = [(pass_number, index) for pass_number in range(4) for index in range(4)]
    first = Augmenter(EVERYTHING, 16, 16, FILL, seed=3)
    results = {key: first(image, *key) for key in keys}
    second = Augmenter(EVERYTHING, 16, 16, FILL, seed=3)
    for key in reversed(keys):
        np.testing.assert_array_equal(second(image, *key), results[key])
    assert len({result.tobytes() for result in results.values()}) == len(keys)
    other_seed = Augmenter(EVERYTHING, 16, 16, FILL, seed=4)
    assert all(not np.array_equal(other_seed(image, *key), results[key]) for key in keys)


def test_seed_pass_and_index_do_not_stand_in_for_one_another() -> None:
    image = noise()
    results = [
        Augmenter(EVERYTHING, 16, 16, FILL, seed=seed)(image, pass_number, index).tobytes()
        for seed, pass_number, index in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 0, 0), (0, 2**31, 0), (0, 0, 2**31)]
    ]
    assert len(set(results)) == 6


def test_the_global_random_states_stay_as_they_are() -> None:
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    augmenter = Augmenter(EVERYTHING, 16, 16, FILL, seed=0)
    for index in range(10):
        augmenter(noise(), 0, index)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def decisions(results: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each result was flipped, and whether its colours were shifted, bool (N,) each."""
    flipped = [result[:, :8].mean() > result[:, 8:].mean() for result in results]
    shifted = [set(np.unique(result)) != {60, 160} for result in results]
    return np.array(flipped), np.array(shifted)


def test_flip_and_color_shift_are_decided_independently() -> None:
    image = np.full((16, 16, 3), 60, dtype=np.uint8)
    image[:, 8:] = 160
    policy = AugmentationPolicy(horizontal_flip=0.5, rgb_shift=0.5)
    augmenter = Augmenter(policy, 16, 16, FILL, seed=0)
    flipped, shifted = decisions([augmenter(image, 0, index) for index in range(400)])
    cells = [((flipped == a) & (shifted == b)).sum() for a in (False, True) for b in (False, True)]
    assert sum(cells) == 400
    assert all(70 <= cell <= 130 for cell in cells)  # 100 expected, standard deviation 8.7

    # The library's own way gives every transform the same seed: the two always happen together or not at all.
    transform = A.Compose([A.HorizontalFlip(p=0.5), A.RGBShift((-20, 20), (-20, 20), (-20, 20), p=0.5)])
    results = []
    for seed in range(400):
        transform.set_random_seed(seed)
        results.append(transform(image=image)["image"])
    flipped, shifted = decisions(results)
    assert 150 < flipped.sum() < 250
    np.testing.assert_array_equal(flipped, shifted)


# ---- arguments that a release of albumentations does not know ----------------------------------------------------------


def test_an_unknown_argument_of_albumentations_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    original = A.CoarseDropout
    with pytest.warns(UserWarning, match="'max_holes' are not valid"):  # by itself the library ignores it with a warning
        original(max_holes=1)
    monkeypatch.setattr(augmentation.A, "CoarseDropout", lambda **arguments: original(**arguments, max_holes=1))
    with pytest.raises(UserWarning, match=r"Argument\(s\) 'max_holes' are not valid for transform CoarseDropout"):
        Augmenter(EVERYTHING, 16, 16, FILL, seed=0)


def test_every_argument_is_known_to_this_release(recwarn: pytest.WarningsRecorder) -> None:
    augmenter = Augmenter(EVERYTHING, 16, 16, FILL, seed=0)
    assert not recwarn.list
    assert (augmenter.affine.fill, augmenter.cutout.fill) == (FILL, FILL)
    assert (augmenter.affine.interpolation, augmenter.affine.border_mode) == (cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    assert augmenter.pad.border_mode == cv2.BORDER_REFLECT_101
