"""The Triton kernels of segment_norm; triton.py launches them and says how rows are laid out.

Names: rows (N, C) with `stride` between rows; `order`, the rows sorted by instance; `bounds`, where
each instance begins in it; a slot, up to CHUNK rows of one instance, is the work of one program.
"""

import triton
import triton.language as tl

from geonorm.ops.triton_tiles import activated, add_moments, standardized


@triton.jit
def make_keys(index, weights, keys, count, instances, BLOCK: tl.constexpr):
    """Give each row twice its instance, plus one where it does not count.

    A row whose index lies outside belongs to one more instance, which has no statistics.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    owner = tl.load(index + row, mask=row < count, other=0)
    key = tl.where((owner >= 0) & (owner < instances), owner, instances) * 2
    if weights is not None:
        weight = tl.load(weights + row, mask=row < count, other=1)
        key += tl.where(weight > 0, 0, 1)
    tl.store(keys + row, key.to(keys.dtype.element_ty), mask=row < count)


@triton.jit
def find_slot(slot, bounds, instances, CHUNK: tl.constexpr, LANES: tl.constexpr):
    """Return the instance of a slot and the part of `order` that is the slot's, maybe empty.

    Instance b has the slots from ⌊begin / CHUNK⌋ + b on; the next one's begin after its last.
    """
    found = 0
    for low in range(0, instances + 1, LANES):
        b = low + tl.arange(0, LANES)
        there = b <= instances
        first = tl.load(bounds + 2 * b, mask=there, other=0) // CHUNK + b
        found += tl.sum((there & (first <= slot)).to(tl.int32), 0)
    instance = found - 1
    begin = tl.load(bounds + 2 * instance)
    end = tl.load(bounds + 2 * instance + 2)
    first = begin + (slot - begin // CHUNK - instance) * CHUNK
    return instance.to(tl.int64), first, tl.minimum(first + CHUNK, end)


@triton.jit
def rows_at(order, weights, start, last, ACCURACY: tl.constexpr, TILE_R: tl.constexpr):
    """Return a tile's rows, which of them exist, and how much each counts, (TILE_R, 1)."""
    at = start + tl.arange(0, TILE_R)
    there = at < last
    row = tl.load(order + at, mask=there, other=0)
    share = there.to(ACCURACY)
    if weights is not None:
        share = tl.load(weights + row, mask=there, other=0)
    return row, there, share[:, None]


@triton.jit
def leader(rows, order, bounds, instance, channel, channels, stride, width):
    """Return the first channel of each group in the instance's first row that counts, else 0."""
    begin = tl.load(bounds + 2 * instance)
    found = begin < tl.load(bounds + 2 * instance + 1)
    first = tl.load(order + begin, mask=found, other=0)
    place = first * stride + channel // width * width
    return tl.load(rows + place, mask=channel < channels * found.to(tl.int32), other=0)


@triton.jit
def slot_moments(rows, order, bounds, weights, means, squares, masses, instances, channels, stride,
                 width, CHUNK: tl.constexpr, LANES: tl.constexpr, TILE_R: tl.constexpr,
                 TILE_C: tl.constexpr):
    """Write each slot's mean of x − shift, its sum of squares around that, and its weight."""
    accuracy: tl.constexpr = means.dtype.element_ty
    slot = tl.program_id(0).to(tl.int64)
    instance, first, last = find_slot(slot, bounds, instances, CHUNK, LANES)
    if (instance < instances) & (first < last):
        channel = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
        inside = channel < channels
        origin = leader(rows, order, bounds, instance, channel, channels, stride, width)
        origin = origin.to(accuracy)
        mass, mean = tl.zeros([1], accuracy), tl.zeros([TILE_C], accuracy)
        square = tl.zeros([TILE_C], accuracy)
        for start in range(first, last, TILE_R):
            row, there, share = rows_at(order, weights, start, last, accuracy, TILE_R)
            x = tl.load(rows + row[:, None] * stride + channel[None, :],
                        mask=there[:, None] & inside[None, :], other=0).to(accuracy)
            mass, mean, square = add_moments(mass, mean, square, x - origin[None, :], share)
        tl.store(means + slot * channels + channel, mean, mask=inside)
        tl.store(squares + slot * channels + channel, square, mask=inside)
        if masses is not None:
            tl.store(masses + slot, tl.sum(mass, 0), mask=tl.program_id(1) == 0)


@triton.jit
def slots_at(masses, bounds, instance, start, CHUNK: tl.constexpr, TILE_S: tl.constexpr):
    """Return a tile of an instance's slots, which of them exist, and what each weighs."""
    begin = tl.load(bounds + 2 * instance)
    count = tl.load(bounds + 2 * instance + 2) - begin
    number = start + tl.arange(0, TILE_S)
    slot = begin // CHUNK + instance + number
    there = number * CHUNK < count
    mass = tl.minimum(count - number * CHUNK, CHUNK).to(tl.float64)
    if masses is not None:
        mass = tl.load(masses + slot, mask=there, other=0).to(tl.float64)
    return slot, there, tl.where(there, mass, 0.0)


@triton.jit
def slot_count(bounds, instance, CHUNK: tl.constexpr):
    count = tl.load(bounds + 2 * instance + 2) - tl.load(bounds + 2 * instance)
    return (count + CHUNK - 1) // CHUNK


@triton.jit
def merge_moments(rows, order, bounds, means, squares, masses, shift, mean, var, channels, stride,
                  width, CHUNK: tl.constexpr, TILE_S: tl.constexpr, TILE_C: tl.constexpr):
    """Merge the slots of an instance, in float64: their mean, and the squares around that."""
    instance = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
    inside = channel < channels
    count = slot_count(bounds, instance, CHUNK)
    total, summed = tl.zeros([1], tl.float64), tl.zeros([TILE_C], tl.float64)
    for start in range(0, count, TILE_S):
        slot, there, mass = slots_at(masses, bounds, instance, start, CHUNK, TILE_S)
        part = tl.load(means + slot[:, None] * channels + channel[None, :],
                       mask=there[:, None] & inside[None, :], other=0)
        total += tl.sum(mass[:, None], 0)
        summed += tl.sum(mass[:, None] * part, 0)
    total = tl.where(total > 0, total, 1.0)
    middle = summed / total
    square = tl.zeros([TILE_C], tl.float64)
    for start in range(0, count, TILE_S):
        slot, there, mass = slots_at(masses, bounds, instance, start, CHUNK, TILE_S)
        keep = there[:, None] & inside[None, :]
        place = slot[:, None] * channels + channel[None, :]
        apart = tl.load(means + place, mask=keep, other=0) - middle[None, :]
        square += tl.sum(tl.load(squares + place, mask=keep, other=0).to(tl.float64), 0)
        square += tl.sum(mass[:, None] * apart * apart, 0)
    tl.store(mean + instance * channels + channel, middle, mask=inside)
    tl.store(var + instance * channels + channel, square / total, mask=inside)
    origin = leader(rows, order, bounds, instance, channel, channels, stride, width)
    place = instance * (channels // width) + channel // width
    tl.store(shift + place, origin, mask=inside & (channel % width == 0))


@triton.jit
def coefficients(shift, mean, rstd, weight, bias, weight_step, bias_step, instance, instances,
                 channel, channels, width):
    """Return what an instance's x is taken through, by channel; weight is 1 and bias 0 where None.

    A parameter's step between instances is 0 where it is (C,).
    """
    inside = channel < channels * (instance < instances).to(tl.int32)
    place = instance * (channels // width) + channel // width
    scale = tl.load(rstd + place, mask=inside, other=0)
    gain, offset = tl.full(scale.shape, 1, scale.dtype), tl.full(scale.shape, 0, scale.dtype)
    if weight is not None:
        gain = tl.load(weight + instance * weight_step + channel, mask=inside, other=0)
    if bias is not None:
        offset = tl.load(bias + instance * bias_step + channel, mask=inside, other=0)
    return (tl.load(shift + place, mask=inside, other=0),
            tl.load(mean + place, mask=inside, other=0), scale, gain, offset)


@triton.jit
def normalize(rows, out, order, bounds, shift, mean, rstd, weight, bias, weight_step, bias_step,
              instances, channels, stride, width, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
              CHUNK: tl.constexpr, LANES: tl.constexpr, TILE_R: tl.constexpr,
              TILE_C: tl.constexpr):
    """Write the output of a slot's rows; NaN where their index lies outside."""
    instance, first, last = find_slot(tl.program_id(0).to(tl.int64), bounds, instances, CHUNK,
                                      LANES)
    if first < last:
        channel = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
        origin, middle, scale, gain, offset = coefficients(
            shift, mean, rstd, weight, bias, weight_step, bias_step, instance, instances, channel,
            channels, width)
        for start in range(first, last, TILE_R):
            row, there, _ = rows_at(order, None, start, last, scale.dtype, TILE_R)
            keep = there[:, None] & (channel < channels)[None, :]
            x = tl.load(rows + row[:, None] * stride + channel[None, :], mask=keep, other=0)
            xhat = standardized(x, origin, middle, scale)
            y = activated(xhat * gain[None, :] + offset[None, :], ACTIVATION, SLOPE)
            y = tl.where(instance < instances, y, float("nan")).to(out.dtype.element_ty)
            tl.store(out + row[:, None] * channels + channel[None, :], y, mask=keep)
