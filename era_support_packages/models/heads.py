"""The last layer of a classifier, whatever it is called, and a new one for other classes."""

from torch import nn

_NAMES = ("fc", "head", "heads", "classifier", "linear", "last_linear", "logits", "output")
AUXILIARY = ("aux1", "aux2", "AuxLogits")  # of GoogLeNet and Inception


def last_layer(network: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Name and module of the layer that gives the logits: a linear one, or SqueezeNet's 1x1 convolution.

    It is the last of these in the module that is called fc, head, heads, classifier, linear, ..., of several in the one defined
    last, else the last linear layer of all. Raises `ValueError` where there is none, and where one of several that is defined
    before takes what the last gives, so that they run in another order.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.models import last_layer
    >>> last_layer(ResNet18())
    ('linear', Linear(in_features=512, out_features=10, bias=True))
    """
    named = [(name, child) for name, child in network.named_children() if name in _NAMES]
    if heads := [found for name, child in named if (found := _last(child, name, convolutions=True))]:
        _require_order(network, heads)
        return heads[-1]
    if found := _last(network, "", convolutions=False):
        return found
    raise ValueError(
        f"{type(network).__name__} has no last linear layer to be found (looked for {', '.join(_NAMES)}): replace its last layer "
        "yourself."
    )


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last layer. Raises `ValueError` where `last_layer` does."""
    return list(last_layer(network)[1].parameters())


def replace_head(network: nn.Module, classes: int) -> str:
    """Give a network a new last layer for that many classes; returns its name. A network that has as many keeps the one it has.

    Auxiliary heads of GoogLeNet and Inception are taken out. Raises `ValueError` where `last_layer` does, and for fewer than one
    class.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.models import replace_head
    >>> network = ResNet18(num_classes=10)
    >>> replace_head(network, 3), network.linear.out_features
    ('linear', 3)
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes is {classes!r}; give their number, 1 or more.")
    name, layer = last_layer(network)
    for auxiliary in AUXILIARY:
        if getattr(network, auxiliary, None) is not None:
            setattr(network, auxiliary, None)
    if hasattr(network, "aux_logits"):
        network.aux_logits = False  # type: ignore[assignment]
    new: nn.Module
    if isinstance(layer, nn.Linear):
        if layer.out_features == classes:
            return name
        new = nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
    else:
        if layer.out_channels == classes:
            return name
        new = nn.Conv2d(layer.in_channels, classes, kernel_size=1, bias=layer.bias is not None)
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, new.to(layer.weight.device, layer.weight.dtype).train(layer.training))
    if isinstance(getattr(network, "num_classes", None), int):
        network.num_classes = classes  # type: ignore[assignment]
    return name


def _require_order(network: nn.Module, heads: list[tuple[str, nn.Linear | nn.Conv2d]]) -> None:
    """Raise `ValueError` where the sizes of the layers show that the one defined last runs before another."""
    name, layer = heads[-1]
    taken, given = layer.weight.shape[1], layer.weight.shape[0]
    for other, before in heads[:-1]:
        if before.weight.shape[1] == given and before.weight.shape[0] != taken:
            raise ValueError(
                f"{type(network).__name__} has {other!r} and {name!r}, either of which may be its last layer: {other!r}, defined "
                f"before {name!r}, takes as many values as that gives. Define them in the order in which they run, or "
                "give the layer that is not the last a name of its own."
            )


def _last(module: nn.Module, name: str, convolutions: bool) -> tuple[str, nn.Linear | nn.Conv2d] | None:
    """The last linear layer in a module, or, where there is none, the last 1x1 convolution, with its full name."""
    layers = [(inner, layer) for inner, layer in module.named_modules() if inner.split(".")[0] not in AUXILIARY]
    linear = [(inner, layer) for inner, layer in layers if isinstance(layer, nn.Linear)]
    if linear:
        return ".".join(filter(None, (name, linear[-1][0]))), linear[-1][1]
    ones = [(inner, layer) for inner, layer in layers if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    if convolutions and ones:
        return ".".join(filter(None, (name, ones[-1][0]))), ones[-1][1]
    return None
