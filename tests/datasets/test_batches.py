"""Normalised batches: exact pixels, the order of a run, the same batches from both engines, for any number of workers and after a
restart."""

import dataclasses
import random
import signal

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import colored_images

from era_support_packages.datasets import batches as batches_module
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches, augmented_variants, batch_count, shuffled_order
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import (
    image_batches,
    mean_color,
    normalize,
    normalize_images,
    random_images,
    unnormalize,
)
from era_support_packages.datasets.sample_augmentation import Augmenter

CPU = torch.device("cpu")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NOTHING = AugmentationPolicy(horizontal_flip=0.0)
EVERYTHING = AugmentationPolicy(
    horizontal_flip=0.5, crop_padding=2, cutout=4, shift_scale_rotate=0.5, rgb_shift=0.5, brightness_contrast=0.5
)
WITHOUT_INTERPOLATION = dataclasses.replace(EVERYTHING, shift_scale_rotate=0.0)  # of which both engines make the same bits


@pytest.fixture(params=["device", "samples"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def dataset_of(images: np.ndarray, labels: np.ndarray | None = None) -> ImageDataset:
    count = len(images)
    labels = np.arange(count) if labels is None else labels
    classes = tuple(f"class {number}" for number in range(max(count, 1)))
    return ImageDataset(images, labels.astype(np.int64), classes, "hand-made", "hand-made", "train", MEAN, STD)


def plain_dataset(count: int, size: int = 8) -> ImageDataset:
    """Image k is all of value 5 k and has label k."""
    return dataset_of(np.full((count, size, size, 3), 5 * np.arange(count)[:, None, None, None], dtype=np.uint8))


def noisy_dataset(count: int, size: int = 8) -> ImageDataset:
    return dataset_of(np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def run_order(size: int, seed: int, passes: int) -> list[int]:
    """The images of a run, pass after pass."""
    return np.concatenate([shuffled_order(size, seed, number) for number in range(passes)]).tolist()


def labels_of(batches: TrainingBatches, start: int, images: int) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches.epoch(8, start, images)]


def assert_same_batches(some: list, others: list) -> None:
    for (pixels, labels), (other_pixels, other_labels) in zip(some, others, strict=True):
        assert torch.equal(pixels, other_pixels)
        assert torch.equal(labels, other_labels)


# ---- pixels ------------------------------------------------------------------------------------------------------------


def test_normalize_by_hand() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 2, 2, 3).contiguous()
    result = normalize(images, (0.5, 0.25, 0.75), (0.25, 0.5, 0.125))
    expected = torch.tensor([[-2.0, -0.5, -6.0], [2.0, 1.5, 2.0], [-1.2, -0.1, -4.4]])[:, :, None, None].expand(3, 3, 2, 2)
    torch.testing.assert_close(result[:2], expected[:2], rtol=0, atol=0)  # powers of two: exact
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert (result.dtype, tuple(result.shape)) == (torch.float32, (3, 3, 2, 2))
    assert images.unique().tolist() == [0, 51, 255]


def test_normalize_is_albumentations_normalize() -> None:
    images = noisy_dataset(5).images
    library = A.Normalize(MEAN, STD)
    expected = np.stack([library(image=image)["image"] for image in images]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalize(torch.from_numpy(images), MEAN, STD).numpy(), expected, rtol=0, atol=1e-6)
    exact = (images.astype(np.float64) / 255 - MEAN) / STD
    np.testing.assert_allclose(
        normalize(torch.from_numpy(images), MEAN, STD).numpy(), exact.transpose(0, 3, 1, 2), rtol=0, atol=1e-6
    )


def test_normalized_images_are_channels_last() -> None:
    images = torch.from_numpy(noisy_dataset(2).images)
    for resolution in (None, 8, 4):
        assert normalize(images, MEAN, STD, resolution).is_contiguous(memory_format=torch.channels_last)


def test_unnormalize_is_the_exact_inverse_for_every_value() -> None:
    images = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    images[0] = np.arange(256).reshape(16, 16, 1)
    images[..., 1] = images[..., 1][:, ::-1]
    images[..., 2] = images[..., 2].T.reshape(1, 16, 16)
    for mean, std in ((MEAN, STD), ((0.5, 0.01, 0.99), (1.0, 0.001, 0.3))):
        result = unnormalize(normalize(torch.from_numpy(images), mean, std), mean, std)
        assert (result.dtype, result.flags["C_CONTIGUOUS"]) == (np.uint8, True)
        np.testing.assert_array_equal(result, images)


def test_unnormalize_rounds_and_clips_and_takes_any_float() -> None:
    pixels = torch.tensor([-9.0, 9.0, 0.0, 0.501]).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    result = unnormalize(pixels.clone().requires_grad_(), (0.5, 0.0, 0.25), (1.0, 1.0, 0.5))
    assert result[0, ..., 0].ravel().tolist() == [0, 255, 128, 255]  # 127.5 to the even 128; 255.255 is too bright
    assert result[0, ..., 1].ravel().tolist() == [0, 255, 0, 128]
    assert result[0, ..., 2].ravel().tolist() == [0, 255, 64, 128]
    half = unnormalize(torch.full((1, 3, 1, 1), 0.5, dtype=torch.bfloat16), (0.0,) * 3, (1.0,) * 3)
    assert half.ravel().tolist() == [128, 128, 128]


@pytest.mark.parametrize("resolution", [5, 8, 16])
def test_another_resolution_is_antialiased_bilinear(resolution: int) -> None:
    images = noisy_dataset(3, size=12).images
    result = normalize(torch.from_numpy(images), MEAN, STD, resolution)
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    resized = F.interpolate(planes, (resolution, resolution), mode="bilinear", antialias=True)
    scale = torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(result, (resized - torch.tensor(MEAN)[:, None, None]) / scale, rtol=0, atol=1e-5)
    for image in range(3):
        for channel in range(3):
            plane = Image.fromarray(images[image, :, :, channel].astype(np.float32) / 255)
            independent = np.asarray(plane.resize((resolution, resolution), Image.Resampling.BILINEAR))
            found = result[image, channel].numpy() * STD[channel] + MEAN[channel]
            np.testing.assert_allclose(found, independent, rtol=0, atol=1e-5)


def test_the_images_own_resolution_is_not_resampled() -> None:
    images = torch.from_numpy(noisy_dataset(2).images)
    torch.testing.assert_close(normalize(images, MEAN, STD, 8), normalize(images, MEAN, STD), rtol=0, atol=0)
    assert normalize(images[:, :6], MEAN, STD).shape == (2, 3, 6, 8)


def test_the_mean_color() -> None:
    assert mean_color(plain_dataset(1)) == (125, 123, 114)  # 125.307, 122.961, 113.8575


def test_image_batches_are_all_images_in_file_order() -> None:
    dataset = noisy_dataset(10)
    batches = list(image_batches(dataset, 4, CPU))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(unnormalize(torch.cat(batches), MEAN, STD), dataset.images)
    small = list(image_batches(dataset, 10, CPU, resolution=4))
    torch.testing.assert_close(small[0], normalize(torch.from_numpy(dataset.images), MEAN, STD, 4), rtol=0, atol=0)


def test_normalize_images_takes_some_in_the_order_asked() -> None:
    dataset = noisy_dataset(10)
    chosen = normalize_images(dataset, np.array([7, 0, 7]))
    np.testing.assert_array_equal(unnormalize(chosen, MEAN, STD), dataset.images[[7, 0, 7]])


def test_normalize_images_at_the_resolution_of_the_test() -> None:
    dataset = noisy_dataset(10)
    everything = torch.cat(list(image_batches(dataset, 3, torch.device("cpu"), 6)))
    assert everything.shape == (10, 3, 6, 6)
    assert torch.equal(normalize_images(dataset, np.array([7, 0]), 6), everything[[7, 0]])


def test_augmented_variants_are_what_training_shows() -> None:
    dataset = noisy_dataset(6)
    augmented = augmented_variants(dataset, np.array([4, 1]), EVERYTHING, count=3, seed=5)
    result = augmented.variants
    assert np.array_equal(augmented.originals, dataset.images[[4, 1]])
    assert augmented.names == tuple(dataset.classes[dataset.labels[index]] for index in (4, 1))
    assert (result.dtype, result.shape) == (np.uint8, (2, 3, 8, 8, 3))
    augmenter = Augmenter(EVERYTHING, 8, 8, (125, 123, 114), seed=5)
    for row, index in enumerate((4, 1)):
        for pass_number in range(3):
            np.testing.assert_array_equal(result[row, pass_number], augmenter(dataset.images[index], pass_number, index))


# ---- order -------------------------------------------------------------------------------------------------------------


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
    batches = TrainingBatches(plain_dataset(20), NOTHING, batch_size, CPU, engine=engine)
    labels = labels_of(batches, 0, images)
    assert [len(batch) for batch in labels] == sizes
    shown = [label for batch in labels for label in batch]
    assert shown == shuffled_order(20, 0, 0).tolist()[: sum(sizes)]


def test_a_run_goes_through_pass_after_pass(engine: str) -> None:
    batches = TrainingBatches(plain_dataset(10), NOTHING, 4, CPU, seed=2, engine=engine)
    run = run_order(10, seed=2, passes=4)
    assert labels_of(batches, 0, 40) == [run[k : k + 4] for k in range(0, 40, 4)]
    assert labels_of(batches, 7, 8) == [run[7:11], run[11:15]]  # crosses from pass 0 to pass 1
    assert labels_of(batches, 30, 4) == [run[30:34]]


def test_a_small_data_set_may_give_a_batch_larger_than_itself(engine: str) -> None:
    batches = TrainingBatches(plain_dataset(3), NOTHING, 8, CPU, engine=engine)
    ((_, labels),) = batches.epoch(8, 0, 8)
    assert labels.tolist() == run_order(3, seed=0, passes=3)[:8]


def test_a_restart_in_the_middle_goes_on_with_the_same_images(engine: str) -> None:
    dataset = noisy_dataset(10)
    whole = list(TrainingBatches(dataset, EVERYTHING, 4, CPU, seed=1, engine=engine).epoch(8, 0, 24))
    restarted = list(TrainingBatches(dataset, EVERYTHING, 4, CPU, seed=1, engine=engine).epoch(8, 12, 12))
    assert_same_batches(whole[3:], restarted)


def test_the_batch_size_changes_no_image(engine: str) -> None:
    dataset = noisy_dataset(10)
    one, two = (
        torch.cat([pixels for pixels, _ in TrainingBatches(dataset, EVERYTHING, size, CPU, engine=engine).epoch(6, 3, 24)])
        for size in (1, 8)
    )
    assert torch.equal(one, two)


def test_each_label_belongs_to_its_image(engine: str) -> None:
    policy = AugmentationPolicy(horizontal_flip=0.5, crop_padding=1)
    batches = TrainingBatches(plain_dataset(50), policy, 8, CPU, engine=engine)
    for pixels, labels in batches.epoch(4, 30, 64):  # constant images stay as they are when flipped, cropped and resized
        assert (pixels.dtype, tuple(pixels.shape), labels.dtype) == (torch.float32, (8, 3, 4, 4), torch.int64)
        values = unnormalize(pixels, MEAN, STD)
        np.testing.assert_array_equal(values, np.broadcast_to(5 * labels.numpy()[:, None, None, None], values.shape))


def test_pixels_are_augmented_with_pass_and_index_then_normalized(engine: str) -> None:
    dataset, policy = noisy_dataset(6), WITHOUT_INTERPOLATION if engine == "device" else EVERYTHING
    augmenter = Augmenter(policy, 8, 8, (125, 123, 114), seed=9)
    keys = [(number, int(index)) for number in range(2) for index in shuffled_order(6, 9, number)]
    batches = TrainingBatches(dataset, policy, 12, CPU, seed=9, engine=engine)
    ((pixels, _),) = batches.epoch(6, 0, 12)
    expected = np.stack([augmenter(dataset.images[index], number, index) for number, index in keys])
    assert torch.equal(pixels, normalize(torch.from_numpy(expected), MEAN, STD, 6))
    assert pixels.is_contiguous(memory_format=torch.channels_last)


# ---- engines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (9, 5)])
@pytest.mark.parametrize("alternating", [False, True])
def test_both_engines_give_the_same_batches(shape: tuple[int, int], alternating: bool) -> None:
    dataset = dataset_of(np.random.default_rng(1).integers(0, 256, (11, *shape, 3), dtype=np.uint8))
    policy = dataclasses.replace(WITHOUT_INTERPOLATION, alternating_flip=alternating)
    device, samples = (
        list(TrainingBatches(dataset, policy, 4, CPU, seed=3, engine=engine).epoch(6, 5, 33)) for engine in ("device", "samples")
    )
    assert len(device) == 8
    assert_same_batches(device, samples)


def test_both_engines_move_images_alike() -> None:
    ramp = np.linspace(0, 255, 32, dtype=np.uint8)[None, :, None, None] * np.ones((10, 1, 32, 3), dtype=np.uint8)
    device, samples = (
        torch.cat([pixels for pixels, _ in TrainingBatches(dataset_of(ramp), EVERYTHING, 5, CPU, engine=engine).epoch(32, 0, 20)])
        for engine in ("device", "samples")
    )
    assert (device - samples).abs().mean() < 1 / 255 / max(STD)  # a grey level


def test_auto_is_the_device_which_shares_the_images_on_a_cpu_and_leaves_them_alone() -> None:
    dataset = noisy_dataset(10)
    before = dataset.images.copy()
    batches = TrainingBatches(dataset, EVERYTHING, 4, CPU)
    assert (batches.engine, batches.images.dtype) == ("device", torch.uint8)
    assert batches.images.data_ptr() == dataset.images.ctypes.data  # no second copy in memory
    list(batches.epoch(8, 0, 20))
    np.testing.assert_array_equal(dataset.images, before)


def test_draws_that_go_to_the_device_in_several_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = TrainingBatches(noisy_dataset(10), EVERYTHING, 4, CPU)
    at_once = list(batches.epoch(8, 3, 26))
    for images in (1, 4, 9):
        monkeypatch.setattr(batches_module, "_DRAWN_AT_ONCE", images)
        assert_same_batches(list(batches.epoch(8, 3, 26)), at_once)
    assert len(at_once) == 6


def test_an_unknown_engine_gets_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"^engine is 'devise': did you mean 'device'\?$"):
        TrainingBatches(noisy_dataset(2), NOTHING, 2, CPU, engine="devise")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_epoch_on_a_gpu_waits_for_nothing() -> None:
    batches = TrainingBatches(noisy_dataset(64), EVERYTHING, 8, torch.device("cuda"))
    epoch = batches.epoch(6, 0, 64)
    next(epoch)  # the draws have been copied
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(epoch)) == 7
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ---- workers and global state ------------------------------------------------------------------------------------------


def test_the_number_of_workers_changes_no_bit() -> None:
    dataset = noisy_dataset(20)
    here, in_workers = (
        list(TrainingBatches(dataset, EVERYTHING, 8, CPU, seed=3, workers=workers, engine="samples").epoch(6, 5, 48))
        for workers in (0, 2)
    )
    assert len(here) == 6
    assert_same_batches(here, in_workers)


@pytest.mark.parametrize(("engine", "workers"), [("device", 0), ("samples", 0), ("samples", 1)])
def test_the_global_random_states_stay_as_they_are(engine: str, workers: int) -> None:
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    batches = TrainingBatches(noisy_dataset(8), EVERYTHING, 4, CPU, workers=workers, engine=engine)
    assert len(list(batches.epoch(8, 0, 16))) == 4
    list(image_batches(noisy_dataset(8), 4, CPU))
    assert random.getstate() == before[0]
    assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.get_rng_state(), before[2])


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


def test_random_images_are_drawn_by_a_seed_without_repeats() -> None:
    dataset = colored_images(20)
    indices, images = random_images(dataset, 8, seed=3)
    assert len(set(indices.tolist())) == 8
    assert torch.equal(images, normalize_images(dataset, indices))
    again, _ = random_images(dataset, 8, seed=3)
    other, small = random_images(dataset, 50, seed=4, resolution=4)
    assert indices.tolist() == again.tolist()
    assert sorted(other.tolist()) == list(range(20))
    assert other.tolist() != list(range(20))
    assert small.shape == (20, 3, 4, 4)
