"""metrics.csv: one row an epoch, accuracies in percent; new columns come behind the old ones, which stay as they are."""

import csv
import io
from collections.abc import Sequence

from era_support_packages.training.history import EpochRecord

COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
OF_THE_LOOK = ("px", "correct", "total")
"""of the images and of the split that was looked at after the epoch, of which a look may see only a part"""
OF_VALIDATION = ("validation_loss", "validation_accuracy")
"""of a run that holds images out; its test columns are empty but in the last row"""


def as_csv(records: Sequence[EpochRecord]) -> bytes:
    """The rows as the file has them."""
    held_out = any(record.watched == "validation" for record in records)
    columns = (*COLUMNS, *OF_VALIDATION) if held_out else COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *OF_THE_LOOK, *columns[len(COLUMNS) :]])
    for record in records:
        values = [getattr(record, name) for name in columns]
        look = record.scores(record.watched)
        seen = (record.resolution, None if look is None else look.correct, None if look is None else look.total)
        writer.writerow([*values[: len(COLUMNS)], *seen, *values[len(COLUMNS) :]])
    return text.getvalue().encode()
