"""Batches: the order of a run, the same from both engines, for any number of workers and after a restart."""

import dataclasses
import random

import numpy as np
import pytest
import torch

from era_support_packages.datasets import batches as batches_module
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches, augmented_variants, batch_count, shuffled_order
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import image_batches, normalize
from era_support_packages.datasets.sample_augmentation import Augmenter

CPU = torch.device("cpu")
MEAN, STD, MEAN_COLOR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), (125, 123, 114)
EVERYTHING = AugmentationPolicy(
    horizontal_flip=0.5, crop_padding=2, cutout=4, shift_scale_rotate=0.5, rgb_shift=0.5, brightness_contrast=0.5
)


@pytest.fixture(params=["device", "samples"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def noisy(count: int, height: int = 8, width: int = 8) -> ImageDataset:
    """Noise; each image is a class of its own."""
    images = np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    classes = tuple(f"class {number}" for number in range(count))
    return ImageDataset(images, np.arange(count), classes, "hand-made", "hand-made", "train", MEAN, STD)


def epoch(size: int, start: int, count: int, images: int = 20, **options: object) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of so many images of a run from number `start` on, at 6 px."""
    return list(TrainingBatches(noisy(images), EVERYTHING, size, CPU, **options).epoch(6, start, count))


def assert_same_batches(some: list, others: list, count: int) -> None:
    assert len(some) == count
    for (pixels, labels), (other_pixels, other_labels) in zip(some, others, strict=True):
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(labels, other_labels)


def test_the_order_is_a_permutation_that_depends_on_seed_and_pass() -> None:
    orders = {(seed, number): shuffled_order(1000, seed, number) for seed in (0, 1) for number in (0, 1)}
    for key, order in orders.items():
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
        np.testing.assert_array_equal(order, shuffled_order(1000, *key))
        assert (order == np.arange(1000)).mean() < 0.05
    assert len({order.tobytes() for order in orders.values()}) == 4


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [(17, 5, [5, 5, 5]), (15, 5, [5, 5, 5]), (5, 5, [5]), (4, 5, [4]), (1, 5, [1]), (20, 20, [20]), (50, 50, [50])],
)
def test_a_last_batch_that_is_not_full_is_left_out(images: int, batch_size: int, sizes: list[int], engine: str) -> None:
    assert batch_count(images, batch_size) == len(sizes)
    assert [len(labels) for _, labels in epoch(batch_size, 0, images, engine=engine)] == sizes
    assert batch_count(50_000, 512) == 97


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize(
    ("size", "start", "count"), [(4, 0, 40), (4, 7, 8), (1, 13, 3), (12, 8, 24)], ids=["run", "passes", "single", "large"]
)
def test_a_run_goes_through_pass_after_pass_and_augments_with_pass_and_index(
    size: int, start: int, count: int, alternating: bool, engine: str
) -> None:
    dataset, policy = noisy(10, 9, 5), dataclasses.replace(EVERYTHING, alternating_flip=alternating)
    if engine == "device":  # which interpolates a little otherwise than albumentations
        policy = dataclasses.replace(policy, shift_scale_rotate=0.0)
    run = [(number, int(index)) for number in range(4) for index in shuffled_order(10, 9, number)][start : start + count]
    batches = list(TrainingBatches(dataset, policy, size, CPU, seed=9, engine=engine).epoch(6, start, count))
    assert [len(labels) for _, labels in batches] == [size] * (count // size)
    pixels, labels = torch.cat([pixels for pixels, _ in batches]), torch.cat([labels for _, labels in batches])
    assert (pixels.dtype, labels.dtype, labels.tolist()) == (torch.float32, torch.int64, [index for _, index in run])
    augmenter = Augmenter(policy, 9, 5, MEAN_COLOR, seed=9)
    expected = np.stack([augmenter(dataset.images[index], number, index) for number, index in run])
    assert torch.equal(pixels, normalize(torch.from_numpy(expected), MEAN, STD, 6))
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_a_restart_in_the_middle_goes_on_with_the_same_images(engine: str) -> None:
    whole, restarted = (epoch(4, start, 24 - start, images=10, seed=1, engine=engine) for start in (0, 12))
    assert_same_batches(whole[3:], restarted, count=3)


def test_the_number_of_workers_changes_no_bit() -> None:
    here, in_workers = (epoch(8, 5, 48, seed=3, workers=workers, engine="samples") for workers in (0, 2))
    assert_same_batches(here, in_workers, count=6)


@pytest.mark.parametrize("images", [1, 4, 9])
def test_draws_that_go_to_the_device_in_several_parts_are_the_same(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = epoch(4, 3, 26)
    monkeypatch.setattr(batches_module, "_DRAWN_AT_ONCE", images)
    assert_same_batches(epoch(4, 3, 26), at_once, count=6)


def test_augmented_variants_are_what_training_shows() -> None:
    dataset = noisy(6)
    augmented = augmented_variants(dataset, np.array([4, 1]), EVERYTHING, count=3, seed=5)
    assert np.array_equal(augmented.originals, dataset.images[[4, 1]])
    assert augmented.names == ("class 4", "class 1")
    assert (augmented.variants.dtype, augmented.variants.shape) == (np.uint8, (2, 3, 8, 8, 3))
    augmenter = Augmenter(EVERYTHING, 8, 8, MEAN_COLOR, seed=5)
    expected = [[augmenter(dataset.images[index], pass_number, index) for pass_number in range(3)] for index in (4, 1)]
    np.testing.assert_array_equal(augmented.variants, expected)


def test_auto_is_the_device_which_shares_the_images_on_a_cpu_and_leaves_them_alone() -> None:
    dataset = noisy(10)
    before = dataset.images.copy()
    batches = TrainingBatches(dataset, EVERYTHING, 4, CPU)
    assert (batches.engine, batches.images.dtype) == ("device", torch.uint8)
    assert batches.images.data_ptr() == dataset.images.ctypes.data  # no second copy in memory
    list(batches.epoch(8, 0, 20))
    np.testing.assert_array_equal(dataset.images, before)


def test_an_unknown_engine_gets_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"^engine is 'devise': did you mean 'device'\?$"):
        epoch(2, 0, 2, engine="devise")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_epoch_on_a_gpu_waits_for_nothing() -> None:
    batches = TrainingBatches(noisy(64), EVERYTHING, 8, torch.device("cuda")).epoch(6, 0, 64)
    next(batches)  # the draws have been copied
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(batches)) == 7
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("engine", "workers"), [("device", 0), ("samples", 0), ("samples", 1)])
def test_the_global_random_states_stay_as_they_are(engine: str, workers: int) -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    assert len(epoch(4, 0, 16, engine=engine, workers=workers)) == 4
    list(image_batches(noisy(8), 4, CPU))
    assert states() == before
