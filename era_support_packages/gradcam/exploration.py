"""One image under every method: the maps as values, and how many passes through the network they take."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from era_support_packages.evaluation.cautions import told_once
from era_support_packages.evaluation.intervals import percent
from era_support_packages.evaluation.tables import Column, Readable, Table
from era_support_packages.gradcam import explanation
from era_support_packages.gradcam.explanation import Explanation
from era_support_packages.gradcam.full_gradient import FullGradientError
from era_support_packages.gradcam.methods import METHODS, check_method


@dataclass(frozen=True, eq=False)
class Exploration(Readable):
    """The class activation maps of one image for one class, by every method at every layer; `Classifier.explore` makes it.

    >>> from era_support_packages import Classifier, ResNet18, load
    >>> _, test = load("digits")
    >>> classifier = Classifier(ResNet18(), test.classes, test.mean, test.std, resolution=16)  # not trained
    >>> found = classifier.explore(test, index=0, methods=["gradcam", "eigencam"])
    >>> [(each.method, each.layers[-1]) for each in found.explanations]
    [('gradcam', 'layer4'), ('eigencam', 'layer4')]
    """

    explanations: tuple[Explanation, ...]
    """one for each method, each of one image and one class, with the image itself"""

    @property
    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), as the network saw it."""
        return self.explanations[0].pictures[0]

    @property
    def class_id(self) -> int:
        """The class explained."""
        return int(self.explanations[0].targets[0, 0])

    @property
    def confidence(self) -> float:
        """Softmax probability of the class, in [0, 1]."""
        return float(self.explanations[0].confidences[0, 0])

    @property
    def subject(self) -> str:
        """What is explained, for a title: "Why cat? Every method for one mistake (dog taken for cat)"."""
        first = self.explanations[0]
        name, predicted = (first.classes[class_id] for class_id in (self.class_id, int(first.predicted[0])))
        label = None if first.labels is None else first.classes[int(first.labels[0])]
        kind = (
            "image" if label is None else "right prediction" if label == predicted else f"mistake ({label} taken for {predicted})"
        )
        return f"Why {name}? Every method for one {kind}"

    def table(self) -> Table:
        """A row a method: whether it explains a class, and at which layers its map marks nothing."""
        columns = (Column("method"), Column("of the class"), Column("marks nothing at"))
        rows = []
        for each in self.explanations:
            constant = ", ".join(layer for layer, same in zip(each.layers, each.constant[0, 0], strict=True) if same)
            specific = "yes" if METHODS[each.method].class_specific else "no"
            rows.append((METHODS[each.method].title, specific, constant or None))
        return Table(columns, tuple(rows), "of the class: no, where the map is the same for every class.")

    def reading(self) -> str:
        """What is explained, and how probable it is."""
        return f"{self.subject}. The probability of the class is {percent(self.confidence)}."


def image_passes(
    model: nn.Module, image: Tensor, *, layers: Sequence[str] | None = None, methods: Sequence[str] | None = None
) -> int:
    """How many images `Classifier.explore` sends through the network, known before it starts; a backward pass counts double.

    image: float (1, 3, H, W), normalised. methods, layers: as for `explain`, None for all methods.
    """
    names = checked_methods(methods)
    return sum(explanation.image_passes(model, image, layers_of(name, layers), name) for name in names)


@told_once
def explored(explain: Callable[[str], Explanation], methods: Sequence[str] | None) -> Exploration:
    """An image under the methods named, or under all (None), less FullGrad where it is refused, with a warning."""
    found = []
    for name in checked_methods(methods):
        try:
            found.append(explain(name))
        except FullGradientError as error:
            if methods is not None:
                raise
            warnings.warn(f"{METHODS[name].title} is left out: {error}", stacklevel=3)
    return Exploration(tuple(found))


def checked_methods(methods: Sequence[str] | None) -> tuple[str, ...]:
    """The methods by name, all of them for None. Raises `ValueError` for a name that is none, and where there is no name."""
    names = tuple(METHODS) if methods is None else (methods,) if isinstance(methods, str) else tuple(methods)
    if not names:
        raise ValueError("methods is empty; name at least one method, or pass None for all.")
    for name in names:
        check_method(name)
    return names


def layers_of(method: str, layers: Sequence[str] | None) -> Sequence[str] | None:
    """The layers as a method takes them: none for one that makes its map from all."""
    return None if METHODS[method].all_layers else layers


def check_index(value: int, count: int, name: str, what: str) -> None:
    """Raise `ValueError` where `value` is not one of `count` numbers."""
    if not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise ValueError(f"{name} is {value!r}; there are {count} {what}, so give a whole number from 0 to {count - 1}.")
