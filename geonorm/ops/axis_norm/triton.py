"""axis_norm and its backward by Triton, for CUDA.

The law is reference.py, the contract op.py. Memory is taken as (outer, P, L), P the axes that are
normalized over (triton_kernels.py); contiguous and channels_last tensors lie so for almost every
subset of axes. Where they do not, as for T and W but not H, tensors are copied so that they do.
One launch does it all where there are instances enough for every processor; otherwise instances are
cut into chunks, and three launches compute partial results, merge them in float64 in a fixed order,
and write. No atomics: equal runs are equal to the bit.

Forward reads x twice and writes once; backward reads x and the gradient twice and writes once.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from geonorm.ops.axis_norm import triton_backward, triton_kernels
from geonorm.ops.axis_norm.op import gradients_like, outputs_like
from geonorm.ops.triton_tiles import PROGRAMS, TILE, launch, power_of_2, tail

MERGE = {"TILE_S": 64, "TILE_Q": 32}  # chunks and instances that merging takes at a time


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
              activation: str, negative_slope: float) -> tuple[Tensor, ...]:
    outputs, constants = outputs_like(x, axes), tail(activation, negative_slope)
    if x.numel() == 0:
        return outputs
    lie = _Layout(outputs[0], axes)
    x, targets = lie.packed(x), [lie.target(each) for each in outputs]
    affine = lie.affine(weight, bias)
    if "CHUNK" in lie.tiles:
        stats, chunks = targets[1:], lie.grid[1]
        means, squares = (stats[0].new_empty(chunks, lie.instances) for _ in range(2))
        launch(triton_kernels.chunk_moments, lie.grid, x, means, squares, *lie.sized, **lie.tiles)
        launch(triton_kernels.merge_moments, [-(-lie.instances // MERGE["TILE_Q"])], x, means,
               squares, *stats, *lie.sized, chunks, EPS=eps, CHUNK=lie.tiles["CHUNK"], **MERGE)
        launch(triton_kernels.normalize, lie.grid, x, *targets, *affine, *lie.sized, **constants,
               **lie.tiles)
    else:
        launch(triton_kernels.forward, lie.grid, x, *targets, *affine, *lie.sized, EPS=eps,
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
        launch(triton_backward.chunk_products, lie.grid, grad, x, *parts, *rest, **constants,
               **lie.tiles)
        launch(triton_backward.merge_products, [-(-lie.instances // MERGE["TILE_Q"])], *parts, sums,
               products, *lie.sized, chunks, CHUNK=lie.tiles["CHUNK"], **MERGE)
        launch(triton_backward.gradients, lie.grid, grad, x, out, sums, products, *rest,
               **constants, **lie.tiles)
    else:
        launch(triton_backward.backward, lie.grid, grad, x, out, sums, products, *rest, **constants,
               **lie.tiles)
    lie.fill(grad_x, out)
    grad_weight, grad_bias = (
        x.new_empty(0) if parameter is None else lie.parameter_gradient(each, parameter)
        for parameter, each in ((weight, products), (bias, sums))
    )
    return grad_x, grad_weight, grad_bias
