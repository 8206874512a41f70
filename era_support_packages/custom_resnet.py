"""`resnet_custom` for notebooks of the course project of 2023: it returns log-probabilities."""

from torch import Tensor

from era_support_packages.models.custom_resnet import CustomResNet as _CustomResNet, resnet_custom as _resnet_custom

__all__ = ["resnet_custom"]


class _LogProbabilities(_CustomResNet):
    """The network with log-softmax behind it, for `nll_loss`; cross entropy gives the same number with and without."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).log_softmax(dim=1)


def resnet_custom(norm: str = "BN", groupsize: int = 1, drop: float = 0.02, num_classes: int = 10) -> _CustomResNet:
    """`models.resnet_custom` with log-probabilities in place of logits, as notebooks of 2023 expect them."""
    network = _resnet_custom(norm, groupsize, drop, num_classes)
    network.__class__ = _LogProbabilities
    return network
