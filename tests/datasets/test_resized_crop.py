"""A random part of each image, enlarged: where it lies, and the same pixels from both engines."""

import numpy as np
import pytest
import torch

from era_support_packages.datasets.augmentation_policy import AugmentationPolicy, draw
from era_support_packages.datasets.device_augmentation import augment, resized_crop
from era_support_packages.datasets.sample_augmentation import Augmenter

POLICY = AugmentationPolicy(horizontal_flip=0.5, crop_padding=3, random_resized_crop=0.25)
PASSES, INDICES = np.repeat(np.arange(4), 50), np.tile(np.arange(50), 4)


def test_boxes_lie_in_the_image_and_keep_the_share_asked_for():
    boxes = draw(POLICY, 40, 60, 0, PASSES, INDICES).boxes
    top, left, rows, columns = boxes.T
    assert (boxes.dtype, boxes.shape) == (np.int64, (200, 4))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert ((top + rows <= 40) & (left + columns <= 60)).all()
    areas = rows * columns / (40 * 60)
    assert 0.22 < areas.min() < 0.3
    assert 0.9 < areas.max() <= 1
    ratios = (columns / 60) / (rows / 40)
    assert 0.7 < ratios.min() < 0.85
    assert 1.18 < ratios.max() < 1.4


def test_nothing_else_is_drawn_otherwise_because_of_it():
    with_crop = draw(POLICY, 40, 60, 0, PASSES, INDICES)
    without = draw(AugmentationPolicy(horizontal_flip=0.5, crop_padding=3), 40, 60, 0, PASSES, INDICES)
    assert without.boxes is None
    assert np.array_equal(with_crop.flipped, without.flipped)
    assert np.array_equal(with_crop.corners, without.corners)
    assert without.map(lambda values: values[0]).boxes is None


@pytest.mark.parametrize("shape", [(32, 32), (40, 56)])
def test_both_engines_give_the_same_pixels_but_for_rounding(shape):
    images = np.random.default_rng(0).integers(0, 256, (12, *shape, 3), dtype=np.uint8)
    draws = draw(POLICY, *shape, 3, np.zeros(12, np.int64), np.arange(12))
    augmenter = Augmenter(POLICY, *shape, (0, 0, 0), 3)
    one_by_one = np.stack([augmenter(image, 0, index) for index, image in enumerate(images)])
    tensors = draws.map(torch.from_numpy)
    together = augment(torch.from_numpy(images), tensors, POLICY, torch.zeros(3, dtype=torch.uint8)).numpy()
    differences = np.abs(one_by_one.astype(int) - together.astype(int))
    assert differences.max() <= 2
    assert (differences > 1).mean() < 0.001


def test_the_whole_image_stays_and_a_corner_is_enlarged():
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1).repeat(1, 1, 1, 3) * 10
    assert torch.equal(resized_crop(image, torch.tensor([[0, 0, 4, 4]])), image)
    corner = resized_crop(image, torch.tensor([[2, 2, 1, 1]]))
    assert corner.unique().tolist() == [100]  # row 2, column 2, and nothing beside it
