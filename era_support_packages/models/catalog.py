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

    from era_support_packages.models.copies import detached_copy, eager
    from era_support_packages.models.modes import evaluation_mode

    if weight := differing_weight(network, name, classes):
        return f"its {weight!r}"

    def outputs(asked: "nn.Module") -> "list[Tensor]":
        with eager(asked), evaluation_mode(asked), torch.no_grad():
            return [leaf for leaf in tree_leaves(asked(image)) if isinstance(leaf, torch.Tensor)]

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # whatever else is the default
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which would seed the generators of GPUs too
        made, image = build_network(name, classes).float(), torch.randn(1, 3, px, px, dtype=torch.float32)
        own = detached_copy(network).float().cpu().to(memory_format=torch.contiguous_format)  # rounded as the other one is
        _put_in_sight(own)
        made.load_state_dict(own.state_dict())
        try:
            pairs = list(zip(outputs(own), outputs(made), strict=True))
        except Exception:  # one does not take such an image, in its own words, which must not end a run
            return "its forward pass"

    def same(a: "Tensor", b: "Tensor") -> bool:
        largest = float(b.nan_to_num().abs().max())
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-5 * largest, equal_nan=True)

    return None if all(same(a, b) for a, b in pairs) else "its forward pass"


def _put_in_sight(network: "nn.Module") -> None:
    """Give scales and weights that are nearly zero other values: residual branches and last layers may begin so, and hide what
    lies before them.
    """
    import torch

    with torch.no_grad():
        for name, values in network.named_parameters():
            is_scale = values.numel() == max(values.shape, default=1)
            if values.numel() and not name.endswith("bias") and float(values.abs().max()) < (0.1 if is_scale else 1e-6):
                values.add_(torch.randn(values.shape) * (0.5 if is_scale else (len(values) / values.numel()) ** 0.5))


def name_of(network: "nn.Module", name: str | None, classes: int, px: int) -> str | None:
    """The name, where `build_network` makes a network of it that takes these weights and says the same; else None."""
    return None if name is None or difference(network, name, classes, px) else name
