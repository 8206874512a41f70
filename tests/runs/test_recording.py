"""A recorded run is stopped and goes on without a difference, and nothing of it is ever lost."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import files, records, same_weights, untouched
from stopping import STOPS, Steps, own_sigterm_handler, press_stop, raising, terminate
from tiny import asking, colored_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import data_fingerprint
from era_support_packages.datasets.normalization import normalize
from era_support_packages.runs import recording, untrained
from era_support_packages.runs.card import model_card
from era_support_packages.runs.folder import Run, RunError
from era_support_packages.runs.preparation import PreparedRun
from era_support_packages.runs.recording import (
    RunStopped,
    choose_learning_rate,
    train_in_folder,
    train_or_stop,
)
from era_support_packages.runs.untrained import NotTrainedError, Untrained, require_complete
from era_support_packages.training import batch_norm
from era_support_packages.training.checkpoint import Checkpoint, CheckpointError
from era_support_packages.training.failures import DeviceFailedError, OutOfMemoryError, TrainingDivergedError, is_device_failure
from era_support_packages.training.history import EpochRecord, History, log_header, log_row
from era_support_packages.training.loop import fit
from era_support_packages.training.lr_finder import RangeTest

FLOPS_PER_IMAGE = 55_440  # 8 px; the convolution twice (its input needs no gradient): 2*2*3*9*8*64; the layer thrice: 3*2*8*3
TRAIN, TEST = colored_images(24), colored_images(10, split="test", seed=1)  # three steps an epoch
DATA = data_fingerprint(TRAIN, TEST)
HARD = {  # whatever could differ after a stop: order, augmentation, dropout, momentum, schedule, two resolutions
    "epochs": 4,
    "resolutions": ((8, 0.5), (10, 0.5)),
    "horizontal_flip": 0.5,
    "crop_padding": 2,
    "cutout": 3,
    "label_smoothing": 0.1,
    "test_images": 5,
    "seed": 3,
}
BEGUN = ["checkpoint.pt", "config.json", "data.json", "metrics.csv"]
WRITTEN = [*BEGUN, "summary.json"]
NOTHING_YET = "There is nothing to show before the first epoch is complete: run the training cell again, then those after it."
STOPPED = "Stopped after epoch {} of 4. Run again with the same values to go on from there ({})."


@pytest.fixture(autouse=True, scope="module")
def _long_enough() -> Iterator[None]:
    """Forward passes are counted here; those for the statistics of short runs are the matter of test_batch_norm.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm, "FEW_STEPS", 0)
        yield


@pytest.fixture(autouse=True)
def handler() -> Iterator[Callable[..., None]]:
    with own_sigterm_handler() as own:
        yield own


@pytest.fixture
def start(tmp_path) -> Callable[..., PreparedRun]:
    """`start(**changes)` makes the folder of a run of one epoch, or as HARD has it, in batches of 8."""

    def begin(root: Path = tmp_path, **changes: Any) -> PreparedRun:
        values = {"dataset": "colours", "output_dir": str(root), **changes}
        config = plan(**values)
        return PreparedRun(Run.create(asking(**values), "colours", config, DATA), config, TRAIN, TEST)

    return begin


def network(seed: int = 0) -> nn.Module:
    return tiny_network(drop=0.3, seed=seed)


def watched(model: nn.Module, actions: dict[int, Callable[[], None]] | None = None) -> tuple[nn.Module, Steps]:
    steps = Steps(actions or {})
    return steps.watch(model), steps


def at_step(step: int, action: Callable[[], None], model: nn.Module | None = None) -> nn.Module:
    return watched(network() if model is None else model, {step: action})[0]


fail = raising(RuntimeError("a fault"))


@dataclasses.dataclass(frozen=True)
class Reference:
    """An uninterrupted run that was not recorded: after each epoch its weights, and at the end the rest."""

    weights: list[dict[str, Tensor]]
    history: History


@pytest.fixture(scope="module")
def reference() -> Reference:
    weights: list[dict[str, Tensor]] = []

    def keep(state: Checkpoint) -> None:
        weights.append({name: value.clone() for name, value in state.model.items()})

    _, history = fit(network(), TRAIN, TEST, plan(dataset="colours", **HARD), quiet, keep)
    assert [record.resolution for record in history.records] == [8, 8, 10, 10]
    assert len({record.train_loss for record in history.records}) == 4
    return Reference(weights, history)


def without_seconds(history: History) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in history.records]


def table(run: Run) -> list[list[str]]:
    """The rows of metrics.csv below its heading."""
    heading, *rows = (run.folder / "metrics.csv").read_text().splitlines()
    assert heading == "epoch,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds,px,correct,total"
    return [row.split(",") for row in rows]


def rows_of(history: History) -> list[list[str]]:
    """What metrics.csv should say of a history."""
    names = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds")
    names += ("resolution", "test_correct", "test_total")
    return [[str(getattr(record, name)) for name in names] for record in history.records]


def check_complete(run: Run, model: nn.Module, history: History, reference: Reference) -> None:
    """Everything that the run leaves is, but for the seconds, what a run in one go leaves."""
    assert same_weights(model.state_dict(), reference.weights[-1])
    assert without_seconds(history) == without_seconds(reference.history)
    assert history.predictions.logits.tolist() == reference.history.predictions.logits.tolist()
    assert history.complete
    assert files(run.folder) == WRITTEN
    checkpoint = Checkpoint.load(run.checkpoint_file)
    assert same_weights(checkpoint.model, reference.weights[-1])
    assert checkpoint.records == history.records
    assert checkpoint.logits.tolist() == reference.history.predictions.logits.tolist()
    assert table(run) == rows_of(history)
    summary = run.summary()
    assert (summary["complete"], summary["epochs"]) == (True, 4)
    assert summary["test_accuracy"] == reference.history.predictions.accuracy
    assert summary["seconds"] == pytest.approx(history.seconds)
    assert run.finished


def check_goes_on(
    prepared: PreparedRun, reference: Reference, steps: int, seed: int = 5, train: Any = train_in_folder, report: Any = quiet
) -> History:
    """The run goes on with another network, in so many steps, to all that a run in one go leaves."""
    model, counted = watched(network(seed))
    _, history = train(model, prepared, report)
    assert counted.count == steps
    check_complete(prepared.run, model, history, reference)
    return history


# ---- the learning rate -----------------------------------------------------------------------------------------------

CURVE = RangeTest(
    np.array([0.001, 0.01, 0.1]),
    np.array([1.1, 1 / 3, 0.7]),
    np.array([1.0, 0.5, 0.6]),
    {"steepest": 0.5, "valley": 0.03125, "minimum/10": 0.25},
)
SUGGESTED = "max_lr = 0.0312, the range test's suggestion 'valley' (all: steepest 0.5, valley 0.0312, minimum/10 0.25)."
GIVEN = "max_lr = 0.1 is given, so the range test is only shown for comparison: steepest 0.5, valley 0.0312, minimum/10 0.25."


@pytest.fixture
def range_tests(monkeypatch) -> list[tuple[Any, ...]]:
    """`CURVE` in place of a range test; the list of what it was made for."""
    made: list[tuple[Any, ...]] = []

    def range_test(*arguments: Any) -> RangeTest:
        made.append(arguments)
        return CURVE

    monkeypatch.setattr(recording, "range_test", range_test)
    return made


@pytest.mark.parametrize(("asked", "chosen", "sentence"), [("auto", 0.03125, SUGGESTED), (0.1, 0.1, GIVEN)])
def test_the_range_test_is_made_once_and_kept(asked, chosen, sentence, start, range_tests):
    prepared, model = start(max_lr=asked), tiny_network()
    first, curve, first_sentence = choose_learning_rate(model, prepared)
    assert (first.config, first.run, first.test) == (prepared.config.resolved(chosen), prepared.run, TEST)
    assert (curve, first_sentence) == (CURVE, sentence)
    with untouched(prepared.run.folder):
        for now in (prepared, first):  # stopped before and after the number was written down
            again, curve, sentence_again = choose_learning_rate(model, now)
            assert (again.config, sentence_again) == (first.config, sentence)
            assert curve.suggestions == CURVE.suggestions
            for name in ("lrs", "losses", "smoothed"):
                assert getattr(curve, name).tolist() == getattr(CURVE, name).tolist()
    assert range_tests == [(model, TRAIN, 10, prepared.config)]
    assert prepared.run.range_test()[1] is (asked == "auto")


@pytest.mark.parametrize("content", ["", "[]", "null", '{"used": true}'])
def test_a_kept_range_test_that_is_damaged_is_made_again(content, start, range_tests):
    prepared = start(max_lr="auto")
    (prepared.run.folder / "range_test.json").write_text(content)
    chosen, result, sentence = choose_learning_rate(tiny_network(), prepared)
    assert (chosen.config.max_lr, result, sentence) == (0.03125, CURVE, SUGGESTED)
    assert len(range_tests) == 1
    assert prepared.run.range_test()[1] is True


def test_a_range_test_that_suggests_nothing_is_kept_too(start, monkeypatch):
    prepared = start(max_lr="auto")
    for range_test in (lambda *_: dataclasses.replace(CURVE, suggestions={}), fail):
        monkeypatch.setattr(recording, "range_test", range_test)
        with pytest.raises(ValueError, match="never fell in the range test, so it suggests nothing; give max_lr as a number"):
            choose_learning_rate(tiny_network(), prepared)


@pytest.mark.parametrize(("asked", "chosen", "batches"), [("auto", 0.03125, 3), (0.1, 0.1, 0)])
def test_the_cost_of_a_resumed_run_includes_the_range_test_that_its_max_lr_came_from(asked, chosen, batches, start, range_tests):
    prepared = start(max_lr=asked, epochs=3)
    for step, done in ((5, 1), (4, 2), (None, 3)):  # the step of this attempt in which it is stopped
        model = tiny_network()
        now, _, _ = choose_learning_rate(model, prepared)
        if step is None:
            train_in_folder(model, now, quiet)
        else:
            with pytest.raises(RunStopped):
                train_in_folder(at_step(step, press_stop, model), now, quiet)
        pflops = prepared.run.summary()["pflops"]
        assert pflops == pytest.approx((24 * done + 8 * batches) * FLOPS_PER_IMAGE / 1e15, rel=1e-12)
    assert prepared.run.config().max_lr == chosen
    assert len(range_tests) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory")])
def test_a_range_test_that_does_not_fit_says_what_to_do(error, start, monkeypatch):
    prepared = start(max_lr="auto")
    monkeypatch.setattr(recording, "range_test", raising(error))
    with pytest.raises(OutOfMemoryError, match=r"'cpu' is full at batch_size=8: set batch_size=4 \(and halve max_lr") as raised:
        choose_learning_rate(tiny_network(), prepared)
    assert raised.value.__context__ is None  # nothing holds on to the step that did not fit
    monkeypatch.setattr(recording, "range_test", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        choose_learning_rate(tiny_network(), prepared)
    assert prepared.run.range_test() is None


# ---- stopped, and gone on --------------------------------------------------------------------------------------------


def test_after_each_epoch_its_files_are_there(start, reference):
    prepared = start(**HARD)
    seen, lines = [], []

    def report(line: str) -> None:
        lines.append(line)
        if line.lstrip()[0].isdigit():
            checkpoint = Checkpoint.load(prepared.run.checkpoint_file)
            same = same_weights(checkpoint.model, reference.weights[len(checkpoint.records) - 1])
            visible = [name for name in files(prepared.run.folder) if name != ".lock"]
            seen.append((visible, len(checkpoint.records), same, checkpoint.complete, len(table(prepared.run))))

    history = check_goes_on(prepared, reference, steps=12, seed=0, report=report)
    assert seen == [(BEGUN, epoch, True, epoch == 4, epoch) for epoch in (1, 2, 3, 4)]
    assert lines[0].startswith("This run will take about ")
    told = [line for line in lines[1:] if not line.startswith("Warning: ")]
    assert told == [log_header(), *map(log_row, history.records)]


@pytest.mark.parametrize("step", [2, 4, 5, 12])
@pytest.mark.parametrize(("stop", "exit_code"), STOPS.values(), ids=STOPS)
def test_a_stopped_run_is_left_as_after_its_last_complete_epoch_and_goes_on(stop, exit_code, step, start, reference):
    done = (step - 1) // 3
    prepared, lines = start(**HARD), []
    run = prepared.run
    model, steps = watched(network(), {step: stop})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RunStopped) as raised:
        train_in_folder(model, prepared, lines.append)
    assert step <= steps.count <= step + 1  # within a batch or two
    stopped, history = raised.value, raised.value.history
    assert isinstance(stopped, KeyboardInterrupt)
    assert (str(stopped), stopped.exit_code) == (f"stopped after epoch {done} of 4", exit_code)
    assert without_seconds(history) == without_seconds(reference.history)[:done]
    assert (history.planned, history.complete, history.predictions) == (4, False, None)
    assert history.config == run.config().resolved()
    assert lines[-1] == STOPPED.format(done, run.folder)
    assert same_weights(model.state_dict(), reference.weights[done - 1] if done else before)
    assert files(run.folder) == (WRITTEN if done else WRITTEN[1:])
    assert table(run) == rows_of(history)
    seconds = sum(record.seconds for record in history.records)
    pflops = sum(24 * FLOPS_PER_IMAGE * (record.resolution / 8) ** 2 for record in history.records) / 1e15
    summary = run.summary()
    assert summary["pflops"] == pytest.approx(pflops, rel=0.01)  # the linear layer does not grow with the pixels
    expected = {"complete": False, "epochs": done, "test_accuracy": None, "test_accuracy_tta": None, "seconds": seconds}
    assert {name: summary[name] for name in expected} == expected
    assert not run.finished
    if done:
        kept = Checkpoint.load(run.checkpoint_file)
        assert same_weights(kept.model, reference.weights[done - 1])
        assert (kept.records, kept.complete) == (history.records, False)

    lines.clear()
    finished = check_goes_on(prepared, reference, steps=12 - 3 * done, seed=5 if done else 0, report=lines.append)
    assert finished.records[:done] == history.records  # with their seconds
    told = [line for line in lines[1:] if not line.startswith("Warning: ")]
    assert told[0].splitlines() == [log_header(), *map(log_row, history.records)]
    assert told[1:] == list(map(log_row, finished.records[done:]))


def test_a_run_may_be_stopped_and_fail_again_and_again(start, reference):
    prepared, complete = start(**HARD), []
    for attempt, (step, stop) in enumerate(((5, press_stop), (2, fail), (4, terminate), (1, press_stop), (4, fail))):
        with pytest.raises((RunStopped, RuntimeError)) as raised:
            train_in_folder(at_step(step, stop, network(seed=attempt)), prepared, quiet)
        assert isinstance(raised.value, RunStopped) is (stop is not fail)
        complete.append(prepared.run.complete_epochs())
        assert [row[0] for row in table(prepared.run)] == ["1", "2", "3"][: complete[-1]]
    assert complete == [1, 1, 2, 2, 3]
    check_goes_on(prepared, reference, steps=3)


def stop_in_the_table(patch: pytest.MonkeyPatch) -> None:
    """Between the second checkpoint and its row."""
    write, calls = Run.write_metrics, []

    def write_metrics(self: Run, rows: tuple[EpochRecord, ...]) -> None:
        calls.append(len(rows))
        if calls == [1, 2]:
            raise KeyboardInterrupt
        write(self, rows)

    patch.setattr(Run, "write_metrics", write_metrics)


def stop_in_the_second_checkpoint(patch: pytest.MonkeyPatch) -> None:
    replace, checkpoints = os.replace, []

    def stopped_replace(source: Path, target: Path) -> None:
        if Path(target).name == "checkpoint.pt":
            checkpoints.append(target)
            if len(checkpoints) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    patch.setattr(os, "replace", stopped_replace)


def stop_before_the_first_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Run, "write_config", press_stop)


@pytest.mark.parametrize(
    ("stop", "done"), [(stop_before_the_first_epoch, 0), (stop_in_the_second_checkpoint, 1), (stop_in_the_table, 2)]
)
def test_a_stop_while_files_are_written_loses_no_epoch(stop, done, start, reference, monkeypatch):
    prepared, model = start(**HARD), network()
    stop(monkeypatch)
    with pytest.raises(RunStopped, match=f"stopped after epoch {done} of 4"):
        train_in_folder(model, prepared, quiet)
    monkeypatch.undo()
    assert files(prepared.run.folder) == (WRITTEN if done else WRITTEN[1:])
    assert len(table(prepared.run)) == prepared.run.summary()["epochs"] == prepared.run.complete_epochs() == done
    assert same_weights(model.state_dict(), reference.weights[done - 1] if done else network().state_dict())
    check_goes_on(prepared, reference, steps=12 - 3 * done, seed=5 if done else 0)


def with_mirror_images(model: nn.Module) -> float:
    """Percent of the test images that the mean over each and its mirror image gets right, by hand."""
    images = normalize(torch.from_numpy(TEST.images), TEST.mean, TEST.std, 10)
    model.eval()
    with torch.no_grad():
        logits = model(images) + model(images.flip(3))
    return 10 * int((logits.argmax(dim=1).numpy() == TEST.labels).sum())


@pytest.mark.parametrize(("stop", "exit_code"), STOPS.values(), ids=STOPS)
def test_a_run_stopped_in_its_final_test_trains_nothing_again(stop, exit_code, start, reference, monkeypatch):
    prepared = start(**HARD, test_time_flip=True)
    monkeypatch.setattr(recording, "predict", lambda *_, **__: stop())
    with pytest.raises(RunStopped, match="stopped after epoch 4 of 4") as raised:
        train_in_folder(network(), prepared, quiet)
    monkeypatch.undo()
    assert raised.value.exit_code == exit_code
    summary = prepared.run.summary()
    assert (summary["complete"], summary["epochs"], summary["test_accuracy"]) == (False, 4, None)
    assert (prepared.run.complete_epochs(), prepared.run.finished) == (4, False)
    with pytest.raises(RunError):  # at the end of the notebook, though all epochs are complete
        require_complete(prepared.run, reference.history)
    check_goes_on(prepared, reference, steps=0)
    model = network()
    model.load_state_dict(reference.weights[-1])
    assert prepared.run.summary()["test_accuracy_tta"] == with_mirror_images(model)


def test_sigterm_is_caught_in_training_only(start, handler):
    seen = []
    train_in_folder(at_step(2, lambda: seen.append(signal.getsignal(signal.SIGTERM))), start(), quiet)
    assert callable(seen[0])
    assert seen[0] is not handler
    assert signal.getsignal(signal.SIGTERM) is handler  # after a stop or a fault too: the fixture looks


def test_a_finished_run_is_loaded_and_said_to_be_and_gets_the_summary_that_it_lacks(start, reference):
    prepared, lines = start(**HARD), []
    run, history = prepared.run, train_in_folder(network(), prepared, quiet).history
    summary = run.summary()
    run.write_json("summary.json", {**summary, "seconds": 200.4, "hardware": "an abacus"})
    model, steps = watched(network(seed=5))
    with untouched(run.folder):
        _, shown = train_in_folder(model, prepared, lines.append)
    assert steps.count == 0
    assert same_weights(model.state_dict(), reference.weights[-1])
    assert (shown.records, shown.complete) == (history.records, True)
    assert shown.predictions.logits.tolist() == history.predictions.logits.tolist()
    said = f"Not trained now: this is the run {run.name}, trained in 3 min 20 s on an abacus."
    assert "\n".join(lines).splitlines() == [said, log_header(), *map(log_row, history.records)]
    for name in ("summary.json", "metrics.csv"):  # it was killed before it wrote them
        (run.folder / name).unlink()
    assert not run.finished
    check_goes_on(prepared, reference, steps=0)
    assert run.summary() == summary


def test_a_run_with_muon_that_was_stopped_ends_with_the_same_bits(tmp_path, start):
    def two_convolutions(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        first, norm, second = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, bias=False)
        return nn.Sequential(first, norm, nn.ReLU(), second, nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    in_one_go, model = start(tmp_path / "in one go", **HARD, optimizer="muon"), two_convolutions(0)
    train_in_folder(model, in_one_go, quiet)
    stopped, again = start(tmp_path / "stopped", **HARD, optimizer="muon"), two_convolutions(1)
    with pytest.raises(RunStopped):
        train_in_folder(at_step(8, press_stop, two_convolutions(0)), stopped, quiet)
    train_in_folder(again, stopped, quiet)
    assert same_weights(model.state_dict(), again.state_dict())


def test_the_summary_names_the_threads_that_were_used(start):
    prepared = start(threads=2 if torch.get_num_threads() != 2 else 1)
    train_in_folder(network(), prepared, quiet)
    assert prepared.run.summary()["hardware"].endswith(f", {prepared.config.threads} threads)")


# ---- faults and what lies in the folder ------------------------------------------------------------------------------


def test_divergence_keeps_the_checkpoint_of_the_epoch_before(start, reference):
    prepared = start(**HARD)
    model, steps = watched(network())
    model.register_forward_hook(lambda module, _, output: output * float("nan") if steps.count == 7 else None)
    kept: list[bytes] = []

    def report(line: str) -> None:
        if line.lstrip()[0] in "12":
            kept.append(prepared.run.checkpoint_file.read_bytes())

    # twelve steps, up to 0.1 at the third and down to 0.1 / 25 / 10,000 at the last: 0.1 - 4/9 * 0.0999996 at the seventh
    with pytest.raises(
        TrainingDivergedError, match=r"nan at step 1 of epoch 3, at a learning rate of 0\.05556; lower max_lr and"
    ):
        train_in_folder(model, prepared, report)
    assert prepared.run.checkpoint_file.read_bytes() == kept[1]
    assert same_weights(Checkpoint.load(prepared.run.checkpoint_file).model, reference.weights[1])
    assert [row[0] for row in table(prepared.run)] == ["1", "2"]
    assert files(prepared.run.folder) == BEGUN


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "is empty"), (b"PK\x03\x04 half", "is cut short or is no checkpoint")], ids=["empty", "none"]
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_broken_checkpoint_is_refused_and_left(finished, content, problem, start):
    prepared = start()
    run = prepared.run
    run.checkpoint_file.write_bytes(content)
    (run.folder / "metrics.csv").write_text("precious")
    run.write_summary(records(1), prepared.config, "colours", 0, complete=finished)
    model, steps = watched(tiny_network())
    with untouched(run.folder), pytest.raises(CheckpointError, match=f"checkpoint.pt {problem}; .* set resume=False"):
        train_in_folder(model, prepared, quiet)
    assert steps.count == 0
    assert same_weights(model.state_dict(), tiny_network().state_dict())


def test_a_checkpoint_of_another_network_is_refused_and_left(start):
    prepared, wider = start(epochs=2), tiny_network(width=9)
    with pytest.raises(RunStopped):
        train_in_folder(at_step(5, press_stop), prepared, quiet)
    message = "checkpoint.pt holds the weights of another network; build the model of its config.json"
    with untouched(prepared.run.folder), pytest.raises(CheckpointError, match=message):
        train_in_folder(wider, prepared, quiet)
    assert same_weights(wider.state_dict(), tiny_network(width=9).state_dict())


def test_other_values_are_refused_and_the_folder_keeps_its_own(start, reference):
    prepared = start(**HARD)
    with pytest.raises(RunStopped):
        train_in_folder(at_step(8, press_stop), prepared, quiet)
    other = dataclasses.replace(prepared, config=prepared.config.replace(max_lr=0.9))
    sentence = r"checkpoint\.pt is a run of another configuration: max_lr 0\.1 \(here 0\.9\)\. .*resume=False"
    with untouched(prepared.run.folder), pytest.raises(CheckpointError, match=sentence):
        train_in_folder(network(), other, quiet)
    check_goes_on(prepared, reference, steps=6)


def test_a_card_never_tells_of_the_network_of_a_name_where_another_was_trained(start):
    prepared = start()
    train_in_folder(tiny_network(), prepared, quiet)
    with pytest.raises(RunError, match=r"holds a network that no name makes.*compare it instead\."):
        model_card(prepared.run.folder)


def test_temporary_files_of_writers_that_were_killed_are_removed_at_the_start(start):
    prepared = start()
    for name in (".checkpoint.pt.123-456.tmp", ".metrics.csv.9-7.tmp", ".mine", "notes.tmp"):
        (prepared.run.folder / name).write_text("half a file")
    with pytest.raises(RuntimeError, match="a fault"):
        train_in_folder(at_step(1, fail), prepared, quiet)
    assert files(prepared.run.folder) == [".mine", "config.json", "data.json", "notes.tmp"]


@pytest.mark.parametrize("damage", ["garbage\n", "epoch,lr\n1,2\n1,2\n2,3\n", None], ids=["garbage", "other rows", "missing"])
def test_a_damaged_table_is_made_again_from_the_checkpoint(damage, start):
    prepared = start(epochs=3)
    file = prepared.run.folder / "metrics.csv"
    with pytest.raises(RuntimeError, match="a fault"):
        train_in_folder(at_step(7, fail), prepared, quiet)
    before = file.read_bytes()
    assert [row[0] for row in table(prepared.run)] == ["1", "2"]
    file.unlink()
    if damage is not None:
        file.write_text(damage)
    with pytest.raises(RuntimeError, match="a fault"):  # before another epoch is complete
        train_in_folder(at_step(1, fail), prepared, quiet)
    assert file.read_bytes() == before


def test_a_folder_that_another_process_trains_into_is_refused(start):
    prepared = start()
    (prepared.run.folder / ".checkpoint.pt.123-456.tmp").write_text("being written")
    with (
        prepared.run.locked(),
        untouched(prepared.run.folder),
        pytest.raises(RunError, match="is being trained by another process"),
    ):
        train_in_folder(tiny_network(), prepared, quiet)
    assert train_in_folder(tiny_network(), prepared, quiet).history.complete  # the other one has ended
    assert files(prepared.run.folder) == WRITTEN


LAUNCH_FAILED = "CUDA error: unspecified launch failure"
FOR_GOOD = (
    "'cpu' stopped working ({}), and this process cannot use it any more. Restart it (on Colab: Runtime > Restart session) "
)
NO_GRAPH = " If it happens again, set cuda_graph=False."


@pytest.mark.parametrize(("graph", "advice"), [(True, NO_GRAPH), (False, "")])
def test_a_gpu_that_stops_working_is_named_and_the_run_goes_on_after_its_last_epoch(graph, advice, start, reference, monkeypatch):
    prepared = start(**HARD, cuda_graph=graph)
    model = at_step(8, raising(RuntimeError(f"{LAUNCH_FAILED}.\nSearch for cudaErrorLaunchFailure in the manual.")))
    monkeypatch.setattr(model, "load_state_dict", fail)  # nothing can be copied to it any more
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "check_network", fail)  # which may copy it
        with pytest.raises(DeviceFailedError) as raised:
            train_in_folder(model, prepared, quiet)
    goes_on = "and run again with the same values: the run goes on after epoch 2 of 4."
    assert str(raised.value) == FOR_GOOD.format(LAUNCH_FAILED) + goes_on + advice
    check_goes_on(prepared, reference, steps=6)


def test_a_gpu_that_stops_working_before_the_first_epoch_is_complete(start, monkeypatch):
    broken = raising(RuntimeError("Caught an error in a thread.\nCUDA error: an illegal memory access was encountered\nmore"))
    prepared = start(max_lr="auto", run_name="mine")
    monkeypatch.setattr(recording, "range_test", broken)
    with pytest.raises(DeviceFailedError) as in_range_test:
        choose_learning_rate(tiny_network(), prepared)
    prepared = dataclasses.replace(prepared, config=prepared.config.replace(max_lr=0.1))
    with pytest.raises(DeviceFailedError) as in_training:
        train_in_folder(at_step(1, broken), prepared, quiet)
    nothing_lost = "and run again with the same values and run_name='mine': nothing was finished that could be lost."
    expected = FOR_GOOD.format("CUDA error: an illegal memory access was encountered") + nothing_lost + NO_GRAPH
    assert str(in_range_test.value) == str(in_training.value) == expected


@pytest.mark.parametrize("text", ["CUDA error: no kernel image is available", "CUDA error: out of memory", "a fault"])
def test_other_errors_are_not_taken_for_a_gpu_that_stopped_working(text):
    assert not is_device_failure(RuntimeError(text))


def test_a_disk_that_fills_up_in_epoch_two_leaves_epoch_one_to_go_on_from(start, monkeypatch, reference):
    prepared, save = start(**HARD), Checkpoint.save

    def full(self: Checkpoint, path: Path) -> None:
        if len(self.records) == 2:
            raise OSError(28, "No space left on device")
        save(self, path)

    monkeypatch.setattr(Checkpoint, "save", full)
    with pytest.raises(
        RunError, match=r"written into .* \(No space left on device\): the previous one is still there. Make room, and run"
    ):
        train_in_folder(network(), prepared, quiet)
    monkeypatch.undo()
    assert prepared.run.complete_epochs() == 1
    check_goes_on(prepared, reference, steps=9)


# ---- in a notebook ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "step", "done", "resolution"), [(press_stop, 8, 2, 8), (terminate, 11, 3, 10)])
def test_after_the_stop_button_the_complete_epochs_are_shown(stop, step, done, resolution, start, reference):
    prepared, model, lines = start(**HARD), network(), []
    _, history = train_or_stop(at_step(step, stop, model), prepared, lines.append)
    assert without_seconds(history) == without_seconds(reference.history)[:done]
    assert history.stopped == f", stopped after epoch {done} of 4"
    assert lines[-2:] == [STOPPED.format(done, prepared.run.folder), "What follows shows the run as it was then."]
    assert same_weights(model.state_dict(), reference.weights[done - 1])  # what the pictures that follow explain
    with torch.no_grad():
        logits = model.eval()(normalize(torch.from_numpy(TEST.images), TEST.mean, TEST.std, resolution))
    assert history.predictions.logits.shape == (10, 3)  # the whole test split, not the 5 images looked at between epochs
    np.testing.assert_allclose(history.predictions.logits, logits.numpy(), rtol=1e-6, atol=1e-7)
    assert history.predictions.labels.tolist() == TEST.labels.tolist()
    assert history.predictions.classes == TEST.classes
    check_goes_on(prepared, reference, steps=12 - 3 * done, train=train_or_stop)


def test_without_a_complete_epoch_there_is_nothing_to_show(start):
    lines: list[str] = []
    with pytest.raises(RunStopped, match="stopped after epoch 0 of 1") as raised:
        train_or_stop(at_step(2, press_stop), start(), lines.append)
    assert raised.value.exit_code == 130
    assert lines[-1].startswith("Stopped after epoch 0 of 1. ")
    assert " ".join(raised.value._render_traceback_()) == f"Training was stopped after epoch 0 of 1. {NOTHING_YET}"


def test_faults_are_not_taken_for_the_stop_button(start):
    with pytest.raises(RuntimeError, match="a fault"):
        train_or_stop(at_step(5, fail), start(epochs=2), quiet)


def test_a_run_that_was_stopped_fails_or_says_so_at_the_end_of_the_notebook(tmp_path, reference, monkeypatch, capsys):
    run, stopped = Run(tmp_path), dataclasses.replace(reference.history, records=reference.history.records[:3])
    sentence = "The run was stopped after epoch 3 of 4: run again to go on."
    with pytest.raises(RunError) as raised:
        require_complete(run, stopped)
    assert raised.value._render_traceback_() == [str(raised.value)] == [sentence]
    with monkeypatch.context() as patch:
        patch.setattr(untrained, "is_interactive", lambda: True)  # a person is told, and nothing fails
        require_complete(run, stopped)
    assert capsys.readouterr().out == f"{sentence}\n"
    run.checkpoint_file.write_bytes(b"x")
    run.write_json("summary.json", {"complete": True})
    require_complete(run, reference.history)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "use",
    [
        lambda history: history.records,
        lambda history: history.stopped,
        lambda history: history.predictions.wrong(order="loss"),
        len,
        list,
        bool,
        lambda worst: int(worst[0]),
    ],
)
def test_what_is_not_trained_says_so_when_it_is_used(use):
    with pytest.raises(NotTrainedError) as raised:
        use(Untrained())
    assert " ".join(raised.value._render_traceback_()) == f"This cell shows a trained network. {NOTHING_YET}"
    assert not hasattr(Untrained(), "_repr_html_")  # Jupyter looks for it and must not fail
