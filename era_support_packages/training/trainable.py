"""Whether a network can learn these classes, found before it trains: by a few training images through a copy of it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from era_support_packages.datasets.image_dataset import ImageDataset
from era_support_packages.datasets.normalization import normalize_images
from era_support_packages.evaluation.outputs import LogitReader, plausible_logits
from era_support_packages.evaluation.running import run
from era_support_packages.models.copies import detached_copy, eager, inner_network
from era_support_packages.models.modes import training_mode
from era_support_packages.system.machine import autocast
from era_support_packages.training.config import ResolvedConfig
from era_support_packages.training.phases import body_held

IMAGES = 8
_PROBABILITIES = {
    "probabilities": "probabilities, as a softmax at the end makes them",
    "independent probabilities": "probabilities, as a sigmoid at the end makes them",
}


def require_trainable(network: nn.Module, train: ImageDataset, config: ResolvedConfig) -> None:
    """Raise `ValueError` where a network cannot be trained on these classes, with what to change.

    It must give one tensor of logits (N, C), one for each class, that its parameters get gradients from. A copy of the network
    is asked, as it was before compiling, in training mode and in evaluation mode, at each size that the run goes through: it and
    the random state stay as they are.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(
            "No parameter of the network takes gradients, so that nothing can learn: give it those that shall learn back by "
            "parameter.requires_grad_(True), such as those of its last layer."
        )
    device = next(network.parameters()).device
    twin = detached_copy(inner_network(network))
    chosen = train.evenly_spread(min(IMAGES, len(train)))
    planned = config.planned_epochs(len(train))  # a short run leaves sizes out; its speed is measured at the first one
    first, *later = dict.fromkeys([config.resolutions[0][0], *(epoch.resolution for epoch in planned)])
    with _same_random_state(device), eager(twin):
        images = normalize_images(train, chosen, first).to(device)
        _require_both_modes(twin, images, len(train.classes), config.precision)
        for pixels in later:
            try:
                larger = normalize_images(train, chosen, pixels).to(device)
                _require_both_modes(twin, larger, len(train.classes), config.precision)
            except ValueError as error:
                way_out = f"or train at {first} px alone by resolutions=[[{first}, 1]]"
                raise ValueError(f"{str(error).rstrip('.')}, {way_out}.") from None
        if any(epoch.head_only for epoch in planned):
            with body_held(twin), autocast(device, config.precision):
                if not _takes_gradients(run(twin, images)):
                    raise ValueError(
                        f"head_first is {config.head_first:g}, so that the last layer learns alone at first, and it takes no "
                        "gradients: set head_first=0, or let its parameters learn by requires_grad_(True)."
                    )


@contextmanager
def _same_random_state(device: torch.device) -> Iterator[None]:
    """Within the block a network may draw: PyTorch, NumPy and Python go on afterwards as if it had not."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _require_both_modes(network: nn.Module, images: Tensor, classes: int, precision: str) -> None:
    """Raise `ValueError` where what the network returns for the images, in evaluation mode or in training, cannot be used."""
    network.eval()
    # A context for each pass: within one, older PyTorch keeps the weights in half precision, from here without gradients.
    with torch.no_grad(), autocast(images.device, precision):
        said = run(network, images)
        logits = LogitReader(network).read(said, images)
    # Norms are held: they would not take a single image, and several processes would wait for each other.
    training_mode(network, hold_norms=True)
    with autocast(images.device, precision):
        _require_logits(network, images, classes, plain=isinstance(said, Tensor))
    if logits.shape[1] != classes:
        raise ValueError(_other_number(logits.shape[1], classes, " in evaluation mode"))


def _require_logits(network: nn.Module, images: Tensor, classes: int, plain: bool) -> None:
    """Raise `ValueError` where what the network returns in training is nothing that the loss takes; `plain`: in evaluation mode
    it is a tensor.
    """
    said, count = run(network, images), len(images)
    if not isinstance(said, Tensor):
        path = next(iter(plausible_logits(said, count)), "[0]")
        what = (
            "switch off what it adds in training, such as auxiliary heads (models.replace_head takes out those of torchvision)"
            if plain
            else f"wrap it in a module whose forward returns the logits alone, such as `return self.model(images){path}`"
        )
        raise ValueError(
            f"In training the network returns a {type(said).__name__}, and the loss takes one tensor of logits: {what}."
        )
    reader = LogitReader(network)
    reader.read(said, images)
    outputs = said.numel() // count
    if outputs != classes:
        raise ValueError(_other_number(outputs, classes))
    if said.ndim != 2:
        raise ValueError(
            f"The network returns logits of shape {tuple(said.shape)}, and the loss takes {(count, classes)}: end it with "
            "nn.Flatten()."
        )
    if reader.form in _PROBABILITIES:
        raise ValueError(
            f"The network returns {_PROBABILITIES[reader.form]}, and the loss takes logits, from which it makes its own: take "
            "the last softmax or sigmoid out; the classifier gives probabilities in any case."
        )
    if not _takes_gradients(said):
        raise ValueError(
            "No gradient reaches the network's parameters from its output, so that nothing can learn: take torch.no_grad and "
            "detach out of its forward, and call this outside of torch.no_grad."
        )


def _takes_gradients(said: object) -> bool:
    return isinstance(said, Tensor) and said.requires_grad


def _other_number(outputs: int, classes: int, when: str = "") -> str:
    """The sentence for a network that has another number of outputs than there are classes."""
    return (
        f"The network has {outputs} output{'s' * (outputs != 1)} for {classes} classes{when}: give it one for each class, as "
        f"models.replace_head(network, {classes}) does where its last layer is a linear one."
    )
