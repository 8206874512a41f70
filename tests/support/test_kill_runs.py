"""Some of the kills of `make faults`, and that the harness would see a loss."""

import dataclasses
import random
import signal

import kill_runs
import pytest
import torch
from kill_runs import WRITE_POINTS, Moment
from tiny import plan

from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.history import EpochRecord

ROWS = tuple(EpochRecord(epoch, 8, 64, 0.1, 2.0, 10.0, 2.0, 10.0, 4, 40, 1.5) for epoch in (1, 2))


FINISHED = Checkpoint(plan(), 2, ROWS, {"weight": torch.zeros(2)}, None, None, None, {}, torch.zeros(4, 3))


@pytest.mark.several
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_six_kills_lose_nothing(capfd):
    assert kill_runs.main(["--kills", "6", "--seed", "1"]) == 0
    out = capfd.readouterr().out.splitlines()
    assert sum(line.startswith("  killed at ") for line in out) == 6
    assert sum("checkpoint: " in line for line in out) == 2
    assert out[-1] == (
        "6 kills in 2 runs of 5 epochs, by turns from memory and from a stream, 2 of them inside the writing of a checkpoint "
        "(seed 1): weights, rows and predictions equal the undisturbed run from memory bit by bit, no complete epoch was trained "
        "again, and no worker was left behind."
    )


def test_forty_kills_include_ten_between_the_first_byte_and_the_name():
    kinds = kill_runs.draw_moments(40, random.Random(0))
    assert len(kinds) == 40
    assert sum(kind in WRITE_POINTS[:-1] for kind in kinds) == 13
    assert set(kinds) == {"step", *WRITE_POINTS}


def test_no_moment_lies_before_the_first_step_or_after_the_last_epoch():
    generator = random.Random(0)
    moments = [kill_runs.next_moment("step", 3, generator) for _ in range(200)]
    assert {(moment.epoch, moment.step) for moment in moments} == {(4, 2), (4, 3), (4, 4), (5, 1), (5, 2), (5, 3), (5, 4)}
    assert {kill_runs.next_moment("all bytes", 4, generator) for _ in range(20)} == {Moment(5, point="all bytes")}
    assert [Moment(4, point=point).complete_epochs for point in WRITE_POINTS] == [3, 3, 3, 3, 4]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"records": tuple(dataclasses.replace(row, seconds=9.0) for row in ROWS)}, []),
        ({"records": (ROWS[0], dataclasses.replace(ROWS[1], test_loss=2.0000000000000004))}, ["epoch 2"]),
        ({"model": {"weight": torch.tensor([0.0, 1e-45])}}, ["weight"]),
        ({"logits": torch.full((4, 3), 1e-45)}, ["predictions"]),
    ],
)
def test_every_bit_counts_but_the_seconds(changes, found):
    assert kill_runs.differences(FINISHED, dataclasses.replace(FINISHED, **changes)) == found


def test_an_epoch_that_is_trained_again_is_noticed(tmp_path, monkeypatch, capsys):
    def trains_all(folder, log, moment, *_) -> int:
        log.write_text("1\n2\n3\n4\n5\n")
        return 0 if moment is None else -9

    monkeypatch.setattr(kill_runs, "start", trains_all)
    monkeypatch.setattr(kill_runs, "next_moment", lambda *_: Moment(2, point="after its name"))
    message = r"with 0 epochs complete, the process up to epoch 2, checkpoint: after its name trained \[1, 2, 3, 4, 5\]"
    with pytest.raises(kill_runs.WrongResultError, match=message):
        kill_runs.run_with_kills(tmp_path, ["after its name"], random.Random(0))
    assert kill_runs.main(["--kills", "1"]) == 1
    assert capsys.readouterr().err.startswith("FAILED: ")
