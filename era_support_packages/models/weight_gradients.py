"""Faster convolutions on a CPU where the images have become small and the channels many: above all their weight gradients."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

LARGEST_OUTPUT = 4  # px a side; above, oneDNN's own gradient is as fast
FEWEST_CHANNELS = 256
# in bf16 oneDNN is slow where the output is smaller than the images, and elsewhere fast for many positions
LARGEST_STRIDED_OUTPUT, FEWEST_STRIDED_CHANNELS = 8, 64
MOST_POSITIONS = 5000
LARGEST_MULTIPLIED_OUTPUT = 2  # px a side; there, in bf16, the forward pass is faster as a product too
_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))  # of an image of 2x2 px
_SEEN = ((slice(1, 2), slice(0, 1)), (slice(0, 2), slice(0, 2)), (slice(0, 1), slice(1, 2)))
"""for each row, or column, of a kernel: those of the output that it helps to make, and those of the image that it sees"""


class _Convolution(torch.autograd.Function):
    """`F.conv2d` whose weight gradient is one matrix product over all positions of all images, as is the smallest output in bf16.

    In channels_last memory both come out in the layout that they are to have, so nothing is copied afterwards.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        rows, columns = _output_size(images, weight, stride, padding)
        if images.dtype != torch.bfloat16 or max(rows, columns) > LARGEST_MULTIPLIED_OUTPUT:
            return F.conv2d(images, weight, None, stride, padding)
        outputs, _, height, width = weight.shape
        product = _patches(images, height, width, stride, padding) @ weight.permute(0, 2, 3, 1).reshape(outputs, -1).t()
        output = product.view(len(images), rows, columns, outputs).permute(0, 3, 1, 2)
        return output if images.is_contiguous(memory_format=torch.channels_last) else output.contiguous()  # as PyTorch's own

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        images, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        for_images = for_weight = None
        if needed[0]:
            mask = (True, False, False)
            for_images = torch.ops.aten.convolution_backward(
                gradient, images, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1, mask
            )[0]
        if needed[1]:
            outputs, inputs, height, width = weight.shape
            patches = _patches(images, height, width, ctx.stride, ctx.padding)
            product = gradient.permute(0, 2, 3, 1).reshape(-1, outputs).t() @ patches
            for_weight = product.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        return for_images, for_weight, None, None


class _OfWholeImages(torch.autograd.Function):
    """`F.conv2d` of images of 2x2 px by kernels of 3x3 with a border of 1 px, as products of whole images in all three passes.

    Of the 36 products of a position and a tap only 16 meet the image, the others its border. So as one matrix from all values
    of an image to all of the output it takes four ninths of the work.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        flat, matrix = _flat(images), _matrix(weight)
        ctx.save_for_backward(flat, matrix)
        ctx.channels_last = images.is_contiguous(memory_format=torch.channels_last)
        return _images(flat @ matrix.t(), len(weight), ctx.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        flat, matrix = ctx.saved_tensors
        own = _flat(gradient)
        for_images = _images(own @ matrix, flat.shape[1] // 4, ctx.channels_last) if ctx.needs_input_grad[0] else None
        return for_images, _gradient_of_taps(own, flat) if ctx.needs_input_grad[1] else None


def _flat(images: Tensor) -> Tensor:
    """Images (N, C, H, W) as rows of values (N, H * W * C), a view in channels_last memory."""
    return images.permute(0, 2, 3, 1).flatten(1)


def _images(flat: Tensor, channels: int, channels_last: bool) -> Tensor:
    """Rows of values as images (N, C, 2, 2), in that order in memory."""
    found = flat.view(len(flat), 2, 2, channels).permute(0, 3, 1, 2)
    return found if channels_last else found.contiguous()


def _matrix(weight: Tensor) -> Tensor:
    """A kernel (outputs, inputs, 3, 3) as a matrix from all values of an image of 2x2 px to all of its output."""
    outputs, inputs = weight.shape[:2]
    taps, matrix = weight.permute(0, 2, 3, 1), weight.new_empty(2, 2, outputs, 2, 2, inputs)
    for row, column in _PLACES:
        matrix[row, column] = taps[:, 1 - row : 3 - row, 1 - column : 3 - column]
    return matrix.view(4 * outputs, 4 * inputs)


def _gradient_of_taps(gradient: Tensor, flat: Tensor) -> Tensor:
    """The gradient of a kernel (outputs, inputs, 3, 3) from that of the output and from the images, both as rows."""
    own, seen = (rows.view(len(rows), 2, 2, rows.shape[1] // 4) for rows in (gradient, flat))
    outputs, inputs = own.shape[3], seen.shape[3]
    taps = gradient.new_empty(outputs, 3, 3, inputs)
    for row, (rows, rows_seen) in enumerate(_SEEN):
        for column, (columns, columns_seen) in enumerate(_SEEN):
            pixels = seen[:, rows_seen, columns_seen].reshape(-1, inputs)
            taps[:, row, column] = own[:, rows, columns].reshape(-1, outputs).t() @ pixels
    return taps.permute(0, 3, 1, 2)


def _output_size(images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a convolution gives."""
    sizes = zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    rows, columns = ((size + 2 * around - kernel) // step + 1 for size, kernel, step, around in sizes)
    return rows, columns


def _patches(images: Tensor, height: int, width: int, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """What each output position sees: images (N, C, H, W) to (N * H' * W', height * width * C)."""
    pixels = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    windows = pixels.unfold(1, height, stride[0]).unfold(2, width, stride[1])  # (N, H', W', C, height, width)
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, height * width * images.shape[1])


class FastWeightGradients(TorchFunctionMode):
    """While it lasts, convolutions with many channels and few positions get the faster weight gradient.

    The gradient of the images stays as it is, and so does the forward pass; but where the output has 2 px a side or fewer, in
    bfloat16, it is a product too, which is rounded otherwise; of 3x3 kernels on 2x2 px so are both gradients. Only on a CPU, in
    float32, and in bfloat16 under autocast; grouped and dilated convolutions and those with a bias are left alone, but for one
    case: where part of a kernel sees nothing but padding, as on images of 1 px, they are computed in float32 instead of bfloat16.
    No module is changed.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = dict(named or {})
        if function is not F.conv2d:
            return function(*arguments, **named)
        if "input" in named:
            arguments = (named.pop("input"), *arguments)
        if not named and _suitable(*arguments):
            images, weight, _, stride, padding = arguments[:5]
            if torch.is_autocast_enabled("cpu"):
                images, weight = images.bfloat16(), weight.bfloat16()
                if _meets_whole_images(images, weight, stride, padding):
                    return _OfWholeImages.apply(images, weight)
            return _Convolution.apply(images, weight, tuple(stride), tuple(padding))
        if _wrong_in_bf16(*arguments, **named):
            with torch.autocast("cpu", enabled=False):
                return function(*map(_float, arguments), **{name: _float(value) for name, value in named.items()}).bfloat16()
        return function(*arguments, **named)


def fast_weight_gradients(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context for a forward pass: `FastWeightGradients` where that was measured to pay, else nothing.

    That is on a CPU: float32 with AVX2 and with AVX-512, and bfloat16 with AVX-512's instructions for it
    (`benchmarks/README.md`).
    """
    return FastWeightGradients() if device.type == "cpu" and precision in ("fp32", "bf16") else nullcontext()


def _suitable(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    outputs, inputs, height, width = weight.shape
    if (
        images.ndim != 4
        or bias is not None
        or groups != 1
        or not all(isinstance(value, tuple) for value in (stride, padding, dilation))
    ):
        return False
    precision = _precision(images, weight)
    if dilation != (1, 1) or height * width == 1 or precision is None or not torch.is_grad_enabled():
        return False
    rows, columns = _output_size(images, weight, stride, padding)
    channels, side = min(inputs, outputs), max(rows, columns)
    if precision == torch.bfloat16 and stride != (1, 1):
        return channels >= FEWEST_STRIDED_CHANNELS and side <= LARGEST_STRIDED_OUTPUT
    few = precision == torch.float32 or len(images) * rows * columns <= MOST_POSITIONS
    return few and channels >= FEWEST_CHANNELS and side <= LARGEST_OUTPUT


def _meets_whole_images(images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """Whether it is the one kind of convolution that `_OfWholeImages` is for."""
    return images.shape[2:] == (2, 2) and weight.shape[2:] == (3, 3) and stride == padding == (1, 1)


def _wrong_in_bf16(  # with the parameters of F.conv2d
    images: Tensor,
    weight: Tensor,
    bias: Any = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,  # noqa: ARG001
) -> bool:
    """Whether some row or column of the kernel never meets the images, only their padding.

    Its gradient is 0. In bf16 oneDNN may leave it unwritten, so that it is whatever lay in memory there: NaN, or 1e10.
    """
    if images.ndim != 4 or not torch.is_grad_enabled() or _precision(images, weight) != torch.bfloat16 or padding == "valid":
        return False
    strides, dilations = _pair(stride), _pair(dilation)
    sides = list(zip(images.shape[2:], weight.shape[2:], dilations, strides, strict=True))
    before = [apart * (kernel - 1) // 2 for _, kernel, apart, _ in sides] if padding == "same" else _pair(padding)
    for (size, kernel, apart, step), around in zip(sides, before, strict=True):
        after = apart * (kernel - 1) - around if padding == "same" else around
        starts = range(-around, size + after - apart * (kernel - 1), step)
        if any(not any(0 <= start + apart * place < size for start in starts) for place in range(kernel)):
            return True
    return False


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


def _pair(value: Any) -> tuple[int, int]:
    rows, columns = value if isinstance(value, tuple | list) else (value, value)
    return int(rows), int(columns)


def _precision(images: Tensor, weight: Tensor) -> torch.dtype | None:
    """In which precision the convolution computes, if that is one which has a faster gradient."""
    if images.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if not torch.is_autocast_enabled("cpu"):
        return torch.float32 if images.dtype == torch.float32 else None
    known = torch.get_autocast_dtype("cpu") == torch.bfloat16 and images.dtype in (torch.float32, torch.bfloat16)
    return torch.bfloat16 if known else None
