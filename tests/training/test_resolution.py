"""From what was asked for to what a run uses: "auto" is answered once, by the machine and the data."""

import dataclasses
from typing import Any

import pytest
from tiny import asking, colored_images, plan

from era_support_packages.system import machine as hardware
from era_support_packages.training.config import ConfigValues, PreparedConfig, ResolvedConfig, TrainingConfig
from era_support_packages.training.resolution import prepare_config, resolve, stored_config


def changed(before: ConfigValues, after: ConfigValues) -> dict[str, Any]:
    """The values of `after` that differ from `before`."""
    old = before.to_dict()
    return {name: value for name, value in after.to_dict().items() if value != old[name]}


def test_resolve_replaces_every_auto_but_max_lr_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(hardware, "_bf16_is_faster", lambda: True)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    automatic = TrainingConfig.preset("original")
    prepared = prepare_config(automatic, colored_images(3))
    machine = {"device": "cpu", "precision": "bf16", "engine": "device", "workers": 0, "threads": 7}
    assert changed(automatic, prepared) == {"dataset": "colours", **machine}
    assert [name for name, value in prepared.to_dict().items() if value == "auto"] == ["max_lr"]
    monkeypatch.setattr(hardware, "_bf16_is_faster", lambda: False)
    assert prepare_config(automatic, colored_images(3)).precision == "fp32"


@pytest.mark.parametrize(("engine", "workers"), [("auto", 0), ("device", 0), ("samples", 2)])
def test_resolve_on_a_gpu_takes_two_workers_for_samples(engine: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    automatic = TrainingConfig.preset("original", threads=1, engine=engine)
    resolved = prepare_config(automatic, colored_images(3))
    expected = {"dataset": "colours", "device": "cuda:0", "precision": "fp16", "workers": workers}
    assert changed(automatic, resolved) == expected | ({"engine": "device"} if engine == "auto" else {})


def test_resolve_mirrors_no_digits() -> None:
    automatic = asking(horizontal_flip="auto")
    assert resolve(automatic, colored_images(3)).horizontal_flip == 0.5
    assert resolve(automatic, dataclasses.replace(colored_images(3), name="digits")).horizontal_flip == 0.0
    assert resolve(asking(horizontal_flip=0.3), colored_images(3)).horizontal_flip == 0.3
    digits = dataclasses.replace(colored_images(3), name="digits")
    assert resolve(asking(horizontal_flip="auto", alternating_flip=True), digits).horizontal_flip == 0.0


def test_resolve_keeps_what_is_given() -> None:
    given = {"dataset": "data/some-folder", "workers": 3, "threads": 5, "precision": "bf16"}
    assert resolve(asking(**given), colored_images(3)) == plan(**given)


def test_resolve_needs_a_number_for_max_lr() -> None:
    with pytest.raises(ValueError, match=r"^max_lr is still 'auto'; run the range test first") as raised:
        resolve(asking(max_lr="auto"), colored_images(3))
    assert "or give a number" in str(raised.value)
    prepared = prepare_config(asking(max_lr="auto"), colored_images(3))
    assert type(prepared) is PreparedConfig
    assert prepared.resolved(0.25) == plan(max_lr=0.25)
    assert type(resolve(asking(), colored_images(3))) is ResolvedConfig


@pytest.mark.parametrize("name", ["dataset", "horizontal_flip", "precision", "device", "engine", "workers", "threads", "max_lr"])
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
    older = {
        name: value for name, value in written.items() if name not in ("threads", "engine", "horizontal_flip", "warmup_start")
    }
    assert stored_config(older).to_dict() == {**written, "threads": 7, "horizontal_flip": 0.5}
    assert stored_config({**older, "dataset": "digits"}).horizontal_flip == 0.0
