"""axis_norm and its backward by Triton, for CUDA.

The definition is in geonorm/ops/axis_norm.py. Memory is taken as (outer, P, L), P the axes that are
normalized over; contiguous and channels_last tensors lie so for almost every subset of axes. Where
they do not, as for T and W but not H, tensors are copied so that they do.
One launch does it all where there are instances enough for every processor; otherwise instances are
cut into chunks, and three launches compute partial results, merge them in float64 in a fixed order,
and write. No atomics: equal runs are equal to the bit.

Forward reads x twice and writes once; backward reads x and the gradient twice and writes once.

Names: memory is (outer, P, L), the P in the middle normalized over; every (outer, l) is an instance
of P values that lie L apart. Instances are numbered by q in that order, Q in all. A program takes
TILE_Q instances, and all of their values or up to CHUNK of them.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from geonorm.ops.axis_norm import gradients_like, outputs_like
from geonorm.ops.triton.tiles import (
    PROGRAMS,
    TILE,
    activated,
    add_moments,
    before_activation,
    launch,
    power_of_2,
    squares_around,
    standardized,
    tail,
)

MERGE = {"TILE_S": 64, "TILE_Q": 32}  # chunks and instances that merging takes at a time


@triton.jit
def instances_at(Q, P, L, TILE_Q: tl.constexpr):
    """Return a program's instances, which of them exist, and where their first values lie."""
    q = tl.program_id(0).to(tl.int64) * TILE_Q + tl.arange(0, TILE_Q)
    return q, q < Q, q // L * P * L + q % L


@triton.jit
def values_at(start, last, L, inside, base, TILE_P: tl.constexpr):
    """Return which values of a tile exist, and where all of them lie."""
    p = (start + tl.arange(0, TILE_P)).to(tl.int64)
    return (p < last)[:, None] & inside[None, :], base[None, :] + p[:, None] * L


@triton.jit
def parameters_at(weight, bias, weight_rows, bias_rows, q, inside, channels, channel_step,
                  batch_step, ACCURACY: tl.constexpr):
    """Return what instances are multiplied by and what is added, 1 and 0 where there is none.

    A parameter has as many rows of `channels` values as the batch, or one.
    """
    channel = q // channel_step % channels
    gain, offset = tl.full(q.shape, 1, ACCURACY), tl.full(q.shape, 0, ACCURACY)
    if weight is not None:
        row = q // batch_step % weight_rows
        gain = tl.load(weight + row * channels + channel, mask=inside, other=0)
    if bias is not None:
        row = q // batch_step % bias_rows
        offset = tl.load(bias + row * channels + channel, mask=inside, other=0)
    return gain, offset


@triton.jit
def moments_of(x, base, inside, first, last, L, origin, TILE_P: tl.constexpr):
    """Return the mean of x − shift from `first` to `last`, and the squares around that."""
    mass = tl.zeros([1], origin.dtype)
    mean, squares = tl.zeros(origin.shape, origin.dtype), tl.zeros(origin.shape, origin.dtype)
    for start in range(first, last, TILE_P):
        keep, place = values_at(start, last, L, inside, base, TILE_P)
        values = tl.load(x + place, mask=keep, other=0).to(origin.dtype) - origin[None, :]
        share = (start + tl.arange(0, TILE_P) < last).to(origin.dtype)
        mass, mean, squares = add_moments(mass, mean, squares, values, share[:, None])
    return mean, squares


@triton.jit
def normalize_values(x, residual, out, base, inside, first, last, L, origin, middle, scale, gain,
                     offset, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, TILE_P: tl.constexpr):
    for start in range(first, last, TILE_P):
        keep, place = values_at(start, last, L, inside, base, TILE_P)
        xhat = standardized(tl.load(x + place, mask=keep, other=0), origin, middle, scale)
        y = xhat * gain[None, :] + offset[None, :]
        if residual is not None:
            y += tl.load(residual + place, mask=keep, other=0).to(y.dtype)
        y = activated(y, ACTIVATION, SLOPE)
        tl.store(out + place, y.to(out.dtype.element_ty), mask=keep)


@triton.jit
def forward(x, residual, out, shift, mean, rstd, weight, bias, weight_rows, bias_rows, channels,
            channel_step, batch_step, Q, P, L, EPS: tl.constexpr, ACTIVATION: tl.constexpr,
            SLOPE: tl.constexpr, TILE_P: tl.constexpr, TILE_Q: tl.constexpr):
    """Do it all where a program has whole instances."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    accuracy: tl.constexpr = mean.dtype.element_ty
    origin = tl.load(x + base, mask=inside, other=0).to(accuracy)
    middle, squares = moments_of(x, base, inside, 0, P, L, origin, TILE_P)
    scale = (1 / tl.sqrt(squares.to(tl.float64) / P + EPS)).to(accuracy)
    gain, offset = parameters_at(weight, bias, weight_rows, bias_rows, q, inside, channels,
                                 channel_step, batch_step, accuracy)
    normalize_values(x, residual, out, base, inside, 0, P, L, origin, middle, scale, gain, offset,
                     ACTIVATION, SLOPE, TILE_P)
    tl.store(shift + q, origin, mask=inside)
    tl.store(mean + q, middle, mask=inside)
    tl.store(rstd + q, scale, mask=inside)


@triton.jit
def chunk_moments(x, means, squares, Q, P, L, CHUNK: tl.constexpr, TILE_P: tl.constexpr,
                  TILE_Q: tl.constexpr):
    """Write the moments of one chunk of some instances, to be merged."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    chunk = tl.program_id(1).to(tl.int64)
    origin = tl.load(x + base, mask=inside, other=0).to(means.dtype.element_ty)
    last = tl.minimum((chunk + 1) * CHUNK, P)
    mean, square = moments_of(x, base, inside, chunk * CHUNK, last, L, origin, TILE_P)
    tl.store(means + chunk * Q + q, mean, mask=inside)
    tl.store(squares + chunk * Q + q, square, mask=inside)


@triton.jit
def chunks_at(start, q, inside, Q, P, chunks, CHUNK: tl.constexpr, TILE_S: tl.constexpr):
    """Return which chunks of a tile exist, where their results lie, how many values each has."""
    chunk = (start + tl.arange(0, TILE_S)).to(tl.int64)
    count = tl.maximum(tl.minimum(P - chunk * CHUNK, CHUNK), 0)
    keep = (chunk < chunks)[:, None] & inside[None, :]
    return keep, chunk[:, None] * Q + q[None, :], count.to(tl.float64)[:, None]


@triton.jit
def merge_moments(x, means, squares, shift, mean, rstd, Q, P, L, chunks, EPS: tl.constexpr,
                  CHUNK: tl.constexpr, TILE_S: tl.constexpr, TILE_Q: tl.constexpr):
    """Merge the chunks of some instances in float64."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    summed, square = tl.zeros([TILE_Q], tl.float64), tl.zeros([TILE_Q], tl.float64)
    for start in range(0, chunks, TILE_S):
        keep, place, count = chunks_at(start, q, inside, Q, P, chunks, CHUNK, TILE_S)
        summed += tl.sum(tl.load(means + place, mask=keep, other=0) * count, 0)
    middle = summed / P
    for start in range(0, chunks, TILE_S):
        keep, place, count = chunks_at(start, q, inside, Q, P, chunks, CHUNK, TILE_S)
        square += squares_around(middle, means, squares, place, keep, count)
    tl.store(shift + q, tl.load(x + base, mask=inside, other=0), mask=inside)
    tl.store(mean + q, middle, mask=inside)
    tl.store(rstd + q, 1 / tl.sqrt(square / P + EPS), mask=inside)


@triton.jit
def normalize(x, residual, out, shift, mean, rstd, weight, bias, weight_rows, bias_rows, channels,
              channel_step, batch_step, Q, P, L, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
              CHUNK: tl.constexpr, TILE_P: tl.constexpr, TILE_Q: tl.constexpr):
    """Write the output of one chunk of some instances."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    first = tl.program_id(1).to(tl.int64) * CHUNK
    origin = tl.load(shift + q, mask=inside, other=0)
    middle = tl.load(mean + q, mask=inside, other=0)
    scale = tl.load(rstd + q, mask=inside, other=0)
    gain, offset = parameters_at(weight, bias, weight_rows, bias_rows, q, inside, channels,
                                 channel_step, batch_step, scale.dtype)
    normalize_values(x, residual, out, base, inside, first, tl.minimum(first + CHUNK, P), L, origin,
                     middle, scale, gain, offset, ACTIVATION, SLOPE, TILE_P)


@triton.jit
def coefficients(shift, mean, rstd, weight, bias, weight_rows, bias_rows, q, inside, channels,
                 channel_step, batch_step):
    """Return what the x of instances is taken through."""
    origin = tl.load(shift + q, mask=inside, other=0)
    middle = tl.load(mean + q, mask=inside, other=0)
    scale = tl.load(rstd + q, mask=inside, other=0)
    gain, offset = parameters_at(weight, bias, weight_rows, bias_rows, q, inside, channels,
                                 channel_step, batch_step, scale.dtype)
    return origin, middle, scale, gain, offset


@triton.jit
def tile_of(grads, x, place, keep, origin, middle, scale, gain, offset, ACTIVATION: tl.constexpr,
            SLOPE: tl.constexpr):
    """Return x̂ and the gradient before the activation."""
    xhat = standardized(tl.load(x + place, mask=keep, other=0), origin, middle, scale)
    grad = tl.load(grads + place, mask=keep, other=0).to(scale.dtype)
    y = xhat * gain[None, :] + offset[None, :]
    return xhat, before_activation(grad, y, ACTIVATION, SLOPE)


@triton.jit
def products_of(grads, x, base, inside, first, last, L, origin, middle, scale, gain, offset,
                ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, TILE_P: tl.constexpr):
    """Return Σg and Σg·x̂ from `first` to `last`."""
    sums, products = tl.zeros(scale.shape, scale.dtype), tl.zeros(scale.shape, scale.dtype)
    for start in range(first, last, TILE_P):
        keep, place = values_at(start, last, L, inside, base, TILE_P)
        xhat, grad = tile_of(grads, x, place, keep, origin, middle, scale, gain, offset, ACTIVATION,
                             SLOPE)
        sums += tl.sum(grad, 0)
        products += tl.sum(tl.where(keep, grad * xhat, 0.0), 0)
    return sums, products


@triton.jit
def lost(sums, gain, P):
    """Return the mean of the gained gradients; in float64, where division is exact on a GPU too."""
    return (sums.to(tl.float64) * gain / P).to(gain.dtype)


@triton.jit
def write_gradients(grads, x, out, base, inside, first, last, L, origin, middle, scale, gain,
                    offset, level, along, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
                    TILE_P: tl.constexpr):
    for start in range(first, last, TILE_P):
        keep, place = values_at(start, last, L, inside, base, TILE_P)
        xhat, grad = tile_of(grads, x, place, keep, origin, middle, scale, gain, offset, ACTIVATION,
                             SLOPE)
        taken = level[None, :] + xhat * along[None, :]
        grad = (grad * gain[None, :] - taken) * scale[None, :]
        tl.store(out + place, grad.to(out.dtype.element_ty), mask=keep)


@triton.jit
def backward(grads, x, out, sums, products, shift, mean, rstd, weight, bias, weight_rows, bias_rows,
             channels, channel_step, batch_step, Q, P, L, ACTIVATION: tl.constexpr,
             SLOPE: tl.constexpr, TILE_P: tl.constexpr, TILE_Q: tl.constexpr):
    """Do it all where a program has whole instances."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    origin, middle, scale, gain, offset = coefficients(
        shift, mean, rstd, weight, bias, weight_rows, bias_rows, q, inside, channels, channel_step,
        batch_step)
    summed, product = products_of(grads, x, base, inside, 0, P, L, origin, middle, scale, gain,
                                  offset, ACTIVATION, SLOPE, TILE_P)
    write_gradients(grads, x, out, base, inside, 0, P, L, origin, middle, scale, gain, offset,
                    lost(summed, gain, P), lost(product, gain, P), ACTIVATION, SLOPE, TILE_P)
    tl.store(sums + q, summed, mask=inside)
    tl.store(products + q, product, mask=inside)


@triton.jit
def chunk_products(grads, x, part_sums, part_products, shift, mean, rstd, weight, bias,
                   weight_rows, bias_rows, channels, channel_step, batch_step, Q, P, L,
                   ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, CHUNK: tl.constexpr,
                   TILE_P: tl.constexpr, TILE_Q: tl.constexpr):
    """Write Σg and Σg·x̂ of one chunk of some instances, to be added up."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    chunk = tl.program_id(1).to(tl.int64)
    origin, middle, scale, gain, offset = coefficients(
        shift, mean, rstd, weight, bias, weight_rows, bias_rows, q, inside, channels, channel_step,
        batch_step)
    first, last = chunk * CHUNK, tl.minimum((chunk + 1) * CHUNK, P)
    summed, product = products_of(grads, x, base, inside, first, last, L, origin, middle, scale,
                                  gain, offset, ACTIVATION, SLOPE, TILE_P)
    tl.store(part_sums + chunk * Q + q, summed, mask=inside)
    tl.store(part_products + chunk * Q + q, product, mask=inside)


@triton.jit
def merge_products(part_sums, part_products, sums, products, Q, P, L, chunks, CHUNK: tl.constexpr,
                   TILE_S: tl.constexpr, TILE_Q: tl.constexpr):
    """Add up the chunks of some instances in float64."""
    q, inside, _base = instances_at(Q, P, L, TILE_Q)
    summed, product = tl.zeros([TILE_Q], tl.float64), tl.zeros([TILE_Q], tl.float64)
    for start in range(0, chunks, TILE_S):
        keep, place, _count = chunks_at(start, q, inside, Q, P, chunks, CHUNK, TILE_S)
        summed += tl.sum(tl.load(part_sums + place, mask=keep, other=0).to(tl.float64), 0)
        product += tl.sum(tl.load(part_products + place, mask=keep, other=0).to(tl.float64), 0)
    tl.store(sums + q, summed, mask=inside)
    tl.store(products + q, product, mask=inside)


@triton.jit
def gradients(grads, x, out, sums, products, shift, mean, rstd, weight, bias, weight_rows,
              bias_rows, channels, channel_step, batch_step, Q, P, L, ACTIVATION: tl.constexpr,
              SLOPE: tl.constexpr, CHUNK: tl.constexpr, TILE_P: tl.constexpr,
              TILE_Q: tl.constexpr):
    """Write the gradient of one chunk of some instances."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    first = tl.program_id(1).to(tl.int64) * CHUNK
    origin, middle, scale, gain, offset = coefficients(
        shift, mean, rstd, weight, bias, weight_rows, bias_rows, q, inside, channels, channel_step,
        batch_step)
    level = lost(tl.load(sums + q, mask=inside, other=0), gain, P)
    along = lost(tl.load(products + q, mask=inside, other=0), gain, P)
    write_gradients(grads, x, out, base, inside, first, tl.minimum(first + CHUNK, P), L, origin,
                    middle, scale, gain, offset, level, along, ACTIVATION, SLOPE, TILE_P)


class _Layout:
    """The order of the dimensions in which a tensor is (outer, P, L), and the cut of the work."""

    def __init__(self, x: Tensor, axes: Sequence[int]) -> None:
        """x is laid out as the outputs are."""
        long = [d for d in range(x.ndim) if x.shape[d] > 1]
        strides = x.stride()
        long.sort(key=lambda d: -strides[d])
        where = [k for k, d in enumerate(long) if d in axes]
        if where and where[-1] - where[0] >= len(where):  # kept axes lie in between
            long.sort(key=lambda d: d in axes)
            where = [k for k, d in enumerate(long) if d in axes]
        inner = long[where[-1] + 1 :] if where else []
        self.order = [d for d in range(x.ndim) if d not in long] + long
        self.values, self.inner = prod(x.shape[d] for d in axes), prod(x.shape[d] for d in inner)
        self.instances = x.numel() // self.values
        self.shape, self.axes = x.shape, axes
        self.tiles = self._tiles()

    def _tiles(self) -> dict[str, int]:
        """Return the block sizes, a fixed function of the shape; CHUNK only where it is needed."""
        tile_p = power_of_2(self.values, 1, TILE if self.inner == 1 else TILE // 64)
        side_by_side = TILE // tile_p if self.inner > 1 else min(TILE // tile_p, 16)
        tile_q = power_of_2(self.instances, 1, side_by_side)
        tiles = {"TILE_P": tile_p, "TILE_Q": tile_q}
        programs = -(-self.instances // tile_q)
        chunk = power_of_2(self.values * programs // PROGRAMS, 4 * tile_p, 1 << 30)
        return tiles if programs > PROGRAMS // 4 or chunk >= self.values else {
            "CHUNK": chunk, **tiles
        }

    @property
    def sized(self) -> tuple[int, int, int]:
        return self.instances, self.values, self.inner

    @property
    def grid(self) -> list[int]:
        chunks = -(-self.values // self.tiles.get("CHUNK", self.values))
        return [-(-self.instances // self.tiles["TILE_Q"]), chunks]

    def packed(self, x: Tensor) -> Tensor:
        """Return x in this order, copied where it does not lie so."""
        return x.permute(self.order).contiguous()

    def target(self, x: Tensor) -> Tensor:
        """Return memory in this order for what x shall hold: that of x where it lies so."""
        view = x.permute(self.order)
        return view if view.is_contiguous() else torch.empty_like(
            view, memory_format=torch.contiguous_format)

    def fill(self, x: Tensor, target: Tensor) -> None:
        view = x.permute(self.order)
        if not view.is_contiguous():
            view.copy_(target)

    def affine(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Any, ...]:
        """Return the parameters, and how the kernels find an instance's place in them."""
        rows = (1 if p is None or p.dim() == 1 else len(p) for p in (weight, bias))
        kept = [d for d in self.order if d not in self.axes]
        steps = (prod(self.shape[d] for d in kept[kept.index(axis) + 1 :]) for axis in (1, 0))
        return weight, bias, *rows, self.shape[1], *steps

    def parameter_gradient(self, sums: Tensor, parameter: Tensor) -> Tensor:
        """Add the sums of all instances up to a parameter (C,) or (B, C)."""
        shape = [1 if d in self.axes else self.shape[d] for d in self.order]
        inverse = [self.order.index(d) for d in range(len(self.order))]
        each = sums.view(shape).permute(inverse).flatten(2).sum(2)
        return each if parameter.dim() == 2 else each.sum(0)


def axis_norm(x: Tensor, axes: list[int], weight: Tensor | None, bias: Tensor | None, eps: float,
              activation: str, negative_slope: float, residual: Tensor | None = None
              ) -> tuple[Tensor, ...]:
    outputs, constants = outputs_like(x, axes), tail(activation, negative_slope)
    if x.numel() == 0:
        return outputs
    lie = _Layout(outputs[0], axes)
    x, targets = lie.packed(x), [lie.target(each) for each in outputs]
    residual = None if residual is None else lie.packed(residual)
    affine = lie.affine(weight, bias)
    if "CHUNK" in lie.tiles:
        stats, chunks = targets[1:], lie.grid[1]
        means, squares = (stats[0].new_empty(chunks, lie.instances) for _ in range(2))
        launch(chunk_moments, lie.grid, x, means, squares, *lie.sized, **lie.tiles)
        launch(merge_moments, [-(-lie.instances // MERGE["TILE_Q"])], x, means,
               squares, *stats, *lie.sized, chunks, EPS=eps, CHUNK=lie.tiles["CHUNK"], **MERGE)
        launch(normalize, lie.grid, x, residual, *targets, *affine, *lie.sized, **constants,
               **lie.tiles)
    else:
        launch(forward, lie.grid, x, residual, *targets, *affine, *lie.sized, EPS=eps,
               **constants, **lie.tiles)
    for output, target in zip(outputs, targets, strict=True):
        lie.fill(output, target)
    return outputs


def axis_norm_backward(grad: Tensor, x: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor,
                       axes: list[int], weight: Tensor | None, bias: Tensor | None,
                       activation: str, negative_slope: float) -> tuple[Tensor, ...]:
    outputs, constants = gradients_like(x, weight, bias), tail(activation, negative_slope)
    if x.numel() == 0:
        return outputs[0], *(each.zero_() for each in outputs[1:])
    grad_x, *_ = outputs
    lie = _Layout(grad_x, axes)
    x, grad, *stats = (lie.packed(each) for each in (x, grad, shift, mean, rstd))
    out, affine = lie.target(grad_x), lie.affine(weight, bias)
    sums, products = (stats[0].new_empty(lie.instances) for _ in range(2))
    rest = (*stats, *affine, *lie.sized)
    if "CHUNK" in lie.tiles:
        chunks = lie.grid[1]
        parts = [stats[0].new_empty(chunks, lie.instances) for _ in range(2)]
        launch(chunk_products, lie.grid, grad, x, *parts, *rest, **constants,
               **lie.tiles)
        launch(merge_products, [-(-lie.instances // MERGE["TILE_Q"])], *parts, sums,
               products, *lie.sized, chunks, CHUNK=lie.tiles["CHUNK"], **MERGE)
        launch(gradients, lie.grid, grad, x, out, sums, products, *rest,
               **constants, **lie.tiles)
    else:
        launch(backward, lie.grid, grad, x, out, sums, products, *rest, **constants,
               **lie.tiles)
    lie.fill(grad_x, out)
    grad_weight, grad_bias = (
        x.new_empty(0) if parameter is None else lie.parameter_gradient(each, parameter)
        for parameter, each in ((weight, products), (bias, sums))
    )
    return grad_x, grad_weight, grad_bias
