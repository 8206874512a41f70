"""The value that every data set is, its statistics, and its split."""

import re

import numpy as np
import pytest

from era_support_packages.datasets.image_dataset import ImageDataset, channel_statistics, stratified_split


def four_images(**changes: object) -> ImageDataset:
    """Image k is of constant value k; the classes are 0, 1, 0, 1."""
    values = {
        "images": np.repeat(np.arange(4, dtype=np.uint8), 2 * 2 * 3).reshape(4, 2, 2, 3),
        "labels": np.array([0, 1, 0, 1]),
        "classes": ("cat", "dog"),
        "name": "pets",
        "title": "Pets",
        "split": "test",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
    }
    return ImageDataset(**(values | changes))


@pytest.mark.parametrize(
    ("indices", "kept"),
    [
        ([3, 0], [3, 0]),
        ((3, 0), [3, 0]),
        (np.array([3, 0]), [3, 0]),
        (np.array([3, 0], dtype=np.int32), [3, 0]),
        (np.array([False, True, False, True]), [1, 3]),
        ([], []),
    ],
    ids=["list", "tuple", "i64", "i32", "mask", "nothing"],
)
def test_take_keeps_the_order_and_the_statistics(indices: object, kept: list[int]) -> None:
    taken = four_images().take(indices)
    assert (len(taken), taken.images.shape) == (len(kept), (len(kept), 2, 2, 3))
    assert taken.images[:, 0, 0, 0].tolist() == kept
    assert taken.labels.tolist() == [image % 2 for image in kept]
    assert (taken.mean, taken.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (taken.split, taken.classes) == ("test", ("cat", "dog"))


def test_take_refuses_an_index_beyond_the_end() -> None:
    with pytest.raises(IndexError, match="index 4 is out of bounds for axis 0 with size 4"):
        four_images().take([4])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("images", np.zeros((4, 2, 2, 3)), "images are float64 (4, 2, 2, 3); they must be uint8 (N, H, W, 3)."),
        ("images", np.zeros((4, 3, 2, 2), np.uint8), "images are uint8 (4, 3, 2, 2); they must be uint8 (N, H, W, 3)."),
        ("labels", np.array([0, 1]), "labels are int64 (2,); they must be int64 (4,), one an image."),
        ("labels", np.zeros(4, np.int32), "labels are int32 (4,); they must be int64 (4,), one an image."),
        ("labels", np.array([0, 1, 2, 1]), "labels reach from 0 to 2; with 2 classes they must lie in 0 ... 1."),
        ("labels", np.array([0, -1, 0, 1]), "labels reach from -1 to 1; with 2 classes they must lie in 0 ... 1."),
        ("classes", ("cat", "cat"), "classes are ('cat', 'cat'); give each class a name of its own."),
        ("classes", "cd", "classes are 'cd'; give the names as a list, in the order of the logits."),
    ],
)
def test_what_does_not_fit_is_refused(field: str, value: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        four_images(**{field: value})


def test_channel_statistics_equal_those_of_a_float_copy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (65, 256, 256, 3), dtype=np.uint8)  # more pixels than a block
    images[..., 1] //= 4
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-10)
    assert all(type(value) is float for value in (*mean, *std))


@pytest.mark.parametrize("count", [1, 3, 7, 10])
def test_a_constant_channel_has_standard_deviation_one_in_spite_of_rounding(count: int) -> None:
    for value in range(256):  # else normalizing would divide by zero
        assert channel_statistics(np.full((count, 1, 1, 3), value, np.uint8))[1] == (1.0, 1.0, 1.0)


def test_there_are_no_statistics_of_nothing() -> None:
    with pytest.raises(ValueError, match=r"images are empty, of shape \(0, 2, 2, 3\): statistics need at least one"):
        channel_statistics(np.zeros((0, 2, 2, 3), np.uint8))


@pytest.mark.parametrize(
    ("counts", "test_counts"),
    [
        ([10, 20, 30], [2, 4, 6]),  # exact fifths
        ([4, 3, 6], [1, 1, 1]),  # quotas 0.8, 0.6, 1.2, in all ceil(2.6) = 3
        ([9, 8, 7], [2, 2, 1]),  # quotas 1.8, 1.6, 1.4, in all ceil(4.8) = 5
        ([2, 2, 2], [1, 1, 1]),  # at least one a class, though a fifth of the whole is two
    ],
)
def test_stratified_split_shares_out_in_proportion(counts: list[int], test_counts: list[int]) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(3), counts))
    train, test = (part.tolist() for part in stratified_split(labels))
    assert np.bincount(labels[test], minlength=3).tolist() == test_counts
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert (train, test) == (sorted(train), sorted(test))


def test_stratified_split_is_the_same_on_every_machine() -> None:
    assert stratified_split(np.arange(20) % 2)[1].tolist() == [1, 8, 18, 19]
