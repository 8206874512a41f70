"""What a network returns, read as logits: one output, probabilities, containers."""

import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from documented_rows import documented_rows
from three_planes import Returns
from tiny import colored_images, tiny_network
from torch import Tensor, nn

from era_support_packages.classifier import Classifier
from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.evaluation.predictions import predict
from era_support_packages.gradcam import explain
from era_support_packages.trust import faithfulness

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0], [1.0, 1.5, -0.5]])


def images_of(logits: Tensor) -> Tensor:
    """Images whose planes have these means, the left half above them, the right half below."""
    return logits[:, :, None, None] + torch.tensor([1.0, 1.0, -1.0, -1.0]) * torch.ones(4, 1)


@dataclass
class Holder:
    logits: Tensor
    hidden: Tensor | None = None


Pair = namedtuple("Pair", ["logits", "auxiliary"])


class ModelOutput(OrderedDict):
    """As in transformers: a dict of what there is, by name."""


def as_given(z: Tensor) -> Tensor:
    return z


@dataclass(frozen=True)
class Case:
    made: Callable[[Tensor], Any]
    expected: Callable[[Tensor], Tensor] = as_given
    """of the three logits"""
    score: str = "logit"
    refused: str = ""


def first(z: Tensor) -> Tensor:
    return z[:, :1]


def two(z: Tensor) -> Tensor:
    return torch.cat([-z[:, :1] / 2, z[:, :1] / 2], dim=1)


OUTPUTS: dict[str, Case] = {
    "logits (N, C)": Case(as_given),
    "logits (N, C, 1, 1)": Case(lambda z: z[:, :, None, None]),
    "one logit (N, 1) or (N,)": Case(first, two),
    "one probability: a sigmoid behind one output": Case(lambda z: first(z).sigmoid(), two),
    "one probability: a column of a softmax or log_softmax": Case(
        lambda z: torch.cat([-first(z) / 2, first(z) / 2], dim=1).softmax(1)[:, 1], two
    ),
    "probabilities: a softmax at the end": Case(lambda z: z.softmax(1), lambda z: z.log_softmax(1), "log-probability"),
    "log-probabilities: a log_softmax at the end": Case(*[lambda z: z.log_softmax(1)] * 2, "log-probability"),
    "independent probabilities: a sigmoid behind several outputs": Case(
        lambda z: torch.cat([first(z).sigmoid(), z[:, 1:].sigmoid()], dim=1)  # of two heads
    ),
    "a tuple or list in which one tensor may be the logits": Case(lambda z: (z, z.mean(), z[:, :, None].expand(-1, -1, 5))),
    "a dict, `ModelOutput` or data class with `logits`": Case(lambda z: ModelOutput(loss=z.mean(), logits=z, embedding=z * 2)),
    "several tensors that may be the logits": Case(
        lambda z: (z, z * 2),
        refused="a tuple in which 2 tensors may be the logits: [0] (3, 3), [1] (3, 3); wrap it in a module whose forward returns "
        "the logits alone, such as `return self.model(images)[0]`",
    ),
    "nothing that may be the logits": Case(
        lambda z: {"mask": z[:, :, None, None].expand(-1, -1, 4, 4)},
        refused="a dict without logits of shape (3, classes): it holds ['mask'] (3, 3, 4, 4)",
    ),
    "a map of class scores (N, C, h, w)": Case(
        lambda z: z[:, :, None, None].expand(-1, -1, 2, 2),
        refused="The model must return logits of shape (3, classes), not (3, 3, 2, 2)",
    ),
    "a softmax over one output": Case(
        lambda z: first(z).softmax(1), refused="softmax over one output, which is 1 for every image; use a sigmoid"
    ),
    "values in [0, 1] that no plain sigmoid or softmax made": Case(
        lambda z: 1 / (1 + (-first(z)).exp()), refused="The model returns values in [0, 1], made by mul, reciprocal"
    ),
    "a logsigmoid": Case(
        nn.functional.logsigmoid, refused="The model returns logarithms of probabilities, made by log_sigmoid_forward"
    ),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_output(kind: str) -> None:
    case, images = OUTPUTS[kind], images_of(LOGITS)
    model = Returns(case.made)
    if case.refused:
        for call in (lambda: LogitReader(model)(images), lambda: explain(model, images, layers="planes")):
            with pytest.raises(ValueError, match=re.escape(case.refused)):
                call()
        return
    read, expected = LogitReader(model), case.expected(LOGITS)
    torch.testing.assert_close(read(images).detach(), expected, rtol=1e-4, atol=1e-5)
    found = explain(model, images, [[0, 1]], "planes", "hirescam")
    np.testing.assert_allclose(found.confidences, expected.softmax(1)[:, :2], atol=1e-5)
    assert (read.score, found.score) == (case.score, case.score)
    np.testing.assert_array_equal(explain(model, images, layers="planes").targets[:, 0], expected.argmax(1))


def test_the_page_lists_these_outputs() -> None:
    assert documented_rows("Outputs") == {kind: "refused" if case.refused else "served" for kind, case in OUTPUTS.items()}


@pytest.mark.parametrize(
    "made",
    [
        lambda z: z[:, 0],
        lambda z: [z[:, :1]],
        lambda z: Holder(z[:, :1]),
        lambda z: Pair(z[:, :1], None),
        lambda z: {"out": {"scores": z[:, :1]}},
    ],
)
def test_one_logit_in_containers_and_without_an_axis(made: Callable[[Tensor], Any]) -> None:
    torch.testing.assert_close(LogitReader(Returns(made))(images_of(LOGITS)).detach(), two(LOGITS))
    torch.testing.assert_close(LogitReader(Returns(made))(images_of(LOGITS[:1])).detach(), two(LOGITS[:1]))


def test_one_logit_explains_a_negative_image_for_the_negative_class() -> None:
    # z is the mean of the red plane; class 0 has the score -z/2, so its evidence is where red is low: the right half.
    images = images_of(torch.tensor([[-0.5, 0, 0], [0.5, 0, 0]]))
    found = explain(Returns(first), images, layers="planes", method="hirescam")
    np.testing.assert_array_equal(found.targets, [[0], [1]])
    np.testing.assert_allclose(found.confidences[:, 0], 1 / (1 + np.exp(-0.5)) * np.ones(2), rtol=1e-5)
    np.testing.assert_allclose(found.maps[0, 0, 0], [[0, 0, 1, 1]] * 4, atol=1e-5)
    np.testing.assert_allclose(found.maps[1, 0, 0], [[1, 1, 0, 0]] * 4, atol=1e-5)


def test_one_logit_is_judged_and_predicted_alike() -> None:
    network = nn.Sequential(tiny_network(1), nn.Flatten(0))
    test = colored_images(8, classes=("red", "green"))
    said = predict(network, test, torch.device("cpu"))
    behind = predict(nn.Sequential(network, nn.Sigmoid()), test, torch.device("cpu"))
    np.testing.assert_allclose(behind.logits, said.logits, atol=1e-5)
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    z = network.eval()(images).detach().numpy()
    assert said.logits.shape == (8, 2)
    np.testing.assert_allclose(said.logits[:, 0], -said.logits[:, 1], atol=1e-6)
    judged = faithfulness.judge(network, images, methods=["gradcam"], layers="0.relu", steps=4)
    np.testing.assert_array_equal(judged.targets, z > 0)
    np.testing.assert_allclose(judged.confidences, 1 / (1 + np.exp(-np.abs(z))), rtol=1e-5)
    assert judged.methods[0].scores["deletion"].std() > 0


def test_a_classifier_of_one_logit_has_two_classes() -> None:
    classifier = Classifier(tiny_network(1), ("red", "green"), mean=(0.5,) * 3, std=(0.25,) * 3, resolution=8)
    test = colored_images(8, classes=("red", "green"))
    said = classifier.predict(test)
    found = classifier.explain(test, layers="relu", method="hirescam")
    np.testing.assert_array_equal(found.targets[:, 0], said.predicted)
    np.testing.assert_allclose(found.confidences[:, 0], said.confidences, rtol=1e-4)
    assert said.confidences.max() < 1
    assert classifier.explain(test, layers="relu", reshape=lambda features: features).maps.shape == found.maps.shape
    # Without layers the last of each resolution are judged: here all have one.
    judged = faithfulness.judge(classifier.network, classifier.inputs(test), methods=["hirescam"], steps=2)
    assert [row.layer for row in judged.methods] == ["relu"]


def test_probabilities_are_not_brought_through_the_softmax_twice() -> None:
    test = colored_images(12)
    plain = predict(tiny_network(), test, torch.device("cpu"))
    soft = predict(nn.Sequential(tiny_network(), nn.Softmax(dim=1)), test, torch.device("cpu"), flip=False)
    np.testing.assert_allclose(soft.probabilities, plain.probabilities, atol=1e-6)
    certain = LogitReader(Returns(lambda z: torch.tensor([[1.0, 0.0, 0.0]]).expand(len(z), 3)))(images_of(LOGITS))
    assert certain.isfinite().all()


def test_several_labels() -> None:
    def explained(made: Callable[[Tensor], Tensor] = as_given, targets: object = "predicted", kind: str = "sigmoid") -> Any:
        return explain(Returns(made), images_of(LOGITS), targets, "planes", confidence=kind)

    found, behind = explained(targets=[[0, 2]]), explained(torch.sigmoid, [[0, 2]])
    np.testing.assert_array_equal(found.targets, [[0, 2]] * 3)
    np.testing.assert_allclose(found.confidences, LOGITS[:, [0, 2]].sigmoid(), rtol=1e-5)
    np.testing.assert_allclose(behind.confidences, found.confidences, rtol=1e-4)
    np.testing.assert_allclose(behind.maps, found.maps, atol=1e-4)
    np.testing.assert_allclose(explained(first).confidences[:, 0], LOGITS[:, 0].abs().sigmoid(), rtol=1e-5)
    with pytest.raises(ValueError, match="add up to one, so that its classes exclude each other; use 'softmax'"):
        explained(lambda z: z.softmax(1))
    with pytest.raises(ValueError, match="confidence is 'argmax'; give 'softmax', or 'sigmoid' for a network of several labels"):
        explained(kind="argmax")


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    "made",
    [
        lambda z: z.sigmoid().clamp(0.01, 0.99),
        lambda z: (z.sigmoid() + (2 * z).sigmoid()) / 2,
        lambda z: torch.stack([z.sigmoid(), (2 * z).sigmoid()]).mean(dim=0),
        lambda z: z.tanh() * 0.5 + 0.5,
        nn.functional.hardsigmoid,
        nn.functional.logsigmoid,
    ],
)
def test_what_looks_like_probabilities_is_not_read_as_logits(made: Callable[[Tensor], Tensor], outputs: int) -> None:
    with pytest.raises(ValueError, match="read as logits would give wrong classes; let it return the logits, or end it with"):
        LogitReader(Returns(lambda z: made(z[:, :outputs])))(images_of(LOGITS))


@pytest.mark.parametrize("outputs", [1, 3])
def test_logits_that_happen_to_lie_between_0_and_1_are_served(outputs: int) -> None:
    linear = nn.Linear(3, outputs)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(3)[:outputs])
        linear.bias.zero_()
    for made in (linear, lambda z: linear(z) / 1.5, lambda z: torch.cat([linear(z)[:, :1], linear(z)[:, 1:]], dim=1)):
        reader = LogitReader(Returns(made))
        reader(images_of(torch.tensor([[0.3, 0.9, 0.2]])))
        assert reader.form == ("one logit" if outputs == 1 else "logits")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("back", [False, True])
def test_a_softmax_in_half_precision_is_a_softmax(dtype: torch.dtype, back: bool) -> None:
    def made(images: Tensor) -> Tensor:
        probabilities = images.flatten(1).to(dtype).softmax(dim=1)
        return probabilities.float() if back else probabilities

    z = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
    reader = LogitReader(made)
    torch.testing.assert_close(reader(z[:, :, None, None]).softmax(dim=1), z.softmax(dim=1), rtol=0.05, atol=1e-3)
    assert reader.form == "probabilities"
