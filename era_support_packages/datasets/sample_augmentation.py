"""The per-sample engine of the augmentation policy: one image at a time through albumentations.

It runs in DataLoader workers, and it is the yardstick of the engine that works by the batch (`device_augmentation`): the same
draws give the same pixels.
"""

import os
import warnings

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # importing it would otherwise ask the network for a newer release
import albumentations as A
import cv2
from albumentations.augmentations.geometric.functional import center, create_affine_transformation_matrix

from era_support_packages.datasets.augmentation_policy import AugmentationDraws, AugmentationPolicy, draw

__all__ = ["AugmentationPolicy", "Augmenter"]


class Augmenter:
    """Augments single images with the policy, each draw fixed by (seed, pass, image index).

    `fill` is the colour of cut-out squares and of corners that a rotation opens: the mean of the training split, which
    normalisation makes 0. albumentations changes the pixels, but draws nothing: all transforms of a pipeline of its own would
    take the same seed, so that flip, shift and colour of an image would all follow from the same first draw. An argument that
    this release of it does not know is an error here, not a warning.
    """

    def __init__(self, policy: AugmentationPolicy, height: int, width: int, fill: tuple[int, int, int], seed: int) -> None:
        self.policy, self.height, self.width, self.seed = policy, height, width, seed
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.flip = A.HorizontalFlip()
            self.affine = A.Affine(interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, fill=fill)
            self.pad = A.Pad(padding=policy.crop_padding, border_mode=cv2.BORDER_REFLECT_101)
            self.resized_crop = A.RandomResizedCrop(size=(height, width), interpolation=cv2.INTER_LINEAR)
            self.crop = A.RandomCrop(height=height, width=width)
            self.rgb_shift = A.RGBShift()
            self.brightness_contrast = A.RandomBrightnessContrast()
            self.cutout = A.CoarseDropout(fill=fill)

    def __call__(self, image: np.ndarray, pass_number: int, index: int) -> np.ndarray:
        """The augmented image, uint8 (H, W, 3), for a uint8 image (H, W, 3)."""
        draws = draw(self.policy, self.height, self.width, self.seed, np.array([pass_number]), np.array([index]))
        return self.apply(image, draws.map(lambda values: values[0]))

    def apply(self, image: np.ndarray, draws: AugmentationDraws) -> np.ndarray:
        """The image after the operations of the policy, with the draws of one image."""
        policy, height, width = self.policy, self.height, self.width
        image = image.copy()
        if draws.flipped:
            image = self.flip.apply(image)
        if policy.random_resized_crop:
            top, left, rows, columns = draws.boxes.tolist()
            image = self.resized_crop.apply(image, crop_coords=(left, top, left + columns, top + rows))
        if policy.shift_scale_rotate:
            image = self.affine.apply(image, matrix=self._affine_matrix(draws), output_shape=(height, width))
        if policy.cutout and policy.cutout_first:
            image = self._cut_out(image, draws)
        if policy.crop_padding:
            padding, (top, left) = policy.crop_padding, draws.corners.tolist()
            image = self.pad.apply(image, pad_top=padding, pad_bottom=padding, pad_left=padding, pad_right=padding)
            image = self.crop.apply(image, crop_coords=(left, top, left + width, top + height))
        if policy.rgb_shift:
            image = self.rgb_shift.apply(image, noise_map=draws.rgb_shifts)
        if policy.brightness_contrast:
            image = self.brightness_contrast.apply(image, alpha=float(draws.contrasts), beta=float(draws.brightnesses))
        if policy.cutout and not policy.cutout_first:
            image = self._cut_out(image, draws)
        return image

    def _cut_out(self, image: np.ndarray, draws: AugmentationDraws) -> np.ndarray:
        """The image with one square in the colour `fill`, which ends where the image ends."""
        (top, left), side = draws.holes.tolist(), self.policy.cutout
        hole = (left, top, min(left + side, self.width), min(top + side, self.height))
        return self.cutout.apply(image, holes=np.array([hole]), seed=0)

    def _affine_matrix(self, draws: AugmentationDraws) -> np.ndarray:
        """Where each pixel goes: float64 (3, 3), on (column, row, 1)."""
        right, down = draws.translations.tolist()
        scale = float(draws.scales)
        return create_affine_transformation_matrix(
            translate={"x": right, "y": down},
            shear={"x": 0.0, "y": 0.0},
            scale={"x": scale, "y": scale},
            rotate=float(draws.rotations),
            shift=center((self.height, self.width)),
        )
