"""How large the images of a folder should be, and whether they are held in memory: known from the files' headers."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from era_support_packages.datasets.decoding import IMAGE_ENDINGS
from era_support_packages.datasets.errors import DatasetError
from era_support_packages.datasets.fitting import IMAGE_SIZE, LARGEST
from era_support_packages.datasets.folder_listing import list_folder
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.streaming import SHARE
from era_support_packages.system.memory import free_memory, in_words
from era_support_packages.system.torchrun import local_processes

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
LARGEST_OF_DEVICE = {"cuda": 224}  # px that "auto" takes at most
LARGEST_ELSEWHERE = 128
SHOWN, PASSES = 79_400, 10  # what the preset `cpu` shows at most: images in all, and each image
MOST_WORK = 2 * SHOWN * IMAGE_SIZE**2  # px² in all on a CPU: about twice the time that it takes at 32 px
Stream = bool | Literal["auto"]
ENOUGH = 20  # training images of a class, of which a network can begin to learn something
_MEASURED = 1000  # files whose headers are read


def auto_image_size(folder: Path, device: str, stream: Stream = "auto", shows_few: bool = False) -> tuple[int, str]:
    """The `image_size` of a folder of images on a kind of device ("cuda", "cpu", "mps"), and the sentence that says why.

    The largest of `SIZES` that the median image's shorter side reaches and that the device can train so many images of in
    reasonable time; where they must not be streamed, also one whose decoded images take no more than a third of the free
    memory. shows_few: the recipe shows no more images of a large folder than of a small one. Raises as
    `folder_listing.list_folder`.
    """
    files = _files(folder)
    side = median_side(files)
    if side is None:
        return IMAGE_SIZE, f"{folder.name}: image_size is {IMAGE_SIZE} px, as no image in it says its own size."
    most = LARGEST_OF_DEVICE.get(device) or (LARGEST_ELSEWHERE if shows_few else _largest_in_time(len(files)))
    suited = [size for size in SIZES if size <= min(side, most)] or [IMAGE_SIZE]
    room = _largest_that_fits(len(files)) if stream is False else None
    fits = [size for size in suited if room is None or size <= room] or suited[:1]
    why = f"the median image's shorter side is {side:,} px"
    if suited[-1] == most:
        for_so_many = f" for {len(files):,} images" if most < LARGEST_ELSEWHERE else ""
        why += f", and more than {most} px takes long on {'a GPU' if device == 'cuda' else 'a CPU'}{for_so_many}"
    if fits[-1] < suited[-1]:
        why += ", and larger ones would take more than a third of the free memory"
    return fits[-1], f"{folder.name}: image_size is {fits[-1]} px ({why}); give image_size for another."


def median_side_of(folder: Path) -> int | None:
    """`median_side` of the images in a folder. Raises as `folder_listing.list_folder`."""
    return median_side(_files(folder))


def _files(folder: Path) -> list[str]:
    return [file.path for file in list_folder(folder.resolve()).candidates if _is_named_as_image(file.path)]


def median_side(files: Sequence[str]) -> int | None:
    """The median of the shorter sides in px, of up to a thousand files spread evenly; None where no header can be read."""
    chosen = np.unique(np.linspace(0, max(len(files) - 1, 0), min(len(files), _MEASURED)).astype(np.int64))
    sides = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on metadata and very large images
        for index in chosen:
            try:
                with Image.open(files[index]) as image:
                    sides.append(min(image.size))
            except Exception:  # no image, or one that Pillow does not know: it is named where it is decoded
                continue
    return int(np.median(sides)) if sides else None


@dataclass(frozen=True)
class Holding:
    """Whether the images of a folder are streamed, that is decoded when they are used, or held in memory, and the numbers.

    needed, free: bytes of all images decoded, and of free memory, None where that is unknown. processes: on this machine, each
    of which would hold them.
    """

    streamed: bool
    asked: Stream
    count: int
    size: int
    needed: int
    free: int | None
    processes: int = 1

    def __str__(self) -> str:
        pixels = f"{self.count * self.size**2 / 1e6:,.0f} megapixels"
        said = f"{self.count:,} images of {self.size}x{self.size} px ({pixels}) take {in_words(self.needed)} decoded"
        if self.processes > 1:
            said += f" in each of {self.processes} processes"
        if self.free is not None:
            more = self.needed * self.processes * SHARE > self.free
            said += f", {'more' if more else 'no more'} than a third of the {in_words(self.free)} of memory that are free"
        if self.asked != "auto":
            said += f"; stream is {self.asked}"
        return f"{said}: {'each is decoded when it is used, by workers' if self.streamed else 'they are held in memory'}."


def holding(count: int, size: int, stream: Stream = "auto") -> Holding:
    """How so many images of `size` px are held: by choice, or with "auto" in memory up to a third of what is free."""
    free, needed = free_memory(), count * size * size * 3
    processes = local_processes()
    too_large = free is not None and needed * processes * SHARE > free
    return Holding(too_large if stream == "auto" else stream, stream, count, size, needed, free, processes)


def check_memory(name: str, count: int, size: int, may_stream: bool = False) -> None:
    """Raise `DatasetError` where that many decoded images of `size` px take more than a third of the free memory.

    may_stream: whether they could be streamed instead, which the sentence then offers.
    """
    free = free_memory()
    needed = count * size * size * 3
    if free is None or needed * SHARE <= free:
        return
    room = _largest_that_fits(count)
    way_out = f"give image_size={room} or less" if room is not None and room >= IMAGE_SIZE else "give fewer images"
    stream = ", stream='auto' with engine='auto', which decodes each when it is used" * may_stream
    raise DatasetError(
        f"{name}: {count:,} images of {size}x{size} px take {in_words(needed)} decoded, more than a third of the "
        f"{in_words(free)} of memory that are free: {way_out}{stream}, or use a machine with more memory."
    )


def few_images(train: ImageDataset) -> str:
    """What so few images are good for, in a sentence; "" where no class has fewer than `ENOUGH` for training."""
    counts = np.bincount(train.labels, minlength=len(train.classes))
    name, fewest = train.classes[int(counts.argmin())], int(counts.min())
    if fewest >= ENOUGH:
        return ""
    number = f"{fewest} training image{'s' * (fewest != 1)} of {name!r}"
    return f"{train.name}: with {number} everything can be tried out, but little is learned; give {ENOUGH} or more of each class."


def _largest_in_time(count: int) -> int:
    """The largest size at which a CPU trains so many images in about twice the time that CIFAR takes it."""
    shown = min(PASSES * count, SHOWN)
    return max(size for size in SIZES if size <= LARGEST_ELSEWHERE and (size == IMAGE_SIZE or shown * size**2 <= MOST_WORK))


def _largest_that_fits(count: int) -> int | None:
    """The largest size in px, a multiple of 8, at which so many images fit; None where the memory is unknown."""
    free = free_memory()
    if free is None:
        return None
    return min(LARGEST, int((free / SHARE / 3 / max(count, 1)) ** 0.5) // 8 * 8)


def _is_named_as_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in IMAGE_ENDINGS
