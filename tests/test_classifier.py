"""The classifier: the same answers as the run it comes from, with nothing but the run."""

import dataclasses
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import tiny_network

from era_support_packages import plots, trust
from era_support_packages.classifier import FORMAT, WITHOUT_CLASSIFIER, Classifier, ClassifierError
from era_support_packages.datasets.digits import load_digits
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.image_folder import decode_image
from era_support_packages.datasets.normalization import normalize_images, unnormalize
from era_support_packages.evaluation.predictions import Predictions, predict
from era_support_packages.gradcam.explanation import explain
from era_support_packages.models.catalog import build_network
from era_support_packages.runs.folder import Run
from era_support_packages.runs.preparation import PreparedRun, prepare
from era_support_packages.runs.recording import train_prepared
from era_support_packages.system.tensor_file import read_tensors, write_tensors
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.history import History
from era_support_packages.training.loop import fit
from era_support_packages.training.setup import build_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedRun, History]:
    """A run of two epochs on the digits, the second at another resolution."""
    folder = tmp_path_factory.mktemp("runs")
    values = {"dataset": "digits", "output_dir": str(folder), "resolutions": [(8, 0.5), (16, 0.5)], "train_images": 256}
    prepared = prepare("smoke", **values, device="cpu", precision="fp32", report=lambda text: None)
    return prepared, train_prepared(prepared, report=lambda text: None).history


@pytest.fixture(scope="module")
def classifier(trained: tuple[PreparedRun, History]) -> Classifier:
    return Classifier.load(trained[0].run.folder, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def test_split() -> ImageDataset:
    return load_digits()[1]


def test_a_runs_folder_gives_what_the_run_used(classifier: Classifier, trained: tuple[PreparedRun, History]) -> None:
    test = trained[0].test
    assert (classifier.classes, classifier.mean, classifier.std) == (test.classes, test.mean, test.std)
    assert (classifier.resolution, classifier.model, classifier.precision) == (16, "ResNet18", "fp32")
    assert not classifier.network.training


def test_it_predicts_what_the_run_ended_with(
    classifier: Classifier, trained: tuple[PreparedRun, History], test_split: ImageDataset
) -> None:
    predictions = classifier.predict(test_split)
    assert np.array_equal(predictions.logits, trained[1].predictions.logits)
    assert predictions.correct == trained[1].records[-1].test_correct
    some = classifier.predict(test_split, [5, 2])
    assert np.allclose(some.logits, predictions.logits[[5, 2]], atol=1e-5)
    assert np.array_equal(some.labels, test_split.labels[[5, 2]])


def test_flips_are_averaged_as_predict_does(classifier: Classifier, test_split: ImageDataset) -> None:
    expected = predict(classifier.network, test_split.take(range(4)), classifier.device, "fp32", 16, flip=True)
    assert np.array_equal(classifier.predict(test_split, range(4), flip=True).logits, expected.logits)


def test_arrays_files_and_a_split_give_the_same(classifier: Classifier, test_split: ImageDataset, tmp_path: Path) -> None:
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(files[-1]), cv2.cvtColor(test_split.images[index], cv2.COLOR_RGB2BGR))
    of_split = classifier.predict(test_split, range(3)).logits
    assert np.array_equal(classifier.predict(test_split.images[:3]).logits, of_split)
    assert np.array_equal(classifier.predict(files).logits, of_split)
    one = classifier.predict(str(files[1]))
    assert np.allclose(one.logits, of_split[1:2], atol=1e-5)
    assert one.labels is None
    assert np.allclose(one.probabilities.sum(), 1)


def test_a_large_photo_is_resized_as_training_does(classifier: Classifier, tmp_path: Path) -> None:
    """To 32 px by area, then to the run's resolution: what a folder of images goes through."""
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    file = tmp_path / "photo.png"
    cv2.imwrite(str(file), photo)
    small = cv2.resize(decode_image(file), (32, 32), interpolation=cv2.INTER_AREA)
    labels, statistics = np.zeros(1, np.int64), (classifier.mean, classifier.std)
    split = ImageDataset(small[None], labels, classifier.classes, "x", "x", "test", *statistics)
    assert torch.equal(classifier.inputs(file), normalize_images(split, np.array([0]), 16))
    assert np.array_equal(classifier.seen(file), unnormalize(classifier.inputs(file), classifier.mean, classifier.std))
    assert classifier.seen(file).shape == (1, 16, 16, 3)


def test_it_explains_as_gradcam_does(classifier: Classifier, test_split: ImageDataset) -> None:
    images = normalize_images(test_split, np.array([3, 4]), 16)
    expected = explain(classifier.network, images, "actual", ["layer3"], "hirescam", labels=test_split.labels[[3, 4]])
    found = classifier.explain(test_split, [3, 4], "actual", ["layer3"], "hirescam")
    assert np.array_equal(found.maps, expected.maps)
    assert np.array_equal(found.targets[:, 0], test_split.labels[[3, 4]])


def test_what_needs_labels_says_so(classifier: Classifier, test_split: ImageDataset) -> None:
    predictions = classifier.predict(test_split.images[:2])
    for ask in (lambda: predictions.accuracy, lambda: predictions.losses, predictions.wrong, predictions.confusion_matrix):
        with pytest.raises(ValueError, match="have no labels"):
            ask()
    with pytest.raises(ValueError, match="labels"):
        classifier.explain(test_split.images[:2], targets="actual")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_nothing_but_the_folder_is_needed(
    trained: tuple[PreparedRun, History], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_split: ImageDataset
) -> None:
    shutil.copy(trained[0].run.checkpoint_file, tmp_path / "checkpoint.pt")
    monkeypatch.setattr("era_support_packages.classifier.load_dataset", lambda name: pytest.fail("the data set was loaded"))
    loaded = Classifier.load(tmp_path, device="cpu", precision="fp32")
    assert loaded.predict(test_split, [0]).classes == test_split.classes


def test_saved_and_loaded_it_says_the_same(classifier: Classifier, tmp_path: Path, test_split: ImageDataset) -> None:
    file = classifier.save(tmp_path / "digits.pt")
    again = Classifier.load(file, device="cpu", precision="fp32")
    assert again.description() == classifier.description()
    assert np.array_equal(again.predict(test_split).logits, classifier.predict(test_split).logits)


def as_before(file: Path) -> None:
    """A checkpoint in the format of before, which kept neither class names nor statistics."""
    content = read_tensors(file)
    del content["classifier"]
    write_tensors(file, {**content, "format": WITHOUT_CLASSIFIER})


def test_a_checkpoint_of_before_completes_itself_once(
    classifier: Classifier, trained: tuple[PreparedRun, History], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint.pt"
    shutil.copy(trained[0].run.checkpoint_file, file)
    as_before(file)
    assert Checkpoint.load(file).classifier is None
    assert Classifier.load(tmp_path, device="cpu").description() == classifier.description()
    assert "digits" in capsys.readouterr().out
    assert read_tensors(file)["format"] == FORMAT
    assert Checkpoint.load(file).classifier == classifier.description()
    Classifier.load(tmp_path, device="cpu")
    assert capsys.readouterr().out == ""


def test_a_run_of_before_that_is_shown_completes_itself_too(
    classifier: Classifier, trained: tuple[PreparedRun, History], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / trained[0].run.name
    shutil.copytree(trained[0].run.folder, folder)
    as_before(folder / "checkpoint.pt")
    network = build_network("ResNet18", 10)
    history = Run(folder).load(network, trained[0].test)
    assert np.array_equal(history.predictions.logits, trained[1].predictions.logits)
    assert "completed" in capsys.readouterr().out
    assert Checkpoint.load(folder / "checkpoint.pt").classifier == classifier.description()


def test_a_run_of_before_goes_on_and_is_complete_then(trained: tuple[PreparedRun, History], tmp_path: Path) -> None:
    """Stopped after its first epoch by an earlier version: the next epoch writes what is missing."""
    config = trained[0].config.resolved().replace(output_dir=str(tmp_path))
    train, test = trained[0].train, trained[0].test
    kept: list[Path] = []

    def keep(state: Checkpoint) -> None:
        if not kept:
            kept.append(tmp_path / "first.pt")
            state.save(kept[0])
            as_before(kept[0])

    def network() -> torch.nn.Module:
        return build_model(config, 10, train)

    _, whole = fit(network(), train, test, config, lambda text: None, keep)
    later: list[Checkpoint] = []
    _, again = fit(network(), train, test, config, lambda text: None, later.append, Checkpoint.load(kept[0]))
    assert np.array_equal(again.predictions.logits, whole.predictions.logits)
    assert later[-1].classifier["classes"] == list(test.classes)


def test_where_the_data_set_of_such_a_file_is_gone_it_says_so(trained: tuple[PreparedRun, History], tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    shutil.copy(trained[0].run.checkpoint_file, file)
    as_before(file)
    content = read_tensors(file)
    content["config"]["dataset"] = str(tmp_path / "gone")
    write_tensors(file, content)
    before = file.read_bytes()
    with pytest.raises(ClassifierError, match="is needed once") as raised:
        Classifier.load(tmp_path, device="cpu")
    assert str(tmp_path / "gone") in str(raised.value)
    assert file.read_bytes() == before


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "indices", "problem"),
    [
        (np.zeros((2, 32, 32, 3)), None, "uint8"),
        (np.zeros((2, 32, 32), np.uint8), None, "uint8"),
        (np.zeros((0, 32, 32, 3), np.uint8), None, "uint8"),
        (np.zeros((2, 32, 32, 3), np.uint8), [0], "indices go with a split"),
        ([], None, "no files"),
        ([1, 2], None, "no files"),
        (None, None, "no files"),
        ([np.zeros((32, 32, 3), np.uint8)], None, "np.stack"),
    ],
)
def test_what_are_no_images(classifier: Classifier, images: object, indices: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        classifier.predict(images, indices)


def test_a_split_of_other_classes_is_refused(classifier: Classifier, test_split: ImageDataset) -> None:
    """The same labels would mean other things: a right network would be called wrong without a word."""
    other = dataclasses.replace(test_split, classes=tuple(reversed(test_split.classes)))
    for ask in (classifier.predict, classifier.explain):
        with pytest.raises(ClassifierError, match="mean something else"):
            ask(other, [0])
    assert classifier.predict(other.images[:1]).labels is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": "16"}, "resolution is '16'"),
        ({"std": (0.0, 0.2, 0.2)}, "above 0"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"model": "ResNet19"}, "model is 'ResNet19'.*'ResNet18'"),
    ],
)
def test_values_that_no_classifier_has(classifier: Classifier, change: dict[str, object], problem: str) -> None:
    with pytest.raises(ClassifierError, match=problem):
        dataclasses.replace(classifier, **change)


def test_there_is_a_name_for_each_output(classifier: Classifier, test_split: ImageDataset) -> None:
    with pytest.raises(ClassifierError, match="10 outputs for 2 class names"):
        dataclasses.replace(classifier, classes=("a", "b")).predict(test_split.images[:1])


@pytest.mark.parametrize("indices", [[], [360], [0.5], ["a"], 3, [[0, 1]]])
def test_indices_that_choose_nothing(classifier: Classifier, test_split: ImageDataset, indices: object) -> None:
    with pytest.raises(ValueError, match="whole number from 0 to 359"):
        classifier.predict(test_split, indices)


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-is-called-so/cat.png"])
def test_a_file_that_no_system_has_is_not_there(classifier: Classifier, path: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{path} is not there"):
        classifier.predict(path)


def test_a_folder_is_no_image(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder and no image; load it with datasets\.load"):
        classifier.predict(tmp_path)


def test_what_is_no_classifier(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not there"):
        Classifier.load(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint\.pt"):
        Classifier.load(tmp_path)
    for name, content in {"empty.pt": b"", "text.pt": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ClassifierError, match=name):
            Classifier.load(tmp_path / name)
    write_tensors(tmp_path / "other.pt", {"format": FORMAT, "weights": torch.zeros(1)})
    with pytest.raises(ClassifierError, match="holds no classifier"):
        Classifier.load(tmp_path / "other.pt")
    write_tensors(tmp_path / "newer.pt", {"format": 9, "classifier": classifier.description(), "model": {}})
    with pytest.raises(ClassifierError, match="format 9"):
        Classifier.load(tmp_path / "newer.pt")
    for device, precision in (("cpu", "int8"), ("cuda:7", "fp32")):
        with pytest.raises(ValueError, match=f"is '{precision if device == 'cpu' else device}'"):
            Classifier.load(classifier.save(tmp_path / "good.pt"), device, precision)
    unknown = {**classifier.description(), "model": "ResNet19"}
    write_tensors(tmp_path / "unknown.pt", {"format": FORMAT, "classifier": unknown, "model": {}})
    with pytest.raises(ValueError, match="ResNet18"):
        Classifier.load(tmp_path / "unknown.pt")


@pytest.mark.parametrize(
    ("model", "classes", "weight"),
    [("ResNet34", 2, "layer1.2.conv1.weight"), ("ResNet18", 3, "linear.weight"), ("resnet_custom", 2, "prep.0.weight")],
)
def test_a_network_that_its_name_would_not_make_again_is_not_saved(model: str, classes: int, weight: str, tmp_path: Path) -> None:
    names = ("a", "b", "c")[:classes]
    wrong = Classifier(build_network("ResNet18", 2), names, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 16, model=model)
    before = torch.get_rng_state()
    with pytest.raises(ClassifierError, match=rf"is no {model} of {classes} classes, as its '{re.escape(weight)}' shows"):
        wrong.save(tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_goes_into_a_folder_that_is_there(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=rf"cannot be written: there is no folder {re.escape(str(tmp_path / 'no'))}"):
        classifier.save(tmp_path / "no" / "x.pt")
    with pytest.raises(ClassifierError, match="cannot be written"):
        classifier.save(tmp_path / ("x" * 300))
    assert list(tmp_path.iterdir()) == []


def test_a_tilde_is_the_home_folder(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert classifier.save("~/mine.pt") == tmp_path / "mine.pt"
    assert Classifier.load("~/mine.pt").classes == classifier.classes
    for path in ("~nobody-is-called-so/run", "x" * 300):
        with pytest.raises(FileNotFoundError, match=f"{path} is not there"):
            Classifier.load(path)


def test_a_network_made_elsewhere_cannot_be_saved_by_name(tmp_path: Path) -> None:
    network = build_network("ResNet18", 2)
    elsewhere = Classifier(network, ("a", "b"), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 16)
    with pytest.raises(ClassifierError, match="made elsewhere"):
        elsewhere.save(tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


# ---- what it says carries what figures need ----------------------------------------------------------------------------


def test_predictions_can_be_explained_as_they_stand(classifier: Classifier, test_split: ImageDataset) -> None:
    predictions = classifier.predict(test_split, np.arange(40))
    worst = predictions.hardest(3)
    found = classifier.explain(predictions, worst, targets="contrast", layers=["layer4"])
    assert np.array_equal(found.targets, np.stack([predictions.predicted[worst], predictions.rivals[worst]], axis=1))
    assert np.array_equal(found.images, classifier.seen(test_split, worst))
    assert np.array_equal(found.labels, test_split.labels[worst])
    assert (found.classes, found.maps.shape) == (test_split.classes, (3, 2, 1, 16, 16))
    figure = plots.gradcam_comparison(found, "Why?")
    assert len(figure.axes) == 3 * 3 + 1


def test_what_predictions_say_was_predicted_is_what_is_explained(classifier: Classifier, test_split: ImageDataset) -> None:
    """Also where the network would say something else now, such as in another precision."""
    made = classifier.predict(test_split, [0, 1])
    other = Predictions(-made.logits, made.labels, made.classes, made.images)
    found = classifier.explain(other, [1], layers=["layer4"])
    assert found.targets[0, 0] == found.predicted[0] == other.predicted[1] != made.predicted[1]


def test_a_photo_nobody_labeled_is_set_beside_the_runner_up(classifier: Classifier, test_split: ImageDataset) -> None:
    found = classifier.explain(test_split.images[0], targets="contrast", layers=["layer4"])
    second = classifier.predict(test_split.images[0]).logits[0].argsort()[-2]
    assert found.labels is None
    assert found.targets[0, 1] == second
    title = plots.gradcam_comparison(found, "A photo").axes[2].get_title()
    assert title.startswith(f"runner-up: {test_split.classes[second]}")
    assert plots.gradcam_panels(found, "A photo").axes[0].get_title() == f"predicted {test_split.classes[found.predicted[0]]}"


def test_predictions_without_images_say_so(classifier: Classifier, test_split: ImageDataset) -> None:
    bare = Predictions(np.zeros((2, 10), np.float32), None, test_split.classes)
    with pytest.raises(ValueError, match=r"^these predictions hold no images to show; take those that Classifier\."):
        classifier.explain(bare, [0])
    with pytest.raises(ClassifierError, match="classes"):
        classifier.explain(Predictions(np.zeros((2, 2)), None, ("a", "b"), test_split.images[:2]), [0])


def test_the_checks_of_the_maps_take_the_classifier(classifier: Classifier, test_split: ImageDataset) -> None:
    """They see the images that their seed draws, normalised as the classifier does it."""
    judged = trust.faithfulness.evaluate(
        classifier, test_split, count=6, seed=2, layers=["layer4"], methods=["hirescam"], percentiles=[50], steps=2
    )
    drawn = np.random.default_rng(2).choice(len(test_split), 6, replace=False)
    again = trust.faithfulness.judge(
        classifier.network,
        classifier.inputs(test_split, drawn),
        layers=["layer4"],
        methods=["hirescam"],
        percentiles=[50],
        steps=2,
        seed=2,
    )
    assert judged.reading() == again.reading()
    assert np.array_equal(judged.confidences, again.confidences)

    sane = trust.sanity.sanity_check(
        classifier, test_split, test_split, indices=np.arange(5), train_count=8, draws=2, methods="eigencam", layers="layer4"
    )
    assert np.array_equal(sane.images, classifier.seen(test_split, np.arange(5)))
    assert sane.names == tuple(test_split.classes[label] for label in test_split.labels[:5])
    assert len(plots.sanity_maps(sane, "Maps", count=2).axes) > 2


# ---- what cannot be right is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mean": (123.0, 117.0, 104.0)}, "from 0 to 1, where 1 is white"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "from 0 to 1, where 1 is white"),
        ({"mean": 0.5}, "three numbers each"),
        ({"std": ("a", "b", "c")}, "three numbers each"),
        ({"std": (0.0, 0.2, 0.2)}, "std above 0"),
        ({"classes": ("cat", "cat", "dog")}, "a name of its own"),
    ],
)
def test_values_that_no_classifier_has_are_refused(changes: dict[str, object], said: str) -> None:
    values = {"classes": ("cat", "dog", "bird"), "mean": (0.5,) * 3, "std": (0.25,) * 3, "resolution": 8}
    with pytest.raises(ClassifierError, match=said):
        Classifier(tiny_network(), **{**values, **changes})


def test_weights_that_are_no_numbers_and_outputs_without_names_are_refused() -> None:
    pixels, network = np.zeros((2, 8, 8, 3), np.uint8), tiny_network()
    names = Classifier(network, ("cat", "dog"), (0.5,) * 3, (0.25,) * 3, 8)  # it has three outputs
    for ask in (names.predict, lambda images: names.explain(images, layers=["conv"])):
        with pytest.raises(ClassifierError, match="3 outputs for 2 class names"):
            ask(pixels)
    torch.nn.init.constant_(network.linear.bias, float("nan"))
    with pytest.raises(ClassifierError, match="NaN or infinite"):
        Classifier(network, ("cat", "dog", "bird"), (0.5,) * 3, (0.25,) * 3, 8).predict(pixels)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_that_is_none_is_refused(batch_size: int) -> None:
    classifier = Classifier(tiny_network(), ("cat", "dog", "bird"), (0.5,) * 3, (0.25,) * 3, 8)
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        classifier.predict(np.zeros((2, 8, 8, 3), np.uint8), batch_size=batch_size)
