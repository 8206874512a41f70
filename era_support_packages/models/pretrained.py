"""Weights to start from: those of torchvision and timm, or of a file; looked for on this machine before they are downloaded."""

import hashlib
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import Channels
from era_support_packages.datasets.normalization import are_statistics
from era_support_packages.models import libraries
from era_support_packages.models.heads import AUXILIARY, last_layer
from era_support_packages.system.paths import expanded
from era_support_packages.system.plain_error import PlainError
from era_support_packages.system.tensor_file import TensorFileError, read_state

_WRAPPED = ("state_dict", "model_state_dict", "model_state", "model")
_PREFIXES = ("module.", "_orig_mod.")
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$")
_MOST = 3  # names in a sentence


class WeightsError(PlainError, ValueError):
    """Weights that cannot be had or do not fit; the message says why and what to do."""


def own_statistics(model: str, pretrained: bool, weights: str | None) -> tuple[Channels, Channels] | None:
    """Mean and standard deviation of the images that the weights of a start want; None where those of the data are taken.

    Those that the library says for its networks, also with weights of a file; else what a file of this package says.
    """
    if libraries.is_library_name(model):
        return libraries.statistics(model) if pretrained or weights is not None else None
    if weights is None or not os.path.isfile(expanded(weights)):
        return None
    described = _content(expanded(weights)).get("classifier")
    mean, std = (described.get(name) for name in ("mean", "std")) if isinstance(described, dict) else (None, None)
    if mean is None or std is None or not are_statistics(mean, std):
        return None
    (red, green, blue), (red_std, green_std, blue_std) = mean, std
    return (red, green, blue), (red_std, green_std, blue_std)


def ensure(model: str, pretrained: bool, weights: str | None) -> None:
    """See to it that the weights of a start are on this machine. Raises `WeightsError` where they cannot be had."""
    if weights is not None:
        if not os.path.isfile(expanded(weights)):
            raise WeightsError(
                f"weights is {weights!r}, but there is no such file: give the path of a .pth or .safetensors file."
            )
    elif pretrained:
        _pretrained_state(model)


def start(network: nn.Module, model: str, pretrained: bool, weights: str | None) -> str:
    """Put the weights of a start into a network, and say where they are from and what was left out; "" for a random start.

    A last layer of another size stays as it was drawn. Raises `WeightsError` where they cannot be had or are of another network.
    """
    if weights is not None:
        state, where = _unwrapped(_content(expanded(weights)), weights), weights
    elif pretrained:
        state, where = _pretrained_state(model)
    else:
        return ""
    return _fill(network, model, state, where)


def _fill(network: nn.Module, model: str, state: Mapping[str, Tensor], where: str) -> str:
    own = network.state_dict()
    head, _ = last_layer(network)
    in_head = {name for name in own if name.startswith(f"{head}.")}
    auxiliary = {name for name in state if name.split(".")[0] in AUXILIARY and name not in own}
    missing = [name for name in own if name not in state and name not in in_head and not name.endswith("num_batches_tracked")]
    foreign = [name for name in state if name not in own and name not in auxiliary]
    differing = [name for name in own if name in state and name not in in_head and own[name].shape != state[name].shape]
    if problems := [
        *(f"{name!r} is {tuple(state[name].shape)} there and {tuple(own[name].shape)} in the network" for name in differing),
        *(f"{name!r} is not in it" for name in missing),
        *(f"{name!r} is not in the network" for name in foreign),
    ]:
        more = f", and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
        raise WeightsError(
            f"{where} holds the weights of another network than {model}: {', '.join(problems[:_MOST])}{more}. Give the model "
            "that they were made for, or other weights."
        )
    fits = all(name in state and own[name].shape == state[name].shape for name in in_head)
    taken = {name: value for name, value in state.items() if name in own and (fits or name not in in_head)}
    network.load_state_dict(taken, strict=False)
    said = f"{model} starts with the weights of {where}"
    if not fits:
        there = next((len(state[name]) for name in sorted(in_head) if name in state), 0)
        why = f"has {there:,} classes there" if there else "is not in the file"
        said += f"; its last layer, {head!r}, {why} and starts anew for {len(own[min(in_head)]):,}"
    if auxiliary:
        said += f"; auxiliary heads ({', '.join(sorted({name.split('.')[0] for name in auxiliary}))}) are left out"
    return said + "."


# ---- where they are --------------------------------------------------------------------------------------------------


def _pretrained_state(model: str) -> tuple[dict[str, Tensor], str]:
    """The library's own weights of a network, and where they are from."""
    libraries.check_name(model)
    library, own = model.split("/", 1)
    return _of_timm(model, own) if library == "timm" else _of_torchvision(model, own)


def _of_torchvision(model: str, own: str) -> tuple[dict[str, Tensor], str]:
    weights = libraries.torchvision_weights(own)
    if weights is None:
        raise WeightsError(f"torchvision has no weights of {model}: set pretrained=False to start from random ones.")
    name = weights.url.rsplit("/", 1)[-1]
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    file = _there([name]) or hub / name
    if not file.is_file():
        try:
            hub.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, os.fspath(file), hash_prefix=_digest_in(name), progress=False)
        except (OSError, RuntimeError, ValueError) as error:  # no network, no room, other bytes than they should be
            raise _unavailable(model, error, f"put {name} ({weights.url}) into the folder that ERA_WEIGHTS_DIR names") from None
    if (digest := _digest_in(name)) and not _sha256(file).startswith(digest):
        raise WeightsError(f"{file} is damaged (its SHA-256 does not begin with {digest}): delete it, and run again.")
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in _unwrapped(_content(file), str(file)).items()}
    return state, f"{weights} ({file})"


def _of_timm(model: str, own: str) -> tuple[dict[str, Tensor], str]:
    import timm

    names = [f"{own}{end}" for end in (".safetensors", ".pth", ".pt", ".bin")]
    if file := _there(names):
        return _unwrapped(_content(file), str(file)), str(file)
    try:
        state = timm.create_model(own, pretrained=True).state_dict()
    except Exception as error:  # each of its ways to download has errors of its own
        raise _unavailable(model, error, f"put {' or '.join(names[:2])} into the folder that ERA_WEIGHTS_DIR names") from None
    config = timm.get_pretrained_cfg(own)
    return state, f"timm ({own if config is None else config.tag or own})"


def _there(names: list[str]) -> Path | None:
    """The first of the files that lies in the folder that ERA_WEIGHTS_DIR names."""
    folder = os.environ.get("ERA_WEIGHTS_DIR")
    files = [expanded(folder) / name for name in names] if folder else []
    return next((file for file in files if file.is_file()), None)


def _unavailable(model: str, error: Exception, by_hand: str) -> WeightsError:
    lines = str(getattr(error, "reason", None) or error).strip().splitlines() or [type(error).__name__]
    return WeightsError(
        f"The pretrained weights of {model} cannot be downloaded ({lines[0].rstrip('.')}): {by_hand}, give them as "
        "weights='file.pth', or set pretrained=False to start from random ones."
    )


def _digest_in(name: str) -> str | None:
    """The start of the SHA-256 that torchvision's names of files end with."""
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    return found[1] if found else None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# ---- what is in a file -----------------------------------------------------------------------------------------------


def _content(file: Path) -> dict[str, Any]:
    """What a file of weights holds, read without executing anything in it."""
    if file.suffix == ".safetensors" and importlib.util.find_spec("safetensors") is None:
        raise WeightsError(f"{file} needs safetensors to be read: install it (pip install safetensors), or give a .pth file.")
    try:
        return read_state(file)
    except TensorFileError as error:
        raise WeightsError(f"{error}; give another file of weights.") from None


def _unwrapped(content: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The state_dict in a file, also in a checkpoint or of a network that was wrapped."""
    inner = next((content[name] for name in _WRAPPED if isinstance(content.get(name), Mapping)), content)
    state = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    if not state:
        raise WeightsError(f"{where} holds no weights by name (a state_dict): give a file that does.")
    return state
