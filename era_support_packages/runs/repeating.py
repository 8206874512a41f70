"""The values that a command must give so that it trains a stored run again."""

from typing import Any

from era_support_packages.training.adapting import DEFAULT_PLAN, adapted, is_built_in, is_pretrained, usual_flip
from era_support_packages.training.config import PreparedConfig, TrainingConfig
from era_support_packages.training.presets import PRESETS

_IN_ANY_CASE = ("max_lr", "precision")  # where they are left open, the machine chooses
_ELSEWHERE = ("preset_name", "dataset", "seed")  # given beside these values
_SAME_RESULT = ("device", "stream", "workers", "threads", "cuda_graph", "run_name", "output_dir", "tracker")


def needed_values(config: PreparedConfig) -> dict[str, Any]:
    """The values beside preset, data and seed that a request needs to become this configuration, wherever it is made.

    What "auto" would choose otherwise on another machine, or for a folder of images, is among them, whoever chose it. `device`
    and what else changes no result is not.
    """
    stored = {name: value for name, value in config.to_dict().items() if name not in (*_ELSEWHERE, *_SAME_RESULT)}
    given = {name: stored[name] for name in _IN_ANY_CASE if stored[name] != "auto"}
    while True:  # a value that is given may take another of the preset away, as train_images does with max_epochs
        made = _made(config, given)
        missing = [name for name, value in stored.items() if value is not None and name not in given and made[name] != value]
        given |= {name: _typed(config, name) for name in missing}
        if missing:
            continue
        if stored["max_epochs"] is None and made["max_epochs"] is not None and "train_images" not in given:
            given["train_images"] = stored["train_images"]  # the preset's number, but without its limit
            continue
        return {name: given[name] for name in stored if name in given}


def _made(config: PreparedConfig, given: dict[str, Any]) -> dict[str, Any]:
    """What a request with these values becomes on the data of a run; what is not sure to be the same anywhere stays "auto"."""
    made = TrainingConfig.preset(config.preset_name, **given).to_dict()
    answers: dict[str, Any] = {"pretrained": is_pretrained(made), "engine": "device"}
    if is_built_in({"dataset": config.dataset}):
        answers |= {"image_size": 32, "fit": "crop", "horizontal_flip": usual_flip(config.dataset)}
    made |= {name: answer for name, answer in answers.items() if made[name] == "auto"}
    assert config.image_size != "auto"
    return adapted(made, config.image_size)


def _typed(config: PreparedConfig, name: str) -> Any:
    """A stored value as it must be given: the preset's own resolutions as shares of the size, as px they would grow."""
    value = config.to_dict()[name]
    if name != "resolutions" or list(config.resolutions) != list(PRESETS[config.preset_name].get("resolutions", DEFAULT_PLAN)):
        return value
    assert config.image_size != "auto"
    return [[pixels / config.image_size, share] for pixels, share in value]
