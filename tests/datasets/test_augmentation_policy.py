"""The draws: uniform, independent, a function of (seed, pass, index) alone, and distributed as albumentations would draw."""

import dataclasses
import random

import albumentations as A
import numpy as np
import pytest
from scipy import stats

from era_support_packages.datasets.augmentation_policy import AugmentationDraws, AugmentationPolicy, draw, random_numbers

EVERYTHING = AugmentationPolicy(
    horizontal_flip=0.5, crop_padding=2, cutout=4, shift_scale_rotate=0.5, rgb_shift=0.5, brightness_contrast=0.5
)
NOTHING = AugmentationPolicy(horizontal_flip=0.0)
CERTAIN = AugmentationPolicy(1.0, crop_padding=2, cutout=8, shift_scale_rotate=1.0, rgb_shift=1.0, brightness_contrast=1.0)
SHAPES = {
    "flipped": ("bool", (7,)),
    "translations": ("float32", (7, 2)),
    "scales": ("float32", (7,)),
    "rotations": ("float32", (7,)),
    "corners": ("int64", (7, 2)),
    "rgb_shifts": ("int16", (7, 3)),
    "contrasts": ("float32", (7,)),
    "brightnesses": ("float32", (7,)),
    "holes": ("int64", (7, 2)),
}


def draws_of(policy: AugmentationPolicy, count: int, pass_number: int = 0) -> AugmentationDraws:
    """What happens to images 0 ... count - 1 of 32 px in one pass."""
    return draw(policy, 32, 32, 0, np.full(count, pass_number), np.arange(count))


def assert_equal(one: AugmentationDraws, other: AugmentationDraws) -> None:
    for name in SHAPES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def mixed(bits: int) -> int:
    """splitmix64's mixing, in Python's integers."""
    mask = 2**64 - 1
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & mask
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & mask
    return bits ^ (bits >> 31)


def test_the_first_numbers_are_those_of_splitmix64_as_published() -> None:
    published = [16294208416658607535, 7960286522194355700, 487617019471545679]  # of its reference implementation, started at 0
    expected = [(number >> 11) / 2**53 for number in published]
    assert random_numbers(0, np.array([0]), np.array([0]), 3).tolist() == [expected]


@pytest.mark.parametrize("key", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32 - 1, 2**31, 2**31), (12, 345, 49_999)])
def test_each_image_in_a_pass_has_a_start_of_its_own(key: tuple[int, int, int]) -> None:
    seed, pass_number, index = key
    start = mixed((mixed((mixed(seed) + pass_number) % 2**64) + index) % 2**64)
    expected = [(mixed((start + k * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53 for k in range(1, 6)]
    assert random_numbers(seed, np.array([pass_number]), np.array([index]), 5).tolist() == [expected]


def test_shapes_and_types() -> None:
    draws = dataclasses.asdict(draws_of(EVERYTHING, 7))
    assert {name: (str(values.dtype), values.shape) for name, values in draws.items() if values is not None} == SHAPES


def test_a_draw_follows_from_seed_pass_and_index_whatever_is_drawn_with_it() -> None:
    passes, indices = np.repeat(np.arange(3), 20), np.tile(np.arange(20), 3)
    together = draw(EVERYTHING, 16, 12, 5, passes, indices)
    for rows in (np.random.default_rng(0).permutation(60), [0], [33], [59]):
        alone = draw(EVERYTHING, 16, 12, 5, passes[rows], indices[rows])
        assert_equal(alone, together.map(lambda values, rows=rows: values[rows]))


@pytest.mark.parametrize(
    ("switch", "fields"),
    [
        ("horizontal_flip", ["flipped"]),
        ("shift_scale_rotate", ["translations", "scales", "rotations"]),
        ("crop_padding", ["corners"]),
        ("rgb_shift", ["rgb_shifts"]),
        ("brightness_contrast", ["contrasts", "brightnesses"]),
        ("cutout", ["holes"]),
    ],
)
def test_what_one_operation_draws_does_not_depend_on_the_others(switch: str, fields: list[str]) -> None:
    alone = draws_of(dataclasses.replace(NOTHING, **{switch: getattr(EVERYTHING, switch)}), 100)
    for field in fields:
        np.testing.assert_array_equal(getattr(alone, field), getattr(draws_of(EVERYTHING, 100), field))


def test_an_operation_that_does_not_happen_has_values_that_change_nothing() -> None:
    draws = draws_of(NOTHING, 50)
    for name in SHAPES.keys() - {"holes"}:  # a square of no size may lie anywhere
        np.testing.assert_array_equal(getattr(draws, name), 1 if name in ("scales", "contrasts") else 0, err_msg=name)


def test_each_operation_happens_in_its_share_whole_or_not_at_all_and_by_itself() -> None:
    draws = draws_of(EVERYTHING, 4000)
    still = (draws.scales == 1) & (draws.rotations == 0) & (draws.translations == 0).all(axis=1)
    dull = (draws.contrasts == 1) & (draws.brightnesses == 0)
    np.testing.assert_array_equal(still, draws.rotations == 0)
    np.testing.assert_array_equal(dull, draws.contrasts == 1)
    decided = np.array([draws.flipped, still, dull, (draws.rgb_shifts == 0).all(axis=1)])
    assert np.abs(decided.mean(axis=1) - 0.5).max() < 0.03  # four standard deviations
    assert np.abs(np.corrcoef(decided)[np.triu_indices(4, 1)]).max() < 0.06


@pytest.mark.parametrize(("height", "width", "side", "last"), [(9, 5, 4, (5, 1)), (9, 5, 5, (4, 0)), (9, 5, 32, (0, 0))])
def test_a_hole_lies_inside_and_reaches_every_side(height: int, width: int, side: int, last: tuple[int, int]) -> None:
    holes = draw(AugmentationPolicy(cutout=side), height, width, 0, np.zeros(500, dtype=int), np.arange(500)).holes
    assert holes.min(axis=0).tolist() == [0, 0]
    assert tuple(holes.max(axis=0)) == last


def test_an_alternating_flip_shows_each_image_in_the_orientation_it_was_not_shown_in_before() -> None:
    coins = draws_of(EVERYTHING, 1000).flipped
    assert 440 < coins.sum() < 560
    for number in range(5):
        alternating = draws_of(dataclasses.replace(EVERYTHING, alternating_flip=True), 1000, number)
        np.testing.assert_array_equal(alternating.flipped, coins ^ (number % 2 == 1))
        others = draws_of(EVERYTHING, 1000, number)
        assert number == 0 or 440 < (others.flipped == coins).sum() < 560
        assert_equal(dataclasses.replace(alternating, flipped=None), dataclasses.replace(others, flipped=None))
    assert not draws_of(dataclasses.replace(NOTHING, alternating_flip=True), 100, 1).flipped.any()


def drawn_by_albumentations(transform: A.BasicTransform) -> list[dict]:
    transform.set_random_state(np.random.default_rng(1), random.Random(1))
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    return [transform.get_params_dependent_on_data({"shape": image.shape}, {"image": image}) for _ in range(2000)]


def assert_same_distribution(ours: np.ndarray, theirs: list[float]) -> None:
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3


def test_shift_scale_rotate_is_drawn_as_by_albumentations() -> None:
    transform = A.Affine(translate_percent=(-0.05, 0.05), scale=(0.95, 1.05), keep_ratio=True, rotate=(-15, 15))
    ours, theirs = draws_of(CERTAIN, 20_000), drawn_by_albumentations(transform)
    assert_same_distribution(ours.rotations, [one["rotate"] for one in theirs])
    assert_same_distribution(ours.scales, [one["scale"]["x"] for one in theirs])
    center = np.array([15.5, 15.5, 1])
    moved = np.array([one["matrix"] @ center - center for one in theirs]).round(6)
    for axis in (0, 1):
        assert_same_distribution(ours.translations[:, axis], moved[:, axis].tolist())
        assert set(ours.translations[:, axis]) == {-1, 0, 1} == set(moved[:, axis])
    assert_same_distribution(ours.rotations[ours.translations[:, 0] == 1], [one["rotate"] for one in theirs])


def test_colors_are_drawn_as_by_albumentations() -> None:
    ours, limit = draws_of(CERTAIN, 20_000), (-20, 20)
    theirs = np.trunc([one["noise_map"] for one in drawn_by_albumentations(A.RGBShift(limit, limit, limit))])
    for channel in range(3):
        assert_same_distribution(ours.rgb_shifts[:, channel], theirs[:, channel].tolist())
        assert set(ours.rgb_shifts[:, channel]) == set(range(-19, 20))  # 20 itself has no chance: the fraction is cut off
    theirs = drawn_by_albumentations(A.RandomBrightnessContrast((-0.2, 0.2), (-0.2, 0.2)))
    assert_same_distribution(ours.contrasts, [one["alpha"] for one in theirs])
    assert_same_distribution(ours.brightnesses, [one["beta"] for one in theirs])


def test_places_are_drawn_as_by_albumentations() -> None:
    ours = draws_of(CERTAIN, 20_000)
    dropout = A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(8, 8), hole_width_range=(8, 8))
    holes = np.array([one["holes"][0] for one in drawn_by_albumentations(dropout)])
    crop = A.RandomCrop(28, 28)  # of 32: as many places as a border of 2 px on both sides leaves
    corners = np.array([one["crop_coords"] for one in drawn_by_albumentations(crop)])
    for axis in (0, 1):
        assert_same_distribution(ours.holes[:, axis], holes[:, 1 - axis].tolist())
        assert set(ours.holes[:, axis]) == set(range(25))
        assert_same_distribution(ours.corners[:, axis], corners[:, 1 - axis].tolist())
        assert set(ours.corners[:, axis]) == set(range(5))
