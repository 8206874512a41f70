"""The classifier: the same answers as the run it comes from, with nothing but the run."""

import dataclasses
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny import CLASSES, MEAN, STD, colored_images, quiet, tiny_network

from era_support_packages import plots, trust
from era_support_packages.classifier import FORMAT, WITHOUT_CLASSIFIER, Classifier, ClassifierError
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.image_folder import decode_image
from era_support_packages.datasets.normalization import normalize_images, unnormalize
from era_support_packages.evaluation.predictions import Predictions, predict
from era_support_packages.gradcam.explanation import explain
from era_support_packages.models.catalog import build_network
from era_support_packages.models.copies import detached_copy
from era_support_packages.runs.folder import Run
from era_support_packages.runs.preparation import prepare
from era_support_packages.runs.recording import train_prepared
from era_support_packages.system.tensor_file import read_tensors, write_tensors
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.loop import fit
from era_support_packages.training.setup import build_model

HERE = {"device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A run of two epochs on the digits, the second at another resolution."""
    values = {"dataset": "digits", "resolutions": [(8, 0.5), (16, 0.5)], "train_images": 256}
    return prepare("smoke", **values, **HERE, output_dir=str(tmp_path_factory.mktemp("runs")), report=quiet)


@pytest.fixture(scope="module")
def history(prepared):
    return train_prepared(prepared, report=quiet).history


@pytest.fixture(scope="module")
def classifier(prepared, history):
    return Classifier.load(prepared.run.folder, **HERE)


@pytest.fixture(scope="module")
def split(prepared):
    return prepared.test


@pytest.fixture
def checkpoint(prepared, history, tmp_path):
    """A copy of the run's checkpoint, alone in its folder."""
    return Path(shutil.copy(prepared.run.checkpoint_file, tmp_path / "checkpoint.pt"))


def test_a_runs_folder_gives_what_the_run_used_and_predicts_what_it_ended_with(classifier, history, split):
    assert (classifier.classes, classifier.mean, classifier.std) == (split.classes, split.mean, split.std)
    assert (classifier.resolution, classifier.model, classifier.precision) == (16, "ResNet18", "fp32")
    assert not classifier.network.training
    predictions = classifier.predict(split)
    assert np.array_equal(predictions.logits, history.predictions.logits)
    assert predictions.correct == history.records[-1].test_correct
    some = classifier.predict(split, [5, 2])
    assert np.allclose(some.logits, predictions.logits[[5, 2]], atol=1e-5)
    assert np.array_equal(some.labels, split.labels[[5, 2]])
    flipped = predict(classifier.network, split.take(range(4)), classifier.device, "fp32", 16, flip=True)
    assert np.array_equal(classifier.predict(split, range(4), flip=True).logits, flipped.logits)


def test_arrays_files_and_a_split_give_the_same(classifier, split, tmp_path):
    files = [tmp_path / f"{index}.png" for index in range(3)]
    for index, file in enumerate(files):
        cv2.imwrite(str(file), cv2.cvtColor(split.images[index], cv2.COLOR_RGB2BGR))
    of_split = classifier.predict(split, range(3)).logits
    assert np.array_equal(classifier.predict(split.images[:3]).logits, of_split)
    assert np.array_equal(classifier.predict(files).logits, of_split)
    one = classifier.predict(str(files[1]))
    assert np.allclose(one.logits, of_split[1:2], atol=1e-5)
    assert one.labels is None
    assert np.allclose(one.probabilities.sum(), 1)


def test_a_large_photo_is_resized_as_training_does(classifier, tmp_path):
    """To 32 px by area, its middle alone, then to the run's resolution: what a folder of images goes through."""
    file = tmp_path / "photo.png"
    cv2.imwrite(str(file), np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    small = cv2.resize(decode_image(file)[:, 80:560], (32, 32), interpolation=cv2.INTER_AREA)
    statistics = (classifier.mean, classifier.std)
    as_split = ImageDataset(small[None], np.zeros(1, np.int64), classifier.classes, "x", "x", "test", *statistics)
    assert torch.equal(classifier.inputs(file), normalize_images(as_split, np.array([0]), 16))
    assert np.array_equal(classifier.seen(file), unnormalize(classifier.inputs(file), *statistics))
    assert classifier.seen(file).shape == (1, 16, 16, 3)


def test_it_explains_as_gradcam_does(classifier, split):
    images, labels = normalize_images(split, np.array([3, 4]), 16), split.labels[[3, 4]]
    expected = explain(classifier.network, images, "actual", ["layer3"], "hirescam", labels=labels)
    found = classifier.explain(split, [3, 4], "actual", ["layer3"], "hirescam")
    assert np.array_equal(found.maps, expected.maps)
    assert np.array_equal(found.targets[:, 0], labels)


def test_what_needs_labels_says_so(classifier, split):
    predictions = classifier.predict(split.images[:2])
    for ask in (lambda: predictions.accuracy, lambda: predictions.losses, predictions.wrong, predictions.confusion_matrix):
        with pytest.raises(ValueError, match="have no labels"):
            ask()
    with pytest.raises(ValueError, match="labels"):
        classifier.explain(split.images[:2], targets="actual")


# ---- files -------------------------------------------------------------------------------------------------------------


def as_before(file: Path, **changes: object) -> None:
    """A checkpoint in the format of before, which kept neither class names nor statistics; changes: of the configuration."""
    content = read_tensors(file)
    del content["classifier"]
    write_tensors(file, {**content, "format": WITHOUT_CLASSIFIER, "config": {**content["config"], **changes}})


def test_nothing_but_the_file_is_needed_and_saved_and_loaded_it_says_the_same(checkpoint, classifier, split, monkeypatch):
    monkeypatch.setattr("era_support_packages.classifier.load_dataset", lambda name: pytest.fail("the data set was loaded"))
    assert Classifier.load(checkpoint.parent, **HERE).predict(split, [0]).classes == split.classes
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert classifier.save("~/mine.pt") == checkpoint.with_name("mine.pt")
    again = Classifier.load("~/mine.pt", **HERE)
    assert again.description() == classifier.description()
    assert np.array_equal(again.predict(split).logits, classifier.predict(split).logits)


def test_a_checkpoint_of_before_completes_itself_once(checkpoint, classifier, capsys):
    as_before(checkpoint)
    assert Checkpoint.load(checkpoint).classifier is None
    described = {**classifier.description(), "fit": "squash"}  # as every run did then
    assert Classifier.load(checkpoint.parent, device="cpu").description() == described
    assert "digits" in capsys.readouterr().out
    assert read_tensors(checkpoint)["format"] == FORMAT
    assert Checkpoint.load(checkpoint).classifier == described
    Classifier.load(checkpoint.parent, device="cpu")
    assert capsys.readouterr().out == ""


def test_a_run_of_before_that_is_shown_completes_itself_too(classifier, prepared, history, tmp_path, capsys):
    folder = Path(shutil.copytree(prepared.run.folder, tmp_path / prepared.run.name))
    as_before(folder / "checkpoint.pt")
    shown = Run(folder).load(build_network("ResNet18", 10), prepared.test)
    assert np.array_equal(shown.predictions.logits, history.predictions.logits)
    assert "completed" in capsys.readouterr().out
    assert Checkpoint.load(folder / "checkpoint.pt").classifier == classifier.description()


@pytest.mark.unhurried
def test_a_run_of_before_goes_on_and_is_complete_then(prepared, tmp_path):
    """Stopped after its first epoch by an earlier version: the next epoch writes what is missing."""
    config = prepared.config.resolved().replace(output_dir=str(tmp_path))
    data, first, later = (prepared.train, prepared.test), tmp_path / "first.pt", []

    def keep(state: Checkpoint) -> None:
        if not first.exists():
            state.save(first)
            as_before(first)

    _, whole = fit(build_model(config, 10, data[0]), *data, config, quiet, keep)
    _, again = fit(build_model(config, 10, data[0]), *data, config, quiet, later.append, Checkpoint.load(first))
    assert np.array_equal(again.predictions.logits, whole.predictions.logits)
    assert later[-1].classifier["classes"] == list(prepared.test.classes)


def test_where_the_data_set_of_such_a_file_is_gone_it_says_so(checkpoint):
    gone = str(checkpoint.with_name("gone"))
    as_before(checkpoint, dataset=gone)
    before = checkpoint.read_bytes()
    with pytest.raises(ClassifierError, match=rf"(?s)(?=.*is needed once)(?=.*{re.escape(gone)})"):
        Classifier.load(checkpoint.parent, device="cpu")
    assert checkpoint.read_bytes() == before


# ---- what it says carries what figures need ----------------------------------------------------------------------------


def test_predictions_can_be_explained_as_they_stand(classifier, split):
    predictions = classifier.predict(split, np.arange(40))
    worst = predictions.hardest(3)
    found = classifier.explain(predictions, worst, targets="contrast", layers=["layer4"])
    assert np.array_equal(found.targets, np.stack([predictions.predicted[worst], predictions.rivals[worst]], axis=1))
    assert np.array_equal(found.images, classifier.seen(split, worst))
    assert np.array_equal(found.labels, split.labels[worst])
    assert (found.classes, found.maps.shape) == (split.classes, (3, 2, 1, 16, 16))
    assert len(plots.gradcam_comparison(found, "Why?").axes) == 3 * 3 + 1
    # What they say was predicted is explained, also where the network would say something else now, as in another precision.
    other = Predictions(-predictions.logits, predictions.labels, predictions.classes, predictions.images)
    found = classifier.explain(other, [1], layers=["layer4"])
    assert found.targets[0, 0] == found.predicted[0] == other.predicted[1] != predictions.predicted[1]


def test_a_photo_nobody_labeled_is_set_beside_the_runner_up(classifier, split):
    found = classifier.explain(split.images[0], targets="contrast", layers=["layer4"])
    second = classifier.predict(split.images[0]).logits[0].argsort()[-2]
    assert found.labels is None
    assert found.targets[0, 1] == second
    title = plots.gradcam_comparison(found, "A photo").axes[2].get_title()
    assert title.startswith(f"runner-up: {split.classes[second]}")
    assert plots.gradcam_panels(found, "A photo").axes[0].get_title() == f"predicted {split.classes[found.predicted[0]]}"


@pytest.mark.unhurried
def test_the_checks_of_the_maps_take_the_classifier(classifier, split):
    """They see the images that their seed draws, normalised as the classifier does it."""
    options = {"layers": ["layer4"], "methods": ["hirescam"], "percentiles": [50], "steps": 2, "seed": 2}
    judged = trust.faithfulness.evaluate(classifier, split, count=6, **options)
    drawn = np.random.default_rng(2).choice(len(split), 6, replace=False)
    again = trust.faithfulness.judge(classifier.network, classifier.inputs(split, drawn), **options)
    assert judged.reading() == again.reading()
    assert np.array_equal(judged.confidences, again.confidences)

    options = {"train_count": 8, "draws": 2, "methods": "eigencam", "layers": "layer4"}
    sane = trust.sanity.sanity_check(classifier, split, split, indices=np.arange(5), **options)
    assert np.array_equal(sane.images, classifier.seen(split, np.arange(5)))
    assert sane.names == tuple(split.classes[label] for label in split.labels[:5])
    assert len(plots.sanity_maps(sane, "Maps", count=2).axes) > 2


# ---- what cannot be right is refused -----------------------------------------------------------------------------------

PIXELS = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "options", "problem"),
    [
        (np.zeros((2, 32, 32, 3)), {}, "uint8"),
        (np.zeros((2, 32, 32), np.uint8), {}, "uint8"),
        (np.zeros((0, 32, 32, 3), np.uint8), {}, "uint8"),
        (PIXELS, {"indices": [0]}, "indices go with a split"),
        ([], {}, "no files"),
        ([1, 2], {}, "no files"),
        (None, {}, "no files"),
        ([PIXELS[0]], {}, r"np\.stack"),
        (PIXELS, {"batch_size": 0}, "batch_size must be an integer of at least 1"),
        (PIXELS, {"batch_size": -1}, "batch_size must be an integer of at least 1"),
        (PIXELS, {"flip": "no"}, "flip is 'no'; give True or False"),
    ],
)
def test_what_are_no_images(tiny_classifier, images, options, problem):
    with pytest.raises(ValueError, match=problem):
        tiny_classifier.predict(images, **options)


@pytest.mark.parametrize("indices", [[], [360], [0.5], ["a"], 3, [[0, 1]]])
def test_indices_that_choose_nothing(classifier, split, indices):
    with pytest.raises(ValueError, match="whole number from 0 to 359"):
        classifier.predict(split, indices)


def test_splits_and_predictions_of_other_classes_or_without_images_are_refused(classifier, split):
    """The same labels would mean other things: a right network would be called wrong without a word."""
    other = dataclasses.replace(split, classes=tuple(reversed(split.classes)))
    for ask in (classifier.predict, classifier.explain):
        with pytest.raises(ClassifierError, match="mean something else"):
            ask(other, [0])
    assert classifier.predict(other.images[:1]).labels is None
    with pytest.raises(ValueError, match=r"^These predictions hold no images to show; take those that Classifier\."):
        classifier.explain(Predictions(np.zeros((2, 10), np.float32), None, split.classes), [0])
    with pytest.raises(ClassifierError, match="classes"):
        classifier.explain(Predictions(np.zeros((2, 2)), None, ("a", "b"), split.images[:2]), [0])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"resolution": 0}, "resolution is 0"),
        ({"resolution": "16"}, "resolution is '16'"),
        ({"mean": (0.5,)}, "three numbers"),
        ({"mean": 0.5}, "three numbers each"),
        ({"mean": (123.0, 117.0, 104.0)}, "from 0 to 1, where 1 is white"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "from 0 to 1, where 1 is white"),
        ({"std": ("a", "b", "c")}, "three numbers each"),
        ({"std": (0.0, 0.2, 0.2)}, "std above 0"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"model": "ResNet19"}, "model is 'ResNet19'.*'ResNet18'"),
        ({"classes": ("cat", "cat", "dog")}, "a name of its own"),
        ({"classes": "abc"}, "classes are 'abc'; give the names as a list"),
        ({"classes": {"cat", "dog", "bee"}}, "in the order of the logits"),
        ({"classes": ("cat", "", None)}, "give each class its name as text"),
        ({"classes": ()}, "give each class its name as text"),
        ({"resolution": True}, "resolution is True"),
        ({"bits": "16"}, "bits is '16'; give one of 8, 10, 12, 14, 16, or None"),
        ({"network": {}}, r"A dict is no network; give the nn\.Module itself"),
    ],
)
def test_values_that_no_classifier_has(tiny_classifier, changes, problem):
    with pytest.raises(ClassifierError, match=problem):
        dataclasses.replace(tiny_classifier, **changes)


def test_weights_that_are_no_numbers_and_outputs_without_names_are_refused(tiny_classifier):
    names = dataclasses.replace(tiny_classifier, classes=("cat", "dog"))
    for ask in (names.predict, lambda images: names.explain(images, layers=["conv"])):
        with pytest.raises(ClassifierError, match="3 outputs for 2 class names"):
            ask(PIXELS)
    torch.nn.init.constant_(tiny_classifier.network.linear.bias, float("nan"))
    with pytest.raises(ClassifierError, match="NaN or infinite"):
        tiny_classifier.predict(PIXELS)


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-is-called-so/cat.png"])
def test_a_file_that_no_system_has_is_not_there_and_a_folder_is_no_image(tiny_classifier, path, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{path} is not there"):
        tiny_classifier.predict(path)
    with pytest.raises(FileNotFoundError, match=f"{path} is not there"):
        Classifier.load(path)
    with pytest.raises(ValueError, match=r"is a folder and no image; load it with datasets\.load"):
        tiny_classifier.predict(tmp_path)


@pytest.mark.parametrize(
    ("content", "error", "problem"),
    [
        (b"", ClassifierError, "broken.pt"),
        (b"hello", ClassifierError, "broken.pt"),
        ({"format": FORMAT, "weights": torch.zeros(1)}, ClassifierError, "holds no classifier"),
        ({"format": 9, "classifier": {}, "model": {}}, ClassifierError, "format 9"),
        ({"format": FORMAT, "classifier": {"model": "ResNet19"}, "model": {"weight": torch.zeros(1)}}, ValueError, "ResNet18"),
    ],
)
def test_what_is_no_classifier(classifier, tmp_path, content, error, problem):
    file = tmp_path / "broken.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        if "classifier" in content:
            content = {**content, "classifier": {**classifier.description(), **content["classifier"]}}
        write_tensors(file, content)
    with pytest.raises(error, match=problem):
        Classifier.load(file)


def test_where_there_is_none_and_a_machine_that_is_not_this_one(classifier, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        Classifier.load(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint\.pt"):
        Classifier.load(tmp_path)
    for device, precision, bad in (("cpu", "int8", "int8"), ("cuda:7", "fp32", "cuda:7"), ("gpu", "fp32", "gpu")):
        with pytest.raises(ValueError, match=f"is '{bad}'"):
            Classifier.load(classifier.save(tmp_path / "good.pt"), device, precision)


@pytest.mark.parametrize(
    ("model", "classes", "problem"),
    [
        ("ResNet34", 2, r"is no ResNet34 of 2 classes, as its 'layer1\.2\.conv1\.weight' shows"),
        ("ResNet18", 3, r"is no ResNet18 of 3 classes, as its 'linear\.weight' shows"),
        ("resnet_custom", 2, r"is no resnet_custom of 2 classes, as its 'prep\.0\.weight' shows"),
        (None, 2, "made elsewhere"),
    ],
)
def test_a_network_that_its_name_would_not_make_again_is_not_saved(model, classes, problem, tmp_path):
    wrong = Classifier(build_network("ResNet18", 2), ("a", "b", "c")[:classes], (0.5,) * 3, (0.2,) * 3, 16, model=model)
    before = torch.get_rng_state()
    with pytest.raises(ClassifierError, match=problem):
        wrong.save(tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", ["stride", "activation", "norm"])
def test_a_network_that_differs_in_what_has_no_weights_is_not_saved_under_the_name(change, classifier, tmp_path):
    network = detached_copy(classifier.network)
    if change == "stride":
        network.layer4[0].conv1.stride = network.layer4[0].shortcut[0].stride = (1, 1)
    elif change == "activation":
        network.conv1.register_forward_hook(lambda module, given, output: output.tanh())
    else:
        network.bn1.eps = 0.1
    wrong = dataclasses.replace(classifier, network=network)
    before = torch.get_rng_state()
    with pytest.raises(ClassifierError, match=r"is no ResNet18 of 10 classes, as its forward pass shows; give model="):
        wrong.save(tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)
    dataclasses.replace(classifier, network=detached_copy(classifier.network).bfloat16()).save(tmp_path / "x.pt")


# ---- images that are not as in training --------------------------------------------------------------------------------

OWN = Classifier(tiny_network().eval(), CLASSES, MEAN, STD, resolution=40, image_size=40, fit="crop")


def asked_of(classifier: Classifier, split: ImageDataset) -> dict[str, Callable[[], object]]:
    """All that a split is given to."""
    right = dataclasses.replace(colored_images(64, 40), fit="crop")
    return {
        "predict": lambda: classifier.predict(split),
        "explain": lambda: classifier.explain(split, [0], layers=["conv"]),
        "explore": lambda: classifier.explore(split, 0, methods=["gradcam"], layers=["conv"]),
        "inputs": lambda: classifier.inputs(split),
        "faithfulness": lambda: trust.faithfulness.evaluate(classifier, split, [0, 1], layers=["conv"]),
        "sanity, test": lambda: trust.sanity.sanity_check(classifier, split, right, layers=["conv"]),
        "sanity, train": lambda: trust.sanity.sanity_check(classifier, right, split, layers=["conv"]),
        "plant": lambda: trust.shortcut.plant(classifier, split, held_out=8),
    }


@pytest.mark.parametrize("name", list(asked_of(OWN, colored_images(3))))
def test_a_split_of_smaller_images_or_other_classes_or_brightness_is_refused_by_all(name):
    small = dataclasses.replace(colored_images(64, 32), fit="crop")
    with pytest.raises(ClassifierError, match=r"are 32x32 px, .* 40 px, .* load the data with image_size=40, fit='crop'"):
        asked_of(OWN, small)[name]()
    others = dataclasses.replace(colored_images(64, 40, classes=("green", "red", "blue")), fit="crop")
    with pytest.raises(ClassifierError, match=r"classes are green, red, blue and the classifier's red, green, blue"):
        asked_of(OWN, others)[name]()
    deep = dataclasses.replace(colored_images(64, 40), fit="crop", bits=12)
    with pytest.raises(ClassifierError, match=r"scaled by 12 bits, and by 16 in"):
        asked_of(dataclasses.replace(OWN, bits=16), deep)[name]()


def test_find_refuses_a_split_of_other_classes():
    classifier = dataclasses.replace(OWN, fit="squash")
    planted = trust.shortcut.plant(classifier, colored_images(64, 40), held_out=8)
    with pytest.raises(ClassifierError, match="its labels mean something else"):
        trust.shortcut.find(planted, colored_images(64, 40, classes=("green", "red", "blue")), layers=["conv"], count=8)


def test_images_made_square_in_another_way_are_told_of_where_their_pixels_differ():
    split = colored_images(3, 40)
    with pytest.warns(UserWarning, match=r"fit='squash' and .* by 'crop': .* image_size=40, fit='crop'"):
        OWN.predict(dataclasses.replace(split, mean=(0.1, 0.2, 0.3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OWN.predict(split)  # the same mean and standard deviation: square images, which every fit leaves alone
        OWN.predict(dataclasses.replace(colored_images(3, 64), fit="crop"))  # larger ones are made smaller
        OWN.predict(OWN.predict(split))


def test_photos_get_the_resolution_of_a_classifier_that_does_not_say_their_size():
    def sizes(resolution: int) -> tuple[int, int]:
        classifier = Classifier(tiny_network(), CLASSES, MEAN, STD, resolution)
        return classifier.image_size, classifier.predict(np.zeros((300, 200, 3), np.uint8)).pictures.shape[1]

    assert [sizes(px) for px in (8, 32, 128)] == [(32, 32), (32, 32), (128, 128)]


def test_a_file_goes_into_a_folder_that_is_there(classifier, tmp_path):
    with pytest.raises(ClassifierError, match=rf"cannot be written: there is no folder {re.escape(str(tmp_path / 'no'))}"):
        classifier.save(tmp_path / "no" / "x.pt")
    with pytest.raises(ClassifierError, match="cannot be written"):
        classifier.save(tmp_path / ("x" * 300))
    with pytest.raises(ClassifierError, match="is a folder; give a file in it"):
        classifier.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
