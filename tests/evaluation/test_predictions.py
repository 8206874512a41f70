"""Predictions: numbers by hand, extremes, mistakes in order, and what `predict` does to the model it is given."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.predictions import Predictions, predict

CPU = torch.device("cpu")


def predictions(logits: list[list[float]], labels: list[int], classes: int = 0) -> Predictions:
    names = tuple("abcdefghij"[: classes or len(logits[0])])
    return Predictions(np.array(logits, dtype=np.float32), np.array(labels, dtype=np.int64), names)


def by_hand() -> Predictions:
    """Three classes; odds of 1 : 2 : 1, 3 : 1 : 4, 8 : 1 : 1 and 1 : 1 : 6."""
    odds = [[1, 2, 1], [3, 1, 4], [8, 1, 1], [1, 1, 6]]
    return predictions([[math.log(odd) for odd in row] for row in odds], [1, 0, 0, 1])


# ---- numbers -----------------------------------------------------------------------------------------------------------


def test_the_numbers_by_hand() -> None:
    result = by_hand()
    assert len(result) == 4
    np.testing.assert_array_equal(result.predicted, [1, 2, 0, 2])
    assert result.predicted.dtype == np.int64
    probabilities = [[1 / 4, 1 / 2, 1 / 4], [3 / 8, 1 / 8, 1 / 2], [0.8, 0.1, 0.1], [1 / 8, 1 / 8, 3 / 4]]
    np.testing.assert_allclose(result.probabilities, probabilities, rtol=1e-6)
    np.testing.assert_allclose(result.log_probabilities, np.log(probabilities), rtol=1e-6)
    np.testing.assert_allclose(result.confidences, [0.5, 0.5, 0.8, 0.75], rtol=1e-6)
    np.testing.assert_allclose(result.losses, [math.log(2), math.log(8 / 3), math.log(1.25), math.log(8)], rtol=1e-6)
    assert result.mean_loss == pytest.approx(math.log(2 * 8 / 3 * 1.25 * 8) / 4, rel=1e-6)
    assert (result.correct, result.accuracy) == (2, 50.0)
    np.testing.assert_array_equal(result.confusion_matrix(), [[1, 0, 1], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(result.class_accuracies(), [50, 50, np.nan])


def test_extreme_logits_stay_finite() -> None:
    result = predictions([[1e4, -1e4], [-1e4, 1e4], [3e38, 3e38]], [1, 1, 0])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        np.testing.assert_array_equal(result.losses, [20_000, 0, np.log(2)])
        np.testing.assert_array_equal(result.probabilities, [[1, 0], [0, 1], [0.5, 0.5]])
        np.testing.assert_array_equal(result.confidences, [1, 1, 0.5])
    assert result.mean_loss == pytest.approx((20_000 + math.log(2)) / 3)


def test_the_logits_are_not_changed() -> None:
    logits = np.array([[5.0, 1.0]], dtype=np.float64)
    result = Predictions(logits, np.array([0]), ("a", "b"))
    assert result.losses[0] == pytest.approx(math.log(1 + math.exp(-4)))
    np.testing.assert_array_equal(logits, [[5, 1]])


def random_predictions() -> Predictions:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, 7)).astype(np.float32) * 3
    return Predictions(logits, generator.choice([0, 1, 2, 4, 5, 6], 200), tuple("abcdefg"))  # class 3 never occurs


def test_loss_and_confusion_matrix_of_many_images() -> None:
    result = random_predictions()
    matrix = result.confusion_matrix()
    assert (matrix.dtype, matrix.shape) == (np.int64, (7, 7))
    pairs = list(zip(result.labels.tolist(), result.predicted.tolist(), strict=True))
    assert matrix.tolist() == [[pairs.count((actual, predicted)) for predicted in range(7)] for actual in range(7)]
    assert result.mean_loss == pytest.approx(log_loss(result.labels, result.probabilities, labels=range(7)), rel=1e-12)
    assert result.accuracy == pytest.approx(100 * np.trace(matrix) / 200)


def test_no_images_are_counted_as_none() -> None:
    nothing = Predictions(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64), ("a", "b", "c"))
    assert nothing.confusion_matrix().tolist() == [[0, 0, 0]] * 3


def test_a_class_without_images_has_no_accuracy_and_gives_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    result = random_predictions()
    accuracies = result.class_accuracies()
    assert np.flatnonzero(np.isnan(accuracies)).tolist() == [3]
    for number in (0, 1, 2, 4, 5, 6):
        own = result.labels == number
        assert accuracies[number] == pytest.approx(100 * np.mean(result.predicted[own] == number))
    assert not recwarn.list


# ---- mistakes ----------------------------------------------------------------------------------------------------------


def test_mistakes_come_worst_first_or_in_file_order_and_ties_in_file_order() -> None:
    logits = [[0, 1], [0, 3], [2, 0], [0, 3], [0, 2], [0, 3], [0, 1]]
    result = predictions(
        logits, [0, 0, 0, 0, 1, 0, 0]
    )  # images 2 and 4 are right; 1, 3 and 5 are equally wrong, and so are 0 and 6
    np.testing.assert_array_equal(result.wrong(), [1, 3, 5, 0, 6])
    np.testing.assert_array_equal(result.wrong("loss"), [1, 3, 5, 0, 6])
    np.testing.assert_array_equal(result.wrong(order="file"), [0, 1, 3, 5, 6])
    assert result.wrong().dtype == np.int64


def test_many_ties_stay_in_file_order() -> None:
    result = predictions([[0, 1 + number % 2] for number in range(200)], [0] * 200)  # odd images are the worse ones
    np.testing.assert_array_equal(result.wrong(), [*range(1, 200, 2), *range(0, 200, 2)])


def test_no_mistakes_are_an_empty_list() -> None:
    result = predictions([[1, 0], [0, 1]], [0, 1])
    assert (result.accuracy, result.wrong().shape, result.wrong("file").shape) == (100.0, (0,), (0,))


@pytest.mark.parametrize("order", ["confidence", "", None])
def test_another_order_is_refused(order: str) -> None:
    with pytest.raises(ValueError, match=r"^order is .*; use 'loss' for the worst mistakes first, or 'file'\.$") as error:
        by_hand().wrong(order)
    assert str(error.value).startswith(f"order is {order!r};")


def test_top_losses_hold_right_and_wrong_images() -> None:
    result = predictions([[0, 1], [0, 3], [2, 0], [0, 3], [0.1, 0]], [0, 0, 0, 0, 0])  # image 2 is surely right, image 4 barely
    np.testing.assert_array_equal(result.top_losses(4), [1, 3, 0, 4])
    np.testing.assert_array_equal(result.top_losses(99), [1, 3, 0, 4, 2])
    assert result.top_losses(1).dtype == np.int64
    with pytest.raises(ValueError, match=r"^count is 0; ask for at least 1 image\.$"):
        result.top_losses(0)


def test_the_hardest_are_the_wrong_ones_and_then_right_ones_each_worst_first() -> None:
    logits = [[3, 0], [0, 1], [0, 3], [1, 0], [2, 0], [2, 0]]  # images 1 and 2 are wrong, 3 is barely right
    result = predictions(logits, [0] * 6)
    np.testing.assert_array_equal(result.hardest(5), [2, 1, 3, 4, 5])
    np.testing.assert_array_equal(result.hardest(99), [2, 1, 3, 4, 5, 0])
    np.testing.assert_array_equal(result.hardest(1), [2])
    # by loss alone a sure mistake in two classes may lie behind a hesitant right answer among many
    unsure = predictions([[0.1, 0, 0, 0], [1.0, 1.1, -9, -9]], [0, 0])
    np.testing.assert_array_equal(unsure.top_losses(1), [0])
    np.testing.assert_array_equal(unsure.hardest(2), [1, 0])
    with pytest.raises(ValueError, match=r"^count is 0; ask for at least 1 image\.$"):
        result.hardest(0)


@pytest.mark.parametrize(
    ("labels", "count", "title", "rivals"),
    [
        ([1, 1, 1], 3, "Wrong predictions with the highest loss", "the actual class"),
        ([1, 0, 0], 1, "Wrong predictions with the highest loss", "the actual class"),
        (
            [1, 0, 0],
            9,
            "1 wrong prediction, then the 2 right ones with the highest loss",
            "the actual class or, where that is predicted, the runner-up",
        ),
        (
            [1, 1, 0],
            9,
            "2 wrong predictions, then the right one with the highest loss",
            "the actual class or, where that is predicted, the runner-up",
        ),
        ([0, 0, 0], 2, "No prediction is wrong: the 2 right ones with the highest loss", "the runner-up"),
        ([0, 0, 0], 1, "No prediction is wrong: the right one with the highest loss", "the runner-up"),
    ],
)
def test_the_title_of_the_hardest_says_how_many_are_wrong(labels: list[int], count: int, title: str, rivals: str) -> None:
    result = predictions([[1, 0]] * 3, labels)
    assert result.hardest_title(result.hardest(count)) == title
    assert result.rivals_title(result.hardest(count)) == rivals


def test_the_rival_is_the_actual_class_or_the_runner_up() -> None:
    result = predictions([[3, 1, 2], [3, 1, 2], [5, 5, 4]], [0, 1, 0])
    np.testing.assert_array_equal(result.rivals, [2, 1, 1])
    np.testing.assert_array_equal(result.logits, [[3, 1, 2], [3, 1, 2], [5, 5, 4]])
    with pytest.raises(ValueError, match="only one class"):
        _ = predictions([[1]], [0]).rivals


# ---- checks ------------------------------------------------------------------------------------------------------------


def test_usable_predictions_pass_the_check() -> None:
    by_hand().check()


def test_logits_that_are_not_finite_are_found() -> None:
    result = predictions([[0, 1], [np.nan, 1], [np.inf, -np.inf]], [0, 1, 1])
    with pytest.raises(ValueError, match=r"^the logits") as error:
        result.check()
    assert str(error.value) == (
        "the logits of 2 of 3 images are NaN or infinite, so the training diverged; train again at a lower learning rate."
    )


def test_no_predictions_are_nothing_to_analyze() -> None:
    empty = Predictions(np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64), ("a", "b"))
    with pytest.raises(ValueError, match=r"^there are no predictions to analyse; at least one image is needed\.$"):
        empty.check()


# ---- predict -----------------------------------------------------------------------------------------------------------


def dataset_of(images: np.ndarray) -> ImageDataset:
    labels = np.arange(len(images)) % 2
    return ImageDataset(images.astype(np.uint8), labels, ("a", "b"), "x", "x", "test", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Recorder(nn.Module):
    """Red left column times 3, and red right column, as two logits; keeps notes of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        self.parts = nn.ModuleList([nn.Dropout(0.9), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9))])
        self.calls: list[dict] = []

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.stack([x[:, 0, :, 0].sum(1), x[:, 0, :, -1].sum(1)], dim=1)
        logits = self.linear(self.parts[0](columns))
        self.calls.append(
            {
                "shape": tuple(x.shape),
                "training": any(module.training for module in self.modules()),
                "inference": torch.is_inference_mode_enabled(),
                "dtype": logits.dtype,
            }
        )
        return logits


def left_and_right(values: list[tuple[int, int]], size: int = 2) -> ImageDataset:
    """Images whose left half is red of the first value (0 or 1 times 255), and the right half of the second."""
    images = np.zeros((len(values), size, size, 3))
    for image, (left, right) in zip(images, values, strict=True):
        image[:, : size // 2, 0], image[:, size // 2 :, 0] = 255 * left, 255 * right
    return dataset_of(images)


def test_predict_is_in_file_order_and_takes_every_image() -> None:
    dataset = left_and_right([(1, 0), (0, 1), (1, 1), (0, 0), (1, 0)])
    model = Recorder()
    result = predict(model, dataset, CPU, batch_size=2)
    np.testing.assert_array_equal(result.logits, [[6, 0], [0, 2], [6, 2], [0, 0], [6, 0]])
    assert result.logits.dtype == np.float32
    assert result.labels is dataset.labels
    assert result.classes == ("a", "b")
    assert [call["shape"] for call in model.calls] == [(2, 3, 2, 2), (2, 3, 2, 2), (1, 3, 2, 2)]
    assert [call["inference"] for call in model.calls] == [True] * 3
    assert [call["dtype"] for call in model.calls] == [torch.float32] * 3


def test_flip_averages_the_logits_of_image_and_mirror_image() -> None:
    dataset = left_and_right([(1, 0), (0, 1), (1, 1), (0, 0)])
    result = predict(Recorder(), dataset, CPU, flip=True)
    np.testing.assert_array_equal(result.logits, [[3, 1], [3, 1], [6, 2], [0, 0]])  # (6, 0) with (0, 2), and so on


def test_the_resolution_is_passed_on() -> None:
    model = Recorder()
    result = predict(model, left_and_right([(1, 0)], size=8), CPU, resolution=4)
    assert [call["shape"] for call in model.calls] == [(1, 3, 4, 4)]
    np.testing.assert_allclose(result.logits, [[12, 0]], atol=1e-6)  # four rows of 1, times 3


def test_the_precision_is_that_of_the_forward_pass() -> None:
    model = Recorder()
    model.linear.weight.data.fill_(1 / 3)
    dataset = left_and_right([(1, 0)])
    result = predict(model, dataset, CPU, precision="bf16")
    assert (model.calls[0]["dtype"], result.logits.dtype) == (torch.bfloat16, np.float32)
    np.testing.assert_array_equal(result.logits, 2 * np.float32(0.333984375))  # 1/3 with the 8 bits of bfloat16
    assert predict(model, dataset, CPU).logits[0, 0] == pytest.approx(2 / 3, rel=1e-6)


def mixed_flags(model: Recorder) -> list[bool]:
    model.train()
    model.parts[1].eval()
    model.parts[1][1].train()
    return [module.training for module in model.modules()]


def test_the_training_flag_of_each_module_is_as_before() -> None:
    model = Recorder()
    flags = mixed_flags(model)
    assert len(set(flags)) == 2
    predict(model, left_and_right([(1, 0)]), CPU)
    assert [call["training"] for call in model.calls] == [False]
    assert [module.training for module in model.modules()] == flags


def test_the_training_flags_are_as_before_also_when_the_model_fails() -> None:
    model = Recorder()
    flags = mixed_flags(model)
    model.linear = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict(model, left_and_right([(1, 0)]), CPU)
    assert [module.training for module in model.modules()] == flags
    assert not torch.is_inference_mode_enabled()


# ---- to be read --------------------------------------------------------------------------------------------------------


def test_the_table_and_the_reading_say_what_is_right() -> None:
    told = Predictions(np.array([[2.0, 0], [0, 1], [3, 0], [0, 4]]), np.array([0, 0, 0, 1]), ("cat", "dog", "cow")[:2])
    assert told.reading() == "3 of 4 images are classified correctly: 75.00 %."
    frame = told.to_frame()
    assert frame["class"].tolist() == ["cat", "dog"]
    assert frame["right"].tolist() == [2, 1]
    assert frame["accuracy"].tolist() == [2 / 3, 1.0]
    assert told.table().footer[0][:3] == ("all", 4, 3)


def test_without_labels_it_says_what_each_image_is_taken_for() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]]))
    told = Predictions(logits, None, ("cat", "dog"))
    assert told.reading() == "3 images are taken for: cat (2), dog (1)."
    assert told.take(np.array([1])).reading() == "The image is taken for dog (75.0 %)."
    assert told.to_frame()["predicted"].tolist() == ["cat", "dog", "cat"]
    np.testing.assert_array_equal(told.rivals, [1, 0, 1])


def test_a_class_without_images_has_no_accuracy() -> None:
    told = Predictions(np.eye(3)[[0, 1]], np.array([0, 1]), ("a", "b", "c"))
    assert told.table().rows[2] == ("c", 0, 0, None)
