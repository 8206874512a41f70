"""The engine by the sample: repeatable, apart from all else; test_device_augmentation compares what it makes of pixels."""

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
IMAGE = np.random.default_rng(0).integers(0, 256, (20, 12, 3), dtype=np.uint8)


def augmented(pass_number: int, index: int, seed: int = 0, policy: AugmentationPolicy = EVERYTHING) -> np.ndarray:
    return Augmenter(policy, 20, 12, FILL, seed)(IMAGE, pass_number, index)


def test_a_policy_that_is_off_changes_nothing() -> None:
    result = augmented(0, 0, policy=AugmentationPolicy(horizontal_flip=0.0))
    np.testing.assert_array_equal(result, IMAGE)
    assert not np.shares_memory(result, IMAGE)


def test_a_result_follows_from_seed_pass_and_index_whatever_was_drawn_before() -> None:
    before, states = IMAGE.copy(), (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    keys = [(pass_number, index) for pass_number in range(4) for index in range(4)]
    augmenter = Augmenter(EVERYTHING, 20, 12, FILL, seed=3)
    results = {key: augmenter(IMAGE, *key) for key in reversed(keys)}
    for key, result in results.items():
        assert (result.dtype, result.shape) == (np.uint8, (20, 12, 3))
        np.testing.assert_array_equal(result, augmented(*key, seed=3))
        assert not np.array_equal(result, augmented(*key, seed=4))
    assert len({result.tobytes() for result in results.values()}) == len(keys)
    np.testing.assert_array_equal(IMAGE, before)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_an_argument_that_albumentations_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
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
