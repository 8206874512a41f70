"""The images of a split that stay files: each is decoded when it is asked for, for folders that do not fit into memory.

What one reading of all of them has brought is kept: which bytes they had, and the sums of their pixels.
"""

import hashlib
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, SupportsIndex, TypeVar, overload

import numpy as np

from era_support_packages.datasets.decoding import UndecodableError, decode, to_8_bits
from era_support_packages.datasets.errors import DatasetError
from era_support_packages.datasets.fitting import Fitting, fitted
from era_support_packages.datasets.statistics import Channels, pixel_sums, statistics_of
from era_support_packages.system.cores import usable_cores
from era_support_packages.system.memory import free_memory, in_words

SHARE = 3  # of the free memory, a third may be taken by decoded images
AT_ONCE = 256  # images that are decoded together where all are gone through
_Part = TypeVar("_Part")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The files of a folder that give a picture, N in all, and what is known of them from one reading.

    names: all paths in one text of bytes, that of number i from ends[i] to ends[i + 1]: a list of texts would be copied, little
    by little, into every worker. sha256: uint8 (N, 32). sums: int64 (N, 3, 2), `pixel_sums` of the pictures brought to size.
    bits: by which files of 16 bits are scaled, None where there are none.
    """

    names: bytes
    ends: np.ndarray
    sha256: np.ndarray
    sums: np.ndarray
    fitting: Fitting
    bits: int | None

    @classmethod
    def of(cls, paths: Sequence[str], sha256: np.ndarray, sums: np.ndarray, fitting: Fitting, bits: int | None) -> "ImageFiles":
        """From the paths (N,) and the rest."""
        encoded = [os.fsencode(path) for path in paths]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), ends, sha256, sums, fitting, bits)

    def path(self, number: int) -> str:
        """The path of one file."""
        return os.fsdecode(self.names[self.ends[number] : self.ends[number + 1]])

    def pixels(self, number: int) -> np.ndarray:
        """One picture, uint8 (size, size, 3). Raises `DatasetError` where the file is not what it was."""
        path = self.path(number)
        try:
            with open(path, "rb") as stream:
                data = stream.read()
        except OSError as error:
            raise DatasetError(_lost(path, f"cannot be read any more ({error.strerror or error})")) from None
        if hashlib.sha256(data).digest() != self.sha256[number].tobytes():
            raise DatasetError(_lost(path, "was changed since the folder was read"))
        try:
            picture = decode(data, _unheard)  # the same bytes were found whole
        except UndecodableError as error:
            raise DatasetError(_lost(path, f"cannot be decoded any more ({error})")) from None
        square = fitted(picture.pixels, self.fitting)
        if not picture.largest:
            return square
        assert self.bits is not None  # as there is a file of 16 bits
        return to_8_bits(square, self.bits)


def _lost(path: str, what: str) -> str:
    return f"{path} {what}: put it back and run again with the same values, or load the folder anew without it."


def _unheard() -> str:
    """What libjpeg has to say of a file that was found whole."""
    return ""


class StreamedImages:
    """The images of a split as files: like an array uint8 (N, size, size, 3) where it is indexed by images.

    `images[3]` decodes one, uint8 (size, size, 3); `images[5:9]`, `images[[2, 7]]` and a mask decode these, in parallel.
    `taken(images, indices)` decodes nothing. Raises `DatasetError` for a file that is gone or another one by now, and where
    what is asked for at once would take more than a third of the free memory; `TypeError` where pixels are indexed.
    """

    ndim = 4
    dtype = np.dtype(np.uint8)

    def __init__(self, files: ImageFiles, indices: np.ndarray) -> None:
        self.files, self.indices = files, indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, size, size, 3)"""
        size = self.files.fitting.size
        return len(self), size, size, 3

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take decoded."""
        return int(np.prod(self.shape))

    def path(self, index: int) -> str:
        """The file of one image."""
        return self.files.path(int(self.indices[index]))

    def take(self, indices: Any) -> "StreamedImages":
        """Some of the images, not decoded either; indices as for an array."""
        return StreamedImages(self.files, self.indices[indices])

    def statistics(self) -> tuple[Channels, Channels]:
        """Mean and standard deviation of each channel, as `channel_statistics` gives them; nothing is decoded."""
        size = self.files.fitting.size
        return statistics_of(self.files.sums[self.indices].sum(axis=0), len(self) * size * size)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            raise TypeError("Images that are decoded when they are asked for are indexed by images alone: images[3][:8, :8].")
        if isinstance(key, SupportsIndex) and not isinstance(key, np.ndarray):
            return self.files.pixels(int(self.indices[operator.index(key)]))
        chosen = self.indices[key]
        if chosen.ndim == 0:
            return self.files.pixels(int(chosen))
        self._require_room(len(chosen))
        found = np.empty((len(chosen), *self.shape[1:]), np.uint8)

        def put(place: int) -> None:
            found[place] = self.files.pixels(int(chosen[place]))

        if len(chosen) < 4:
            for place in range(len(chosen)):
                put(place)
            return found
        with ThreadPoolExecutor(usable_cores()) as pool:  # OpenCV decodes without holding the interpreter's lock
            for _ in pool.map(put, range(len(chosen))):
                pass
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _require_room(self, count: int) -> None:
        """Raise `DatasetError` where so many decoded images would take more than a third of the free memory."""
        needed = count * int(np.prod(self.shape[1:]))
        if count <= AT_ONCE or (free := free_memory()) is None or needed * SHARE <= free:
            return
        raise DatasetError(
            f"{count:,} images of {self.shape[1]}x{self.shape[2]} px would take {in_words(needed)} decoded at once, more than a "
            f"third of the {in_words(free)} of memory that are free: ask for fewer at a time, such as images[:{AT_ONCE}]."
        )


Pixels = np.ndarray | StreamedImages
"""uint8 (N, H, W, 3), in memory or decoded when they are asked for"""


@overload
def taken(images: np.ndarray, indices: Any) -> np.ndarray: ...
@overload
def taken(images: Pixels, indices: Any) -> Pixels: ...
def taken(images: Pixels, indices: Any) -> Pixels:
    """The images at `indices`, a mask or a slice: an array of an array; of streamed ones nothing is decoded."""
    return images.take(indices) if isinstance(images, StreamedImages) else images[indices]


def known_to_differ(images: Pixels, others: Pixels) -> bool:
    """Whether two splits surely hold other images: another number, other files, or other pixels of the same size.

    Of pixels of another size nothing is known: the same photos may have been brought to both.
    """
    if images is others or len(images) != len(others):
        return len(images) != len(others)
    if isinstance(images, StreamedImages) and isinstance(others, StreamedImages):
        return not np.array_equal(images.files.sha256[images.indices], others.files.sha256[others.indices])
    if images.shape != others.shape:
        return False
    parts = zip(in_parts(images, AT_ONCE), in_parts(others, AT_ONCE), strict=True)
    return not all(np.array_equal(part, other) for part, other in parts)


def channel_statistics(images: Pixels) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel over all pixels of uint8 (N, H, W, 3), on the scale [0, 1].

    Exact up to the last rounding. A channel that is constant gets standard deviation 1, so that normalising by it is harmless.
    """
    if not len(images) or 0 in images.shape:
        raise ValueError(f"images are empty, of shape {images.shape}: statistics need at least one image.")
    if isinstance(images, StreamedImages):
        return images.statistics()
    return statistics_of(pixel_sums(images), images.size // 3)


def in_parts(images: Pixels, size: int) -> Iterator[np.ndarray]:
    """All images in order, `size` at a time: contiguous uint8 (B, H, W, 3). Streamed ones are decoded one part ahead."""
    starts = range(0, len(images), size)
    if not isinstance(images, StreamedImages):
        for start in starts:
            yield np.ascontiguousarray(images[start : start + size])
        return
    yield from _ahead([partial(images.__getitem__, slice(start, start + size)) for start in starts])


def _ahead(works: Sequence[Callable[[], _Part]]) -> Iterator[_Part]:
    """What each work returns, in order; the next one is done in a thread while the caller is busy with the last."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(work) for work in works[:1]]
        for work in works[1:]:
            done = waiting.pop().result()
            waiting.append(pool.submit(work))
            yield done
        for last in waiting:
            yield last.result()
