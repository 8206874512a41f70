"""Mistakes: scores, pairs and label candidates by hand, against scikit-learn, and on labels exchanged on purpose."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from era_support_packages.evaluation.intervals import share_interval
from era_support_packages.evaluation.mistakes import class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions

CLASSES = ("cat", "dog", "ship")


def predictions(images: list[tuple[str, str, float]], classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Images given as (actual, predicted, confidence); what is left of the confidence is shared out evenly."""
    probabilities = np.empty((len(images), len(classes)))
    for row, (_, predicted, confidence) in zip(probabilities, images, strict=True):
        row[:] = (1 - confidence) / (len(classes) - 1)
        row[classes.index(predicted)] = confidence
    labels = np.array([classes.index(actual) for actual, _, _ in images])
    return Predictions(np.log(probabilities), labels, classes)


def ten_images() -> Predictions:
    """4 cats of which 2 are taken for dogs, 3 dogs of which 1 is taken for a cat, 3 ships of which 1 is taken for a cat."""
    return predictions(
        [
            ("cat", "cat", 0.9),
            ("cat", "dog", 0.6),
            ("cat", "dog", 0.8),
            ("cat", "cat", 0.7),
            ("dog", "dog", 0.9),
            ("dog", "cat", 0.5),
            ("dog", "dog", 0.9),
            ("ship", "ship", 0.9),
            ("ship", "cat", 0.7),
            ("ship", "ship", 0.9),
        ]
    )


def all_right() -> Predictions:
    return predictions([("cat", "cat", 0.9), ("dog", "dog", 0.9), ("ship", "ship", 0.5)])


def random_predictions(classes: int = 6) -> Predictions:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, 300)
    logits = generator.normal(size=(300, classes)).astype(np.float32)
    logits[np.arange(300), labels] += 1.5
    return Predictions(logits, labels, tuple("abcdefghij"[:classes]))


# ---- scores by class ---------------------------------------------------------------------------------------------------


def test_the_scores_by_hand() -> None:
    scores = class_scores(ten_images())
    np.testing.assert_allclose(scores.precision, [2 / 4, 2 / 4, 2 / 2])
    np.testing.assert_allclose(scores.recall, [2 / 4, 2 / 3, 2 / 3])
    np.testing.assert_allclose(scores.f1, [1 / 2, 4 / 7, 4 / 5])
    np.testing.assert_array_equal(scores.support, [4, 3, 3])
    np.testing.assert_array_equal(scores.predicted, [4, 4, 2])
    assert scores.macro == pytest.approx((2 / 3, 11 / 18, (1 / 2 + 4 / 7 + 4 / 5) / 3))
    np.testing.assert_array_equal(scores.order(), [0, 1, 2])
    assert (scores.support.dtype, scores.predicted.dtype, scores.f1.dtype) == (np.int64, np.int64, np.float64)


def test_the_means_are_those_of_scikit_learn() -> None:
    given = random_predictions()
    expected = precision_recall_fscore_support(given.labels, given.predicted, average="macro")
    assert class_scores(given).macro == pytest.approx(expected[:3])


def test_recall_is_the_accuracy_of_the_class() -> None:
    given = random_predictions()
    np.testing.assert_allclose(100 * class_scores(given).recall, given.class_accuracies())


def test_a_class_without_images_has_no_scores_and_is_left_out_of_the_means(recwarn: pytest.WarningsRecorder) -> None:
    scores = class_scores(predictions([("cat", "cat", 0.9), ("cat", "ship", 0.8), ("dog", "dog", 0.9)]))
    np.testing.assert_array_equal(scores.precision, [1, 1, np.nan])
    np.testing.assert_array_equal(scores.recall, [0.5, 1, np.nan])
    np.testing.assert_array_equal(scores.f1, [2 / 3, 1, np.nan])
    assert scores.macro == pytest.approx((1, 0.75, 5 / 6))
    np.testing.assert_array_equal(scores.predicted, [1, 1, 1])
    np.testing.assert_array_equal(scores.order(), [0, 1, 2])
    assert not recwarn.list


def test_a_class_that_is_never_predicted_counts_as_0_in_the_means() -> None:
    scores = class_scores(predictions([("cat", "dog", 0.9), ("dog", "dog", 0.9)], ("cat", "dog")))
    np.testing.assert_array_equal(scores.precision, [0, 0.5])
    np.testing.assert_array_equal(scores.f1, [0, 2 / 3])
    assert scores.macro == pytest.approx((0.25, 0.5, 1 / 3))


def test_the_table_has_the_weakest_class_first_and_the_means_last() -> None:
    assert str(class_scores(ten_images()).table()).split("\n") == [
        "class              precision  recall     F1  images  predicted",
        "cat                    0.500   0.500  0.500       4          4",
        "dog                    0.500   0.667  0.571       3          4",
        "ship                   1.000   0.667  0.800       3          2",
        "mean over classes      0.667   0.611  0.624",
    ]


def test_the_reading_of_the_scores_names_the_weakest_class() -> None:
    assert class_scores(ten_images()).reading() == (
        "The weakest class is cat, with an F1 of 0.50 (mean over classes 0.62): 50.0 % of its images are found, 50.0 % of what "
        "is taken for it is right, and it is predicted 4 times for 4 images."
    )
    assert class_scores(all_right()).reading() == "Every class has an F1 of 1: all 3 images are classified correctly."


# ---- confused pairs ----------------------------------------------------------------------------------------------------


def test_the_pairs_by_hand() -> None:
    confused = most_confused(ten_images())
    # Of pairs with one image, a ship of 3 and a dog of 3 are the same share: the order of the classes decides.
    assert [(pair.actual, pair.predicted, pair.count) for pair in confused.pairs] == [(0, 1, 2), (1, 0, 1), (2, 0, 1)]
    first = confused.pairs[0]
    np.testing.assert_array_equal(first.indices, [2, 1])
    np.testing.assert_allclose(first.confidences, [0.8, 0.6])
    assert (first.support, first.share) == (4, share_interval(2, 4))
    assert (confused.mistakes, confused.total, confused.classes) == (4, 10, CLASSES)


def test_of_pairs_with_as_many_images_the_larger_share_comes_first() -> None:
    images = [("cat", "dog", 0.9), ("cat", "cat", 0.9), ("cat", "cat", 0.9), ("ship", "dog", 0.9), ("ship", "ship", 0.9)]
    assert [pair.actual for pair in most_confused(predictions(images)).pairs] == [2, 0]


def test_the_pairs_hold_every_mistake_once() -> None:
    given = random_predictions()
    pairs = most_confused(given, count=100).pairs
    np.testing.assert_array_equal(np.sort(np.concatenate([pair.indices for pair in pairs])), given.wrong("file"))
    counts = [pair.count for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    for pair in pairs:
        assert pair.count == given.confusion_matrix()[pair.actual, pair.predicted]
        assert (np.diff(pair.confidences) <= 0).all()


def test_only_as_many_pairs_as_asked_for_but_all_mistakes_are_counted() -> None:
    confused = most_confused(ten_images(), count=1)
    assert (len(confused.pairs), confused.mistakes) == (1, 4)


def test_the_reading_of_the_pairs_tells_both_directions() -> None:
    assert most_confused(ten_images()).reading() == (
        "Most often cat is taken for dog: 2 of 4 images (50.0 %), and the other way round 1; that is 75.0 % of all 4 mistakes."
    )
    assert most_confused(ten_images(), count=1).reading() == (
        "Most often cat is taken for dog: 2 of 4 images (50.0 %); that is 50.0 % of all 4 mistakes."
    )


def test_without_mistakes_there_are_no_pairs() -> None:
    confused = most_confused(all_right())
    assert confused.pairs == ()
    assert confused.reading() == "All 3 images are classified correctly: no class is taken for another."


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_1_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^count is {count}; ask for at least 1 pair\.$"):
        most_confused(ten_images(), count)


# ---- labels worth a look -----------------------------------------------------------------------------------------------


def test_the_candidates_by_hand() -> None:
    candidates = suspicious_labels(ten_images())
    # Of cat over the cats (0.9 + 0.2 + 0.1 + 0.7) / 4, of dog over the dogs (0.9 + 0.25 + 0.9) / 3, ship (0.9 + 0.15 + 0.9) / 3.
    np.testing.assert_allclose(candidates.thresholds, [0.475, 2.05 / 3, 0.65])
    # Image 1 is taken for a dog with 0.6 only, less than the dogs' 0.683.
    np.testing.assert_array_equal(candidates.indices, [2, 8, 5])
    np.testing.assert_array_equal(candidates.labels, [0, 2, 1])
    np.testing.assert_array_equal(candidates.suggested, [1, 0, 0])
    np.testing.assert_allclose(candidates.probabilities, [[0.1, 0.8], [0.15, 0.7], [0.25, 0.5]])
    assert (candidates.total, candidates.classes) == (10, CLASSES)


def test_a_class_without_images_is_never_suggested(recwarn: pytest.WarningsRecorder) -> None:
    candidates = suspicious_labels(predictions([("cat", "ship", 0.99), ("dog", "dog", 0.9)]))
    assert np.isnan(candidates.thresholds).tolist() == [False, False, True]
    assert candidates.indices.tolist() == []
    assert not recwarn.list


def test_labels_exchanged_on_purpose_are_found() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 2000)
    logits = 3 * np.eye(4)[labels] + generator.normal(size=(2000, 4))  # right in about 95 %
    exchanged = generator.choice(2000, 40, replace=False)
    given = labels.copy()
    given[exchanged] = (given[exchanged] + generator.integers(1, 4, 40)) % 4
    candidates = suspicious_labels(Predictions(logits, given, tuple("abcd")))
    found = np.isin(candidates.indices, exchanged)
    assert found.sum() >= 20
    assert found.mean() >= 0.9  # 0.02 if they were drawn at random
    assert (np.diff(candidates.probabilities[:, 0]) >= 0).all()


def test_the_reading_of_the_candidates_is_no_verdict() -> None:
    assert suspicious_labels(ten_images()).reading() == (
        "3 of 10 labels are worth a look: the network is as sure of another class as it is on average of that class's own "
        "images. Only a person who looks can tell a wrong label from a wrong network."
    )
    one = suspicious_labels(predictions([("cat", "dog", 0.9), ("dog", "dog", 0.9), ("cat", "cat", 0.9)]))
    assert one.reading().startswith("1 of 3 labels is worth a look: ")
    assert suspicious_labels(all_right()).reading() == "No label of the 3 images is contradicted with confidence."


# ---- checks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compute", [class_scores, most_confused, suspicious_labels])
def test_unusable_predictions_are_refused(compute: Callable[[Predictions], object]) -> None:
    with pytest.raises(ValueError, match=r"^the logits of 1 of 2 images are NaN or infinite, so the training diverged; "):
        compute(Predictions(np.array([[0, np.nan], [0, 1]]), np.array([0, 1]), ("a", "b")))
    with pytest.raises(ValueError, match=r"^there are no predictions to analyse; at least one image is needed\.$"):
        compute(Predictions(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), ("a", "b")))


def test_the_predictions_are_not_changed() -> None:
    given = ten_images()
    before = given.logits.copy(), given.labels.copy(), given.confusion_matrix()
    class_scores(given), most_confused(given), suspicious_labels(given)
    for kept, now in zip(before, (given.logits, given.labels, given.confusion_matrix()), strict=True):
        np.testing.assert_array_equal(kept, now)


def test_the_tables_of_pairs_and_labels() -> None:
    pairs, labels = most_confused(ten_images()), suspicious_labels(ten_images())
    assert [row[:4] for row in pairs.table().rows] == [("cat", "dog", 2, 4), ("dog", "cat", 1, 3), ("ship", "cat", 1, 3)]
    assert [row[4] for row in pairs.table().rows] == [pair.share for pair in pairs.pairs]
    assert [row[:3] for row in labels.table().rows] == [("cat", "dog", 2), ("ship", "cat", 8), ("dog", "cat", 5)]
    np.testing.assert_allclose([row[3:] for row in labels.table().rows], labels.probabilities)
    assert most_confused(all_right()).table().rows == suspicious_labels(all_right()).table().rows == ()


def test_a_class_without_images_has_no_scores_in_the_table() -> None:
    scores = class_scores(predictions([("cat", "cat", 0.9)], ("cat", "dog")))
    assert [line.split() for line in str(scores.table()).splitlines()[1:3]] == [
        ["cat", "1.000", "1.000", "1.000", "1", "1"],
        ["dog", "-", "-", "-", "0", "0"],
    ]
