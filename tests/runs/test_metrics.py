"""metrics.csv: the old columns as they were, behind them what each look saw."""

import csv

from era_support_packages.runs.metrics import as_csv
from era_support_packages.training.history import EpochRecord

ROW = {"lr": 0.01, "train_loss": 1.5, "train_accuracy": 42.0, "resolution": 16, "images": 1000, "seconds": 3.0}
TEST = {"test_loss": 1.25, "test_accuracy": 51.0, "test_correct": 51, "test_total": 100}
NO_TEST = dict.fromkeys(TEST)
HELD_OUT = {"validation_loss": 1.0, "validation_accuracy": 60.0, "validation_correct": 12, "validation_total": 20}


def rows(*records):
    return list(csv.DictReader(as_csv(records).decode().splitlines()))


def test_what_a_look_saw_stands_behind_the_seconds():
    (row,) = rows(EpochRecord(epoch=1, **ROW, **TEST))
    assert ",".join(row) == "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds,px,correct,total"
    assert ",".join(row.values()) == "1,0.01,1.5,42.0,1.25,51.0,3.0,16,51,100"


def test_with_a_validation_split_the_look_is_at_that_and_the_test_columns_wait_for_the_end():
    first, last = rows(EpochRecord(epoch=1, **ROW, **NO_TEST, **HELD_OUT), EpochRecord(epoch=2, **ROW, **TEST, **HELD_OUT))
    assert list(first)[-5:] == ["px", "correct", "total", "validation_loss", "validation_accuracy"]
    assert (first["test_loss"], first["test_accuracy"], first["correct"], first["total"]) == ("", "", "12", "20")
    assert (last["test_accuracy"], last["correct"], last["validation_accuracy"]) == ("51.0", "12", "60.0")
