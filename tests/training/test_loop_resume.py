"""Runs that are repeated, kept after each epoch, and resumed: bit for bit the same."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch.testing import assert_close

from era_support_packages.datasets.batches import batch_count
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.history import EpochRecord, log_header, log_row
from era_support_packages.training.loop import fit
from era_support_packages.training.phases import Phases

pytestmark = pytest.mark.usefixtures("long_enough", "instant")
TRAIN, TEST = colored_images(24), colored_images(9, split="test", seed=1)
EVERY_AUGMENTATION = {
    **{"horizontal_flip": 0.5, "crop_padding": 1, "cutout": 2},
    **{"shift_scale_rotate": 0.5, "rgb_shift": 0.5, "brightness_contrast": 0.5},
}


def without_times(records: Sequence[EpochRecord]) -> list[EpochRecord]:
    """The rows but for what no run can repeat."""
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def through_a_file(states: list[Checkpoint], folder: Path) -> Callable[[Checkpoint], None]:
    """A `keep` that adds to a list what comes back from a file."""

    def keep(state: Checkpoint) -> None:
        state.save(folder / "checkpoint.pt")
        states.append(Checkpoint.load(folder / "checkpoint.pt"))

    return keep


def test_two_identical_runs_agree_bit_for_bit() -> None:
    """With dropout and every augmentation, whatever the global random states."""

    def run(seed: int, global_seed: int) -> tuple[list[EpochRecord], dict[str, Any], torch.Tensor]:
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        model, config = tiny_network(drop=0.3), plan(epochs=2, seed=seed, threads=1, **EVERY_AUGMENTATION)
        _, history = fit(model, TRAIN, TEST, config, quiet)
        return without_times(history.records), model.state_dict(), torch.from_numpy(history.predictions.logits)

    records, *tensors = run(1, 3)
    same_records, *same_tensors = run(1, 4)
    other_records, other_weights, _ = run(2, 3)
    assert records == same_records
    assert_close(same_tensors, tensors, rtol=0, atol=0)
    assert other_records != records
    assert not torch.equal(other_weights["conv.weight"], tensors[0]["conv.weight"])


def test_keep_gets_all_that_is_needed_to_go_on_and_after_the_last_epoch_the_predictions_instead() -> None:
    model, states, generators = tiny_network(drop=0.3), [], []

    def keep(state: Checkpoint) -> None:
        generators.append(torch.equal(state.random_state["cpu"], torch.get_rng_state()))
        states.append(copy.deepcopy(state))

    config = plan(epochs=3, warmup=1 / 3, max_lr=0.1, test_images=5)
    _, history = fit(model, TRAIN, TEST, config, quiet, keep)
    assert [state.records for state in states] == [history.records[:number] for number in (1, 2, 3)]
    assert [(state.config, state.planned) for state in states] == [(history.config, 3)] * 3
    assert [state.complete for state in states] == [False, False, True]
    assert [list(state.random_state) for state in states] == [["cpu"]] * 3
    assert generators == [True] * 3
    for number, state in enumerate(states[:2], start=1):
        assert state.logits is None
        assert state.scheduler["last_epoch"] == 3 * number  # three steps an epoch
        assert state.scaler == {}  # fp32 needs none
        assert len(state.optimizer["state"]) == 5  # the momentum of each parameter
        # at the next step: from the peak at step 2 to nearly 0 at step 8
        expected = np.interp(3 * number, [2, 8], [0.1, 4e-7])
        assert [group["lr"] for group in state.optimizer["param_groups"]] == pytest.approx([expected] * 3)
        assert not torch.equal(state.model["conv.weight"], states[number].model["conv.weight"])
    last = states[-1]
    assert (last.optimizer, last.scheduler, last.scaler) == (None, None, None)
    assert (last.logits.dtype, tuple(last.logits.shape)) == (torch.float32, (9, 3))
    assert (last.logits.numpy() == history.predictions.logits).all()
    assert_close(last.model, model.state_dict(), rtol=0, atol=0)


RESUMED = {
    "linear schedule": plan(epochs=4, threads=1, weight_decay=0.01, label_smoothing=0.1, max_lr=0.3, test_images=5, seed=3),
    "cosine schedule, several resolutions": plan(
        train_images=80, resolutions=((8, 0.4), (12, 0.35), (16, 0.25)), threads=1, anneal="cos", warmup=0.3, max_lr=0.3
    ),
    "no momentum, every augmentation": plan(epochs=3, threads=1, momentum=0.0, max_lr=0.3, **EVERY_AUGMENTATION),
    "bf16": plan(epochs=3, threads=1, precision="bf16", max_lr=0.1),
}


@pytest.mark.parametrize("config", RESUMED.values(), ids=RESUMED)
def test_a_run_resumed_after_any_epoch_equals_the_run_in_one_go_bit_for_bit(config: ResolvedConfig, tmp_path: Path) -> None:
    train, test = colored_images(24, size=16), colored_images(11, size=16, split="test", seed=1)
    planned, model, states = config.planned_epochs(24), tiny_network(drop=0.3), []
    _, whole = fit(model, train, test, config, quiet, through_a_file(states, tmp_path))
    random_state = torch.get_rng_state()
    assert whole.complete
    assert len(whole.records) == len(planned) >= 3
    for done in range(1, len(planned) + 1):
        torch.manual_seed(100 + done)
        resumed, images, kept = tiny_network(drop=0.3, seed=done), [], []  # other weights: all must come from the state
        resumed.register_forward_pre_hook(lambda module, inputs, images=images: images.append(len(inputs[0]) * module.training))
        _, history = fit(resumed, train, test, config, quiet, through_a_file(kept, tmp_path), states[done - 1])
        # no epoch that was done is trained again
        assert [len(state.records) for state in kept] == list(range(done + 1, len(planned) + 1))
        assert sum(images) == sum(8 * batch_count(epoch.images, 8) for epoch in planned[done:])
        assert without_times(history.records) == without_times(whole.records)
        assert history.records[:done] == whole.records[:done]  # with their times
        assert_close(resumed.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert (history.predictions.logits == whole.predictions.logits).all()
        assert (history.config, history.planned) == (whole.config, whole.planned)
        assert done == len(planned) or torch.equal(torch.get_rng_state(), random_state)
        for own, expected in zip(kept[:-1], states[done:-1], strict=True):  # so it may stop again, as often as it likes
            assert own.scheduler == expected.scheduler
            tensors = [(state.model, state.optimizer["state"], state.random_state) for state in (own, expected)]
            assert_close(*tensors, rtol=0, atol=0)


@pytest.mark.parametrize(("done", "left"), [(1, "1 min 48 s"), (2, "56 s")])  # 2 * (24 + 6 / 3 + 24 + 12 / 3); 2 * (24 + 4)
def test_a_resumed_run_reports_the_earlier_rows_again_and_announces_only_what_is_left(
    done: int, left: str, tmp_path: Path
) -> None:
    test, config, states, reported = colored_images(12), plan(epochs=3, test_images=6, max_lr=0.3), [], []
    fit(tiny_network(), TRAIN, test, config, quiet, through_a_file(states, tmp_path))
    _, history = fit(tiny_network(), TRAIN, test, config, reported.append, resume=states[done - 1])
    rows = [log_row(record) for record in history.records]
    announced = f"This run will take about {left} on this machine."
    assert reported == [announced, "\n".join([log_header(), *rows[:done]]), *rows[done:]]


def test_a_finished_run_is_returned_without_a_step_and_refused_for_a_longer_one(tmp_path: Path) -> None:
    config, model, states, reported = plan(epochs=2), tiny_network(), [], []
    _, whole = fit(model, TRAIN, TEST, config, quiet, through_a_file(states, tmp_path))
    other = tiny_network(seed=1)
    with pytest.raises(ValueError, match=r"another configuration: epochs 2 \(here 3\)\. .*train from the start"):
        fit(other, TRAIN, TEST, plan(epochs=3), quiet, resume=states[-1])
    assert_close(other.state_dict(), tiny_network(seed=1).state_dict(), rtol=0, atol=0)

    other.register_forward_pre_hook(lambda *_: pytest.fail("there is nothing left to compute"))
    _, history = fit(other, TRAIN, TEST, config, reported.append, lambda _: pytest.fail("nothing new to keep"), states[-1])
    assert history.records == whole.records
    assert (history.config, history.planned, history.complete) == (whole.config, 2, True)
    assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert (history.predictions.logits == whole.predictions.logits).all()
    assert history.predictions.labels is TEST.labels
    assert history.predictions.classes == ("red", "green", "blue")
    assert reported == ["\n".join([log_header(), *map(log_row, whole.records)])]


@pytest.mark.parametrize("saved", [{}, {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 9}])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_goes_on_in_another_precision(precision: str, saved: dict[str, Any], tmp_path: Path) -> None:
    model, states = tiny_network(), []
    fit(model, TRAIN, TEST, plan(epochs=2), quiet, through_a_file(states, tmp_path))
    config = plan(epochs=2, precision=precision)
    phases = Phases(model, config, config.planned_epochs(len(TRAIN)))
    scaler = {**saved, "_growth_tracker": 4} if saved else {}
    step = phases.restore(dataclasses.replace(states[0], scaler=scaler))
    scale = 1.0 if precision == "fp32" else 1024.0 if saved else 65_536.0  # none; as it was; a new one
    assert step.scaler.get_scale() == scale
    assert step.scheduler.last_epoch == 3


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "rate": ({"max_lr": 0.9}, r"max_lr 0\.1 \(here 0\.9\)"),
    "batch": ({"batch_size": 2}, r"batch_size 8 \(here 2\)"),
    "fewer epochs": ({"epochs": 2}, r"epochs 3 \(here 2\)"),
    "optimizer": ({"optimizer": "adamw"}, "optimizer 'sgd'"),
    "size": ({"resolutions": ((16, 1.0),)}, "resolutions .*16"),
    "seed": ({"seed": 9}, r"seed 0 \(here 9\)"),
}


@pytest.mark.parametrize("done", [1, 3])
def test_a_run_never_goes_on_with_other_values_or_other_images(done: int, tmp_path: Path) -> None:
    states: list[Checkpoint] = []
    fit(tiny_network(), TRAIN, TEST, plan(epochs=3), quiet, through_a_file(states, tmp_path))
    for change, sentence in OTHERS.values():
        with pytest.raises(ValueError, match=f"another configuration: {sentence}.*or train from the start"):
            fit(tiny_network(), TRAIN, TEST, plan(**{"epochs": 3, **change}), quiet, resume=states[done - 1])
    for train, test in ((TRAIN.take(range(len(TRAIN) - 1)), TEST), (TRAIN, TEST.take(range(len(TEST))[::-1]))):
        with pytest.raises(ValueError, match=r"on other images than these: .*Give the splits that it began with"):
            fit(tiny_network(), train, test, plan(epochs=3), quiet, resume=states[done - 1])
    same = {"workers": 1, "threads": 2, "run_name": "mine", "precision": "bf16", "resolutions": ((8, 1),)}
    _, history = fit(tiny_network(), TRAIN, TEST, plan(epochs=3, **same), quiet, resume=states[done - 1])
    assert history.complete
