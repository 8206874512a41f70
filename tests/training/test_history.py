"""The rows of a run, as values and as text."""

import dataclasses

import numpy as np
import pytest
from tiny import plan

from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.training.history import EpochRecord, History, log_header, log_row

RECORD = EpochRecord(3, 24, 38_000, 0.0123456, 1.23456, 54.321, 0.98764, 65.4, 1308, 2000, 61.27)


def history(rows: int, planned: int) -> History:
    """The first `rows` epochs of a run of `planned`."""
    records = tuple(dataclasses.replace(RECORD, epoch=number) for number in range(1, rows + 1))
    return History(records, plan(epochs=planned), None, planned)


def test_log_is_fixed_width_text() -> None:
    assert log_header() == "epoch   px         lr  train loss  train acc  test loss  correct/total  test acc  seconds"
    assert log_row(RECORD) == "    3   24   0.012346      1.2346    54.32 %     0.9876      1308/2000   65.40 %     61.3"


def test_log_row_of_the_largest_numbers_keeps_its_columns() -> None:
    largest = EpochRecord(10_000, 32, 50_000, 99.999999, 9999.9999, 100.0, 9999.9999, 100.0, 10_000, 10_000, 86_399.9)
    assert log_row(largest) == "10000   32  99.999999   9999.9999   100.00 %  9999.9999    10000/10000  100.00 %  86399.9"
    assert len(log_row(largest)) == len(log_row(RECORD)) == len(log_header())


def test_history_adds_up_the_seconds_of_its_rows() -> None:
    records = (RECORD, dataclasses.replace(RECORD, epoch=4, seconds=0.5))
    assert History(records, plan(), None, 2).seconds == 61.77
    assert history(0, 2).seconds == 0


def test_the_resolution_of_a_run_is_that_of_its_last_complete_epoch() -> None:
    records = (RECORD, dataclasses.replace(RECORD, epoch=4, resolution=32))
    assert History(records, plan(), None, 3).resolution == 32
    assert History(records[:1], plan(), None, 3).resolution == 24


@pytest.mark.parametrize(
    ("rows", "complete", "stopped"),
    [
        (0, False, ", stopped after epoch 0 of 8"),
        (1, False, ", stopped after epoch 1 of 8"),
        (7, False, ", stopped after epoch 7 of 8"),
        (8, True, ""),
    ],
)
def test_history_says_whether_the_run_reached_its_last_epoch(rows: int, complete: bool, stopped: str) -> None:
    assert history(rows, 8).complete is complete
    assert history(rows, 8).stopped == stopped


def test_a_stopped_run_says_that_it_has_no_predictions() -> None:
    with pytest.raises(ValueError, match=r"stopped after 1 of 8 epochs.*replace\(history, predictions="):
        history(1, 8).final_predictions  # noqa: B018
    said = Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a", "b"))
    assert dataclasses.replace(history(1, 8), predictions=said).final_predictions is said


def test_a_run_is_read_as_a_table_and_in_sentences() -> None:
    frame = history(2, 3).to_frame()
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["train accuracy"].tolist() == [54.321, 54.321]
    assert frame["test images"].tolist() == [2000, 2000]
    assert history(2, 3).reading() == "It was stopped after 2 of 3 epochs in 122.5 s."
    assert history(0, 3).reading() == "No epoch of the run is complete."
    said = Predictions(np.eye(2), np.array([0, 1]), ("a", "b"))
    finished = dataclasses.replace(history(1, 1), predictions=said)
    assert finished.reading() == "1 epoch in 61.3 s. 2 of 2 images are classified correctly: 100.00 %."
