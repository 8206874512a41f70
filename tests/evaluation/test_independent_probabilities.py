"""Networks of several labels: a sigmoid for each class, whatever the first images make of it."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from three_planes import Returns
from torch import Tensor

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam import explain
from era_support_packages.trust import faithfulness

ONE_CLASS = torch.tensor([9.0, -9.0, -9.0])  # the sigmoids add up to one within 1e-3
TWO_CLASSES = torch.tensor([3.0, 3.0, -9.0])


def images_of(*means: Tensor) -> Tensor:
    """Images whose planes have these means, and more on the left."""
    return torch.stack(means)[:, :, None, None] + torch.tensor([1.0, 1.0, -1.0, -1.0]) * torch.ones(4, 1)


def warnings_of(call: Callable[[], Any]) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in said if each.category is UserWarning]


@pytest.mark.parametrize("order", [(ONE_CLASS, TWO_CLASSES), (TWO_CLASSES, ONE_CLASS), (ONE_CLASS,), (TWO_CLASSES,)])
def test_the_first_image_does_not_decide_what_the_outputs_are(order: tuple[Tensor, ...]) -> None:
    reader = LogitReader(Returns())
    for means in order:  # as with batch_size=1
        torch.testing.assert_close(reader(images_of(means)), means[None], rtol=1e-3, atol=0)
    assert reader.form == "independent probabilities"


def test_one_image_is_explained_by_its_own_sigmoid() -> None:
    found = explain(Returns(), images_of(ONE_CLASS), [[0, 1]], "planes", confidence="sigmoid")
    np.testing.assert_allclose(found.confidences[0], ONE_CLASS[:2].sigmoid(), rtol=1e-3)
    assert found.score == "logit"


@pytest.mark.parametrize(
    "made",
    [
        lambda z: z.softmax(1),
        lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2,
        lambda z: z.exp() / z.exp().sum(1, keepdim=True),
        lambda z: z.sigmoid() / z.sigmoid().sum(1, keepdim=True),
        lambda z: torch.stack([z[:, 0].sigmoid(), (-z[:, 0]).sigmoid()], dim=1),
        lambda z: z.softmax(1) @ torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
    ],
)
def test_what_always_adds_up_to_one_is_read_so_however_it_was_made(made: Callable[[Tensor], Tensor]) -> None:
    reader, images = LogitReader(Returns(made)), images_of(ONE_CLASS / 9, TWO_CLASSES)
    torch.testing.assert_close(reader(images).softmax(dim=1), Returns(made)(images), rtol=1e-4, atol=1e-6)
    assert reader.form == "probabilities"


def test_logits_that_add_up_to_one_in_one_image_are_logits() -> None:
    for means in (torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.2, 0.5, 0.3]).log()):
        reader = LogitReader(Returns(lambda z: z * 1))
        torch.testing.assert_close(reader(images_of(means)), means[None])
        assert reader.form == "logits"


def test_logits_of_0_and_far_below_are_logits() -> None:
    images = images_of(torch.tensor([-20.0, 0.0, -30.0]), torch.tensor([-25.0, 0.0, -20.0]))
    reader = LogitReader(Returns(lambda z: torch.stack([z[:, 0] * 1, z[:, 1] * 0], dim=1)))
    reader(images)
    assert reader.form == "logits"
    by_hand = LogitReader(Returns(lambda z: z - z.logsumexp(1, keepdim=True)))
    by_hand(images)
    assert by_hand.form == "log-probabilities"


def test_a_network_that_takes_two_images_at_a_time_and_no_other_number_is_read_by_its_sums() -> None:
    def of_two(z: Tensor) -> Tensor:
        assert len(z) == 2
        return z.softmax(1)

    reader = LogitReader(Returns(of_two))
    reader(images_of(ONE_CLASS, TWO_CLASSES))
    assert reader.form == "probabilities"


def test_shares_of_a_softmax_are_told_from_the_networks_own_probabilities() -> None:
    network, images = Returns(), images_of(TWO_CLASSES, ONE_CLASS)
    classifier = Classifier(network, ("cat", "dog", "tree"), (0.5,) * 3, (0.25,) * 3, resolution=4)
    photo = np.full((1, 4, 4, 3), 255, np.uint8)
    softmax = [
        lambda: classifier.predict(photo),
        lambda: explain(network, images, layers="planes", batch_size=1),
        lambda: classifier.explain(photo, layers="planes"),
        lambda: faithfulness.judge(network, images, layers="planes", methods=["hirescam"], steps=2, percentiles=[50]),
    ]
    for call in softmax:
        (said,) = warnings_of(call)
        assert "explain(..., confidence='sigmoid') gives the network's own" in said
    assert warnings_of(lambda: explain(network, images, layers="planes", confidence="sigmoid")) == []
    assert warnings_of(lambda: classifier.explain(photo, layers="planes", confidence="sigmoid")) == []
    found = classifier.explain(photo, targets=[[0, 1, 2]], layers="planes", confidence="sigmoid").confidences
    own = network(classifier.inputs(photo)).detach()
    np.testing.assert_allclose(found, own, rtol=1e-4)
    np.testing.assert_allclose(torch.from_numpy(classifier.predict(photo).logits).sigmoid(), own, rtol=1e-4)
    one, soft = Returns(lambda z: z[:, :1].sigmoid()), Returns(lambda z: z.softmax(1))
    assert warnings_of(lambda: [explain(each, images, layers="planes") for each in (one, soft)]) == []
