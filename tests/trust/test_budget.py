"""The checks' budget: which runs check everything at full size, which less, what is left out, and that the costs are true."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import nbformat
import numpy as np
import pytest
import torch
from shortcut_results import made_up_maps, made_up_planted, made_up_result
from tiny import colored_images, tiny_network
from torch import Tensor, nn

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.datasets.normalization import random_images
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.models.resnet import ResNet18
from era_support_packages.notebook.page import Page
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.history import EpochRecord, History
from era_support_packages.trust.budget import CheckBudget
from era_support_packages.trust.plan import CheckPlan, check_extent
from era_support_packages.trust.sanity import check as sanity
from era_support_packages.trust.shortcut import planting, search

pytestmark = pytest.mark.unhurried

FULL = (10, 24, (24, 12), 200)  # methods for one image; faithfulness; sanity check; planted shortcut
CIFAR10, DIGITS = 50_000, 1437  # training images


@lru_cache(maxsize=1)
def resnet18() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet18(10).eval()


def budget(
    preset: str, split: int, right: int | None = None, tested: int = 100, extent: str = "auto", **of_run: object
) -> CheckBudget:
    """Of a run of a preset as it would be recorded, with `right` of its test images right, else all; ten classes."""
    config = TrainingConfig.preset(preset, **of_run)
    right = tested if right is None else right
    rows = [
        EpochRecord(number, epoch.resolution, epoch.images, 0.1, 0.1, 99.0, 0.1, 100.0 * right / tested, right, tested, 1.0)
        for number, epoch in enumerate(config.planned_epochs(split), 1)
    ]
    labels = np.arange(tested) % 10
    answers = np.where(np.arange(tested) < right, labels, (labels + 1) % 10)
    said = Predictions(np.eye(10, dtype=np.float32)[answers], labels, tuple("abcdefghij"))
    run, train = History(tuple(rows), config, said, len(rows)), colored_images(1500)
    return CheckBudget(Classifier(resnet18(), said.classes, train.mean, train.std, run.resolution), run, train, extent=extent)


def plans(made: CheckBudget, wanted: bool = True) -> list[CheckPlan]:
    return [made.explorer(wanted), made.faithfulness(wanted), made.sanity(wanted), made.shortcut(wanted)]


def sizes(made: CheckBudget | list[CheckPlan]) -> tuple[int, int, tuple[int, int], int]:
    explorer, faithful, sane, shortcut = plans(made) if isinstance(made, CheckBudget) else made
    return len(explorer.methods), faithful.count, (sane.count, sane.draws), shortcut.count


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("fast", {}), ("best", {}), ("original", {}), ("cpu", {}), ("cpu", {"train_images": 42_000}), ("fast", {"epochs": 3})],
)
def test_a_run_on_cifar10_checks_everything_at_full_size(preset: str, changes: dict) -> None:
    made = budget(preset, CIFAR10, **changes)
    found = plans(made)
    assert sizes(found) == FULL
    assert sum(plan.passes for plan in found) <= made.training
    assert all("Left out" not in plan.sentence and "instead of" not in plan.sentence for plan in found)


@pytest.mark.parametrize("preset", ["smoke", "cpu"])
def test_on_the_digits_the_planted_shortcut_is_left_out_and_the_rest_is_whole(preset: str) -> None:
    made = budget(preset, DIGITS)
    *others, shortcut = plans(made)
    assert sizes([*others, shortcut]) == (*FULL[:3], 0)
    assert not shortcut.runs
    assert shortcut.sentence.startswith("Left out: with 12 images")
    assert "about 29,808 image passes" in shortcut.sentence
    assert f"the training took {made.training:,}" in shortcut.sentence
    assert 'checks = "full"' in shortcut.sentence
    assert sum(each.passes for each in others) <= 0.6 * made.allowed


def test_the_training_is_counted_in_passes_at_its_last_resolution_and_the_least_budget_in_operations() -> None:
    made = budget("cpu", DIGITS)
    # 14,370 images, of which 60 % at 16 px and 40 % at 24 px; a forward and a backward pass, which counts double
    assert made.training == made.allowed == round(3 * (8622 * (16 / 24) ** 2 + 5748))
    small, large = (budget("smoke", DIGITS, resolutions=((size, 1.0),)).allowed for size in (16, 32))
    assert small / large == pytest.approx(4, rel=0.02)


def test_where_the_budget_is_small_the_checks_take_less_and_say_so() -> None:
    short = {"preset": "smoke", "split": DIGITS, "resolutions": ((24, 1.0),)}
    made = budget(**short)
    explorer, faithful, sane, shortcut = plans(made)
    assert 12 <= faithful.count < 24
    assert sizes([explorer, faithful, sane, shortcut]) == (8, faithful.count, (16, 6), 0)
    assert "Score-CAM and Ablation-CAM are left out" in explorer.sentence
    assert f"{faithful.count} images are taken instead of 24." in faithful.sentence
    assert "16 images and 6 draws are taken instead of 24 and 12." in sane.sentence
    assert faithful.passes <= 0.3 * made.allowed
    assert sane.passes <= 0.2 * made.allowed
    assert sizes(budget(**short, extent="full")) == FULL


@pytest.mark.parametrize(("right", "learned"), [(10, False), (32, False), (33, True)])  # 10 + 0.25 * 90 = 32.5
def test_a_network_that_has_hardly_learned_is_not_checked(right: int, learned: bool) -> None:
    explorer, *checks = plans(budget("fast", CIFAR10, right))
    assert explorer.runs, "maps are shown in any case"
    for plan in checks:
        assert plan.runs == learned
        assert (f"It gets {right}.0 % of the test images right" in plan.sentence) != learned
        assert ("the most frequent class 10.0 %" in plan.sentence) != learned
    assert sizes(budget("fast", CIFAR10, right, extent="full")) == FULL


def test_with_few_test_images_nothing_would_be_sure() -> None:
    made = budget("fast", CIFAR10, tested=11)
    assert sizes(made) == (10, 11, (24, 12), 0)
    assert "of 9 test images no map's figures are sure; 12 are needed" in made.shortcut().sentence  # of another class
    assert sizes(budget("fast", CIFAR10, tested=6)) == (10, 0, (24, 12), 0)
    assert sizes(budget("fast", CIFAR10, tested=4)) == (10, 0, (0, 0), 0)
    assert sizes(budget("fast", CIFAR10, tested=14)) == (10, 14, (24, 12), 200)


def test_what_was_not_asked_for_is_left_out_by_name() -> None:
    names = ("explore_methods", "check_faithfulness", "check_sanity", "plant_shortcut")
    found = plans(budget("fast", CIFAR10), wanted=False)
    assert found == [CheckPlan(f"Left out, as {name} = False.") for name in names]


def test_another_extent_and_a_stopped_run_without_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^checks is 'all'; give 'auto' .* or 'full'\.$"):
        check_extent("all")
    made = budget("cpu", CIFAR10)
    stopped = replace(made, history=replace(made.history, records=made.history.records[:2], predictions=None))
    with pytest.raises(ValueError, match="stopped after 2 of"):
        stopped.faithfulness()


def test_the_notebooks_cell_of_the_planted_shortcut_runs_where_the_budget_pays_for_it() -> None:
    # no run in continuous integration is long enough for it; its functions are tested by themselves
    notebook = nbformat.read(Path(__file__).parents[2] / "notebooks" / "gradcam_cifar10.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.id in ("shortcut-code", "shortcut-find"))
    made = budget("fast", CIFAR10, tested=400)
    plant = create_autospec(planting.plant, return_value=made_up_planted())
    find = create_autospec(search.find, return_value=made_up_result(made_up_maps("gradcam", "layer1", 80, 100)))
    told, page = [], create_autospec(Page, instance=True, about="a run")
    names = {
        "budget": made,
        "plant_shortcut": True,
        "classifier": made.classifier,
        "train": made.train,
        "test": colored_images(400, split="test"),
        "config": made.history.config,
        "trust": SimpleNamespace(shortcut=SimpleNamespace(plant=plant, find=find)),
        "plots": plots,
        "show": lambda *parts: told.extend(parts),
        "page": page,
    }
    exec(source, names)
    (_, name, result), _ = page.figure.call_args
    assert (name, result) == ("planted_shortcut.png", find.return_value)
    assert find.call_args.kwargs["count"] == 200
    assert told[0] == made.shortcut().sentence
    exec(source, {**names, "budget": budget("smoke", DIGITS)})
    assert (page.figure.call_count, plant.call_count) == (1, 1)


class Counted(nn.Module):
    """A tiny network that counts the images that pass through it and through its copies, a backward pass double."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.head, self.passes = tiny_network()[:3], tiny_network()[3:], [0]

    def forward(self, images: Tensor) -> Tensor:
        self.passes[0] += len(images)
        found = self.head(self.layer1(images))
        if found.requires_grad:
            found.register_hook(lambda gradient: self.count_backward(len(gradient)))
        return found

    def count_backward(self, images: int) -> None:
        self.passes[0] += 2 * images

    def __deepcopy__(self, memo: dict) -> "Counted":
        twin = Counted()
        twin.load_state_dict(self.state_dict())
        twin.passes = self.passes
        return twin


TRAIN, TEST = colored_images(90), colored_images(40, split="test")


def test_the_cost_of_the_sanity_check_is_what_it_takes() -> None:
    network = Counted().eval()
    (_, images), (_, statistics) = random_images(TEST, 6, 0), random_images(TRAIN, 8, 0)
    values = {"methods": ("gradcam", "eigencam"), "draws": 3, "cascades": 1}
    sanity.check_network(network, images, statistics, layers="layer1", **values)
    extra = network.passes[0] - sanity.image_passes(network, images[:1], 6, train_count=8, **values)
    assert 0 <= extra <= 6 + 3 * 2  # the predicted classes, and an image wherever the order of the modules is asked for


def test_the_cost_of_planting_and_finding_a_shortcut_is_what_it_takes() -> None:
    network = Counted().eval()
    planted = planting.plant(Classifier(network, TRAIN.classes, TRAIN.mean, TRAIN.std, 8), TRAIN, steps=8, held_out=20)
    most = planting.image_passes(len(TRAIN), steps=8, held_out=20)
    assert planted.steps == 8
    assert 0.9 * most <= network.passes[0] <= most
    network.passes[0] = 0
    learned = replace(planted, to_class=planted.to_class.__class__(1.0, 1.0, 1.0))
    search.find(learned, TEST, layers="layer1", count=10)
    assert network.passes[0] == search.image_passes(10)


def test_methods_that_take_a_pass_for_each_channel_are_paid_for() -> None:
    """ResNet18 at layer1 ... layer4: 64 + 128 + 256 + 512 = 960 channels."""
    made = budget("fast", CIFAR10, tested=100, extent="full")
    plain, more = (made.shortcut(methods=("gradcam", *others)) for others in ((), ("scorecam",)))
    assert more.passes - plain.passes == 2 * 100 * (1 + 960)  # in two networks
    plain, more = (made.faithfulness(methods=methods) for methods in (("gradcam",), ("scorecam",)))
    assert more.passes - plain.passes == more.options["count"] * (128 + 512)  # at two of the layers


def test_planning_leaves_a_network_that_was_just_trained_as_it_is() -> None:
    """In training mode a pass of any image would move the batch-norm statistics, and every later answer with them."""
    network = Counted().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    said = Predictions(np.eye(3, dtype=np.float32)[TEST.labels], TEST.labels, TEST.classes)
    record = EpochRecord(1, 8, 10**9, 0.1, 0.1, 99.0, 0.1, 100.0, 40, 40, 1.0)
    run = History((record,), TrainingConfig.preset("smoke"), said, 1)
    made = CheckBudget(Classifier(network, TEST.classes, TEST.mean, TEST.std, resolution=8), run, TRAIN)
    assert [plan.runs for plan in plans(made)] == [True] * 4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
