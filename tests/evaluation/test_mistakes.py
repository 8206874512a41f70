"""Mistakes: scores, pairs and label candidates by hand, against scikit-learn, and on labels exchanged on purpose."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from era_support_packages.evaluation.intervals import share_interval
from era_support_packages.evaluation.mistakes import class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions

CLASSES = ("cat", "dog", "ship")


def predictions(images: str, classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Images given as "actual predicted confidence, ..."; what is left of the confidence is shared out evenly."""
    rows = [image.split() for image in images.split(", ")]
    probabilities = np.empty((len(rows), len(classes)))
    for row, (_, predicted, confidence) in zip(probabilities, rows, strict=True):
        row[:] = (1 - float(confidence)) / (len(classes) - 1)
        row[classes.index(predicted)] = float(confidence)
    logits, labels = np.log(probabilities), np.array([classes.index(actual) for actual, *_ in rows])
    for values in (logits, labels):
        values.setflags(write=False)  # no analysis changes what it is given
    return Predictions(logits, labels, classes)


TEN_IMAGES = predictions(
    "cat cat 0.9, cat dog 0.6, cat dog 0.8, cat cat 0.7, "
    "dog dog 0.9, dog cat 0.5, dog dog 0.9, "
    "ship ship 0.9, ship cat 0.7, ship ship 0.9"
)
ALL_RIGHT = predictions("cat cat 0.9, dog dog 0.9, ship ship 0.5")


@pytest.fixture
def random_predictions() -> Predictions:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 6, 300)
    logits = generator.normal(size=(300, 6)).astype(np.float32)
    logits[np.arange(300), labels] += 1.5
    return Predictions(logits, labels, tuple("abcdef"))


def test_the_scores_by_hand() -> None:
    scores = class_scores(TEN_IMAGES)
    np.testing.assert_allclose(scores.precision, [2 / 4, 2 / 4, 2 / 2])
    np.testing.assert_allclose(scores.recall, [2 / 4, 2 / 3, 2 / 3])
    np.testing.assert_allclose(scores.f1, [1 / 2, 4 / 7, 4 / 5])
    np.testing.assert_array_equal(scores.support, [4, 3, 3])
    np.testing.assert_array_equal(scores.predicted, [4, 4, 2])
    assert scores.macro == pytest.approx((2 / 3, 11 / 18, (1 / 2 + 4 / 7 + 4 / 5) / 3))
    np.testing.assert_array_equal(scores.order(), [0, 1, 2])
    assert (scores.support.dtype, scores.predicted.dtype, scores.f1.dtype) == (np.int64, np.int64, np.float64)
    assert str(scores.table()).split("\n") == [
        "class              precision  recall     F1  images  predicted",
        "cat                    0.500   0.500  0.500       4          4",
        "dog                    0.500   0.667  0.571       3          4",
        "ship                   1.000   0.667  0.800       3          2",
        "mean over classes      0.667   0.611  0.624",
    ]


def test_the_means_are_those_of_scikit_learn_and_recall_is_the_accuracy(random_predictions: Predictions) -> None:
    scores = class_scores(random_predictions)
    expected = precision_recall_fscore_support(random_predictions.labels, random_predictions.predicted, average="macro")
    assert scores.macro == pytest.approx(expected[:3])
    np.testing.assert_allclose(100 * scores.recall, random_predictions.class_accuracies())


def test_a_class_without_images_has_no_scores_and_is_left_out_of_the_means(recwarn: pytest.WarningsRecorder) -> None:
    scores = class_scores(predictions("cat cat 0.9, cat ship 0.8, dog dog 0.9"))
    np.testing.assert_array_equal(scores.precision, [1, 1, np.nan])
    np.testing.assert_array_equal(scores.recall, [0.5, 1, np.nan])
    np.testing.assert_array_equal(scores.f1, [2 / 3, 1, np.nan])
    assert scores.macro == pytest.approx((1, 0.75, 5 / 6))
    np.testing.assert_array_equal(scores.predicted, [1, 1, 1])
    np.testing.assert_array_equal(scores.order(), [0, 1, 2])
    assert str(scores.table()).splitlines()[3].split() == ["ship", "-", "-", "-", "0", "1"]
    assert not recwarn.list


def test_a_class_that_is_never_predicted_counts_as_0_in_the_means() -> None:
    scores = class_scores(predictions("cat dog 0.9, dog dog 0.9", ("cat", "dog")))
    np.testing.assert_array_equal(scores.precision, [0, 0.5])
    np.testing.assert_array_equal(scores.f1, [0, 2 / 3])
    assert scores.macro == pytest.approx((0.25, 0.5, 1 / 3))


def test_the_reading_of_the_scores_names_the_weakest_class() -> None:
    assert class_scores(TEN_IMAGES).reading() == (
        "The weakest class is cat, with an F1 of 0.50 (mean over classes 0.62): 50.0 % of its images are found, 50.0 % of what "
        "is taken for it is right, and it is predicted 4 times for 4 images."
    )
    assert class_scores(ALL_RIGHT).reading() == "Every class has an F1 of 1: all 3 images are classified correctly."


def test_the_pairs_by_hand() -> None:
    confused = most_confused(TEN_IMAGES)
    # Of pairs with one image, a ship of 3 and a dog of 3 are the same share: the order of the classes decides.
    assert [(pair.actual, pair.predicted, pair.count) for pair in confused.pairs] == [(0, 1, 2), (1, 0, 1), (2, 0, 1)]
    first = confused.pairs[0]
    np.testing.assert_array_equal(first.indices, [2, 1])
    np.testing.assert_allclose(first.confidences, [0.8, 0.6])
    assert (first.support, first.share) == (4, share_interval(2, 4))
    assert (confused.mistakes, confused.total, confused.classes) == (4, 10, CLASSES)
    assert confused.table().rows == (
        ("cat", "dog", 2, 4, share_interval(2, 4)),
        ("dog", "cat", 1, 3, share_interval(1, 3)),
        ("ship", "cat", 1, 3, share_interval(1, 3)),
    )


def test_of_pairs_with_as_many_images_the_larger_share_comes_first() -> None:
    given = predictions("cat dog 0.9, cat cat 0.9, cat cat 0.9, ship dog 0.9, ship ship 0.9")
    assert [pair.actual for pair in most_confused(given).pairs] == [2, 0]


def test_the_pairs_hold_every_mistake_once(random_predictions: Predictions) -> None:
    pairs = most_confused(random_predictions, count=100).pairs
    indices = np.concatenate([pair.indices for pair in pairs])
    np.testing.assert_array_equal(np.sort(indices), random_predictions.wrong("file"))
    counts = [pair.count for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    for pair in pairs:
        assert pair.count == random_predictions.confusion_matrix()[pair.actual, pair.predicted]
        assert (np.diff(pair.confidences) <= 0).all()


@pytest.mark.parametrize(
    ("count", "back", "share"), [(10, ", and the other way round 1; that is", "75.0 %"), (1, "; that is", "50.0 %")]
)
def test_the_reading_tells_both_directions_of_the_pairs_asked_for(count: int, back: str, share: str) -> None:
    confused = most_confused(TEN_IMAGES, count)
    assert (len(confused.pairs), confused.mistakes) == (min(count, 3), 4)
    said = f"Most often cat is taken for dog: 2 of 4 images (50.0 %){back} {share} of all 4 mistakes."
    assert confused.reading() == said


def test_without_mistakes_there_are_no_pairs() -> None:
    confused = most_confused(ALL_RIGHT)
    assert confused.pairs == confused.table().rows == ()
    assert confused.reading() == "All 3 images are classified correctly: no class is taken for another."


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_1_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^count is {count}; ask for at least 1 pair\.$"):
        most_confused(TEN_IMAGES, count)


def test_the_candidates_by_hand() -> None:
    candidates = suspicious_labels(TEN_IMAGES)
    # Of cat over the cats (0.9 + 0.2 + 0.1 + 0.7) / 4, of dog over the dogs (0.9 + 0.25 + 0.9) / 3, ship (0.9 + 0.15 + 0.9) / 3.
    np.testing.assert_allclose(candidates.thresholds, [0.475, 2.05 / 3, 0.65])
    # Image 1 is taken for a dog with 0.6 only, less than the dogs' 0.683.
    np.testing.assert_array_equal(candidates.indices, [2, 8, 5])
    np.testing.assert_array_equal(candidates.labels, [0, 2, 1])
    np.testing.assert_array_equal(candidates.suggested, [1, 0, 0])
    np.testing.assert_allclose(candidates.probabilities, [[0.1, 0.8], [0.15, 0.7], [0.25, 0.5]])
    assert (candidates.total, candidates.classes) == (10, CLASSES)
    rows = candidates.table().rows
    assert [row[:3] for row in rows] == [("cat", "dog", 2), ("ship", "cat", 8), ("dog", "cat", 5)]
    np.testing.assert_allclose([row[3:] for row in rows], candidates.probabilities)


def test_a_class_without_images_is_never_suggested(recwarn: pytest.WarningsRecorder) -> None:
    candidates = suspicious_labels(predictions("cat ship 0.99, dog dog 0.9"))
    assert np.isnan(candidates.thresholds).tolist() == [False, False, True]
    assert candidates.indices.tolist() == []
    assert not recwarn.list


def test_labels_exchanged_on_purpose_are_found() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 2000)
    logits = 3 * np.eye(4)[labels] + generator.normal(size=(2000, 4))  # right in about 95 %
    exchanged = generator.choice(2000, 40, replace=False)
    labels[exchanged] = (labels[exchanged] + generator.integers(1, 4, 40)) % 4
    candidates = suspicious_labels(Predictions(logits, labels, tuple("abcd")))
    found = np.isin(candidates.indices, exchanged)
    assert found.sum() >= 20
    assert found.mean() >= 0.9  # 0.02 if they were drawn at random
    assert (np.diff(candidates.probabilities[:, 0]) >= 0).all()


def test_the_reading_of_the_candidates_is_no_verdict() -> None:
    assert suspicious_labels(TEN_IMAGES).reading() == (
        "3 of 10 labels are worth a look: the network is as sure of another class as it is on average of that class's own "
        "images. Only a person who looks can tell a wrong label from a wrong network."
    )
    one = suspicious_labels(predictions("cat dog 0.9, dog dog 0.9, cat cat 0.9"))
    assert one.reading().startswith("1 of 3 labels is worth a look: ")
    none = suspicious_labels(ALL_RIGHT)
    assert none.reading() == "No label of the 3 images is contradicted with confidence."
    assert none.table().rows == ()
