"""The networks by name."""

from typing import TYPE_CHECKING, Literal, get_args

from era_support_packages.models.libraries import build, is_library_name, shapes_only

if TYPE_CHECKING:
    from torch import Tensor, nn

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


def difference(network: "nn.Module", name: str, classes: int, px: int) -> str | None:
    """What shows that a network is not `build_network(name, classes)` with other weights; None where nothing does.

    The first weight in whose name or shape they differ, else its logits for one image of `px`: strides, pooling and activations
    have no weights. Neither network nor random state is touched.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    from era_support_packages.models.copies import detached_copy
    from era_support_packages.models.modes import evaluation_mode

    if weight := differing_weight(network, name, classes):
        return f"its {weight!r}"

    def outputs(asked: "nn.Module") -> "list[Tensor]":
        with evaluation_mode(asked), torch.no_grad():
            return [leaf for leaf in tree_leaves(asked(image)) if isinstance(leaf, torch.Tensor)]

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which would seed the generators of GPUs too
        made, image = build_network(name, classes), torch.randn(1, 3, px, px)
        own = detached_copy(network).float().cpu()
        made.load_state_dict(own.state_dict())
        try:
            pairs = list(zip(outputs(own), outputs(made), strict=True))
        except (RuntimeError, ValueError, AssertionError):  # one of them does not take such images
            return "its forward pass"

    def same(a: "Tensor", b: "Tensor") -> bool:
        largest = float(b.nan_to_num().abs().max())
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * largest, equal_nan=True)

    return None if all(same(a, b) for a, b in pairs) else "its forward pass"
