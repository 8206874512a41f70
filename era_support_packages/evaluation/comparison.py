"""Two networks on the same images: the paired difference of their accuracies, and whether chance could have made it."""

from dataclasses import dataclass

import numpy as np

from era_support_packages.datasets.streaming import known_to_differ
from era_support_packages.evaluation.intervals import Interval, paired_share_interval
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table

SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class PairedComparison(Readable):
    """What two networks, called `first` and `second`, say of the same labelled images.

    >>> import numpy as np
    >>> from era_support_packages import Predictions
    >>> from era_support_packages.evaluation import PairedComparison
    >>> labels = np.array([0, 0, 1, 1])
    >>> one = Predictions(np.eye(2)[[0, 0, 1, 0]], labels, ("cat", "dog"))
    >>> two = Predictions(np.eye(2)[[0, 1, 0, 1]], labels, ("cat", "dog"))
    >>> found = PairedComparison("one", "two", one, two)
    >>> found.only_first, found.only_second, found.p_value
    (array([1, 2]), array([3]), 1.0)

    Raises `ValueError` where the predictions are of different images, labels or classes, where there are none, or where logits
    are not finite.
    """

    first: str
    second: str
    of_first: Predictions
    of_second: Predictions

    def __post_init__(self) -> None:
        a, b = self.of_first, self.of_second
        other = a.classes != b.classes or not np.array_equal(a.actual, b.actual)
        if other or (a.images is not None and b.images is not None and known_to_differ(a.images, b.images)):
            raise ValueError(
                f"{self.first} and {self.second} were not tested on the same images, so that they cannot be compared image by "
                "image; give runs on the same data, or, of the same photos made square in two ways, predictions with images=None."
            )
        if len(a) == 0:
            raise ValueError("There are no images to compare two networks on; at least one is needed.")
        for name, said in ((self.first, a), (self.second, b)):
            try:
                said.check()
            except ValueError as error:
                raise ValueError(f"{name} cannot be compared. {error}") from None

    @property
    def _right(self) -> tuple[np.ndarray, np.ndarray]:
        return self.of_first.predicted == self.of_first.actual, self.of_second.predicted == self.of_second.actual

    @property
    def only_first(self) -> np.ndarray:
        """The images that the first gets right and the second does not, int64 (K,): where the second is surest, first."""
        first, second = self._right
        return _surest(np.flatnonzero(first & ~second), self.of_second)

    @property
    def only_second(self) -> np.ndarray:
        """The images that the second gets right and the first does not, int64 (K,): where the first is surest, first."""
        first, second = self._right
        return _surest(np.flatnonzero(~first & second), self.of_first)

    @property
    def difference(self) -> Interval:
        """Accuracy of the second minus that of the first, as shares, with the 95 % interval of `paired_share_interval`."""
        return paired_share_interval(*self._right)

    @property
    def p_value(self) -> float:
        """The exact two-sided McNemar test (McNemar 1947): how often chance alone would part them at least as far."""
        from scipy.stats import binomtest

        first, second = len(self.only_first), len(self.only_second)
        return 1.0 if first + second == 0 else float(binomtest(first, first + second).pvalue)

    def table(self) -> Table:
        """How many images which of the two gets right."""
        first, second = self._right
        rows = tuple(
            (name, int((first & is_second).sum()), int((~first & is_second).sum()))
            for name, is_second in ((f"{self.second} right", second), (f"{self.second} wrong", ~second))
        )
        columns = (Column("images"), Column(f"{self.first} right", "d"), Column(f"{self.first} wrong", "d"))
        return Table(columns, rows)

    def reading(self) -> str:
        """Which is better, by how much, and whether that could be chance."""
        found, p = self.difference, self.p_value
        points = f"{100 * found.estimate:+.2f} points [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
        said = f"{self.second} against {self.first} on the same {len(self.of_first):,} test images: {points}, p = {p:.2g}."
        if p >= SIGNIFICANT:
            return f"{said} {self._by_chance()}"
        return f"{said} That is more than chance; other seeds may still part as far, so train more than one of each."

    def _by_chance(self) -> str:
        """Why nothing can be said, also where the interval looks as if it could: it is an approximation, p is exact."""
        apart = len(self.only_first) + len(self.only_second)
        if apart == 0:
            return "Both get the same images right, so that nothing tells them apart; other images may still part them."
        if self.difference.low <= 0 <= self.difference.high:
            return "They cannot be told apart from chance."
        return (
            "They cannot be told apart from chance. The interval leaves out 0, but it is an approximation, too narrow for the "
            f"{apart:,} images that only one of them gets right: believe p, which is exact."
        )


def _surest(indices: np.ndarray, of: Predictions) -> np.ndarray:
    return indices[np.argsort(-of.confidences[indices], kind="stable")]
