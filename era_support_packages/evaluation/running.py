"""A network run on images, and one sentence where it cannot take them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_OF_SHAPES = ("size", "shape", "height", "width", "dimension", "channels")
_NAMES_OF_SIZES = ("image_size", "img_size")


def run(network: nn.Module, images: Tensor) -> object:
    """What a network returns for images (N, channels, H, W).

    Raises `ValueError` where their channels or their size are not those that it takes; other errors of its own stay as they are.
    """
    try:
        return network(images)
    except (RuntimeError, AssertionError) as error:  # what layers raise for shapes that they cannot take
        if sentence := _problem(network, images, error):
            raise ValueError(sentence) from error
        raise


def layout_problem(network: nn.Module, images: Tensor) -> str:
    """The sentence for images that look as if their channels were in the last axis, "" where they do not.

    A network that flattens its images would take them so, and give wrong answers.
    """
    _, channels, height, width = images.shape
    taken = next((layer.in_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    return _channels_last(images) if width == 3 and min(channels, height) > 4 and taken != channels else ""


def _channels_last(images: Tensor) -> str:
    return (
        f"images of shape {tuple(images.shape)} have their channels in the last axis; bring them to (N, channels, height, "
        "width), as images.permute(0, 3, 1, 2) does, or np.moveaxis(images, -1, 1)."
    )


def _problem(network: nn.Module, images: Tensor, error: Exception) -> str:
    """Why a network that raised cannot take these images; "" where it is something else."""
    said = (str(error).splitlines() or [""])[0].rstrip(".! ")
    if isinstance(error, torch.OutOfMemoryError) or not any(word in said.lower() for word in _OF_SHAPES):
        return ""
    shape = tuple(images.shape)
    name, layer, given = next(_first_convolution(network, images), ("", None, 0))
    if layer is not None and given == shape[1] != layer.in_channels:
        gray = ", gray ones by images.expand(-1, 3, -1, -1)" if (given, layer.in_channels) == (1, 3) else ""
        if shape[3] == layer.in_channels:
            return _channels_last(images)
        return (
            f"Layer {name!r} takes {_channels(layer.in_channels)}, and images of shape {shape} have {given}; give images of "
            f"{_channels(layer.in_channels)}{gray}, or wrap the network in a module that makes them of {given}."
        )
    size = next(_sizes(network), "")
    return (
        f"images of {shape[2]} x {shape[3]} px do not go through the network ({said}); give them the size that it was made "
        f"for{size}."
    )


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"


def _first_convolution(network: nn.Module, images: Tensor) -> Iterator[tuple[str, nn.Conv2d, int]]:
    """The first convolution that runs, by its name, and how many channels it is given: one more pass, which fails as before."""
    seen: list[tuple[str, nn.Conv2d, int]] = []

    def note(name: str, layer: nn.Module, given: tuple[object, ...]) -> None:
        if isinstance(layer, nn.Conv2d) and given and isinstance(given[0], Tensor) and given[0].ndim == 4:
            seen.append((name, layer, given[0].shape[1]))

    handles = [
        layer.register_forward_pre_hook(lambda layer, given, name=name: note(name, layer, given))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            network(images)
    except Exception:  # the one that is looked into, or a hook's that has seen its layer before
        pass
    finally:
        for handle in handles:
            handle.remove()
    yield from seen[:1]


def _sizes(network: nn.Module) -> Iterator[str]:
    """The size in px that a network of fixed size names in itself, as vision transformers do."""
    for module in network.modules():
        for name in _NAMES_OF_SIZES:
            size = getattr(module, name, None)
            height, width = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
            if isinstance(height, int) and isinstance(width, int):
                yield f", {height} x {width} px"
