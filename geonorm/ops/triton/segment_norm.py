"""segment_norm, its backward and segment_stats by Triton, for CUDA.

The definition is in geonorm/ops/segment_norm.py. The number of launches is fixed, and no
launch waits for a value from the device:

A stable radix sort of the index, one byte wide below 127 instances, brings the rows into the order
of their instances. The features stay where they are: whole rows of them, which is what memory
delivers anyway, are read through that order. So interleaved rows cost what sorted ones do, hundreds
of small instances what a large one does, and no program keeps an accumulator for every instance.
Each instance is cut into slots of up to CHUNK rows, each the work of one program; N rows and B
instances have at most N/CHUNK + B + 1 slots (find_slot), and partial results
take that many rows of memory. They are merged in float64 in a fixed order: no atomics, and equal
runs are equal to the bit.

Forward reads the rows twice and writes once; backward reads rows and gradient twice, writes once.
A row whose index lies outside comes out as NaN and gets no gradient.

Names: rows (N, C) with `stride` between rows; `order`, the rows sorted by instance; `bounds`, where
each instance begins in it; a slot, up to CHUNK rows of one instance, is the work of one program.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

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

MERGE = {"TILE_S": 128, "TILE_C": 16}  # slots and channels that merging takes at a time


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
        square += squares_around(middle, means, squares, place, keep, mass[:, None])
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
def normalize(rows, residual, out, order, bounds, shift, mean, rstd, weight, bias, weight_step,
              bias_step, instances, channels, stride, residual_stride, width,
              ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, CHUNK: tl.constexpr,
              LANES: tl.constexpr, TILE_R: tl.constexpr, TILE_C: tl.constexpr):
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
            y = xhat * gain[None, :] + offset[None, :]
            if residual is not None:
                place = row[:, None] * residual_stride + channel[None, :]
                y += tl.load(residual + place, mask=keep, other=0).to(y.dtype)
            y = activated(y, ACTIVATION, SLOPE)
            y = tl.where(instance < instances, y, float("nan")).to(out.dtype.element_ty)
            tl.store(out + row[:, None] * channels + channel[None, :], y, mask=keep)


@triton.jit
def slot_products(grads, rows, order, bounds, shift, mean, rstd, row_weights, weight, bias,
                  sums, products, masses, weight_step, bias_step, instances, channels, grad_stride,
                  stride, width, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
                  CHUNK: tl.constexpr, LANES: tl.constexpr, TILE_R: tl.constexpr,
                  TILE_C: tl.constexpr):
    """Write each slot's Σg and Σg·x̂, g the gradient before the activation, and its weight."""
    slot = tl.program_id(0).to(tl.int64)
    instance, first, last = find_slot(slot, bounds, instances, CHUNK, LANES)
    if (instance < instances) & (first < last):
        channel = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
        inside = channel < channels
        origin, middle, scale, gain, offset = coefficients(
            shift, mean, rstd, weight, bias, weight_step, bias_step, instance, instances, channel,
            channels, width)
        mass, sum_ = tl.zeros([1], scale.dtype), tl.zeros([TILE_C], scale.dtype)
        product = tl.zeros([TILE_C], scale.dtype)
        for start in range(first, last, TILE_R):
            row, there, share = rows_at(order, row_weights, start, last, scale.dtype, TILE_R)
            keep = there[:, None] & inside[None, :]
            x = tl.load(rows + row[:, None] * stride + channel[None, :], mask=keep, other=0)
            grad = tl.load(grads + row[:, None] * grad_stride + channel[None, :], mask=keep,
                           other=0).to(scale.dtype)
            xhat = standardized(x, origin, middle, scale)
            grad = before_activation(grad, xhat * gain[None, :] + offset[None, :], ACTIVATION,
                                     SLOPE)
            mass += tl.sum(share, 0)
            sum_ += tl.sum(grad, 0)
            product += tl.sum(tl.where(keep, grad * xhat, 0.0), 0)
        tl.store(sums + slot * channels + channel, sum_, mask=inside)
        tl.store(products + slot * channels + channel, product, mask=inside)
        if masses is not None:
            tl.store(masses + slot, tl.sum(mass, 0), mask=tl.program_id(1) == 0)


@triton.jit
def merge_products(slot_sums, slot_products, bounds, masses, weight, weight_step, sums, products,
                   lost_mean, lost_along, channels, width, CHUNK: tl.constexpr,
                   TILE_S: tl.constexpr, TILE_C: tl.constexpr):
    """Add up the slots of an instance in float64, and write each channel's part of what is lost.

    That is weight · Σg and weight · Σg·x̂, divided by the weight of the channel's group.
    """
    instance = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
    inside = channel < channels
    total, sum_ = tl.zeros([1], tl.float64), tl.zeros([TILE_C], tl.float64)
    product = tl.zeros([TILE_C], tl.float64)
    for start in range(0, slot_count(bounds, instance, CHUNK), TILE_S):
        slot, there, mass = slots_at(masses, bounds, instance, start, CHUNK, TILE_S)
        keep = there[:, None] & inside[None, :]
        place = slot[:, None] * channels + channel[None, :]
        total += tl.sum(mass[:, None], 0)
        sum_ += tl.sum(tl.load(slot_sums + place, mask=keep, other=0).to(tl.float64), 0)
        product += tl.sum(tl.load(slot_products + place, mask=keep, other=0).to(tl.float64), 0)
    total = tl.where(total > 0, total * width, 1.0)
    gain = tl.full([TILE_C], 1, tl.float64)
    if weight is not None:
        gain = tl.load(weight + instance * weight_step + channel, mask=inside, other=0)
    place = instance * channels + channel
    tl.store(sums + place, sum_, mask=inside)
    tl.store(products + place, product, mask=inside)
    tl.store(lost_mean + place, sum_ * gain / total, mask=inside)
    tl.store(lost_along + place, product * gain / total, mask=inside)


@triton.jit
def row_gradients(grads, rows, out, order, bounds, shift, mean, rstd, lost_mean, lost_along,
                  row_weights, weight, bias, weight_step, bias_step, instances, channels,
                  grad_stride, stride, width, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
                  CHUNK: tl.constexpr, LANES: tl.constexpr, TILE_R: tl.constexpr,
                  TILE_C: tl.constexpr):
    """Write the gradient of a slot's rows; 0 where their index lies outside."""
    instance, first, last = find_slot(tl.program_id(0).to(tl.int64), bounds, instances, CHUNK,
                                      LANES)
    if first < last:
        channel = tl.program_id(1) * TILE_C + tl.arange(0, TILE_C)
        inside = channel < channels * (instance < instances).to(tl.int32)
        origin, middle, scale, gain, offset = coefficients(
            shift, mean, rstd, weight, bias, weight_step, bias_step, instance, instances, channel,
            channels, width)
        place = instance * (channels // width) + channel // width
        level = tl.load(lost_mean + place, mask=inside, other=0)
        along = tl.load(lost_along + place, mask=inside, other=0)
        for start in range(first, last, TILE_R):
            row, there, share = rows_at(order, row_weights, start, last, scale.dtype, TILE_R)
            keep = there[:, None] & (channel < channels)[None, :]
            x = tl.load(rows + row[:, None] * stride + channel[None, :], mask=keep, other=0)
            grad = tl.load(grads + row[:, None] * grad_stride + channel[None, :], mask=keep,
                           other=0).to(scale.dtype)
            xhat = standardized(x, origin, middle, scale)
            grad = before_activation(grad, xhat * gain[None, :] + offset[None, :], ACTIVATION,
                                     SLOPE)
            lost = (level[None, :] + xhat * along[None, :]) * share
            grad = (grad * gain[None, :] - lost) * scale[None, :]
            grad = tl.where(instance < instances, grad, 0.0).to(out.dtype.element_ty)
            tl.store(out + row[:, None] * channels + channel[None, :], grad, mask=keep)


@dataclass
class _Order:
    """Rows sorted by instance and the cut of the work; order and bounds as in py."""

    order: Tensor
    bounds: Tensor
    slots: int
    channels: int
    sizes: dict[str, int]

    @property
    def grid(self) -> list[int]:
        return [self.slots, -(-self.channels // self.sizes["TILE_C"])]

    def partial(self, like: Tensor, row_weights: Tensor | None
                ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return memory for two sums of each slot and channel, and for the weight of each slot."""
        one, other = (like.new_empty(self.slots, self.channels) for _ in range(2))
        return one, other, None if row_weights is None else like.new_empty(self.slots)

    def merge_grid(self, instances: int) -> list[int]:
        return [instances, -(-self.channels // MERGE["TILE_C"])]


def _sizes(count: int, channels: int, instances: int) -> dict[str, int]:
    """Return the block sizes, a fixed function of the shape."""
    divisor = channels & -channels  # the power of two that divides C wastes no lane
    tile_c = min(divisor, 128) if divisor >= 32 else power_of_2(channels, 1, 128)
    tile_r = min(TILE // tile_c, 1024)
    chunk = max(tile_r, power_of_2(count // PROGRAMS, 256, 4096))
    lanes = 64 if instances < 64 else 1024
    return {"CHUNK": chunk, "LANES": lanes, "TILE_R": tile_r, "TILE_C": tile_c}


def _arrange(rows: Tensor, index: Tensor, instances: int, row_weights: Tensor | None) -> _Order:
    """Sort the rows by instance: those that count, then those of weight 0; strays at the end."""
    count, channels = rows.shape
    last = 2 * instances + 2
    dtype = next(d for d in (torch.uint8, torch.int16, torch.int32, torch.int64)
                 if last <= torch.iinfo(d).max)
    keys = torch.empty(count, dtype=dtype, device=rows.device)
    launch(make_keys, [-(-count // 1024)], index.contiguous(), row_weights, keys,
           count, instances, BLOCK=1024)
    keys, order = torch.sort(keys, stable=True)
    bounds = torch.searchsorted(keys, torch.arange(last + 1, dtype=dtype, device=rows.device))
    sizes = _sizes(count, channels, instances)
    return _Order(order, bounds, count // sizes["CHUNK"] + instances + 1, channels, sizes)


def _as_rows(x: Tensor) -> Tensor:  # channels side by side, rows any distance apart
    return x if x.shape[1] == 1 or x.stride(1) == 1 else x.contiguous()


def _dense(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if each is None else each.contiguous() for each in tensors]


def _step(parameter: Tensor | None) -> int:  # between the instances of a parameter
    return parameter.shape[1] if parameter is not None and parameter.dim() == 2 else 0


def _grouped(each: Tensor, groups: int) -> Tensor:  # (B, C) -> (B, groups, C / groups)
    return each.view(len(each), groups, each.shape[1] // groups)


def _moments(rows: Tensor, index: Tensor, instances: int, row_weights: Tensor | None, groups: int
             ) -> tuple[_Order | None, Tensor, Tensor, Tensor]:
    """Return shift, mean and variance (B, groups), and how the rows lie if there are any."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    shift = rows.new_zeros(instances, groups, dtype=dtype)
    if rows.numel() == 0:
        return None, shift, shift.clone(), shift.clone()
    channels, width = rows.shape[1], rows.shape[1] // groups
    lie = _arrange(rows, index, instances, row_weights)
    means, squares, masses = lie.partial(shift, row_weights)
    launch(slot_moments, lie.grid, rows, lie.order, lie.bounds, row_weights, means,
           squares, masses, instances, channels, rows.stride(0), width, **lie.sizes)
    mean, var = (shift.new_empty(instances, channels) for _ in range(2))
    launch(merge_moments, lie.merge_grid(instances), rows, lie.order, lie.bounds,
           means, squares, masses, shift, mean, var, channels, rows.stride(0), width,
           CHUNK=lie.sizes["CHUNK"], **MERGE)
    if width > 1:  # the channels of a group have the same shift and weigh the same
        each = _grouped(mean.double(), groups)
        apart = (each - each.mean(2, keepdim=True)).square()
        mean, var = each.mean(2).to(dtype), (_grouped(var, groups) + apart).mean(2).to(dtype)
    return lie, shift, mean, var


def segment_norm(rows: Tensor, index: Tensor, instances: int, row_weights: Tensor | None,
                 weight: Tensor | None, bias: Tensor | None, groups: int, eps: float,
                 activation: str, negative_slope: float, residual: Tensor | None = None
                 ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, constants = _as_rows(rows), tail(activation, negative_slope)
    residual = None if residual is None else _as_rows(residual)
    row_weights, weight, bias = _dense(row_weights, weight, bias)
    lie, shift, mean, var = _moments(rows, index, instances, row_weights, groups)
    rstd = (var + eps).rsqrt()
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    if lie is not None:
        launch(normalize, lie.grid, rows, residual, out, lie.order, lie.bounds, shift, mean,
               rstd, weight, bias, _step(weight), _step(bias), instances, rows.shape[1],
               rows.stride(0), 0 if residual is None else residual.stride(0),
               rows.shape[1] // groups, **constants, **lie.sizes)
    return out, shift, mean, rstd


def segment_stats(rows: Tensor, index: Tensor, instances: int, row_weights: Tensor | None,
                  groups: int) -> tuple[Tensor, Tensor]:
    (row_weights,) = _dense(row_weights)
    _, shift, mean, var = _moments(_as_rows(rows), index, instances, row_weights, groups)
    return shift + mean, var


def segment_norm_backward(grad: Tensor, rows: Tensor, index: Tensor, shift: Tensor, mean: Tensor,
                          rstd: Tensor, row_weights: Tensor | None, weight: Tensor | None,
                          bias: Tensor | None, groups: int, activation: str, negative_slope: float
                          ) -> tuple[Tensor, Tensor, Tensor]:
    rows, grad, constants = _as_rows(rows), _as_rows(grad), tail(activation, negative_slope)
    shift, mean, rstd = (each.contiguous() for each in (shift, mean, rstd))
    row_weights, weight, bias = _dense(row_weights, weight, bias)
    instances, channels, width = len(shift), rows.shape[1], rows.shape[1] // groups
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    make = shift.new_empty if rows.numel() else shift.new_zeros
    sums, products, *lost = (make(instances, channels) for _ in range(4))
    if rows.numel():
        lie = _arrange(rows, index, instances, row_weights)
        partial_sums, partial_products, masses = lie.partial(shift, row_weights)
        steps = (_step(weight), _step(bias))
        sized = (instances, channels, grad.stride(0), rows.stride(0), width)
        launch(slot_products, lie.grid, grad, rows, lie.order, lie.bounds, shift,
               mean, rstd, row_weights, weight, bias, partial_sums, partial_products, masses,
               *steps, *sized, **constants, **lie.sizes)
        launch(merge_products, lie.merge_grid(instances), partial_sums,
               partial_products, lie.bounds, masses, weight, steps[0], sums, products, *lost,
               channels, width, CHUNK=lie.sizes["CHUNK"], **MERGE)
        if width > 1:
            lost = [_grouped(each, groups).sum(2) for each in lost]
        launch(row_gradients, lie.grid, grad, rows, out, lie.order, lie.bounds,
               shift, mean, rstd, *lost, row_weights, weight, bias, *steps, *sized, **constants,
               **lie.sizes)
    grad_weight, grad_bias = (
        rows.new_empty(0) if parameter is None else each if parameter.dim() == 2 else each.sum(0)
        for parameter, each in ((weight, products), (bias, sums))
    )
    return out, grad_weight, grad_bias
