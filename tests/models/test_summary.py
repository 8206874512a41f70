"""The layer table: the original's to the character, and the model and every random state left as found."""

import copy
import random
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from era_support_packages.models.resnet import ResNet18
from era_support_packages.models.summary import model_summary


def small_network(last: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), last or nn.Linear(144, 10))


def test_the_table_of_resnet18_is_the_originals_to_the_character() -> None:
    expected = (Path(__file__).parents[1] / "support" / "resnet18_summary.txt").read_text()
    assert expected.splitlines()[-9] == "Total params: 11,173,962"
    assert model_summary(ResNet18()) + "\n" == expected


def everything_about(model: nn.Module) -> list[object]:
    """What a forward pass of torchsummary may change: the library alone moves statistics, random state and hooks."""
    return [
        [(name, value.dtype, value.tolist()) for name, value in model.state_dict().items()],
        [(value.requires_grad, None if value.grad is None else value.grad.tolist()) for value in model.parameters()],
        [module.training for module in model.modules()],
        [list(hooks.values()) for module in model.modules() for name, hooks in vars(module).items() if name.endswith("_hooks")],
        (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        (sys.stdout, torch.is_grad_enabled()),
    ]


@pytest.mark.parametrize("fails", [False, True], ids=["all goes well", "the forward pass fails"])
def test_the_model_and_the_random_states_are_as_before(fails: bool, capsys: pytest.CaptureFixture) -> None:
    model = small_network(last=nn.Linear(7, 10) if fails else None).train()  # of 144 values
    model[2].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].register_forward_hook(lambda module, inputs, output: output * 1)
    model[0].register_full_backward_hook(lambda module, grad_input, grad_output: None)
    before = everything_about(model)
    assert sum(map(len, before[3])) == 2
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") if fails else nullcontext():
        model_summary(model, (3, 8, 8))
    assert everything_about(model) == before
    assert capsys.readouterr() == ("", "")


def test_another_shape_precision_or_memory_format_is_taken_as_it_is() -> None:
    model = small_network()
    expected = model_summary(model, (3, 8, 8))
    lines = expected.splitlines()
    assert lines[3].split() == ["Conv2d-1", "[-1,", "4,", "6,", "6]", "112"]
    assert lines[7].split() == ["Linear-5", "[-1,", "10]", "1,450"]
    assert "Total params: 1,570" in lines
    half = copy.deepcopy(model).to(torch.bfloat16, memory_format=torch.channels_last)
    assert model_summary(half, (3, 8, 8)) == expected
    assert half[0].weight.dtype == torch.bfloat16
    assert half[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert model_summary(model, (3, 8, 8)) == expected
