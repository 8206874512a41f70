"""The planted shortcut: networks that see the mark, or look elsewhere, by construction, and what the test says of each."""

import re
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from gradcam_networks import state
from shortcut_results import exactly, made_up_maps, made_up_planted, made_up_result
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


def seeing(evidence: float = 1) -> nn.Sequential:
    """Sees only what is redder than green: the mark's 8 magenta pixels, each of them by 48 of 255."""
    return network(255 / 48, -255 / 48, evidence)


def blind() -> nn.Sequential:
    """Sees brightness, of which the mark has no more than the noise, and gives class 1 whatever it sees."""
    return network(0.5, 0.5, 1e-6)


class WithDecoy(nn.Module):
    """Class 0 follows from the mark, but nothing of that passes through `decoy`, which sees brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.seeing, self.decoy = seeing(), nn.Conv2d(3, 1, 1, bias=False)
        self.decoy.weight.data = torch.tensor([0.5, 0.5, 0.0])[None, :, None, None]

    def forward(self, images: Tensor) -> Tensor:
        logits = self.seeing(images)
        return logits + 1e-3 * self.decoy(images).mean(dim=(1, 2, 3))[:, None] * torch.tensor([1.0, 0.0, 0.0])


def planted_in(model: nn.Module, original: nn.Module) -> PlantedNetwork:
    always, split = exactly(1.0), gray_images(3)
    both = (Classifier(network, split.classes, split.mean, split.std, resolution=32) for network in (model, original))
    return PlantedNetwork(*both, 0, always, exactly(0), always, always, exactly(0), 10, 10, 1, 1.0)


def run(model: nn.Module, original: nn.Module | None = None, **changes: Any) -> ShortcutTest:
    values = {"methods": "gradcam", "layers": list(GRIDS), "count": 40, "batch_size": 16, **changes}
    return find(planted_in(model, original or blind()), gray_images(), **values)


@pytest.fixture(scope="module")
def seen() -> ShortcutTest:
    return run(seeing(), methods=["gradcam", "hirescam"])


def rows(result: ShortcutTest) -> dict[tuple[str, str], MarkScores]:
    return {(maps.method, maps.layer): maps for maps in result.maps}


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
    assert (seen.to_class.estimate, seen.to_class_untouched.estimate) == (1, 0)


def test_each_row_has_the_ceiling_and_the_baselines_of_its_own_grid(seen: ShortcutTest) -> None:
    assert [(maps.method, maps.layer, maps.grid) for maps in seen.maps] == [
        (method, layer, grid) for method in ("gradcam", "hirescam") for layer, grid in GRIDS.items()
    ]
    fine, middle, coarse = (rows(seen)["gradcam", layer].ceiling for layer in GRIDS)
    assert fine.hits.all()
    np.testing.assert_allclose(fine.energies, 1, atol=1e-4)
    assert 0.7 < middle.hits.mean() <= 1
    assert 0.05 < coarse.hits.mean() < 0.5
    for layer in GRIDS:
        one, other = rows(seen)["gradcam", layer], rows(seen)["hirescam", layer]
        assert (one.ceiling, one.random, one.gaussian) == (other.ceiling, other.random, other.gaussian)
        assert one.random.hit_share.low < 16 / 1024 < one.random.hit_share.high
        assert len(one.random) == len(seen) == 40
    assert seen.noise.hit_share.low < 16 / 1024 < seen.noise.hit_share.high
    assert seen.noise.energies.mean() == pytest.approx(16 / 1024, abs=0.002)


def test_the_ceiling_lies_where_the_cells_of_the_layer_do() -> None:
    model, conv = seeing(), nn.Conv2d(3, 1, 9, bias=False)  # each cell sees a pixel of the middle 24 x 24
    with torch.no_grad():
        conv.weight.zero_()[:, :, 4, 4] = model.conv.weight[:, :, 0, 0]
    model.conv = conv
    found = run(model, layers="fine")
    (fine,) = found.maps
    places = np.stack([found.marks.tops, found.marks.lefts])
    within = ((places > 4) & (places < 24)).all(axis=0)  # an outermost cell is drawn beyond itself too
    assert within.sum() > 10
    for score in (fine.planted, fine.ceiling):
        assert score.hits[within].all()
        np.testing.assert_allclose(score.energies[within], 1, atol=1e-4)


def test_maps_that_do_not_show_the_cause_are_told_apart() -> None:
    aside = run(WithDecoy(), WithDecoy(), layers="decoy")  # a layer that the mark does not pass
    assert aside.to_class.estimate == 1
    [maps] = aside.maps
    assert maps.planted.hit_share.estimate < 0.2
    assert maps.ceiling.hits.all()
    assert maps.verdict == "looks elsewhere"
    [maps] = run(seeing(), seeing(), layers="fine").maps  # lights up where the mark means nothing
    np.testing.assert_array_equal(maps.control.hits, maps.planted.hits)
    assert maps.verdict == "marks it either way"
    [maps] = run(seeing(-1), layers="fine").maps  # the mark speaks against class 0: zeros after the ReLU
    assert maps.planted.constant.all()
    assert not maps.planted.hits.any()
    assert (maps.planted.energies == 0).all()
    assert maps.verdict == "looks elsewhere"


def test_a_method_with_one_map_from_all_layers_has_one_row() -> None:
    result = run(seeing(), methods=["fullgrad", "gradcam"], layers=["fine"], count=4)
    found = [(maps.method, maps.layer, maps.grid) for maps in result.maps]
    assert found == [("fullgrad", "all layers", (32, 32)), ("gradcam", "fine", (32, 32))]


def test_images_are_drawn_once_from_the_other_classes(seen: ShortcutTest) -> None:
    assert len(set(seen.indices.tolist())) == 40
    assert not (seen.indices % 3 == 0).any()  # class 0
    assert (seen.marks.size, seen.marks.resolution, len(seen.marks)) == (mark_size(32), 32, 40)
    everything = run(seeing(), layers="coarse", count=500, seed=1)
    assert sorted(everything.indices.tolist()) == [index for index in range(60) if index % 3]
    assert (everything.marks.tops != seen.marks.tops).any(), "another seed draws other places, and other images first"
    assert (everything.indices[:40] != seen.indices).any()


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


@pytest.mark.usefixtures("global_state_stays")
def test_the_networks_are_left_as_they_were() -> None:
    with torch.random.fork_rng(devices=[]):
        models = [seeing().train(), blind().train()]
    models[1].fine.eval()
    before = [state(model) for model in models]
    run(*models, count=4)
    assert [state(model) for model in models] == before


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
    ("hits", "ceiling", "near", "control", "verdict"),
    [
        (0, 24, 90, 3, "too coarse to show it"),
        (24, 24, 90, 24, "too coarse to show it"),
        (0, 24, 36, 3, "too coarse to show it"),  # up to 45.8 %, and 45 % are half of what the grid allows
        (24, 24, 35, 3, "looks elsewhere"),  # up to 44.7 %
        (20, 87, 36, 3, "finds it in part"),
        (20, 87, 90, 24, "finds it in part"),
        (20, 87, 35, 3, "looks elsewhere"),
        (49, 49, 90, 3, "too coarse to show it"),
        (50, 50, 90, 3, "finds it"),
    ],
)
def test_maps_that_come_near_do_not_look_elsewhere(hits: int, ceiling: int, near: int, control: int, verdict: str) -> None:
    assert made_up_maps("gradcam", "layer4", hits, ceiling, control, near=near).verdict == verdict


def test_the_best_is_chosen_on_one_half_and_reported_on_the_other() -> None:
    lucky, steady = made_up_maps("lucky", "x", 0, 100), made_up_maps("steady", "x", 0, 100)
    lucky.planted.hits[:50] = True  # all of the first half, none of the second
    steady.planted.hits[:45] = steady.planted.hits[50:95] = True
    best, rest = made_up_result(steady, lucky).best()
    assert (best.method, len(rest), rest.hit_share.estimate) == ("lucky", 50, 0)
    assert made_up_result(steady).best()[1].hit_share.estimate == 0.9


def test_the_best_is_chosen_by_hits_less_those_of_the_untouched_network_then_by_energy() -> None:
    bright, specific = made_up_maps("bright", "x", 100, 100, control=40), made_up_maps("specific", "x", 90, 100, control=4)
    assert made_up_result(bright, specific).best()[0].method == "specific"
    one, other = made_up_maps("one", "x", 90, 100, energy=0.4), made_up_maps("other", "x", 90, 100, energy=0.6)
    assert made_up_result(one, other).best()[0].method == "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": []}, "methods is empty; name at least one, such as 'gradcam'."),
        ({"methods": ["gradcam", "hires"]}, "Unknown method 'hires': did you mean 'hirescam'?"),
        ({"count": 1}, "count is 1; it must be a whole number of at least 2."),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number of at least 1."),
        ({"planted": made_up_planted(0.62)}, made_up_planted(0.62).reading()),
        ({"test": gray_images().take(np.arange(0, 60, 3))}, "test has 0 images of a class other than a; at least 2 are needed."),
    ],
)
def test_bad_values_get_one_sentence(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find(**{"planted": planted_in(seeing(), blind()), "test": gray_images(), "layers": "fine", **changes})
