"""What a network has learnt: its parameters and the numbers of its norms, without masks, positions and other constants."""

from collections.abc import Iterator

from torch import Tensor, nn

_OF_NORMS = ("running_mean", "running_var", "weight", "bias")  # a frozen batch norm holds all four as buffers


def learned(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters, and the statistics of norms, by name."""
    yield from network.named_parameters()
    for name, values in network.named_buffers():
        if name.rpartition(".")[2] in _OF_NORMS:
            yield name, values
