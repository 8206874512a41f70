"""A trained network whose weights are redrawn stage by stage, from the output layer back to the image.

The cascading randomisation of Adebayo et al. 2018, "Sanity Checks for Saliency Maps", arXiv:1810.03292, section 3.1.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.evaluation.running import run
from era_support_packages.models.copies import detached_copy
from era_support_packages.models.modes import evaluation_mode

NORMALIZATIONS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
POWER_ITERATIONS = 30
"""steps in which spectral norm finds the largest singular value of new weights"""
JOINT = " + "
"""between the names of modules that one stage redraws together"""


def cascade(
    network: nn.Module, stages: Sequence[str], train_images: Tensor, seed: Sequence[int], batch_size: int
) -> Iterator[nn.Module]:
    """The network after each stage, one and the same copy, redrawn a stage further each time, in evaluation mode.

    Each module of a stage is redrawn by its own `reset_parameters`: convolutions and linear layers at random, batch norm to
    the scale of 1 and shift of 0 from which training starts. Parameters of a module without that function are shuffled.
    Then the statistics of every batch norm that now receives other activations are estimated again on `train_images`: with
    those of the trained network, a redrawn network gives every image the same logits. Batch norms in front of the redrawn
    layers keep theirs, which still hold. The weights are a function of `seed` and of the stage, on every device.

    `stages` as `checked_stages` gives them; `train_images` float (M, 3, H, W), normalised.
    """
    redrawn = detached_copy(network).eval()
    order = run_order(redrawn, train_images[:1])
    for number, stage in enumerate(stages):
        parts = stage.split(JOINT)
        before = _weights(redrawn, train_images[:1])
        redraw([redrawn.get_submodule(part) for part in parts], (*seed, number))
        _check_redrawn(before, _weights(redrawn, train_images[:1]), stage)
        first = min(order.get(part, -1) for part in parts)
        estimate_batch_norm(redrawn, [name for name in order if order[name] >= first], train_images, batch_size)
        yield redrawn


@torch.no_grad()
def redraw(modules: Sequence[nn.Module], seed: Sequence[int]) -> None:
    """New weights for some modules and all within them; the global random state stays as it is.

    Parameters that `reset_parameters` does not reach, such as those of which weight norm, spectral norm and pruning compute
    the weight, are shuffled.
    """
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the generators of GPUs too, which are not put back.
        torch.default_generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        for module in (part for whole in modules for part in whole.modules()):
            before = [parameter.clone() for parameter in module.parameters(recurse=False)]
            if hasattr(module, "reset_parameters"):
                # In rows, since older torch draws in the order in which the numbers lie in memory.
                fresh: Any = detached_copy(module).cpu().to(memory_format=torch.contiguous_format)
                fresh.reset_parameters()
                module.load_state_dict(fresh.state_dict())
            for old, parameter in zip(before, module.parameters(recurse=False), strict=True):
                if torch.equal(old, parameter) and parameter.numel() > 1 and (old != old.flatten()[0]).any():
                    places = torch.randperm(parameter.numel()).to(parameter.device)
                    parameter.copy_(parameter.flatten()[places].view_as(parameter))
            _follow(module)


def _follow(module: nn.Module) -> None:
    """Let the largest singular value, which spectral norm keeps an estimate of, follow the new weights."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm):
            for _ in range(POWER_ITERATIONS):
                hook.compute_weight(module, do_power_iteration=True)
    if isinstance(module, ParametrizationList) and any(type(part).__name__ == "_SpectralNorm" for part in module):
        module.train()
        for _ in range(POWER_ITERATIONS):
            module()
        module.eval()


def _weights(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each layer with a weight multiplies with in a forward pass, whatever it is computed of."""
    weights: dict[str, Tensor] = {}

    def note(name: str, layer: Any) -> None:
        weights[name] = layer.weight.detach().clone()

    handles = [
        layer.register_forward_pre_hook(lambda layer, _given, name=name: note(name, layer))
        for name, layer in network.named_modules()
        if isinstance(getattr(layer, "weight", None), Tensor)
    ]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return weights


def _check_redrawn(before: dict[str, Tensor], after: dict[str, Tensor], stage: str) -> None:
    """Raise `ValueError` where a layer of a stage still multiplies with its trained weights."""
    for name, weight in after.items():
        own = any(name == part or name.startswith(part + ".") for part in stage.split(JOINT))
        if own and name in before and torch.equal(before[name], weight) and (weight != weight.flatten()[0]).any():
            raise ValueError(
                f"redrawing {stage!r} leaves the weights of layer {name!r} as they were, because they are computed from "
                "something other than its parameters, so the sanity check cannot be run on this network; make parameters of "
                "its weights, for example by remove_parametrizations or remove_weight_norm of torch.nn.utils."
            )


def restated(network: nn.Module, train_images: Tensor, batch_size: int) -> nn.Module:
    """A copy of the network whose batch-norm statistics are estimated anew, as those of redrawn networks are."""
    twin = detached_copy(network).eval()
    estimate_batch_norm(twin, [name for name, _ in twin.named_modules()], train_images, batch_size)
    return twin


@torch.no_grad()
def mean_confidence(network: nn.Module, images: Tensor, batch_size: int) -> float:
    """The mean probability of the predicted class."""
    logits = LogitReader(network)
    return float(torch.cat([logits(batch).softmax(dim=1).amax(dim=1) for batch in images.split(batch_size)]).mean())


@torch.no_grad()
def estimate_batch_norm(network: nn.Module, names: Sequence[str], images: Tensor, batch_size: int) -> None:
    """Replace the statistics of the batch norms among `names` by their means over batches of `images`.

    Like torch.optim.swa_utils.update_bn, which however switches dropout on as well, and takes every batch norm.
    """
    norms = [module for module in map(network.get_submodule, names) if isinstance(module, _BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches; these are of equal size, or differ by one image
        norm.train()
    for batch in images.tensor_split(math.ceil(len(images) / batch_size)):
        network(batch)
    for norm in norms:
        norm.eval()


@torch.no_grad()
def run_order(network: nn.Module, images: Tensor) -> dict[str, int]:
    """The place of each module that runs in the order in which they start, by name; the network's own name is "".

    In evaluation mode: a network that was just trained would move its batch-norm statistics. Its flags are as before afterwards.
    """
    order: dict[str, int] = {}

    def note(name: str) -> None:
        order.setdefault(name, len(order))

    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(lambda _module, _inputs, name=name: note(name)))
    try:
        with evaluation_mode(network):
            run(network, images)
    finally:
        for handle in handles:
            handle.remove()
    return order


def checked_stages(network: nn.Module, images: Tensor, stages: Sequence[str] | None = None) -> tuple[str, ...]:
    """The stages in which a network is redrawn, each the names of its modules joined by " + ".

    None: the top-level modules with parameters, in reverse order of the forward pass of `images`, each normalisation
    together with the module before it; a module that never runs by itself comes last.

    Raises `ValueError` for an unknown module, an order that does not lead from the output back, a parameter that would be
    left as trained, or fewer than two stages.
    """
    order = run_order(network, images)
    stages = _default_stages(network, order) if stages is None else tuple(stages)
    kind = type(network).__name__
    if len(stages) < 2:
        raise ValueError(
            f"{kind} would be redrawn in {len(stages)} stage, but the output layer must be redrawn before the others; name the "
            "modules from the output back with stages=."
        )
    modules = dict(network.named_modules())
    for stage in stages:
        for part in stage.split(JOINT):
            if part not in modules:
                raise ValueError(f"Stage {stage!r} names {part!r}, which is no module of {kind}; see its named_modules().")
    starts = [min(order.get(part, -1) for part in stage.split(JOINT)) for stage in stages]
    if any(later >= earlier for earlier, later in pairwise(starts)):
        raise ValueError(f"stages {', '.join(stages)} do not lead from the output back; name the module that runs last first.")
    redrawn = {id(p) for stage in stages for part in stage.split(JOINT) for p in modules[part].parameters()}
    for name, parameter in network.named_parameters():
        if id(parameter) not in redrawn:
            raise ValueError(f"Parameter {name!r} of {kind} is in no stage and would stay as trained; add its module to stages=.")
    return stages


def _default_stages(network: nn.Module, order: dict[str, int]) -> tuple[str, ...]:
    children = {name: child for name, child in network.named_children() if any(True for _ in child.parameters())}
    stages: list[str] = []
    for name in sorted(children, key=lambda name: order.get(name, -1)):
        if stages and isinstance(children[name], NORMALIZATIONS):
            stages[-1] += JOINT + name
        else:
            stages.append(name)
    return tuple(reversed(stages))
