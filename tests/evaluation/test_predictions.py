"""Predictions: numbers by hand, extremes, mistakes in order, and what `predict` does to the model it is given."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.calibration import calibrate, reliability
from era_support_packages.evaluation.mistakes import class_scores, most_confused, suspicious_labels
from era_support_packages.evaluation.predictions import Predictions, predict
from era_support_packages.evaluation.temperature import fit_temperature, temperature_scaling

CPU = torch.device("cpu")


def predictions(logits: list[list[float]], labels: list[int]) -> Predictions:
    given = np.array(logits, dtype=np.float32)
    given.setflags(write=False)  # nothing that is asked of them changes them
    return Predictions(given, np.array(labels, dtype=np.int64), tuple("abcdefghij"[: given.shape[1]]))


NOTHING = Predictions(np.zeros((0, 3), dtype=np.float32), np.zeros(0, dtype=np.int64), ("a", "b", "c"))


def test_the_numbers_by_hand() -> None:
    odds = [[1, 2, 1], [3, 1, 4], [8, 1, 1], [1, 1, 6]]
    result = predictions(np.log(odds), [1, 0, 0, 1])
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
    result.check()


def test_extreme_logits_stay_finite() -> None:
    result = predictions([[1e4, -1e4], [-1e4, 1e4], [3e38, 3e38]], [1, 1, 0])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        np.testing.assert_array_equal(result.losses, [20_000, 0, np.log(2)])
        np.testing.assert_array_equal(result.probabilities, [[1, 0], [0, 1], [0.5, 0.5]])
        np.testing.assert_array_equal(result.confidences, [1, 1, 0.5])
    assert result.mean_loss == pytest.approx((20_000 + math.log(2)) / 3)


def test_loss_and_confusion_matrix_of_many_images(recwarn: pytest.WarningsRecorder) -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 1, 2, 4, 5, 6], 200)  # class 3 never occurs
    result = predictions(generator.normal(size=(200, 7)) * 3, labels)
    matrix, accuracies = result.confusion_matrix(), result.class_accuracies()
    assert not recwarn.list
    pairs = list(zip(labels.tolist(), result.predicted.tolist(), strict=True))
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[pairs.count((actual, predicted)) for predicted in range(7)] for actual in range(7)]
    assert result.mean_loss == pytest.approx(log_loss(labels, result.probabilities, labels=range(7)), rel=1e-12)
    assert result.accuracy == pytest.approx(100 * np.trace(matrix) / 200)
    expected = [100 * np.mean(result.predicted[labels == number] == number) if number != 3 else np.nan for number in range(7)]
    np.testing.assert_allclose(accuracies, expected)
    assert NOTHING.confusion_matrix().tolist() == [[0, 0, 0]] * 3


METHODS = [Predictions.reading, Predictions.table, Predictions.confusion_matrix, Predictions.wrong]
COMPUTE = [reliability, fit_temperature, temperature_scaling, calibrate, class_scores, most_confused, suspicious_labels]


@pytest.mark.parametrize("compute", [Predictions.check, *COMPUTE])
def test_unusable_predictions_are_refused(compute: Callable[[Predictions], object]) -> None:
    said = "The logits of 2 of 3 images are NaN or infinite, so the training diverged; train again at a lower learning rate"
    with pytest.raises(ValueError, match=said):
        compute(predictions([[0, 1], [np.nan, 1], [np.inf, -np.inf]], [0, 1, 1]))
    with pytest.raises(ValueError, match=r"^There are no predictions to analyse; at least one image is needed\.$"):
        compute(NOTHING)


@pytest.mark.parametrize(
    ("logits", "labels", "by_loss", "in_file_order"),
    [
        # Images 2 and 4 are right; 1, 3 and 5 are equally wrong, and so are 0 and 6.
        (
            [[0, 1], [0, 3], [2, 0], [0, 3], [0, 2], [0, 3], [0, 1]],
            [0, 0, 0, 0, 1, 0, 0],
            [1, 3, 5, 0, 6],
            [0, 1, 3, 5, 6],
        ),
        ([[0, 1 + number % 2] for number in range(200)], [0] * 200, [*range(1, 200, 2), *range(0, 200, 2)], [*range(200)]),
        ([[1, 0], [0, 1]], [0, 1], [], []),
    ],
    ids=["few", "many ties", "none"],
)
def test_mistakes_come_worst_first_or_in_file_order_and_ties_in_file_order(
    logits: list, labels: list[int], by_loss: list[int], in_file_order: list[int]
) -> None:
    result = predictions(logits, labels)
    np.testing.assert_array_equal(result.wrong(), by_loss)
    np.testing.assert_array_equal(result.wrong("loss"), by_loss)
    np.testing.assert_array_equal(result.wrong(order="file"), in_file_order)
    assert result.wrong().dtype == np.int64


@pytest.mark.parametrize("order", ["confidence", "", None])
def test_another_order_is_refused(order: str) -> None:
    with pytest.raises(ValueError, match=f"^order is {order!r}; use 'loss' for the worst mistakes first, or 'file'"):
        predictions([[1, 0]], [0]).wrong(order)


def test_top_losses_hold_right_and_wrong_images() -> None:
    result = predictions([[0, 1], [0, 3], [2, 0], [0, 3], [0.1, 0]], [0, 0, 0, 0, 0])  # image 2 is surely right, image 4 barely
    np.testing.assert_array_equal(result.top_losses(4), [1, 3, 0, 4])
    np.testing.assert_array_equal(result.top_losses(99), [1, 3, 0, 4, 2])
    assert result.top_losses(1).dtype == np.int64


def test_the_hardest_are_the_wrong_ones_and_then_right_ones_each_worst_first() -> None:
    result = predictions([[3, 0], [0, 1], [0, 3], [1, 0], [2, 0], [2, 0]], [0] * 6)  # 1 and 2 are wrong, 3 is barely right
    np.testing.assert_array_equal(result.hardest(5), [2, 1, 3, 4, 5])
    np.testing.assert_array_equal(result.hardest(99), [2, 1, 3, 4, 5, 0])
    np.testing.assert_array_equal(result.hardest(1), [2])
    # By loss alone a sure mistake in two classes may lie behind a hesitant right answer among many.
    unsure = predictions([[0.1, 0, 0, 0], [1.0, 1.1, -9, -9]], [0, 0])
    np.testing.assert_array_equal(unsure.top_losses(1), [0])
    np.testing.assert_array_equal(unsure.hardest(2), [1, 0])


@pytest.mark.parametrize("ask", [Predictions.hardest, Predictions.top_losses])
def test_a_count_below_1_is_refused(ask: Callable[[Predictions, int], np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"^count is 0; ask for at least 1 image\.$"):
        ask(predictions([[1, 0]], [0]), 0)


WORST, BOTH = "Wrong predictions with the highest loss", "the actual class or, where that is predicted, the runner-up"


@pytest.mark.parametrize(
    ("labels", "count", "title", "rivals"),
    [
        ([1, 1, 1], 3, WORST, "the actual class"),
        ([1, 0, 0], 1, WORST, "the actual class"),
        ([1, 0, 0], 9, "1 wrong prediction, then the 2 right ones with the highest loss", BOTH),
        ([1, 1, 0], 9, "2 wrong predictions, then the right one with the highest loss", BOTH),
        ([0, 0, 0], 2, "No prediction is wrong: the 2 right ones with the highest loss", "the runner-up"),
        ([0, 0, 0], 1, "No prediction is wrong: the right one with the highest loss", "the runner-up"),
    ],
)
def test_the_title_of_the_hardest_says_how_many_are_wrong(labels: list[int], count: int, title: str, rivals: str) -> None:
    result = predictions([[1, 0]] * 3, labels)
    assert result.hardest_title(result.hardest(count)) == title
    assert result.rivals_title(result.hardest(count)) == rivals


def test_the_rival_is_the_actual_class_or_the_runner_up() -> None:
    np.testing.assert_array_equal(predictions([[3, 1, 2], [3, 1, 2], [5, 5, 4]], [0, 1, 0]).rivals, [2, 1, 1])
    with pytest.raises(ValueError, match="only one class"):
        _ = predictions([[1]], [0]).rivals


def test_the_table_and_the_reading_say_what_is_right() -> None:
    told = Predictions(
        np.array([[2.0, 0, -9], [0, 1, -9], [3, 0, -9], [0, 4, -9]]), np.array([0, 0, 0, 1]), ("cat", "dog", "cow")
    )
    assert told.reading() == "3 of 4 images are classified correctly: 75.00 %."
    assert [row[:3] for row in told.table().rows] == [("cat", 3, 2), ("dog", 1, 1), ("cow", 0, 0)]
    assert [row[3] and row[3].estimate for row in told.table().rows] == [2 / 3, 1.0, None]
    assert told.table().footer[0][:3] == ("all", 4, 3)
    assert list(told.to_frame().columns)[:4] == ["class", "images", "right", "accuracy"]


def test_without_labels_it_says_what_each_image_is_taken_for() -> None:
    told = Predictions(np.log([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]]), None, ("cat", "dog"))
    assert told.reading() == "3 images are taken for: cat (2), dog (1)."
    assert told.take(np.array([1])).reading() == "The image is taken for dog (75.0 %)."
    assert told.to_frame()["predicted"].tolist() == ["cat", "dog", "cat"]
    np.testing.assert_array_equal(told.rivals, [1, 0, 1])


FOUR, OF_FOUR, NAMES = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1]), ("a", "b", "c")
PIXELS = np.zeros((4, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"labels": OF_FOUR[:, None]}, r"labels are int64 \(4, 1\); they must be whole numbers \(4,\), one an image"),
        ({"labels": OF_FOUR[:1]}, r"labels are int64 \(1,\); they must be whole numbers \(4,\)"),
        ({"labels": np.array(["a", "b", "c", "b"])}, r"labels are text \(4,\); .* the place of its class among the class names"),
        ({"labels": OF_FOUR.astype(float)}, r"labels are float64 \(4,\)"),
        ({"labels": OF_FOUR == 1}, r"labels are bool \(4,\)"),
        ({"labels": [[0, 1], [2]]}, "labels are lists of unequal lengths"),
        ({"labels": OF_FOUR + 1}, r"reach from 1 to 3; with 3 classes they must lie in 0 \.\.\. 2\. .* count the classes from 0"),
        ({"labels": OF_FOUR - 1}, "reach from -1 to 1; .*Leave out images that have no label"),
        ({"classes": ("a", "b")}, r"logits are float64 \(4, 3\) for 2 class names; they must be numbers \(N, 2\)"),
        ({"classes": ("a", "a", "b")}, "a name of its own"),
        ({"classes": "abc"}, "names as a list"),
        ({"logits": FOUR[0]}, r"logits are float64 \(3,\)"),
        ({"logits": FOUR.astype(str)}, r"logits are text \(4, 3\)"),
        ({"logits": FOUR + 0j}, r"logits are complex128 \(4, 3\)"),
        ({"images": PIXELS[:3]}, r"images are uint8 \(3, 2, 2, 3\); they must be uint8 \(4, H, W, 3\)"),
        ({"images": PIXELS / 255}, "images are float64"),
        ({"images": [*PIXELS]}, "images are a list; give uint8 pixels"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_it_is_put_together(changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Predictions(**{"logits": FOUR, "labels": OF_FOUR, "classes": NAMES, **changed})


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (FOUR.tolist(), OF_FOUR.tolist()),
        (torch.tensor(FOUR, requires_grad=True), torch.tensor(OF_FOUR)),
        (torch.tensor(FOUR, dtype=torch.bfloat16), torch.tensor(OF_FOUR, dtype=torch.int16)),
        (FOUR.astype(np.int64), OF_FOUR.astype(np.uint8)),
        (FOUR.astype(np.float16), OF_FOUR),
    ],
)
def test_lists_tensors_and_whole_numbers_become_arrays(logits: object, labels: object) -> None:
    told = Predictions(logits, labels, ["a", "b", "c"])
    assert told.reading() == "3 of 4 images are classified correctly: 75.00 %."
    assert (told.logits.dtype.kind, told.labels.dtype, told.classes) == ("f", np.int64, NAMES)
    assert told.mean_loss == pytest.approx(math.log(2 + math.e) - 3 / 4, rel=1e-12)
    np.testing.assert_array_equal(told.rivals, [1, 0, 0, 1])


def test_arrays_of_the_right_types_are_not_copied() -> None:
    told = Predictions(FOUR, OF_FOUR, NAMES, PIXELS)
    assert (told.logits is FOUR, told.labels is OF_FOUR, told.images is PIXELS) == (True, True, True)


ASKED = ("accuracy", "correct", "predicted", "probabilities", "losses", "mean_loss", "rivals", "confidences")


@pytest.mark.parametrize("ask", [*(partial(lambda name, said: getattr(said, name), name) for name in ASKED), *METHODS])
def test_nothing_is_said_of_logits_that_are_not_finite(ask: Callable[[Predictions], object]) -> None:
    with pytest.raises(ValueError, match="The logits of 2 of 3 images are NaN or infinite"):
        ask(predictions([[0, 1], [np.nan, 1], [0, np.inf]], [0, 1, 1]))


@pytest.mark.parametrize("ask", [lambda said: said.accuracy, lambda said: said.mean_loss, Predictions.reading])
def test_no_share_of_no_image(ask: Callable[[Predictions], object]) -> None:
    with pytest.raises(ValueError, match="at least one image is needed"):
        ask(NOTHING)


class Recorder(nn.Module):
    """Red left column times 3, and red right column, as two logits; keeps notes of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        self.parts = nn.ModuleList([nn.Dropout(0.9), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9))])
        self.shapes, self.dtypes = [], []

    def forward(self, x: Tensor) -> Tensor:
        assert not any(module.training for module in self.modules())
        assert torch.is_inference_mode_enabled()
        logits = self.linear(self.parts[0](torch.stack([x[:, 0, :, 0].sum(1), x[:, 0, :, -1].sum(1)], dim=1)))
        self.shapes.append(tuple(x.shape))
        self.dtypes.append(logits.dtype)
        return logits


def left_and_right(values: list[tuple[int, int]], size: int = 2) -> ImageDataset:
    """Images whose left half is red of the first value (0 or 1 times 255), and the right half of the second."""
    images = np.zeros((len(values), size, size, 3), np.uint8)
    for image, (left, right) in zip(images, values, strict=True):
        image[:, : size // 2, 0], image[:, size // 2 :, 0] = 255 * left, 255 * right
    return ImageDataset(images, np.arange(len(images)) % 2, ("a", "b"), "x", "x", "test", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_predict_is_in_file_order_and_takes_every_image() -> None:
    dataset, model = left_and_right([(1, 0), (0, 1), (1, 1), (0, 0), (1, 0)]), Recorder()
    result = predict(model, dataset, CPU, batch_size=2)
    np.testing.assert_array_equal(result.logits, [[6, 0], [0, 2], [6, 2], [0, 0], [6, 0]])
    assert result.logits.dtype == np.float32
    assert result.labels is dataset.labels
    assert result.classes == ("a", "b")
    assert model.shapes == [(2, 3, 2, 2), (2, 3, 2, 2), (1, 3, 2, 2)]
    assert model.dtypes == [torch.float32] * 3


def test_flip_averages_the_logits_of_image_and_mirror_image() -> None:
    result = predict(Recorder(), left_and_right([(1, 0), (0, 1), (1, 1), (0, 0)]), CPU, flip=True)
    np.testing.assert_array_equal(result.logits, [[3, 1], [3, 1], [6, 2], [0, 0]])  # (6, 0) with (0, 2), and so on


def test_the_resolution_is_passed_on() -> None:
    model = Recorder()
    result = predict(model, left_and_right([(1, 0)], size=8), CPU, resolution=4)
    assert model.shapes == [(1, 3, 4, 4)]
    np.testing.assert_allclose(result.logits, [[12, 0]], atol=1e-6)  # four rows of 1, times 3


def test_the_precision_is_that_of_the_forward_pass() -> None:
    model, dataset = Recorder(), left_and_right([(1, 0)])
    model.linear.weight.data.fill_(1 / 3)
    result = predict(model, dataset, CPU, precision="bf16")
    assert (model.dtypes[0], result.logits.dtype) == (torch.bfloat16, np.float32)
    np.testing.assert_array_equal(result.logits, 2 * np.float32(0.333984375))  # 1/3 with the 8 bits of bfloat16
    assert predict(model, dataset, CPU).logits[0, 0] == pytest.approx(2 / 3, rel=1e-6)


def test_the_training_flag_of_each_module_is_as_before_also_when_the_model_fails() -> None:
    model = Recorder()
    model.parts[1].eval()
    model.parts[1][1].train()
    flags = [module.training for module in model.modules()]
    assert len(set(flags)) == 2
    predict(model, left_and_right([(1, 0)]), CPU)
    assert [module.training for module in model.modules()] == flags
    model.linear = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="do not go through the network"):
        predict(model, left_and_right([(1, 0)]), CPU)
    assert [module.training for module in model.modules()] == flags
    assert not torch.is_inference_mode_enabled()
