"""The checks' budget: which runs check everything at full size, which less, what is left out, and that the costs are true."""

from dataclasses import replace
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
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.history import EpochRecord, History
from era_support_packages.trust import budget as check_budget
from era_support_packages.trust.budget import CheckBudget, CheckPlan
from era_support_packages.trust.faithfulness import scores as faithfulness
from era_support_packages.trust.sanity import check as sanity
from era_support_packages.trust.shortcut import planting, search

FULL = (10, 24, (24, 12), 200)  # methods for one image; faithfulness; sanity check; planted shortcut


def history(preset: str, split: int, right: int = 100, images: int = 100, **changes: object) -> History:
    """A run of a preset as it would be recorded, with `right` of its test images right; ten classes of as many images each."""
    config = TrainingConfig.preset(preset, **changes)
    rows = [
        EpochRecord(number, epoch.resolution, epoch.images, 0.1, 0.1, 99.0, 0.1, float(right), right, images, 1.0)
        for number, epoch in enumerate(config.planned_epochs(split), 1)
    ]
    labels = np.arange(images) % 10
    answers = np.where(np.arange(images) < right, labels, (labels + 1) % 10)
    logits = np.eye(10, dtype=np.float32)[answers]
    return History(tuple(rows), config, Predictions(logits, labels, tuple("abcdefghij")), len(rows))


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ResNet18(10).eval()


def budget(network: nn.Module, run: History, test_images: int = 100, **changes: str) -> CheckBudget:
    said = run.predictions
    told = Predictions(said.logits[:test_images], said.labels[:test_images], said.classes)
    split = colored_images(1500)
    classifier = Classifier(network, said.classes, split.mean, split.std, run.resolution)
    return CheckBudget(classifier, replace(run, predictions=told), split, **changes)


def sizes(made: CheckBudget) -> tuple[int, int, tuple[int, int], int]:
    sane = made.sanity()
    return len(made.explorer().methods), made.faithfulness().count, (sane.count, sane.draws), made.shortcut().count


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("fast", {}), ("best", {}), ("original", {}), ("cpu", {}), ("cpu", {"train_images": 42_000}), ("fast", {"epochs": 3})],
)
def test_a_run_on_cifar10_checks_everything_at_full_size(resnet18: nn.Module, preset: str, changes: dict) -> None:
    made = budget(resnet18, history(preset, 50_000, **changes))
    assert sizes(made) == FULL
    plans = (made.explorer(), made.faithfulness(), made.sanity(), made.shortcut())
    assert sum(plan.passes for plan in plans) <= made.training
    assert all("Left out" not in plan.sentence and "instead of" not in plan.sentence for plan in plans)


@pytest.mark.parametrize("preset", ["smoke", "cpu"])
def test_on_the_digits_the_planted_shortcut_is_left_out_and_the_rest_is_whole(resnet18: nn.Module, preset: str) -> None:
    made = budget(resnet18, history(preset, 1437))
    assert sizes(made) == (*FULL[:3], 0)
    plan = made.shortcut()
    assert not plan.runs
    assert plan.sentence.startswith("Left out: it would take about 3")
    assert f"the training took {made.training:,}" in plan.sentence
    assert 'checks = "full"' in plan.sentence
    assert sum(each.passes for each in (made.explorer(), made.faithfulness(), made.sanity())) <= 0.6 * made.allowed


def test_the_training_is_counted_in_passes_at_its_last_resolution(resnet18: nn.Module) -> None:
    made = budget(resnet18, history("cpu", 1437))
    # 14,370 images, of which 60 % at 16 px and 40 % at 24 px; a forward and a backward pass, which counts double
    assert made.training == round(3 * (8622 * (16 / 24) ** 2 + 5748))
    assert made.allowed == made.training


def test_a_short_training_has_the_least_budget_in_operations_whatever_the_pixels(resnet18: nn.Module) -> None:
    small, large = (budget(resnet18, history("smoke", 1437, resolutions=((resolution, 1.0),))).allowed for resolution in (16, 32))
    assert small / large == pytest.approx(4, rel=0.02)


def test_where_the_budget_is_small_the_checks_take_less_and_say_so(resnet18: nn.Module) -> None:
    made = budget(resnet18, history("smoke", 1437, resolutions=((24, 1.0),)))
    methods, images, sane, shortcut = sizes(made)
    assert (methods, sane, shortcut) == (8, (16, 6), 0)
    assert 12 <= images < 24
    assert "Score-CAM and Ablation-CAM are left out" in made.explorer().sentence
    assert f"{images} images are taken instead of 24." in made.faithfulness().sentence
    assert "16 images and 6 draws are taken instead of 24 and 12." in made.sanity().sentence
    for plan, share in ((made.faithfulness(), 0.3), (made.sanity(), 0.2)):
        assert plan.passes <= share * made.allowed
    assert sizes(budget(resnet18, made.history, extent="full")) == FULL


@pytest.mark.parametrize(("right", "learned"), [(10, False), (32, False), (33, True)])  # 10 + 0.25 * 90 = 32.5
def test_a_network_that_has_hardly_learned_is_not_checked(resnet18: nn.Module, right: int, learned: bool) -> None:
    made = budget(resnet18, history("fast", 50_000, right))
    plans = (made.faithfulness(), made.sanity(), made.shortcut())
    assert [plan.runs for plan in plans] == [learned] * 3
    if not learned:
        assert all(f"It gets {right}.0 % of the test images right" in plan.sentence for plan in plans)
        assert all("the most frequent class 10.0 %" in plan.sentence for plan in plans)
    assert made.explorer().runs, "maps are shown in any case"
    assert sizes(budget(resnet18, made.history, extent="full")) == FULL


def test_with_few_test_images_nothing_would_be_sure(resnet18: nn.Module) -> None:
    made = budget(resnet18, history("fast", 50_000), test_images=11)
    assert sizes(made) == (10, 0, (0, 0), 0)
    assert "11 test images" in made.faithfulness().sentence
    assert sizes(budget(resnet18, history("fast", 50_000), test_images=12)) == (10, 12, (24, 12), 200)


def test_what_was_not_asked_for_is_left_out_by_name(resnet18: nn.Module) -> None:
    made = budget(resnet18, history("fast", 50_000))
    found = [made.explorer(False), made.faithfulness(False), made.sanity(False), made.shortcut(False)]
    names = ("explore_methods", "check_faithfulness", "check_sanity", "plant_shortcut")
    assert found == [CheckPlan(f"Left out, as {name} = False.") for name in names]


def test_another_extent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^checks is 'all'; give 'auto' .* or 'full'\.$"):
        check_budget.check_extent("all")


def test_the_notebooks_cell_of_the_planted_shortcut_runs_where_the_budget_pays_for_it(resnet18: nn.Module) -> None:
    # no run in continuous integration is long enough for it; its functions are tested by themselves
    notebook = nbformat.read(Path(__file__).parents[2] / "notebooks" / "gradcam_cifar10.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.id in ("shortcut-code", "shortcut-find"))
    made = budget(resnet18, history("fast", 50_000, images=400))
    plant = create_autospec(planting.plant, return_value=made_up_planted())
    find = create_autospec(search.find, return_value=made_up_result(made_up_maps("gradcam", "layer1", 80, 100)))
    told, shown = [], []
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
        "page": SimpleNamespace(about="a run", figure=lambda figure, name: shown.append(name)),
    }
    exec(source, names)
    assert shown == ["planted_shortcut.png"]
    assert find.call_args.kwargs["count"] == 200
    assert told[0] == made.shortcut().sentence
    shown.clear()
    exec(source, {**names, "budget": budget(resnet18, history("smoke", 1437))})
    assert (shown, plant.call_count) == ([], 1)


# ---- the costs are those of the work done ------------------------------------------------------------------------------


class Counted(nn.Module):
    """A tiny network that counts the images that pass through it and through its copies, a backward pass double."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = tiny_network()[:3]
        self.head = tiny_network()[3:]
        self.passes = [0]

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
    _, images = random_images(TEST, 5, 0)
    _, statistics = random_images(TRAIN, 8, 0)
    values = {"methods": ("gradcam", "eigencam"), "draws": 3, "cascades": 1}
    sanity.check_network(network, images, statistics, layers="layer1", **values)
    extra = network.passes[0] - sanity.image_passes(network, images[:1], 5, train_count=8, **values)
    assert 0 <= extra <= 5 + 3 * 2  # the predicted classes, and an image wherever the order of the modules is asked for


def test_the_cost_of_planting_and_finding_a_shortcut_is_what_it_takes() -> None:
    network = Counted().eval()
    classifier = Classifier(network, TRAIN.classes, TRAIN.mean, TRAIN.std, resolution=8)
    planted = planting.plant(classifier, TRAIN, steps=8, held_out=20)
    most = planting.image_passes(len(TRAIN), steps=8, held_out=20)
    assert planted.steps == 8
    assert 0.9 * most <= network.passes[0] <= most

    network.passes[0] = 0
    object.__setattr__(planted, "to_class", planted.to_class.__class__(1.0, 1.0, 1.0))  # as if the mark had been learnt
    search.find(planted, TEST, layers="layer1", count=10)
    assert network.passes[0] == search.image_passes(10)


def test_the_cost_of_faithfulness_is_what_it_takes() -> None:
    network = Counted().eval()
    _, images = random_images(TEST, 6, 0)
    faithfulness.judge(network, images, layers=["layer1", "layer1.norm"])
    systems = 2 * 6 * 13 * 3  # ROAD solves one for each image, order, map and percentile
    assert network.passes[0] + systems == faithfulness.image_passes(6, methods=2, layers=2)


def test_a_stopped_run_without_predictions_is_refused_in_words(resnet18: nn.Module) -> None:
    made = budget(resnet18, history("cpu", 50_000))
    stopped = replace(made, history=replace(made.history, records=made.history.records[:2], predictions=None))
    with pytest.raises(ValueError, match="stopped after 2 of"):
        stopped.faithfulness()


def test_planning_leaves_a_network_that_was_just_trained_as_it_is() -> None:
    """In training mode a pass of any image would move the batch-norm statistics, and every later answer with them."""
    network = Counted().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    said = Predictions(np.eye(3, dtype=np.float32)[TEST.labels], TEST.labels, TEST.classes)
    record = EpochRecord(1, 8, 10**9, 0.1, 0.1, 99.0, 0.1, 100.0, 40, 40, 1.0)
    run = History((record,), TrainingConfig.preset("smoke"), said, 1)
    made = CheckBudget(Classifier(network, TEST.classes, TEST.mean, TEST.std, resolution=8), run, TRAIN)
    assert [plan.runs for plan in (made.explorer(), made.faithfulness(), made.sanity(), made.shortcut())] == [True] * 4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
