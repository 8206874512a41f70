"""The validation split: counted by hand, the same for a seed, nothing on both sides, and unknown to the statistics."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import colored_images

from era_support_packages.datasets import fingerprint_of, hold_out, load, summary
from era_support_packages.datasets.image_dataset import ImageDataset


def numbered(counts: list[int]) -> ImageDataset:
    """Images of one gray each, whose value is their number; the classes lie one after another."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 2, 2, 3)).copy()
    names = tuple("abcdef"[: len(counts)])
    return ImageDataset(images, labels, names, "n", "n", "train", (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


TEST = replace(numbered([2, 2, 2]), split="test")


@pytest.mark.parametrize(
    ("counts", "share", "held"),
    [
        ([10, 7, 3], 0.25, [2, 2, 1]),  # 2.5, 1.75 and 0.75 of 5 in all: at least one each, then the largest remainder
        ([8, 8, 8], 0.125, [1, 1, 1]),
        ([2, 2, 2], 0.5, [1, 1, 1]),
        ([9, 3, 2], 0.5, [5, 1, 1]),  # of equal remainders the first
        ([40, 2, 2], 0.001, [1, 1, 1]),
    ],
)
def test_each_class_is_held_out_in_proportion(counts: list[int], share: float, held: list[int]) -> None:
    train, validation, test = hold_out(numbered(counts), TEST, share, seed=3)
    assert np.bincount(validation.labels).tolist() == held
    assert np.bincount(train.labels).tolist() == [all_ - out for all_, out in zip(counts, held, strict=True)]
    numbers = [*train.images[:, 0, 0, 0], *validation.images[:, 0, 0, 0]]
    assert sorted(numbers) == list(range(sum(counts)))  # each on one side
    assert (train.held_out, validation.held_out, test.held_out) == (sum(held), 0, 0)
    assert (train.split, validation.split, test.split) == ("train", "validation", "test")


def test_the_statistics_are_those_of_the_rest() -> None:
    train, validation, test = hold_out(numbered([10, 7, 3]), TEST, 0.25)
    pixels = train.images / 255
    for split in (train, validation, test):
        np.testing.assert_allclose(split.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(split.std, pixels.std(axis=(0, 1, 2)), rtol=1e-12)
    assert test.images is TEST.images


def test_a_seed_draws_the_same_images_on_every_machine() -> None:
    def drawn(seed: int) -> list[int]:
        return hold_out(numbered([10, 7, 3]), TEST, 0.25, seed)[1].images[:, 0, 0, 0].tolist()

    order = np.random.RandomState(5).permutation(20)  # the stream that numpy never changes
    by_hand = sorted([*order[order < 10][:2], *order[(order >= 10) & (order < 17)][:2], *order[order >= 17][:1]])
    assert drawn(5) == drawn(5) == by_hand
    assert drawn(5) != drawn(6)


def test_the_rest_is_still_known_by_all_that_was_read() -> None:
    whole, test = load("digits")
    train, validation, same = hold_out(whole, test, 0.1)
    assert fingerprint_of(train) == fingerprint_of(whole)
    assert fingerprint_of(same) == fingerprint_of(test)
    assert fingerprint_of(validation) not in (fingerprint_of(whole), fingerprint_of(test))
    assert summary(train, same).startswith("1,293 training, 144 validation and 360 test images, 10 classes: ")
    assert summary(whole, test).startswith("1,437 training and 360 test images, 10 classes: ")


@pytest.mark.parametrize("share", [0, 0.0, -0.1, 0.6, 1, float("nan"), True, "0.1", None])
def test_a_share_is_above_0_and_up_to_a_half(share: object) -> None:
    with pytest.raises(ValueError, match=r"share of the validation split is .*; give a number above 0 and up to 0\.5\."):
        hold_out(colored_images(12), TEST, share)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, True])
def test_a_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(ValueError, match=r"seed is .*; give a whole number"):
        hold_out(colored_images(12), TEST, 0.1, seed)


def test_a_class_of_one_image_cannot_be_on_both_sides() -> None:
    with pytest.raises(ValueError, match=r"validation is 0\.1, but 'b' has one training image.*set validation=0\."):
        hold_out(numbered([5, 1, 2]), TEST, 0.1)
    with pytest.raises(ValueError, match=r"'b', 'c' have one training image each"):
        hold_out(numbered([5, 1, 1]), TEST, 0.1)
