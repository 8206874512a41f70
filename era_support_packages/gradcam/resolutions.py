"""The layers to explain where a person names none: the last module of each resolution."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from era_support_packages.evaluation.outputs import LogitReader
from era_support_packages.gradcam.axis_tracker import AxisTracker
from era_support_packages.gradcam.layouts import Layout, layout_of


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A module that gives a stack of channels."""

    name: str
    output: Tensor
    layout: Layout
    grid: tuple[int, int]
    finishing: bool
    """whether it only normalizes each place, or hands on what it is given, as a transformer ends behind its last block"""

    def contains(self, other: "_Candidate") -> bool:
        """Whether another one lies in it."""
        return other.name.startswith(self.name + ".")

    def behind_the_last_attention(self, gradient: Tensor) -> bool:
        """Whether the score depends on further tokens, such as a class token, and on no place."""
        return bool(gradient.any()) and not self.layout(gradient).any()


@torch.enable_grad()
def last_of_each_resolution(logits: LogitReader, image: Tensor) -> tuple[str, ...]:
    """The names of the outermost modules that give the last stack of channels of each resolution, in the order in which they run.

    Of a network that classifies by its class token only the input of its last attention: behind it the places have no part in
    the logits. `image` (1, channels, H, W). Raises `ValueError` where there is no such module.
    """
    image = image.detach().clone().requires_grad_()
    with AxisTracker(image) as tracker:
        candidates, ends, unread, score = _candidates(logits, image, tracker)
    found = _gradients(score, [candidate.output for candidate in candidates])
    used = [(c, g) for c, g in zip(candidates, found, strict=True) if g is not None]
    if not used:
        hint = ""
        if unread:
            name, shape = next(reversed(unread.items()))
            hint = f"; layer {name!r} gives {shape}: name it with layers=, and bring this to (N, channels, h, w) with reshape="
        raise ValueError(
            f"No layer of {type(logits.network).__name__} gives a grid of places on the way to its logits, as convolutions and "
            f"vision transformers do{hint}."
        )
    ahead = [candidate for candidate, gradient in used if not candidate.behind_the_last_attention(gradient)]
    if len(ahead) < len(used) and ahead:
        return (ahead[-1].name,)
    chosen = _outermost(ahead, ends)
    return tuple(candidate.name for candidate in ahead if candidate in chosen)


def _outermost(candidates: list[_Candidate], ends: dict[str, set[tuple[int, int]]]) -> set[_Candidate]:
    """Of each resolution the last of the outermost; instead of one that holds other resolutions too, what gives the same in it.

    ends: of each module that ran the grids of what it is given and gives. One that holds others is several stages: what lies in
    it is as far outside as it.
    """
    inside_of = {name: [c for c in candidates if c.name.startswith(name + ".")] for name in ends}
    stages = [inside for name, inside in inside_of.items() if all(c.grid in ends[name] for c in inside)]
    depths = {candidate: sum(candidate in inside for inside in stages) for candidate in candidates}
    best: dict[tuple[int, int], _Candidate] = {}
    for candidate in candidates:
        before = best.get(candidate.grid)
        if before is None or (not candidate.finishing and (before.finishing or depths[candidate] <= depths[before])):
            best[candidate.grid] = candidate
    chosen = set()
    for one in best.values():
        inside = [other for other in candidates if one.contains(other) and other.output is one.output]
        holds_others = any(one.contains(other) for other in best.values())
        chosen.add(min(reversed(inside), key=lambda other: depths[other]) if holds_others and inside else one)
    return chosen


def _candidates(
    logits: LogitReader, image: Tensor, tracker: AxisTracker
) -> tuple[list[_Candidate], dict[str, set[tuple[int, int]]], dict[str, tuple[int, ...]], Tensor]:
    """Modules that give a stack of channels, in order; the grids that each module is given and gives; what others of three or
    four axes give; and a score with gradients.
    """
    seen: list[_Candidate] = []
    strided: dict[str, tuple[int, int]] = {}
    before_zeros: list[Tensor] = []
    unread: dict[str, tuple[int, ...]] = {}
    ends: dict[str, set[tuple[int, int]]] = {}
    runs: Counter[str] = Counter()
    learned = False

    def note(name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal learned
        runs[name] += 1
        ends[name] = set()
        own = next(module.parameters(), None) is not None
        learned = learned or own
        if isinstance(module, nn.Linear):
            given = inputs[0] if inputs else None
            if isinstance(given, Tensor) and not module.weight.any():
                # A head that starts at zero passes no gradient on: what it is given stands for the score. Each entry counts
                # differently, since the sum behind a layer norm is always the same.
                before_zeros.append((given * torch.linspace(0, 1, module.in_features).to(given)).sum())
            return
        if not learned or not isinstance(output, Tensor) or not output.is_floating_point():
            return
        before = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        read = None if before is None else layout_of(tracker.of(before), before.shape, 1)
        came = None if before is None or read is None else _grid(read, before)
        if came is not None:
            ends[name].add(came)
        layout = layout_of(tracker.of(output), output.shape, 1)
        if layout is None:
            if output.ndim in (3, 4) and own:
                unread[name] = tuple(output.shape)
            return
        grid = _grid(layout, output)
        ends[name].add(grid)
        lowers = before is not None and came not in (None, grid) and before.shape[1:] != image.shape[1:]
        if came is not None and lowers and not isinstance(module, nn.Sequential):
            strided[name] = came
        if grid != (1, 1) and (own or came in (None, grid)):
            seen.append(_Candidate(name, output, layout, grid, _is_finishing(module, before, output)))

    with ExitStack() as handles:
        for name, module in logits.network.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):  # which takes no hook
                hook = module.register_forward_hook(lambda module, inputs, output, name=name: note(name, module, inputs, output))
                handles.callback(hook.remove)
        output = logits.run(image)
    score = sum(before_zeros, logits.read(output, image).max())
    # Within a block that lowers the resolution, what still has the higher one is a part of the block, not the end of a stage.
    parts = {c.name for c in seen for block, came in strided.items() if c.name.startswith(block + ".") and c.grid == came}
    return [candidate for candidate in seen if runs[candidate.name] == 1 and candidate.name not in parts], ends, unread, score


def _is_finishing(module: nn.Module, given: Tensor | None, output: Tensor) -> bool:
    """Whether a module without modules in it is a layer norm, or only arranges what it is given, as Identity or Permute do."""
    if given is None or any(True for _ in module.children()):
        return False
    if isinstance(module, nn.Identity) or any(kind in type(module).__name__.lower() for kind in ("layernorm", "rmsnorm")):
        return True
    arranged = (output.shape, output.stride()) != (given.shape, given.stride())  # an in-place activation gives them as they are
    return arranged and output.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()


def _grid(layout: Layout, output: Tensor) -> tuple[int, int]:
    """Height and width of a stack of channels."""
    *_, height, width = layout(output).shape
    return height, width


def _gradients(score: Tensor, outputs: list[Tensor]) -> list[Tensor | None]:
    if not outputs or not score.requires_grad:
        return [None] * len(outputs)
    known = [output.requires_grad for output in outputs]
    found = iter(torch.autograd.grad(score, [o for o, k in zip(outputs, known, strict=True) if k], allow_unused=True))
    return [next(found) if k else None for k in known]
