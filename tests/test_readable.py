"""Every result that a person reads shows itself in the same way: a table, a reading, a frame."""

import numpy as np
import pytest

from era_support_packages import Classifier, Explanation, Predictions, datasets, evaluation, models, training, trust
from era_support_packages.evaluation.tables import Readable, Table
from era_support_packages.gradcam import Exploration
from era_support_packages.training.history import History


@pytest.fixture(scope="module")
def results() -> dict[str, Readable]:
    """What a person gets who predicts, explains and analyses a few digits with a network that has learnt nothing."""
    _, test = datasets.load("digits")
    network = models.ResNet18(10).eval()
    classifier = Classifier(network, test.classes, test.mean, test.std, resolution=8)
    said = classifier.predict(test, np.arange(60))
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    sharp = Predictions(8 * (np.eye(3)[labels] + generator.normal(0, 1, (200, 3))), labels, ("a", "b", "c"))
    return {
        "predictions": said,
        "predictions of photos": classifier.predict(test.images[:2]),
        "explanation": classifier.explain(said, [0, 1], targets="contrast", layers=["layer1"]),
        "exploration": classifier.explore(said, 0, layers=["layer1"], methods=["gradcam", "eigencam"]),
        "class scores": evaluation.class_scores(said),
        "confused pairs": evaluation.most_confused(said),
        "labels": evaluation.suspicious_labels(said),
        "calibration": evaluation.calibrate(said),
        "reliability": evaluation.reliability(said),
        "temperatures": evaluation.temperature_scaling(sharp),
        "range test": training.RangeTest(np.array([0.1, 1]), np.ones(2), np.ones(2), {"valley": 0.1}),
        "faithfulness": trust.faithfulness.evaluate(
            classifier, said, count=4, layers=["layer1"], methods=["gradcam"], percentiles=[50], steps=2
        ),
    }


def test_each_has_a_table_a_reading_and_a_frame(results: dict[str, Readable]) -> None:
    for name, result in results.items():
        table, reading = result.table(), result.reading()
        assert isinstance(table, Table), name
        assert reading.endswith("."), name
        assert len(result.to_frame()) == len(table.rows), name
        assert str(table) in str(result), name
        assert "<table" in result._repr_html_(), name


def test_a_photo_alone_can_be_explored() -> None:
    _, test = datasets.load("digits")
    classifier = Classifier(models.ResNet18(10).eval(), test.classes, test.mean, test.std, resolution=8)
    found = classifier.explore(test.images[0], layers=["layer1"], methods=["gradcam", "eigencam"])
    name = test.classes[found.class_id]
    assert found.reading().startswith(f"Why {name}? Every method for one image. The probability of the class is ")
    assert found.to_frame()["of the class"].tolist() == ["yes", "no"]


def test_an_explanation_says_what_is_explained(results: dict[str, Readable]) -> None:
    found = results["explanation"]
    assert isinstance(found, Explanation)
    assert found.reading().startswith("Grad-CAM at layer1: 2 images, 2 classes each.")
    assert found.to_frame()["class"].tolist() == [found.classes[class_id] for class_id in found.targets.ravel()]


@pytest.mark.parametrize("kind", [Predictions, Explanation, Exploration, History, trust.faithfulness.Faithfulness])
def test_no_kind_of_result_is_left_out(kind: type) -> None:
    assert issubclass(kind, Readable)


def test_probabilities_too_sharp_are_said_to_be(results: dict[str, Readable]) -> None:
    assert results["temperatures"].reading().startswith("The probabilities were too sharp: the temperatures are ")
    assert results["temperatures"].to_frame()["images scaled"].tolist() == [100, 100]


@pytest.mark.usefixtures("results")
def test_every_kind_has_words_of_its_own() -> None:
    kinds = Readable.__subclasses__()
    assert len(kinds) > 10
    assert [kind.__name__ for kind in kinds if Readable.table is kind.table or Readable.reading is kind.reading] == []
