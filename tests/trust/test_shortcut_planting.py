"""Planting: the mark is learnt, the rest is kept, the original stays as it was, and a failure is called one."""

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gradcam_networks import state
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


TRAIN = calm_images(600)


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    """A tiny network that tells the three colours apart, with a frozen layer, a gradient and mixed training flags."""
    model = tiny_network(width=24, seed=1).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    images, labels = normalize_images(TRAIN, np.arange(300)), torch.from_numpy(TRAIN.labels[:300])
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    return model


def plant_in(model: nn.Module, train: ImageDataset = TRAIN, resolution: int = SIZE, **options: Any) -> PlantedNetwork:
    return plant(Classifier(model, train.classes, train.mean, train.std, resolution), train, **options)


@pytest.fixture(scope="module")
def planted(network: nn.Sequential) -> PlantedNetwork:
    return plant_in(network, target_class=1, steps=400, held_out=200)


def test_where_no_image_changes_the_change_is_not_known_to_a_hundredth(network: nn.Sequential) -> None:
    change = plant_in(network, steps=1, held_out=40, rate=1e-9).accuracy_change
    assert change.estimate == 0
    assert change.low < -0.02
    assert change.high > 0.02


def test_the_mark_decides_afterwards_and_little_is_lost(planted: PlantedNetwork) -> None:
    assert planted.planted
    assert planted.to_class.estimate >= 0.95
    assert planted.to_class_before.estimate < 0.5
    assert planted.accuracy_change.estimate > -0.03
    assert planted.accuracy.estimate - planted.accuracy_before.estimate == pytest.approx(planted.accuracy_change.estimate)
    assert planted.steps < 400  # stopped early
    assert planted.steps % planting.CHECK_EVERY == 0
    assert planted.seconds > 0
    test = calm_images(300, "test", seed=7)  # new marked images go to the class as well
    images = normalize_images(test, np.flatnonzero(test.labels != 1))
    marked = add_marks(images, draw_marks(len(images), SIZE, np.random.default_rng(5)), MEAN, STD)
    assert np.mean(predicted_classes(planted.classifier.network, marked) == 1) > 0.9
    assert np.mean(predicted_classes(planted.original.network, marked) == 1) < 0.5


def test_what_the_record_says_is_so(planted: PlantedNetwork, network: nn.Sequential) -> None:
    copied = planted.classifier.network
    assert planted.original.network is network
    assert (planted.target_class, planted.class_name, planted.resolution) == (1, "green", SIZE)
    held_out = np.random.default_rng(0).permutation(600)[:200]
    labels = TRAIN.labels[held_out]
    assert (planted.clean_images, planted.marked_images) == (200, np.sum(labels != 1))
    for model, accuracy in ((network, planted.accuracy_before), (copied, planted.accuracy)):
        right = predicted_classes(model, normalize_images(TRAIN, held_out, SIZE)) == labels
        assert accuracy.estimate == pytest.approx(right.mean())
    assert not any(module.training for module in copied.modules())
    assert all(torch.equal(*buffers) for buffers in zip(network.buffers(), copied.buffers(), strict=True)), "batch norm stays"
    assert not torch.equal(network.conv.weight, copied.conv.weight)
    assert all(parameter.grad is None for parameter in copied.parameters())


class Stopping(nn.Module):
    """Is stopped in the first step."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise KeyboardInterrupt
        return images


@pytest.mark.usefixtures("global_state_stays")
def test_the_original_is_left_as_it_was_also_when_the_network_fails_midway(network: nn.Sequential) -> None:
    before = state(network)
    plant_in(network, steps=2, held_out=20)
    assert state(network) == before
    model = nn.Sequential(Stopping(), *copy.deepcopy(network))
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        plant_in(model, steps=2, held_out=20)
    assert state(model) == before


def test_the_same_seed_gives_the_same_network(network: nn.Sequential) -> None:
    first, again, other = (plant_in(network, steps=3, held_out=20, seed=seed) for seed in (4, 4, 5))
    weights = [made.classifier.network.conv.weight for made in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.to_class == again.to_class


def test_training_shows_pairs_that_differ_in_the_mark_alone_and_no_image_held_out() -> None:
    order = np.arange(100, 600)
    classifier = Classifier(tiny_network().eval(), TRAIN.classes, MEAN, STD, SIZE)
    batches = list(planting._batches(classifier, TRAIN, order, classifier.network, 20, np.random.default_rng(0)))
    assert len(batches) == 20
    shown = torch.cat([images for images, _, _ in batches])
    torch.testing.assert_close(shown, normalize_images(TRAIN, order[np.arange(480) % 500], SIZE))
    changed = [(marked != images[:8]).any(dim=1).sum(dim=(1, 2)) for images, _, marked in batches]
    assert all(len(counts) == 8 for counts in changed)
    expected = classifier.network(shown).softmax(dim=1)
    torch.testing.assert_close(torch.cat([kept for _, kept, _ in batches]), expected)
    assert changed[0].min() > 64  # many marks at first
    assert all(torch.equal(counts, torch.full((8,), 16)) for counts in changed[12:])  # one mark of 4 x 4 px in the end


def test_each_tensor_moves_by_a_share_of_its_own_size() -> None:
    tensor, still = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.tensor([1.0]))
    optimizer = _RelativeSGD(iter([tensor, still]), lr=0.1, momentum=0.5)
    for velocity in (5, 7.5):  # 0.5 * 5 + 5 in the second step
        tensor.data, tensor.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])  # scaled to the norm 5: (0, 5)
        optimizer.step()
        torch.testing.assert_close(tensor.detach(), torch.tensor([3.0, 4 - 0.1 * (5 + 0.5 * velocity)]))
    assert still.item() == 1


def test_few_images_are_shown_again_and_half_of_them_held_out(network: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, shown = planting._batches, []

    def recorded(classifier: Classifier, train: ImageDataset, order: np.ndarray, *rest: Any) -> Any:
        shown.extend(order)
        return batches(classifier, train, order, *rest)

    monkeypatch.setattr(planting, "_batches", recorded)
    assert plant_in(network, colored_images(12, SIZE), steps=2).clean_images == 6
    np.testing.assert_array_equal(shown, np.random.default_rng(0).permutation(12)[6:])


def test_a_single_step_does_not_plant_the_mark(network: nn.Sequential) -> None:
    single = plant_in(network, steps=1, held_out=60)
    assert (single.planted, single.steps) == (False, 1)
    assert single.reading().startswith("The mark was not learnt (1 step, ")


def test_the_sentences_own_up_to_a_loss_and_to_a_mark_that_was_not_learned() -> None:
    made = made_up_planted(0.97)
    assert (made_up_planted(0.95).planted, made_up_planted(0.949).planted, made.little_lost) == (True, False, True)
    assert made.reading() == (
        "The mark was learnt (24 steps, 21 s): of 270 marked training images of the other classes that were held out, 97.0 % go "
        "to frog (1.0 % before), while the accuracy on 300 clean ones went from 88.0 % to 86.8 %, a change of "
        "-1.2 points (95 % interval -1.2 to -1.2)."
    )
    lossy = replace(made, accuracy=exactly(0.83), accuracy_change=Interval(-0.05, -0.08, 0.01))
    assert (lossy.planted, lossy.little_lost) == (True, False)
    assert lossy.reading().endswith(
        "went from 88.0 % to 83.0 %, a change of -5.0 points (95 % interval -8.0 to +1.0), where a loss of less than 3 is wanted."
    )
    assert made_up_planted(0.62, steps=40).reading() == (
        "The mark was not learnt (40 steps, 21 s): of 270 marked training images of the other classes that were held out, 62.0 % "
        "go to frog, and 95 % are needed before a map's score means anything; give more steps."
    )
    frame = made.to_frame()
    assert frame["network"].tolist() == ["as given", "with the mark planted"]
    assert frame["marked, given frog"].tolist() == [0.0104, 0.97]
    assert frame["clean, right low"].tolist() == [0.88, 0.868]


def test_predicted_classes_come_from_evaluation_mode_in_order_and_leave_the_flags() -> None:
    model = nn.Sequential(nn.Dropout(1.0), nn.Flatten(), nn.Linear(3, 3, bias=False)).train()
    model[2].weight.data = torch.eye(3)
    model[1].eval()
    images = torch.tensor([[0.0, 0, 1], [3, 2, 1], [np.nan, 0, 0], [0, 1, 0]])[:, :, None, None]
    found = predicted_classes(model, images, batch_size=3)
    assert (found.dtype, found.tolist()) == (np.int64, [2, 0, -1, 1]), "-1 where logits are not finite"
    assert [module.training for module in model.modules()] == [True, True, False, True]
    with pytest.raises(ValueError, match="do not go through the network"):
        predicted_classes(model, torch.zeros(1, 4, 1, 1))
    assert [module.training for module in model.modules()] == [True, True, False, True]


ONE, ALL_RED = colored_images(1, SIZE), colored_images(40, SIZE).take(np.arange(0, 40, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_class": 3}, "target_class is 3; it must be a class id from 0 to 2."),
        ({"target_class": -1}, "target_class is -1; it must be a class id from 0 to 2."),
        ({"target_class": "red"}, "target_class is 'red'; it must be a class id from 0 to 2."),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1."),
        ({"held_out": 2.5}, "held_out is 2.5; it must be a whole number of at least 1."),
        ({"resolution": 4}, "images of 4 px have no room for a mark of 4 px; use 8 px or more."),
        ({"train": ONE}, "train has 1 images; at least 2 are needed, half of them to be held out."),
        ({"train": ALL_RED}, "None of the 7 images held out has a class other than the mark's; hold out more."),
    ],
)
def test_bad_values_get_one_sentence_before_any_work(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planting, "predicted_classes", None)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plant_in(tiny_network(), **changes)
