"""From what was asked for to what a run uses: "auto" is answered once, by the machine and the data."""

import dataclasses

import pytest
from tiny import asking, colored_images, plan

from era_support_packages.system import machine as hardware
from era_support_packages.training.config import PreparedConfig, ResolvedConfig, TrainingConfig
from era_support_packages.training.resolution import prepare_config, resolve, stored_config

TRAIN = colored_images(3)
SIZES = {"image_size": 32, "fit": "squash", "pretrained": False}


def test_resolve_replaces_every_auto_but_max_lr_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(hardware, "_bf16_is_faster", lambda: True)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    automatic = TrainingConfig.preset("original")
    machine = {"dataset": "colours", "device": "cpu", "precision": "bf16", "engine": "device", "workers": 0, "threads": 7}
    machine |= {"stream": False}
    assert prepare_config(automatic, TRAIN).to_dict() == {**automatic.to_dict(), **machine, **SIZES}
    assert automatic.max_lr == "auto"
    monkeypatch.setattr(hardware, "_bf16_is_faster", lambda: False)
    assert prepare_config(automatic, TRAIN).precision == "fp32"


@pytest.mark.parametrize(("engine", "workers"), [("auto", 0), ("device", 0), ("samples", 2)])
def test_resolve_on_a_gpu_takes_two_workers_for_samples(engine: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    automatic = TrainingConfig.preset("original", threads=1, engine=engine)
    machine = {"dataset": "colours", "device": "cuda:0", "precision": "fp16", "stream": False, "workers": workers}
    machine |= {"engine": "device" if engine == "auto" else engine}
    assert prepare_config(automatic, TRAIN).to_dict() == {**automatic.to_dict(), **machine, **SIZES}


def test_resolve_mirrors_no_digits() -> None:
    automatic, digits = asking(horizontal_flip="auto"), dataclasses.replace(TRAIN, name="digits")
    assert resolve(automatic, TRAIN).horizontal_flip == 0.5
    assert resolve(automatic, digits).horizontal_flip == 0.0
    assert resolve(asking(horizontal_flip="auto", alternating_flip=True), digits).horizontal_flip == 0.0
    given = {"horizontal_flip": 0.3, "dataset": "data/some-folder", "workers": 3, "threads": 5, "precision": "bf16"}
    assert resolve(asking(**given), digits) == plan(**given)  # what is given is kept


def test_resolve_needs_a_number_for_max_lr() -> None:
    with pytest.raises(ValueError, match=r"^max_lr is still 'auto'; run the range test first.* or give a number"):
        resolve(asking(max_lr="auto"), TRAIN)
    prepared = prepare_config(asking(max_lr="auto"), TRAIN)
    assert type(prepared) is PreparedConfig
    assert prepared.resolved(0.25) == plan(max_lr=0.25)
    assert type(resolve(asking(), TRAIN)) is ResolvedConfig


@pytest.mark.parametrize(
    "name", ["dataset", "horizontal_flip", "precision", "device", "engine", "stream", "workers", "threads", "max_lr"]
)
def test_a_resolved_configuration_leaves_nothing_open(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        plan().replace(**{name: "auto"})
    with pytest.raises(ValueError, match=f"needs {name} too"):
        ResolvedConfig.from_dict({key: value for key, value in plan().to_dict().items() if key != name})


def test_what_an_older_version_did_not_store_holds_its_default_or_is_answered_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    written = plan(device="cuda:0", precision="fp16", workers=2).to_dict()
    assert stored_config(written).to_dict() == written  # trained elsewhere: as it was
    later = ("threads", "engine", "horizontal_flip", "warmup_start")
    older = {name: value for name, value in written.items() if name not in later}
    assert stored_config(older).to_dict() == {**written, "threads": 7, "horizontal_flip": 0.5}
    assert stored_config({**older, "dataset": "digits"}).horizontal_flip == 0.0
