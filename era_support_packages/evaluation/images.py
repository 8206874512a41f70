"""What a person may give as images: a split, predictions, arrays or files, brought to pixels of one size."""

import os
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from era_support_packages.datasets.fitting import IMAGE_SIZE, Fitting, fitted
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.image_folder import decode_images
from era_support_packages.datasets.streaming import Pixels, taken
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.models.classifier_file import Described
from era_support_packages.system.paths import expanded

Images = ImageDataset | Predictions | np.ndarray | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Trained(Described, Protocol):
    """What a classifier knows of the images that it was trained on."""

    @property
    def resolution(self) -> int:
        """Px at which the network saw them last."""


def split_problem(images: Images, trained: Trained) -> str:
    """Why a split, or predictions of one, are no images for a classifier: "" where nothing shows it, or `images` are others.

    Other classes give its labels another meaning. Images that were made smaller than those of training, or brighter, do not show
    what it is used to. Where they were made square in another way, a warning says so: square ones are the same in every way.
    """
    if not isinstance(images, ImageDataset | Predictions):
        return ""
    if tuple(images.classes) != trained.classes:
        theirs, ours = ", ".join(images.classes[:10]), ", ".join(trained.classes[:10])
        different = f"the images' classes are {theirs} and the classifier's {ours}, so that its labels mean something else"
        return f"{different}; give a split of the same classes, or its images alone (split.images)."
    wanted = f"load the data with image_size={trained.image_size}, fit={trained.fit!r}, or give the files themselves"
    least = min(trained.image_size, trained.resolution)
    if images.images is not None and max(min(images.images.shape[1:3]), IMAGE_SIZE) < least:
        rows, columns = images.images.shape[1:3]
        return (
            f"the images are {columns}x{rows} px, and the classifier is used to {least} px, so that it would see them blurred; "
            f"{wanted}; or, where it was trained on such images enlarged, give the classifier image_size={min(rows, columns)}."
        )
    if isinstance(images, Predictions):
        return ""
    if None not in (images.bits, trained.bits) and images.bits != trained.bits:
        return (
            f"files of 16 bits were scaled by {images.bits} bits, and by {trained.bits} in the classifier's training, so that it "
            "would see them darker or brighter; give the files themselves."
        )
    if images.fit != trained.fit and (images.mean, images.std) != (trained.mean, trained.std):  # else they are the same pixels
        warnings.warn(
            f"The images were made square by fit={images.fit!r} and those of the classifier's training by {trained.fit!r}: where "
            f"they are not square themselves, it sees them otherwise than it is used to; {wanted}.",
            stacklevel=4,
        )
    return ""


def pixels_and_labels(
    images: Images, indices: Sequence[int] | np.ndarray | None, bits: int | None, fitting: Fitting
) -> tuple[Pixels, np.ndarray | None]:
    """uint8 (N, H, W, 3) and, for a split or its predictions, the labels; `bits` as for `decode_images`.

    fitting: how arrays and files are brought to the size of the training images; a split has it already. Those of a streamed
    split stay so.
    """
    if isinstance(images, ImageDataset | Predictions):
        pictures = images.pictures if isinstance(images, Predictions) else images.images
        if indices is None:
            return pictures, images.labels
        chosen = positions(images, indices)
        return taken(pictures, chosen), None if images.labels is None else images.labels[chosen]
    if indices is not None:
        raise ValueError("indices go with a split of a data set; select the images themselves instead.")
    if isinstance(images, np.ndarray):
        batch = images[None] if images.ndim == 3 else images
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or 0 in batch.shape:
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}; give uint8 pixels (N, H, W, 3) or (H, W, 3), not normalised"
                f"{_hint(images)}."
            )
        return np.stack([fitted(image, fitting) for image in batch]), None
    files = [images] if isinstance(images, (str, os.PathLike)) else list(images) if isinstance(images, Sequence) else []
    if isinstance(images, Sequence) and not len(images):
        raise ValueError("There are no images and no files; give at least one.")
    if not files or not all(isinstance(file, (str, os.PathLike)) for file in files):
        raise ValueError(
            "images are no split, no uint8 array (N, H, W, 3) and no files; give one of these (np.stack makes a list one)."
        )
    for file in files:
        if os.path.isdir(expanded(file)):
            raise ValueError(f"{os.fspath(file)} is a folder and no image; load it with datasets.load, or name the files in it.")
    return np.stack(decode_images(files, bits, fitting)), None


def _hint(images: np.ndarray) -> str:
    """How an array becomes pixels, where that is plain."""
    if 0 in images.shape:
        return ", and at least one"
    if images.dtype.kind == "f" and images.min() >= 0 and images.max() <= 1:
        return "; (255 * images).round().astype(np.uint8) makes them of values from 0 to 1"
    if images.dtype != np.uint8:
        return ""
    if images.ndim in (3, 4) and images.shape[-3] == 3:
        return "; np.moveaxis(images, -3, -1) moves the channels to the end"
    if images.ndim == 4 and images.shape[-1] != 1:
        return ""
    return f"; gray ones become these by np.{'repeat(images, 3' if images.shape[-1] == 1 else 'stack([images] * 3'}, axis=-1)"


def positions(images: ImageDataset | Predictions, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Which of the images are meant, int64 (K,): all without indices. Raises `ValueError` for what is none of them."""
    everything = np.arange(len(images))
    if indices is None:
        return everything
    chosen = np.asarray(indices)
    whole = chosen.ndim == 1 and chosen.size > 0 and (chosen.dtype == bool or np.issubdtype(chosen.dtype, np.integer))
    try:
        part = everything[chosen] if whole else everything[:0]
    except IndexError:
        part = everything[:0]
    if len(part) == 0:
        raise ValueError(f"indices are {indices!r}; give at least one whole number from 0 to {len(images) - 1}.")
    return part
