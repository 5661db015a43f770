"""The Triton kernels of axis_norm; triton.py launches them.

Names: memory is (outer, P, L), the P in the middle normalized over; every (outer, l) is an instance
of P values that lie L apart. Instances are numbered by q in that order, Q in all. A program takes
TILE_Q instances, and all of their values or up to CHUNK of them.
"""

import triton
import triton.language as tl

from geonorm.ops.triton_tiles import activated, add_moments, standardized


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
def normalize_values(x, out, base, inside, first, last, L, origin, middle, scale, gain, offset,
                     ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, TILE_P: tl.constexpr):
    for start in range(first, last, TILE_P):
        keep, place = values_at(start, last, L, inside, base, TILE_P)
        xhat = standardized(tl.load(x + place, mask=keep, other=0), origin, middle, scale)
        y = activated(xhat * gain[None, :] + offset[None, :], ACTIVATION, SLOPE)
        tl.store(out + place, y.to(out.dtype.element_ty), mask=keep)


@triton.jit
def forward(x, out, shift, mean, rstd, weight, bias, weight_rows, bias_rows, channels, channel_step,
            batch_step, Q, P, L, EPS: tl.constexpr, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
            TILE_P: tl.constexpr, TILE_Q: tl.constexpr):
    """Do it all where a program has whole instances."""
    q, inside, base = instances_at(Q, P, L, TILE_Q)
    accuracy: tl.constexpr = mean.dtype.element_ty
    origin = tl.load(x + base, mask=inside, other=0).to(accuracy)
    middle, squares = moments_of(x, base, inside, 0, P, L, origin, TILE_P)
    scale = (1 / tl.sqrt(squares.to(tl.float64) / P + EPS)).to(accuracy)
    gain, offset = parameters_at(weight, bias, weight_rows, bias_rows, q, inside, channels,
                                 channel_step, batch_step, accuracy)
    normalize_values(x, out, base, inside, 0, P, L, origin, middle, scale, gain, offset, ACTIVATION,
                     SLOPE, TILE_P)
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
        apart = tl.load(means + place, mask=keep, other=0) - middle[None, :]
        square += tl.sum(tl.load(squares + place, mask=keep, other=0).to(tl.float64), 0)
        square += tl.sum(apart * apart * count, 0)
    tl.store(shift + q, tl.load(x + base, mask=inside, other=0), mask=inside)
    tl.store(mean + q, middle, mask=inside)
    tl.store(rstd + q, 1 / tl.sqrt(square / P + EPS), mask=inside)


@triton.jit
def normalize(x, out, shift, mean, rstd, weight, bias, weight_rows, bias_rows, channels,
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
    normalize_values(x, out, base, inside, first, tl.minimum(first + CHUNK, P), L, origin, middle,
                     scale, gain, offset, ACTIVATION, SLOPE, TILE_P)
