"""Temperature scaling: one number that all logits are divided by, so that confidences mean what they say."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.tables import Column, Readable, Table

COLDEST, HOTTEST = 0.01, 100.0
FEWEST_IMAGES = 50  # fewer would make a temperature of chance
MOST_LOGITS = 5_000_000  # that a temperature is fitted on: a few seconds


class NoTemperatureError(ValueError):
    """No temperature fits these images best; the message says why."""


@dataclass(frozen=True, eq=False)
class TemperatureScaling(Readable):
    """Predictions whose logits are divided by a temperature that was fitted on other images."""

    temperatures: tuple[float, float]
    """fitted on the first half and on the second half of the images; above 1 the probabilities were too sharp"""
    second_half: np.ndarray
    """bool (N,): the images of the second half"""
    scaled: Predictions
    """each image with the temperature of the half that it does not belong to; logits float64"""

    def table(self) -> Table:
        """A row for each half of the images: the temperature fitted on it, and how many images it scales, those of the other."""
        sizes = (int(self.second_half.sum()), int((~self.second_half).sum()))
        columns = (Column("fitted on"), Column("temperature", ".3f"), Column("images scaled", "d"))
        rows = zip(("first half", "second half"), self.temperatures, sizes, strict=True)
        return Table(columns, tuple(rows), "Each temperature scales the images of the other half.")

    def reading(self) -> str:
        """Whether the probabilities were too sharp or too flat."""
        first, second = self.temperatures
        both = "too sharp" if min(first, second) > 1 else "not sharp enough" if max(first, second) < 1 else None
        said = f"were {both}" if both else "are neither clearly too sharp nor clearly too flat"
        return f"The probabilities {said}: the temperatures are {first:.2f} and {second:.2f}, each fitted on one half."


def fit_temperature(predictions: Predictions) -> float:
    """The temperature T that minimises the mean cross entropy of softmax(logits / T) (Guo et al. 2017, section 4.2).

    The cross entropy is convex in 1/T; the minimum is where its derivative in 1/T, the mean over the images of the logit
    expected under the softmax minus the label's logit, is zero. T lies from 0.01 to 100. Dividing by it changes no
    prediction.

    Raises `NoTemperatureError` (a `ValueError`) where the minimum is not in that range: practically all images are classified
    correctly, or the logits do not tell the labels; `ValueError` where there are no images or the logits are not finite.
    """
    predictions.check()
    logits = predictions.logits.astype(np.float64)
    of_labels = np.take_along_axis(logits, predictions.actual[:, None], axis=1).mean()

    def slope(log_temperature: float) -> float:
        probabilities = softmax(logits / np.exp(log_temperature), axis=1)
        return float((probabilities * logits).sum(axis=1).mean() - of_labels)

    coldest, hottest = np.log(COLDEST), np.log(HOTTEST)
    if slope(coldest) <= 0:
        raise NoTemperatureError(
            f"No temperature fits {len(logits)} images that are practically all classified correctly: the sharper their "
            "probabilities, the lower the cross entropy; take more images."
        )
    if slope(hottest) >= 0:
        raise NoTemperatureError(
            f"No temperature fits {len(logits)} images whose labels the logits do not tell: the flatter their probabilities, "
            "the lower the cross entropy; train the network first."
        )
    from scipy.optimize import brentq  # here, because it is slow to import

    return float(np.exp(brentq(slope, coldest, hottest, xtol=1e-12)))


def temperature_of(predictions: Predictions) -> float | None:
    """`fit_temperature` of all these images, or of some spread evenly where they are very many.

    None where no temperature fits, and where they are fewer than 50.
    """
    if len(predictions) < FEWEST_IMAGES:
        return None
    count = max(1, min(len(predictions), MOST_LOGITS // len(predictions.classes)))
    some = np.linspace(0, len(predictions) - 1, count).astype(np.int64)
    try:
        return fit_temperature(predictions.take(some))
    except NoTemperatureError:
        return None


def stratified_halves(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Which images are in the second half, bool (N,): each class of int64 labels (N,) is shared out as evenly as can be.

    The halves differ by one image at most, in all and within every class.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    second = np.zeros(len(labels), dtype=bool)
    second[by_class[1::2]] = True
    return second


def temperature_scaling(predictions: Predictions, seed: int = 0) -> TemperatureScaling:
    """Temperature scaling, cross-fitted: fitted on one stratified half of the images, used on the other, both ways.

    So no image is scaled by a temperature that has seen its label, and what is measured on `scaled` is measured on all N
    images. `seed` draws the halves.

    Raises `NoTemperatureError` (a `ValueError`) as `fit_temperature` does for either half, or where there is one image only.

    >>> import numpy as np
    >>> from era_support_packages import Predictions
    >>> from era_support_packages.evaluation import temperature_scaling
    >>> labels = np.arange(200) % 2
    >>> logits = np.random.default_rng(0).normal(1.5 * np.eye(2)[labels])
    >>> said = Predictions(logits, labels, ("cat", "dog"))
    >>> first, second = temperature_scaling(said).temperatures
    >>> 0 < first < 2 and 0 < second < 2
    True
    """
    predictions.check()
    if len(predictions) < 2:
        raise NoTemperatureError("one image cannot be halved; temperature scaling needs at least 2.")
    second = stratified_halves(predictions.actual, seed)
    first_temperature, second_temperature = (
        fit_temperature(Predictions(predictions.logits[half], predictions.actual[half], predictions.classes))
        for half in (~second, second)
    )
    temperatures = np.where(second, first_temperature, second_temperature)
    # In float64, so that dividing makes no two logits of an image equal.
    logits = predictions.logits.astype(np.float64) / temperatures[:, None]
    scaled = Predictions(logits, predictions.labels, predictions.classes)
    return TemperatureScaling((first_temperature, second_temperature), second, scaled)
