"""What a network must return to be trained: whatever the loss would take wrongly, or not at all, is refused beforehand."""

import copy
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from documented_rows import documented_rows
from tiny import MEAN, STD, colored_images, plan, quiet, tiny_network
from torch import Tensor, nn
from torch.testing import assert_close

from era_support_packages.training import finetune, fit, range_test
from era_support_packages.training.trainable import require_trainable

pytestmark = pytest.mark.usefixtures("long_enough", "untimed")
TRAIN, TEST = colored_images(24), colored_images(9, split="test", seed=1)
PAIR = ("red", "green")
TWO = colored_images(24, classes=PAIR), colored_images(8, split="test", classes=PAIR)


class Returns(nn.Module):
    """A tiny network, and what becomes of its logits in training and in evaluation mode."""

    def __init__(self, training: Callable[[Tensor], Any], evaluation: Callable[[Tensor], Any] | None = None, outputs: int = 3):
        super().__init__()
        self.network, self.in_training, self.in_evaluation = tiny_network(outputs), training, evaluation or training

    def forward(self, images: Tensor) -> Any:
        return (self.in_training if self.training else self.in_evaluation)(self.network(images))


class WithAuxiliary(NamedTuple):
    """As GoogLeNet and Inception return in training."""

    logits: Tensor
    aux_logits: Tensor


def frozen(part: str = "") -> nn.Module:
    network = tiny_network()
    network.get_submodule(part).requires_grad_(False)
    return network


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "softmax": (Returns(lambda z: z.softmax(1)), "returns probabilities, as a softmax.*take the last softmax or sigmoid out"),
    "softmax layer": (nn.Sequential(tiny_network(), nn.Softmax(1)), "returns probabilities, as a softmax"),
    "sigmoid": (Returns(torch.sigmoid), "returns probabilities, as a sigmoid"),
    "softmax in training alone": (Returns(lambda z: z.softmax(1), lambda z: z), "returns probabilities"),
    "too few": (tiny_network(2), r"has 2 outputs for 3 classes: give it one for each class, as models\.replace_head"),
    "too many": (tiny_network(7), "has 7 outputs for 3 classes"),
    "one": (tiny_network(1), "has 1 output for 3 classes"),
    "a vector": (Returns(lambda z: z[:, 0]), "has 1 output for 3 classes"),
    "another number in evaluation": (Returns(lambda z: z, lambda z: z[:, :2]), "has 2 outputs for 3 classes in evaluation mode"),
    "a dict": (
        Returns(lambda z: {"logits": z}),
        r"returns a dict.* forward returns the logits alone.*self\.model\(images\)\['lo",
    ),
    "a tuple": (Returns(lambda z: (z, z.sum())), r"returns a tuple.*`return self\.model\(images\)\[0\]`"),
    "auxiliary heads": (Returns(lambda z: WithAuxiliary(z, z), lambda z: z), "switch off what it adds in training"),
    "(N, C, 1, 1)": (
        Returns(lambda z: z[:, :, None, None]),
        r"of shape \(8, 3, 1, 1\), and the loss takes \(8, 3\): end it with nn\.Fl",
    ),
    "a map": (Returns(lambda z: z[:, :, None, None].expand(-1, -1, 2, 2)), r"must return logits of shape \(8, classes\)"),
    "no gradient": (Returns(Tensor.detach), "take torch.no_grad and detach out of its forward"),
    "frozen": (frozen(), r"No parameter of the network takes gradients.*requires_grad_\(True\)"),
    "no parameters": (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), "No parameter of the network takes gradients"),
    "images that do not fit": (nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), "takes 1 channel, and images"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_loss_would_take_wrongly_is_refused_before_anything_is_said(kind: str) -> None:
    network, sentence = REFUSED[kind]
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match=sentence):
        fit(network, TRAIN, TEST, plan(), lambda line: pytest.fail(line))
    assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("outputs", [1, 3])
def test_two_classes_take_two_outputs(outputs: int) -> None:
    with pytest.raises(ValueError, match=f"has {outputs} outputs? for 2 classes"):
        fit(tiny_network(outputs), *TWO, plan(), quiet)


def test_a_last_layer_that_begins_alone_must_learn() -> None:
    with pytest.raises(ValueError, match=r"head_first is 0\.5, .*set head_first=0"):
        fit(frozen("linear"), TRAIN, TEST, plan(epochs=2, head_first=0.5), quiet)
    fit(frozen("linear"), TRAIN, TEST, plan(), quiet)
    fit(frozen("conv"), TRAIN, TEST, plan(epochs=2, head_first=0.5), quiet)


def test_a_size_that_comes_later_in_the_run_is_tried_too() -> None:
    growing = plan(epochs=2, resolutions=((8, 0.5), (12, 0.5)))
    flat = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AvgPool2d(8, ceil_mode=True), nn.Flatten())

    def fixed(size: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 3))

    with pytest.raises(ValueError, match=r"12 x 12 px do not go through.*or train at 8 px alone by resolutions=\[\[8, 1\]\]\."):
        fit(fixed(8), TRAIN, TEST, growing, lambda line: pytest.fail(line))
    with pytest.raises(ValueError, match="8 x 8 px do not go through"):
        fit(fixed(12), TRAIN, TEST, growing, lambda line: pytest.fail(line))
    with pytest.raises(ValueError, match=r"has 12 outputs for 3 classes.*or train at 8 px alone"):
        fit(flat, TRAIN, TEST, growing, lambda line: pytest.fail(line))
    left_out = plan(epochs=1, resolutions=((8, 0.4), (12, 0.4), (8, 0.2)))
    assert [record.resolution for record in fit(fixed(8), TRAIN, TEST, left_out, quiet).history.records] == [8]


def test_the_range_test_and_finetune_refuse_it_too() -> None:
    network, sentence = REFUSED["softmax layer"]
    with pytest.raises(ValueError, match=sentence):
        range_test(network, TRAIN, len(TEST), plan(max_lr="auto"))
    for rate in ("auto", 0.01):
        with pytest.raises(ValueError, match=sentence):
            finetune(network, TRAIN, TEST, mean=MEAN, std=STD, report=quiet, train_images=96, max_lr=rate, device="cpu")


SERVED: dict[str, Callable[[], nn.Module]] = {
    "logits": tiny_network,
    "log_softmax": lambda: Returns(lambda z: z.log_softmax(1)),
    "probabilities in evaluation alone": lambda: Returns(lambda z: z, lambda z: z.softmax(1)),
    "a dict in evaluation alone": lambda: Returns(lambda z: z, lambda z: {"logits": z}),
    "logits that begin as zeros": lambda: Returns(lambda z: 0 * z),
    "data parallel": lambda: nn.DataParallel(tiny_network()),
    "compiled": lambda: torch.compile(tiny_network(), backend="eager"),
    "a compiled part": lambda: nn.Sequential(torch.compile(tiny_network(), backend="eager"), nn.Linear(3, 3)),
    "traced": lambda: torch.fx.symbolic_trace(tiny_network()),
    "scripted": lambda: torch.jit.script(tiny_network()),
    "a head of zeros before a dropout": lambda: Returns(lambda z: nn.functional.dropout(0 * z, 0.2)),
    "an einsum": lambda: Returns(lambda z: torch.einsum("nc,kc->nk", z.relu(), torch.eye(3)) / 1e3),
    "a cosine": lambda: Returns(lambda z: nn.functional.normalize(z.relu()) @ torch.eye(3)),
    "a norm of a single place": lambda: nn.Sequential(tiny_network(), nn.BatchNorm1d(3)),
}


def test_a_network_that_draws_leaves_numpy_and_python_as_they_were() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist()
    require_trainable(Returns(lambda z: z * (1 + 0 * random.random() * np.random.rand())), TRAIN, plan())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("kind", SERVED)
def test_what_could_be_trained_before_still_can_and_is_left_as_it_was(kind: str) -> None:
    network = SERVED[kind]().train()
    for module in list(network.children())[1:2]:
        module.eval()  # as some hold their norms
    flags = [module.training for module in network.modules()]
    before, drawn = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    require_trainable(network, TRAIN, plan())
    assert [module.training for module in network.modules()] == flags
    assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
    _, history = fit(network, TRAIN, TEST, plan(), quiet)
    assert history.complete


ROWS = {
    "logits (N, C), one for each class": ("logits", "probabilities in evaluation alone", "a dict in evaluation alone"),
    "log-probabilities (N, C)": ("log_softmax",),
    "probabilities: a softmax or a sigmoid at the end": ("softmax", "softmax layer", "sigmoid", "softmax in training alone"),
    "another number of outputs than there are classes, one for two classes included": ("too few", "too many", "one"),
    "a dict, a tuple, or another kind": ("a dict", "a tuple"),
    "more than in evaluation mode, such as auxiliary heads": ("auxiliary heads",),
    "(N, C, 1, 1)": ("(N, C, 1, 1)",),
    "what takes no gradients: all of it frozen or detached": ("frozen", "no gradient", "no parameters"),
}


def test_the_page_says_what_is_refused() -> None:
    rows = documented_rows("Training")
    assert rows.pop("a frozen last layer, where that begins alone") == "refused"
    assert rows.pop("something else for larger images, or nothing, where the run comes to these") == "refused"
    assert rows == {kind: "served" if set(cases) <= SERVED.keys() else "refused" for kind, cases in ROWS.items()}
    assert {case for cases in ROWS.values() for case in cases} <= SERVED.keys() | REFUSED.keys()


def test_it_draws_no_random_numbers_and_calls_the_network_itself_not_once() -> None:
    calls: list[bool] = []
    network = Returns(lambda z: z + 0 * torch.rand_like(z))
    network.network.drop.p = 0.5
    network.register_forward_pre_hook(lambda module, _: calls.append(module is network))
    random = torch.get_rng_state()
    require_trainable(network, TRAIN.take([0]), plan())  # of a single image too
    assert torch.equal(torch.get_rng_state(), random)
    assert calls
    assert not any(calls)
