"""The layer table of torchsummary as text, with the model left as it was found."""

import contextlib
import io

import torch
from torch import nn

from era_support_packages.models.copies import detached_copy


def model_summary(model: nn.Module, input_shape: tuple[int, int, int] = (3, 32, 32)) -> str:
    """torchsummary's table for one image (C, H, W): layer types, output shapes, parameters, memory.

    torchsummary runs a training-mode forward pass on noise, which moves batch-norm statistics and the random state, and its
    hooks stay where that pass fails. It gets a float32 copy of the model on the CPU and a random state of its own.

    >>> from era_support_packages import ResNet18
    >>> from era_support_packages.models import model_summary
    >>> print(model_summary(ResNet18()))
    ----------------------------------------------------------------
    ...
    Total params: 11,173,962
    ...
    """
    from torchsummary import summary

    twin = detached_copy(model).float().cpu()
    text = io.StringIO()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(text):
        summary(twin, input_shape, device="cpu")
    return text.getvalue().rstrip("\n")
