"""SGD with momentum, at its fastest on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`, whose fused step on a CPU sees each tensor in the order that its memory has.

    PyTorch's own copies every gradient in channels_last memory first, and where a gradient lies otherwise than its weight it
    takes one value for another without a word; here such a gradient is laid out anew. All else, also on a GPU, is PyTorch's.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` as for every PyTorch optimizer."""
        if not self._fused_on_a_cpu():
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            buffers: list[Tensor | None] = [None] * len(weights)
            if group["momentum"]:
                buffers = [in_memory_order(self._buffer(weight), weight) for weight in weights]
            sgd(
                [in_memory_order(weight, weight) for weight in weights],
                [in_memory_order(laid_out_like(weight.grad, weight), weight) for weight in weights],
                buffers,
                fused=True,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
                **{name: group[name] for name in ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")},
            )
        return loss

    def _fused_on_a_cpu(self) -> bool:
        return all(
            group["fused"] and not group["dampening"] and weight.device.type == "cpu"
            for group in self.param_groups
            for weight in group["params"]
        )

    def _buffer(self, weight: Tensor) -> Tensor:
        """The momentum of a weight, laid out as that is; zeros before the first step."""
        state = self.state[weight]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["momentum_buffer"] = laid_out_like(state["momentum_buffer"], weight)
        return state["momentum_buffer"]


def laid_out_like(values: Tensor, other: Tensor) -> Tensor:
    """The values themselves, or where their memory has another order a copy in that of the other tensor."""
    return values if values.stride() == other.stride() else torch.empty_like(other).copy_(values)


def in_memory_order(values: Tensor, other: Tensor) -> Tensor:
    """A view of `values` with its axes in the order that they have in the other tensor's memory."""
    strides = other.stride()
    return values.permute(sorted(range(other.ndim), key=lambda axis: -strides[axis]))
