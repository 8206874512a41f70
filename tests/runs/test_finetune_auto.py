"""What "auto" is for photos: a network that has learned, or loudly none where its weights cannot be had."""

import json
import urllib.error
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from era_support_packages.datasets import sizing
from era_support_packages.models import libraries
from era_support_packages.models.catalog import build_network
from era_support_packages.models.pretrained import WeightsError
from era_support_packages.runs import RunStopped, prepare, train_prepared
from era_support_packages.runs.data_sets import fitting_for
from era_support_packages.runs.starting import chosen_preset, data_asked, recipe_for
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.presets import named_preset

pytest.importorskip("torchvision")
NAME = "torchvision/squeezenet1_1"
SMALL = {"model": NAME, "image_size": 64, "train_images": 16, "batch_size": 4, "device": "cpu", "precision": "fp32", "threads": 1}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of 80 px photos of two classes, in a folder to work in, on a machine without a way out and without weights."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 3)):
        for label, red in (("cat", 40), ("dog", 200)):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 50, (80, 90, 3)) + np.array([red, 100, 0])
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / split / label / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("ERA_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setenv("ERA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def no_network(*_, **__):
        raise urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "photos"


def test_without_weights_auto_trains_from_scratch_and_says_so_everywhere(photos):
    lines = []
    prepared = prepare(dataset=str(photos), report=lines.append, **SMALL)
    said = "\n".join(lines)
    assert "NO PRETRAINED WEIGHTS: THIS RUN TRAINS FROM SCRATCH" in said
    assert "cannot be downloaded ([Errno 101] Network is unreachable)" in said
    config = prepared.config
    assert (config.preset_name, config.pretrained, config.optimizer) == ("scratch", False, "sgd")
    assert config.resolutions == ((32, 0.5), (64, 0.5))
    assert prepared.train.title == "photos (folder of images), from scratch"
    train_prepared(prepared, report=lines.append)
    summary = json.loads((prepared.run.folder / "summary.json").read_text())
    assert (summary["preset"], summary["start"], summary["complete"]) == ("scratch", "random weights", True)
    again = prepare(dataset=str(photos), report=lines.append, **SMALL)  # and is found again
    assert again.run == prepared.run
    assert again.test.title.endswith(", from scratch")


@pytest.mark.parametrize(
    "asked",
    [
        {"preset": "finetune"},
        {"pretrained": True},
        {"preset": "finetune", "pretrained": True},
        {"pretrained": True, "model": None},  # the preset's
    ],
    ids=str,
)
def test_what_is_asked_for_by_name_is_refused_in_one_sentence(asked, photos):
    with pytest.raises(WeightsError) as raised:
        prepare(dataset=str(photos), report=lambda line: None, **{**SMALL, **asked})
    name = NAME if "model" not in asked else "torchvision/resnet18"
    assert str(raised.value).startswith(f"The pretrained weights of {name} cannot be downloaded")
    assert not (photos.parent / "runs").exists() or not list((photos.parent / "runs").glob("*/config.json"))


def test_with_weights_auto_finetunes_and_the_run_goes_on_without_them(photos, tmp_path, monkeypatch):
    own = SimpleNamespace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    found = SimpleNamespace(url="https://example.org/squeeze.pth", transforms=lambda: own)
    monkeypatch.setattr(libraries, "torchvision_weights", lambda name: found)
    torch.manual_seed(5)
    torch.save(build_network(NAME, 7).state_dict(), tmp_path / "weights" / "squeeze.pth")
    lines = []
    prepared = prepare(dataset=str(photos), report=lines.append, **SMALL)
    config = prepared.config
    assert (config.preset_name, config.pretrained, config.optimizer, config.max_lr) == ("finetune", True, "adamw", 0.0005)
    assert (config.freeze_norms, config.crop_padding, config.resolutions) == (True, 4, ((64, 1.0),))
    assert (prepared.train.mean, prepared.train.title) == (own.mean, "photos (folder of images)")
    assert [(epoch.images, epoch.head_only) for epoch in config.planned_epochs(16)] == [(4, True), (12, False)]

    def stop(record):
        (tmp_path / "weights" / "squeeze.pth").unlink()
        raise KeyboardInterrupt

    with pytest.raises(RunStopped):
        train_prepared(prepared, report=lines.append, watch=stop)
    again = prepare(dataset=str(photos), report=lines.append, **SMALL)
    assert again.run == prepared.run
    _, history = train_prepared(again, report=lines.append)
    assert history.complete
    assert "Up to epoch 1 only the last layer learns, then all of the network." in lines
    summary = again.run.summary()
    assert (summary["preset"], summary["start"]) == ("finetune", "pretrained weights")


@pytest.mark.parametrize(
    ("values", "preset"),
    [
        ({}, "finetune"),
        ({"image_size": 49}, "finetune"),
        ({"image_size": 48}, "cpu"),
        ({"model": NAME}, "finetune"),
        ({"model": "ResNet34"}, "cpu"),
        ({"model": "ResNet34", "weights": "w.pth"}, "finetune"),
        ({"weights": "w.pth"}, "cpu"),  # of the network that is trained where none is named
        ({"pretrained": False}, "scratch"),
        ({"dataset": "digits"}, "cpu"),
        ({"dataset": "digits", "image_size": 64}, "cpu"),
    ],
)
def test_which_preset_auto_is(values, preset, photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert recipe_for("auto", {"dataset": str(photos), **values}).preset_name == preset
    assert recipe_for("smoke", {"dataset": str(photos), **values}).preset_name == "smoke"


def test_a_run_that_was_begun_before_auto_was_finetune_is_named(photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = {"dataset": str(photos), "image_size": 64, "device": "cpu", "precision": "fp32", "threads": 1, "max_lr": 0.01}
    before = prepare("cpu", report=lambda line: None, **plain)
    lines = []
    found = prepare("auto", report=lines.append, **plain)
    assert found.config.preset_name == "scratch"
    assert (
        f"{before.run.folder} holds a run with the preset that 'auto' was before: to go on with it, give that one by name."
        in lines
    )


def test_photos_keep_their_size_where_no_more_of_them_are_shown(photos, monkeypatch):
    monkeypatch.setattr(sizing, "_largest_in_time", lambda count: 32)  # as for ten thousands of them
    for preset, size in (("auto", 64), ("finetune", 64), ("scratch", 64), ("cpu", 32)):
        asked = recipe_for(preset, {"dataset": str(photos), "device": "cpu"})
        assert fitting_for(asked, None, resume=False)[0].size == size, preset


def test_a_sweep_takes_the_preset_and_the_images_that_one_run_would(photos):
    lines = []
    values = {"dataset": str(photos), "device": "cpu", "model": NAME, "max_lr": 0.01}
    assert fitting_for(data_asked(values, "auto", None), None, resume=False)[0].size == 64
    assert chosen_preset(values, 16, 64, None, lines.append) == "scratch"
    assert "NO PRETRAINED WEIGHTS" in lines[0]
    assert chosen_preset({**values, "weights": "w.pth"}, 16, 64, None, lines.append) == "finetune"
    assert chosen_preset({"dataset": "digits"}, 1437, 32, None, lines.append) == "cpu"
    assert len(lines) == 1


@pytest.mark.parametrize(("values", "preset"), [({}, "cpu"), ({"pretrained": True}, "finetune"), ({"pretrained": False}, "cpu")])
def test_values_are_checked_before_the_data_is_known(values, preset):
    assert named_preset("auto", values) == preset
    assert named_preset("best", values) == "best"
    TrainingConfig.preset(preset, **values)


@pytest.mark.parametrize("preset", ["finetune", "scratch", "fast"])
def test_what_is_left_open_is_counted_before_it_is_shared_out(preset, photos, tmp_path):
    torch.save(build_network(NAME, 7).state_dict(), tmp_path / "w.pth")
    own = {"weights": str(tmp_path / "w.pth")} if preset == "finetune" else {"pretrained": False}
    values = {**SMALL, "train_images": "auto", "batch_size": 8, **own}
    prepared = prepare(preset, dataset=str(photos), report=lambda line: None, devices=2, **values)
    assert prepared.config.train_images == {"finetune": 10_000, "scratch": 30_000, "fast": 10_000}[preset]
    with pytest.raises(ValueError, match="which 2 processes cannot share out evenly"):
        prepare(preset, dataset=str(photos), report=lambda line: None, devices=2, **{**values, "batch_size": 9})
