"""Block sizes, launching and the arithmetic of one tile of values, for all Triton kernels.

Kernels are compiled without contraction to FMA: an instance of one row must leave exactly zero.
TRITON_INTERPRET=1, set before triton is imported, runs them on the CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # values that a program of 4 warps holds at a time: 16 in each thread
PROGRAMS = 1024  # that fill a large GPU several times over


def launch(kernel: Any, grid: Sequence[int], anchor: Tensor, /, *rest: Any, **constants: Any
           ) -> None:
    """Run a kernel on the device of its first tensor; an empty grid runs nothing."""
    if 0 not in grid:
        with torch.cuda.device_of(anchor):
            kernel[tuple(grid)](anchor, *rest, num_warps=4, enable_fp_fusion=False, **constants)


def power_of_2(value: int, low: int, high: int) -> int:
    """Return the smallest power of two that is no less than the value, kept within bounds."""
    return min(max(1 << max(value - 1, 0).bit_length(), low), high)


def tail(activation: str, negative_slope: float) -> dict[str, Any]:
    """Return the constants of `activated` and `before_activation`.

    The slope is a constant, since Triton rounds float arguments to float32.
    """
    slope = {"none": 1.0, "relu": 0.0, "leaky_relu": float(negative_slope)}.get(activation)
    if slope is None:
        raise ValueError(f"activation must be none, relu or leaky_relu; got {activation}")
    return {"ACTIVATION": activation, "SLOPE": slope}


@triton.jit
def add_moments(mass, mean, squares, values, share):
    """Merge a tile into the moments of what came before it (Chan, Golub and LeVeque, 1979).

    values are (R, C), share (R, 1) is how much each row counts, mass (1,), mean and squares (C,).
    """
    values = tl.where(share > 0, values, 0.0)
    more = tl.sum(share, 0)
    local = tl.sum(values * share, 0) / tl.where(more > 0, more, 1.0)
    apart = tl.where(share > 0, values - local[None, :], 0.0)
    total = mass + more
    part = more / tl.where(total > 0, total, 1.0)
    step = local - mean
    squares += tl.sum(share * apart * apart, 0) + step * step * mass * part
    return total, mean + step * part, squares


@triton.jit
def squares_around(middle, means, squares, place, keep, mass):
    """Return the squares of some chunks around the mean of all chunks, (C,), in float64.

    means and squares of chunks are at place (S, C); mass (S, 1) is how much each chunk counts.
    """
    apart = tl.load(means + place, mask=keep, other=0) - middle[None, :]
    within = tl.sum(tl.load(squares + place, mask=keep, other=0).to(tl.float64), 0)
    return within + tl.sum(mass * apart * apart, 0)


@triton.jit
def standardized(x, shift, mean, rstd):
    """Return x̂ (R, C). Two subtractions: x·a + b would lose the digits at a large mean."""
    return ((x.to(rstd.dtype) - shift[None, :]) - mean[None, :]) * rstd[None, :]


@triton.jit
def activated(y, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr):
    if ACTIVATION == "relu":
        y = tl.where(y <= 0, 0.0, y)  # NaN stays
    if ACTIVATION == "leaky_relu":
        y = tl.where(y > 0, y, y * SLOPE)
    return y


@triton.jit
def before_activation(grad, y, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr):
    """Return the gradient of what the activation was given, y."""
    if ACTIVATION != "none":
        grad = tl.where(y > 0, grad, grad * SLOPE)
    return grad
