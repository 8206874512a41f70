"""What predictions are made of, checked before anything is asked of it: a wrong shape would give a wrong answer, and no error."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from era_support_packages.datasets.streaming import Pixels, StreamedImages
from era_support_packages.system.naming import class_names_problem


def checked_classes(classes: Any) -> tuple[str, ...]:
    """The C names as a tuple. Raises `ValueError` where they are no names, or one is there twice."""
    if problem := class_names_problem(classes):
        raise ValueError(problem)
    return tuple(classes)


def checked_logits(given: ArrayLike | Tensor, count: int) -> np.ndarray:
    """Logits (N, count), floating-point; those that are already are not copied. Raises `ValueError` for any other."""
    logits = _array("logits", given, f"(N, {count})")
    if logits.dtype.kind not in "iuf" or logits.ndim != 2 or logits.shape[1] != count:
        raise ValueError(
            f"logits are {_text(logits)} for {count} class names; they must be numbers (N, {count}), a row an image and a column "
            "a class name."
        )
    return logits if logits.dtype.kind == "f" else logits.astype(np.float64)


def checked_labels(given: ArrayLike | Tensor, count: int, classes: int) -> np.ndarray:
    """Labels int64 (count,), indices of class names; those that are already are not copied. Raises `ValueError` for any other."""
    labels = _array("labels", given, f"({count},)")
    if not labels.size:
        labels = labels.astype(np.int64)  # numpy takes an empty list for floats
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ValueError(
            f"labels are {_text(labels)}; they must be whole numbers ({count},), one an image: the place of its class "
            "among the class names."
        )
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"labels reach from {labels.min()} to {labels.max()}; with {classes} classes they must lie in 0 ... {classes - 1}. "
            "Leave out images that have no label, and count the classes from 0."
        )
    return labels.astype(np.int64, copy=False)


def checked_images(images: Pixels, count: int) -> Pixels:
    """The images of so many predictions. Raises `ValueError` where they are no pixels, or of another number."""
    if not isinstance(images, np.ndarray | StreamedImages):
        raise ValueError(f"images are a {type(images).__name__}; give uint8 pixels ({count}, H, W, 3).")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) != count:
        raise ValueError(f"images are {images.dtype} {images.shape}; they must be uint8 ({count}, H, W, 3), one a row of logits.")
    return images


def checked_count(count: int) -> None:
    """Raise `ValueError` where fewer than one image is asked for."""
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least 1 image.")


def _array(name: str, given: ArrayLike | Tensor, shape: str) -> np.ndarray:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() and given.itemsize < 4 else given  # numpy has no bfloat16
        return given.numpy()
    try:
        return np.asarray(given)
    except ValueError:
        raise ValueError(f"{name} are lists of unequal lengths; give an array {shape}.") from None


def _text(values: np.ndarray) -> str:
    return f"{'text' if values.dtype.kind in 'US' else values.dtype} {values.shape}"
