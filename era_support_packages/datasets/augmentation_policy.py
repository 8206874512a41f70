"""What may happen to a training image, and what does: the augmentation policy and its random draws.

Both engines, `sample_augmentation.Augmenter` (image by image) and `device_augmentation.augment` (by the batch), take their
parameters from `draw`. Every draw is a function of (seed, pass over the data, image index) and of nothing else: neither the
batch size, the number of worker processes nor a restart changes what an image looks like in a given pass.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

ENGINES = ("auto", "device", "samples")

SHIFT = SCALE = 0.05  # of the image's side
ROTATION = 15  # degrees
ASPECT = 4 / 3  # by which a resized crop may be wider or higher than the image
RGB_SHIFT = 20  # of 255
BRIGHTNESS = CONTRAST = 0.2

# Which of an image's random numbers each operation takes: what one operation draws never depends on whether another is on.
_NUMBERS = 17
_FLIP = 0
_AFFINE, _TRANSLATION, _SCALE, _ROTATION = 1, slice(2, 4), 4, 5
_CROP = slice(6, 8)
_RGB, _RGB_SHIFTS = 8, slice(9, 12)
_LIGHT, _CONTRAST, _BRIGHTNESS = 12, 13, 14
_CUTOUT = slice(15, 17)
_AREA, _RATIO, _CORNER = 17, 18, slice(19, 21)  # of a resized crop, drawn only where there is one
_WITH_RESIZED_CROP = 21


@dataclass(frozen=True)
class AugmentationPolicy:
    """What may happen to a training image; probabilities in [0, 1], sizes in px at the image's own resolution.

    `alternating_flip` mirrors an image in every other pass, starting with a coin of its own, instead of tossing a coin in each
    pass (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"); without `horizontal_flip` it does nothing.
    `cutout_first` cuts out before the crop, as the same author does: the crop moves the square, and its reflected border may
    show a part of it again. Else the cut-out is the last operation.
    `random_resized_crop` is the smallest share of the area that a crop keeps, which is enlarged to the whole size, as
    torchvision's RandomResizedCrop does; 0 crops nothing.

    >>> from era_support_packages.datasets import AugmentationPolicy
    >>> AugmentationPolicy(horizontal_flip=0.5, crop_padding=4).cutout
    0
    """

    horizontal_flip: float = 0.5
    crop_padding: int = 0
    cutout: int = 0
    shift_scale_rotate: float = 0.0
    rgb_shift: float = 0.0
    brightness_contrast: float = 0.0
    alternating_flip: bool = False
    cutout_first: bool = False
    random_resized_crop: float = 0.0


@dataclass(frozen=True, eq=False)
class AugmentationDraws:
    """What happens to each of N images, in this order; where an operation does not happen, the values that change nothing.

    flipped: bool (N,).  translations: float32 (N, 2), whole px to the right and down.  scales: float32 (N,), above 1 enlarges.
    rotations: float32 (N,), degrees counter-clockwise.  corners: int64 (N, 2), row and column of the crop in the padded image.
    rgb_shifts: int16 (N, 3), added to each channel.  contrasts, brightnesses: float32 (N,), each pixel becomes
    contrast * pixel + brightness.  holes: int64 (N, 2), row and column of the cut-out square's corner.
    boxes: int64 (N, 4), top, left, height and width of the crop that is enlarged; None where there is none.
    NumPy arrays as `draw` makes them, or the same as tensors on a device.
    """

    flipped: Any
    translations: Any
    scales: Any
    rotations: Any
    corners: Any
    rgb_shifts: Any
    contrasts: Any
    brightnesses: Any
    holes: Any
    boxes: Any = None

    def map(self, function: Callable[[Any], Any]) -> "AugmentationDraws":
        """The draws with a function applied to each array: a slice of it, or its copy on a device."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return AugmentationDraws(*(None if value is None else function(value) for value in values))


def draw(
    policy: AugmentationPolicy, height: int, width: int, seed: int, passes: np.ndarray, indices: np.ndarray
) -> AugmentationDraws:
    """What the policy does to images (height, width) number `indices` in passes number `passes`, int64 (N,) each.

    The distributions are those of albumentations' HorizontalFlip, Affine, RandomCrop, RGBShift, RandomBrightnessContrast and
    CoarseDropout. A cut-out square always lies inside the image; one larger than the image covers it.
    """
    resized = policy.random_resized_crop > 0
    numbers = random_numbers(seed, passes, indices, _WITH_RESIZED_CROP if resized else _NUMBERS)
    around_zero = 2 * numbers - 1
    flipped = numbers[:, _FLIP] < policy.horizontal_flip
    if policy.alternating_flip and policy.horizontal_flip:
        first_coin = random_numbers(seed, np.zeros_like(passes), indices, 1)[:, _FLIP]
        flipped = (first_coin < policy.horizontal_flip) ^ (passes % 2 == 1)
    moved = numbers[:, _AFFINE] < policy.shift_scale_rotate
    shifted = numbers[:, _RGB] < policy.rgb_shift
    lit = numbers[:, _LIGHT] < policy.brightness_contrast
    hole_places = np.maximum(np.array([height, width]) - policy.cutout, 0) + 1
    return AugmentationDraws(
        flipped=flipped,
        translations=np.trunc(SHIFT * around_zero[:, _TRANSLATION] * (width, height) * moved[:, None]).astype(np.float32),
        scales=(1 + SCALE * around_zero[:, _SCALE] * moved).astype(np.float32),
        rotations=(ROTATION * around_zero[:, _ROTATION] * moved).astype(np.float32),
        corners=(numbers[:, _CROP] * (2 * policy.crop_padding + 1)).astype(np.int64),
        rgb_shifts=(RGB_SHIFT * around_zero[:, _RGB_SHIFTS] * shifted[:, None]).astype(np.int16),
        contrasts=(1 + CONTRAST * around_zero[:, _CONTRAST] * lit).astype(np.float32),
        brightnesses=(255 * BRIGHTNESS * around_zero[:, _BRIGHTNESS] * lit).astype(np.float32),
        holes=(numbers[:, _CUTOUT] * hole_places).astype(np.int64),
        boxes=_boxes(policy.random_resized_crop, height, width, numbers) if resized else None,
    )


def _boxes(smallest: float, height: int, width: int, numbers: np.ndarray) -> np.ndarray:
    """The crops that are enlarged, int64 (N, 4): their areas and the logarithms of their ratios are uniform."""
    areas = smallest + (1 - smallest) * numbers[:, _AREA]
    ratios = ASPECT ** (2 * numbers[:, _RATIO] - 1)
    heights = np.clip(np.rint(height * np.sqrt(areas / ratios)), 1, height)
    widths = np.clip(np.rint(width * np.sqrt(areas * ratios)), 1, width)
    room = np.stack([height - heights, width - widths], axis=1) + 1
    corners = np.floor(numbers[:, _CORNER] * room)
    return np.concatenate([corners, heights[:, None], widths[:, None]], axis=1).astype(np.int64)


def random_numbers(seed: int, passes: np.ndarray, indices: np.ndarray, count: int) -> np.ndarray:
    """`count` uniform random numbers in [0, 1) for each image in a pass, float64 (N, count); passes and indices int64 (N,).

    The first numbers of the generator splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"),
    started for each image from a mixture of (seed, pass, index): a few operations on whole arrays, where one of NumPy's
    generators for each image would take longer than its augmentation.
    """
    start = _mixed(np.array([seed], dtype=np.uint64))
    start = _mixed(start + passes.astype(np.uint64))
    start = _mixed(start + indices.astype(np.uint64))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (_mixed(start[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def _mixed(bits: np.ndarray) -> np.ndarray:
    """splitmix64's mixing of 64 bits, one to one; uint64 arrays wrap around."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
