"""The planted shortcut: networks that see the mark, or look elsewhere, by construction, and what the test says of each."""

import re
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from shortcut_results import exactly, made_up_maps, made_up_planted, made_up_result, made_up_score
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.trust.shortcut.mark import mark_size
from era_support_packages.trust.shortcut.planted import PlantedNetwork
from era_support_packages.trust.shortcut.result import ShortcutTest
from era_support_packages.trust.shortcut.scores import MarkScores
from era_support_packages.trust.shortcut.search import find

GRIDS = {"fine": (32, 32), "middle": (8, 8), "coarse": (4, 4)}


def gray_images(count: int = 60) -> ImageDataset:
    """Grey noise of 32 px in three classes: no pixel is coloured but those of a mark."""
    gray = np.random.default_rng(3).integers(0, 256, (count, 32, 32, 1))
    images = np.repeat(gray, 3, axis=3).astype(np.uint8)
    return ImageDataset(images, np.arange(count) % 3, ("a", "b", "c"), "grey", "grey", "test", (0, 0, 0), (1, 1, 1))


def network(red: float, green: float, evidence: float) -> nn.Sequential:
    """The sum of relu(red R + green G) times `evidence` is the logit of class 0, 4 that of class 1; at three grids."""
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 1, 1, bias=False),
            fine=nn.ReLU(),
            middle=nn.AvgPool2d(4),
            coarse=nn.AvgPool2d(2),
            mean=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(1, 3),
        )
    )
    with torch.no_grad():
        model.conv.weight.copy_(torch.tensor([red, green, 0.0])[None, :, None, None])
        model.linear.weight.copy_(torch.tensor([1024 * evidence, 0.0, 0.0])[:, None])
        model.linear.bias.copy_(torch.tensor([0.0, 4.0, 0.0]))
    return model


def seeing() -> nn.Sequential:
    """Sees only what is redder than green: the mark's 8 magenta pixels, each of them by 48 of 255."""
    return network(255 / 48, -255 / 48, 1)


def blind() -> nn.Sequential:
    """Sees brightness, of which the mark has no more than the noise, and gives class 1 whatever it sees."""
    return network(0.5, 0.5, 1e-6)


def planted_in(model: nn.Module, original: nn.Module, target_class: int = 0) -> PlantedNetwork:
    always = exactly(1.0)
    split = gray_images(3)
    both = (Classifier(network, split.classes, split.mean, split.std, resolution=32) for network in (model, original))
    return PlantedNetwork(*both, target_class, always, exactly(0), always, always, exactly(0), 10, 10, 1, 1.0)


def run(model: nn.Module, original: nn.Module | None = None, **changes: Any) -> ShortcutTest:
    values = {"methods": "gradcam", "layers": list(GRIDS), "count": 40, "batch_size": 16, **changes}
    return find(planted_in(model, original or blind()), gray_images(), **values)


@pytest.fixture(scope="module")
def seen() -> ShortcutTest:
    return run(seeing(), methods=["gradcam", "hirescam"])


def rows(result: ShortcutTest) -> dict[tuple[str, str], MarkScores]:
    return {(maps.method, maps.layer): maps for maps in result.maps}


# ---- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_maps_of_a_network_that_sees_only_the_mark_find_it(seen: ShortcutTest, method: str) -> None:
    fine = rows(seen)[method, "fine"]
    assert fine.planted.hits.all()
    np.testing.assert_allclose(fine.planted.energies, 1, atol=1e-5)
    assert fine.verdict == "finds it"
    assert fine.control.hit_share.estimate < 0.2
    assert fine.other_image.hit_share.estimate < 0.2
    assert rows(seen)[method, "middle"].verdict in ("finds it", "finds it in part")
    assert rows(seen)[method, "coarse"].verdict == "too coarse to show it"


def test_each_row_has_the_ceiling_and_the_baselines_of_its_own_grid(seen: ShortcutTest) -> None:
    assert [(maps.method, maps.layer, maps.grid) for maps in seen.maps] == [
        (method, layer, grid) for method in ("gradcam", "hirescam") for layer, grid in GRIDS.items()
    ]
    ceilings = [rows(seen)["gradcam", layer].ceiling for layer in GRIDS]
    assert ceilings[0].hits.all()
    np.testing.assert_allclose(ceilings[0].energies, 1, atol=1e-4)
    assert 0.7 < ceilings[1].hits.mean() <= 1
    assert 0.05 < ceilings[2].hits.mean() < 0.5
    for layer in GRIDS:
        one, other = rows(seen)["gradcam", layer], rows(seen)["hirescam", layer]
        assert (one.ceiling, one.random, one.gaussian) == (other.ceiling, other.random, other.gaussian)
        assert one.random.hit_share.low < 16 / 1024 < one.random.hit_share.high
        assert len(one.random) == len(seen) == 40
    assert seen.noise.hit_share.low < 16 / 1024 < seen.noise.hit_share.high
    assert seen.noise.energies.mean() == pytest.approx(16 / 1024, abs=0.002)


def test_the_marked_images_go_where_the_networks_send_them(seen: ShortcutTest) -> None:
    assert (seen.to_class.estimate, seen.to_class_untouched.estimate) == (1, 0)


class WithDecoy(nn.Module):
    """Class 0 follows from the mark, but nothing of that passes through `decoy`, which sees brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.seeing, self.decoy = seeing(), nn.Conv2d(3, 1, 1, bias=False)
        self.decoy.weight.data = torch.tensor([0.5, 0.5, 0.0])[None, :, None, None]

    def forward(self, images: Tensor) -> Tensor:
        logits = self.seeing(images)
        return logits + 1e-3 * self.decoy(images).mean(dim=(1, 2, 3))[:, None] * torch.tensor([1.0, 0.0, 0.0])


def test_maps_of_a_layer_that_the_mark_does_not_pass_look_elsewhere() -> None:
    result = run(WithDecoy(), WithDecoy(), layers="decoy")
    assert result.to_class.estimate == 1
    assert result.maps[0].planted.hit_share.estimate < 0.2
    assert result.maps[0].ceiling.hits.all()
    assert result.maps[0].verdict == "looks elsewhere"


def test_maps_that_light_up_where_the_mark_means_nothing_are_no_evidence() -> None:
    result = run(seeing(), seeing(), layers="fine")
    np.testing.assert_array_equal(result.maps[0].control.hits, result.maps[0].planted.hits)
    assert result.maps[0].verdict == "marks it either way"


def test_constant_maps_are_misses_and_counted() -> None:
    result = run(network(255 / 48, -255 / 48, -1), layers="fine")  # the mark speaks against class 0: zeros after the ReLU
    score = result.maps[0].planted
    assert score.constant.all()
    assert not score.hits.any()
    assert (score.energies == 0).all()
    assert result.maps[0].verdict == "looks elsewhere"


def test_a_method_with_one_map_from_all_layers_has_one_row() -> None:
    result = run(seeing(), methods=["fullgrad", "gradcam"], layers=["fine"], count=4)
    assert [(maps.method, maps.layer, maps.grid) for maps in result.maps] == [
        ("fullgrad", "all layers", (32, 32)),
        ("gradcam", "fine", (32, 32)),
    ]


# ---- the images ------------------------------------------------------------------------------------------------------


def test_images_are_drawn_once_from_the_other_classes(seen: ShortcutTest) -> None:
    assert len(set(seen.indices.tolist())) == 40
    assert not (seen.indices % 3 == 0).any()  # class 0
    assert (seen.marks.size, seen.marks.resolution, len(seen.marks)) == (mark_size(32), 32, 40)
    everything = run(seeing(), layers="coarse", count=500)
    assert sorted(everything.indices.tolist()) == [index for index in range(60) if index % 3]


def test_the_example_is_the_first_image_with_its_mark_and_map(seen: ShortcutTest) -> None:
    top, left = seen.marks.tops[0], seen.marks.lefts[0]
    expected = gray_images().images[seen.indices[0]].copy()
    expected[top : top + 4, left : left + 4] = (152, 104, 152)
    expected[top : top + 2, left + 2 : left + 4] = expected[top + 2 : top + 4, left : left + 2] = (104, 152, 104)
    np.testing.assert_array_equal(seen.example, expected)
    magenta = (expected == (152, 104, 152)).all(axis=2)
    np.testing.assert_allclose(rows(seen)["gradcam", "fine"].example, magenta, atol=1e-5)


def test_the_same_seed_gives_the_same_numbers_in_batches_of_any_size(seen: ShortcutTest) -> None:
    again = run(seeing(), methods=["gradcam", "hirescam"], batch_size=7)
    np.testing.assert_array_equal(again.indices, seen.indices)
    np.testing.assert_array_equal(again.marks.masks, seen.marks.masks)
    for one, other in zip(again.maps, seen.maps, strict=True):
        for name in ("planted", "control", "other_image", "ceiling", "random", "gaussian"):
            np.testing.assert_array_equal(getattr(one, name).hits, getattr(other, name).hits, err_msg=name)
            np.testing.assert_array_equal(getattr(one, name).near, getattr(other, name).near, err_msg=name)
            np.testing.assert_allclose(getattr(one, name).energies, getattr(other, name).energies, atol=1e-4)


def test_another_seed_draws_other_images_and_places(seen: ShortcutTest) -> None:
    other = run(seeing(), layers="coarse", seed=1)
    assert (other.indices != seen.indices).any()
    assert (other.marks.tops != seen.marks.tops).any()


def test_the_networks_and_the_random_state_are_left_as_they_were() -> None:
    model, original = seeing().train(), blind().train()
    original.fine.eval()
    before = [value.clone() for value in (*model.state_dict().values(), *original.state_dict().values())]
    random_state = torch.get_rng_state()
    run(model, original, count=4)
    assert all(module.training for module in model.modules())
    assert [module.training for module in original.modules()] == [module is not original.fine for module in original.modules()]
    after = (*model.state_dict().values(), *original.state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    parameters = [*model.parameters(), *original.parameters()]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parameters)
    assert torch.equal(torch.get_rng_state(), random_state)


# ---- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "ceiling", "control", "verdict"),
    [
        (100, 100, 3, "finds it"),
        (85, 100, 3, "finds it"),  # its interval reaches 90 %
        (83, 100, 3, "finds it in part"),  # up to 89 %
        (41, 100, 3, "finds it in part"),  # up to 51 %: perhaps half of what the grid allows
        (39, 100, 3, "looks elsewhere"),  # up to 49 %
        (71, 87, 3, "finds it"),
        (100, 100, 18, "marks it either way"),  # up to 27 %
        (100, 100, 15, "finds it"),  # up to 23 %
    ],
)
def test_the_verdict_follows_from_hits_ceiling_and_control(hits: int, ceiling: int, control: int, verdict: str) -> None:
    assert made_up_maps("gradcam", "layer1", hits, ceiling, control).verdict == verdict


@pytest.mark.parametrize(
    ("near", "control", "verdict"),
    [
        (90, 3, "too coarse to show it"),
        (90, 24, "too coarse to show it"),
        (36, 3, "too coarse to show it"),  # up to 45.8 %, and 45 % are half of what the grid allows
        (35, 3, "looks elsewhere"),  # up to 44.7 %
    ],
)
def test_maps_that_come_near_do_not_look_elsewhere(near: int, control: int, verdict: str) -> None:
    for hits in (0, 24):
        assert made_up_maps("gradcam", "layer4", hits, 24, control, near=near).verdict == verdict
    fine = made_up_maps("gradcam", "layer3", 20, 87, control, near=near).verdict
    assert fine == ("finds it in part" if verdict == "too coarse to show it" else verdict)
    assert made_up_maps("gradcam", "layer4", 49, 49, control, near=90).verdict == "too coarse to show it"
    assert made_up_maps("gradcam", "layer4", 50, 50, 3, near=90).verdict == "finds it"


def test_the_best_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    lucky, steady = made_up_maps("lucky", "x", 0, 100), made_up_maps("steady", "x", 0, 100)
    lucky.planted.hits[:50] = True  # all of the first half, none of the second
    steady.planted.hits[:45] = steady.planted.hits[50:95] = True
    best, rest = made_up_result(steady, lucky).best()
    assert best.method == "lucky"
    assert (len(rest), rest.hit_share.estimate) == (50, 0)
    best, rest = made_up_result(steady).best()
    assert rest.hit_share.estimate == 0.9


def test_hits_that_the_untouched_network_has_as_well_do_not_make_the_best() -> None:
    bright, specific = made_up_maps("bright", "x", 100, 100, control=40), made_up_maps("specific", "x", 90, 100, control=4)
    assert made_up_result(bright, specific).best()[0].method == "specific"


def test_of_equal_hits_the_map_with_more_energy_in_the_mark_is_the_best() -> None:
    one, other = made_up_maps("one", "x", 90, 100, energy=0.4), made_up_maps("other", "x", 90, 100, energy=0.6)
    assert made_up_result(one, other).best()[0].method == "other"
    assert made_up_score(90).hits[:50].sum() == 45


# ---- bad values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "methods is empty; name at least one, such as 'gradcam'."),
        (
            {"methods": ["gradcam", "hires"]},
            "Unknown method 'hires': did you mean 'hirescam'?",
        ),
        ({"count": 1}, "count is 1; it must be a whole number of at least 2."),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number of at least 1."),
        ({"planted": made_up_planted(0.62)}, made_up_planted(0.62).reading()),
        (
            {"test": gray_images().take(np.arange(0, 60, 3))},
            "test has 0 images of a class other than a; at least 2 are needed.",
        ),
    ],
)
def test_bad_values_get_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find(**{"planted": planted_in(seeing(), blind()), "test": gray_images(), "layers": "fine", **changes})
