"""What a log suggests, by rows made by hand."""

from types import SimpleNamespace

import pytest

from era_support_packages.training import EpochRecord, TrainingConfig, next_step

ROW = {"lr": 0.1, "test_loss": 1.0, "test_correct": 1, "test_total": 2, "resolution": 32, "images": 1000, "seconds": 1.0}


def advice(*rows, **values):
    """Each row: training loss, accuracy on training images, on test images."""
    records = [
        EpochRecord(epoch=number, train_loss=loss, train_accuracy=train, test_accuracy=test, **ROW)
        for number, (loss, train, test) in enumerate(rows, start=1)
    ]
    config = TrainingConfig.preset("smoke", **{"epochs": 10, "max_lr": 0.2, "cutout": 0} | values)
    return next_step(SimpleNamespace(records=tuple(records), config=config))


@pytest.mark.parametrize(
    ("rows", "values", "word", "typed"),
    [
        ([(2.0, 30, 30), (2.3, 25, 25), (1.5, 50, 50)], {}, "Too hot", "max_lr = 0.1."),
        ([(2.0, 30, 30), (2.1, 25, 25), (1.5, 50, 50)], {}, "Under-fitted", "epochs = 20."),
        ([(2.0, 30, 30), (0.014, 100, 100), (0.018, 100, 100)], {}, "Neither", "seed = 1."),
        ([(0.4, 99, 99), (2.0, 60, 60), (0.2, 99, 99)], {}, "Too hot", "max_lr = 0.1."),
        ([(2.0, 30, 30), (1.5, 50, 55), (1.0, 70, 68)], {"epochs": None, "train_images": 500}, "Under", "train_images = 6000."),
        ([(2.0, 30, 30), (1.0, 70, 65), (0.2, 95, 80)], {}, "Over-fitted", "cutout = 8,"),
        ([(2.0, 30, 30), (1.0, 70, 65), (0.2, 95, 80)], {"cutout": 8, "weight_decay": 0.001}, "Over", "weight_decay = 0.002,"),
        ([(2.0, 30, 30), (1.0, 70, 65), (0.2, 99, 99)], {}, "Neither", "seed = 1."),
        ([(2.0, 30, 30), (1.0, 70, 65), (0.2, 90, 85)], {"seed": 3}, "Neither", "seed = 4."),
        ([(2.0, 30, 30), (1.0, 70, 65)], {}, "2 epochs say too little", ""),
    ],
)
def test_what_is_seen_and_what_to_type(rows, values, word, typed):
    said = advice(*rows, **values)
    assert said.startswith(word)
    assert typed in said


def test_a_rise_where_the_images_grow_is_none():
    smaller = EpochRecord(epoch=1, train_loss=1.0, train_accuracy=50, test_accuracy=50, **ROW | {"resolution": 16})
    rest = [EpochRecord(epoch=n, train_loss=1.5, train_accuracy=50, test_accuracy=50, **ROW) for n in (2, 3)]
    config = TrainingConfig.preset("smoke", epochs=3)
    assert next_step(SimpleNamespace(records=(smaller, *rest), config=config)).startswith("Under-fitted")
