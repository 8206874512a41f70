"""Several processes train as one does: the same images, the same sums, the same record."""

import re

import numpy as np
import pytest
import several_jobs as jobs
import torch
import torch.nn.functional as F
from several import in_processes
from tiny import plan

from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.setup import build_batches, build_optimizer, build_scheduler
from era_support_packages.training.sharing import going_on_with, require_shares

pytestmark = pytest.mark.unhurried


def in_parts(norm: bool, optimizer: str, parts: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """20 steps of one process that computes each in parts, all from the same batch-norm statistics; losses and state."""
    model, config = jobs.network(norm).train(), jobs.steps_config(optimizer)
    rule = build_optimizer(model, config)
    schedule = build_scheduler(rule, config, jobs.STEPS)
    losses = []
    for images, labels in build_batches(jobs.TRAIN, config).epoch(8, 0, jobs.STEPS * 16):
        rule.zero_grad()
        before = {name: values.clone() for name, values in model.named_buffers()}
        found: list[dict[str, torch.Tensor]] = []
        loss = 0.0
        for part, answers in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            for name, values in model.named_buffers():
                values.copy_(before[name])
            own = F.cross_entropy(model(part), answers, label_smoothing=config.label_smoothing) / parts
            own.backward()
            loss += own.item()
            found.append({name: values.clone() for name, values in model.named_buffers()})
        for name, values in model.named_buffers():
            values.copy_(torch.stack([one[name].double() for one in found]).mean(0))
        rule.step()
        if schedule.last_epoch < jobs.STEPS - 1:
            schedule.step()
        losses.append(loss)
    return losses, model.state_dict()


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("norm", [True, False])
def test_two_processes_equal_one_that_computes_each_step_in_two_halves(norm, optimizer):
    """Without batch norm the halves make no difference, so that one process computes the whole batch at once."""
    losses, state = in_parts(norm, optimizer, parts=2 if norm else 1)
    first, second = in_processes(2, jobs.steps, norm, optimizer)
    for found in (first, second):
        assert found["losses"] == pytest.approx(losses, abs=1e-6)
        assert found["losses"][-1] < found["losses"][0]
        for name, values in state.items():
            np.testing.assert_allclose(found["state"][name], values, atol=1e-6 if "running" in name else 1e-5, err_msg=name)
    assert all(np.array_equal(first["state"][name], second["state"][name]) for name in state)


def test_halves_differ_from_the_whole_by_their_batch_norm():
    """Else the test above would show nothing."""
    (halves, states), (whole, state) = in_parts(True, "sgd", 2), in_parts(True, "sgd", 1)
    assert max(abs(one - other) for one, other in zip(halves, whole, strict=True)) > 1e-4
    assert max((states[name] - state[name]).abs().max().item() for name in state if "running_var" in name) > 1e-3


@pytest.mark.parametrize("engine", ["device", "samples"])
@pytest.mark.parametrize("count", [2, 4])
def test_each_process_gets_its_consecutive_slice_of_every_batch(engine, count):
    whole = jobs.batches(ALONE, engine)
    parts = [jobs.batches(Processes(rank, count), engine) for rank in range(count)]
    assert len(whole) == 3
    for number, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[number][0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[number][1] for part in parts]), labels)


def test_what_the_processes_measure_differently_is_settled_by_the_first(tmp_path):
    first, second = in_processes(2, jobs.disagree, tmp_path)
    for name in ("max_lr", "precision", "device", "threads"):
        assert first["config"][name] == second["config"][name], name
    assert first["config"]["precision"] == "fp32"  # the second finds bf16 faster
    assert first["measured"] == second["measured"] == 1
    np.testing.assert_array_equal(first["losses"], second["losses"])
    assert first["rows"] == second["rows"]
    assert all(np.array_equal(first["weights"][name], second["weights"][name]) for name in first["weights"])


# ---- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.several
def test_a_run_of_two_goes_on_bit_by_bit_also_with_dropout(tmp_path):
    whole = in_processes(2, jobs.run, 3)
    file = tmp_path / "checkpoint.pt"
    assert in_processes(2, jobs.run, 3, "", True, 1, str(file)) == [{}, {}]
    checkpoint = Checkpoint.load(file)
    assert (checkpoint.processes, len(checkpoint.records)) == (2, 1)
    for found, wanted in zip(in_processes(2, jobs.run, 3, str(file)), whole, strict=True):
        assert found["rows"] == wanted["rows"]
        assert all(np.array_equal(found["state"][name], wanted["state"][name]) for name in wanted["state"])


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(counts, tmp_path):
    """Without batch norm the number makes no difference."""
    before, after = counts
    file = tmp_path / "checkpoint.pt"
    in_processes(before, jobs.run, 3, "", False, 1, str(file))
    assert Checkpoint.load(file).processes == before
    wanted = jobs.alone(jobs.run, 3, "", False)
    for found in in_processes(after, jobs.run, 3, str(file), False):
        assert [row.epoch for row in found["rows"]] == [1, 2, 3]
        for row, other in zip(found["rows"], wanted["rows"], strict=True):
            assert row.train_loss == pytest.approx(other.train_loss, abs=1e-5)
            assert (row.train_accuracy, row.test_correct) == (other.train_accuracy, other.test_correct)
        for name, values in wanted["state"].items():
            np.testing.assert_allclose(found["state"][name], values, atol=1e-5)


def test_the_sentence_for_another_number():
    assert going_on_with(2, 2) == ""
    assert going_on_with(1, 2).startswith("This goes on with 1 process instead of 2: ")
    assert "not be bit-identical" in going_on_with(3, 2)


# ---- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_in_one_process_stops_all():
    first, second = in_processes(2, jobs.diverge)
    assert first == second
    assert re.match(r"TrainingDivergedError: The loss became nan at step 3 of epoch 1, ", first)


@pytest.mark.several
@pytest.mark.parametrize(("how", "seconds"), [("gone", 200), ("stands still", 5)])
def test_a_process_that_is_gone_or_stands_still_ends_the_other(how, seconds):
    assert in_processes(2, jobs.lost, how, seconds=seconds)[0] is True


@pytest.mark.parametrize("failing", [(0,), (1,), (0, 1)])
def test_what_fails_in_one_ends_all_and_the_first_says_why(failing):
    first, second = in_processes(2, jobs.settle, failing)
    assert second == "SaidElsewhere: The first process says why."
    assert first == ("ValueError: no data in 0" if 0 in failing else "OtherProcessError: In process 2 of 2: no data in 1")


@pytest.mark.parametrize(
    ("count", "values", "images", "ways"),
    [
        (2, {"batch_size": 15}, 48, "give 14 or 16"),
        (4, {"batch_size": 50}, 100, "give 48 or 52"),
        (3, {"batch_size": 4}, 48, "give 6, or"),
        (2, {"batch_size": 2}, 48, "give 4, or"),
        (2, {"batch_size": 64}, 47, "An epoch of 47 images"),
        (2, {"batch_size": 16, "sync_batch_norm": True}, 48, "on GPUs alone"),
    ],
)
def test_batches_that_cannot_be_shared_out_are_refused_with_the_nearest_that_can(count, values, images, ways):
    with pytest.raises(ValueError, match=re.escape(ways)):
        require_shares(plan(**values), images, Processes(0, count))
    require_shares(plan(**values), images, ALONE)
    require_shares(plan(batch_size=16), images, Processes(0, 2))
