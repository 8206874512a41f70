"""Training from a stream is training from memory by the sample, bit by bit, and goes on from either in the other."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from photo_folder import write_photos
from tiny import asking, plan, quiet, tiny_network

from era_support_packages.datasets.loading import load
from era_support_packages.datasets.validation import hold_out
from era_support_packages.system.processes import Processes
from era_support_packages.training import cost, resolution as resolution_module
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.loop import fit
from era_support_packages.training.lr_finder import range_test
from era_support_packages.training.resolution import prepare_config, usual_workers
from era_support_packages.training.step import TrainingStep

POLICY = {"horizontal_flip": 0.5, "crop_padding": 4, "cutout": 6, "rgb_shift": 0.5, "brightness_contrast": 0.5}
STEPS = {"epochs": 4, "batch_size": 6, "resolutions": ((16, 0.5), (24, 0.5)), **POLICY}  # five steps an epoch
pytestmark = [pytest.mark.unhurried, pytest.mark.usefixtures("instant")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", train=9, test=3, odd=True)


def trained(folder: Path, stream: bool, monkeypatch: pytest.MonkeyPatch, resume: Checkpoint | None = None, **values: Any) -> Any:
    """The network's weights after each step's loss, the records, and the states kept after each epoch."""
    train, test = load(folder, stream=stream)
    config = plan(**{**STEPS, "shift_scale_rotate": 0.5, "engine": "samples", "stream": stream, **values})
    losses: list[float] = []
    call = TrainingStep.__call__

    def noted(self: TrainingStep, *batch: torch.Tensor) -> Any:
        loss, hits = call(self, *batch)
        losses.append(loss.item())
        return loss, hits

    states: list[dict[str, Any]] = []

    def keep(state: Checkpoint) -> None:
        path = folder.parent / f"state-{len(states)}.pt"
        state.save(path)
        states.append(Checkpoint.load(path))

    network = tiny_network()
    with monkeypatch.context() as patched:
        patched.setattr(TrainingStep, "__call__", noted)
        _, history = fit(network, train, test, config, quiet, keep, resume)
    rows = [dataclasses.replace(record, seconds=0) for record in history.records]
    return network.state_dict(), losses, rows, history.predictions.logits, states


def assert_same(one: Any, other: Any) -> None:
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1] == other[1]
    assert one[2] == other[2]
    assert (one[3] == other[3]).all()
    assert one[4][0].data == other[4][0].data


def test_twenty_steps_from_a_stream_are_those_from_memory_whatever_the_number_of_workers(photos, monkeypatch):
    memory = trained(photos, False, monkeypatch)
    assert len(memory[1]) == 20
    for workers in (0, 1, 2):
        assert_same(trained(photos, True, monkeypatch, workers=workers), memory)


def test_with_operations_that_do_not_interpolate_they_are_those_of_the_device_engine(photos, monkeypatch):
    values = {"shift_scale_rotate": 0.0, "random_resized_crop": 0.0}
    assert_same(trained(photos, True, monkeypatch, **values), trained(photos, False, monkeypatch, engine="device", **values))


@pytest.mark.parametrize("stream", [True, False])
def test_a_run_goes_on_from_a_stream_in_memory_and_the_other_way_round(photos, monkeypatch, stream):
    whole = trained(photos, True, monkeypatch)
    begun = trained(photos, stream, monkeypatch)[4][1]
    assert len(begun.records) == 2
    weights, losses, rows, logits, _ = trained(photos, not stream, monkeypatch, resume=begun, workers=1)
    assert all(torch.equal(weights[name], whole[0][name]) for name in weights)
    assert (losses, rows) == (whole[1][10:], whole[2])
    assert (logits == whole[3]).all()


def test_held_out_images_whitening_statistics_and_the_range_test_go_with_a_stream(photos):
    found = []
    for stream in (False, True):
        train, validation, test = hold_out(*load(photos, stream=stream), 0.2)
        values = {**STEPS, "engine": "samples", "stream": stream, "validation": 0.2, "epochs": 1}
        tested = range_test(tiny_network(), train, 9, plan(**values, max_lr="auto", range_test_iterations=16))
        network = tiny_network()
        _, history = fit(network, train, test, plan(**values), quiet, validation=validation)
        found.append((tested.losses.tolist(), history.records[0].validation_loss, history.records[0].test_loss, network))
    assert found[0][:3] == found[1][:3]
    assert len(found[0][0]) == 16
    assert all(torch.equal(one, other) for one, other in zip(*(part[3].state_dict().values() for part in found), strict=True))


# ---- the configuration -----------------------------------------------------------------------------------------------


def test_auto_is_answered_by_the_images(photos):
    memory, stream = (load(photos, stream=choice)[0] for choice in (False, True))
    found = [prepare_config(asking(engine="auto", stream="auto", workers="auto"), part) for part in (memory, stream)]
    assert [(config.engine, config.stream, config.workers) for config in found] == [("device", False, 0), ("samples", True, 1)]
    for values, part, sentence in (
        ({"stream": True}, memory, r"stream is True, but these images are held in memory: load them by .*stream=True"),
        ({"stream": False}, stream, r"stream is False, but these images are streamed: load them by .*stream=False"),
        ({"stream": "auto", "engine": "device"}, stream, r"those of photos are streamed: give engine='samples'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            prepare_config(asking(**{"engine": "auto", **values}), part)
    with pytest.raises(ValueError, match=r"stream is True and engine is 'device'.*: set engine to 'samples'"):
        TrainingConfig.preset("cpu", stream=True, engine="device")


@pytest.mark.parametrize(
    ("device", "streamed", "engine", "cores", "workers"),
    [("cuda", True, "auto", 2, 2), ("cuda", True, "samples", 16, 8), ("cpu", True, "auto", 16, 1), ("cpu", False, "auto", 16, 0)],
)
def test_a_gpu_has_its_images_decoded_by_all_cores(monkeypatch, device, streamed, engine, cores, workers):
    monkeypatch.setattr(resolution_module, "usable_cores", lambda: cores)
    assert usual_workers(device, streamed, engine) == workers


def test_streaming_renames_no_run():
    names = {TrainingConfig.preset("cpu", stream=stream).default_run_name("photos") for stream in ("auto", True, False)}
    assert len(names) == 1
    assert asking(engine="samples", stream=True).differences(plan(engine="samples", stream=False)) == []


@pytest.mark.parametrize(
    ("device", "workers", "processes", "seconds"),
    [("cpu", 0, 1, 110.0), ("cpu", 2, 1, 60.0), ("cuda:0", 0, 1, 110.0), ("cuda:0", 4, 1, 25.0), ("cuda:0", 50, 2, 10.0)],
)
def test_the_predicted_time_has_the_decoding_in_it(photos, monkeypatch, device, workers, processes, seconds):
    memory, stream = (load(photos, stream=choice)[0] for choice in (False, True))
    clock = iter((3.0, 5.0))  # for the 16 images: an eighth of a second each
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))
    config = plan(engine="samples", workers=workers, train_images=800).replace(device=device)
    planned = config.planned_epochs(len(stream))
    assert sum(epoch.images for epoch in planned) == 800
    assert cost.with_decoding(10.0, memory, planned, config) == 10.0
    assert cost.with_decoding(10.0, stream, planned, config, Processes(0, processes)) == pytest.approx(seconds)
