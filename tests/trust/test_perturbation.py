"""Pixels taken away in the order of a map: exact shares, and numbers worked out by hand on networks of known reasons."""

import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import road as library
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from quadrant_networks import TopLeft, red_noise
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from era_support_packages.trust.faithfulness import perturbation
from era_support_packages.trust.faithfulness.imputation import imputed
from era_support_packages.trust.faithfulness.perturbation import (
    Subject,
    blurred,
    confidence_meter,
    confidences_of_masked,
    replaced_curves,
    road,
)
from era_support_packages.trust.faithfulness.removal import Removal, removal_order


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def subject_of(model: nn.Module, images: Tensor, class_id: int = 0) -> Subject:
    model.eval()
    return Subject(lambda batch: model(batch).softmax(dim=1).detach(), images, np.full(len(images), class_id))


def red_image(plane: list[list[float]]) -> Tensor:
    image = torch.zeros(1, 3, len(plane), len(plane[0]))
    image[0, 0] = torch.tensor(plane)
    return image


QUADRANT = red_image([[1, 2, 9, 9], [3, 4, 9, 9], [9] * 4, [9] * 4])


class Center(nn.Module):
    """The logit of class 0 is the centre of the red plane, that of class 1 is 0."""

    def forward(self, images: Tensor) -> Tensor:
        logit = images[:, :1, images.shape[2] // 2, images.shape[3] // 2]
        return torch.cat([logit, torch.zeros_like(logit)], dim=1)


CENTER = red_image([[0, 1, 0], [1, 5, 1], [0, 1, 0]])
CENTER_LAST = np.array([[[0, 4, 1], [5, 8, 6], [2, 7, 3]]])  # ranks, with a corner first


def by_pixel(ranks: np.ndarray) -> Removal:
    return Removal(ranks, ranks.shape[1:])


def test_road_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    # One pixel of nine is removed. First the centre: it becomes the mean of its neighbours, of weight 1/6 at the sides and
    # 1/12 at the corners, 4 (1/6) = 2/3. Then a corner: the centre stays, and so does the confidence, sigmoid(5).
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # the noise
    found = road(subject_of(Center(), CENTER), by_pixel(CENTER_LAST), [89], seed=0)
    np.testing.assert_allclose(found, [(sigmoid(5) - sigmoid(2 / 3)) / 2], rtol=1e-6)
    assert found.dtype == np.float64
    backwards = road(subject_of(Center(), CENTER), by_pixel(8 - CENTER_LAST), [89], seed=0)
    np.testing.assert_allclose(backwards, -found, rtol=1e-6)


def test_road_is_the_librarys_on_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    subject = subject_of(TopLeft(scale=0.3), red_noise(3))
    order = removal_order(np.random.default_rng(1).random((3, 8, 8)), seed=0)
    # At 64 pixels the library's own percentiles fall between the same ranks.
    combined = library.ROADCombined(percentiles=[25, 50, 75])
    targets = [ClassifierOutputTarget(int(class_id)) for class_id in subject.class_ids]
    expected = combined(subject.images, np.float32((order.ranks + 0.5) / 64), targets, subject.probabilities)
    assert np.abs(expected).min() > 0.001
    np.testing.assert_allclose(road(subject, order, [25, 50, 75], seed=0), expected, atol=1e-7)


@pytest.mark.parametrize("share", [0.2, 0.8])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 6)])
def test_removed_pixels_become_what_the_library_makes_of_them(size: tuple[int, int], share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images, values = torch.randn(3, 3, *size, generator=generator), torch.rand(3, *size, generator=generator)
    removed = values <= values.flatten(1).quantile(share, dim=1)[:, None, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = [library.NoisyLinearImputer()(*pair) for pair in zip(images, (~removed).float(), strict=True)]
        torch.manual_seed(1)
        found = imputed(images, removed.numpy())
        torch.manual_seed(1)
        turned = imputed(images.transpose(2, 3).contiguous().transpose(2, 3), removed.numpy())  # otherwise in memory
    assert torch.equal(found, torch.stack(expected))
    assert torch.equal(found, turned)


@pytest.mark.usefixtures("global_state_stays")
def test_the_noise_of_road_is_drawn_by_the_seed() -> None:
    first, again, other = (road(subject_of(Center(), CENTER), by_pixel(CENTER_LAST), [50, 89], seed)[0] for seed in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(other, abs=0.01)


def test_confidence_on_the_image_times_its_map_and_of_the_class_asked_for_by_hand() -> None:
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, :2, :2] = [[1, 0.5], [0, 0.25]]
    np.testing.assert_allclose(confidences_of_masked(subject_of(TopLeft(), QUADRANT), maps), [sigmoid(1 + 1 + 0 + 1)], rtol=1e-6)
    assert subject_of(TopLeft(), QUADRANT, 1).confidences(QUADRANT / 5)[0] == pytest.approx(sigmoid(-2))


def test_replaced_curves_by_hand() -> None:
    # The red top-left quadrant holds 1, 2, 3, 4; the ranks take 3, then 1, then a pixel outside, then 4 and 2, then the rest.
    after = torch.full((1, 3, 4, 4), -1.0)
    order = [4, 0, 15, 5, 1]
    ranks = np.empty(16, np.int64)
    ranks[order + [index for index in range(16) if index not in order]] = range(15, -1, -1)
    counts = [0, 1, 2, 3, 4, 5, 16]
    curves = replaced_curves(subject_of(TopLeft(), QUADRANT), by_pixel(ranks.reshape(1, 4, 4)), counts, QUADRANT, after)
    np.testing.assert_allclose(curves, [[sigmoid(total) for total in (10, 6, 4, 4, -1, -4, -4)]], rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 5, 6, 100])
def test_curves_of_several_images_with_classes_of_their_own(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as image by image, however many are asked about at once."""
    monkeypatch.setattr(perturbation, "AT_ONCE", at_once)
    images, ranks, counts = (
        red_noise(3, size=4),
        np.stack([np.random.default_rng(k).permutation(16) for k in range(3)]),
        [0, 3, 9],
    )
    ids, after = np.array([0, 1, 0]), torch.zeros(3, 3, 4, 4)
    model = TopLeft().eval()
    probabilities = lambda batch: model(batch).softmax(dim=1).detach()  # noqa: E731
    order = by_pixel(ranks.reshape(3, 4, 4))
    found = replaced_curves(Subject(probabilities, images, ids), order, counts, images, after)
    for number in range(3):
        part = slice(number, number + 1)
        alone = Subject(probabilities, images[part], ids[part])
        expected = replaced_curves(alone, by_pixel(ranks[part].reshape(1, 4, 4)), counts, images[part], after[part])
        np.testing.assert_allclose(found[part], expected, rtol=1e-6)
    assert len(np.unique(found.round(6))) > 6


def test_blurring_is_a_gaussian_of_an_eighth_of_the_shorter_side_of_each_plane() -> None:
    images = red_noise(2, size=16)[:, :, :, :12]
    expected = [[gaussian_filter(plane, 12 / 8) for plane in image] for image in images.numpy()]
    np.testing.assert_allclose(blurred(images), expected, atol=1e-6)
    assert blurred(images).dtype == torch.float32


def test_the_meter_runs_batches_in_evaluation_mode_and_restores_every_flag() -> None:
    model, seen = TopLeft().train(), []
    model.conv.eval()
    model.conv.register_forward_hook(lambda *_: seen.append((len(_[1][0]), model.training, torch.is_inference_mode_enabled())))
    with confidence_meter(model, "fp32", batch_size=2, total=5) as probabilities:
        np.testing.assert_allclose(probabilities(torch.ones(5, 3, 4, 4)), [[sigmoid(4), sigmoid(-4)]] * 5, rtol=1e-5)
    assert seen == [(2, False, True), (2, False, True), (1, False, True)]
    assert [module.training for module in model.modules()] == [True, False, True]
    with pytest.raises(ValueError, match="takes 3 channels"), confidence_meter(model, "fp32", 2, 1) as probabilities:
        probabilities(torch.ones(1, 1, 4, 4))
    assert [module.training for module in model.modules()] == [True, False, True]
    assert not torch.is_inference_mode_enabled()


def test_the_meter_runs_in_the_precision_asked_for_and_leaves_the_images_alone() -> None:
    class InPlace(TopLeft):
        def forward(self, images: Tensor) -> Tensor:
            types.append(self.conv(images).dtype)
            return super().forward(images.mul_(2))

    types: list[torch.dtype] = []
    images = torch.ones(1, 3, 4, 4)
    with confidence_meter(InPlace(), "bf16", batch_size=2, total=1) as probabilities:
        found = probabilities(images)
    assert (types, found.dtype) == ([torch.bfloat16], torch.float32)
    assert (images == 1).all()
