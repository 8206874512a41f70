"""How what a layer gives becomes a stack of channels (N, channels, h, w), or why it cannot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from era_support_packages.gradcam.axes import CHANNEL, COLUMN, IMAGE, OTHER, ROW, Axes, Axis, Tokens, is_channels

Reshape = Callable[[Tensor], Tensor]
"""selects and rearranges the values of a layer's output: (N, channels, h, w)"""


@dataclass(frozen=True)
class Layout:
    """Selects and rearranges the values of a layer's output into (N, channels, h, w), and so its gradient."""

    order: tuple[int, ...]
    """the output's axes in the order images, channels, then height and width or one axis of places"""
    before: int = 0
    """tokens in front of the places, such as a class token"""
    grid: tuple[int, int] | None = None
    """height and width where one axis holds all places"""

    def __call__(self, output: Tensor) -> Tensor:
        """The output, or its gradient, as (N, channels, h, w)."""
        channels = output.permute(self.order)
        if self.grid is None:
            return channels
        return channels.narrow(2, self.before, self.grid[0] * self.grid[1]).unflatten(2, self.grid)


def layout_of(axes: Axes | None, shape: Sequence[int], count: int) -> Layout | None:
    """The layout of an output of known axes for `count` images; None where it is no stack of channels.

    Axes of size 1 that stand for nothing may be any that are missing: the channels of one filter, the image of a batch of one.
    """
    if not axes or len(axes) not in (3, 4):
        return None
    found: dict[str, int] = {}
    empty: list[int] = []
    tokens: Tokens | None = None
    for position, axis in enumerate(axes):
        kind = _kind(axis)
        if not axis:
            empty.append(position)
            continue
        if kind is None or kind in found:
            return None
        found[kind] = position
        if kind == "places":
            tokens = axis[0].kind if isinstance(axis[0].kind, Tokens) else Tokens(0, axis, 0)
    wanted = (IMAGE, CHANNEL, "places") if tokens else (IMAGE, CHANNEL, ROW, COLUMN)
    for kind in wanted:
        if kind not in found:
            if not empty:
                return None
            found[kind] = empty.pop(0)
    if len(found) != len(wanted) or len(wanted) != len(axes) or shape[found[IMAGE]] != count:
        return None
    order = tuple(found[kind] for kind in wanted)
    return Layout(order, tokens.before, (tokens.places[0].size, tokens.places[1].size)) if tokens else Layout(order)


def checked_reshape(reshape: Reshape, name: str, output: Tensor, count: int) -> None:
    """Raise `ValueError` where a person's `reshape` does not select and rearrange a layer's values into a stack of channels."""
    places = torch.arange(output.numel(), dtype=torch.float64, device=output.device).view(output.shape)
    given = tuple(output.shape)
    try:
        found = reshape(places)
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"reshape fails on what layer {name!r} gives, {given}: {str(error).splitlines()[0].rstrip('.')}."
        ) from error
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != count:
        made = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"reshape makes {made} of what layer {name!r} gives, {given}; it must give ({count}, channels, height, width)."
        )
    chosen = found.long().clamp(0, output.numel() - 1)
    noise = torch.rand(output.numel(), generator=torch.Generator().manual_seed(0)).to(output.device)
    moved = torch.equal(reshape(noise.view(output.shape)), noise[chosen])
    own = torch.arange(count, device=found.device).view(-1, 1, 1, 1) == chosen // (output.numel() // count)
    if not moved or len(chosen.unique()) < chosen.numel() or (given[0] == count and not own.all()):
        raise ValueError(
            f"reshape changes the values of what layer {name!r} gives, repeats them or mixes images; it may only select and "
            "rearrange them, as permute, reshape and slices do."
        )


def refusal(name: str, output: object, axes: Axes | None, count: int) -> ValueError:
    """Why a layer's output is no stack of channels, and what to do."""
    if not isinstance(output, Tensor):
        return ValueError(f"Layer {name!r} gives {type(output).__name__} and no tensor; choose a layer inside of it.")
    given = tuple(output.shape)
    if output.ndim < 3:
        return ValueError(
            f"Layer {name!r} gives {given}, which has no places, but a class activation map needs ({count}, channels, height, "
            "width); choose an earlier layer."
        )
    return ValueError(
        f"Layer {name!r} gives {given}: {unread(output, axes, count)}; choose another layer, or pass reshape=, a function that "
        f"brings this to ({count}, channels, height, width)."
    )


def unread(output: Tensor, axes: Axes | None, count: int) -> str:
    """What is known of the axes of a layer's output that is no stack of channels."""
    if axes:
        return "places split into windows or heads" if _is_split(axes) else "other axes than images, channels and places"
    if len(output) != count:
        return "axes that are not images, channels, height and width"
    if axes == OTHER:
        return "axes that are not images, channels, height and width as given (moved, cut or padded on the way)"
    return "axes whose meaning does not follow from the forward pass"


def _is_split(axes: Axes) -> bool:
    """Whether the rows or columns of the image are spread over several axes or parts."""
    parts = [part for axis in axes for part in axis]
    return any(part.kind in (ROW, COLUMN) and not part.complete for part in parts) or len(axes) > 3


def _kind(axis: Axis) -> str | None:
    """What a whole axis stands for: "image", "channel", "row", "column", "places"; None for a mixture."""
    if is_channels(axis):
        return CHANNEL
    places = axis[0].kind.places if len(axis) == 1 and isinstance(axis[0].kind, Tokens) else axis
    if tuple(part.kind for part in places) == (ROW, COLUMN) and all(part.complete for part in places):
        return "places"
    kind = axis[0].kind
    return kind if len(axis) == 1 and axis[0].complete and isinstance(kind, str) else None
