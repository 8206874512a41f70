"""Training that is watched on held-out images: what is read when, what the log says, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import asking, colored_images, plan, quiet, tiny_network

from era_support_packages import TrainingConfig
from era_support_packages.datasets import fingerprint_of, hold_out
from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.evaluation.predictions import predict
from era_support_packages.training import Checkpoint, EpochRecord, History, fit, log_header, log_row, prepare_config
from era_support_packages.training.cost import predicted_seconds
from era_support_packages.training.history import log_lines, result_line


class Pixels(np.ndarray):
    """Images that note how many of them are read, and when."""

    noted: list[tuple[str, int]]
    name: str

    def __array_finalize__(self, source: Any) -> None:
        self.noted, self.name = getattr(source, "noted", []), getattr(source, "name", "")

    def __getitem__(self, key: Any) -> np.ndarray:
        found = np.asarray(self)[key]
        self.noted.append((self.name, len(found)))
        return found


def noting(split: ImageDataset, noted: list[tuple[str, int]]) -> ImageDataset:
    pixels = split.images.view(Pixels)
    pixels.noted, pixels.name = noted, split.split
    return dataclasses.replace(split, images=pixels, fingerprint=fingerprint_of(split))


def splits() -> tuple[ImageDataset, ImageDataset, ImageDataset]:
    return hold_out(colored_images(24), colored_images(10, split="test", seed=1), 0.25, seed=5)


CONFIG = plan(epochs=3, validation=0.25, test_images=3, max_lr=0.2)


def test_the_test_split_is_read_once_after_the_last_epoch() -> None:
    train, validation, test = splits()
    noted: list[tuple[str, int]] = []
    lines: list[str] = []

    def keep(state: Checkpoint) -> None:
        noted.append(("epoch", len(state.records)))

    network = tiny_network()
    given = (noting(test, noted), CONFIG, lines.append, keep)
    classifier, history = fit(network, train, *given, validation=noting(validation, noted))
    early, whole = ("validation", 3), ("validation", 6)  # of 6 held-out images 3, drawn once, between epochs
    assert noted == [early, ("epoch", 1), ("epoch", 2), whole, ("test", 10), ("epoch", 3)]

    assert (classifier.mean, classifier.std) == (train.mean, train.std)
    assert [record.test_total for record in history.records] == [None, None, 10]
    assert [record.validation_total for record in history.records] == [3, 3, 6]
    last, said = history.records[-1], predict(network, validation, classifier.device, "fp32", 8)
    assert (last.validation_loss, last.validation_accuracy) == pytest.approx((said.mean_loss, said.accuracy))
    assert (last.test_loss, last.test_accuracy) == (history.predictions.mean_loss, history.predictions.accuracy)
    assert lines[1:] == [log_header("validation"), *map(log_row, history.records), result_line(history.records)]
    assert history.records[-1].scores("test") == (last.test_loss, last.test_accuracy, last.test_correct, 10)


def test_without_validation_everything_is_as_it_was() -> None:
    test, noted = colored_images(10, split="test", seed=1), []
    config = plan(epochs=2, test_images=3)
    _, history = fit(tiny_network(), colored_images(24), noting(test, noted), config, quiet)
    assert noted == [("test", 3), ("test", 10)]
    assert history.records[-1].to_dict().keys() == {
        *("epoch", "resolution", "images", "lr", "train_loss", "train_accuracy"),
        *("test_loss", "test_accuracy", "test_correct", "test_total", "seconds"),
    }
    assert (history.watched, result_line(history.records)) == ("test", "")


@pytest.mark.parametrize(
    ("preset", "values", "name"),
    [("cpu", {}, "867f58"), ("fast", {"seed": 1}, "6cdd5c"), ("smoke", {"cutout": 8}, "5f68fc")],
)
def test_no_run_of_before_has_another_name(preset: str, values: dict[str, Any], name: str) -> None:
    """A preset that has become another recipe has one, as `cpu` when it took Muon: no run of the older one is gone on with."""
    assert TrainingConfig.preset(preset, **values).default_run_name("digits") == f"{preset}-digits-{name}"
    assert TrainingConfig.preset(preset, **values, validation=0).default_run_name("digits") == f"{preset}-digits-{name}"
    assert TrainingConfig.preset(preset, **values, validation=0.1).default_run_name("digits") != f"{preset}-digits-{name}"


def test_a_stored_configuration_and_stored_rows_of_before_are_read(tmp_path: Path) -> None:
    old = {name: value for name, value in CONFIG.to_dict().items() if name != "validation"}
    assert TrainingConfig.from_dict(old).validation == 0
    states: list[Checkpoint] = []
    train, validation, test = splits()
    fit(tiny_network(), train, test, CONFIG, quiet, states.append, validation=validation)
    states[-1].save(tmp_path / "checkpoint.pt")
    assert Checkpoint.load(tmp_path / "checkpoint.pt").records == states[-1].records


@pytest.mark.parametrize("share", [-0.1, 0.51, 1, "0.1", True, float("nan")])
def test_a_share_out_of_range_is_refused_by_name(share: object) -> None:
    with pytest.raises(ValueError, match=r"^validation is .*; give a number from 0(\.0)? to 0\.5\."):
        asking(validation=share)


def test_splits_that_do_not_belong_together_are_refused() -> None:
    (train, validation, test), whole = splits(), colored_images(24)
    none = plan(epochs=1)
    cases: list[tuple[tuple[Any, ...], ImageDataset | None, str]] = [
        ((whole, test, CONFIG), validation, r"nothing is held out of these training images.*datasets\.hold_out"),
        ((train, test, CONFIG), None, "no validation split is given"),
        ((train, test, none), validation, "a validation split is given"),
        ((train, test, CONFIG), test, r"is a split named 'test', .*datasets\.hold_out held out"),
        ((train, test.take([]), CONFIG), validation, r"^The test split has no images: give one of at least one image\."),
        ((train.take([]), test, CONFIG), validation, "^The training split has no images"),
        ((train, test, CONFIG), validation.take([]), "^The validation split has no images"),
        (
            (train, colored_images(10, split="test"), CONFIG),
            validation,
            "take all splits from one datasets.load or datasets.hold_out",
        ),
    ]
    for (some, tested, config), held_out, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            fit(tiny_network(), some, tested, config, quiet, validation=held_out)
    unread = plan(validation=0.25, final_test=False)
    assert fit(tiny_network(), train, test.take([]), unread, quiet, validation=validation).history.complete
    with pytest.raises(ValueError, match="nothing is held out"):
        prepare_config(asking(validation=0.25), whole)
    assert prepare_config(asking(validation=0.25), train).validation == 0.25


def test_the_prediction_of_its_time_counts_what_is_looked_at() -> None:
    config = plan(train_images=300, resolutions=((8, 0.5), (16, 0.5)), batch_size=50, test_images=30)
    planned = config.planned_epochs(100)  # 100 and 50 images at 8 px, 100 and 50 at 16 px, which cost four times as much
    images = 150 + 4 * 150
    assert predicted_seconds(config, planned, 60, 0.01) == pytest.approx((images + (30 + 30 + 4 * 30 + 4 * 60) / 3) / 100)
    seconds = predicted_seconds(config, planned, 60, 0.01, validation_size=40)  # 40 and 60 after the last epoch
    assert seconds == pytest.approx((images + (30 + 30 + 4 * 30 + 4 * 100) / 3) / 100)


# ---- in words --------------------------------------------------------------------------------------------------------


def record(epoch: int, tested: bool) -> EpochRecord:
    test = (0.5, 80.0, 8, 10) if tested else (None, None, None, None)
    return EpochRecord(epoch, 8, 18, 0.1, 1.0, 50.0, *test, 2.0, 0.25, 75.0, 3, 4)


def history(done: int) -> History:
    return History(tuple(record(epoch, epoch == 2) for epoch in range(1, done + 1)), CONFIG, None, planned=2)


def test_the_log_and_the_table_name_the_split() -> None:
    end = "Test split, looked at once, at the end: loss 0.5000, 8/10 right, 80.00 %."
    row = "    1    8   0.100000      1.0000    50.00 %     0.2500            3/4   75.00 %      2.0"
    assert log_lines(history(1).records) == [log_header("validation"), row]
    assert log_lines(history(2).records)[-1] == end
    assert "val loss" in log_header("validation")
    assert len(log_header("validation")) == len(log_header()) == len(row)
    table = history(2).table()
    assert [column.name for column in table.columns][5:8] == ["validation loss", "validation images", "validation accuracy"]
    assert table.rows[-1][5:8] == (0.25, 4, 75.0)
    assert table.caption.endswith(end)


def test_one_sentence_says_by_what_images_was_chosen() -> None:
    assert (history(2).judged, history(1).judged) == ("test", "validation")
    assert "looked at once, at the end" in history(2).choice
    assert "not looked at before the last epoch" in history(1).choice
    assert "validation = 0.25" in history(1).choice
    seen = EpochRecord(1, 8, 18, 0.1, 1.0, 50.0, 0.5, 80.0, 8, 10, 2.0)
    plain = History((seen,), plan(), None, planned=3)
    assert (plain.judged, plain.watched) == ("test", "test")
    assert "also looked at on the way" in plain.choice
