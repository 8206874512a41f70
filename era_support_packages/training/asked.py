"""What a person asks for, by a preset's name and some values, and the name that a run gets from it."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from era_support_packages.training.adapting import adapted
from era_support_packages.training.presets import PRESETS

if TYPE_CHECKING:
    from era_support_packages.training.config import ConfigValues, TrainingConfig

SMOKE_PASSES = 10
NOT_IN_THE_NAME = ("run_name", "output_dir", "device", "stream", "workers", "threads", "cuda_graph", "skip_broken", "tracker")


def preset_values(name: str, overrides: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The values of a preset with some changed, as `TrainingConfig.preset` says; `fields` are the names that there are."""
    given = {key: value for key, value in overrides.items() if value is not None or key not in fields}
    values = {**PRESETS[name], "preset_name": name}
    if "epochs" in given and "train_images" not in given:
        values.pop("train_images", None)
    if "train_images" in given and "epochs" not in given:
        values.pop("epochs", None)
    if {"epochs", "train_images"} & given.keys():
        values.pop("max_epochs", None)
    if given.get("horizontal_flip", "auto") not in ("auto", 0, 0.5) and "alternating_flip" not in given:
        values.pop("alternating_flip", None)
    return {**values, **given}


def run_name(asked: "TrainingConfig", default: "TrainingConfig", dataset: str) -> str:
    """`TrainingConfig.default_run_name`; what equals `default` is left out of it."""
    usual = default.to_dict()
    values = {key: value for key, value in asked.to_dict().items() if key not in NOT_IN_THE_NAME and value != usual[key]}
    values |= {"preset_name": asked.preset_name, "epochs": asked.epochs, "train_images": asked.train_images}
    values = json.loads(json.dumps(values), parse_int=float)  # 1 and 1.0 are the same value
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return f"{asked.preset_name}-{dataset}-{digest[:6]}"


def differences(asked: "ConfigValues", stored: "ConfigValues") -> list[str]:
    """`TrainingConfig.differences`: what was asked for is first brought to the image size of what is stored.

    What only Muon has differs where one of them learns by it.
    """
    own, other = asked.to_dict(), stored.to_dict()
    if isinstance(other["image_size"], int):
        own = adapted(own, other["image_size"])
    if "muon" not in (own["optimizer"], other["optimizer"]):
        own |= {name: other[name] for name in ("muon_lr", "muon_outputs")}
    return [
        f"{name} {other[name]!r} (here {own[name]!r})"
        for name in own
        if name not in NOT_IN_THE_NAME and own[name] not in ("auto", other[name])
    ]


def in_few_passes(asked: "TrainingConfig", given: Mapping[str, Any], training_images: int) -> "TrainingConfig":
    """For very few images the preset "smoke" in ten passes, where its number of images would make hundreds of them."""
    its_own = asked.preset_name == "smoke" and all(given.get(name) is None for name in ("epochs", "train_images", "max_epochs"))
    if its_own and isinstance(asked.train_images, int) and asked.train_images > SMOKE_PASSES * training_images:
        return asked.replace(max_epochs=SMOKE_PASSES)
    return asked
