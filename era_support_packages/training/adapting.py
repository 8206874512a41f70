"""What the values of a recipe become for other images and networks than those that the presets were made for.

These are images of 32 px and the CIFAR ResNets.
"""

from collections.abc import Mapping
from typing import Any

from era_support_packages.models.libraries import is_library_name
from era_support_packages.training.presets import PRESETS

PRESET_SIZE = 32  # px
DEFAULT_PLAN = ((PRESET_SIZE, 1.0),)
_PLAIN: dict[str, Any] = {"whitening": False, "residual_start": "random", "norm_bias_lr": 1.0}
"""of networks whose start and whose norms the presets do not know"""
_STARTED: dict[str, Any] = {"max_lr": 0.01}  # weights that have learned would be lost at a preset's rate
_WITHOUT_MUON: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.9}
OF_PHOTOS = ("finetune", "scratch")
"""presets made for photos and for the networks of libraries"""
_LONGER = {"scratch": 3}  # times as many images as a network that has learned already
_ON_CPU, _ON_GPU = (10_000, 20_000), (30_000, 300_000)  # images shown, of small and of large data sets
_LENGTHS = ("crop_padding", "cutout")  # in px at the size of the images
_BUILT_IN = ("cifar10", "cifar100", "digits")  # whose images are of `PRESET_SIZE` where nothing else is asked for


def adapted(values: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """The values of a configuration for images of that size: every resolution in px, and what a preset brings grown with it.

    For a network of a library, and one that starts from a file, a preset's own start, rates and optimizer become plain ones.
    Resolutions up to 1 are shares of the size. What equals the preset's value was not asked for in other px: it grows.
    """
    preset = PRESETS[values["preset_name"]]
    plan = [tuple(step) for step in values["resolutions"]]
    grows = plan == list(preset.get("resolutions", DEFAULT_PLAN))
    found = {**values, "resolutions": [[_pixels(first, image_size, grows), share] for first, share in plan]}
    for name in _LENGTHS:
        if values[name] and values[name] == preset.get(name):
            found[name] = _grown(values[name], image_size)
    if values["preset_name"] not in OF_PHOTOS and (values["weights"] or is_library_name(values["model"])):
        muon = values["optimizer"] == preset.get("optimizer") == "muon"
        plain = _PLAIN | (_STARTED if values["weights"] or is_pretrained(values) else {}) | (_WITHOUT_MUON if muon else {})
        found |= {name: value for name, value in plain.items() if name in preset and values[name] == preset[name]}
    return found


def usual(preset: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset for the images and the network of a stored configuration: what differs from them was asked for."""
    size, model, weights = values["image_size"], values["model"], values["weights"]
    if not isinstance(size, int):  # stored before sizes could be chosen
        return dict(preset)
    found = adapted({**preset, **{name: values[name] for name in ("model", "weights", "pretrained")}}, size)
    found |= {name: preset[name] for name in ("model", "weights", "pretrained")} | {"image_size": PRESET_SIZE}
    before_sizes = size == PRESET_SIZE and values["fit"] == "squash"
    found |= {"fit": "squash" if before_sizes else "crop"}
    if found["pretrained"] == "auto":
        found["pretrained"] = is_library_name(model) and weights is None
    if found["train_images"] == "auto":
        found["train_images"] = values["train_images"]
    if found["horizontal_flip"] == "auto":
        found["horizontal_flip"] = usual_flip(values["dataset"])
    return found


def images_shown(preset: str, count: int, device: str) -> int:
    """What `train_images="auto"` is for that many training images on a kind of device ("cuda", "cpu", "mps").

    On a GPU five passes, on a CPU one, and no less and no more than what takes minutes there; from random weights three times
    as much. `max_epochs` of the preset limits the passes over a few images.
    """
    (fewest, most), passes = (_ON_GPU, 5) if device == "cuda" else (_ON_CPU, 1)
    return _LONGER.get(preset, 1) * min(max(passes * count, fewest), most)


def shows_few(values: Mapping[str, Any]) -> bool:
    """Whether the number of images shown hardly grows with the data set, so that larger ones may be afforded."""
    return values["train_images"] == "auto"


def usual_flip(dataset: str) -> float:
    """What a `horizontal_flip` that is left open becomes: digits have no mirror image."""
    return 0.0 if dataset == "digits" else 0.5


def is_built_in(values: Mapping[str, Any]) -> bool:
    """Whether the data of a stored configuration is a data set by name, and no folder."""
    return values["dataset"] in _BUILT_IN


def is_pretrained(values: Mapping[str, Any]) -> bool:
    """Whether a run starts with the weights of a library, where that may be left open."""
    if values["pretrained"] != "auto":
        return bool(values["pretrained"])
    return is_library_name(values["model"]) and values["weights"] is None


def start_in_words(values: Mapping[str, Any]) -> str:
    """What the weights of a run begin as."""
    if values["weights"] is not None:
        return f"weights of {values['weights']}"
    return "pretrained weights" if is_pretrained(values) else "random weights"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Which values became others, in words: "crop_padding 8 instead of 2"; "" where none did."""
    words = []
    for name in ("resolutions", *_LENGTHS, *_PLAIN, *_STARTED, *_WITHOUT_MUON):
        old, new = (values[name] for values in (before, after))
        if name == "resolutions":
            old, new = ([first for first, _ in plan] for plan in (old, new))
        if old != new:
            words.append(f"{name} {new} instead of {old}")
    return ", ".join(words)


def _pixels(first: float, image_size: int, grows: bool) -> int:
    """Px of a resolution that is given as a share up to 1, or in px."""
    if first <= 1:
        return max(8, round(first * image_size))
    return _grown(int(first), image_size) if grows else int(first)


def _grown(pixels: int, image_size: int) -> int:
    """Px at that size instead of at `PRESET_SIZE`; what was made by hand for smaller images stays."""
    return pixels if image_size < PRESET_SIZE else round(pixels * image_size / PRESET_SIZE)
