"""Calibration: bins and errors by hand, intervals on simulated networks, temperatures that are known beforehand."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from era_support_packages.evaluation.calibration import Calibration, calibrate, reliability
from era_support_packages.evaluation.intervals import Interval, share_interval
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.evaluation.temperature import (
    NoTemperatureError,
    fit_temperature,
    stratified_halves,
    temperature_scaling,
)


def predictions(confidences: np.ndarray, right: np.ndarray) -> Predictions:
    """Two classes; class 0 is predicted with the given confidences (N,), above 0.5, and is the label where `right`."""
    confidences = np.asarray(confidences, dtype=np.float64)
    logits = np.stack([np.log(confidences), np.log1p(-confidences)], axis=1)
    return Predictions(logits, np.where(right, 0, 1), ("a", "b"))


def of_ten(confidence: float, right: int, count: int) -> Predictions:
    """Images of one confidence, so many of each ten right."""
    return predictions(np.full(count, confidence), np.arange(count) % 10 < right)


def simulated(count: int, overconfidence: float, seed: int) -> Predictions:
    """A network that is right less often than it says, by the same number at every confidence."""
    generator = np.random.default_rng(seed)
    confidences = 0.6 + 0.39 * generator.beta(3, 1, count)
    return predictions(confidences, generator.random(count) < confidences - overconfidence)


def test_the_bins_by_hand() -> None:
    result = reliability(predictions([0.9, 0.6, 0.8, 0.7], [True, False, True, True]), bins=2, draws=10)
    np.testing.assert_array_equal(result.counts, [2, 2])
    np.testing.assert_allclose(result.confidences, [0.65, 0.85])
    np.testing.assert_allclose(result.accuracies, [0.5, 1])
    np.testing.assert_allclose(result.gaps, [0.15, -0.15])
    wilson = [share_interval(1, 2), share_interval(2, 2)]
    np.testing.assert_array_equal(result.accuracy_intervals, [[interval.low, interval.high] for interval in wilson])
    assert result.error.estimate == pytest.approx(0.15)
    assert result.confidence == pytest.approx(0.75)
    assert result.accuracy == share_interval(3, 4)
    assert result.cross_entropy == pytest.approx(-math.log(0.9 * 0.4 * 0.8 * 0.7) / 4)


@pytest.mark.parametrize(
    ("confidences", "right", "error"), [([0.9, 0.6, 0.8], [True, False, True], (0.6 + 0.2 + 0.1) / 3), ([0.8], [True], 0.2)]
)
def test_with_fewer_images_than_bins_each_is_a_bin(confidences: list[float], right: list[bool], error: float) -> None:
    result = reliability(predictions(confidences, right), draws=10)
    assert result.counts.tolist() == [1] * len(confidences)
    np.testing.assert_allclose(result.confidences, sorted(confidences))
    assert result.error.estimate == pytest.approx(error)


def test_every_image_is_in_one_bin_of_as_many_images_as_can_be_whatever_their_order() -> None:
    given = simulated(104, 0.1, seed=0)
    result = reliability(given, draws=1)
    assert sorted(result.counts.tolist()) == [6] + [7] * 14
    assert (np.diff(result.confidences) > 0).all()
    assert np.average(result.accuracies, weights=result.counts) == pytest.approx(given.accuracy / 100)
    shuffled = given.take(np.random.default_rng(0).permutation(104))
    np.testing.assert_allclose(reliability(shuffled, draws=1).accuracies, result.accuracies)


def test_the_error_agrees_with_bins_cut_by_numpy() -> None:
    given = simulated(600, 0.1, seed=1)
    right = given.predicted == given.labels
    parts = np.array_split(np.argsort(given.confidences), 15)
    expected = np.mean([abs(given.confidences[part].mean() - right[part].mean()) for part in parts])
    assert reliability(given, draws=1).error.estimate == pytest.approx(expected)


def test_equal_confidences_are_not_cut_in_file_order() -> None:
    error = reliability(predictions(np.full(600, 0.75), np.arange(600) < 450), draws=100).error  # the mistakes lie together
    assert error.estimate < 0.1  # bins in file order would give 0.375
    assert error.low == 0


@pytest.mark.parametrize(("bins", "draws"), [(0, 5), (5, 0), (-1, 5)])
def test_bins_and_draws_below_1_are_refused(bins: int, draws: int) -> None:
    with pytest.raises(ValueError, match=rf"bins and draws must be at least 1, not {bins} and {draws}"):
        reliability(predictions([0.8], [True]), bins, draws)


def test_the_error_of_calibrated_networks_is_that_of_the_binomial_distribution() -> None:
    # One bin of ten images at 0.7: the mean of |hits / 10 - 0.7| over the binomial distribution.
    hits = np.arange(11)
    expected = float((binom.pmf(hits, 10, 0.7) * np.abs(hits / 10 - 0.7)).sum())
    found = reliability(of_ten(0.7, 7, 10), bins=1, draws=20_000).calibrated_error
    assert found.estimate == pytest.approx(expected, abs=0.003)
    assert (found.low, found.high) == pytest.approx((0, 0.3))  # 4 to 9 hits hold 96 %, 4 to 10 the rest above


@pytest.mark.parametrize(("count", "overconfidence", "held", "beyond_0"), [(200, 0, 54, 0), (500, 0.1, 50, 50), (20, 0.2, 0, 0)])
def test_the_interval_holds_the_true_error_in_most_networks(count: int, overconfidence: float, held: int, beyond_0: int) -> None:
    errors = [reliability(simulated(count, overconfidence, seed), draws=100, seed=seed).error for seed in range(60)]
    assert sum(not error.excludes(overconfidence) for error in errors) >= held
    assert sum(error.excludes(0) for error in errors) >= beyond_0
    assert np.mean([error.estimate for error in errors]) > 0.05  # also where it is 0: the bias that the docstring tells of
    assert all(0 <= error.low <= error.estimate <= error.high <= 1 for error in errors)


def test_without_mistakes_the_error_may_still_be_as_large_as_the_accuracy_is_uncertain() -> None:
    error = reliability(of_ten(0.9999, 10, 360), draws=50).error
    assert (error.estimate, error.low) == (pytest.approx(0.0001), 0)
    assert error.high == pytest.approx(0.9999 - share_interval(360, 360).low)


def test_the_same_seed_gives_the_same_numbers_and_the_global_state_stays() -> None:
    given, state = simulated(100, 0.1, seed=3), np.random.get_state()[1].tolist()
    first, again, other = (reliability(given, draws=50, seed=seed) for seed in (1, 1, 2))
    assert (first.error, first.calibrated_error) == (again.error, again.calibrated_error)
    assert first.error != other.error
    assert first.error.estimate == other.error.estimate
    assert np.random.get_state()[1].tolist() == state


def test_the_reading_names_overconfidence_and_an_error_beyond_chance() -> None:
    result = reliability(of_ten(0.9, 7, 1000), bins=1, draws=200)
    error, chance = result.error, result.calibrated_error
    assert result.reading() == (
        "The network is overconfident: the mean confidence is 90.0 %, and 70.0 % of the images are right "
        f"(95 % interval 67.1 to 72.8 %). The expected calibration error is 20.0 % (95 % interval {100 * error.low:.1f} to "
        f"{100 * error.high:.1f} %), more than chance alone explains: perfectly calibrated networks show "
        f"{100 * chance.estimate:.1f} % on as many images ({100 * chance.low:.1f} to {100 * chance.high:.1f} %)."
    )
    under = reliability(of_ten(0.7, 9, 1000), bins=1, draws=50).reading()
    assert "is underconfident: the mean confidence is 70.0 %, and 90.0 % of the images are right" in under
    neither = reliability(of_ten(0.72, 7, 100), bins=1, draws=200).reading()
    assert "On average the network is neither over- nor underconfident as far as these images tell: " in neither
    assert ", no more than chance alone explains: " in neither


def true_odds(temperature: float) -> Predictions:
    """Eight images, labelled 5 : 2 : 1, with logits that are `temperature` times the logarithm of exactly these odds."""
    return Predictions(temperature * np.log([[5, 2, 1]] * 8), np.array([0, 0, 0, 0, 0, 1, 1, 2]), ("a", "b", "c"))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1, 2.5, 40])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert fit_temperature(true_odds(temperature)) == pytest.approx(temperature, rel=1e-9)


@pytest.fixture
def random_predictions() -> Predictions:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, 4)).astype(np.float32) * 3
    labels = np.where(generator.random(200) < 0.6, logits.argmax(axis=1), generator.integers(0, 4, 200))
    return Predictions(logits, labels, tuple("abcd"))


def test_the_temperature_minimizes_the_mean_cross_entropy(random_predictions: Predictions) -> None:
    logits, labels, classes = random_predictions.logits.astype(np.float64), random_predictions.labels, tuple("abcd")

    def cross_entropy(temperature: float) -> float:
        return Predictions(logits / temperature, labels, classes).mean_loss

    expected = minimize_scalar(cross_entropy, bounds=(0.1, 50), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(random_predictions) == pytest.approx(expected.x, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[1, 0], [0, 2]], [0, 1], "2 images that are practically all classified correctly: the sharper .*; take more images"),
        ([[1, 0], [1, 0]], [0, 1], "2 images whose labels the logits do not tell: the flatter .*; train the network first"),
        ([[1, 0], [0, 2]], [1, 0], "2 images whose labels the logits do not tell: the flatter .*; train the network first"),
        ([[0, 0]] * 4, [0, 1, 1, 0], "No temperature fits 4 images"),
        ([[1e4, -1e4]] * 3, [0, 0, 1], "No temperature fits 3 images"),  # 2e4 / ln 2, beyond 100
    ],
)
def test_where_no_temperature_fits_the_reason_is_given(logits: list, labels: list, message: str) -> None:
    given = Predictions(np.array(logits, dtype=np.float32), np.array(labels), ("a", "b"))
    with np.errstate(over="raise", invalid="raise", divide="raise"), pytest.raises(NoTemperatureError, match=message):
        fit_temperature(given)


def test_the_halves_share_out_every_class() -> None:
    labels = np.repeat([0, 1, 2, 4], [10, 7, 1, 3])
    second = stratified_halves(labels)
    assert (second.dtype, second.sum()) == (bool, 10)  # of 21
    for label in range(5):
        own = second[labels == label]
        assert abs(2 * own.sum() - len(own)) <= 1
    np.testing.assert_array_equal(second, stratified_halves(labels, seed=0))
    assert (second != stratified_halves(labels, seed=1)).any()


def test_each_image_is_scaled_by_the_temperature_of_the_other_half(random_predictions: Predictions) -> None:
    given, result = random_predictions, temperature_scaling(random_predictions, seed=3)
    second = stratified_halves(given.labels, seed=3)
    np.testing.assert_array_equal(result.second_half, second)
    for half, own, other in ((~second, *result.temperatures), (second, *result.temperatures[::-1])):
        assert fit_temperature(given.take(half)) == pytest.approx(own, rel=1e-12)
        np.testing.assert_allclose(result.scaled.logits[half] * other, given.logits[half], rtol=1e-12)
    assert result.temperatures[0] != result.temperatures[1]
    np.testing.assert_array_equal(result.scaled.predicted, given.predicted)


def test_one_image_cannot_be_halved() -> None:
    with pytest.raises(NoTemperatureError, match="one image cannot be halved; temperature scaling needs at least 2"):
        temperature_scaling(predictions([0.8], [True]))


@pytest.fixture
def twice_too_sharp() -> Calibration:
    """Labels 3 : 1 where the logits say 9 : 1, which a temperature of 2 puts right, in either half exactly."""
    logits = 2 * np.log([[0.75, 0.25]] * 80)
    return calibrate(Predictions(logits, np.array([0, 0, 0, 1] * 20), ("a", "b")), bins=1, draws=100)


def test_before_and_after_by_hand(twice_too_sharp: Calibration) -> None:
    result = twice_too_sharp
    assert result.temperatures == pytest.approx((2, 2))
    assert result.before.error.estimate == pytest.approx(0.9 - 0.75)
    assert result.after.error.estimate == pytest.approx(0, abs=1e-9)
    assert result.before.cross_entropy == pytest.approx(-0.75 * math.log(0.9) - 0.25 * math.log(0.1))
    assert result.after.cross_entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert result.gain.estimate == pytest.approx(result.before.cross_entropy - result.after.cross_entropy)
    assert (result.obstacle, result.seed) == ("", 0)


def test_the_reading_gives_both_temperatures_and_claims_a_gain_only_beyond_chance(twice_too_sharp: Calibration) -> None:
    result, low, high = twice_too_sharp, twice_too_sharp.gain.low, twice_too_sharp.gain.high
    assert low <= 0 <= high  # 80 images are too few: the gain is 0.092 nats
    assert result.reading() == (
        f"{result.before.reading()} Temperature scaling (T = 2.00 and 2.00, each fitted on one half of the images and scored on "
        f"the other) leaves an error of 0.0 % (95 % interval 0.0 to {100 * result.after.error.high:.1f} %) and does not clearly "
        f"change the mean cross entropy: 0.655 before, 0.562 after (95 % interval of the gain {low:.3f} to {high:.3f} nats)."
    )
    for gain, verb in ((Interval(1, 0.5, 2), " and lowers the "), (Interval(-1, -2, -0.5), " and raises the ")):
        assert verb in Calibration(result.before, result.after, result.temperatures, gain, "", 0).reading()


def test_the_tables_hold_what_was_measured(twice_too_sharp: Calibration) -> None:
    result = twice_too_sharp
    rows = [
        (name, 0.75, each.confidence, each.error, each.calibrated_error, each.cross_entropy)
        for name, each in (("as trained", result.before), ("temperature-scaled", result.after))
    ]
    assert result.table().rows == tuple(rows)
    [(number, count, confidence, accuracy)] = result.before.table().rows
    assert (number, count, confidence, accuracy.estimate) == (1, 80, pytest.approx(0.9), 0.75)
    assert [accuracy.low, accuracy.high] == result.before.accuracy_intervals[0].tolist()


def test_without_mistakes_the_reliability_is_given_and_the_reason_why_nothing_is_scaled() -> None:
    result = calibrate(of_ten(0.9, 10, 20), draws=20)
    assert (result.after, result.temperatures, result.gain) == (None, None, None)
    said = "Temperature scaling is left out: No temperature fits 10 images that are practically all classified correctly: the"
    assert result.reading().startswith(f"{result.before.reading()} {said}")
    assert [row[0] for row in result.table().rows] == ["as trained"]


@pytest.mark.parametrize(("sharpness", "gains"), [(2, [9, 10]), (1, [0, 1])])
def test_a_gain_in_nine_of_ten_networks_that_are_too_sharp_and_none_in_those_that_are_not(
    sharpness: float, gains: list[int]
) -> None:
    generator, lows = np.random.default_rng(0), []
    for _ in range(10):
        logits = generator.normal(size=(400, 3)) * 2
        odds = np.exp(logits)
        labels = (generator.random((400, 1)) > np.cumsum(odds / odds.sum(1, keepdims=True), 1)[:, :2]).sum(1)
        lows.append(calibrate(Predictions(sharpness * logits, labels, ("a", "b", "c")), draws=5).gain.low)
    assert sum(low > 0 for low in lows) in gains
