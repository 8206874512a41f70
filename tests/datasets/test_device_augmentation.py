"""The engine by the batch gives the pixels of the engine by the sample for the same draws, without looking at any value."""

import numpy as np
import pytest
import torch
from torch import Tensor

from era_support_packages.datasets import device_augmentation as device
from era_support_packages.datasets.augmentation_policy import AugmentationDraws, AugmentationPolicy, draw
from era_support_packages.datasets.sample_augmentation import Augmenter

FILL = (200, 100, 50)
EXACT = {
    "flip": {"horizontal_flip": 0.5},
    "alternating flip": {"horizontal_flip": 0.5, "alternating_flip": True},
    "crop": {"crop_padding": 2},
    "crop with a border wider than the image": {"crop_padding": 31},
    "cutout": {"cutout": 5},
    "cutout larger than the image": {"cutout": 32},
    "cutout before the crop": {"crop_padding": 4, "cutout": 5, "cutout_first": True},
    "RGB shift": {"rgb_shift": 0.7},
    "brightness and contrast": {"brightness_contrast": 0.7},
    "all of them": {"horizontal_flip": 0.5, "crop_padding": 4, "cutout": 6, "rgb_shift": 0.5, "brightness_contrast": 0.5},
}


def policy_of(**values: float) -> AugmentationPolicy:
    return AugmentationPolicy(**{"horizontal_flip": 0.0, **values})


EVERYTHING = policy_of(**EXACT["all of them"], shift_scale_rotate=0.5)


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def smooth(count: int, size: int = 32) -> np.ndarray:
    """Slow waves of color, as neighboring pixels of a photograph are alike."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    waves = [np.sin(generator.uniform(-0.6, 0.6) * x + generator.uniform(-0.6, 0.6) * y) for _ in range(3 * count)]
    return (127.5 + 127 * np.array(waves)).astype(np.uint8).reshape(count, 3, size, size).transpose(0, 2, 3, 1).copy()


def draws_of(policy: AugmentationPolicy, images: np.ndarray) -> AugmentationDraws:
    count, height, width = images.shape[:3]
    return draw(policy, height, width, 0, np.full(count, 1), np.arange(count))


def by_the_sample(images: np.ndarray, draws: AugmentationDraws, policy: AugmentationPolicy) -> np.ndarray:
    augmenter = Augmenter(policy, *images.shape[1:3], FILL, seed=0)
    return np.stack([augmenter.apply(image, draws.map(lambda values, row=row: values[row])) for row, image in enumerate(images)])


def by_the_batch(images: np.ndarray, draws: AugmentationDraws, policy: AugmentationPolicy, place: str = "cpu") -> np.ndarray:
    tensors = draws.map(lambda values: torch.from_numpy(values).to(place))
    fill = torch.tensor(FILL, dtype=torch.uint8, device=place)
    return device.augment(torch.from_numpy(images).to(place), tensors, policy, fill).cpu().numpy()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 12), (7, 9), (1, 5), (1, 1)])
def test_both_engines_give_the_same_bits(name: str, height: int, width: int) -> None:
    images, policy = noise(40, height, width), policy_of(**EXACT[name])
    before, draws = images.copy(), draws_of(policy, images)
    found = by_the_batch(images, draws, policy)
    assert (found.dtype, found.shape) == (np.uint8, images.shape)
    np.testing.assert_array_equal(found, by_the_sample(images, draws, policy))
    np.testing.assert_array_equal(images, before)
    if height > 1:
        assert (found != images).any()


def test_every_contrast_and_brightness_is_rounded_as_by_albumentations() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    images, policy = np.repeat(ramp, 3000, axis=0), policy_of(brightness_contrast=1.0)
    draws = draws_of(policy, images)
    np.testing.assert_array_equal(by_the_batch(images, draws, policy), by_the_sample(images, draws, policy))


def test_shift_scale_rotate_differs_by_less_than_a_gray_level_on_average() -> None:
    policy = policy_of(shift_scale_rotate=1.0)
    # Both interpolate alike with OpenCV 5 (one gray level in some pixels); OpenCV 4 places pixels to 1/32 px.
    for images, mean, largest in ((smooth(100), 0.4, 5), (noise(100, 32, 32), 1, 8), (noise(100, 21, 30), 1, 8)):
        draws = draws_of(policy, images)
        batch, samples = by_the_batch(images, draws, policy).astype(int), by_the_sample(images, draws, policy).astype(int)
        assert (batch != images).mean() > 0.5
        assert np.abs(batch - samples).mean() < mean
        assert np.abs(batch - samples).max() <= largest
        assert abs((batch - samples).mean()) < 0.02  # neither engine is brighter


def test_what_is_not_moved_is_not_interpolated_either() -> None:
    images = smooth(200)
    draws = draws_of(EVERYTHING, images)
    difference = np.abs(by_the_batch(images, draws, EVERYTHING).astype(int) - by_the_sample(images, draws, EVERYTHING))
    assert difference.mean() < 0.4
    still = draws.scales == 1
    assert 60 < still.sum() < 140
    assert (difference[still] == 0).all()


def gray(rows: list[list[int]]) -> Tensor:
    """One gray image of these values, uint8 (1, H, W, 3)."""
    return torch.tensor(rows, dtype=torch.uint8)[None, :, :, None].repeat(1, 1, 1, 3)


def values(images: Tensor) -> list:
    """The values of the first image, all of whose channels must be equal."""
    assert images.dtype == torch.uint8
    assert (images == images[..., :1]).all()
    return images[0, :, :, 0].tolist()


BLACK, COLOR = torch.zeros(3, dtype=torch.uint8), torch.tensor(FILL, dtype=torch.uint8)
SQUARE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(
    ("right", "down", "scale", "degrees", "expected"),
    [
        (0, 0, 1, 0, SQUARE),
        (1, 0, 1, 0, [[0, 1, 2], [0, 4, 5], [0, 7, 8]]),
        (0, -2, 1, 0, [[7, 8, 9], [0, 0, 0], [0, 0, 0]]),
        (0, 0, 1, 90, [[3, 6, 9], [2, 5, 8], [1, 4, 7]]),  # counter-clockwise
        (1, 0, 1, 90, [[0, 3, 6], [0, 2, 5], [0, 1, 4]]),  # turned first, then shifted
        (0, 0, 2, 0, [[3, 4, 4], [4, 5, 6], [6, 6, 7]]),  # 3, 3.5, 4 / 4.5, 5, 5.5 / 6, 6.5, 7: halves to even
        (0, 0, 0.5, 0, [[0, 0, 0], [0, 5, 0], [0, 0, 0]]),
    ],
)
def test_shift_scale_and_rotate(right: float, down: float, scale: float, degrees: float, expected: list[list[int]]) -> None:
    moves = torch.tensor([[right, down]]).float(), torch.tensor([scale]).float(), torch.tensor([degrees]).float()
    assert values(device.shift_scale_rotate(gray(SQUARE), *moves, BLACK)) == expected


def test_flip_and_crop() -> None:
    image = gray(SQUARE)
    both = device.flip(image.repeat(2, 1, 1, 1), torch.tensor([True, False]))
    assert values(both[:1]) == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert values(both[1:]) == SQUARE
    assert values(device.crop(image, torch.tensor([[1, 1]]), 1)) == SQUARE
    assert values(device.crop(image, torch.tensor([[0, 2]]), 1)) == [[5, 6, 5], [2, 3, 2], [5, 6, 5]]


def test_colors_and_cutout() -> None:
    image = gray([[0, 100, 250]])
    shifted = device.rgb_shift(image, torch.tensor([[-19, 0, 19]], dtype=torch.int16))
    assert shifted[0, 0].tolist() == [[0, 0, 19], [81, 100, 119], [231, 250, 255]]
    lit = device.brightness_contrast(image, torch.tensor([1.25]), torch.tensor([-10.5]))
    assert values(lit) == [[0, 114, 255]]  # -10.5, 114.5, 302
    assert values(device.cutout(gray(SQUARE), torch.tensor([[1, 0]]), 2, BLACK)) == [[1, 2, 3], [0, 0, 6], [0, 0, 9]]
    colored = device.cutout(gray(SQUARE), torch.tensor([[2, 2]]), 5, COLOR)
    assert colored[0, 2, 2].tolist() == list(FILL)
    assert (colored != gray(SQUARE)).sum() == 3


@pytest.mark.parametrize(("first", "top_row"), [(True, [0, 1, 0]), (False, [2, 0, 2])])
def test_a_cut_out_before_the_crop_moves_with_it_and_is_mirrored_in_its_border(first: bool, top_row: list[int]) -> None:
    """A hole of one pixel in the middle of the first row; the window starts a column to the left, where the border mirrors it."""
    draws = AugmentationDraws(None, None, None, None, torch.tensor([[1, 0]]), None, None, None, torch.tensor([[0, 1]]))
    policy = policy_of(crop_padding=1, cutout=1, cutout_first=first)
    assert values(device.augment(gray(SQUARE), draws, policy, BLACK)) == [top_row, [5, 4, 5], [8, 7, 8]]


def test_no_operation_looks_at_values() -> None:
    """On the device "meta" there are none: what runs there never waits for a GPU to hand one over."""
    images = noise(4, 16, 12)
    draws = draws_of(EVERYTHING, images).map(lambda values: torch.from_numpy(values).to("meta"))
    result = device.augment(torch.from_numpy(images).to("meta"), draws, EVERYTHING, COLOR.to("meta"))
    assert (result.device.type, result.dtype, tuple(result.shape)) == ("meta", torch.uint8, images.shape)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_pixels_without_waiting() -> None:
    images = noise(64, 32, 32)
    for name, chances in EXACT.items():
        policy = policy_of(**chances)
        draws = draws_of(policy, images)
        np.testing.assert_array_equal(by_the_batch(images, draws, policy, "cuda"), by_the_batch(images, draws, policy), name)
    draws = draws_of(EVERYTHING, images).map(lambda values: torch.from_numpy(values).cuda())
    fill, pixels = COLOR.cuda(), torch.from_numpy(images).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        device.augment(pixels, draws, EVERYTHING, fill)
    finally:
        torch.cuda.set_sync_debug_mode("default")
