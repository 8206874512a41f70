"""The model, the images and the surroundings are left as they were found, whatever happens."""

from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from gradcam_networks import KINDS, Passes, layers_for, small_images, small_network, state
from torch import Tensor, nn

from era_support_packages.gradcam.explanation import explain, image_passes
from era_support_packages.gradcam.methods import METHODS


def mixed_network() -> nn.Sequential:
    """Some modules in training mode, some in evaluation mode; some frozen; some with gradients; one with a hook."""
    model = nn.Sequential(nn.BatchNorm2d(3), *small_network(), nn.Dropout(0.5))
    model(small_images()).sum().backward()
    model[0].eval()
    model[1].weight.requires_grad_(False)
    model[1].weight.grad = None
    Passes(model[3])
    return model


class Failing(nn.Module):
    """Hands its input on and raises in the pass of a given number, forwards or backwards."""

    def __init__(self, error: type[BaseException], forward: int = 0, backward: int = 0) -> None:
        super().__init__()
        self.error, self.left, self.backwards_left = error, forward, backward

    def forward(self, activation: Tensor) -> Tensor:
        if self.training:
            return activation
        self.left -= 1
        if self.left == 0:
            raise self.error("midway")
        if activation.requires_grad and self.backwards_left:
            activation.register_hook(self._backward)
        return activation

    def _backward(self, gradient: Tensor) -> None:
        self.backwards_left -= 1
        if self.backwards_left == 0:
            raise self.error("midway")


@pytest.mark.parametrize("method", METHODS)
def test_everything_is_as_before(method: str) -> None:
    model, images, layers = mixed_network(), small_images().requires_grad_(), layers_for(method, "1", "3")
    before, pixels = state(model), images.detach().clone()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    explain(model, images, [[0, 1]] * 3, layers, method)
    image_passes(model, images, layers, method)
    assert state(model) == before
    assert images.grad is None
    assert torch.equal(images, pixels)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.is_grad_enabled()


# Where the third forward pass or the second backward pass of a method fails it is in the middle of its work: the first two
# passes of Score-CAM and Ablation-CAM are those that count their channels and record their activations.
FAILURES = [(method, {"forward": 1}) for method in KINDS]
FAILURES += [(method, {"forward": 3}) for method in ("scorecam", "ablationcam")]
FAILURES += [(method, {"backward": 2}) for method in ("gradcam", "eigengradcam", "fullgrad")]


@pytest.mark.parametrize("error", [IndexError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(("method", "fails"), FAILURES, ids=str)
def test_everything_is_as_before_when_the_model_raises_or_is_interrupted(
    method: str, fails: dict[str, int], error: type[BaseException]
) -> None:
    model = mixed_network()
    model.insert(4, Failing(error, **fails))
    before = state(model)
    with pytest.raises(error, match="midway"):
        explain(model, small_images(), [[0, 1]] * 3, layers_for(method, "1", "3"), method)
    assert state(model) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("method", KINDS)
def test_a_loss_that_waits_for_its_backward_pass_still_gets_it(method: str) -> None:
    model, images = small_network(), small_images()
    loss = model(images).square().sum()
    expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    explain(model, images, layers=layers_for(method, "0", "2"), method=method)
    loss.backward()
    assert all(torch.equal(each.grad, gradient) for each, gradient in zip(model.parameters(), expected, strict=True))


@pytest.mark.parametrize("method", KINDS)
def test_images_survive_a_network_that_begins_in_place(method: str) -> None:
    images, layers = small_images(), layers_for(method, "1")
    pixels = images.clone()
    models = (nn.Sequential(nn.ReLU(inplace=inplace), *small_network()) for inplace in (True, False))
    np.testing.assert_array_equal(*(explain(model, images, [0, 1, 2], layers, method).maps for model in models))
    assert torch.equal(images, pixels)


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_the_progress_bar_counts_every_forward_pass_and_nothing_is_printed_without_it(
    method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bar, expected = MagicMock(), 3 * (1 + 6 + 8)
    monkeypatch.setattr("era_support_packages.gradcam.explanation.progress_bar", bar)
    model, images = small_network(), small_images()
    explain(model, images, [[0, 1]] * 3, ["1", "3", "1"], method, batch_size=2)
    assert image_passes(model, images, ["1", "3", "1"], method) == expected
    explain(model, images, layers="1", method=method, progress=False)
    explain(model, images, layers="1", method="gradcam")
    bar.assert_called_once_with(expected, METHODS[method].title, " passes")
    update = bar.return_value.__enter__.return_value.update
    assert sum(call.args[0] for call in update.call_args_list) == expected
    assert capsys.readouterr() == ("", "")
