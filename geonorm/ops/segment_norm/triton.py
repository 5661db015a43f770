"""segment_norm, its backward and segment_stats by Triton, for CUDA.

The law is reference.py, the contract op.py. The number of launches is fixed, and the device says
nothing to the host:

A stable radix sort of the index, one byte wide below 127 instances, brings the rows into the order
of their instances. The features stay where they are: whole rows of them, which is what memory
delivers anyway, are read through that order. So interleaved rows cost what sorted ones do, hundreds
of small instances what a large one does, and no program keeps an accumulator for every instance.
Each instance is cut into slots of up to CHUNK rows, each the work of one program; N rows and B
instances have at most N/CHUNK + B + 1 slots (find_slot in triton_kernels.py), and partial results
take that many rows of memory. They are merged in float64 in a fixed order: no atomics, and equal
runs are equal to the bit.

Forward reads the rows twice and writes once; backward reads rows and gradient twice, writes once.
A row whose index lies outside comes out as NaN and gets no gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from geonorm.ops.segment_norm import triton_backward, triton_kernels
from geonorm.ops.triton_tiles import PROGRAMS, TILE, launch, power_of_2, tail

MERGE = {"TILE_S": 128, "TILE_C": 16}  # slots and channels that merging takes at a time


@dataclass
class _Order:
    """Rows sorted by instance and the cut of the work; order and bounds as in triton_kernels.py."""

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
    launch(triton_kernels.make_keys, [-(-count // 1024)], index.contiguous(), row_weights, keys,
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
    launch(triton_kernels.slot_moments, lie.grid, rows, lie.order, lie.bounds, row_weights, means,
           squares, masses, instances, channels, rows.stride(0), width, **lie.sizes)
    mean, var = (shift.new_empty(instances, channels) for _ in range(2))
    launch(triton_kernels.merge_moments, lie.merge_grid(instances), rows, lie.order, lie.bounds,
           means, squares, masses, shift, mean, var, channels, rows.stride(0), width,
           CHUNK=lie.sizes["CHUNK"], **MERGE)
    if width > 1:  # the channels of a group have the same shift and weigh the same
        each = _grouped(mean.double(), groups)
        apart = (each - each.mean(2, keepdim=True)).square()
        mean, var = each.mean(2).to(dtype), (_grouped(var, groups) + apart).mean(2).to(dtype)
    return lie, shift, mean, var


def segment_norm(rows: Tensor, index: Tensor, instances: int, row_weights: Tensor | None,
                 weight: Tensor | None, bias: Tensor | None, groups: int, eps: float,
                 activation: str, negative_slope: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, constants = _as_rows(rows), tail(activation, negative_slope)
    row_weights, weight, bias = _dense(row_weights, weight, bias)
    lie, shift, mean, var = _moments(rows, index, instances, row_weights, groups)
    rstd = (var + eps).rsqrt()
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    if lie is not None:
        launch(triton_kernels.normalize, lie.grid, rows, out, lie.order, lie.bounds, shift, mean,
               rstd, weight, bias, _step(weight), _step(bias), instances, rows.shape[1],
               rows.stride(0), rows.shape[1] // groups, **constants, **lie.sizes)
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
        launch(triton_backward.slot_products, lie.grid, grad, rows, lie.order, lie.bounds, shift,
               mean, rstd, row_weights, weight, bias, partial_sums, partial_products, masses,
               *steps, *sized, **constants, **lie.sizes)
        launch(triton_backward.merge_products, lie.merge_grid(instances), partial_sums,
               partial_products, lie.bounds, masses, weight, steps[0], sums, products, *lost,
               channels, width, CHUNK=lie.sizes["CHUNK"], **MERGE)
        if width > 1:
            lost = [_grouped(each, groups).sum(2) for each in lost]
        launch(triton_backward.row_gradients, lie.grid, grad, rows, out, lie.order, lie.bounds,
               shift, mean, rstd, *lost, row_weights, weight, bias, *steps, *sized, **constants,
               **lie.sizes)
    grad_weight, grad_bias = (
        rows.new_empty(0) if parameter is None else each if parameter.dim() == 2 else each.sum(0)
        for parameter, each in ((weight, products), (bias, sums))
    )
    return out, grad_weight, grad_bias
