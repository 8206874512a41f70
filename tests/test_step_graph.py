"""A training step as a CUDA graph: the same numbers as without, whatever the batch's shape; most of it needs a GPU."""

import copy
import warnings

import pytest
import torch
from tiny import coloured_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages import training
from era_support_packages.checkpoint import Checkpoint
from era_support_packages.config import TrainingConfig
from era_support_packages.hardware import use_resources
from era_support_packages.resnet import ResNet18
from era_support_packages.step_graph import GraphedPass
from era_support_packages.training_setup import TrainingStep, build_optimizer, build_scheduler, resolve

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_without_a_gpu_no_graph_is_recorded() -> None:
    model = tiny_network()
    assert not isinstance(TrainingStep(model, build_optimizer(model, plan()), plan()).forward_backward, GraphedPass)


# ---- on a GPU --------------------------------------------------------------------------------------------------------


def batches(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Seven batches at 16 px, six at 24, five at 16 again, on the GPU."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for pixels in [16] * 7 + [24] * 6 + [16] * 5:
        images = torch.randn(32, 3, pixels, pixels, generator=generator)
        labels = torch.randint(0, 10, (32,), generator=generator)
        found.append((images.cuda().contiguous(memory_format=torch.channels_last), labels.cuda()))
    return found


def trained(config: TrainingConfig, graphed: bool, network: nn.Module | None = None) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, numbers of hits, and the weights after training on those batches."""
    torch.manual_seed(0)
    model = (network or ResNet18(10)).cuda().to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, len(batches())))
    if not graphed:
        step.forward_backward = step.forward_backward.forward_backward
    with use_resources(config):
        results = [step(images, labels) for images, labels in batches()]
    if graphed and network is None:
        assert step.forward_backward.graph is not None
    return [value.item() for pair in results for value in pair], {k: v.clone() for k, v in model.state_dict().items()}


@needs_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_graph_trains_as_single_kernels_do_bit_for_bit(precision: str, optimizer: str) -> None:
    values = {"precision": precision, "deterministic": True, "max_lr": 0.05, "label_smoothing": 0.1, "device": "cuda"}
    config = resolve(TrainingConfig.preset("smoke", optimizer=optimizer, **values))
    results, weights = trained(config, graphed=True)
    expected, expected_weights = trained(config, graphed=False)
    assert results == expected
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)


@needs_gpu
def test_a_network_that_waits_for_the_device_trains_without_a_graph() -> None:
    class Impatient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 10)

        def forward(self, images: Tensor) -> Tensor:
            means = images.mean(dim=(2, 3))
            return self.linear(means) * (2.0 if means.sum().item() > 0 else 1.0)

    config = resolve(TrainingConfig.preset("smoke", precision="fp32", deterministic=True, max_lr=0.05, device="cuda"))
    network = Impatient()
    with pytest.warns(UserWarning, match="Training runs without a CUDA graph, which is slower: "):
        results, weights = trained(config, True, copy.deepcopy(network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, expected_weights = trained(config, False, copy.deepcopy(network))
    assert results == expected
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)


@needs_gpu
def test_the_same_seed_gives_the_same_bits_on_a_gpu_and_so_does_a_run_that_was_stopped() -> None:
    train, test = coloured_images(24, 32), coloured_images(6, 32, "test")
    changes = {"batch_size": 2, "epochs": 4, "max_lr": 0.05, "resolutions": ((16, 0.5), (24, 0.5)), "whitening": False}
    config = resolve(TrainingConfig.preset("fast", device="cuda", deterministic=True, **changes), train)
    kept: list[Checkpoint] = []

    def keep(state: Checkpoint) -> None:
        kept.append(copy.deepcopy(state))

    models = [training.build_model(config, len(train.classes)) for _ in range(3)]
    for model in models[:2]:
        training.fit(model, train, test, config, quiet, keep)
    training.fit(models[2], train, test, config, quiet, resume=kept[1])
    first, *others = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
