"""segment_norm, its backward and segment_stats as torch operators: schema, fakes, autograd.

The schemas live here. The kernel registered for every device is a Python function that asks
backends.backend_for which one runs; geonorm._C, when built, registers its own for the CPU.
Beyond the schema, a kernel may rely on:

- index is int64; row_weights, weight and bias have the statistics' dtype, float32 or, for float64
  rows, float64; rows, index and grad may have any strides; every output is contiguous.
- groups divides C; group g holds channels g·C/groups to (g+1)·C/groups − 1.
- shift is, per group, any number among the instance's values, such as its first row's first channel
  or one near their mean; mean is the weighted mean of x − shift; both are 0 where no row counts.
- grad_weight and grad_bias are empty, shape (0,), where weight and bias are None.
- residual has the shape and dtype of rows and any strides; it is added before the activation, in
  the statistics' dtype. Before a leaky_relu it asks for negative_slope ≥ 0: the gradient is then
  taken from the sign of the result.
- it must raise IndexError, or skip the row, where index lies outside [0, num_instances).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.ops.backends import define
from geonorm.ops.derivatives import (
    Formula,
    Norm,
    define_derivative,
    derive,
    transforms_active,
    under_transforms,
)

SCHEMAS = (
    "segment_norm(Tensor rows, Tensor index, SymInt num_instances, Tensor? row_weights, "
    "Tensor? weight, Tensor? bias, int groups, float eps, str activation, float negative_slope, "
    "Tensor? residual=None) -> (Tensor out, Tensor shift, Tensor mean, Tensor rstd)",
    "segment_norm_backward(Tensor grad, Tensor rows, Tensor index, Tensor shift, Tensor mean, "
    "Tensor rstd, Tensor? row_weights, Tensor? weight, Tensor? bias, int groups, str activation, "
    "float negative_slope) -> (Tensor grad_rows, Tensor grad_weight, Tensor grad_bias)",
    "segment_stats(Tensor rows, Tensor index, SymInt num_instances, Tensor? row_weights, "
    "int groups) -> (Tensor mean, Tensor var)",
)
_LIBRARY = torch.library.Library("geonorm", "FRAGMENT")


def per_row(stats: Tensor, index: Tensor, channels: int) -> Tensor:  # (B, groups) -> (N, C)
    return stats.repeat_interleave(channels // stats.shape[1], 1).index_select(0, index)


def pool(x: Tensor, index: Tensor, num_instances: int) -> Tensor:  # (N, C) -> (B, C)
    # Summed apart, then together: one long float32 sum loses digits. Two at least, as torch.export
    # takes for fixed what is 1 in its example.
    chunks = x.shape[0] // 4096 + 2
    slot = index * chunks + torch.arange(x.shape[0], device=x.device) // 4096
    sums = x.new_zeros(num_instances * chunks, x.shape[1]).index_add(0, slot, x)
    return sums.view(num_instances, chunks, x.shape[1]).sum(1)


def grouped(sums: Tensor, groups: int) -> Tensor:  # (B, C) -> (B, groups)
    return sums.view(sums.shape[0], groups, sums.shape[1] // groups).sum(2)


def mass(index: Tensor, num_instances: int, row_weights: Tensor | None, scale: int) -> Tensor:
    each = torch.ones_like(index) if row_weights is None else row_weights.double()
    return torch.where((total := scale * pool(each[:, None], index, num_instances)) > 0, total, 1)


def statistics(rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None,
               groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return one row of each instance, the mean of what exceeds it, and the biased variance."""
    (count, channels), x = rows.shape, rows if rows.dtype == torch.float64 else rows.float()
    shift, order = x.new_zeros(num_instances, groups), torch.arange(count, device=rows.device)
    if count:  # the first row that counts; an instance without any keeps zero
        order = order if row_weights is None else order.where(row_weights > 0, count)
        first = order.new_full((num_instances,), count).scatter_reduce(0, index, order, "amin")
        leader = x.detach()[:, :: channels // groups][first.clamp(max=count - 1)]
        shift = torch.where((first < count)[:, None], leader, shift)
    total = mass(index, num_instances, row_weights, channels // groups).to(x.dtype)
    share = 1 if row_weights is None else row_weights[:, None]
    x = x - per_row(shift, index, channels)
    mean = grouped(pool(x * share, index, num_instances), groups) / total
    square = (x - per_row(mean, index, channels)).square()
    return shift, mean, grouped(pool(square * share, index, num_instances), groups) / total


def affine(x: Tensor, index: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    gain, offset = (p[index] if p is not None and p.dim() == 2 else p for p in (weight, bias))
    x = x if gain is None else x * gain
    return x if offset is None else x + offset


def forward(rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None,
            weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, activation: str,
            negative_slope: float, residual: Tensor | None = None
            ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return act(x̂ · weight + bias + residual) and the statistics that the backward needs."""
    shift, mean, var = statistics(rows, index, num_instances, row_weights, groups)
    rstd, channels = (var + eps).rsqrt(), rows.shape[1]
    centred = (rows - per_row(shift, index, channels)) - per_row(mean, index, channels)
    out = affine(centred * per_row(rstd, index, channels), index, weight, bias)
    out = out if residual is None else out + residual
    if activation != "none":
        out = out.relu() if activation == "relu" else nn.functional.leaky_relu(out, negative_slope)
    return out.to(rows.dtype).contiguous(), shift, mean, rstd


def backward(grad: Tensor, rows: Tensor, index: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor,
             row_weights: Tensor | None, weight: Tensor | None, bias: Tensor | None, groups: int,
             activation: str, negative_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of rows, weight and bias, the last two empty where there is none.

    grad_rows = rstd · (γg − w/W · (Σγg + x̂ · Σγg·x̂)), the sums over an instance's channel group,
    w the row's weight and W the group's. A one-row instance gives exactly 0.
    """
    instances, channels = shift.shape[0], rows.shape[1]
    centred = (rows - per_row(shift, index, channels)) - per_row(mean, index, channels)
    xhat = centred * per_row(rstd, index, channels)
    grad = grad.to(xhat.dtype)
    if activation != "none":
        slope = 0.0 if activation == "relu" else negative_slope
        grad = torch.where(affine(xhat, index, weight, bias) > 0, grad, slope * grad)
    sums = [pool(grad, index, instances), pool(grad * xhat, index, instances)]
    total = mass(index, instances, row_weights, channels // groups).to(xhat.dtype)
    gained = [s if weight is None else s * weight for s in sums]
    mean_grad, mean_grad_xhat = (
        per_row(grouped(s, groups) / total, index, channels) for s in gained
    )
    lost = mean_grad + xhat * mean_grad_xhat
    lost = lost if row_weights is None else lost * row_weights[:, None]
    grad_rows = (affine(grad, index, weight, None) - lost) * per_row(rstd, index, channels)
    grad_bias, grad_weight = (
        rows.new_empty(0) if p is None else (s if p.dim() == 2 else s.sum(0)).to(p.dtype)
        for p, s in zip((bias, weight), sums, strict=True)
    )
    return grad_rows.to(rows.dtype).contiguous(), grad_weight, grad_bias


def _reference_stats(
    rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None, groups: int
) -> tuple[Tensor, Tensor]:
    shift, mean, var = statistics(rows, index, num_instances, row_weights, groups)
    return shift + mean, var


define(_LIBRARY, SCHEMAS, (forward, backward, _reference_stats),
       "geonorm.ops.triton.segment_norm")


def _stats_like(rows: Tensor, num_instances: int, groups: int) -> Tensor:
    dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
    return rows.new_empty((num_instances, groups), dtype=dtype)


def _contiguous_like(rows: Tensor) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def _fake(rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None,
          weight: Tensor | None, bias: Tensor | None, groups: int, *_: Any
          ) -> tuple[Tensor, ...]:
    return _contiguous_like(rows), *(_stats_like(rows, num_instances, groups) for _ in range(3))


def _fake_backward(grad: Tensor, rows: Tensor, index: Tensor, shift: Tensor, mean: Tensor,
                   rstd: Tensor, row_weights: Tensor | None, weight: Tensor | None,
                   bias: Tensor | None, *_: Any) -> tuple[Tensor, ...]:
    gradients = (rows.new_empty(0) if p is None else _contiguous_like(p) for p in (weight, bias))
    return _contiguous_like(rows), *gradients


def _fake_stats(rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None,
                groups: int) -> tuple[Tensor, Tensor]:
    return _stats_like(rows, num_instances, groups), _stats_like(rows, num_instances, groups)


def _backward_twice(grad: Tensor, rows: Tensor, index: Tensor, num_instances: int,
                    row_weights: Tensor | None, weight: Tensor | None, bias: Tensor | None,
                    groups: int, eps: float, activation: str, negative_slope: float
                    ) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients in plain torch, where the statistics too depend on the rows."""
    shift, mean, var = statistics(rows, index, num_instances, row_weights, groups)
    return backward(grad, rows, index, shift, mean, (var + eps).rsqrt(), row_weights, weight, bias,
                    groups, activation, negative_slope)


class _Backward(Formula):
    """segment_norm_backward, which takes eps first; its formula takes the statistics anew."""

    @staticmethod
    def kernel(eps: float, *args: Any) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = torch.ops.geonorm.segment_norm_backward(*args)
        return gradients

    @staticmethod
    def formula(eps: float, grad: Tensor, rows: Tensor, index: Tensor, shift: Tensor, mean: Tensor,
                rstd: Tensor, row_weights: Tensor | None, weight: Tensor | None,
                bias: Tensor | None, groups: int, *tail: Any) -> tuple[Tensor, ...]:
        return _backward_twice(grad, rows, index, shift.shape[0], row_weights, weight, bias, groups,
                               eps, *tail)


class SegmentNorm(Norm):
    """segment_norm with its derivatives of every order and mode."""

    formula = staticmethod(forward)

    @staticmethod
    def kernel(*args: Any) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = torch.ops.geonorm.segment_norm(*args)
        return outputs

    @staticmethod
    def gradients(grad: Tensor, stats: Sequence[Tensor], *args: Any) -> tuple[Tensor | None, ...]:
        rows, index, _instances, row_weights, weight, bias, groups, eps, *tail = args
        grad_rows, grad_weight, grad_bias = _Backward.apply(
            eps, grad, rows, index, *stats, row_weights, weight, bias, groups, *tail)
        return (grad_rows, None, None, None, None if weight is None else grad_weight,
                None if bias is None else grad_bias, None, None, None, None)


def segment_norm(
    rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None,
    weight: Tensor | None, bias: Tensor | None, groups: int, eps: float, activation: str,
    negative_slope: float, residual: Tensor | None = None,
) -> Tensor:
    """Return act(x̂ · weight + bias + residual), also under the transforms of torch.func."""
    call = partial(under_transforms, SegmentNorm) if transforms_active() else _OPERATOR
    out: Tensor = call(rows, index, num_instances, row_weights, weight, bias, groups, eps,
                       activation, negative_slope, residual)[0]
    return out


class SegmentStats(Formula):
    """segment_stats with its derivatives of every order and mode."""

    formula = staticmethod(_reference_stats)

    @staticmethod
    def kernel(*args: Any) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = torch.ops.geonorm.segment_stats(*args)
        return outputs


def segment_stats(rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None,
                  groups: int) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (B, groups), also under the transforms of torch.func."""
    args = (rows, index, num_instances, row_weights, groups)
    if transforms_active():
        mean, var = under_transforms(SegmentStats, *args)
    else:
        mean, var = torch.ops.geonorm.segment_stats.default(*args)
    return mean, var


torch.library.register_fake("geonorm::segment_norm", _fake, lib=_LIBRARY)
torch.library.register_fake("geonorm::segment_norm_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_fake("geonorm::segment_stats", _fake_stats, lib=_LIBRARY)
define_derivative(
    _LIBRARY, "segment_norm", SegmentNorm,
    "segment_norm_backward_twice(Tensor grad, Tensor rows, Tensor index, SymInt num_instances, "
    "Tensor? row_weights, Tensor? weight, Tensor? bias, int groups, float eps, str activation, "
    "float negative_slope) -> (Tensor grad_rows, Tensor grad_weight, Tensor grad_bias)",
    _backward_twice,
)
derive(_LIBRARY, "segment_stats", SegmentStats)
_OPERATOR = torch.ops.geonorm.segment_norm.default  # looking it up takes as long as the checks
