"""Streamed images: the same as those in memory, decoded when they are asked for, chosen where memory is small."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from photo_folder import write_photos

from era_support_packages.datasets import folder_cache, scanning, sizing, streaming
from era_support_packages.datasets.image_dataset import DatasetError, ImageDataset, fingerprint_of
from era_support_packages.datasets.loading import load
from era_support_packages.datasets.normalization import image_batches
from era_support_packages.datasets.streaming import ImageFiles, StreamedImages, in_parts, known_to_differ, taken
from era_support_packages.datasets.validation import hold_out

pytestmark = pytest.mark.unhurried

MB = 10**6


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", train=5, test=2, odd=True)


def both(folder: Path, **options: object) -> list[tuple[ImageDataset, ImageDataset]]:
    return [load(folder, stream=stream, **options) for stream in (False, True)]


def assert_same(memory: ImageDataset, stream: ImageDataset) -> None:
    assert (memory.streamed, stream.streamed) == (False, True)
    assert (stream.images.shape, stream.images.dtype, stream.images.ndim) == (memory.images.shape, np.uint8, 4)
    assert np.array_equal(stream.images[:], memory.images)
    assert np.array_equal(stream.labels, memory.labels)
    names = ("mean", "std", "bits", "fit", "classes", "name", "title", "split", "held_out", "image_size", "fingerprint")
    assert [getattr(stream, name) for name in names] == [getattr(memory, name) for name in names]


@pytest.mark.parametrize(("size", "fit"), [(32, "squash"), (48, "crop"), (64, "pad")])
def test_a_stream_has_the_pixels_statistics_and_fingerprint_of_memory(photos, size, fit, capsys):
    memory, stream = both(photos, image_size=size, fit=fit)
    for pair in zip(memory, stream, strict=True):
        assert_same(*pair)
    assert memory[0].bits == 12  # of the files of 16 bits
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.count("read as 12 bits") == 2
    assert f"25 images of {size}x{size} px (0 megapixels) take 0 MB decoded" in said
    assert said.count("each is decoded when it is used, by workers.") == 1


def test_what_is_held_out_or_taken_has_the_same_statistics_and_fingerprint(photos):
    memory, stream = both(photos, image_size=32)
    for pair in zip(hold_out(*memory, 0.2), hold_out(*stream, 0.2), strict=True):
        assert_same(*pair)
    for chosen in ([5, 0, 2], np.arange(len(memory[0])) % 3 == 1, []):
        some, same = (part[0].take(chosen) for part in (memory, stream))
        assert_same(some, same)
        assert fingerprint_of(some) == fingerprint_of(same)


def test_other_images_are_told_from_the_same(photos):
    (_, memory), (_, stream) = both(photos, image_size=32)
    same, other = memory.images.copy(), memory.images[::-1]
    for given in (memory.images, stream.images):
        assert [known_to_differ(given, images) for images in (given, memory.images, same, other, other[1:])] == [False] * 3 + [
            True
        ] * 2
    backwards = taken(stream.images, np.arange(len(stream))[::-1])
    larger = load(photos, stream=True, image_size=48)[1].images
    assert [known_to_differ(stream.images, images) for images in (backwards, larger, larger[:])] == [True, False, False]


def test_what_is_taken_is_not_decoded(photos, monkeypatch):
    train, _ = load(photos, stream=True)
    monkeypatch.setattr(ImageFiles, "pixels", lambda *_: pytest.fail("decoded"))
    assert len(taken(train.images, [3, 1])) == len(train.take([3, 1])) == 2
    assert train.images.path(0) == str(photos / "train" / "cat" / "0.jpg")
    assert taken(train.images, slice(3, None)).path(0) == train.images.path(3)
    hold_out(*load(photos, stream=True), 0.2)
    assert load(photos, stream=True)[0].mean == train.mean


@pytest.mark.parametrize(
    "key", [0, np.int64(3), -1, slice(2, 9), slice(None, None, 4), [4, 4, 1], np.array([2, 0]), np.arange(18) == 7, []]
)
def test_it_is_indexed_by_images_as_an_array_is(photos, key):
    memory, stream = both(photos)
    key = np.array(key, dtype=np.int64) if isinstance(key, list) and not key else key
    found = stream[0].images[key]
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, memory[0].images[key])
    assert found.shape == memory[0].images[key].shape


def test_other_indices_are_refused(photos):
    train, _ = load(photos, stream=True)
    with pytest.raises(TypeError, match=r"indexed by images alone: images\[3\]\[:8, :8\]"):
        train.images[0, :8]
    with pytest.raises(IndexError):
        train.images[18]
    assert sum(1 for _ in train.images) == 18
    assert np.asarray(train.images.take([1])).shape == (1, 32, 32, 3)


def test_no_more_than_a_third_of_the_memory_is_decoded_at_once(photos, monkeypatch):
    train, _ = load(photos, stream=True)
    free = 3 * 17 * 32 * 32 * 3
    monkeypatch.setattr(streaming, "free_memory", lambda: free)
    assert len(train.images[:]) == 18  # so few are no matter
    monkeypatch.setattr(streaming, "AT_ONCE", 8)
    assert len(train.images[:17]) == 17
    for ask in (lambda: train.images[:], lambda: np.asarray(train.images)):
        with pytest.raises(DatasetError, match=r"^18 images of 32x32 px would take 0 MB .* ask for fewer at a time"):
            ask()
    assert [len(part) for part in in_parts(train.images, 5)] == [5, 5, 5, 3]


def test_all_images_are_gone_through_in_batches(photos, monkeypatch):
    memory, stream = both(photos, image_size=48)
    asked: list[int] = []
    room = StreamedImages._require_room
    monkeypatch.setattr(StreamedImages, "_require_room", lambda self, count: asked.append(count) or room(self, count))
    batches = [list(image_batches(part[1], 8, torch.device("cpu"), 32)) for part in (memory, stream)]
    assert torch.equal(torch.cat(batches[0]), torch.cat(batches[1]))
    assert asked == [len(batch) for batch in batches[1]] == [7]
    assert list(in_parts(stream[1].images.take([]), 8)) == []


# ---- one scan --------------------------------------------------------------------------------------------------------


def test_the_folder_is_read_once_and_a_changed_file_again(photos, monkeypatch):
    first, _ = load(photos, image_size=64, stream=True)
    [kept] = Path("runs/.cache").iterdir()
    assert kept.name.endswith("-64-squash-sums.npz")
    assert kept.stat().st_size < 20_000  # no pixels
    read: list[str] = []
    scan = folder_cache.scan
    monkeypatch.setattr(folder_cache, "scan", lambda files, **options: read.extend(files) or scan(files, **options))
    again, _ = load(photos, image_size=64, stream=True)
    assert (read, again.mean, again.fingerprint) == ([], first.mean, first.fingerprint)
    changed = photos / "train" / "cat" / "1.jpg"
    changed.write_bytes((photos / "train" / "dog" / "1.jpg").read_bytes())
    other, _ = load(photos, image_size=64, stream=True)
    assert read == [str(changed)]
    assert other.fingerprint != first.fingerprint
    assert np.array_equal(other.images[1], load(photos, image_size=64)[0].images[1])


def test_a_reading_that_is_interrupted_goes_on_where_it_was(photos, monkeypatch):
    monkeypatch.setattr(scanning, "CHUNK", 6)
    monkeypatch.setattr(folder_cache, "KEEP_EVERY", 0)
    read: list[str] = []
    chunk = scanning._scan_chunk

    def interrupted(files: list[str], *values: object) -> list[object]:
        if len(read) >= 12:
            raise KeyboardInterrupt
        read.extend(files)
        return chunk(files, *values)

    monkeypatch.setattr(scanning.os, "cpu_count", lambda: 1)
    with monkeypatch.context() as patched:
        patched.setattr(scanning, "_scan_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(photos, stream=True)
    monkeypatch.setattr(scanning, "_scan_chunk", lambda files, *values: read.extend(files) or chunk(files, *values))
    train, test = load(photos, stream=True)
    assert len(read) == len(set(read)) == 25
    for pair in zip(load(photos), (train, test), strict=True):
        assert_same(*pair)


@pytest.mark.parametrize("name", ["0.jpg", "deep.png"])
def test_a_file_that_is_gone_or_another_one_is_named_and_serves_again_once_it_is_back(photos, name):
    train, _ = load(photos, stream=True)
    file = photos / "train" / "fox" / name
    index = next(index for index in range(len(train)) if train.images.path(index) == str(file))
    before, content = train.images[index], file.read_bytes()
    file.unlink()
    with pytest.raises(DatasetError, match=rf"^{file} cannot be read any more \(No such file or directory\): put it back"):
        train.images[index]
    file.write_bytes((photos / "train" / "cat" / "1.jpg").read_bytes())
    with pytest.raises(DatasetError, match=rf"^{file} was changed since the folder was read: put it back"):
        train.images[:]
    file.write_bytes(content)
    assert np.array_equal(train.images[index], before)


def test_damaged_files_are_named_or_left_out_as_in_memory(photos):
    (photos / "train" / "cat" / "broken.jpg").write_bytes((photos / "train" / "cat" / "1.jpg").read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"broken.jpg cannot be decoded"):
        load(photos, stream=True)
    for pair in zip(*both(photos, skip_broken=True), strict=True):
        assert_same(*pair)


# ---- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("processes", "free", "streamed"), [(1, 24, True), (1, 25, False), (2, 49, True), (2, 50, False)])
def test_what_takes_more_than_a_third_of_the_free_memory_is_streamed(photos, monkeypatch, processes, free, streamed):
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * free * 32 * 32 * 3)
    monkeypatch.setattr(sizing, "local_processes", lambda: processes)
    assert load(photos)[0].streamed is streamed
    assert load(photos, stream=True)[0].streamed is True
    assert not load("digits")[0].streamed


def test_the_numbers_are_said(monkeypatch):
    monkeypatch.setattr(sizing, "free_memory", lambda: 9_000 * MB)
    assert str(sizing.holding(50_000, 224)) == (
        "50,000 images of 224x224 px (2,509 megapixels) take 7.5 GB decoded, more than a third of the 9.0 GB of memory that are "
        "free: each is decoded when it is used, by workers."
    )
    assert str(sizing.holding(1_000, 128, False)) == (
        "1,000 images of 128x128 px (16 megapixels) take 49 MB decoded, no more than a third of the 9.0 GB of memory that are "
        "free; stream is False: they are held in memory."
    )
    monkeypatch.setattr(sizing, "free_memory", lambda: None)
    assert not sizing.holding(10**9, 512).streamed


def test_where_it_must_not_be_streamed_it_is_refused(photos, monkeypatch):
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * 25 * 35 * 35 * 3)
    with pytest.raises(DatasetError, match=r"give image_size=32 or less, stream='auto' with engine='auto', which decodes each"):
        load(photos, image_size=48, stream=False)


@pytest.mark.parametrize("stream", ["yes", 1.5, None])
def test_another_choice_is_refused(photos, stream):
    with pytest.raises(ValueError, match=r"stream is .*; give True, False or 'auto'"):
        load(photos, stream=stream)


def test_a_named_data_set_is_not_streamed():
    with pytest.raises(ValueError, match=r"stream is True, but 'digits' is no folder of images and lies in memory: leave stream"):
        load("digits", stream=True)


def test_root_and_links_do_not_matter(photos, tmp_path):
    os.symlink(photos, tmp_path / "link")
    assert load(tmp_path / "link", stream=True)[0].images.path(0).startswith(str(photos))
