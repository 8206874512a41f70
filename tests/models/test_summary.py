"""The layer table: the original's to the character, and the model and every random state left as found."""

import copy
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from era_support_packages.models.resnet import ResNet18
from era_support_packages.models.summary import model_summary


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("broken on purpose")


def small_network(last: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), last or nn.Linear(144, 10))


def test_the_table_of_resnet18_is_the_originals_to_the_character() -> None:
    expected = (Path(__file__).parents[1] / "support" / "resnet18_summary.txt").read_text()
    assert expected.splitlines()[-9] == "Total params: 11,173,962"
    assert model_summary(ResNet18()) + "\n" == expected


def test_the_image_may_have_another_shape() -> None:
    lines = model_summary(small_network(), (3, 8, 8)).splitlines()
    assert lines[3].split() == ["Conv2d-1", "[-1,", "4,", "6,", "6]", "112"]
    assert lines[7].split() == ["Linear-5", "[-1,", "10]", "1,450"]
    assert "Total params: 1,570" in lines


def everything_about(model: nn.Module) -> dict:
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "dtypes": [value.dtype for value in model.state_dict().values()],
        "grads": [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "hooks": [
            {name: list(value.values()) for name, value in vars(module).items() if name.endswith("_hooks")}
            for module in model.modules()
        ],
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state(),
        "stdout": sys.stdout,
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(before: dict, after: dict) -> None:
    for key in before:
        if key == "state":
            assert list(before[key]) == list(after[key])
            assert all(torch.equal(before[key][name], after[key][name]) for name in before[key])
        elif key == "grads":
            pairs = zip(before[key], after[key], strict=True)
            assert all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)
        elif key == "torch":
            assert torch.equal(before[key], after[key])
        else:
            assert before[key] == after[key], key


def prepared(model: nn.Sequential) -> nn.Sequential:
    """The model with mixed flags, a frozen parameter, a gradient and two hooks."""
    model.train()
    model[2].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].register_forward_hook(lambda module, inputs, output: output * 1)
    model[0].register_full_backward_hook(lambda module, grad_input, grad_output: None)
    return model


def test_the_model_and_the_random_states_are_as_before(capsys: pytest.CaptureFixture) -> None:
    model = prepared(small_network())
    before = everything_about(model)
    assert any(before["hooks"][2].values())
    model_summary(model, (3, 8, 8))
    assert_same(before, everything_about(model))
    assert capsys.readouterr() == ("", "")


def test_everything_is_as_before_also_when_the_forward_pass_fails(capsys: pytest.CaptureFixture) -> None:
    model = prepared(small_network(last=Broken()))
    before = everything_about(model)
    with pytest.raises(RuntimeError, match=r"^broken on purpose$"):
        model_summary(model, (3, 8, 8))
    assert_same(before, everything_about(model))
    assert capsys.readouterr() == ("", "")


def test_torchsummary_alone_moves_statistics_random_state_and_hooks() -> None:
    """What the module is for: the same comparison fails on the library it wraps."""
    from torchsummary import summary

    model = small_network(last=Broken())
    before = everything_about(model)
    with pytest.raises(RuntimeError, match=r"^broken on purpose$"):
        summary(model, (3, 8, 8), device="cpu")
    after = everything_about(model)
    assert not torch.equal(before["state"]["1.running_mean"], after["state"]["1.running_mean"])
    assert not torch.equal(before["torch"], after["torch"])
    assert before["hooks"] != after["hooks"]


def test_a_model_in_another_precision_or_memory_format_is_taken_as_it_is() -> None:
    model = small_network()
    expected = model_summary(model, (3, 8, 8))
    half = copy.deepcopy(model).to(torch.bfloat16, memory_format=torch.channels_last)
    assert model_summary(half, (3, 8, 8)) == expected
    assert half[0].weight.dtype == torch.bfloat16
    assert half[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert model_summary(model, (3, 8, 8)) == expected
