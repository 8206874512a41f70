"""Between pixels and what a network takes: exact values by hand, and those of albumentations and Pillow."""

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MEAN, STD, colored_images

from era_support_packages.datasets.normalization import (
    image_batches,
    mean_color,
    normalize,
    normalize_images,
    random_images,
    unnormalize,
)

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(1).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


def test_normalize_by_hand() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 2, 2, 3).contiguous()
    result = normalize(images, (0.5, 0.25, 0.75), (0.25, 0.5, 0.125))
    expected = torch.tensor([[-2.0, -0.5, -6.0], [2.0, 1.5, 2.0], [-1.2, -0.1, -4.4]])[:, :, None, None].expand(3, 3, 2, 2)
    torch.testing.assert_close(result[:2], expected[:2], rtol=0, atol=0)  # powers of two: exact
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert images.unique().tolist() == [0, 51, 255]


def test_normalize_is_albumentations_normalize() -> None:
    expected = np.stack([A.Normalize(MEAN, STD)(image=image)["image"] for image in IMAGES]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalize(torch.from_numpy(IMAGES), MEAN, STD).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("resolution", [5, 8, 12, 16])
def test_another_resolution_is_antialiased_bilinear(resolution: int) -> None:
    result = normalize(torch.from_numpy(IMAGES), MEAN, STD, resolution)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert (result.dtype, tuple(result.shape)) == (torch.float32, (3, 3, resolution, resolution))
    for image in range(3):
        for channel in range(3):
            plane = Image.fromarray(IMAGES[image, :, :, channel].astype(np.float32) / 255)
            expected = np.asarray(plane.resize((resolution, resolution), Image.Resampling.BILINEAR))
            found = result[image, channel].numpy() * STD[channel] + MEAN[channel]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_images_own_resolution_is_not_resampled() -> None:
    images = torch.from_numpy(IMAGES)
    assert torch.equal(normalize(images, MEAN, STD, 12), normalize(images, MEAN, STD))
    assert normalize(images[:, :6], MEAN, STD).shape == (3, 3, 6, 12)


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5, 0.01, 0.99), (1.0, 0.001, 0.3))])
def test_unnormalize_is_the_exact_inverse_for_every_value(mean: tuple, std: tuple) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    images = np.stack([ramp, ramp[:, ::-1], ramp.T], axis=2)[None]
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


def test_the_mean_color() -> None:
    assert mean_color(colored_images(1)) == (128, 102, 76)  # 127.5 to the even 128, 102, 76.5 to the even 76


def test_all_images_in_file_order_and_some_in_the_order_asked() -> None:
    dataset = colored_images(10)
    batches = list(image_batches(dataset, 4, CPU))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(unnormalize(torch.cat(batches), MEAN, STD), dataset.images)
    small = torch.cat(list(image_batches(dataset, 3, CPU, 6)))
    assert torch.equal(small, normalize(torch.from_numpy(dataset.images), MEAN, STD, 6))
    assert torch.equal(normalize_images(dataset, np.array([7, 0, 7])), torch.cat(batches)[[7, 0, 7]])
    assert torch.equal(normalize_images(dataset, np.array([7, 0]), 6), small[[7, 0]])


def test_random_images_are_drawn_by_a_seed_without_repeats() -> None:
    dataset = colored_images(20)
    indices, images = random_images(dataset, 8, seed=3)
    assert len(set(indices.tolist())) == 8
    assert torch.equal(images, normalize_images(dataset, indices))
    assert indices.tolist() == random_images(dataset, 8, seed=3)[0].tolist()
    other, small = random_images(dataset, 50, seed=4, resolution=4)
    assert sorted(other.tolist()) == list(range(20))
    assert other.tolist() != list(range(20))
    assert small.shape == (20, 3, 4, 4)
