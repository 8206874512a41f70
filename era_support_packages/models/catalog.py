"""The networks by name."""

from typing import TYPE_CHECKING, Literal, get_args

from era_support_packages.models.libraries import build, is_library_name, shapes_only

if TYPE_CHECKING:
    from torch import nn

Network = Literal["ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "resnet_custom"]
MODELS: tuple[Network, ...] = get_args(Network)


def is_network(name: object) -> bool:
    """Whether it is in `MODELS`, or written as a network of torchvision or timm."""
    return (isinstance(name, str) and name in MODELS) or is_library_name(name)


def build_network(name: str, classes: int) -> "nn.Module":
    """The network of that name for a number of classes, with weights drawn from PyTorch's random state.

    Raises `ValueError` for a name that is neither in `MODELS` nor one of torchvision's or timm's, as "torchvision/resnet18".
    """
    if is_library_name(name):
        return build(name, classes)
    if name not in MODELS:
        from era_support_packages.system.naming import nearest_names

        raise ValueError(f"Unknown network {name!r}: {nearest_names(name, MODELS)}")
    if name == "resnet_custom":
        from era_support_packages.models.custom_resnet import resnet_custom

        return resnet_custom(num_classes=classes)
    from era_support_packages.models import resnet

    return getattr(resnet, name)(classes)


def differing_weight(network: "nn.Module", name: str, classes: int) -> str | None:
    """The first weight in whose name or shape a network differs from `build_network(name, classes)`; None where none does."""
    made = {weight: value.shape for weight, value in shapes_only(lambda: build_network(name, classes)).state_dict().items()}
    own = {weight: value.shape for weight, value in network.state_dict().items()}
    return next((weight for weight in (*made, *own) if made.get(weight) != own.get(weight)), None)
