"""Shuffled, augmented, normalised batches on the training device."""

import signal
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from era_support_packages.augmentation import AugmentationPolicy, Augmenter
from era_support_packages.image_dataset import ImageDataset


def normalize(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float], resolution: int | None = None
) -> Tensor:
    """uint8 images (N, H, W, 3) to normalised float32 (N, 3, r, r), channels_last in memory, on the device they lie on.

    A resolution other than the images' own is reached by antialiased bilinear resampling.
    """
    images = images.permute(0, 3, 1, 2).float().div_(255)
    if resolution is not None and (resolution, resolution) != images.shape[-2:]:
        images = F.interpolate(images, (resolution, resolution), mode="bilinear", antialias=True)
    scale = images.new_tensor(std).reciprocal()
    shift = -images.new_tensor(mean) * scale
    return torch.addcmul(shift[None, :, None, None], images, scale[None, :, None, None]).contiguous(
        memory_format=torch.channels_last
    )


def unnormalize(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> np.ndarray:
    """The inverse of `normalize` for pictures: float (N, 3, H, W) to uint8 (N, H, W, 3), rounded and clipped."""
    images = images.detach().float().cpu()
    images = images * images.new_tensor(std)[None, :, None, None] + images.new_tensor(mean)[None, :, None, None]
    return images.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def shuffled_order(size: int, seed: int, pass_number: int) -> np.ndarray:
    """The order of one pass over a training split: a permutation of range(size) that depends on (seed, pass) alone."""
    key = (seed << 64) | (pass_number << 32) | 0xFFFF_FFFF  # an index no image has
    return np.random.Generator(np.random.Philox(key=key)).permutation(size)


def mean_colour(dataset: ImageDataset) -> tuple[int, int, int]:
    """The mean of the training split as a uint8 colour."""
    red, green, blue = (round(255 * value) for value in dataset.mean)
    return red, green, blue


class _AugmentedImages(Dataset):
    """Map-style data set whose keys are (pass number, image index)."""

    def __init__(self, dataset: ImageDataset, augmenter: Augmenter) -> None:
        self.images, self.labels, self.augmenter = dataset.images, dataset.labels, augmenter

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        pass_number, index = key
        image = self.augmenter(self.images[index], pass_number, index)
        return torch.from_numpy(np.ascontiguousarray(image)), int(self.labels[index])


class _KeyBatches:
    """Batches of (pass number, image index) for images number `start` to `start + images` of a run."""

    def __init__(self, size: int, seed: int, start: int, images: int, batch_size: int) -> None:
        self.size, self.seed, self.start, self.images, self.batch_size = size, seed, start, images, batch_size

    def __len__(self) -> int:
        return batch_count(self.images, self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        pass_number, order = -1, np.empty(0, dtype=np.int64)
        keys: list[tuple[int, int]] = []
        for position in range(self.start, self.start + self.images):
            if position // self.size != pass_number:
                pass_number = position // self.size
                order = shuffled_order(self.size, self.seed, pass_number)
            keys.append((pass_number, int(order[position % self.size])))
            if len(keys) == min(self.batch_size, self.images):
                yield keys
                keys = []


def batch_count(images: int, batch_size: int) -> int:
    """Full batches in that many images; one smaller batch where there are fewer images than that."""
    return max(1, images // batch_size)


class TrainingBatches:
    """Batches of augmented training images: float32 (B, 3, r, r) normalised, int64 labels (B,), on the device.

    A batch that would not be full is left out at the end of an epoch (which images these are changes with each pass).
    Augmentation runs in `workers` processes, or in this one for 0; the batches are the same.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        policy: AugmentationPolicy,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        height, width = dataset.images.shape[1:3]
        self.dataset, self.batch_size, self.device, self.seed, self.workers = dataset, batch_size, device, seed, workers
        self.augmenter = Augmenter(policy, height, width, mean_colour(dataset), seed)

    def epoch(self, resolution: int, start: int, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of images number `start` to `start + images` of the run, at `resolution` px."""
        loader = DataLoader(
            _AugmentedImages(self.dataset, self.augmenter),
            batch_sampler=_KeyBatches(len(self.dataset), self.seed, start, images, self.batch_size),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_start_worker if self.workers else None,
            generator=torch.Generator(),  # it would otherwise draw a seed for its workers from the global random state
        )
        for pixels, labels in loader:
            pixels = pixels.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield normalize(pixels, self.dataset.mean, self.dataset.std, resolution), labels


def _start_worker(worker: int) -> None:
    """One thread a worker: OpenCV would otherwise start one for each core in each. SIGTERM ends it, whatever the parent does."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def normalize_images(dataset: ImageDataset, indices: np.ndarray, resolution: int | None = None) -> Tensor:
    """Some images as the network takes them: float32 (len(indices), 3, r, r) normalised, on the CPU; None keeps their size."""
    return normalize(torch.from_numpy(dataset.images[indices]), dataset.mean, dataset.std, resolution)


def image_batches(
    dataset: ImageDataset, batch_size: int, device: torch.device, resolution: int | None = None
) -> Iterator[Tensor]:
    """All images in file order, not augmented: float32 (B, 3, r, r) normalised, on the device."""
    for start in range(0, len(dataset), batch_size):
        pixels = torch.from_numpy(np.ascontiguousarray(dataset.images[start : start + batch_size])).to(device)
        yield normalize(pixels, dataset.mean, dataset.std, resolution)


def augmented_variants(
    dataset: ImageDataset, indices: np.ndarray, policy: AugmentationPolicy, count: int, seed: int
) -> np.ndarray:
    """What the policy makes of some images in `count` passes: uint8 (len(indices), count, H, W, 3)."""
    height, width = dataset.images.shape[1:3]
    augmenter = Augmenter(policy, height, width, mean_colour(dataset), seed)
    return np.stack(
        [[augmenter(dataset.images[index], pass_number, int(index)) for pass_number in range(count)] for index in indices]
    )
