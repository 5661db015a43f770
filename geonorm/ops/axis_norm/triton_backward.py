"""The Triton kernels of axis_norm's backward; names as in triton_kernels.py."""

import triton
import triton.language as tl

from geonorm.ops.axis_norm.triton_kernels import (
    chunks_at,
    instances_at,
    parameters_at,
    values_at,
)
from geonorm.ops.triton_tiles import before_activation, standardized


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
