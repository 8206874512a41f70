"""Between pixels and what a network takes: normalised float images, and back."""

from collections.abc import Iterable, Iterator
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from era_support_packages.datasets.fitting import IMAGE_SIZE
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.statistics import Channels
from era_support_packages.datasets.streaming import in_parts

STATISTICS = "those of mean from 0 to 1, where 1 is white, and those of std above 0 up to 1"


def normalize(images: Tensor, mean: Channels, std: Channels, resolution: int | None = None) -> Tensor:
    """uint8 images (N, H, W, 3) to normalised float32 (N, 3, r, r), channels_last in memory, on the device they lie on.

    A resolution other than the images' own is reached by antialiased bilinear resampling.

    >>> import torch
    >>> from era_support_packages.datasets import normalize
    >>> white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    >>> normalize(white, (0.5,) * 3, (0.25,) * 3).unique()
    tensor([2.])
    """
    return scaled_pixels(images, *scale_and_shift(mean, std, images.device), resolution)


def scale_and_shift(mean: Channels, std: Channels, device: torch.device) -> tuple[Tensor, Tensor]:
    """What a pixel in [0, 1] is multiplied by, and what is added then: float32 (3,) each."""
    scale = torch.tensor(std).reciprocal()
    return scale.to(device), (-torch.tensor(mean) * scale).to(device)


def scaled_pixels(images: Tensor, scale: Tensor, shift: Tensor, resolution: int | None) -> Tensor:
    """Images uint8 (N, H, W, 3) as a network takes them: float32 (N, 3, r, r); scale and shift as of `scale_and_shift`."""
    pixels = images.float().div_(255)
    if resolution is not None and (resolution, resolution) != images.shape[1:3]:
        planes = F.interpolate(pixels.permute(0, 3, 1, 2), (resolution, resolution), mode="bilinear", antialias=True)
        pixels = planes.permute(0, 2, 3, 1).contiguous()
    width = pixels.shape[2]
    lines = torch.addcmul(shift.repeat(width), pixels.flatten(2), scale.repeat(width))  # whole lines: faster than three by three
    return lines.unflatten(2, (width, 3)).permute(0, 3, 1, 2)


def unnormalize(images: Tensor, mean: Channels, std: Channels) -> np.ndarray:
    """The inverse of `normalize` for pictures: float (N, 3, H, W) to uint8 (N, H, W, 3), rounded and clipped.

    >>> import torch
    >>> from era_support_packages.datasets import unnormalize
    >>> unnormalize(torch.full((1, 3, 1, 1), 2.0), (0.5,) * 3, (0.25,) * 3)
    array([[[[255, 255, 255]]]], dtype=uint8)
    """
    images = images.detach().float().cpu()
    images = images * images.new_tensor(std)[None, :, None, None] + images.new_tensor(mean)[None, :, None, None]
    return images.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def mean_color(dataset: ImageDataset) -> tuple[int, int, int]:
    """The mean of the training split as a uint8 colour."""
    red, green, blue = (round(255 * value) for value in dataset.mean)
    return red, green, blue


def normalize_images(dataset: ImageDataset, indices: np.ndarray, resolution: int | None = None) -> Tensor:
    """Some images as the network takes them: float32 (len(indices), 3, r, r) normalised, on the CPU; None keeps their size.

    >>> import numpy as np
    >>> from era_support_packages import load
    >>> from era_support_packages.datasets import normalize_images
    >>> _, test = load("digits")
    >>> normalize_images(test, np.array([0, 5]), resolution=16).shape
    torch.Size([2, 3, 16, 16])
    """
    return normalize(torch.from_numpy(dataset.images[indices]), dataset.mean, dataset.std, resolution)


def random_indices(size: int, count: int, seed: int) -> np.ndarray:
    """`count` of `size` images drawn by a seed, without repeats, all where there are fewer: int64 (count,)."""
    return np.random.default_rng(seed).choice(size, min(count, size), replace=False)


def random_images(dataset: ImageDataset, count: int, seed: int, resolution: int | None = None) -> tuple[np.ndarray, Tensor]:
    """`count` images drawn by a seed, without repeats (all where there are fewer): their indices int64 (count,), and as
    `normalize_images` gives them.

    >>> from era_support_packages import load
    >>> from era_support_packages.datasets import random_images
    >>> _, test = load("digits")
    >>> indices, images = random_images(test, count=3, seed=0)
    >>> indices.shape, images.shape
    ((3,), torch.Size([3, 3, 32, 32]))
    """
    indices = random_indices(len(dataset), count, seed)
    return indices, normalize_images(dataset, indices, resolution)


def image_batches(
    dataset: ImageDataset, batch_size: int, device: torch.device, resolution: int | None = None
) -> Iterator[Tensor]:
    """All images in file order, not augmented: float32 (B, 3, r, r) normalised, on the device; larger ones in smaller batches."""
    batch_size = images_at_once(batch_size, resolution or dataset.images.shape[1])
    for pixels in in_parts(dataset.images, batch_size):
        yield normalize(torch.from_numpy(pixels).to(device), dataset.mean, dataset.std, resolution)


def images_at_once(count: int, side: int) -> int:
    """How many images of `side` px go through a network together: `count` of up to 32 px, fewer of larger ones, at least 1."""
    return count if side <= IMAGE_SIZE else max(1, count * IMAGE_SIZE**2 // side**2)


def are_statistics(mean: object, std: object) -> bool:
    """Whether these are a mean and a standard deviation of three channels: numbers as `STATISTICS` says."""

    def three(values: object, above: float) -> bool:
        numbers = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
        return len(numbers) == 3 and all(isinstance(number, Real) and above < float(number) <= 1 for number in numbers)

    return three(mean, -1e-9) and three(std, 0)
