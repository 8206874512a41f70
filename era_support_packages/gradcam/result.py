"""What an explanation is: the maps, of which classes and layers they are, and what a figure or a reader needs beside them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table

if TYPE_CHECKING:
    from era_support_packages.gradcam.cells import Cells  # which is slow to import

ALL_LAYERS = "all layers"
"""the layer's name where a method makes one map from all of them"""


@dataclass(frozen=True, eq=False)
class Explanation(Readable):
    """Class activation maps of N images for T target classes each, at L layers.

    >>> from era_support_packages import Classifier, ResNet18, load
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> explanation = classifier.explain(test, [0, 1], layers=["layer3", "layer4"])
    >>> explanation.maps.shape, explanation.grids
    ((2, 1, 2, 16, 16), ((4, 4), (2, 2)))
    """

    maps: np.ndarray
    """float32 (N, T, L, H, W) in [0, 1], each scaled by itself, at the images' resolution; a constant map is zeros"""
    targets: np.ndarray
    """int64 (N, T): the class ids explained"""
    layers: tuple[str, ...]
    """the names of the L layers, in the order asked for, "layer3+layer4" for the mean of two; `ALL_LAYERS` alone for FullGrad"""
    confidences: np.ndarray
    """float32 (N, T): probability of each target class, by the softmax, or by the sigmoid where that was asked for"""
    raw_ranges: np.ndarray
    """float32 (N, T, L, 2): minimum and maximum of the map after its ReLU, unscaled, at the layer's resolution; of a mean of
    several layers before it is scaled again, at the image's"""
    method: str
    """the key of `METHODS` that made the maps"""
    grids: tuple[tuple[int, int], ...]
    """height and width of each layer's activation, of the image for FullGrad, of a mean of several the finest: how finely the
    maps can mark a place"""
    predicted: np.ndarray
    """int64 (N,): the classes with the highest logit"""
    score: str = "logit"
    """what the maps explain: "logit", or "log-probability" of a network that returns probabilities, whose maps are others"""
    images: np.ndarray | None = None
    """uint8 (N, H, W, 3): the images as the network saw them, which figures show; `Classifier.explain` knows them"""
    labels: np.ndarray | None = None
    """int64 (N,): the actual classes, where they are known"""
    classes: tuple[str, ...] = ()
    """the names of the classes, where they are known"""
    cells: "tuple[Cells | None, ...]" = ()
    """where the cells of each layer's grid lie in the image; None where the map is stretched over it, or of several layers"""

    @property
    def constant(self) -> np.ndarray:
        """bool (N, T, L): where the unscaled map has one value everywhere, so that it marks nothing and is shown as zeros"""
        return self.raw_ranges[..., 0] == self.raw_ranges[..., 1]

    @property
    def pictures(self) -> np.ndarray:
        """The images. Raises `ValueError` where the explanation came without them."""
        if self.images is None:
            raise ValueError(
                "This explanation holds no images to show, as `gradcam.explain` sees normalised ones only; take "
                "Classifier.explain."
            )
        return self.images

    def agreeing(self, said: Predictions, softmax: bool = True) -> "Explanation":
        """The same with the predicted classes of predictions (N) of these images, and where `softmax`, with their probabilities.

        These are made in the network's own precision, explanations in float32: so a page has one percentage for one image.
        """
        if not softmax:
            return replace(self, predicted=said.predicted)
        confidences = np.take_along_axis(said.probabilities, self.targets, axis=1).astype(np.float32)
        return replace(self, predicted=said.predicted, confidences=confidences)

    def table(self) -> Table:
        """A row for each image and class explained: how probable the class is, and at which layers the map marks nothing."""
        columns = (Column("image", "d"), Column("class"), Column("confidence", ".1f", factor=100), Column("marks nothing at"))
        rows = [
            (
                image,
                self._name(class_id),
                self.confidences[image, place],
                ", ".join(layer for layer, same in zip(self.layers, self.constant[image, place], strict=True) if same) or None,
            )
            for image, ids in enumerate(self.targets)
            for place, class_id in enumerate(ids)
        ]
        return Table(columns, tuple(rows), "confidence: the probability of the class, in percent.")

    def reading(self) -> str:
        """What was explained, and how many of the maps mark nothing."""
        from era_support_packages.gradcam.methods import METHODS  # here, because it is slow to import

        count, classes, layers = self.maps.shape[:3]
        text = (
            f"{METHODS[self.method].title} at {', '.join(self.layers)}: {count} image{'s' * (count > 1)}, {classes} "
            f"class{'es' * (classes > 1)} each."
        )
        constant = int(self.constant.sum())
        if not constant:
            return text
        return f"{text} {constant} of the {count * classes * layers} maps are constant: they mark nothing."

    def _name(self, class_id: int) -> str:
        return self.classes[class_id] if self.classes else f"class {class_id}"
