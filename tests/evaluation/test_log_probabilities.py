"""Maps of sure networks that end with a softmax: those of the log-probability, as float64 has them."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from era_support_packages.evaluation.log_probabilities import sharpened
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam import Explanation, explain

EPS = torch.finfo(torch.float32).eps
ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(1),
    "log_softmax": lambda z: z.log_softmax(1),
    "by hand": lambda z: (z - z.amax(1, keepdim=True).detach()).exp() / (z - z.amax(1, keepdim=True).detach()).exp().sum(1, True),
    "an ensemble": lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2,
}


class Ends(nn.Module):
    """Two convolutions, whose means make four logits, `scale` times as large as drawn; what they end with is given."""

    def __init__(self, end: Callable[[Tensor], Tensor], scale: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.planes = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU())
            self.linear = nn.Linear(16, 4)
        self.end, self.scale = end, scale

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self.linear(self.planes(images).mean(dim=(2, 3))) * self.scale)


def images() -> Tensor:
    return torch.randn(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def explained(end: Callable[[Tensor], Tensor], scale: float, double: bool = False, method: str = "gradcam") -> Explanation:
    dtype = torch.float64 if double else torch.float32
    return explain(Ends(end, scale).to(dtype), images().to(dtype), layers="planes", method=method)


def cautions(call: Callable[[], object]) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in said if each.category is UserWarning]


def lacking(scale: float) -> np.ndarray:
    """What each predicted probability lacks to 1, in float64 from the others."""
    z = Ends(lambda z: z, scale).double()(images().double()).detach()
    return z.softmax(1).sort(dim=1).values[:, :-1].sum(1).numpy()


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("end", ENDS)
def test_maps_of_sure_predictions_are_those_of_float64(end: str, method: str) -> None:
    lacks = lacking(1000)
    assert lacks.min() < 1e-8
    found, exact = explained(ENDS[end], 1000, method=method), explained(ENDS["log_softmax"], 1000, double=True, method=method)
    if end == "an ensemble":  # of its own score
        exact = explained(ENDS[end], 1000, double=True, method=method)
    shown = lacks > 1e-13  # what float64 itself has of 1 - p
    assert found.score == "log-probability"
    np.testing.assert_array_equal(found.targets, exact.targets)
    np.testing.assert_allclose(found.maps[shown], exact.maps[shown], atol=2e-3)


@pytest.mark.parametrize("end", ["softmax", "log_softmax"])
def test_a_map_of_hardly_any_range_is_scaled_like_any_other(end: str) -> None:
    lacks = lacking(3000)
    shown = lacks > 1e-24
    assert lacks[shown].min() < 1e-16
    found, mild = (explain(Ends(ENDS[end], scale), images()[shown], layers="planes") for scale in (3000, 100))
    assert found.raw_ranges[~found.constant, 1].min() < 1e-14
    np.testing.assert_array_equal(found.constant, mild.constant)
    np.testing.assert_allclose(found.maps.max(axis=(3, 4)), ~found.constant, atol=1e-4)
    assert cautions(lambda: explain(Ends(ENDS[end], 3000), images()[shown], layers="planes")) == []
    assert len(cautions(lambda: explained(ENDS[end], 3000))) == 1  # of those that lack less


@pytest.mark.parametrize("scale", [10, 30])
@pytest.mark.parametrize("end", ["softmax", "log_softmax"])
def test_gradient_and_value_are_those_of_the_log_probability(end: str, scale: int) -> None:
    z = (torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * scale).requires_grad_()
    twin = z.detach().double().requires_grad_()
    for column in range(5):
        values = ENDS[end](z)
        values = sharpened(values.log() if end == "softmax" else values, EPS)
        expected = twin.log_softmax(1)
        torch.testing.assert_close(values.double(), expected, rtol=1e-5, atol=1e-15)  # float64 rounds 1 - p as well
        (own,) = torch.autograd.grad(values[:, column].sum(), z)
        (exact,) = torch.autograd.grad(expected[:, column].sum(), twin)
        torch.testing.assert_close(own.double(), exact, rtol=1e-5, atol=1e-15)


def test_values_that_lack_more_than_rounding_stay() -> None:
    given = torch.tensor([[-1e-3, -20.0], [-0.1, -3.0]])  # rows that add up to one by 1e-3 only
    torch.testing.assert_close(sharpened(given, EPS), given, rtol=0, atol=0)


@pytest.mark.parametrize(
    "end",
    [
        lambda z: z.softmax(1).clamp(1e-7, 1 - 1e-7),
        lambda z: z.softmax(1).clamp_min(1e-30).log(),
        lambda z: z.softmax(1)[:, 0],
        lambda z: z.log_softmax(1)[:, 0],
        lambda z: z.sigmoid(),
        lambda z: z[:, :1].sigmoid(),
    ],
)
def test_a_sure_prediction_whose_map_is_rounding_is_told(end: Callable[[Tensor], Tensor]) -> None:
    said = [each for each in cautions(lambda: explained(end, 4000)) if "a softmax's" not in each]
    assert len(said) == 1
    assert "let it return what goes into its last softmax or sigmoid" in said[0]
    assert [each for each in cautions(lambda: explained(end, 4000, method="eigencam")) if "a softmax's" not in each] == []
    assert [each for each in cautions(lambda: explained(end, 10)) if "a softmax's" not in each] == []


def test_two_logsigmoids_are_exact_by_themselves() -> None:
    def pair(z: Tensor) -> Tensor:
        return nn.functional.logsigmoid(torch.stack([-z[:, 0], z[:, 0]], dim=1))

    assert cautions(lambda: explained(pair, 4000)) == []
    found, exact = (explained(pair, 300, double=double) for double in (False, True))
    np.testing.assert_allclose(found.maps, exact.maps, atol=1e-3)


def test_the_score_of_a_class_that_a_sigmoid_excludes_is_what_goes_into_it() -> None:
    z = torch.tensor([[-40.0, 3.0, -20.0]])
    planes = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Sigmoid())
    values = LogitReader(planes)(z[:, :, None, None].expand(1, 3, 2, 2))
    torch.testing.assert_close(values, z, rtol=1e-4, atol=0)
