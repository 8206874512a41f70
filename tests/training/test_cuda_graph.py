"""A training step as a CUDA graph: the same numbers as without, whatever the batch's shape; some of it needs a GPU."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import Tensor, nn
from torch.testing import assert_close

from era_support_packages.models.resnet import ResNet18
from era_support_packages.training import cuda_graph, loop as training
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import ResolvedConfig, TrainingConfig
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.setup import build_model, build_optimizer, build_scheduler
from era_support_packages.training.step import TrainingStep, Update

TRAIN, TEST = colored_images(48, 32), colored_images(6, 32, "test")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("device", "changes", "drop", "graphed"),
    [
        *[("cpu", {}, 0.0, False), ("cuda", {}, 0.0, True), ("cuda", {}, 0.1, False)],  # the last draws random numbers
        *[("cuda", {"cuda_graph": False}, 0.0, False), ("cuda", {"compile": True}, 0.0, False)],
    ],
)
def test_a_graph_is_for_gpus_and_can_be_switched_off(
    device: str, changes: dict[str, bool], drop: float, graphed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("era_support_packages.training.step.resolve_device", lambda _: torch.device(device))
    monkeypatch.setattr(torch, "compile", lambda model: model)
    model = tiny_network(drop=drop)
    step = TrainingStep(model, build_optimizer(model, plan()), plan(**changes))
    assert isinstance(step.passes, GraphedPass) is graphed


class ActedGpu:
    """Stands in for `torch.cuda`: a graph is "recorded" by running the pass, and "replayed" by working it out again."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.refuses, self.replays, self.synchronized, self.sizes = refuses, 0, 0, []
        self.graphed = GraphedPass(self.forward_backward)
        self.Stream = self.current_stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
        self.CUDAGraph = lambda: SimpleNamespace(replay=self.replay)
        self.device = self.stream = lambda _: nullcontext()

    def forward_backward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel by kernel."""
        self.sizes.append(len(images))
        return images.sum(), labels.max()

    def run(self, counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
        """Batches of so many images, each full of its number; all results are right at the end: none was overwritten."""
        monkeypatch.setattr(cuda_graph.torch, "cuda", self)
        batches = [(torch.full((count, 3), float(number)), torch.tensor([number])) for number, count in enumerate(counts)]
        results = [self.graphed(images, labels) for images, labels in batches]
        assert [(loss.item(), hits.item()) for loss, hits in results] == [(3.0 * n * count, n) for n, count in enumerate(counts)]

    def replay(self) -> None:
        self.replays += 1
        (_, results), buffers = self.graphed.recorded, self.graphed.buffers
        results[0].copy_(buffers.images.sum())
        results[1].copy_(buffers.labels.max())

    def synchronize(self) -> None:
        self.synchronized += 1

    @contextmanager
    def graph(self, _: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # the threads of a DataLoader go on meanwhile
        if self.refuses is not None:
            raise self.refuses
        yield


def test_three_batches_of_a_shape_run_as_before_then_one_is_recorded_and_all_others_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = ActedGpu()
    gpu.run([4] * 6 + [2] * 5 + [4] * 4, monkeypatch)
    assert gpu.sizes == [4] * 4 + [2] * 4 + [4] * 4
    assert gpu.replays == 3 + 2 + 1
    assert gpu.synchronized == 2  # before each graph that was given up


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("not permitted\nmore"), "not permitted"),
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory."),  # it may be large enough without a graph
    ],
)
def test_what_cannot_be_recorded_runs_as_before_with_one_warning(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = ActedGpu(error)
    with pytest.warns(UserWarning, match="without a CUDA graph") as warned:
        gpu.run([4] * 6, monkeypatch)
    assert [str(warning.message) for warning in warned] == [f"Training runs without a CUDA graph, which is slower: {reason}"]
    assert (gpu.sizes, gpu.replays) == ([4] * 6, 0)


def steps(on_device: bool, optimizer: str, count: int = 6) -> tuple[list[float], list[list[float]], list[Tensor]]:
    """Losses, rates and weights of some steps on a CPU, where the rates may lie on the device as on a GPU."""
    config = plan(batch_size=8, max_lr=0.02, optimizer=optimizer, norm_bias_lr=8.0, warmup=0.5)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), tiny_network()).train()  # Muon leaves the first convolution alone
    generator = torch.Generator().manual_seed(0)
    rule = build_optimizer(model, config)
    step = TrainingStep(model, rule, config, build_scheduler(rule, config, count))
    if on_device:
        step.update.on_device, step.passes = True, step._with_update
    losses, rates = [], []
    for _ in range(count):
        images = torch.randn(8, 3, 8, 8, generator=generator)
        losses.append(step(images, torch.randint(0, 3, (8,), generator=generator))[0].item())
        rates.append([group["lr"] for group in rule.param_groups])
        assert all(isinstance(group["lr"], float) for group in rule.param_groups)  # as a checkpoint and the log want them
        assert not on_device or all(rate.dtype == torch.float32 for rate in step.update.rates)
    return losses, rates, [value.detach() for value in model.parameters()]


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_rates_on_the_device_follow_the_schedule(optimizer: str) -> None:
    theirs, ours = steps(False, optimizer), steps(True, optimizer)
    assert ours[1] == theirs[1]
    assert len({tuple(rates) for rates in ours[1]}) > 3  # the schedule moves
    assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    assert_close(ours[2], theirs[2], rtol=1e-4, atol=1e-5)


def test_an_update_that_fails_leaves_the_rates_as_numbers() -> None:
    model = tiny_network()
    optimizer = build_optimizer(model, plan())
    update = Update(optimizer, torch.amp.GradScaler("cpu", enabled=False), torch.device("cpu"))
    update.write_rates()
    kept = [group["lr"] for group in optimizer.param_groups]
    optimizer.step = lambda: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        update()
    assert [group["lr"] for group in optimizer.param_groups] == kept


def trained(config: ResolvedConfig, graphed: bool, network: nn.Module | None = None) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, numbers of hits, and the weights after seven batches at 16 px, six at 24, and five at 16 again."""
    torch.manual_seed(0)
    model = copy.deepcopy(network or ResNet18(10)).cuda().to(memory_format=torch.channels_last).train()
    optimizer, generator = build_optimizer(model, config), torch.Generator().manual_seed(0)
    step = TrainingStep(model, optimizer, config, build_scheduler(optimizer, config, 18))
    if not graphed:
        step.passes = step.passes.forward_backward
    results = []
    with use_resources(config):
        for pixels in [16] * 7 + [24] * 6 + [16] * 5:
            images = torch.randn(32, 3, pixels, pixels, generator=generator).cuda().contiguous(memory_format=torch.channels_last)
            results += step(images, torch.randint(0, 10, (32,), generator=generator).cuda())
    if graphed and network is None:
        assert step.passes.recorded is not None
    return [value.item() for value in results], model.state_dict()


def on_gpu(**changes: Any) -> ResolvedConfig:
    values = {"precision": "fp32", "deterministic": True, "max_lr": 0.05, "device": "cuda", **changes}
    return resolve(TrainingConfig.preset("smoke", **values), TRAIN)


@needs_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_graph_trains_as_single_kernels_do_bit_for_bit(precision: str, optimizer: str) -> None:
    config = on_gpu(optimizer=optimizer, precision=precision, label_smoothing=0.1)
    assert_close(trained(config, graphed=True), trained(config, graphed=False), rtol=0, atol=0)


class Impatient(nn.Module):
    """A network that waits for the device in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(2, 3))
        return self.linear(means) * (2.0 if means.sum().item() > 0 else 1.0)


@needs_gpu
def test_a_network_that_waits_for_the_device_trains_without_a_graph() -> None:
    network = Impatient()
    with pytest.warns(UserWarning, match="Training runs without a CUDA graph, which is slower: "):
        found = trained(on_gpu(), True, network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(found, trained(on_gpu(), False, network), rtol=0, atol=0)


@needs_gpu
def test_images_from_a_data_loaders_workers_train_as_those_of_the_device_do() -> None:
    weights = []
    for engine in ("samples", "device"):
        config = on_gpu(batch_size=4, engine=engine, train_images=96)
        model = build_model(config, 3)
        training.fit(model, TRAIN, TEST, config, quiet)
        weights.append(model.state_dict())
    assert_close(*weights, rtol=0, atol=0)


@needs_gpu
def test_the_same_seed_gives_the_same_bits_on_a_gpu_and_so_does_a_run_that_was_stopped() -> None:
    changes = {"batch_size": 4, "epochs": 4, "max_lr": 0.05, "resolutions": ((16, 0.5), (24, 0.5)), "whitening": False}
    config = resolve(TrainingConfig.preset("fast", device="cuda", deterministic=True, **changes), TRAIN)
    kept: list[Checkpoint] = []
    models = [build_model(config, 3) for _ in range(3)]
    for model in models[:2]:
        training.fit(model, TRAIN, TEST, config, quiet, lambda state: kept.append(copy.deepcopy(state)))
    training.fit(models[2], TRAIN, TEST, config, quiet, resume=kept[1])
    first, *others = (model.state_dict() for model in models)
    assert_close([first, first], others, rtol=0, atol=0)
