"""Muon: momentum whose steps for the filters of convolutions are made orthogonal."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, chosen for a steep start (Jordan 2024)
ITERATIONS = 3  # no worse than 5 where they were compared (benchmarks/README.md), at three fifths of the products


def orthogonalized(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The same matrices with singular values closer to each other, none above 1.3: float32 (N, rows, columns) of the same shape.

    Newton-Schulz iteration from the matrix divided by its Frobenius norm (Jordan 2024, "Muon: An optimizer for hidden layers in
    neural networks"); after five iterations all but the smallest lie between 0.7 and 1.2. On a CUDA GPU the products run in
    float16: Colab's T4 has units for it and none for bfloat16, and all values on the way stay below 3. A matrix of zeros
    stays one.
    """
    a, b, c = COEFFICIENTS
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-12)
    if x.device.type == "cuda":
        x = x.half()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


def _without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A class's step as it was before PyTorch wrapped the optimizer's hooks around it: they belong to the step as a whole."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step


class Muon(torch.optim.SGD):
    """SGD with Nesterov momentum; in groups with `orthogonal=True`, which hold the filters of convolutions, Muon.

    There each step turns the weight (outputs, ...) by about `lr` of its own length in the direction of the orthogonalized
    momentum, and the length stays as it was: behind a batch norm it means nothing. So a weight of zeros stays one, and weight
    decay does nothing. All other groups go by `torch.optim.SGD` (`fused` too). After Jordan 2024, airbench94_muon, which also
    keeps the length.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, fused: bool | None = None) -> None:
        super().__init__(
            [{"orthogonal": False, **group} for group in groups], lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` as for every PyTorch optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        every_group = self.param_groups
        try:
            self.param_groups = [group for group in every_group if not group["orthogonal"]]
            _without_hooks(torch.optim.SGD.step)(self)
        finally:
            self.param_groups = every_group
        for group in every_group:
            if group["orthogonal"]:
                self._turn(group)
        return loss

    def _turn(self, group: dict[str, Any]) -> None:
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        gradients = [weight.grad for weight in weights]
        skip = getattr(self, "found_inf", None)  # a gradient scaler sets it to 1 where a gradient is not finite: no step then
        if skip is not None:
            scale = 1.0 if self.grad_scale is None else self.grad_scale  # None: they have been unscaled before
            gradients = [torch.where(skip.bool(), 0.0, gradient / scale) for gradient in gradients]
        for weight in weights:
            if self.state[weight].get("momentum_buffer") is None:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        kept = group["momentum"] if skip is None else torch.where(skip.bool(), 1.0, group["momentum"])
        torch._foreach_mul_(buffers, kept)
        torch._foreach_add_(buffers, gradients)
        directions = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
        by_shape: dict[tuple[int, int], list[int]] = {}
        for number, weight in enumerate(weights):
            by_shape.setdefault((len(weight), weight[0].numel()), []).append(number)
        for shape, numbers in by_shape.items():  # those of one shape in one product
            stacked = torch.stack([weights[number].reshape(shape) for number in numbers])
            steps = orthogonalized(torch.stack([directions[number].reshape(shape) for number in numbers]))
            lengths = stacked.norm(dim=(1, 2), keepdim=True)
            share = group["lr"] if skip is None else torch.where(skip.bool(), 0.0, group["lr"])
            steps = stacked - share * lengths * steps / (steps.norm(dim=(1, 2), keepdim=True) + 1e-12)
            steps *= lengths / (steps.norm(dim=(1, 2), keepdim=True) + 1e-12)
            for number, values in zip(numbers, steps, strict=True):
                weights[number].copy_(values.view(weights[number].shape))  # whatever its memory format
