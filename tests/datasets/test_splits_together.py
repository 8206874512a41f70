"""Splits that do not go together are refused, whoever takes them: before anything is trained, made or changed."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tiny import MEAN, STD, colored_images, plan, quiet, tiny_network

from era_support_packages.datasets import hold_out
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.validation import require_same_kind
from era_support_packages.runs import prepare
from era_support_packages.training import Checkpoint, finetune, fit

TRAIN, TEST = colored_images(24), colored_images(9, split="test", seed=1)
ORDER = np.array([2, 0, 1])
KINDS: dict[str, tuple[ImageDataset, str]] = {
    "other order": (
        replace(TEST, classes=("blue", "red", "green"), labels=np.argsort(ORDER)[TEST.labels]),
        r"test split differ \(the same names in another order\).* give both the same classes in the same order",
    ),
    "a class less": (
        replace(TEST.take(TEST.labels < 2), classes=("red", "green")),
        r"test split differ \(only training has 'blue'\)",
    ),
    "a class more": (replace(TEST, classes=(*TEST.classes, "white")), r"test split differ \(only it has 'white'\)"),
    "other size": (colored_images(9, 16, split="test"), r"16x16 px instead of 8x8\): load both by the same datasets\.load"),
    "other fit": (replace(TEST, fit="crop"), "fit='crop' instead of 'squash'"),
    "other bits": (replace(TEST, bits=12), "files of 16 bits scaled by 12 bits instead of 16"),
}
STATISTICS: dict[str, tuple[ImageDataset, str]] = {
    "other mean": (replace(TEST, mean=(0.9, 0.9, 0.9)), r"dataclasses\.replace\(split, mean=train\.mean, std=train\.std\)"),
    "other std": (replace(TEST, std=(0.1, 0.1, 0.1)), "The test split carries other statistics than the training images"),
}
SCALED = replace(TRAIN, bits=16)  # a split without files of 16 bits goes with it


@pytest.mark.parametrize("kind", [*KINDS, *STATISTICS])
def test_what_does_not_go_with_the_training_images_is_refused_before_training(kind: str) -> None:
    other, sentence = {**KINDS, **STATISTICS}[kind]
    network = tiny_network()
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=sentence):
        fit(network, SCALED, other, plan(), lambda line: pytest.fail(line))
    assert all(bool((before[name] == value).all()) for name, value in network.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_those_that_give_the_splits_their_statistics_refuse_the_rest(kind: str) -> None:
    other, sentence = KINDS[kind]
    network = tiny_network(classes=5)
    calls: list[Callable[[], object]] = [
        lambda: hold_out(SCALED, other, 0.25),
        lambda: finetune(network, SCALED, other, mean=MEAN, std=STD, report=quiet),
        lambda: prepare("smoke", data=(SCALED, other), dataset="colours", report=quiet),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=sentence):
            call()
    assert network.linear.out_features == 5  # it keeps its last layer


def test_statistics_that_are_replaced_may_differ() -> None:
    train, validation, test = hold_out(TRAIN, STATISTICS["other mean"][0], 0.25)
    require_same_kind(train, validation, test)
    require_same_kind(SCALED, TEST)
    with pytest.raises(ValueError, match="validation split carries other statistics"):
        require_same_kind(train, test, replace(validation, std=STD))


def test_a_validation_split_of_other_classes_is_refused() -> None:
    train, validation, test = hold_out(TRAIN, TEST, 0.25)
    other = replace(validation, classes=("green", "red", "blue"))
    with pytest.raises(ValueError, match="of the validation split differ"):
        fit(tiny_network(), train, test, plan(validation=0.25), quiet, validation=other)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"classes": ("green", "red", "blue")}, r"\(other classes, or in another order\)"),
        ({"mean": (0.9, 0.9, 0.9)}, r"\(mean \[0\.5, 0\.4, 0\.3\], not \[0\.9, 0\.9, 0\.9\]\)"),
    ],
)
def test_a_run_does_not_go_on_with_other_images(change: dict[str, object], sentence: str) -> None:
    states: list[Checkpoint] = []
    fit(tiny_network(), TRAIN, TEST, plan(epochs=2), quiet, lambda state: states.append(copy.deepcopy(state)))
    others = [replace(split, **change) for split in (TRAIN, TEST)]
    with pytest.raises(ValueError, match=f"{sentence}: give the splits that it began with"):
        fit(tiny_network(), *others, plan(epochs=2), quiet, resume=states[0])


def test_the_classifier_is_that_of_the_training_images() -> None:
    classifier, _ = fit(tiny_network(), SCALED, TEST, plan(), quiet)
    assert (classifier.bits, classifier.mean, classifier.classes) == (16, MEAN, TRAIN.classes)
