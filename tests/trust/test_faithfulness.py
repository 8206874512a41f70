"""Faithfulness: exact numbers on networks of known reasons, the baselines, and what it does to the model it is given."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from gradcam_networks import state
from quadrant_networks import BrightTopLeft, MaskedBefore, Pooled, TopLeft, red_noise
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from era_support_packages.evaluation.intervals import mean_interval
from era_support_packages.gradcam.explanation import explain
from era_support_packages.trust.faithfulness import scores as faithfulness
from era_support_packages.trust.faithfulness.metrics import METRICS, RANKING_METRICS
from era_support_packages.trust.faithfulness.result import BASELINES, Faithfulness, MapScores
from era_support_packages.trust.faithfulness.scores import image_passes, judge


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def judged(model: nn.Module, images: Tensor | np.ndarray, **options: Any) -> Faithfulness:
    return judge(model, images, **{"methods": ["hirescam"], "layers": "conv", "percentiles": [50], "steps": 4, **options})


def beats_every_baseline(result: Faithfulness, row: MapScores) -> bool:
    """In every ranking metric."""
    return all(found.low > 0 for metric in RANKING_METRICS for found in result.over_baselines(row, metric).values())


@pytest.fixture(scope="module")
def top_left() -> Faithfulness:
    """Twenty images of noise, of which the bright pixels of the top-left quadrant count."""
    methods = ["hirescam", "gradcam"]
    return judged(BrightTopLeft(), red_noise(20), targets=[0] * 20, methods=methods, percentiles=[80, 90], steps=8)


def test_areas_by_hand_where_the_map_is_exactly_the_quadrant_that_counts() -> None:
    # The red quadrant holds four ones, its surroundings zeros; HiResCAM marks these four of 16 pixels. Deleted first,
    # they leave a logit of 0. Inserted first, they bring back sigmoid(4) from the sum of the blurred quadrant.
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0, :2, :2] = 1
    result = judged(TopLeft(), image.repeat(2, 1, 1, 1))
    (row,) = result.methods
    full, hidden = sigmoid(4), sigmoid(gaussian_filter(image[0, 0].numpy(), 0.5)[:2, :2].sum())
    assert 0.5 < hidden < full
    np.testing.assert_array_equal(result.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(row.deletion_curves, [[full, 0.5, 0.5, 0.5, 0.5]] * 2, rtol=1e-6)
    np.testing.assert_allclose(row.insertion_curves, [[hidden, full, full, full, full]] * 2, rtol=1e-6)
    np.testing.assert_allclose(row.scores["deletion"], [(full + 0.5) / 8 + 0.375] * 2, rtol=1e-6)
    np.testing.assert_allclose(row.scores["insertion"], [(hidden + full) / 8 + 0.75 * full] * 2, rtol=1e-6)
    for metric in ("confidence_drop", "confidence_increase", "average_drop"):
        np.testing.assert_allclose(row.scores[metric], [0, 0], atol=1e-7)  # the image times its map is the image
    np.testing.assert_array_equal(result.targets, [0, 0])
    np.testing.assert_allclose(result.confidences, [full] * 2, rtol=1e-6)
    assert (len(result), row.name, row.layer, row.method, row.constant) == (2, "hirescam", "conv", "hirescam", 0)
    assert (row.title, row.label) == ("HiResCAM", "HiResCAM conv")


def test_drop_increase_and_average_drop_are_those_of_the_image_times_its_map(top_left: Faithfulness) -> None:
    images = red_noise(20)
    maps = explain(BrightTopLeft(), images, [0] * 20, "conv", "gradcam").maps[:, 0, 0]
    red = images[:, 0].numpy().astype(np.float64)
    evidence = (np.maximum(plane - 0.5, 0)[:, :4, :4].sum(axis=(1, 2)) for plane in (red, red * maps))
    before, after = (1 / (1 + np.exp(4 - 4 * total)) for total in evidence)
    scores = top_left.methods[1].scores
    np.testing.assert_allclose(top_left.confidences, before, rtol=1e-4)
    np.testing.assert_allclose(scores["confidence_drop"], np.maximum(before - after, 0), atol=1e-6)
    np.testing.assert_allclose(scores["average_drop"], np.maximum(before - after, 0) / before, atol=1e-5)
    np.testing.assert_array_equal(scores["confidence_increase"], after > before)


def test_a_confidence_that_rises_is_an_increase_and_no_drop_and_one_of_zero_has_no_average_drop() -> None:
    # The red quadrant counts against class 0, and the Gaussian takes some of it away.
    result = judged(TopLeft(scale=-1), red_noise(4), targets=[0] * 4)
    gaussian = result.baselines_of(result.methods[0])[1].scores
    drops = [gaussian[metric].tolist() for metric in ("confidence_increase", "confidence_drop", "average_drop")]
    assert drops == [[1] * 4, [0] * 4, [0] * 4]
    result = judged(TopLeft(scale=0, bias=-200), red_noise(2), targets=[0, 0])
    assert result.confidences.tolist() == [0, 0]
    assert all((row.scores["average_drop"] == 0).all() for row in (*result.methods, *result.baselines))


def test_the_map_of_what_counts_beats_every_baseline_in_every_ranking_metric(top_left: Faithfulness) -> None:
    hires, grad = top_left.methods
    assert beats_every_baseline(top_left, hires)
    for metric in RANKING_METRICS:
        assert list(top_left.over_baselines(hires, metric)) == list(BASELINES)
        assert top_left.advantage(hires, grad, metric).low > 0, metric  # Grad-CAM leaks into the rest of the plane
    # Removing what contributes most first is the fastest way down that there is.
    for row in top_left.baselines:
        assert (row.deletion_curves >= hires.deletion_curves - 1e-7).all(), row.label
    # Masked before the layer, no method's map can leak.
    masked = judged(MaskedBefore(), red_noise(20), targets=[0] * 20, methods=["gradcam"], percentiles=[80, 90], steps=8)
    assert beats_every_baseline(masked, masked.methods[0])


def test_advantages_are_paired_positive_where_better_and_corrected(top_left: Faithfulness) -> None:
    hires, grad = top_left.methods
    road = hires.scores["road"] - grad.scores["road"]
    assert top_left.advantage(hires, grad, "road") == mean_interval(road, seed=0)
    deletion = grad.scores["deletion"] - hires.scores["deletion"]
    assert top_left.advantage(hires, grad, "deletion", comparisons=3) == mean_interval(deletion, 3, seed=0)
    random_map = top_left.baselines_of(hires)[0]
    assert top_left.over_baselines(hires, "road")["random map"] == top_left.advantage(hires, random_map, "road", 2 * 3)
    with pytest.raises(ValueError, match=f"^metric is 'speed'; choose one of {', '.join(METRICS)}\\.$"):
        top_left.advantage(hires, grad, "speed")


class TwoGrids(nn.Module):
    """Layers "fine" of the image's size and "coarse" of half of it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.fine, self.coarse = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 2, stride=2)
            self.linear = nn.Linear(4 * 16, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.coarse(self.fine(images).relu()).relu().flatten(1))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[faithfulness.Key, np.ndarray]:
    """The maps that are scored, by what they are."""
    found: dict[faithfulness.Key, np.ndarray] = {}
    score = faithfulness._score

    def record(ends: Any, key: faithfulness.Key, maps: np.ndarray, *rest: Any) -> MapScores:
        found[key] = maps
        return score(ends, key, maps, *rest)

    monkeypatch.setattr(faithfulness, "_score", record)
    return found


def test_every_layer_has_its_baselines_on_its_own_grid(given: dict[faithfulness.Key, np.ndarray]) -> None:
    images, layers = red_noise(5), ["coarse", "fine"]
    result = judged(TwoGrids(), images, methods=["gradcam", "hirescam"], layers=layers, steps=2, seed=7)
    rows = [result.methods, result.baselines, result.baselines_of(result.methods[2])]
    assert [[row.label for row in part] for part in rows] == [
        ["Grad-CAM coarse", "Grad-CAM fine", "HiResCAM coarse", "HiResCAM fine"],
        [
            *("random map coarse", "centred Gaussian coarse", "random map fine", "centred Gaussian fine"),
            *("Grad-CAM of another image coarse", "Grad-CAM of another image fine"),
            *("HiResCAM of another image coarse", "HiResCAM of another image fine", "pixel noise"),
        ],
        ["random map coarse", "centred Gaussian coarse", "HiResCAM of another image coarse"],
    ]
    own = explain(TwoGrids(), images, layers=layers, method="hirescam").maps[:, 0, 0]
    np.testing.assert_array_equal(given["hirescam", "coarse", "hirescam"], own)
    np.testing.assert_array_equal(given["another image's map", "coarse", "hirescam"], own[result.other_images])
    assert (result.other_images != np.arange(5)).all()
    coarse, fine = given["random map", "coarse", ""], given["random map", "fine", ""]
    assert np.abs(np.diff(fine, axis=2)).mean() > 1.5 * np.abs(np.diff(coarse, axis=2)).mean()
    assert not np.array_equal(given["pixel noise", "", ""], fine)
    gaussian = given["centred Gaussian", "fine", ""]
    assert all(np.array_equal(gaussian[0], each) for each in gaussian)


def test_baselines_lie_where_the_cells_of_their_layer_do(given: dict[faithfulness.Key, np.ndarray]) -> None:
    """Without padding the outermost row of the image has no cells of its own: it is as the next one."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    judged(network, red_noise(5), methods=["gradcam"], layers="0", steps=2, seed=7)
    for label in ("random map", "centred Gaussian"):
        maps = given[label, "0", ""]
        np.testing.assert_array_equal(maps[:, 0], maps[:, 1])
        assert np.abs(maps[:, 1] - maps[:, 2]).max() > 0.1


def test_constant_maps_are_counted_and_equal_maps_score_the_same() -> None:
    result = judged(Pooled(), torch.ones(3, 3, 8, 8))
    (row,) = result.methods
    assert row.constant == 3
    assert [baseline.constant for baseline in result.baselines_of(row)] == [0, 0, 3]
    # The images are one colour, so that a curve depends on the number of pixels alone.
    np.testing.assert_allclose(row.deletion_curves, result.baselines[-1].deletion_curves, rtol=1e-5)
    first, second = judged(Pooled(scale=0.1), red_noise(4), methods=["gradcam", "hirescam"]).methods
    for metric in METRICS:
        np.testing.assert_allclose(first.scores[metric], second.scores[metric], atol=1e-6)
    np.testing.assert_array_equal(first.scores["road"], second.scores["road"])


def test_fullgrad_has_one_row_of_its_own() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    result = judged(model, red_noise(2), methods=["gradcam", "fullgrad"], layers="0", steps=2)
    assert [row.name for row in result.methods] == ["gradcam", "fullgrad"]
    assert all(len(result.baselines_of(row)) == 3 for row in result.methods)


def test_the_cost_is_known_before() -> None:
    model, seen = TopLeft(), []
    model.conv.register_forward_hook(lambda _layer, inputs, _output: seen.append(len(inputs[0])))
    methods, layers = ["gradcam", "hirescam"], ["conv", "norm"]
    judged(model, red_noise(5), methods=methods, layers=layers, percentiles=[20, 50, 80], batch_size=2)
    systems, backward = 2 * 5 * 13 * 3, 2 * 5 * 2  # four maps and four of other images, four baselines, pixel noise
    assert sum(seen) + systems + backward == image_passes(5, 2, 2, percentiles=3, steps=4)
    assert max(seen) == 2
    assert image_passes(16, 2, 3) == 5216 + 1824 + 96  # the defaults on 16 images: the network, the systems, the maps


def test_the_same_seed_gives_the_same_numbers_in_batches_of_any_size() -> None:
    results = [
        judged(TwoGrids(), red_noise(5), layers="coarse", seed=seed, batch_size=size) for seed, size in ((1, 64), (1, 2), (2, 64))
    ]
    for one, same, other in zip(*((*result.methods, *result.baselines) for result in results), strict=True):
        for metric in METRICS:
            np.testing.assert_allclose(one.scores[metric], same.scores[metric], atol=1e-6)
        assert not np.array_equal(one.scores["road"], other.scores["road"]), "at least the noise is another"
    assert not np.array_equal(results[0].baselines[0].deletion_curves, results[2].baselines[0].deletion_curves)


class Failing(TopLeft):
    """Is stopped in the middle."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        Failing.calls += 1
        if Failing.calls == 8:
            raise KeyboardInterrupt
        return super().forward(images)


@pytest.mark.usefixtures("global_state_stays")
@pytest.mark.parametrize("model", [TopLeft(), Failing()])
def test_the_model_and_the_images_are_as_before(model: TopLeft) -> None:
    model.train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    model.norm.weight.grad = torch.ones(1)
    before, images = state(model), red_noise(3)
    if isinstance(model, Failing):
        with pytest.raises(KeyboardInterrupt):
            judged(model, images)
    else:
        judged(model, images)
    assert state(model) == before
    assert torch.equal(images, red_noise(3))


def test_images_may_be_an_array_and_the_predicted_class_is_the_default() -> None:
    model, images = TopLeft(bias=-20), red_noise(3)
    result, same = judged(model, images.numpy()), judged(model, images, targets=torch.tensor([1, 1, 1]))
    np.testing.assert_array_equal(result.targets, [1, 1, 1])
    np.testing.assert_array_equal(result.methods[0].scores["road"], same.methods[0].scores["road"])


METHODS = "methods is {}; give a list of at least one method, none of them twice."
TARGETS = "targets is of shape {}; give one class id for each image, or None for the predicted."
PERCENTILES = "percentiles is {}; give at least one number between 0 and 100."
STEPS = "steps is {}; it must be a whole number from 2 to the 64 pixels of an image."
BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"methods": "gradcam"}, METHODS.format("'gradcam'")),
    ({"methods": []}, METHODS.format("[]")),
    ({"methods": ["gradcam", "gradcam"]}, METHODS.format("['gradcam', 'gradcam']")),
    ({"methods": ["hirescan"]}, "Unknown method 'hirescan': did you mean 'hirescam'?"),
    ({"targets": [[0, 1], [0, 1]]}, TARGETS.format("(2, 2)")),
    ({"targets": "actual"}, TARGETS.format("()")),
    ({"percentiles": []}, PERCENTILES.format("[]")),
    ({"percentiles": [0, 50]}, PERCENTILES.format("[0, 50]")),
    ({"percentiles": [100]}, PERCENTILES.format("[100]")),
    ({"images": red_noise(1)}, "There is 1 image; at least 2 are needed, as each borrows the map of another one."),
    ({"steps": 1}, STEPS.format(1)),
    ({"steps": 65}, STEPS.format(65)),
    ({"steps": 2.5}, STEPS.format(2.5)),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_VALUES, ids=[message[:30] for _, message in BAD_VALUES])
def test_bad_values_are_refused_before_the_model_runs(arguments: dict[str, Any], message: str) -> None:
    model = TopLeft()
    model.conv.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        judged(model, **{"images": red_noise(2), **arguments})
