"""The Triton kernels of segment_norm's backward; names as in triton_kernels.py."""

import triton
import triton.language as tl

from geonorm.ops.segment_norm.triton_kernels import (
    coefficients,
    find_slot,
    rows_at,
    slot_count,
    slots_at,
)
from geonorm.ops.triton_tiles import before_activation, standardized


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
