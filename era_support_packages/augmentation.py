"""One augmentation policy and its per-sample engine on albumentations.

Every random draw is a function of (seed, pass over the data, image index) and of nothing else: neither the number of worker
processes nor a restart changes what an image looks like in a given pass.
"""

import os
import random
import warnings
from dataclasses import dataclass

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would otherwise ask the network for a newer release
import albumentations as A
import cv2

SHIFT = SCALE = 0.05  # of the image's side
ROTATION = 15  # degrees
RGB_SHIFT = 20  # of 255
BRIGHTNESS = CONTRAST = 0.2


@dataclass(frozen=True)
class AugmentationPolicy:
    """What may happen to a training image; probabilities in [0, 1], sizes in px at the image's own resolution."""

    horizontal_flip: float = 0.5
    crop_padding: int = 0
    cutout: int = 0
    shift_scale_rotate: float = 0.0
    rgb_shift: float = 0.0
    brightness_contrast: float = 0.0

    def transform(self, height: int, width: int, fill: tuple[int, int, int]) -> A.Compose:
        """The policy as an albumentations pipeline for uint8 RGB images (height, width, 3).

        `fill` is the colour of cut-out squares and of corners that a rotation opens: the mean of the training split, which
        normalisation makes 0. An argument that this release of albumentations does not know is an error here, not a warning.
        """
        steps: list[A.BasicTransform] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if self.horizontal_flip:
                steps.append(A.HorizontalFlip(p=self.horizontal_flip))
            if self.shift_scale_rotate:
                steps.append(
                    A.Affine(
                        translate_percent=(-SHIFT, SHIFT),
                        scale=(1 - SCALE, 1 + SCALE),
                        keep_ratio=True,
                        rotate=(-ROTATION, ROTATION),
                        interpolation=cv2.INTER_LINEAR,
                        border_mode=cv2.BORDER_CONSTANT,
                        fill=fill,
                        p=self.shift_scale_rotate,
                    )
                )
            if self.crop_padding:
                steps.append(A.Pad(padding=self.crop_padding, border_mode=cv2.BORDER_REFLECT_101, p=1.0))
                steps.append(A.RandomCrop(height=height, width=width, p=1.0))
            if self.rgb_shift:
                limit = (-RGB_SHIFT, RGB_SHIFT)
                steps.append(A.RGBShift(r_shift_limit=limit, g_shift_limit=limit, b_shift_limit=limit, p=self.rgb_shift))
            if self.brightness_contrast:
                steps.append(
                    A.RandomBrightnessContrast(
                        brightness_limit=(-BRIGHTNESS, BRIGHTNESS),
                        contrast_limit=(-CONTRAST, CONTRAST),
                        p=self.brightness_contrast,
                    )
                )
            if self.cutout:
                side = (self.cutout, self.cutout)
                steps.append(
                    A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=side, hole_width_range=side, fill=fill, p=1.0)
                )
            return A.Compose(steps)


class Augmenter:
    """Augments single images with the policy, each draw fixed by (seed, pass, image index).

    All transforms of a pipeline share one generator. albumentations' own `set_random_seed` would give every transform the
    same seed, so that flip, shift and colour of an image would all follow from the same first draw.
    """

    def __init__(self, policy: AugmentationPolicy, height: int, width: int, fill: tuple[int, int, int], seed: int) -> None:
        self.transform = policy.transform(height, width, fill)
        self.seed = seed

    def __call__(self, image: np.ndarray, pass_number: int, index: int) -> np.ndarray:
        """The augmented image, uint8 (H, W, 3), for a uint8 image (H, W, 3)."""
        key = (self.seed << 64) | (pass_number << 32) | index
        generator = np.random.Generator(np.random.Philox(key=key))
        self.transform.set_random_state(generator, random.Random(key))
        return self.transform(image=image)["image"]
