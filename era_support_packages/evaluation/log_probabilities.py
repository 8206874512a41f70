"""Logarithms of probabilities that are exact also where a network is sure: near 1 a probability has few digits in float32.

The gradient of log p, of the class with the largest p, is 1 - p at what goes into the softmax, and float32 makes 0 or noise of it
from p alone. But 1 - p is the sum of the other probabilities, which have all their digits.
"""

import torch
from torch import Tensor


def sharpened(values: Tensor, rounding: float) -> Tensor:
    """Log-probabilities (N, C), whose exponentials add up to one whatever the input, without the rounding of the largest.

    Its value and the gradient that goes back through it are computed from the others. Both stay what they are but for rounding,
    `rounding` being the relative one of what the values were computed in.

    >>> import torch
    >>> from era_support_packages.evaluation.log_probabilities import sharpened
    >>> z = torch.tensor([[0.0, 30.0]], requires_grad=True)
    >>> plain, exact = z.log_softmax(dim=1), sharpened(z.log_softmax(dim=1), torch.finfo(torch.float32).eps)
    >>> torch.autograd.grad(plain[0, 1], z)[0], torch.autograd.grad(exact[0, 1], z)[0]
    (tensor([[-9.3576e-14,  0.0000e+00]]), tensor([[-9.3576e-14,  9.3576e-14]]))
    """
    given = values.detach()
    largest = given.argmax(dim=1, keepdim=True)
    probabilities = given.exp()
    others = probabilities.scatter(1, largest, 0).sum(dim=1, keepdim=True)
    before = given.gather(1, largest)
    exact = torch.log1p(-others.clamp_max(0.5))
    exact = torch.where((others < 0.5) & ((exact - before).abs() <= 4 * rounding), exact, before)
    result = values.scatter_add(1, largest, exact - before)

    def corrected(gradient: Tensor) -> Tensor:
        # What a log_softmax makes of its gradient. To go through one itself leaves it as it is, since its rows add up to zero.
        own = (gradient - probabilities * gradient.sum(dim=1, keepdim=True)).scatter(1, largest, 0)
        return own.scatter(1, largest, -own.sum(dim=1, keepdim=True))

    if result.requires_grad:
        result.register_hook(corrected)
    return result
