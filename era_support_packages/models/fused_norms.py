"""Batch norm, shortcut and ReLU as one operation where a network trains on a GPU in half precision.

There these three take longer than the convolutions: each reads and writes all features. Together they read them once for the
statistics and once for the result, and as often for the gradients.
"""

import functools
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeGuard

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_VALUES = 2**31  # what a kernel counts to
WORST = 0.01  # share that results may be off by: bfloat16 rounds to 0.002
MOST_PROGRAMS = 264  # that share out the rows: two for each multiprocessor of an H200


def norm_relu(norm: nn.Module, features: Tensor, shortcut: nn.Module | None = None, x: Tensor | None = None) -> Tensor:
    """`relu(norm(features) + shortcut(x))` of features (N, C, H, W), without a shortcut `relu(norm(features))`.

    In training on a CUDA GPU, in bfloat16 or float16 and channels_last memory, a plain batch norm goes with the rest through
    kernels of its own (`norm_kernels`); they compute in float32 and round once, where PyTorch rounds after each operation. All
    else, a norm with hooks too, is left to PyTorch, and so is everything where Triton is missing or does not work. What goes
    through the kernels can be differentiated once, and not by `torch.func`.

    >>> import torch
    >>> from era_support_packages.models.fused_norms import norm_relu
    >>> features = torch.tensor([[[[1.0]]], [[[3.0]]]])
    >>> norm_relu(torch.nn.BatchNorm2d(1), features).detach().flatten().round()
    tensor([0., 1.])
    """
    if not _fusible(norm, features):
        out = norm(features)
        return F.relu(out if shortcut is None else out + shortcut(x))
    beside = None if shortcut is None else _beside(shortcut, x)
    if beside is None or (_readable(beside) and (beside.dtype, beside.shape) == (features.dtype, features.shape)):
        return fused(norm, features, beside)
    return F.relu(norm(features) + beside)


def _beside(shortcut: nn.Module, x: Tensor | None) -> Tensor:
    """What comes out of the shortcut; of a convolution and its norm, that by the kernels too."""
    if type(shortcut) is not nn.Sequential or len(shortcut) != 2 or _watched(shortcut):
        return shortcut(x)
    features = shortcut[0](x)
    return fused(shortcut[1], features, relu=False) if _fusible(shortcut[1], features) else shortcut[1](features)


def _fusible(norm: nn.Module, features: Tensor) -> TypeGuard[nn.BatchNorm2d]:
    """Whether it is a plain batch norm in training, at which nobody looks, of features that the kernels can read."""
    if issubclass(type(features), torch.fx.Proxy) or torch.compiler.is_compiling():
        return False
    if type(norm) is not nn.BatchNorm2d or not norm.training or _watched(norm):
        return False
    learns = norm.affine and norm.track_running_stats and norm.momentum is not None
    return learns and _readable(features) and works(features.device, features.dtype)


def _watched(module: nn.Module) -> bool:
    """Whether something happens when the module is called that only its own call would do."""
    names = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    of_all = (getattr(nn.modules.module, f"_global_{name}") for name in names)
    return "forward" in vars(module) or any(getattr(module, f"_{name}") for name in names) or any(of_all)


def _readable(features: Tensor) -> bool:
    return (
        features.device.type == "cuda"
        and features.dtype in (torch.bfloat16, torch.float16)
        and features.ndim == 4
        and features.is_contiguous(memory_format=torch.channels_last)
        and features.shape[1] % 16 == 0  # so that many values are read at once
        and len(features) * features.shape[2] * features.shape[3] > 1  # PyTorch refuses the variance of one value
        and 0 < features.numel() < MOST_VALUES
    )


def fused(norm: nn.BatchNorm2d, features: Tensor, shortcut: Tensor | None = None, relu: bool = True) -> Tensor:
    """`norm_relu` by the kernels, which also update the running statistics; `relu=False` is the norm alone."""
    state = (norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum, norm.eps)
    result: Tensor = _NormShortcutReLU.apply(features, shortcut, norm.weight, norm.bias, state, relu)
    return result


class _NormShortcutReLU(torch.autograd.Function):
    """relu((x - mean) / deviation * weight + bias + shortcut), with mean and deviation of the batch."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shortcut: Tensor | None, weight: Tensor, bias: Tensor, state: tuple[Any, ...], relu: bool
    ) -> Tensor:
        from era_support_packages.models import norm_kernels as kernels

        running_mean, running_var, batches, momentum, eps = state
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        tiles, strips, tile, part = _grids(kernels, rows, channels)
        sums, y = x.new_empty(2, strips[0], channels, dtype=torch.float32), torch.empty_like(x)
        mean, scale = x.new_empty(2, channels, dtype=torch.float32)
        line = (mean, scale, weight, bias)
        with torch.cuda.device_of(x):
            kernels.norm_moments[strips](x, sums, rows, channels, strips[0], STAGES=kernels.STAGES, **tile)
            kernels.norm_statistics[part["grid"]](
                *(x, sums, mean, scale, running_mean, running_var, batches, rows, channels, strips[0], momentum, eps),
                **part["sizes"],
            )
            kernels.norm_forward[tiles](
                *(x, x if shortcut is None else shortcut, y, *line, rows, channels),
                SHORTCUT=shortcut is not None,
                RELU=relu,
                **tile,
            )
        ctx.relu = relu
        ctx.save_for_backward(x, *line, *([] if shortcut is None else [y]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from era_support_packages.models import norm_kernels as kernels

        x, mean, scale, weight, bias, *rest = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        rows, channels = x.numel() // x.shape[1], x.shape[1]
        tiles, strips, tile, part = _grids(kernels, rows, channels)
        sums, result = x.new_empty(2, strips[0], channels, dtype=torch.float32), torch.empty_like(x)
        for_bias, for_weight = x.new_empty(2, channels, dtype=torch.float32)
        line = (mean, scale, weight, bias)
        y, passed = (rest[0], torch.empty_like(x)) if rest else (x, x)  # without a shortcut neither is looked at
        with torch.cuda.device_of(x):
            kernels.norm_gradients[strips](
                *(gradient, x, y, passed, *line, sums, rows, channels, strips[0]),
                **{"SHORTCUT": bool(rest), "RELU": ctx.relu, "STAGES": kernels.STAGES, **tile},
            )
            kernels.norm_parameter_gradients[part["grid"]](*(sums, for_bias, for_weight, channels, strips[0]), **part["sizes"])
            kernels.norm_backward[tiles](
                *(passed if rest else gradient, x, result, *line, for_bias, for_weight, rows, channels),
                RELU=ctx.relu and not rest,
                **tile,
            )
        return result, passed if rest else None, for_weight, for_bias, None, None


def _grids(kernels: Any, rows: int, channels: int) -> tuple[tuple[int, int], tuple[int, int], dict[str, int], dict[str, Any]]:
    """How many programs stand below and beside each other, a tile each, and where each takes a strip of tiles; their sizes."""
    columns, tiles = -(-channels // kernels.COLUMNS), -(-rows // kernels.ROWS)
    strips = min(tiles, max(MOST_PROGRAMS // columns, 1))
    part = {"grid": (-(-channels // kernels.CHANNELS),), "sizes": {"STRIPS": kernels.STRIPS, "CHANNELS": kernels.CHANNELS}}
    tile = {"ROWS": kernels.ROWS, "COLUMNS": kernels.COLUMNS, "num_warps": kernels.WARPS}
    return (tiles, columns), (strips, columns), tile, part


@functools.cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run on this GPU and give what PyTorch gives, tried once on some features; a warning where they fail.

    Without Triton, which PyTorch brings along on Linux, they are not tried.

    >>> import torch
    >>> from era_support_packages.models.fused_norms import works
    >>> works(torch.device("cpu"), torch.bfloat16)
    False
    """
    if device.type != "cuda":
        return False
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    try:
        with ThreadPoolExecutor(1) as pool:  # a thread knows nothing of autocast, inference mode or hooks of the one that asks
            farthest = pool.submit(_farthest, device, dtype).result()
    except Exception as error:  # no compiler, a GPU that Triton does not know: there is nothing that it may not raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warnings.warn(f"Batch norm trains by PyTorch's own kernels, which are slower: {reason}", stacklevel=2)
        return False
    if not farthest <= WORST:
        warnings.warn(f"Batch norm trains by PyTorch's own kernels: the others are off by {farthest:.3g} here.", stacklevel=2)
        return False
    return True


def _farthest(device: torch.device, dtype: torch.dtype, size: tuple[int, int] = (45, 50)) -> float:
    """How far apart results and gradients of the kernels and of PyTorch's norm in float32 are at most, in units of their size.

    Of features so large that each program goes through several tiles.
    """
    values = torch.randn(3, 6, 80, *size, device=device, generator=torch.Generator(device).manual_seed(0))
    x, shortcut, gradient = (2 * one.to(dtype).contiguous(memory_format=torch.channels_last) + 3 for one in values)
    ours: list[Any] = []
    theirs: list[Any] = []
    for beside, relu in ((None, True), (shortcut, True), (None, False)):
        for kind, results in ((dtype, ours), (torch.float32, theirs)):
            norm = nn.BatchNorm2d(80, device=device)
            inputs = [values.detach().to(kind).requires_grad_() for values in (x, beside) if values is not None]
            if kind is dtype:
                out = fused(norm, inputs[0], inputs[1] if len(inputs) > 1 else None, relu)
            else:
                out = norm(inputs[0])
                out = out if beside is None else out + inputs[1]
                out = F.relu(out) if relu else out
            out.backward(gradient.to(kind))
            results += [out, norm.running_mean, norm.running_var]
            results += [values.grad for values in (*inputs, norm.weight, norm.bias)]
    pairs = [(one.detach().float(), other.detach().float()) for one, other in zip(ours, theirs, strict=True)]
    return max(((one - other).norm() / other.norm()).item() for one, other in pairs)
