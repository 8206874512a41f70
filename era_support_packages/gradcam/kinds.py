"""Networks that cannot be explained whatever is asked, refused by their kind."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

EAGER = "pass the eager network it was made from"


def check_kind(model: object) -> None:
    """Raise `ValueError` for what is no network, or one without layers to look into or gradients to follow."""
    if isinstance(model, torch.export.ExportedProgram) or is_exported(model):
        raise ValueError(f"The model is an exported program, whose layers cannot be looked into; {EAGER}.")
    if not isinstance(model, nn.Module):
        raise ValueError(f"The model is of type {type(model).__name__}; pass a torch.nn.Module.")
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"The model is a ScriptModule, whose layers cannot be looked into; {EAGER}.")
    state = [*model.parameters(), *model.buffers()]
    quantized = next((name for name, part in model.named_modules() if ".quantized" in type(part).__module__), None)
    if quantized is not None or any(tensor.is_quantized for tensor in state):
        where = f" (layer {quantized!r})" if quantized else ""
        raise ValueError(f"The model is quantized{where}, and no gradient flows through it; {EAGER}.")
    if any(tensor.is_meta for tensor in state):
        raise ValueError(
            "The model is on the meta device, which holds shapes and no weights; load its weights, such as by "
            "model.to_empty(device='cpu') and model.load_state_dict(...)."
        )
    if any(is_lazy(tensor) for tensor in state):
        raise ValueError("The model has parameters without a shape yet; run one batch through it, and load or train its weights.")
    if not any(True for _ in model.parameters()):
        raise ValueError("The model has no parameters, so it has learnt nothing to explain; pass a trained network.")


def is_exported(model: object) -> bool:
    """Whether a module was made of an exported program."""
    return any(kind.__module__.startswith("torch.export") for kind in type(model).__mro__)


def closed_part(network: nn.Module, name: str) -> str | None:
    """The name of the part of a network that a layer lies in, or is, and that cannot be looked into; None where there is none."""
    for end in [*(position for position, letter in enumerate(name) if letter == "."), len(name)]:
        part = network.get_submodule(name[:end])
        if isinstance(part, torch.jit.ScriptModule) or is_exported(part):
            return name[:end]
    return None
