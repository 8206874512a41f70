"""What a network gets wrong: its scores by class, the pairs of classes it confuses, and the labels worth a second look."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from era_support_packages.evaluation.intervals import Interval, share_interval
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table

# ---- scores by class ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClassScores(Readable):
    """Precision, recall and F1 of each of C classes, float64 (C,) in [0, 1]; NaN for a class without images."""

    classes: tuple[str, ...]
    precision: np.ndarray
    """of the images given the class, the share that belongs to it; 0 where none is given it"""
    recall: np.ndarray
    """of the images of the class, the share that is given it: the accuracy of the class"""
    f1: np.ndarray
    """the harmonic mean of the two"""
    support: np.ndarray
    """int64 (C,): the images of the class"""
    predicted: np.ndarray
    """int64 (C,): the images that are given the class"""

    @property
    def macro(self) -> tuple[float, float, float]:
        """The means of precision, recall and F1 over the classes that have images, each class counting the same."""
        known = self.support > 0
        precision, recall, f1 = (float(values[known].mean()) for values in (self.precision, self.recall, self.f1))
        return precision, recall, f1

    def order(self) -> np.ndarray:
        """The classes from the lowest F1 to the highest, int64 (C,); those without images last."""
        return np.argsort(self.f1, kind="stable")  # numpy sorts NaN to the end

    def table(self) -> Table:
        """A row a class, lowest F1 first, with the means over the classes below."""
        values = (self.precision, self.recall, self.f1, self.support, self.predicted)
        rows = [(self.classes[index], *(column[index] for column in values)) for index in self.order()]
        columns = (Column("class"), *(Column(name, ".3f") for name in ("precision", "recall", "F1")))
        columns += (Column("images", "d"), Column("predicted", "d"))
        return Table(columns, tuple(rows), footer=(("mean over classes", *self.macro, None, None),))

    def reading(self) -> str:
        """One sentence on the class with the lowest F1: how much of it is found, and how much is wrongly taken for it."""
        weakest = self.order()[0]
        if self.f1[weakest] == 1:
            return f"Every class has an F1 of 1: all {self.support.sum():,} images are classified correctly."
        return (
            f"The weakest class is {self.classes[weakest]}, with an F1 of {self.f1[weakest]:.2f} (mean over classes "
            f"{self.macro[2]:.2f}): {100 * self.recall[weakest]:.1f} % of its images are found, "
            f"{100 * self.precision[weakest]:.1f} % of what is taken for it is right, and it is predicted "
            f"{self.predicted[weakest]:,} times for {self.support[weakest]:,} images."
        )


def class_scores(predictions: Predictions) -> ClassScores:
    """Precision, recall, F1 and number of images of every class, by scikit-learn.

    Raises `ValueError` where there are no images or the logits are not finite.

    >>> import numpy as np
    >>> from era_support_packages import Predictions
    >>> from era_support_packages.evaluation import class_scores
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> print(class_scores(said).table())
    class              precision  recall     F1  images  predicted
    cat                    0.500   0.500  0.500       2          2
    dog                    0.500   0.500  0.500       2          2
    mean over classes      0.500   0.500  0.500
    """
    predictions.check()
    precision, recall, f1, support = precision_recall_fscore_support(
        predictions.actual, predictions.predicted, labels=range(len(predictions.classes)), zero_division=0
    )
    missing = support == 0
    precision, recall, f1 = (np.where(missing, np.nan, values) for values in (precision, recall, f1))
    given = np.bincount(predictions.predicted, minlength=len(predictions.classes))
    return ClassScores(tuple(predictions.classes), precision, recall, f1, support.astype(np.int64), given.astype(np.int64))


# ---- confused pairs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ConfusedPair:
    """The images of one class that are taken for one other class."""

    actual: int
    predicted: int
    indices: np.ndarray
    """int64 (K,): the images, the most confident mistake first"""
    confidences: np.ndarray
    """float64 (K,): the probability of the predicted class"""
    support: int
    """the images of the actual class"""
    share: Interval
    """K of `support`, in [0, 1], with the 95 % interval of this pair by itself: of many pairs, the largest look too large"""

    @property
    def count(self) -> int:
        """How many mistakes of this kind there are."""
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class ConfusedPairs(Readable):
    """The pairs of an actual and a predicted class that occur most often among the mistakes."""

    pairs: tuple[ConfusedPair, ...]
    """most images first; of as many, the larger share of the actual class first"""
    mistakes: int
    """all mistakes, those of the pairs not listed included"""
    total: int
    """all images of the split"""
    classes: tuple[str, ...]

    def table(self) -> Table:
        """A row a pair, the one with the most images first."""
        columns = (Column("class"), Column("taken for"), Column("images", "d"), Column("of", "d"))
        rows = [(self.classes[p.actual], self.classes[p.predicted], p.count, p.support, p.share) for p in self.pairs]
        caption = "share: of the class's images, in percent, with the 95 % interval of each pair by itself."
        return Table((*columns, Column("share", ".1f", factor=100)), tuple(rows), caption)

    def reading(self) -> str:
        """One sentence: the pair that occurs most often, and its part in all mistakes."""
        if not self.pairs:
            return f"All {self.total:,} images are classified correctly: no class is taken for another."
        first = self.pairs[0]
        back = next((p.count for p in self.pairs if (p.actual, p.predicted) == (first.predicted, first.actual)), None)
        reverse = "" if back is None else f", and the other way round {back:,}"
        return (
            f"Most often {self.classes[first.actual]} is taken for {self.classes[first.predicted]}: {first.count:,} of "
            f"{first.support:,} images ({100 * first.share.estimate:.1f} %){reverse}; that is "
            f"{100 * (first.count + (back or 0)) / self.mistakes:.1f} % of all {self.mistakes:,} mistakes."
        )


def most_confused(predictions: Predictions, count: int = 10) -> ConfusedPairs:
    """The `count` pairs (actual class, predicted class) with the most mistakes; fewer where there are not as many.

    Raises `ValueError` where there are no images, the logits are not finite, or `count` is below 1.

    >>> import numpy as np
    >>> from era_support_packages import Predictions
    >>> from era_support_packages.evaluation import most_confused
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> pairs = most_confused(said).pairs
    >>> [(pair.actual, pair.predicted, pair.count) for pair in pairs]
    [(0, 1, 1), (1, 0, 1)]
    """
    predictions.check()
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least 1 pair.")
    confusions = predictions.confusion_matrix()
    support = confusions.sum(axis=1)
    np.fill_diagonal(confusions, 0)
    cells = [(int(actual), int(predicted)) for actual, predicted in np.argwhere(confusions)]
    cells.sort(key=lambda cell: (-confusions[cell], support[cell[0]]))
    pairs = tuple(_pair(predictions, actual, predicted, int(support[actual])) for actual, predicted in cells[:count])
    return ConfusedPairs(pairs, int(confusions.sum()), len(predictions), tuple(predictions.classes))


def _pair(predictions: Predictions, actual: int, predicted: int, support: int) -> ConfusedPair:
    indices = np.flatnonzero((predictions.labels == actual) & (predictions.predicted == predicted))
    indices = indices[np.argsort(-predictions.confidences[indices], kind="stable")]
    share = share_interval(len(indices), support)
    return ConfusedPair(actual, predicted, indices, predictions.confidences[indices], support, share)


# ---- labels worth a look -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LabelCandidates(Readable):
    """Images whose label the network contradicts with confidence, the least probable label first."""

    indices: np.ndarray
    """int64 (K,): the images"""
    labels: np.ndarray
    """int64 (K,): the class each is labelled with"""
    suggested: np.ndarray
    """int64 (K,): the class the network is confident of instead"""
    probabilities: np.ndarray
    """float64 (K, 2): of the labelled and of the suggested class"""
    thresholds: np.ndarray
    """float64 (C,): the mean probability of each class over the images labelled with it; NaN where there are none"""
    total: int
    """all images of the split"""
    classes: tuple[str, ...]

    def table(self) -> Table:
        """A row an image, the least probable label first."""
        probabilities = ("probability of the label", "probability of the suggestion")
        columns = (Column("label"), Column("suggested"), Column("image", "d"), *(Column(name, ".3f") for name in probabilities))
        labels, suggested = ([self.classes[label] for label in labels] for labels in (self.labels, self.suggested))
        return Table(columns, tuple(zip(labels, suggested, self.indices, *self.probabilities.T, strict=True)))

    def reading(self) -> str:
        """One sentence: how many labels are worth a look, and that being worth a look is not being wrong."""
        if not len(self.indices):
            return f"No label of the {self.total:,} images is contradicted with confidence."
        verb = "is" if len(self.indices) == 1 else "are"
        return (
            f"{len(self.indices):,} of {self.total:,} labels {verb} worth a look: the network is as sure of another class as it "
            "is on average of that class's own images. Only a person who looks can tell a wrong label from a wrong network."
        )


def suspicious_labels(predictions: Predictions) -> LabelCandidates:
    """Labels worth a look: images that the network would confidently call something else (confident learning).

    An image is listed where its most probable class is not its label and at least as probable as that class is on average
    on the images labelled with it, which allows for a network too sure or not sure enough of a class (Northcutt, Jiang and
    Chuang 2021, arXiv:1911.00068, section 3.1). The list is sorted by the probability of the label (their self-confidence).
    With 54 labels of CIFAR-10's test split exchanged at random, the first 54 places held 31 of them with a network of 85 % and
    21 with one of 68 % (means of ten draws); sorted by the difference of the two probabilities, 25 and 11.

    It is a ranking for looking, not a verdict: most of what an ordinary network contradicts is labelled correctly. About
    0.5 % of CIFAR-10's test labels are wrong (Northcutt, Athalye and Mueller 2021, arXiv:2103.14749), far less than a
    network's mistakes. It says nothing on images that the network was trained on, whose labels it has learnt.

    Raises `ValueError` where there are no images or the logits are not finite.

    >>> import numpy as np
    >>> from era_support_packages import Predictions
    >>> from era_support_packages.evaluation import suspicious_labels
    >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]])
    >>> said = Predictions(logits, np.array([0, 0, 1, 1]), ("cat", "dog"))
    >>> found = suspicious_labels(said)
    >>> found.indices, found.suggested
    (array([2, 1]), array([0, 1]))
    """
    predictions.check()
    labels, suggested, probabilities = predictions.actual, predictions.predicted, predictions.probabilities
    everywhere = np.arange(len(predictions))
    of_labels, of_suggested = probabilities[everywhere, labels], probabilities[everywhere, suggested]
    count = len(predictions.classes)
    with np.errstate(invalid="ignore"):
        thresholds = np.bincount(labels, of_labels, count) / np.bincount(labels, minlength=count)
    # A class without images has no threshold to reach: the comparison with NaN is false.
    indices = np.flatnonzero((suggested != labels) & (of_suggested >= thresholds[suggested]))
    indices = indices[np.argsort(of_labels[indices], kind="stable")]
    return LabelCandidates(
        indices=indices,
        labels=labels[indices],
        suggested=suggested[indices],
        probabilities=np.stack([of_labels, of_suggested], axis=1)[indices],
        thresholds=thresholds,
        total=len(predictions),
        classes=tuple(predictions.classes),
    )
