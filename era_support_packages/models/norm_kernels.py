"""Kernels for batch norm, shortcut and ReLU at once, in Triton: only `fused_norms` imports them, and only on a GPU.

All see features as rows of channels, (positions of all images, channels), as channels_last memory has them. Sums go in two
steps, over a strip of rows and then over the strips, always in the same order: the same numbers give the same bits.
"""

# mypy: ignore-errors
# Triton reads a kernel's source: what looks like Python here is its language.
import triton
import triton.language as tl

ROWS, COLUMNS, WARPS = 32, 64, 4  # of the tile that a program holds at a time, and the warps that hold it: the fastest on an H200
STAGES = 3  # tiles that are read ahead
STRIPS, CHANNELS = 256, 16  # of the partial sums that the second step reads at a time


@triton.jit(do_not_specialize=["rows", "strips"])
def norm_moments(
    x, sums, rows, channels, strips,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of each strip and channel the sum of the values less the first row's, and of their squares.

    Without the first row a mean far from zero would take the digits that the variance needs.
    """
    strip, column = tl.program_id(0), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    shift = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    total, squares = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(strip * ROWS, rows, strips * ROWS, num_stages=STAGES):
        row = first + tl.arange(0, ROWS)
        mask = (row < rows)[:, None] & inside[None, :]
        value = tl.load(x + row[:, None] * channels + column[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - shift, 0.0)
        total += value
        squares += value * value
    tl.store(sums + strip * channels + column, tl.sum(total, 0), mask=inside)
    tl.store(sums + (strips + strip) * channels + column, tl.sum(squares, 0), mask=inside)


@triton.jit
def _over_strips(sums, first, strips, channels, column, inside, STRIPS: tl.constexpr, CHANNELS: tl.constexpr):
    total = tl.zeros((STRIPS, CHANNELS), tl.float32)
    for start in range(0, strips, STRIPS):
        strip = start + tl.arange(0, STRIPS)
        mask = (strip < strips)[:, None] & inside[None, :]
        total += tl.load(sums + (first + strip)[:, None] * channels + column[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit(do_not_specialize=["rows", "strips", "momentum", "eps"])
def norm_statistics(
    x, sums, mean, scale, running_mean, running_var, batches, rows, channels, strips, momentum, eps,
    STRIPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Mean and one over the standard deviation of each channel; the running statistics and the count of batches go on."""
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    shift = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    first = _over_strips(sums, 0, strips, channels, column, inside, STRIPS, CHANNELS) / rows
    second = _over_strips(sums, strips, strips, channels, column, inside, STRIPS, CHANNELS) / rows
    variance = second - first * first
    variance = tl.where(variance < 0.0, 0.0, variance)  # by rounding; what is not a number stays so
    tl.store(mean + column, shift + first, mask=inside)
    tl.store(scale + column, 1 / tl.sqrt(variance + eps), mask=inside)
    old = tl.load(running_mean + column, mask=inside)
    tl.store(running_mean + column, old + momentum * (shift + first - old), mask=inside)
    old = tl.load(running_var + column, mask=inside)
    unbiased = variance * (rows / tl.maximum(rows - 1.0, 1.0))
    tl.store(running_var + column, old + momentum * (unbiased - old), mask=inside)
    if tl.program_id(0) == 0:
        tl.store(batches, tl.load(batches) + 1)


@triton.jit(do_not_specialize=["rows"])
def norm_forward(
    x, shortcut, y, mean, scale, weight, bias, rows, channels,
    SHORTCUT: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """y = (x - mean) * scale * weight + bias, plus the shortcut where there is one, and its ReLU where that is asked for."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    center, slope, offset = _line(mean, scale, weight, bias, column, inside)
    mask, place = (row < rows)[:, None] & inside[None, :], row[:, None] * channels + column[None, :]
    value = (tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - center) * slope + offset
    if SHORTCUT:
        value += tl.load(shortcut + place, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        value = tl.where(value <= 0.0, 0.0, value)  # what is not a number stays so, as in PyTorch
    tl.store(y + place, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _line(mean, scale, weight, bias, column, inside):
    """What each channel is shifted by, multiplied with, and shifted by again."""
    slope = tl.load(scale + column, mask=inside, other=0.0) * tl.load(weight + column, mask=inside, other=0.0)
    center = tl.load(mean + column, mask=inside, other=0.0)
    return center[None, :], slope[None, :], tl.load(bias + column, mask=inside, other=0.0)[None, :]


@triton.jit(do_not_specialize=["rows", "strips"])
def norm_gradients(
    gradient, x, y, passed, mean, scale, weight, bias, sums, rows, channels, strips,
    SHORTCUT: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of each strip and channel what the gradients of bias and weight sum up; with a shortcut also its own gradient, `passed`."""
    strip, column = tl.program_id(0), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    center, slope, offset = _line(mean, scale, weight, bias, column, inside)
    deviations = tl.load(scale + column, mask=inside, other=0.0)[None, :]
    for_bias, for_weight = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(strip * ROWS, rows, strips * ROWS, num_stages=STAGES):
        row = first + tl.arange(0, ROWS)
        mask, place = (row < rows)[:, None] & inside[None, :], row[:, None] * channels + column[None, :]
        centered = tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - center
        given = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
        if SHORTCUT:
            given = tl.where(tl.load(y + place, mask=mask, other=0.0) <= 0.0, 0.0, given)
            tl.store(passed + place, given.to(passed.dtype.element_ty), mask=mask)
        elif RELU:
            given = tl.where(centered * slope + offset <= 0.0, 0.0, given)
        for_bias += given
        for_weight += given * centered * deviations
    tl.store(sums + strip * channels + column, tl.sum(for_bias, 0), mask=inside)
    tl.store(sums + (strips + strip) * channels + column, tl.sum(for_weight, 0), mask=inside)


@triton.jit(do_not_specialize=["strips"])
def norm_parameter_gradients(sums, for_bias, for_weight, channels, strips, STRIPS: tl.constexpr, CHANNELS: tl.constexpr):
    """The gradients of bias and weight from those of the strips."""
    column = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = column < channels
    found = _over_strips(sums, 0, strips, channels, column, inside, STRIPS, CHANNELS)
    tl.store(for_bias + column, found, mask=inside)
    found = _over_strips(sums, strips, strips, channels, column, inside, STRIPS, CHANNELS)
    tl.store(for_weight + column, found, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def norm_backward(
    gradient, x, result, mean, scale, weight, bias, for_bias, for_weight, rows, channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient of x; without `RELU` of a gradient that has come through it already, or of a norm that has none."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < channels
    center, slope, offset = _line(mean, scale, weight, bias, column, inside)
    deviations = tl.load(scale + column, mask=inside, other=0.0)[None, :]
    mask, place = (row < rows)[:, None] & inside[None, :], row[:, None] * channels + column[None, :]
    centered = tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - center
    given = tl.load(gradient + place, mask=mask, other=0.0).to(tl.float32)
    if RELU:
        given = tl.where(centered * slope + offset <= 0.0, 0.0, given)
    of_bias = tl.load(for_bias + column, mask=inside, other=0.0)[None, :]
    of_weight = tl.load(for_weight + column, mask=inside, other=0.0)[None, :]
    found = slope * (given - (of_bias + centered * deviations * of_weight) / rows)
    tl.store(result + place, found.to(result.dtype.element_ty), mask=mask)
