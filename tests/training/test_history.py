"""The rows of a run, as values and as text."""

import dataclasses

import numpy as np
import pytest
from tiny import plan

from era_support_packages.evaluation.predictions import Predictions
from era_support_packages.training.history import EpochRecord, History, log_header, log_row

RECORD = EpochRecord(3, 24, 38_000, 0.0123456, 1.23456, 54.321, 0.98764, 65.4, 1308, 2000, 61.27)
LARGEST = EpochRecord(10_000, 32, 50_000, 99.999999, 9999.9999, 100.0, 9999.9999, 100.0, 10_000, 10_000, 86_399.9)


def history(rows: int, planned: int) -> History:
    """The first `rows` epochs of a run of `planned`."""
    records = tuple(dataclasses.replace(RECORD, epoch=number) for number in range(1, rows + 1))
    return History(records, plan(epochs=planned), None, planned)


def test_log_is_text_of_a_fixed_width() -> None:
    assert log_header() == "epoch   px         lr  train loss  train acc  test loss  correct/total  test acc  seconds"
    assert log_row(RECORD) == "    3   24   0.012346      1.2346    54.32 %     0.9876      1308/2000   65.40 %     61.3"
    assert log_row(LARGEST) == "10000   32  99.999999   9999.9999   100.00 %  9999.9999    10000/10000  100.00 %  86399.9"


def test_seconds_add_up_and_the_resolution_is_that_of_the_last_complete_epoch() -> None:
    records = (RECORD, dataclasses.replace(RECORD, epoch=4, resolution=32, seconds=0.5))
    whole, stopped = History(records, plan(), None, 2), History(records[:1], plan(), None, 3)
    assert (whole.seconds, stopped.seconds, history(0, 2).seconds) == (61.77, 61.27, 0)
    assert (whole.resolution, stopped.resolution) == (32, 24)


@pytest.mark.parametrize("rows", [0, 1, 7, 8])
def test_history_says_whether_the_run_reached_its_last_epoch(rows: int) -> None:
    assert history(rows, 8).complete is (rows == 8)
    assert history(rows, 8).stopped == ("" if rows == 8 else f", stopped after epoch {rows} of 8")


def test_a_run_is_read_as_a_table_and_in_sentences_and_a_stopped_one_has_no_predictions() -> None:
    frame = history(2, 3).to_frame()
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["train accuracy"].tolist() == [54.321, 54.321]
    assert frame["test images"].tolist() == [2000, 2000]
    assert history(2, 3).reading() == "It was stopped after 2 of 3 epochs in 122.5 s."
    assert history(0, 3).reading() == "No epoch of the run is complete."
    with pytest.raises(ValueError, match=r"stopped after 2 of 3 epochs.*replace\(history, predictions="):
        _ = history(2, 3).final_predictions
    said = Predictions(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a", "b"))
    finished = dataclasses.replace(history(1, 1), predictions=said)
    assert finished.final_predictions is said
    assert finished.reading() == "1 epoch in 61.3 s. 2 of 2 images are classified correctly: 100.00 %."
