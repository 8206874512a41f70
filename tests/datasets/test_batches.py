"""Batches: the order of a run, the same from both engines, for any number of workers and after a restart."""

import dataclasses
import random
import signal

import cv2
import numpy as np
import pytest
import torch

from era_support_packages.datasets import batches as batches_module
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches, augmented_variants, batch_count, shuffled_order
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import image_batches, normalize, unnormalize
from era_support_packages.datasets.sample_augmentation import Augmenter

CPU = torch.device("cpu")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MEAN_COLOR = (125, 123, 114)
NOTHING = AugmentationPolicy(horizontal_flip=0.0)
EVERYTHING = AugmentationPolicy(
    horizontal_flip=0.5, crop_padding=2, cutout=4, shift_scale_rotate=0.5, rgb_shift=0.5, brightness_contrast=0.5
)
WITHOUT_INTERPOLATION = dataclasses.replace(EVERYTHING, shift_scale_rotate=0.0)  # of which both engines make the same bits


@pytest.fixture(params=["device", "samples"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def dataset_of(images: np.ndarray) -> ImageDataset:
    """Each image is a class of its own."""
    classes = tuple(f"class {number}" for number in range(len(images)))
    return ImageDataset(images, np.arange(len(images)), classes, "hand-made", "hand-made", "train", MEAN, STD)


def plain(count: int, size: int = 8) -> ImageDataset:
    """Image k is all of value 5 k."""
    return dataset_of(np.full((count, size, size, 3), 5 * np.arange(count)[:, None, None, None], dtype=np.uint8))


def noisy(count: int, height: int = 8, width: int = 8) -> ImageDataset:
    return dataset_of(np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def batches_of(dataset: ImageDataset, policy: AugmentationPolicy, size: int, **options: object) -> TrainingBatches:
    return TrainingBatches(dataset, policy, size, CPU, **options)


def run_order(size: int, seed: int, passes: int) -> list[int]:
    """The images of a run, pass after pass."""
    return np.concatenate([shuffled_order(size, seed, number) for number in range(passes)]).tolist()


def labels_of(batches: TrainingBatches, start: int, images: int) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches.epoch(8, start, images)]


def pixels_of(batches: TrainingBatches, resolution: int, start: int, images: int) -> torch.Tensor:
    return torch.cat([pixels for pixels, _ in batches.epoch(resolution, start, images)])


def assert_same_batches(some: list, others: list, count: int) -> None:
    assert len(some) == count
    for (pixels, labels), (other_pixels, other_labels) in zip(some, others, strict=True):
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(labels, other_labels)


# ---- order


def test_the_order_is_a_permutation_that_depends_on_seed_and_pass() -> None:
    orders = {(seed, number): shuffled_order(1000, seed, number) for seed in (0, 1) for number in (0, 1)}
    for key, order in orders.items():
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
        np.testing.assert_array_equal(order, shuffled_order(1000, *key))
        assert (order == np.arange(1000)).mean() < 0.05
    assert len({order.tobytes() for order in orders.values()}) == 4


@pytest.mark.parametrize(
    ("images", "batch_size", "batches"), [(17, 5, 3), (15, 5, 3), (5, 5, 1), (4, 5, 1), (1, 5, 1), (50_000, 512, 97)]
)
def test_batch_count(images: int, batch_size: int, batches: int) -> None:
    assert batch_count(images, batch_size) == batches


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"), [(17, 5, [5, 5, 5]), (15, 5, [5, 5, 5]), (4, 5, [4]), (1, 5, [1]), (20, 20, [20])]
)
def test_a_last_batch_that_is_not_full_is_left_out(images: int, batch_size: int, sizes: list[int], engine: str) -> None:
    labels = labels_of(batches_of(plain(20), NOTHING, batch_size, engine=engine), 0, images)
    assert [len(batch) for batch in labels] == sizes
    assert [label for batch in labels for label in batch] == shuffled_order(20, 0, 0).tolist()[: sum(sizes)]


def test_a_run_goes_through_pass_after_pass(engine: str) -> None:
    batches = batches_of(plain(10), NOTHING, 4, seed=2, engine=engine)
    run = run_order(10, seed=2, passes=4)
    assert labels_of(batches, 0, 40) == [run[k : k + 4] for k in range(0, 40, 4)]
    assert labels_of(batches, 7, 8) == [run[7:11], run[11:15]]  # crosses from pass 0 to pass 1
    assert labels_of(batches, 30, 4) == [run[30:34]]
    larger_than_the_data = batches_of(plain(3), NOTHING, 8, engine=engine)
    assert labels_of(larger_than_the_data, 0, 8) == [run_order(3, seed=0, passes=3)[:8]]


def test_a_restart_in_the_middle_goes_on_with_the_same_images(engine: str) -> None:
    whole, restarted = (
        list(batches_of(noisy(10), EVERYTHING, 4, seed=1, engine=engine).epoch(8, start, 24 - start)) for start in (0, 12)
    )
    assert_same_batches(whole[3:], restarted, count=3)


# ---- pixels


def test_the_batch_size_changes_no_image(engine: str) -> None:
    one, two = (pixels_of(batches_of(noisy(10), EVERYTHING, size, engine=engine), 6, 3, 24) for size in (1, 8))
    assert torch.equal(one, two)


def test_each_label_belongs_to_its_image(engine: str) -> None:
    policy = AugmentationPolicy(horizontal_flip=0.5, crop_padding=1)
    for pixels, labels in batches_of(plain(50), policy, 8, engine=engine).epoch(4, 30, 64):
        assert (pixels.dtype, tuple(pixels.shape), labels.dtype) == (torch.float32, (8, 3, 4, 4), torch.int64)
        values = unnormalize(pixels, MEAN, STD)  # constant images stay as they are when flipped, cropped and resized
        np.testing.assert_array_equal(values, np.broadcast_to(5 * labels.numpy()[:, None, None, None], values.shape))


def test_pixels_are_augmented_with_pass_and_index_then_normalized(engine: str) -> None:
    dataset, policy = noisy(6), WITHOUT_INTERPOLATION if engine == "device" else EVERYTHING
    augmenter = Augmenter(policy, 8, 8, MEAN_COLOR, seed=9)
    keys = [(number, int(index)) for number in range(2) for index in shuffled_order(6, 9, number)]
    pixels = pixels_of(batches_of(dataset, policy, 12, seed=9, engine=engine), 6, 0, 12)
    expected = np.stack([augmenter(dataset.images[index], number, index) for number, index in keys])
    assert torch.equal(pixels, normalize(torch.from_numpy(expected), MEAN, STD, 6))
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_augmented_variants_are_what_training_shows() -> None:
    dataset = noisy(6)
    augmented = augmented_variants(dataset, np.array([4, 1]), EVERYTHING, count=3, seed=5)
    assert np.array_equal(augmented.originals, dataset.images[[4, 1]])
    assert augmented.names == ("class 4", "class 1")
    assert (augmented.variants.dtype, augmented.variants.shape) == (np.uint8, (2, 3, 8, 8, 3))
    augmenter = Augmenter(EVERYTHING, 8, 8, MEAN_COLOR, seed=5)
    expected = [[augmenter(dataset.images[index], pass_number, index) for pass_number in range(3)] for index in (4, 1)]
    np.testing.assert_array_equal(augmented.variants, expected)


# ---- engines


@pytest.mark.parametrize("shape", [(8, 8), (9, 5)])
@pytest.mark.parametrize("alternating", [False, True])
def test_both_engines_give_the_same_batches(shape: tuple[int, int], alternating: bool) -> None:
    policy = dataclasses.replace(WITHOUT_INTERPOLATION, alternating_flip=alternating)
    device, samples = (
        list(batches_of(noisy(11, *shape), policy, 4, seed=3, engine=engine).epoch(6, 5, 33)) for engine in ("device", "samples")
    )
    assert_same_batches(device, samples, count=8)


def test_both_engines_move_images_alike() -> None:
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None, None] * np.ones((10, 1, 32, 3), dtype=np.uint8)
    device, samples = (
        pixels_of(batches_of(dataset_of(ramp), EVERYTHING, 5, engine=engine), 32, 0, 20) for engine in ("device", "samples")
    )
    assert (device - samples).abs().mean() < 1 / 255 / max(STD)  # a gray level


def test_auto_is_the_device_which_shares_the_images_on_a_cpu_and_leaves_them_alone() -> None:
    dataset = noisy(10)
    before = dataset.images.copy()
    batches = batches_of(dataset, EVERYTHING, 4)
    assert (batches.engine, batches.images.dtype) == ("device", torch.uint8)
    assert batches.images.data_ptr() == dataset.images.ctypes.data  # no second copy in memory
    list(batches.epoch(8, 0, 20))
    np.testing.assert_array_equal(dataset.images, before)


@pytest.mark.parametrize("images", [1, 4, 9])
def test_draws_that_go_to_the_device_in_several_parts_are_the_same(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = batches_of(noisy(10), EVERYTHING, 4)
    at_once = list(batches.epoch(8, 3, 26))
    monkeypatch.setattr(batches_module, "_DRAWN_AT_ONCE", images)
    assert_same_batches(list(batches.epoch(8, 3, 26)), at_once, count=6)


def test_an_unknown_engine_gets_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"^engine is 'devise': did you mean 'device'\?$"):
        batches_of(noisy(2), NOTHING, 2, engine="devise")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_epoch_on_a_gpu_waits_for_nothing() -> None:
    epoch = TrainingBatches(noisy(64), EVERYTHING, 8, torch.device("cuda")).epoch(6, 0, 64)
    next(epoch)  # the draws have been copied
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(epoch)) == 7
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- workers and global state


def test_the_number_of_workers_changes_no_bit() -> None:
    here, in_workers = (
        list(batches_of(noisy(20), EVERYTHING, 8, seed=3, workers=workers, engine="samples").epoch(6, 5, 48))
        for workers in (0, 2)
    )
    assert_same_batches(here, in_workers, count=6)


@pytest.mark.parametrize(("engine", "workers"), [("device", 0), ("samples", 0), ("samples", 1)])
def test_the_global_random_states_stay_as_they_are(engine: str, workers: int) -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    assert len(list(batches_of(noisy(8), EVERYTHING, 4, workers=workers, engine=engine).epoch(8, 0, 16))) == 4
    list(image_batches(noisy(8), 4, CPU))
    assert states() == before


def test_a_worker_has_one_thread_and_ends_on_sigterm_whatever_its_parent_does() -> None:
    threads, handler = cv2.getNumThreads(), signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        cv2.setNumThreads(2)
        batches_module._start_worker(0)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert cv2.getNumThreads() == 1  # what OpenCV calls no threads of its own
    finally:
        signal.signal(signal.SIGTERM, handler)
        cv2.setNumThreads(threads)
