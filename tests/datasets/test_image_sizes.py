"""Folders of photos at a size: chosen by photos and machine, kept apart in the cache, refused where memory is too small."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from era_support_packages.datasets import folder_cache, sizing
from era_support_packages.datasets.image_dataset import DatasetError
from era_support_packages.datasets.image_folder import load_image_folder
from era_support_packages.datasets.loading import load
from era_support_packages.datasets.sizing import auto_image_size
from era_support_packages.training.presets import PRESETS


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five photos of 80 x 60 px whose left quarter is white."""
    for label, gray in (("cat", 50), ("dog", 150)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        pixels = np.full((60, 80, 3), gray, np.uint8)
        pixels[:, :20] = 255
        for number in range(5):
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def test_a_folder_is_loaded_at_the_size_asked_for(photos, capsys):
    train, test = load(photos, image_size=48, fit="crop")
    assert (train.images.shape, test.images.shape) == ((8, 48, 48, 3), (2, 48, 48, 3))
    assert (train.image_size, test.fit) == (48, "crop")
    assert (train.images[0, :, :6] == 255).all()  # 10 of the 20 white columns are cut off
    assert (train.images[0, :, 10:] == 50).all()
    said = capsys.readouterr().out
    assert "images of 80x60 are resized to 48 px on their shorter side and cropped at the center to 48x48." in said.replace(
        "\n", " "
    )
    squashed, _ = load(photos)
    assert (squashed.image_size, squashed.fit, squashed.images.shape[1]) == (32, "squash", 32)
    assert (squashed.images[0, :, :8] == 255).all()


def test_each_size_and_fit_has_a_cache_of_its_own(photos, monkeypatch):
    first = {
        pair: load_image_folder(photos, "cache", False, *pair)[0].images for pair in ((32, "squash"), (64, "crop"), (64, "pad"))
    }
    assert len(list(Path("cache").iterdir())) == 3
    monkeypatch.setattr(folder_cache, "scan", lambda *_, **__: pytest.fail("decoded again"))
    for pair, images in first.items():
        assert np.array_equal(load_image_folder(photos, "cache", False, *pair)[0].images, images)


@pytest.mark.parametrize(
    ("count", "most"), [(200, 128), (992, 128), (993, 96), (1764, 96), (1765, 64), (3970, 64), (7940, 32), (10**6, 32)]
)
def test_on_a_cpu_many_photos_are_small_ones(count, most):
    # 2 * 79,400 * 32^2 px^2 in all: of 992 photos, shown ten times, each may have 128^2
    assert sizing._largest_in_time(count) == most
    assert (PRESETS["cpu"]["train_images"], PRESETS["cpu"]["max_epochs"]) == (sizing.SHOWN, sizing.PASSES)


@pytest.mark.parametrize(
    ("device", "side", "size"), [("cpu", 480, 128), ("cuda", 480, 224), ("cpu", 60, 48), ("cuda", 20, 32), ("mps", 130, 128)]
)
def test_auto_follows_the_median_photo_and_the_device(tmp_path, device, side, size):
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number, pixels in enumerate((side, side, 5000)):
            Image.new("L", (pixels, 2 * pixels) if number else (2 * pixels, pixels)).save(
                tmp_path / "set" / label / f"{number}.png"
            )
    found, sentence = auto_image_size(tmp_path / "set", device)
    assert (found, f"shorter side is {side} px" in sentence) == (size, True)


def test_auto_takes_a_smaller_size_where_memory_is_small_and_must_hold_them_and_says_so(photos, monkeypatch):
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * 10 * 3 * 40 * 40)
    size, sentence = auto_image_size(photos, "cpu", stream=False)
    assert size == 32
    assert "more than a third of the free memory" in sentence
    assert auto_image_size(photos, "cpu")[0] == 48  # they are streamed


def test_what_does_not_fit_is_refused_with_the_numbers_and_a_size_that_does(photos, monkeypatch):
    monkeypatch.setattr(sizing, "free_memory", lambda: 3 * 10 * 3 * 100 * 100)
    with pytest.raises(DatasetError, match=r"10 images of 128x128 px take 0 MB .* 1 MB .*: give image_size=96 or less"):
        load(photos, image_size=128, stream=False)
    assert load(photos, image_size=96, stream=False)[0].image_size == 96
    assert not [file for file in Path("runs/.cache").iterdir() if "128" in file.name]


def test_the_named_data_sets_are_enlarged():
    train, test = load("digits", image_size=40, fit="crop")
    assert (train.images.shape[1:], test.images.shape[1:], train.fit) == ((40, 40, 3), (40, 40, 3), "crop")
    assert train.mean == test.mean == pytest.approx((train.images[..., 0] / 255).mean().repeat(3))
    assert train.fingerprint == load("digits")[0].fingerprint


@pytest.mark.parametrize("size", [31, 513, "large", 64.0])
def test_another_size_is_refused(size):
    with pytest.raises(ValueError, match=f"image_size is {size!r}; give a whole number of px from 32 to 512"):
        load("digits", image_size=size)
