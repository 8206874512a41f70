"""A training step as a CUDA graph: the same numbers as without, whatever the batch's shape; some of it needs a GPU."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny import colored_images, plan, quiet, tiny_network
from torch import Tensor, nn

from era_support_packages.models.resnet import ResNet18
from era_support_packages.training import cuda_graph as step_graph, loop as training
from era_support_packages.training.checkpoint import Checkpoint
from era_support_packages.training.config import TrainingConfig
from era_support_packages.training.cuda_graph import GraphedPass
from era_support_packages.training.resolution import resolve
from era_support_packages.training.resources import use_resources
from era_support_packages.training.setup import build_model, build_optimizer, build_scheduler
from era_support_packages.training.step import TrainingStep

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("device", "changes", "drop", "graphed"),
    [
        ("cpu", {}, 0.0, False),
        ("cuda", {}, 0.0, True),
        ("cuda", {}, 0.1, False),  # it draws random numbers
        ("cuda", {"cuda_graph": False}, 0.0, False),
        ("cuda", {"compile": True}, 0.0, False),
    ],
)
def test_a_graph_is_for_gpus_and_can_be_switched_off(
    device: str, changes: dict[str, bool], drop: float, graphed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("era_support_packages.training.step.resolve_device", lambda _: torch.device(device))
    monkeypatch.setattr(torch, "compile", lambda model: model)
    model = tiny_network(drop=drop)
    step = TrainingStep(model, build_optimizer(model, plan()), plan(**changes))
    assert isinstance(step.forward_backward, GraphedPass) is graphed


# ---- what happens when, with a GPU that is acted -----------------------------------------------------------------------


class ActedGpu:
    """Stands in for `torch.cuda`: a graph is "recorded" by running the pass, and "replayed" by working it out again."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.refuses, self.replays, self.synchronized = refuses, 0, 0
        self.graphed: GraphedPass | None = None
        self.Stream = self.current_stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
        self.CUDAGraph = lambda: SimpleNamespace(replay=self.replay)

    def replay(self) -> None:
        self.replays += 1
        (_, results), buffers = self.graphed.recorded, self.graphed.buffers
        for result, value in zip(results, worked_out(buffers.images, buffers.labels), strict=True):
            result.copy_(value)

    def device(self, _: torch.device) -> AbstractContextManager:
        return nullcontext()

    def stream(self, _: object) -> AbstractContextManager:
        return nullcontext()

    def synchronize(self) -> None:
        self.synchronized += 1

    @contextmanager
    def graph(self, _: object, stream: object, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # the threads of a DataLoader go on meanwhile
        if self.refuses is not None:
            raise self.refuses
        yield


def worked_out(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return images.sum(), labels.max()


def acted(monkeypatch: pytest.MonkeyPatch, refuses: Exception | None = None) -> tuple[GraphedPass, ActedGpu, list[int]]:
    """A pass on an acted GPU, and the sizes of the batches that ran through it kernel by kernel."""
    gpu, sizes = ActedGpu(refuses), []

    def forward_backward(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(images))
        return worked_out(images, labels)

    monkeypatch.setattr(step_graph.torch, "cuda", gpu)
    gpu.graphed = GraphedPass(forward_backward)
    return gpu.graphed, gpu, sizes


def test_three_batches_of_a_shape_run_as_before_then_one_is_recorded_and_all_others_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graphed, gpu, sizes = acted(monkeypatch)
    counts = [4] * 6 + [2] * 5 + [4] * 4
    batches = [(torch.full((count, 3), float(number)), torch.tensor([number])) for number, count in enumerate(counts)]
    results = [graphed(images, labels) for images, labels in batches]
    assert sizes == [4] * 4 + [2] * 4 + [4] * 4
    assert gpu.replays == 3 + 2 + 1
    assert gpu.synchronized == 2  # before each graph that was given up
    # all results at the end: none was overwritten by a later replay
    assert [(loss.item(), hits.item()) for loss, hits in results] == [
        (3.0 * count * number, number) for number, count in enumerate(counts)
    ]


def test_what_cannot_be_recorded_runs_as_before_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    graphed, gpu, sizes = acted(monkeypatch, RuntimeError("operation not permitted when stream is capturing\nmore"))
    with pytest.warns(UserWarning, match="without a CUDA graph") as warned:
        results = [graphed(torch.full((4, 3), float(number)), torch.tensor([number])) for number in range(6)]
    assert [str(warning.message) for warning in warned] == [
        "Training runs without a CUDA graph, which is slower: operation not permitted when stream is capturing"
    ]
    assert [(loss.item(), hits.item()) for loss, hits in results] == [(12.0 * number, number) for number in range(6)]
    assert (sizes, gpu.replays) == ([4] * 6, 0)


def test_a_memory_too_small_for_a_graph_may_be_large_enough_without(monkeypatch: pytest.MonkeyPatch) -> None:
    graphed, _, sizes = acted(monkeypatch, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.warns(UserWarning, match=r"^Training runs without a CUDA graph, which is slower: CUDA out of memory\.$"):
        results = [graphed(torch.ones(4, 3), torch.tensor([number])) for number in range(5)]
    assert [hits.item() for _, hits in results] == list(range(5))
    assert sizes == [4] * 5


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
        assert step.forward_backward.recorded is not None
    return [value.item() for pair in results for value in pair], {k: v.clone() for k, v in model.state_dict().items()}


@needs_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_graph_trains_as_single_kernels_do_bit_for_bit(precision: str, optimizer: str) -> None:
    values = {"precision": precision, "deterministic": True, "max_lr": 0.05, "label_smoothing": 0.1, "device": "cuda"}
    config = resolve(TrainingConfig.preset("smoke", optimizer=optimizer, **values), colored_images(3))
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

    config = resolve(
        TrainingConfig.preset("smoke", precision="fp32", deterministic=True, max_lr=0.05, device="cuda"), colored_images(3)
    )
    network = Impatient()
    with pytest.warns(UserWarning, match="Training runs without a CUDA graph, which is slower: "):
        results, weights = trained(config, True, copy.deepcopy(network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected, expected_weights = trained(config, False, copy.deepcopy(network))
    assert results == expected
    assert all(torch.equal(weights[name], expected_weights[name]) for name in weights)


@needs_gpu
def test_images_from_a_data_loaders_workers_train_as_those_of_the_device_do() -> None:
    train, test = colored_images(48, 32), colored_images(6, 32, "test")
    weights = []
    for engine in ("samples", "device"):
        config = TrainingConfig.preset("smoke", device="cuda", deterministic=True, precision="fp32", batch_size=4, engine=engine)
        config = resolve(config.replace(train_images=96, max_lr=0.05), train)
        model = build_model(config, len(train.classes))
        training.fit(model, train, test, config, quiet)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@needs_gpu
def test_the_same_seed_gives_the_same_bits_on_a_gpu_and_so_does_a_run_that_was_stopped() -> None:
    train, test = colored_images(24, 32), colored_images(6, 32, "test")
    changes = {"batch_size": 2, "epochs": 4, "max_lr": 0.05, "resolutions": ((16, 0.5), (24, 0.5)), "whitening": False}
    config = resolve(TrainingConfig.preset("fast", device="cuda", deterministic=True, **changes), train)
    kept: list[Checkpoint] = []

    def keep(state: Checkpoint) -> None:
        kept.append(copy.deepcopy(state))

    models = [build_model(config, len(train.classes)) for _ in range(3)]
    for model in models[:2]:
        training.fit(model, train, test, config, quiet, keep)
    training.fit(models[2], train, test, config, quiet, resume=kept[1])
    first, *others = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)
