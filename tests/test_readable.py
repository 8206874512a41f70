"""Every result that a person reads shows itself in the same way: a table, a reading, a frame."""

import numpy as np
import pytest
from tiny import colored_images, tiny_network

from era_support_packages import Explanation, Predictions, evaluation, training, trust
from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.tables import Readable, Table
from era_support_packages.gradcam import Exploration
from era_support_packages.training.history import History


@pytest.fixture(scope="module")
def results():
    """What a person gets who predicts, explains and analyses a few images with a network that has learnt nothing."""
    test = colored_images(60, split="test")
    classifier = Classifier(tiny_network().eval(), test.classes, test.mean, test.std, resolution=8)
    said = classifier.predict(test)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    sharp = Predictions(8 * (np.eye(3)[labels] + generator.normal(0, 1, (200, 3))), labels, ("a", "b", "c"))
    options = {"layers": ["relu"], "methods": ["gradcam"]}
    return {
        "predictions": said,
        "predictions of photos": classifier.predict(test.images[:2]),
        "explanation": classifier.explain(said, [0, 1], targets="contrast", layers=["relu"]),
        "exploration": classifier.explore(said, 0, layers=["relu"], methods=["gradcam", "eigencam"]),
        "exploration of a photo": classifier.explore(test.images[0], layers=["relu"], methods=["gradcam", "eigencam"]),
        "class scores": evaluation.class_scores(said),
        "confused pairs": evaluation.most_confused(said),
        "labels": evaluation.suspicious_labels(said),
        "calibration": evaluation.calibrate(said),
        "reliability": evaluation.reliability(said),
        "temperatures": evaluation.temperature_scaling(sharp),
        "range test": training.RangeTest(np.array([0.1, 1]), np.ones(2), np.ones(2), {"valley": 0.1}),
        "faithfulness": trust.faithfulness.evaluate(classifier, said, count=4, percentiles=[50], steps=2, **options),
    }


def test_each_has_a_table_a_reading_and_a_frame(results):
    for name, result in results.items():
        table, reading = result.table(), result.reading()
        assert isinstance(table, Table), name
        assert reading.endswith("."), name
        assert len(result.to_frame()) == len(table.rows), name
        assert str(table) in str(result), name
        assert "<table" in result._repr_html_(), name


def test_what_they_say(results):
    photo, explanation, temperatures = (results[name] for name in ("exploration of a photo", "explanation", "temperatures"))
    why = f"Why {photo.explanations[0].classes[photo.class_id]}? Every method for one image. The probability of the class is "
    assert photo.reading().startswith(why)
    assert photo.to_frame()["of the class"].tolist() == ["yes", "no"]
    assert explanation.reading().startswith("Grad-CAM at relu: 2 images, 2 classes each.")
    assert explanation.to_frame()["class"].tolist() == [explanation.classes[class_id] for class_id in explanation.targets.ravel()]
    assert temperatures.reading().startswith("The probabilities were too sharp: the temperatures are ")
    assert temperatures.to_frame()["images scaled"].tolist() == [100, 100]


@pytest.mark.usefixtures("results")
def test_no_kind_of_result_is_left_out_and_every_kind_has_words_of_its_own():
    assert all(issubclass(kind, Readable) for kind in (Predictions, Explanation, Exploration, History))
    assert issubclass(trust.faithfulness.Faithfulness, Readable)
    kinds = Readable.__subclasses__()
    assert len(kinds) > 10
    assert [kind.__name__ for kind in kinds if Readable.table is kind.table or Readable.reading is kind.reading] == []
