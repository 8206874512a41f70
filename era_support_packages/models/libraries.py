"""Networks of torchvision and timm by name: "torchvision/resnet18", "timm/convnext_tiny"."""

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from era_support_packages.system.naming import nearest_names

if TYPE_CHECKING:
    from torch import nn

    from era_support_packages.datasets.image_dataset import Channels

LIBRARIES = ("torchvision", "timm")
_INCEPTIONS = ("googlenet", "inception_v3")  # they change mean and standard deviation themselves, where they are told to
_IMAGENET = 1000  # classes of the weights, with which a network stays as it is
_HALF = (0.5, 0.5, 0.5)
_TRIED = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)


def is_library_name(name: object) -> bool:
    """Whether a name is written as that of a library's network; not whether there is one."""
    return isinstance(name, str) and re.fullmatch(rf"({'|'.join(LIBRARIES)})/[\w.-]+", name, re.ASCII) is not None


def check_name(name: str) -> None:
    """Raise `ValueError` where the library has no such network, or is not installed."""
    library, own = name.split("/", 1)
    if importlib.util.find_spec(library) is None:
        raise ValueError(
            f"model is {name!r}, but {library} is not installed: install it (pip install {library}), or give another model."
        )
    if library == "torchvision":
        import torchvision

        known: Iterable[str] = torchvision.models.list_models(module=torchvision.models)  # without those for other tasks
        unknown = own not in known
    else:
        import timm

        known, unknown = timm.list_models(), not timm.is_model(own) or _unknown_tag(own)
    if unknown:
        raise ValueError(f"model is {name!r}: {nearest_names(name, (f'{library}/{other}' for other in known))}")


def _unknown_tag(name: str) -> bool:
    """Whether a name of timm has a tag behind a dot of which there are no weights."""
    import timm

    return "." in name and name not in timm.list_pretrained()


def build(name: str, classes: int) -> "nn.Module":
    """The network with a last layer for a number of classes, weights drawn from PyTorch's random state.

    Without the auxiliary heads of GoogLeNet and Inception, which would only be used in training. Raises as `check_name`.
    """
    check_name(name)
    library, own = name.split("/", 1)
    if library == "timm":
        import timm

        return timm.create_model(own, pretrained=False, num_classes=classes)
    import torch
    import torchvision

    options: dict[str, Any] = {"num_classes": classes}
    if own in _INCEPTIONS:
        options |= {"aux_logits": False, "transform_input": False, "init_weights": True}
    network = torchvision.models.get_model(own, weights=None, **options)
    if own.startswith("squeezenet") and classes != _IMAGENET:
        # Its logits go through a ReLU, behind which a class whose filter is negative everywhere could never be learned again.
        network.classifier[2] = torch.nn.Identity()
    return network


def statistics(name: str) -> "tuple[Channels, Channels] | None":
    """Mean and standard deviation that the library's weights of a network want; None where it has none."""
    check_name(name)
    library, own = name.split("/", 1)
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(own)
        found = None if config is None else (config.mean, config.std)
    elif own in _INCEPTIONS:
        found = _HALF, _HALF
    else:
        weights = torchvision_weights(own)
        transforms = None if weights is None else weights.transforms()
        found = None if transforms is None else (transforms.mean, transforms.std)
    if found is None:
        return None
    (red, green, blue), (red_std, green_std, blue_std) = found
    return (red, green, blue), (red_std, green_std, blue_std)


def torchvision_weights(name: str) -> Any:
    """The weights that torchvision takes by default (`WeightsEnum`), None where it has none."""
    import torchvision

    kinds = torchvision.models.get_model_weights(name)
    return kinds.DEFAULT if len(kinds) else None


def check_sizes(name: str, sizes: Iterable[int]) -> None:
    """Raise `ValueError` where a library's network cannot take square images of one of these px; nothing is computed."""
    network = _without_numbers(name)
    for size in sizes:
        if not (problem := _problem(network, size)):
            continue
        taken = [other for other in _TRIED if not _problem(network, other)]
        way_out = "give another model"
        if len(taken) == 1:
            way_out = f"it takes {taken[0]} px only: give image_size={taken[0]} and resolutions=[[1, 1]]"
        elif taken and max(taken) > size:
            way_out = f"give an image_size and resolutions of {min(other for other in taken if other > size)} px or more"
        raise ValueError(f"{name} cannot take images of {size} px ({problem}): {way_out}.")


def _without_numbers(name: str) -> "nn.Module":
    """The network on PyTorch's meta device, where only shapes are known."""
    return shapes_only(lambda: build(name, 2)).eval()


def shapes_only(make: "Callable[[], nn.Module]") -> "nn.Module":
    """The network that a function makes, on PyTorch's meta device; made with numbers only where it computes while it is made."""
    import torch

    try:
        with on_meta():
            return make()
    except NotImplementedError:  # RegNet, which reads its widths from a tensor
        with torch.random.fork_rng(devices=[]):
            return make().to("meta")


@contextlib.contextmanager
def on_meta() -> Iterator[None]:
    """New tensors have a shape, but neither memory nor random numbers."""
    import torch

    with torch.device("meta"):
        yield


def _problem(network: "nn.Module", size: int) -> str:
    """Why a network on the meta device cannot take images of that many px, "" where it can."""
    import torch

    try:
        with torch.no_grad(), on_meta():
            network(torch.empty(2, 3, size, size, device="meta"))
    except NotImplementedError:  # something that needs numbers: the first training step will tell
        return ""
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
        lines = str(error).strip().splitlines()
        return lines[0].rstrip(".") if lines else type(error).__name__
    return ""
