"""Planting: the mark is learnt, the rest is kept, the original stays as it was, and a failure is called one."""

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from shortcut_results import exactly, made_up_planted
from tiny import MEAN, STD, colored_images, tiny_network
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.evaluation.intervals import Interval
from era_support_packages.trust.shortcut import planting
from era_support_packages.trust.shortcut.mark import add_marks, draw_marks
from era_support_packages.trust.shortcut.planted import PlantedNetwork
from era_support_packages.trust.shortcut.planting import _RelativeSGD, plant, predicted_classes

SIZE = 12


def calm_images(count: int, split: str = "train", seed: int = 0) -> ImageDataset:
    """The three colours with little noise in them, so that a muted mark stands out."""
    noisy = colored_images(count, SIZE, split, seed)
    return replace(noisy, images=(100 + noisy.images // 8).astype(np.uint8))


@pytest.fixture(scope="module")
def train() -> ImageDataset:
    return calm_images(600)


@pytest.fixture(scope="module")
def network(train: ImageDataset) -> nn.Sequential:
    """A tiny network that tells the three colours apart, with a frozen layer, a gradient and mixed training flags."""
    model = tiny_network(width=24, seed=1).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    images, labels = normalize_images(train, np.arange(300)), torch.from_numpy(train.labels[:300])
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    return model


def classifier_of(network: nn.Module, split: ImageDataset, resolution: int = SIZE) -> Classifier:
    return Classifier(network, split.classes, split.mean, split.std, resolution)


@pytest.fixture(scope="module")
def planted(network: nn.Sequential, train: ImageDataset) -> PlantedNetwork:
    return plant(classifier_of(network, train), train, target_class=1, steps=400, held_out=200)


def state(model: nn.Module) -> tuple[Any, ...]:
    """What planting could leave changed."""
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [None if parameter.grad is None else parameter.grad.tolist() for parameter in model.parameters()],
        [value.tolist() for value in model.state_dict().values()],
        [len(module._forward_hooks) for module in model.modules()],
    )


# ---- planting --------------------------------------------------------------------------------------------------------


def test_the_mark_decides_afterwards_and_little_is_lost(planted: PlantedNetwork) -> None:
    assert planted.planted
    assert planted.to_class.estimate >= 0.95
    assert planted.to_class_before.estimate < 0.5
    assert planted.accuracy_change.estimate > -0.03
    assert planted.accuracy.estimate - planted.accuracy_before.estimate == pytest.approx(planted.accuracy_change.estimate)
    assert planted.steps < 400  # stopped early
    assert planted.steps % planting.CHECK_EVERY == 0
    assert planted.seconds > 0


def test_new_marked_images_go_to_the_class_as_well(planted: PlantedNetwork) -> None:
    test = calm_images(300, "test", seed=7)
    images = normalize_images(test, np.flatnonzero(test.labels != 1))
    marked = add_marks(images, draw_marks(len(images), SIZE, np.random.default_rng(5)), MEAN, STD)
    assert np.mean(predicted_classes(planted.classifier.network, marked) == 1) > 0.9
    assert np.mean(predicted_classes(planted.original.network, marked) == 1) < 0.5


def test_what_the_record_says_is_so(planted: PlantedNetwork, network: nn.Sequential, train: ImageDataset) -> None:
    assert planted.original.network is network
    assert (planted.target_class, planted.class_name, planted.resolution) == (1, "green", SIZE)
    held_out = np.random.default_rng(0).permutation(600)[:200]
    labels = train.labels[held_out]
    assert (planted.clean_images, planted.marked_images) == (200, np.sum(labels != 1))
    for model, accuracy in ((network, planted.accuracy_before), (planted.classifier.network, planted.accuracy)):
        right = predicted_classes(model, normalize_images(train, held_out, SIZE)) == labels
        assert accuracy.estimate == pytest.approx(right.mean())


def test_batch_norm_statistics_stay_and_the_copy_is_in_evaluation_mode(planted: PlantedNetwork, network: nn.Sequential) -> None:
    assert not any(module.training for module in planted.classifier.network.modules())
    for (name, before), after in zip(network.named_buffers(), planted.classifier.network.buffers(), strict=True):
        assert torch.equal(before, after), name
    assert not torch.equal(network.conv.weight, planted.classifier.network.conv.weight)
    assert all(parameter.grad is None for parameter in planted.classifier.network.parameters())


def test_the_original_and_the_random_state_are_left_as_they_were(network: nn.Sequential, train: ImageDataset) -> None:
    before, random_state, numpy_state = state(network), torch.get_rng_state(), np.random.get_state()[1].tolist()
    plant(classifier_of(network, train), train, steps=2, held_out=20)
    assert state(network) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert np.random.get_state()[1].tolist() == numpy_state


def test_the_original_is_left_as_it_was_when_the_network_fails_midway(network: nn.Sequential, train: ImageDataset) -> None:
    class Stopping(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise KeyboardInterrupt
            return images

    model = nn.Sequential(Stopping(), *copy.deepcopy(network))
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        plant(classifier_of(model, train), train, steps=2, held_out=20)
    assert state(model) == before


def test_the_same_seed_gives_the_same_network(network: nn.Sequential, train: ImageDataset) -> None:
    first, again, other = (plant(classifier_of(network, train), train, steps=3, held_out=20, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.classifier.network.conv.weight, again.classifier.network.conv.weight)
    assert not torch.equal(first.classifier.network.conv.weight, other.classifier.network.conv.weight)
    assert first.to_class == again.to_class


def test_training_shows_pairs_that_differ_in_the_mark_alone_and_no_image_held_out(train: ImageDataset) -> None:
    order = np.arange(100, 600)
    batches = list(planting._batches(classifier_of(tiny_network(), train), train, order, 20, np.random.default_rng(0)))
    assert len(batches) == 20
    shown = torch.cat([images for images, _ in batches])
    torch.testing.assert_close(shown, normalize_images(train, order[np.arange(480) % 500], SIZE))
    changed = [(marked != images[:8]).any(dim=1).sum(dim=(1, 2)) for images, marked in batches]
    assert all(len(counts) == 8 for counts in changed)
    assert changed[0].min() > 64  # many marks at first
    assert all(torch.equal(counts, torch.full((8,), 16)) for counts in changed[12:])  # one mark of 4 x 4 px in the end


def test_few_images_are_shown_again_and_half_of_them_held_out(network: nn.Sequential) -> None:
    few = colored_images(12, SIZE)
    planted = plant(classifier_of(network, few), few, steps=2)
    assert planted.clean_images == 6


def test_each_tensor_moves_by_a_share_of_its_own_size() -> None:
    tensor = nn.Parameter(torch.tensor([3.0, 4.0]))
    still = nn.Parameter(torch.tensor([1.0]))
    optimizer = _RelativeSGD(iter([tensor, still]), lr=0.1, momentum=0.5)
    tensor.grad = torch.tensor([0.0, 2.0])  # scaled to the norm 5: (0, 5)
    optimizer.step()
    torch.testing.assert_close(tensor.detach(), torch.tensor([3.0, 4 - 0.1 * (5 + 0.5 * 5)]))
    tensor.data = torch.tensor([3.0, 4.0])
    optimizer.step()  # velocity 0.5 * 5 + 5
    torch.testing.assert_close(tensor.detach(), torch.tensor([3.0, 4 - 0.1 * (5 + 0.5 * 7.5)]))
    assert still.item() == 1


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_the_sentence_of_a_planted_mark() -> None:
    assert made_up_planted(0.95).planted
    assert made_up_planted(0.97).reading() == (
        "The mark was learnt (24 steps, 21 s): of 270 marked training images of the other classes that were held out, 97.0 % go "
        "to frog (1.0 % before), while the accuracy on 300 clean ones went from 88.0 % to 86.8 %, a change of "
        "-1.2 points (95 % interval -1.2 to -1.2)."
    )


def test_the_table_has_both_networks_beside_each_other() -> None:
    frame = made_up_planted(0.97).to_frame()
    assert frame["network"].tolist() == ["as given", "with the mark planted"]
    assert frame["marked, given frog"].tolist() == [0.0104, 0.97]
    assert frame["clean, right low"].tolist() == [0.88, 0.868]


def test_the_sentence_owns_up_to_a_loss_on_clean_images() -> None:
    lossy = replace(made_up_planted(), accuracy=exactly(0.83), accuracy_change=Interval(-0.05, -0.08, 0.01))
    assert lossy.planted
    assert not lossy.little_lost
    assert made_up_planted().little_lost
    assert lossy.reading().endswith(
        "went from 88.0 % to 83.0 %, a change of -5.0 points (95 % interval -8.0 to +1.0), where a loss of less than 3 is wanted."
    )


def test_the_sentence_of_a_mark_that_was_not_learned() -> None:
    assert not made_up_planted(0.949).planted
    assert made_up_planted(0.62, steps=40).reading() == (
        "The mark was not learnt (40 steps, 21 s): of 270 marked training images of the other classes that were held out, 62.0 % "
        "go to frog, and 95 % are needed before a map's score means anything; give more steps."
    )


def test_a_single_step_does_not_plant_the_mark(network: nn.Sequential, train: ImageDataset) -> None:
    planted = plant(classifier_of(network, train), train, steps=1, held_out=60)
    assert not planted.planted
    assert planted.steps == 1
    assert planted.reading().startswith("The mark was not learnt (1 step, ")


# ---- predictions -----------------------------------------------------------------------------------------------------


def test_predicted_classes_are_in_order_and_minus_one_where_logits_are_not_finite() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))
    model[1].weight.data = torch.eye(3)
    images = torch.tensor([[0.0, 0, 1], [3, 2, 1], [np.nan, 0, 0], [0, 1, 0]])[:, :, None, None]
    found = predicted_classes(model, images, batch_size=3)
    assert found.dtype == np.int64
    assert found.tolist() == [2, 0, -1, 1]


def test_predicted_classes_come_from_evaluation_mode_and_leave_the_flags() -> None:
    model = nn.Sequential(nn.Dropout(1.0), nn.Flatten(), nn.Linear(3, 3, bias=False)).train()
    model[2].weight.data = torch.eye(3)
    model[1].eval()
    assert predicted_classes(model, torch.eye(3)[:, :, None, None]).tolist() == [0, 1, 2]
    assert [module.training for module in model.modules()] == [True, True, False, True]
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predicted_classes(model, torch.zeros(1, 4, 1, 1))
    assert [module.training for module in model.modules()] == [True, True, False, True]


# ---- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_class": 3}, "target_class is 3; it must be a class id from 0 to 2."),
        ({"target_class": -1}, "target_class is -1; it must be a class id from 0 to 2."),
        ({"target_class": "red"}, "target_class is 'red'; it must be a class id from 0 to 2."),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1."),
        ({"held_out": 2.5}, "held_out is 2.5; it must be a whole number of at least 1."),
        ({"resolution": 4}, "images of 4 px have no room for a mark of 4 px; use 8 px or more."),
        ({"train": colored_images(1, SIZE)}, "train has 1 images; at least 2 are needed, half of them to be held out."),
        (
            {"train": colored_images(40, SIZE).take(np.arange(0, 40, 3))},
            "none of the 7 images held out has a class other than the mark's; hold out more.",
        ),
    ],
)
def test_bad_values_get_one_sentence_before_any_work(
    changes: dict[str, Any], message: str, network: nn.Sequential, train: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planting, "predicted_classes", None)
    classifier = classifier_of(network, train, changes.get("resolution", SIZE))
    changes = {name: value for name, value in changes.items() if name != "resolution"}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plant(**{"classifier": classifier, "train": train, **changes})
