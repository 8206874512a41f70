"""Batch norm, shortcut and ReLU at once: PyTorch's numbers, by its own operations or by the kernels."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from norms import features, learned_norm
from torch import Tensor, nn
from torch.testing import assert_close

from era_support_packages.models import fused_norms
from era_support_packages.models.fused_norms import norm_relu
from era_support_packages.models.resnet import ResNet18, ResNet50

CPU, BF16, CUDA = torch.device("cpu"), torch.bfloat16, torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


# ---- PyTorch's operations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_on_a_cpu_it_is_norm_addition_and_relu(training: bool) -> None:
    norm, shortcut = learned_norm(16).train(training), nn.Conv2d(3, 16, 1)
    x, seen = features(4, 16, 5, 5).float(), features(4, 3, 5, 5).float()
    assert torch.equal(norm_relu(norm, x), F.relu(norm(x)))
    assert torch.equal(norm_relu(norm, x, shortcut, seen), F.relu(norm(x) + shortcut(seen)))


def test_the_norm_is_called_before_the_shortcut_as_a_summary_lists_them() -> None:
    network, called = ResNet18(10), []
    for name, module in network.named_modules():
        if name.startswith("layer2.0."):
            module.register_forward_hook(lambda *_, name=name: called.append(name.removeprefix("layer2.0.")))
    network(torch.zeros(2, 3, 8, 8))
    assert called == ["conv1", "bn1", "conv2", "bn2", "shortcut.0", "shortcut.1", "shortcut"]


# ---- when the kernels take over ----------------------------------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, bool]]:
    """Any features can be read here; what the kernels would take: the class of the norm, whether with shortcut and ReLU."""
    calls: list[tuple[str, bool, bool]] = []

    def fused(norm: nn.Module, x: Tensor, shortcut: Tensor | None = None, relu: bool = True) -> Tensor:
        calls.append((type(norm).__name__, shortcut is not None, relu))
        return x

    monkeypatch.setattr(fused_norms, "_readable", lambda x: True)
    monkeypatch.setattr(fused_norms, "works", lambda device, dtype: True)
    monkeypatch.setattr(fused_norms, "fused", fused)
    return calls


def test_a_network_in_training_takes_them_for_all_of_its_norms(taken: list[Any]) -> None:
    ResNet18(10).train()(torch.zeros(2, 3, 8, 8))
    alone, at_the_end, of_shortcuts = ("BatchNorm2d", False, True), ("BatchNorm2d", True, True), ("BatchNorm2d", False, False)
    assert sorted(taken) == sorted([alone] * 9 + [at_the_end] * 8 + [of_shortcuts] * 3)


@pytest.mark.usefixtures("taken")
def test_it_can_be_traced_and_scripted() -> None:
    images = torch.randn(2, 3, 8, 8)
    traced = torch.fx.symbolic_trace(ResNet18(10).train())
    assert {"bn1", "layer2.0.shortcut.1"} <= {node.target for node in traced.graph.nodes}
    for network in (ResNet18(10).eval(), ResNet50(10).eval()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch wants scripts no more
            scripted = torch.jit.script(network)
        assert_close(scripted(images), network(images))


class OtherNorm(nn.BatchNorm2d):
    """It may do something else."""


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(16).eval(),
        nn.BatchNorm2d(16, affine=False),
        nn.BatchNorm2d(16, track_running_stats=False),
        nn.BatchNorm2d(16, momentum=None),  # the mean of all batches
        OtherNorm(16),
        nn.GroupNorm(4, 16),
    ],
)
def test_every_other_norm_is_left_to_pytorch(norm: nn.Module, taken: list[Any]) -> None:
    x = features(4, 16, 5, 5).float()
    found = norm_relu(norm, x)
    assert not taken
    assert_close(found, F.relu(norm(x)))


@pytest.mark.parametrize("where", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
def test_a_norm_at_which_somebody_looks_is_left_to_pytorch(where: str, taken: list[Any]) -> None:
    norm, seen = nn.BatchNorm2d(16), []
    getattr(norm, where)(lambda *_: seen.append(where))
    norm_relu(norm, features(4, 16, 5, 5).float().requires_grad_()).sum().backward()
    assert not taken
    assert seen == [where]


def test_so_is_one_that_does_something_else_when_it_is_called(taken: list[Any]) -> None:
    x, norm, seen = features(4, 16, 5, 5).float(), nn.BatchNorm2d(16), []
    norm.forward = lambda x: x + 1  # type: ignore[method-assign]
    assert torch.equal(norm_relu(norm, x), F.relu(x + 1))
    handle = nn.modules.module.register_module_forward_hook(lambda *_: seen.append(1))
    norm_relu(nn.BatchNorm2d(16), x)
    handle.remove()
    assert (taken, seen) == ([], [1])

    class Doubled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    shortcut = Doubled(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
    norm_relu(nn.BatchNorm2d(16), x, shortcut, x)
    assert taken == [("BatchNorm2d", True, True)]  # and not the norm of the shortcut by itself


@pytest.mark.parametrize(
    "values",
    [
        *({"shape": shape} for shape in [(4, 24, 5, 5), (1, 16, 1, 1), (4, 16), (0, 16, 5, 5), (2**19, 64, 8, 8)]),
        *({"dtype": torch.float32}, {"channels_last": False}),
    ],
)
def test_what_the_kernels_cannot_read(values: dict[str, Any]) -> None:
    def readable(shape: tuple[int, ...] = (4, 16, 5, 5), dtype: torch.dtype = BF16, channels_last: bool = True) -> bool:
        x = torch.empty(shape, dtype=dtype, device="meta")
        x = x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 and channels_last else x
        return fused_norms._readable(OnGpu(x))

    assert readable()
    assert not readable(**values)


class OnGpu:
    """A tensor that says it is on a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.device = tensor, CUDA

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)

    def __len__(self) -> int:
        return len(self.tensor)


def test_without_a_gpu_or_triton_they_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    fused_norms.works.cache_clear()
    monkeypatch.setattr(fused_norms, "_farthest", lambda *_: pytest.fail("tried"))
    monkeypatch.setitem(sys.modules, "triton", None)  # its import fails
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fused_norms.works(CPU, BF16)
        assert not fused_norms.works(CUDA, BF16)
    fused_norms.works.cache_clear()


@pytest.mark.parametrize(
    ("farthest", "said"),
    [
        (RuntimeError("no C compiler\nand more"), "PyTorch's own kernels, which are slower: no C compiler$"),
        (NotImplementedError(), "slower: NotImplementedError$"),
        (1.5, "the others are off by 1.5 here"),
        (float("nan"), "the others are off by nan here"),
    ],
)
def test_kernels_that_fail_or_are_wrong_are_not_used_and_a_warning_says_so(
    farthest: Exception | float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(*_: Any) -> float:
        if isinstance(farthest, Exception):
            raise farthest
        return farthest

    fused_norms.works.cache_clear()
    monkeypatch.setitem(sys.modules, "triton", sys)  # importing it works
    monkeypatch.setattr(fused_norms, "_farthest", trial)
    with pytest.warns(UserWarning, match=said):
        assert not fused_norms.works(CUDA, BF16)
    fused_norms.works.cache_clear()


# ---- the kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.unhurried
def test_the_kernels_give_pytorchs_numbers() -> None:
    """By Triton's interpreter on the CPU, in a process of its own: Triton looks for its variable when it is imported."""
    pytest.importorskip("triton", reason="needs Triton, which PyTorch for CUDA brings along")
    file = Path(__file__).with_name("interpreted_norms.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", str(file)]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_a_network_learns_with_them_as_without(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused_norms.works(torch.device("cuda", 0), dtype)
    found = []
    for works in (fused_norms.works, lambda *_: False):
        monkeypatch.setattr(fused_norms, "works", works)
        torch.manual_seed(0)
        network = ResNet18(10).cuda().to(memory_format=torch.channels_last)
        images = features(64, 3, 16, 16).float().cuda().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", dtype):
            loss = F.cross_entropy(network(images), torch.arange(64, device="cuda") % 10)
        loss.backward()
        found.append([loss.detach(), *(value.grad for value in network.parameters()), *network.buffers()])
    for one, other in zip(*found, strict=True):
        assert (one.double() - other.double()).norm() <= 0.1 * other.double().norm() + 1e-6
