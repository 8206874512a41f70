"""Runs on a folder that is streamed: found again, gone on with either way, and every question asked of a few images at a time."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folder import write_photos
from tiny import quiet, tiny_network

from era_support_packages import plots
from era_support_packages.classifier import Classifier
from era_support_packages.commands import command_line
from era_support_packages.datasets import sizing, streaming
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.streaming import StreamedImages
from era_support_packages.evaluation import most_confused, suspicious_labels
from era_support_packages.runs import PreparedRun, compare, prepare, recording, train_in_folder
from era_support_packages.runs.folder import RunError
from era_support_packages.runs.repeating import needed_values
from era_support_packages.system import memory
from era_support_packages.system.processes import Processes
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.trust import sanity, shortcut

pytestmark = pytest.mark.unhurried

SMALL = {"epochs": 3, "batch_size": 6, "resolutions": [(16, 1.0)], "image_size": 32, "max_lr": 0.05, "device": "cpu"}
SMALL |= {"precision": "fp32", "threads": 1, "model": "ResNet18"}


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_photos(tmp_path / "photos", train=6, test=4)


@pytest.fixture
def little_memory(monkeypatch):
    """No more than 20 of the 30 photos fit."""
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * 20 * 32 * 32 * 3)


def ask(photos: Path, **values: object) -> PreparedRun:
    return prepare("smoke", **{"dataset": str(photos), "report": quiet, **SMALL, **values})


def train(prepared: PreparedRun) -> Checkpoint:
    torch.manual_seed(0)
    train_in_folder(tiny_network(seed=1), prepared, quiet)
    return Checkpoint.load(prepared.run.checkpoint_file)


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    assert torch.equal(one.logits, other.logits)
    losses = [[(record.train_loss, record.test_loss) for record in part.records] for part in (one, other)]
    assert losses[0] == losses[1]


@pytest.mark.usefixtures("little_memory")
def test_a_folder_too_large_is_streamed_and_the_run_says_so(photos, capsys):
    prepared = ask(photos)
    assert (prepared.config.stream, prepared.config.engine, prepared.config.workers) == (True, "samples", 1)
    said = capsys.readouterr().out.replace("\n", " ")
    assert "30 images of 32x32 px (0 megapixels) take 0 MB decoded, more than a third of the 0 MB of memory that are free" in said
    assert json.loads((prepared.run.folder / "config.json").read_text())["stream"] is True
    needed = needed_values(prepared.config)
    assert needed["engine"] == "samples"  # of the result
    assert "stream" not in needed  # of the machine
    with pytest.raises(DatasetError, match="stream='auto' with engine='auto'"):
        ask(photos, engine="device")
    with pytest.raises(DatasetError, match="stream='auto' with engine='auto'"):
        ask(photos, stream=False)
    with pytest.raises(ValueError, match="'digits' is no folder of images"):
        prepare("smoke", dataset="digits", stream=True, report=quiet)


def test_a_run_begun_in_memory_goes_on_streamed_and_ends_the_same(photos, monkeypatch):
    whole = train(ask(photos, engine="samples", output_dir="whole"))
    begun = ask(photos, engine="samples")
    assert (begun.config.stream, begun.config.workers) == (False, 0)
    kept = recording.Run.write_metrics

    def stopped(run: object, records: list[object]) -> None:
        kept(run, records)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recording.Run, "write_metrics", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(begun)
    for stream in (False, True):  # the memory is smaller now
        again = ask(photos, engine="samples", stream=True if stream else "auto")
        assert (again.run, again.config.stream, again.config.engine) == (begun.run, stream, "samples")
    assert_same(train(again), whole)
    seen = ask(photos, engine="samples")
    assert (seen.run, seen.run.finished, seen.train.streamed) == (begun.run, True, False)


def test_a_run_begun_with_the_device_engine_is_not_streamed(photos, monkeypatch):
    begun = ask(photos)
    assert (begun.config.engine, begun.config.stream) == ("device", False)
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * 20 * 32 * 32 * 3)
    with pytest.raises(RunError, match=r"was begun with engine 'device', which holds all images in memory.* set resume=False"):
        ask(photos)
    monkeypatch.undo()
    monkeypatch.chdir(photos.parent)
    train(ask(photos))
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * 20 * 32 * 32 * 3)
    finished = ask(photos)  # to look at
    assert (finished.run, finished.train.streamed) == (begun.run, True)
    assert len(finished.run.load(tiny_network(), finished.test).predictions) == 12


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photo_that_vanishes_in_the_middle_is_named_and_the_run_goes_on_once_it_is_back(photos, workers, monkeypatch):
    whole = train(ask(photos, stream=True, output_dir="whole"))
    prepared, file = ask(photos, stream=True, workers=workers), photos / "train" / "fox" / "3.jpg"
    content = file.read_bytes()
    write = recording.Run.write_metrics

    def written(run: object, rows: list[object]) -> None:
        write(run, rows)
        file.unlink()

    with monkeypatch.context() as patched:
        patched.setattr(recording.Run, "write_metrics", written)
        with pytest.raises(DatasetError, match=rf"^{file} cannot be read any more .*: put it back and run again with the same"):
            train(prepared)
    assert len(Checkpoint.load(prepared.run.checkpoint_file).records) == 1
    file.write_bytes(content)
    assert_same(train(ask(photos, stream=True)), whole)


def test_several_processes_are_told_how_the_images_are_held(photos, monkeypatch):
    from era_support_packages.runs import together

    loaded: list[object] = []
    load = together.load_fitted
    monkeypatch.setattr(together, "load_fitted", lambda *values: loaded.append(values[-1]) or load(*values))
    first = ask(photos, stream=True)
    told = first.run, first.config.to_dict(), {}
    second = Processes(1, 2)
    monkeypatch.setattr(Processes, "settled", lambda self, work: told)
    monkeypatch.setattr(Processes, "together", lambda self, work: work())
    found = together.prepare_together(second, "smoke", None, quiet)
    assert loaded == [True]
    assert found.train.streamed


# ---- what is asked of a network ----------------------------------------------------------------------------------------


def test_every_question_is_asked_of_a_few_images_at_a_time(photos, monkeypatch):
    prepared = ask(photos, stream=True, validation=0.2, test_time_flip=True)
    splits = prepared.train, prepared.validation, prepared.test
    most = {"images": 0}
    decode = StreamedImages.__getitem__

    def watched(self: StreamedImages, key: object) -> np.ndarray:
        found = decode(self, key)
        most["images"] = max(most["images"], len(found) if found.ndim == 4 else 1)
        return found

    monkeypatch.setattr(StreamedImages, "__getitem__", watched)
    monkeypatch.setattr(streaming, "AT_ONCE", 4)
    network = tiny_network(seed=1)
    # as if a few photos filled a batch
    for module in ("era_support_packages.datasets.normalization", "era_support_packages.classifier"):
        monkeypatch.setattr(f"{module}.images_at_once", lambda count, side: 4)
    monkeypatch.setattr("era_support_packages.training.batch_norm.images_at_once", lambda count, side: 4)
    monkeypatch.setattr("era_support_packages.trust.shortcut.planting.images_at_once", lambda count, side: 1)
    monkeypatch.setattr("era_support_packages.training.batch_norm._FEWEST", 4)
    classifier, history = train_in_folder(network, prepared, quiet)
    predictions = classifier.predict(prepared.test, batch_size=4)
    assert np.allclose(predictions.logits, history.predictions.logits, atol=1e-5)
    assert np.array_equal(predictions.pictures[:2], prepared.test.images[:2])
    few = predictions.hardest(3)
    explanation = classifier.explain(predictions, few, targets="contrast", layers=["conv"])
    plots.incorrect_predictions(predictions, few, "photos")
    plots.gradcam_comparison(explanation, "photos")
    plots.confused_pairs(most_confused(predictions), prepared.test.images, "photos")
    plots.suspicious_labels(suspicious_labels(predictions), prepared.test.images, "photos")
    classifier.explore(prepared.test, 1, methods=["gradcam"], layers=["conv"])
    classifier.seen(prepared.train, [0, 1])
    shortcut.plant(classifier, prepared.train, steps=2, held_out=4)
    sanity.sanity_check(classifier, prepared.test, prepared.train, count=4, train_count=4, draws=2, layers=["conv"])
    assert most["images"] <= 32  # the checks' own batches; never a split
    assert all(split.streamed for split in splits if split is not None)


def test_what_needs_all_at_once_is_refused_in_one_sentence(photos, monkeypatch):
    prepared = ask(photos, stream=True)
    classifier = Classifier(tiny_network(), prepared.test.classes, prepared.test.mean, prepared.test.std, 16, image_size=32)
    monkeypatch.setattr(streaming, "AT_ONCE", 4)
    monkeypatch.setattr(streaming, "free_memory", lambda: 1000)
    with pytest.raises(DatasetError, match=r"^12 images of 32x32 px would take .* ask for fewer at a time"):
        classifier.explain(prepared.test, layers=["conv"])
    assert len(classifier.explain(prepared.test, [3, 5], layers=["conv"]).maps) == 2


def test_two_streamed_runs_are_compared(photos):
    runs = []
    for seed in (0, 1):
        prepared = ask(photos, stream=True, seed=seed, run_name=f"seed-{seed}")
        recording.train_prepared(prepared, quiet)
        runs.append(prepared.run.folder)
    found = compare(*runs)
    assert "seed-0" in str(found)


# ---- the command line --------------------------------------------------------------------------------------------------


def test_data_says_which_way_training_takes(photos, monkeypatch, capsys):
    assert command_line.main(["data", str(photos), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    size, decoded = found["image_size"], 30 * found["image_size"] ** 2 * 3
    assert (found["training"]["streamed"], found["training"]["decoded_bytes"]) == (False, decoded)
    for module in (sizing, memory):
        monkeypatch.setattr(module, "free_memory", lambda: 3 * decoded - 1)
    assert command_line.main(["data", str(photos)]) == 0
    said = capsys.readouterr().out
    assert f"In training, 30 images of {size}x{size} px (0 megapixels) take 0 MB decoded, more than a third of" in said
    assert "each is decoded when it is used, by workers." in said


def test_ctrl_c_in_a_stream_ends_as_always(photos, monkeypatch):
    prepared = ask(photos, stream=True, workers=1, epochs=50)
    write = recording.Run.write_metrics
    written: list[int] = []

    def interrupted(run: object, rows: list[object]) -> None:
        write(run, rows)
        written.append(len(rows))
        if written == [1, 2]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(recording.Run, "write_metrics", interrupted)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train_in_folder(tiny_network(), prepared, lines.append)
    assert lines[-1].startswith("Stopped after epoch 2 of 50. Run again with the same values")
