"""Muon: momentum whose steps for the filters of convolutions are made orthogonal."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from era_support_packages.system.processes import ALONE, Processes
from era_support_packages.training.muon_sharing import exchange, is_faster_shared, owners
from era_support_packages.training.sgd import SGD

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, chosen for a steep start (Jordan 2024)
ITERATIONS = 3  # no worse than 5 where they were compared (benchmarks/README.md)

TINY = 1e-12  # added to what is divided by


def orthogonalized(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """The same matrices with singular values closer to each other, none above 1.3: float32 (N, rows, columns) of the same shape.

    `newton_schulz` of the matrix divided by its Frobenius norm; after five iterations all singular values but the smallest lie
    between 0.7 and 1.2. On a CUDA GPU the products run in float16: Colab's T4 has units for it and none for bfloat16, and all
    values on the way stay below 3. A matrix of zeros stays one.
    """
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + TINY)
    if x.device.type == "cuda":
        x = x.half()
    tall = x.shape[1] > x.shape[2]
    x = newton_schulz(x.mT if tall else x, iterations)
    return (x.mT if tall else x).float()


def newton_schulz(x: Tensor, iterations: int) -> Tensor:
    """The matrices (N, rows, columns), of no more rows than columns, after at least one iteration of the quintic, in their type.

    Jordan 2024, "Muon: An optimizer for hidden layers in neural networks". An iteration makes (a + bG + cG²) X of X, where G is
    X Xᵀ. In float16 each iteration multiplies X, for what is carried on from G to G would round too much.
    """
    if x.dtype != torch.float16:
        return _by_one_product(x, iterations)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_one_product(x: Tensor, iterations: int) -> Tensor:
    """The same by polynomials of one matrix, which commute: the small square ones are multiplied by each other, and X once.

    With nine times as many columns as rows, as most convolutions have, three iterations take 54 of 114 operations.
    """
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product = torch.eye(len(gram[0]), dtype=x.dtype, device=x.device).expand_as(gram)
    for left in reversed(range(iterations)):
        rest = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # the polynomial is a + rest
        first = left == iterations - 1
        product = a * product + rest if first else torch.baddbmm(product, rest, product, beta=a)
        if left:
            gram = torch.baddbmm(gram, rest, gram, beta=a)
            gram = torch.baddbmm(gram, gram, rest, beta=a)
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon for the filters of convolutions: parameters (outputs, ...) of two dimensions or more, float32.

    Each step turns a weight by about `lr` of its own length in the direction of the orthogonalized Nesterov momentum, and the
    length stays as it was: behind a batch norm it means nothing. So a weight of zeros stays one, and there is no weight decay.
    After Jordan 2024, airbench94_muon, which also keeps the length.
    """

    processes: Processes = ALONE  # those that take the same step, and may share out its products
    _step_supports_amp_scaling = True  # a gradient scaler hands over `grad_scale` and `found_inf` instead of skipping the step

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` as for every PyTorch optimizer."""
        loss = _loss_of(closure)
        for group in self.param_groups:
            if weights := [weight for weight in group["params"] if weight.grad is not None]:
                self._turn(weights, group["lr"], group["momentum"])
        return loss

    def _turn(self, weights: list[Tensor], lr: float, momentum: float) -> None:
        """Turn the weights. What can be done for all of them at once is: on a GPU the launches take longer than the work."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]  # all have one
        rate: float | Tensor = lr
        skip = getattr(self, "found_inf", None)  # 1 where a gradient is not finite: nothing may change then
        if skip is not None:
            skip = skip.bool()
            scale = getattr(self, "grad_scale", None)  # None: they have been unscaled before
            gradients = [torch.where(skip, 0.0, gradient if scale is None else gradient / scale) for gradient in gradients]
            rate = torch.where(skip, 0.0, lr)
        for weight in weights:
            if self.state[weight].get("momentum_buffer") is None:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, momentum if skip is None else torch.where(skip, 1.0, momentum))
        torch._foreach_add_(buffers, gradients)
        directions = _orthogonalized(weights, torch._foreach_add(gradients, buffers, alpha=momentum), self.processes)
        lengths = torch.stack(torch._foreach_norm(weights))
        shares = rate * lengths / (torch.stack(torch._foreach_norm(directions)) + TINY)
        for weight, direction, share in zip(weights, directions, shares.unbind(), strict=True):
            weight.addcmul_(direction, share, value=-1)
        torch._foreach_mul_(weights, list((lengths / (torch.stack(torch._foreach_norm(weights)) + TINY)).unbind()))


def _orthogonalized(weights: Sequence[Tensor], directions: Sequence[Tensor], processes: Processes) -> list[Tensor]:
    """The directions orthogonalized as matrices (outputs, all else), those of one shape in one product; shaped as the weights.

    A matrix has its columns in the order that the weights' memory has, so that nothing needs to be rearranged; to what comes out
    of them their order makes no difference. Several processes on CPUs compute each matrix by itself, so that its bits do not
    depend on who computes it.
    """
    orders = [_order_in_memory(weight) for weight in weights]
    matrices = [direction.permute(order).flatten(1) for direction, order in zip(directions, orders, strict=True)]
    shapes = [(len(matrix), matrix.shape[1]) for matrix in matrices]
    kind = weights[0].device.type
    shared = is_faster_shared(shapes, processes.count, ITERATIONS, kind)
    whose = owners(shapes, processes.count, ITERATIONS, kind) if shared else [processes.rank] * len(shapes)
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, shape in enumerate(shapes):
        if whose[number] == processes.rank:
            alike.setdefault((*shape, number) if processes.count > 1 and kind == "cpu" else shape, []).append(number)
    found: dict[int, Tensor] = {}
    for numbers in alike.values():
        results = orthogonalized(torch.stack([matrices[number] for number in numbers]))
        if processes.count > 1:  # as they are where they come from another: their order in memory decides the bits of their norm
            results = results.contiguous()
        found |= zip(numbers, results, strict=True)
    if shared:
        exchange(found, shapes, whose, matrices[0], processes)
    return [_shaped(found[number], weight, order) for number, (weight, order) in enumerate(zip(weights, orders, strict=True))]


def _shaped(matrix: Tensor, weight: Tensor, order: Sequence[int]) -> Tensor:
    """A matrix as the weight is shaped, whose axes stand in that order in memory."""
    back = sorted(range(len(order)), key=order.__getitem__)
    return matrix.view([weight.shape[axis] for axis in order]).permute(back)


def _order_in_memory(weight: Tensor) -> list[int]:
    """The axes of a weight, outputs first, then from the one with the longest stride to the one with the shortest."""
    strides = weight.stride()
    return [0, *sorted(range(1, weight.ndim), key=lambda axis: -strides[axis])]


class MuonWithSGD(torch.optim.Optimizer):
    """Two optimizers behind one face: `Muon` for groups with `orthogonal=True`, SGD with Nesterov momentum for all others.

    Schedulers, gradient scalers, hooks and checkpoints see one optimizer with all groups. `fused` is that of `torch.optim.SGD`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, fused: bool | None = None) -> None:
        groups = list(groups)
        self.sgd = SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
        self.muon = Muon(groups, lr, momentum)
        super().__init__(groups, {**self.sgd.defaults, "orthogonal": False})
        self._step_supports_amp_scaling = bool(fused)

    def share_among(self, processes: Processes) -> None:
        """Let the processes that take the same steps share out Muon's products where that is faster; the weights stay equal."""
        self.muon.processes = processes

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: PyTorch's own method knows of no parts."""
        own = {name: getattr(self, name) for name in ("sgd", "muon", "_step_supports_amp_scaling")}
        return {**super().__getstate__(), **own}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` as for every PyTorch optimizer."""
        loss = _loss_of(closure)
        for part, orthogonal in ((self.sgd, False), (self.muon, True)):
            part.param_groups = [group for group in self.param_groups if group["orthogonal"] == orthogonal]
            part.state = self.state  # one for both, as a checkpoint has it
            for name in ("grad_scale", "found_inf"):
                setattr(part, name, getattr(self, name, None))
            part.step()
        return loss


@torch.enable_grad()
def _loss_of(closure: Callable[[], Any] | None) -> Any:
    return None if closure is None else closure()
