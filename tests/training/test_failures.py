"""Runs that fail: a loss or weights that are no numbers, and memory that is full."""

import gc
import itertools
import math
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages.training import loop
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.failures import OutOfMemoryError, TrainingDivergedError, out_of_memory
from era_support_packages.training.loop import fit

pytestmark = pytest.mark.usefixtures("long_enough")
TRAIN, TEST = colored_images(24), colored_images(6)  # three steps an epoch, and a batch of the test split
Spoil = Callable[[nn.Module, Tensor], Tensor | None]


def spoiled(step: int, spoil: Spoil) -> tuple[nn.Module, list[int]]:
    """A network that goes wrong from its n-th training step on, and the numbers of its steps."""
    network, steps = tiny_network(), []

    def hook(module: nn.Module, _: tuple[Tensor], logits: Tensor) -> Tensor | None:
        if not module.training:
            return None
        steps.append(len(steps) + 1)
        return spoil(module, logits) if len(steps) >= step else None

    network.register_forward_hook(hook)
    return network, steps


def logit(value: float) -> Spoil:
    """The loss is no number either."""
    return lambda network, logits: logits + torch.tensor([value, 0.0, 0.0])


def weight(network: nn.Module, _: Tensor) -> None:
    """Behind the forward pass, whose loss is fine."""
    network.conv.weight.data[0, 0, 0, 0] = math.inf


def running_mean(network: nn.Module, _: Tensor) -> None:
    """No loss of the training depends on it."""
    network.norm.running_mean.data[2] = math.nan


RATES = ["0.02", "0.26", "0.5", "0.3333", "0.1667", "2e-06"]  # of two epochs of three steps
NAN, INF, WEIGHTS = "The loss became nan", "The loss became inf", "The weights are no longer finite"


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(
    ("spoil", "step", "what", "found"),
    [
        *[(logit(math.nan), step, NAN, step) for step in (1, 2, 3, 4, 6)],
        *[(logit(-math.inf), step, INF, step) for step in (1, 4)],  # the label is impossible
        *[(weight, 3, WEIGHTS, 3), (weight, 6, WEIGHTS, 6), (running_mean, 1, WEIGHTS, 3), (running_mean, 4, WEIGHTS, 6)],
    ],
)
def test_what_is_no_number_ends_the_run_and_its_state_is_not_kept(spoil: Spoil, step: int, what: str, found: int) -> None:
    reported, kept, finite = [], [], []

    def keep(state: Checkpoint) -> None:
        tensors = [*state.model.values(), *(entry["momentum_buffer"] for entry in state.optimizer["state"].values())]
        kept.append(len(state.records))
        finite.append(all(bool(tensor.isfinite().all()) for tensor in tensors))

    network, _ = spoiled(step, spoil)
    config = plan(epochs=2, warmup=0.5, max_lr=0.5, seed=1)  # an order in which every batch has an image of the first class
    with pytest.raises(TrainingDivergedError) as raised:
        fit(network, TRAIN, TRAIN, config, reported.append, keep)
    where = f"step {(found - 1) % 3 + 1} of epoch {(found + 2) // 3}, at a learning rate of {RATES[found - 1]}"
    assert str(raised.value) == f"{what} at {where}; lower max_lr and run again."
    assert kept == ([1] if step > 3 else [])
    assert all(finite)
    assert len([line for line in reported[2:] if not line.startswith("Warning")]) == len(kept)


@pytest.mark.usefixtures("instant")
def test_logits_of_the_test_that_are_no_numbers_end_the_run_where_loss_and_weights_are_fine() -> None:
    network, kept = tiny_network(), []
    network.register_forward_hook(lambda module, _, logits: logits if module.training else logits * math.nan)
    with pytest.raises(TrainingDivergedError, match=r"^The logits of 6 of 6 images are NaN .* at a lower learning rate\.$"):
        fit(network, TRAIN, TEST, plan(epochs=2, warmup=0.5), quiet, kept.append)
    assert kept == []


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize(("seconds_a_look", "seen"), [(0.0, 6), (2.0, 3)])
def test_the_loss_is_looked_at_when_the_bar_refreshes_and_at_the_end_of_an_epoch(
    seconds_a_look: float, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: seconds_a_look * next(clock)))
    network, steps = spoiled(3, logit(math.nan))
    with pytest.raises(TrainingDivergedError, match=r"^The loss became nan at step 3 of epoch 1, at a learning rate of "):
        fit(network, colored_images(48), TEST, plan(), quiet)
    assert len(steps) == seen  # six an epoch


def test_a_learning_rate_far_too_high_ends_the_run() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.Linear(64, 64), nn.Linear(64, 3))
    with pytest.raises(TrainingDivergedError, match=r" at step \d of epoch \d, at a learning rate of \d[\d.e+-]*; lower max_lr"):
        fit(plain, colored_images(64), TEST, plan(epochs=5, max_lr=100), quiet)


def fail_at(model: nn.Module, number: int, failure: Callable[[], object]) -> list[weakref.ref]:
    """Let the forward pass of that number fail; returns where a reference to what it computed until then will be."""
    passes, computed = itertools.count(1), []

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if next(passes) == number:
            computed.append(weakref.ref(output))
            failure()

    model.relu.register_forward_hook(hook)
    return computed


def raising(error: type[Exception], text: str) -> Callable[[], None]:
    """A function that raises a new error each time, so that none is held by the test."""

    def failure() -> None:
        raise error(text)

    return failure


FULL = {
    "on a GPU": raising(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity ..."),
    "on a CPU": raising(RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "on Windows": raising(RuntimeError, "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    "of Python": raising(MemoryError, ""),
    "really": lambda: torch.empty(1 << 60, dtype=torch.uint8),
}


@pytest.mark.parametrize("failure", FULL.values(), ids=FULL)
@pytest.mark.parametrize(
    ("number", "kept"),
    [(1, []), (3, []), (7, []), (10, [1])],
    ids=["while logits are asked for", "while steps are timed", "in the second step", "in the second epoch"],
)
def test_full_memory_names_a_way_out_and_frees_what_the_step_held(
    number: int, kept: list[int], failure: Callable[[], object]
) -> None:
    model, found = tiny_network(), []
    computed = fail_at(model, number, failure)
    with pytest.raises(OutOfMemoryError, match=r"^The memory of 'cpu' is full at batch_size=8: set batch_size=4 ") as raised:
        fit(model, TRAIN, TEST, plan(epochs=2), quiet, lambda state: found.append(len(state.records)))
    assert found == kept
    assert raised.value.__cause__ is raised.value.__context__ is None  # a chained error would keep its frames
    assert torch.equal(model.conv.weight, tiny_network().conv.weight) is (number <= 3)
    assert all(parameter.grad is None for parameter in model.parameters())
    gc.collect()
    assert [reference() for reference in computed] == [None]


@pytest.mark.parametrize(("batch_size", "half"), [(512, 256), (5, 2), (4, 2), (3, None), (2, None)])
def test_the_batch_size_that_may_fit_is_half_and_never_below_two(batch_size: int, half: int | None) -> None:
    way_out = f"set batch_size={half} (and halve max_lr with it)" if half else "choose a smaller model"
    expected = f"The memory of 'cuda:1' is full at batch_size={batch_size}: {way_out} and run again."
    assert str(out_of_memory(tiny_network(), plan(batch_size=batch_size, device="cuda:1", precision="bf16"))) == expected


@pytest.mark.parametrize(
    "error",
    [
        *[RuntimeError("mat1 and mat2 shapes cannot be multiplied (8x8 and 9x3)"), NotImplementedError("no kernel")],
        *[RuntimeError("CUDA error: device-side assert triggered"), ValueError("can't allocate memory"), KeyboardInterrupt()],
    ],
    ids=repr,
)
@pytest.mark.usefixtures("instant")
def test_any_other_error_passes_through_unchanged(error: BaseException) -> None:
    def failure() -> None:
        raise error

    model = tiny_network()
    fail_at(model, 2, failure)
    with pytest.raises(type(error)) as raised:
        fit(model, TRAIN, TEST, plan(), quiet)
    assert raised.value is error
    assert all(parameter.grad is not None for parameter in model.parameters())  # nothing was tidied up
