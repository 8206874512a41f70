"""The checks at the sizes of photos: the mark's share, what a budget in seconds pays for, and planting that must fail."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import colored_images, tiny_network

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.history import EpochRecord, History
from era_support_packages.trust import speed
from era_support_packages.trust.budget import CheckBudget
from era_support_packages.trust.faithfulness.result import needed_images
from era_support_packages.trust.faithfulness.scores import evaluate
from era_support_packages.trust.sanity.check import sanity_check
from era_support_packages.trust.sanity.similarity import as_compared
from era_support_packages.trust.shortcut.mark import draw_marks, mark_size
from era_support_packages.trust.shortcut.planting import plant
from era_support_packages.trust.shortcut.scores import FEWEST_MARKED, TOO_SIMILAR
from era_support_packages.trust.shortcut.search import find

SIDE = 64
TEST = colored_images(60, SIDE, split="test")


def budget(ticks: float = 1.0, side: int = SIDE, shown: int = 100, **options: object) -> CheckBudget:
    """Of a tiny network that gets all of `TEST` right; its clock moves on by `ticks` seconds whenever somebody looks at it."""
    network = tiny_network().eval()
    said = Predictions(np.eye(3, dtype=np.float32)[TEST.labels], TEST.labels, TEST.classes)
    record = EpochRecord(1, side, shown, 0.1, 0.1, 99.0, 0.1, 100.0, 60, 60, 1.0)
    run = History((record,), TrainingConfig.preset("smoke"), said, 1)
    moments = count()
    classifier = Classifier(network, TEST.classes, TEST.mean, TEST.std, resolution=side, image_size=side)
    return CheckBudget(classifier, run, colored_images(90), clock=lambda: ticks * next(moments), **options)


@pytest.mark.parametrize(("side", "mark"), [(24, 4), (32, 4), (96, 12), (128, 16), (224, 28), (100, 13), (500, 63)])
def test_the_mark_grows_with_the_image_and_keeps_its_share(side: int, mark: int) -> None:
    assert mark_size(side) == mark
    masks = draw_marks(3, side, np.random.default_rng(0)).masks
    assert (masks.sum(axis=(1, 2)) == mark**2).all()
    if side >= 32:
        assert mark**2 / side**2 == pytest.approx(1 / 64, rel=0.09)


def test_the_speed_of_a_machine_is_the_quicker_of_two_looks() -> None:
    moments = iter([0, 9, 10, 14, 20, 22])  # a first batch in 9 s, then one in 4 s and one in 2 s
    classifier = budget(side=128).classifier
    assert speed.image_seconds(classifier, lambda: next(moments)) == 2 / 4  # 4 images of 128 px at once
    moments = iter([0, 5, 10, 13])
    assert speed.system_seconds(8, lambda: next(moments)) == 3


@pytest.mark.parametrize(
    ("seconds", "images", "maps"),
    [
        # a batch of 16 images of 64 px in 1 s: 1/16 s a pass; a system in 1 s: 16 passes. At the only layer, two methods make 7
        # rows of maps with their baselines: 3 + 7 x 17 + 2 x 3 + 7 x 6 x 16 = 800 passes an image, or 50 s; 0.3 of the budget
        # is theirs
        (4000, 24, 2),
        (3999, 23, 2),
        (2000, 12, 2),
        (1334, 8, 2),  # two maps and three baselines: fewer than 8 show nothing for sure
        # one method makes 5 rows: 3 + 5 x 17 + 3 + 5 x 6 x 16 = 571 passes an image, or 35.7 s
        (1333, 11, 1),  # 0.3 x 1333 / 35.7 = 11.2
        (833, 7, 1),
        (832, 0, 0),  # 7 x 35.7 / 0.3 = 832.7
    ],
)
def test_a_budget_in_seconds_gives_the_number_of_images(seconds: float, images: int, maps: int) -> None:
    plan = budget(check_seconds=seconds).faithfulness()
    assert (plan.runs, plan.count, plan.maps) == (images > 0, images, maps)
    if images == 0:
        assert "with 7 images and 1 map each, the fewest that can show anything" in plan.sentence
        assert "check_seconds = 832 leaves it 4 min 10 s. Set check_seconds = 833 to run that." in plan.sentence
    elif images < 24:
        assert f"For check_seconds = {seconds}, {images} images" in plan.sentence
        assert ("and 1 map each are taken instead of 24 and 2" in plan.sentence) == (maps == 1)


def test_a_machine_half_as_fast_takes_as_many_images_in_twice_the_time() -> None:
    assert budget(ticks=2, check_seconds=4000).faithfulness().count == 12


def test_the_sanity_check_takes_as_many_images_and_draws_as_the_seconds_pay_for() -> None:
    # 2 stages, so 2 + draws networks; 3 + 1 passes an image for two methods, 32 images for the statistics of each, and one pass
    # an image for the confidences of each fully random network and the trained one
    passes = {(n, d): (2 + d) * (4 * n + 32) + (1 + d) * n for n, d in ((24, 12), (16, 8), (16, 6), (8, 4), (5, 4))}
    for (images, draws), needed in passes.items():
        seconds = needed / 16 / 0.2
        assert budget(check_seconds=seconds + 0.01).sanity().options == {"count": images, "draws": draws, "train_count": 32}
    assert not budget(check_seconds=seconds - 0.01).sanity().runs
    assert budget(side=32, check_seconds=10**6).sanity().options["train_count"] == 90  # all there are, of 128


def test_no_seconds_given_is_the_work_of_the_training_and_never_a_measured_one() -> None:
    slow, quick = (budget(ticks, shown=20_000) for ticks in (1000, 0.001))
    assert slow.training == slow.allowed == quick.allowed == 60_000
    assert slow.faithfulness().options == quick.faithfulness().options
    assert "the training took 60,000" in slow.faithfulness().sentence


def test_the_explorer_keeps_one_method_where_the_seconds_pay_for_no_more() -> None:
    plan = budget(check_seconds=0.001).explorer()
    assert (plan.runs, plan.methods) == (True, ("gradcam",))
    assert "1 method for one image" in plan.sentence
    assert len(budget(check_seconds=10**6).explorer().options["methods"]) == 10


def test_the_smallest_numbers_are_those_that_can_show_something() -> None:
    assert [needed_images(3 * maps) for maps in (4, 2, 1)] == [9, 8, 7]
    hits, never = SimpleNamespace(estimate=1.0), 3.841 / (FEWEST_MARKED + 3.841)  # Wilson's upper end for none of so many
    assert never < TOO_SIMILAR * hits.estimate < 3.841 / (FEWEST_MARKED - 1 + 3.841)
    assert [draws ** (1 - draws) < 0.025 for draws in (2, 3, 4)] == [False, False, True]  # all resamples of one network


@pytest.mark.parametrize(
    ("seconds", "extent", "problem"),
    [(0, "auto", "above 0"), (-1.0, "auto", "above 0"), (True, "auto", "above 0"), (60, "full", "give one of them")],
)
def test_a_limit_that_is_none_is_refused(seconds: float, extent: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        budget(check_seconds=seconds, extent=extent)


def test_the_checks_run_as_planned_on_larger_images() -> None:
    made, few = budget(check_seconds=833), {"count": 2}
    judged = evaluate(made.classifier, TEST, **{**made.faithfulness().options, **few}, percentiles=[50], steps=2)
    assert [row.patches for row in judged.methods] == [(32, 32)]
    checked = sanity_check(made.classifier, TEST, colored_images(90, SIDE), **{**made.sanity().options, **few, "draws": 2})
    assert (checked.maps.shape[2:], checked.training_images) == ((2, SIDE, SIDE), 32)
    assert np.isfinite(checked.random_correlations).all()


def test_large_maps_are_compared_as_means_of_patches_and_small_ones_as_they_are() -> None:
    maps = np.random.default_rng(0).random((2, 128, 128), dtype=np.float32)
    np.testing.assert_allclose(as_compared(maps), maps.reshape(2, 64, 2, 64, 2).mean(axis=(2, 4)), rtol=1e-6)
    assert as_compared(maps[:, :64, :64]).shape == (2, 64, 64)
    assert as_compared(maps[:, :64, :64]).base is maps


def test_a_mark_whose_label_is_drawn_at_random_is_not_learned_and_the_sentence_says_why() -> None:
    train = colored_images(120, 16)
    classifier = Classifier(tiny_network(), train.classes, train.mean, train.std, resolution=16)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    planted = plant(classifier, train, steps=24, held_out=40, random_labels=True)
    assert not planted.planted
    assert planted.reading().startswith(
        "The mark was not learnt, as its label was drawn at random and so says nothing (24 steps, "
    )
    assert planted.reading().endswith("95 % are needed before a map's score means anything; no map is scored.")
    with pytest.raises(ValueError, match="label was drawn at random"):
        find(planted, colored_images(20, 16, split="test"), count=5)
    assert "give more steps" in replace(planted, random_labels=False).reading()
    assert all(torch.equal(value, before[name]) for name, value in classifier.network.state_dict().items())
