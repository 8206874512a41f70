"""Augmented images from DataLoader workers: each decoded, where it is streamed, and sent through albumentations there."""

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from era_support_packages.datasets.augmentation_policy import AugmentationDraws
from era_support_packages.datasets.errors import DatasetError
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.streaming import StreamedImages
from era_support_packages.system.interrupts import end_with_parent
from era_support_packages.system.memory import free_memory
from era_support_packages.system.plain_error import PlainError

if TYPE_CHECKING:
    from era_support_packages.datasets.sample_augmentation import Augmenter

PREFETCH = 4  # batches that each worker has ready or in work, at most
_SHARE = 8  # of the free memory, an eighth may be taken by them


class WorkerLostError(PlainError, RuntimeError):
    """A worker process ended in the middle of an epoch."""


class _AugmentedImages(Dataset[Any]):
    """Map-style data set of the images shown in an epoch, in their order."""

    def __init__(self, dataset: ImageDataset, augmenter: "Augmenter", indices: np.ndarray, draws: AugmentationDraws) -> None:
        self.images, self.labels, self.augmenter = dataset.images, dataset.labels, augmenter
        self.indices, self.draws = indices, draws

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> "tuple[Tensor, int] | DatasetError":
        index = int(self.indices[place])
        try:
            image = self.images[index]
        except DatasetError as error:
            return error  # raised in a worker, its sentence would be wrapped in a traceback
        image = self.augmenter.apply(image, self.draws.map(lambda values: values[place]))
        return torch.from_numpy(np.ascontiguousarray(image)), int(self.labels[index])


def _batch(samples: list[Any]) -> Any:
    """The samples as one batch, or the first error among them."""
    return next((sample for sample in samples if isinstance(sample, DatasetError)), None) or default_collate(samples)


def in_workers(
    dataset: ImageDataset,
    augmenter: "Augmenter",
    indices: np.ndarray,
    draws: AugmentationDraws,
    batch_size: int,
    workers: int,
    pinned: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the images at `indices` (K,), each augmented by its draws: uint8 (B, H, W, 3) and int64 labels (B,).

    workers: processes that make them, 0 for this one. pinned: in memory from which a GPU copies while it computes.
    Raises `DatasetError` for a file that is gone or another one by now; where a worker ended, what `lost_workers` has a name for.
    """
    size = batch_size * int(np.prod(dataset.images.shape[1:]))
    options: dict[str, Any] = {}
    if workers:
        options = {"worker_init_fn": _start_worker, "prefetch_factor": prefetch(size, workers)}
    images, lost = _AugmentedImages(dataset, augmenter, indices, draws), False
    generator = torch.Generator()  # else a seed for the workers would be drawn from the global random state
    with warnings.catch_warnings():  # that there are more workers than cores, in every epoch
        warnings.filterwarnings("ignore", "This DataLoader will create")
        batches = iter(
            DataLoader(
                images, batch_size, num_workers=workers, pin_memory=pinned, collate_fn=_batch, generator=generator, **options
            )
        )
    try:
        while (batch := next(batches, None)) is not None:
            if isinstance(batch, DatasetError):
                raise batch
            yield batch
    except (ConnectionError, EOFError, FileNotFoundError):  # a worker ended before its batch was taken from it
        lost = True
    finally:
        if workers:  # at once: a traceback may hold on to them, and PyTorch names a dead one at the end of any later child
            batches._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001
    if lost:
        raise WorkerLostError(_lost_worker("Killed", workers))


def prefetch(size: int, workers: int) -> int:
    """How many batches of so many bytes each worker may have ready: up to `PREFETCH`, fewer where memory is small, at least 1."""
    free = free_memory()
    return PREFETCH if free is None else min(PREFETCH, max(1, free // _SHARE // max(size * workers, 1)))


@contextmanager
def lost_workers(workers: int) -> Iterator[None]:
    """Raise `WorkerLostError` where one of so many workers ended meanwhile, which PyTorch says wherever the caller is."""
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if "DataLoader worker" not in said or not ("exited unexpectedly" in said or "is killed by signal" in said):
            raise
        sentence = _lost_worker(said, workers)
    else:
        return
    raise WorkerLostError(sentence)


def _lost_worker(said: str, workers: int) -> str:
    """The sentence for a worker that ended, from what PyTorch says of it."""
    fewer = f"workers={workers // 2}" if workers > 1 else "workers=0"
    way_out = f"set {fewer} or a smaller batch_size, and run again with the same values to go on after the last complete epoch."
    if "Bus error" in said:
        return f"A worker that prepares images ended, as the shared memory (/dev/shm) is too small for its batches: {way_out}"
    if "Killed" in said or "exited unexpectedly" in said:
        return f"A worker that prepares images was killed, most likely because the memory of the machine is full: {way_out}"
    return f"A worker that prepares images broke down ({said.splitlines()[0].rstrip('. ')}): {way_out}"


def _start_worker(_worker: int) -> None:
    """One thread a worker: OpenCV would otherwise start one for each core in each. SIGTERM ends it, whatever the parent does.

    Ctrl-C is for the parent, whose end is the worker's: it holds on to the lock of the run's folder, as every child does. What
    decoders remark on files is not shown again in every epoch.
    """
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    info = get_worker_info()
    if info is not None and isinstance(getattr(info.dataset, "images", None), StreamedImages):
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
