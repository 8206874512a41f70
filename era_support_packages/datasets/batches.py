"""Shuffled, augmented, normalised batches on the training device."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from era_support_packages.datasets.augmentation_policy import ENGINES, AugmentationDraws, AugmentationPolicy, draw
from era_support_packages.datasets.device_augmentation import augment
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import mean_color, scale_and_shift, scaled_pixels
from era_support_packages.datasets.streaming import StreamedImages
from era_support_packages.datasets.workers import in_workers
from era_support_packages.system.naming import nearest_names
from era_support_packages.system.processes import ALONE, Processes

_DRAWN_AT_ONCE = 2**16  # images whose draws go to the device together: 7 MB, and in most runs a whole pass


STREAMED_ON_DEVICE = (
    "engine is 'device', which holds all images in the memory of the device, but those of {} are streamed: give engine='samples' "
    "or 'auto', or load them with stream=False."
)


def engine_for(dataset: ImageDataset) -> str:
    """The engine that "auto" means for a data set."""
    return "samples" if dataset.streamed else "device"


def shuffled_order(size: int, seed: int, pass_number: int) -> np.ndarray:
    """The order of one pass over a training split: a permutation of range(size) that depends on (seed, pass) alone."""
    key = (seed << 64) | (pass_number << 32) | 0xFFFF_FFFF  # an index no image has
    return np.random.Generator(np.random.Philox(key=key)).permutation(size)


def _shown(size: int, seed: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pass and index of images number `start` to `start + count` of a run over `size` images, int64 (count,) each."""
    first, offset = divmod(start, size)
    last = (start + count - 1) // size
    order = np.concatenate([shuffled_order(size, seed, number) for number in range(first, last + 1)])
    return np.arange(start, start + count) // size, order[offset : offset + count]


def batch_count(count: int, batch_size: int) -> int:
    """Full batches in that many images; one smaller batch where there are fewer images than that."""
    return max(1, count // batch_size)


class TrainingBatches:
    """Batches of augmented training images: float32 (B, 3, r, r) normalised, int64 labels (B,), on the device.

    A batch that would not be full is left out at the end of an epoch (which images these are changes with each pass).

    With the engine "device" the images lie on the device as uint8 and are augmented there by the batch; an epoch neither
    waits for the device nor copies anything to it but the next draws, once for tens of thousands of images. With "samples" each
    image goes through albumentations in `workers` processes, or in this one for 0; streamed images are decoded there too. Both
    show the same images in the same order with the same draws. "auto" is "samples" for streamed images, else "device". Raises
    `ValueError` for another engine, and for "device" with streamed images.

    One of several `processes` gets its consecutive slice of each batch, which their number must divide.

    >>> import torch
    >>> from era_support_packages import load
    >>> from era_support_packages.datasets import AugmentationPolicy, TrainingBatches
    >>> train, _ = load("digits")
    >>> batches = TrainingBatches(train, AugmentationPolicy(), 32, seed=0, device=torch.device("cpu"))
    >>> images, labels = next(iter(batches.epoch(16, 0, 64)))
    >>> images.shape, labels.shape
    (torch.Size([32, 3, 16, 16]), torch.Size([32]))
    """

    def __init__(
        self,
        dataset: ImageDataset,
        policy: AugmentationPolicy,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        workers: int = 0,
        engine: str = "auto",
        processes: Processes = ALONE,
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"engine is {engine!r}: {nearest_names(engine, ENGINES)}")
        self.dataset, self.policy, self.batch_size, self.device = dataset, policy, batch_size, device
        self.processes = processes
        self.seed, self.workers = seed, workers
        self.engine = engine_for(dataset) if engine == "auto" else engine
        self.scale, self.shift = scale_and_shift(dataset.mean, dataset.std, device)
        if self.engine == "device":
            if isinstance(dataset.images, StreamedImages):
                raise ValueError(STREAMED_ON_DEVICE.format(dataset.name))
            self.images = torch.from_numpy(np.ascontiguousarray(dataset.images)).to(device)
            self.labels = torch.from_numpy(np.ascontiguousarray(dataset.labels)).to(device)
            self.fill = torch.tensor(mean_color(dataset), dtype=torch.uint8, device=device)

    def epoch(self, resolution: int, start: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of images number `start` to `start + count` of the run, at `resolution` px."""
        size = min(self.batch_size, count)
        shown = batch_count(count, self.batch_size) * size
        augmented = self._on_the_device if self.engine == "device" else self._by_the_sample
        for pixels, labels in augmented(start, shown, size):
            yield scaled_pixels(pixels, self.scale, self.shift, resolution), labels

    def _on_the_device(self, start: int, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        step = max(_DRAWN_AT_ONCE // size, 1) * size
        for first in range(start, start + count, step):
            indices, draws = self._drawn(first, min(step, start + count - first), size)
            chosen = torch.from_numpy(indices).to(self.device)
            draws = draws.map(lambda values: torch.from_numpy(values).to(self.device))
            share = size // self.processes.count
            for place in range(0, len(indices), share):
                batch = slice(place, place + share)
                pixels = self.images.index_select(0, chosen[batch])
                pixels = augment(pixels, draws.map(operator.itemgetter(batch)), self.policy, self.fill)
                yield pixels, self.labels.index_select(0, chosen[batch])

    def _by_the_sample(self, start: int, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        from era_support_packages.datasets.sample_augmentation import Augmenter  # here, because it is slow to import

        height, width = self.dataset.images.shape[1:3]
        augmenter = Augmenter(self.policy, height, width, mean_color(self.dataset), self.seed)
        indices, draws = self._drawn(start, count, size)
        share, pinned = size // self.processes.count, self.device.type == "cuda"
        for pixels, labels in in_workers(self.dataset, augmenter, indices, draws, share, self.workers, pinned):
            yield pixels.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _drawn(self, start: int, count: int, size: int) -> tuple[np.ndarray, AugmentationDraws]:
        """The indices of images number `start` to `start + count` of the run, in batches of `size`, and what happens to each.

        Of each batch only the images of this process.
        """
        height, width = self.dataset.images.shape[1:3]
        shown = _shown(len(self.dataset), self.seed, start, count)
        passes, indices = (self.processes.share(values, size) for values in shown)
        return indices, draw(self.policy, height, width, self.seed, passes, indices)


@dataclass(frozen=True, eq=False)
class AugmentedImages:
    """Some images of a data set, and what augmentation made of them; `augmented_variants` makes it.

    >>> from era_support_packages import load
    >>> from era_support_packages.datasets import AugmentationPolicy, augmented_variants
    >>> train, _ = load("digits")
    >>> augmented = augmented_variants(train, train.evenly_spread(2), AugmentationPolicy(crop_padding=4))
    >>> augmented.originals.shape, augmented.variants.shape, augmented.names
    ((2, 32, 32, 3), (2, 6, 32, 32, 3), ('0', '8'))
    """

    originals: np.ndarray
    """uint8 (N, H, W, 3)"""
    variants: np.ndarray
    """uint8 (N, V, H, W, 3)"""
    names: tuple[str, ...]
    """of the class of each image"""


def augmented_variants(
    dataset: ImageDataset, indices: np.ndarray, policy: AugmentationPolicy, *, count: int = 6, seed: int = 0
) -> AugmentedImages:
    """What the policy makes of some images in `count` passes.

    >>> import numpy as np
    >>> from era_support_packages import load
    >>> from era_support_packages.datasets import AugmentationPolicy, augmented_variants
    >>> train, _ = load("digits")
    >>> policy = AugmentationPolicy(crop_padding=4)
    >>> augmented_variants(train, np.array([0, 1]), policy, count=3).variants.shape
    (2, 3, 32, 32, 3)
    """
    from era_support_packages.datasets.sample_augmentation import Augmenter

    height, width = dataset.images.shape[1:3]
    augmenter = Augmenter(policy, height, width, mean_color(dataset), seed)
    originals = dataset.images[indices]
    variants = np.stack(
        [
            [augmenter(image, pass_number, int(index)) for pass_number in range(count)]
            for image, index in zip(originals, indices, strict=True)
        ]
    )
    return AugmentedImages(originals, variants, tuple(dataset.classes[label] for label in dataset.labels[indices]))
