"""What does not fit into memory is said before a run trains, and looking for it changes nothing."""

from collections.abc import Callable

import pytest
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages.training import trial
from era_support_packages.training.failures import OutOfMemoryError, out_of_memory
from era_support_packages.training.loop import fit
from era_support_packages.training.trial import least_memory

pytestmark = pytest.mark.usefixtures("long_enough")
TRAIN, TEST = colored_images(24, 16), colored_images(6, 16)
GROWING = {"epochs": 2, "resolutions": ((8, 0.5), (16, 0.5))}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial of a GPU, on the CPU."""
    monkeypatch.setattr(trial, "is_tried", lambda config: True)


def watched(failure: Callable[[Tensor], None]) -> nn.Module:
    """A network whose training passes are looked at, those of its copies too."""
    network = tiny_network(drop=0.5)
    network.register_forward_hook(lambda module, inputs, _: failure(inputs[0]) if module.training else None)
    return network


@pytest.mark.usefixtures("tried")
def test_a_step_that_does_not_fit_is_named_before_the_first_epoch() -> None:
    """The largest resolution comes in the second epoch only."""

    def full(images: Tensor) -> None:
        if images.shape[-1] == 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    network, reported, kept = watched(full), [], []
    with pytest.raises(OutOfMemoryError, match=r"^The memory of 'cpu' is full at batch_size=8: set batch_size=4 ") as raised:
        fit(network, TRAIN, TEST, plan(**GROWING), reported.append, kept.append)
    assert (reported, kept) == ([], [])
    assert raised.value.__context__ is None  # or it would hold the tensors
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), tiny_network().parameters(), strict=True))


def trained(monkeypatch: pytest.MonkeyPatch, tries: bool) -> tuple[list[tuple[int, ...]], dict[str, Tensor], list[Tensor]]:
    """The shapes of all training passes, the network's state, and losses and random numbers afterwards."""
    monkeypatch.setattr(trial, "is_tried", lambda config: tries)
    shapes: list[tuple[int, ...]] = []
    network = watched(lambda images: shapes.append(tuple(images.shape)))
    torch.manual_seed(5)
    _, history = fit(network, TRAIN, TEST, plan(**GROWING), quiet)
    losses = torch.tensor([[record.train_loss, record.test_loss] for record in history.records])
    return shapes, network.state_dict(), [losses, torch.rand(4)]


def test_a_run_is_the_same_bit_by_bit_with_and_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, state, rest = trained(monkeypatch, tries=True)
    plain_shapes, plain_state, plain_rest = trained(monkeypatch, tries=False)
    assert shapes == [(8, 3, 16, 16)] * 2 + plain_shapes  # once, at the run's batch and its largest size
    assert all(torch.equal(state[name], plain_state[name]) for name in plain_state)
    assert all(map(torch.equal, rest, plain_rest))


def test_the_trial_alone_leaves_weights_statistics_and_random_state() -> None:
    network, config = tiny_network(drop=0.5).eval(), plan(**GROWING)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    trial.try_step(network, TRAIN, config, 8, 16)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 128}, "set batch_size=128 (and halve max_lr with it) or give a smaller image_size and run again."),
        ({"device": "cuda:0"}, "set batch_size=128 (and halve max_lr with it) or set precision='auto' and run again."),
        ({"device": "cuda:0", "precision": "bf16"}, "set batch_size=128 (and halve max_lr with it) and run again."),
        (
            {"device": "cuda:0", "image_size": 128, "batch_size": 2},
            "choose a smaller model, give a smaller image_size or set precision='auto' and run again.",
        ),
    ],
)
def test_the_ways_out_are_those_that_this_run_has(changes: dict[str, object], words: str) -> None:
    assert str(out_of_memory(tiny_network(), plan(**{"batch_size": 256, **changes}))).endswith(f": {words}")


# ---- counted, on a CPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "changes", "expected"),
    [
        # the gradients and the momentum of 579 weights, and the input that the gradient of the weights is made of
        ([nn.Flatten(), nn.Linear(192, 3)], {}, 2 * 579 * 4 + 10 * 192 * 4),
        ([nn.Flatten(), nn.Linear(192, 3)], {"momentum": 0.0}, 579 * 4 + 10 * 192 * 4),
        ([nn.Flatten(), nn.Linear(192, 3)], {"precision": "bf16"}, 2 * 579 * 4 + 10 * 192 * 2),
        # what a ReLU gives is kept once, for itself and for the layer behind it
        ([nn.Flatten(), nn.Linear(192, 3), nn.ReLU(), nn.Linear(3, 2)], {}, 2 * 587 * 4 + 10 * (192 + 3) * 4),
    ],
)
def test_what_a_step_keeps_at_least_is_counted(layers: list[nn.Module], changes: dict[str, object], expected: int) -> None:
    assert least_memory(nn.Sequential(*layers), plan(**changes), 10, 8) == expected


def test_what_cannot_be_counted_is_not_refused() -> None:
    class AsksForValues(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * float(images.max())

    assert least_memory(AsksForValues(), plan(), 4, 8) is None


def test_on_a_cpu_a_step_that_plainly_does_not_fit_is_refused_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    network = watched(lambda images: passes.append(images.device.type))
    monkeypatch.setattr(trial, "free_memory", lambda: 20_000)
    with pytest.raises(OutOfMemoryError, match=r"batch_size=8 and 16 px takes at least .* are free: set batch_size=4 "):
        fit(network, TRAIN, TEST, plan(**GROWING), quiet)
    assert passes == ["meta"]  # where nothing is computed
    passes.clear()
    for free in (None, 10**9):
        monkeypatch.setattr(trial, "free_memory", lambda free=free: free)
        fit(network, TRAIN, TEST, plan(**GROWING), quiet)
    assert "meta" not in passes
