"""Workers that decode and augment: the same batches for any number of them, and a sentence for each way in which they fail."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from left_behind import left_behind
from photo_folder import write_photos
from torch.utils.data import DataLoader, Dataset, get_worker_info

from era_support_packages.datasets import workers as workers_module
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches, augmented_variants
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset
from era_support_packages.datasets.loading import load
from era_support_packages.datasets.streaming import ImageFiles
from era_support_packages.datasets.workers import WorkerLostError, lost_workers, prefetch
from era_support_packages.system.processes import Processes

pytestmark = pytest.mark.unhurried

CPU = torch.device("cpu")
POLICY = AugmentationPolicy(horizontal_flip=0.5, crop_padding=4, cutout=6, rgb_shift=0.5, brightness_contrast=0.5)
ROTATED = dataclasses.replace(POLICY, shift_scale_rotate=0.5)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", train=6, test=1, odd=True)


def batches(dataset: ImageDataset, policy: AugmentationPolicy = POLICY, size: int = 4, **options: Any) -> list[Any]:
    """Two passes and a half from image 3 on, at 24 px."""
    return list(TrainingBatches(dataset, policy, size, CPU, seed=1, **options).epoch(24, 3, 5 * len(dataset) // 2))


def assert_same(some: list[Any], others: list[Any]) -> None:
    assert len(some) == len(others) > 5
    for (pixels, labels), (same, same_labels) in zip(some, others, strict=True):
        assert torch.equal(pixels, same)
        assert torch.equal(labels, same_labels)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stream_shows_what_memory_shows_whatever_the_number_of_workers(photos, workers):
    memory, stream = (load(photos, stream=choice)[0] for choice in (False, True))
    shown = batches(stream, ROTATED, workers=workers)
    assert_same(shown, batches(memory, ROTATED, engine="samples", workers=0))


def test_a_stream_shows_what_the_device_engine_shows(photos):
    memory, stream = (load(photos, stream=choice)[0] for choice in (False, True))
    assert TrainingBatches(stream, POLICY, 4, CPU).engine == "samples"
    assert_same(batches(stream), batches(memory, engine="device"))  # the same bits, but for interpolation
    rotated = zip(batches(stream, ROTATED), batches(memory, ROTATED, engine="device"), strict=True)
    differences = [(one - other).abs() * torch.tensor(memory.std)[:, None, None] * 255 for (one, _), (other, _) in rotated]
    assert max(found.mean() for found in differences) < 0.3
    with pytest.raises(ValueError, match=r"engine is 'device', .* those of photos are streamed: give engine='samples' or 'auto'"):
        batches(stream, engine="device")


def test_variants_for_looking_at_are_the_same(photos):
    memory, stream = (load(photos, stream=choice)[0] for choice in (False, True))
    first, second = (augmented_variants(part, np.array([4, 20]), ROTATED, count=2) for part in (memory, stream))
    assert np.array_equal(first.originals, second.originals)
    assert np.array_equal(first.variants, second.variants)


def test_each_of_several_processes_decodes_its_own_slices_alone(photos, monkeypatch):
    stream = load(photos, stream=True)[0]
    decoded: list[int] = []
    pixels = ImageFiles.pixels
    monkeypatch.setattr(ImageFiles, "pixels", lambda self, number: decoded.append(number) or pixels(self, number))
    whole = batches(stream, size=6)
    everything, parts = decoded.copy(), []
    for rank in range(2):
        decoded.clear()
        parts.append(batches(stream, size=6, processes=Processes(rank, 2)))
        assert decoded == [number for place, number in enumerate(everything) if place % 6 // 3 == rank]
    assert_same(whole, [tuple(map(torch.cat, zip(*both, strict=True))) for both in zip(*parts, strict=True)])


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_gone_ends_the_epoch_with_one_sentence(photos, workers):
    stream = load(photos, stream=True)[0]
    before = batches(stream, workers=0)
    file = photos / "train" / "dog" / "2.jpg"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(DatasetError) as caught:
        batches(stream, workers=workers)
    assert str(caught.value) == (
        f"{file} cannot be read any more (No such file or directory): put it back and run again with the same values, or load "
        "the folder anew without it."
    )
    file.write_bytes(content)
    assert_same(batches(stream, workers=workers), before)


@pytest.mark.parametrize(("workers", "fewer"), [(1, "workers=0"), (2, "workers=1")])
def test_a_worker_that_is_killed_gets_a_sentence(photos, monkeypatch, workers, fewer):
    stream = load(photos, stream=True)[0]
    pixels = ImageFiles.pixels

    def killed(self: ImageFiles, number: int) -> np.ndarray:
        if number == 7 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return pixels(self, number)

    monkeypatch.setattr(ImageFiles, "pixels", killed)
    sentence = rf"^A worker that prepares images was killed, most likely because .* machine is full: set {fewer} or a smaller"
    with pytest.raises(WorkerLostError, match=sentence), lost_workers(workers):
        batches(stream, workers=workers)
    assert len(batches(stream, workers=0)) > 5


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Bus error.", r"shared memory \(/dev/shm\) is too small"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", r"broke down \(.* fault\): set"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "was killed, most likely"),
    ],
)
def test_what_pytorch_says_of_lost_workers_becomes_a_sentence(said, sentence):
    with pytest.raises(WorkerLostError, match=sentence), lost_workers(4):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match=r"^anything$"), lost_workers(4):
        raise RuntimeError("anything")


@pytest.mark.parametrize(("free", "workers", "count"), [(None, 2, 4), (10**9, 1, 4), (10**9, 4, 3), (10**9, 64, 1), (0, 1, 1)])
def test_batches_are_prepared_ahead_as_far_as_memory_allows(monkeypatch, free, workers, count):
    monkeypatch.setattr(workers_module, "free_memory", lambda: free)
    assert prefetch(10**7, workers) == count  # an eighth of what is free


class _Settings(Dataset[Any]):
    """What a worker is like."""

    images = np.zeros((1, 1, 1, 3), np.uint8)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> list[Any]:
        return [cv2.getNumThreads(), *(signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))]


def test_a_worker_has_one_thread_and_ends_on_sigterm_but_not_on_ctrl_c():
    threads, handler = cv2.getNumThreads(), signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        cv2.setNumThreads(2)
        [found] = DataLoader(_Settings(), None, num_workers=1, worker_init_fn=workers_module._start_worker)
        assert found == [1, signal.SIG_DFL, signal.SIG_IGN]  # one: what OpenCV calls no threads of its own
    finally:
        signal.signal(signal.SIGTERM, handler)
        cv2.setNumThreads(threads)


ENDLESS = """
import sys, time
import torch
from era_support_packages.datasets import load
from era_support_packages.datasets.augmentation_policy import AugmentationPolicy
from era_support_packages.datasets.batches import TrainingBatches

train, _ = load(sys.argv[1], stream=True)
try:
    for images, _ in TrainingBatches(train, AugmentationPolicy(), 4, torch.device("cpu"), workers=2).epoch(8, 0, 10**6):
        print("batch", flush=True)
        time.sleep(0.05)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def workers_of(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(pid) for task in Path(f"/proc/{parent}/task").iterdir() for pid in (task / "children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 1)])
def test_workers_end_with_the_process_however_it_ends(photos, number, code):
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(photos)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        guard = threading.Timer(120, process.kill)
        guard.start()
        while process.stdout.readline().strip() != b"batch":
            assert process.poll() is None, process.stderr.read()
        started = workers_of(process.pid)
        assert len(started) == 2
        # Ctrl-C goes to all processes of a terminal
        os.killpg(process.pid, number) if number == signal.SIGINT else process.kill()
        said = process.stderr.read().decode()
        assert process.wait() == code
        guard.cancel()
    if number == signal.SIGINT:
        assert said.splitlines()[-1] == "interrupted"
        assert "Traceback" not in said
    assert left_behind(started) == []
