"""One column of a softmax, and other single outputs that are no plain logit: served with the right value, or refused truly."""

import re
from collections.abc import Callable

import pytest
import torch
from three_planes import Returns
from torch import Tensor

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam import explain

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.5, -0.5]])


def images() -> Tensor:
    """Means as of `LOGITS`, the left half above them, the right half below, by another amount in each plane."""
    amounts = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    return LOGITS[:, :, None, None] + amounts * torch.tensor([1.0, 1.0, -1.0, -1.0]) * torch.ones(4, 1)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    ("made", "probability"),
    [
        (lambda z: z[:, :2].softmax(1)[:, 1], lambda z: (z[:, 1] - z[:, 0]).sigmoid()),
        (lambda z: z[:, :2].softmax(1)[:, 1:], lambda z: (z[:, 1] - z[:, 0]).sigmoid()),
        (lambda z: z[:, :2].log_softmax(1)[:, 1], lambda z: (z[:, 1] - z[:, 0]).sigmoid()),
        (lambda z: z.softmax(1)[:, 2], lambda z: z.softmax(1)[:, 2]),
        (lambda z: z.log_softmax(1)[:, 2], lambda z: z.softmax(1)[:, 2]),
        (lambda z: z.sigmoid()[:, 1], lambda z: z[:, 1].sigmoid()),
    ],
)
def test_one_probability_of_several_is_read_as_two_classes(
    made: Callable[[Tensor], Tensor], probability: Callable[[Tensor], Tensor], inference: bool
) -> None:
    reader, expected = LogitReader(Returns(made)), probability(LOGITS)
    with torch.inference_mode(inference):
        found = reader(images())
    torch.testing.assert_close(found.softmax(dim=1), torch.stack([1 - expected, expected], dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, 1], torch.logit(expected) / 2, rtol=1e-4, atol=1e-5)
    assert reader.score == "logit"


def test_its_map_is_that_of_the_two_logits() -> None:
    def pair(z: Tensor) -> Tensor:
        difference = z[:, 1] - z[:, 0]
        return torch.stack([-difference / 2, difference / 2], dim=1)

    column = explain(Returns(lambda z: z[:, :2].softmax(1)[:, 1]), images(), layers="planes", method="hirescam")
    logits = explain(Returns(pair), images(), layers="planes", method="hirescam")
    assert column.targets.tolist() == logits.targets.tolist() == [[0], [1], [1]]
    torch.testing.assert_close(torch.from_numpy(column.maps), torch.from_numpy(logits.maps), rtol=0, atol=1e-5)
    assert column.maps.max() > 0.9


def test_certain_probabilities_stay_finite() -> None:
    for made in (lambda z: (100 * z).softmax(1)[:, 1], lambda z: (100 * z).log_softmax(1)[:, 1]):
        assert LogitReader(Returns(made))(images()).isfinite().all()


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda z: z[:, :1].softmax(1), "a softmax over one output, which is 1 for every image"),
        (lambda z: z[:, :1].log_softmax(1)[:, 0], "a softmax over one output, which is 1 for every image"),
        (lambda z: z.softmax(1).amax(1), "values in [0, 1], made by _softmax, amax"),
        (lambda z: 1 - z.softmax(1)[:, 0], "values in [0, 1], made by _softmax, rsub"),
        (lambda z: z.log_softmax(1).amax(1), "logarithms of probabilities, made by _log_softmax, amax"),
        (lambda z: z.sigmoid()[:, 0].log(), "logarithms of probabilities, made by log"),
        (lambda z: z.softmax(1)[:, :2], "values in [0, 1] whose rows do not add up to one, made by _softmax"),
        (lambda z: z.log_softmax(1)[:, :2], "logarithms of probabilities whose rows do not add up to one, made by _log_softmax"),
    ],
)
def test_what_a_single_value_cannot_be_is_refused_for_its_own_reason(made: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        LogitReader(Returns(made))(images())


def test_log_probabilities_rounded_to_half_precision_are_log_probabilities() -> None:
    reader = LogitReader(Returns(lambda z: z.bfloat16().log_softmax(1).float()))
    reader(images() * 3)
    assert reader.score == "log-probability"
