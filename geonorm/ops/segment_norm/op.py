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
- it must raise IndexError, or skip the row, where index lies outside [0, num_instances).
"""

from typing import Any

import torch
from torch import Tensor

from geonorm.ops.backends import define, define_derivative
from geonorm.ops.segment_norm import reference
from geonorm.ops.segment_norm.backward import backward

SCHEMAS = (
    "segment_norm(Tensor rows, Tensor index, SymInt num_instances, Tensor? row_weights, "
    "Tensor? weight, Tensor? bias, int groups, float eps, str activation, float negative_slope) "
    "-> (Tensor out, Tensor shift, Tensor mean, Tensor rstd)",
    "segment_norm_backward(Tensor grad, Tensor rows, Tensor index, Tensor shift, Tensor mean, "
    "Tensor rstd, Tensor? row_weights, Tensor? weight, Tensor? bias, int groups, str activation, "
    "float negative_slope) -> (Tensor grad_rows, Tensor grad_weight, Tensor grad_bias)",
    "segment_stats(Tensor rows, Tensor index, SymInt num_instances, Tensor? row_weights, "
    "int groups) -> (Tensor mean, Tensor var)",
)
_LIBRARY = torch.library.Library("geonorm", "FRAGMENT")


def _reference_stats(
    rows: Tensor, index: Tensor, num_instances: int, row_weights: Tensor | None, groups: int
) -> tuple[Tensor, Tensor]:
    shift, mean, var = reference.statistics(rows, index, num_instances, row_weights, groups)
    return shift + mean, var


define(_LIBRARY, SCHEMAS, (reference.forward, backward, _reference_stats),
       "geonorm.ops.segment_norm.triton")


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


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, index, _, row_weights, weight, bias, groups, eps, activation, negative_slope = inputs
    ctx.save_for_backward(rows, index, *output[1:], row_weights, weight, bias)
    ctx.mark_non_differentiable(*output[1:])
    ctx.eps, ctx.options = eps, (groups, activation, negative_slope)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    rows, index, *stats, row_weights, weight, bias = ctx.saved_tensors
    parameters, (groups, *tail) = (row_weights, weight, bias), ctx.options
    if torch.is_grad_enabled():  # create_graph
        gradients = _backward_twice(
            grad, rows, index, len(stats[0]), *parameters, groups, ctx.eps, *tail
        )
    else:
        gradients = torch.ops.geonorm.segment_norm_backward(
            grad, rows, index, *stats, *parameters, groups, *tail
        )
    grad_rows, grad_weight, grad_bias = gradients
    return (grad_rows, None, None, None, None if weight is None else grad_weight,
            None if bias is None else grad_bias, None, None, None, None)


def _backward_twice(grad: Tensor, rows: Tensor, index: Tensor, num_instances: int,
                    row_weights: Tensor | None, weight: Tensor | None, bias: Tensor | None,
                    groups: int, eps: float, activation: str, negative_slope: float
                    ) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients in plain torch, where the statistics too depend on the rows."""
    shift, mean, var = reference.statistics(rows, index, num_instances, row_weights, groups)
    return backward(grad, rows, index, shift, mean, (var + eps).rsqrt(), row_weights, weight, bias,
                    groups, activation, negative_slope)


def _keep_stats(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, index, ctx.num_instances, row_weights, ctx.groups = inputs
    ctx.save_for_backward(rows, index, row_weights)


def _stats_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    rows, index, row_weights = ctx.saved_tensors
    with torch.enable_grad():
        leaf = rows.view_as(rows).requires_grad_()
        outputs = _reference_stats(leaf, index, ctx.num_instances, row_weights, ctx.groups)
    (grad_rows,) = torch.autograd.grad(outputs, leaf, grads, create_graph=torch.is_grad_enabled())
    return grad_rows, None, None, None, None


torch.library.register_fake("geonorm::segment_norm", _fake, lib=_LIBRARY)
torch.library.register_fake("geonorm::segment_norm_backward", _fake_backward, lib=_LIBRARY)
torch.library.register_fake("geonorm::segment_stats", _fake_stats, lib=_LIBRARY)
define_derivative(
    _LIBRARY, "segment_norm", _keep, _backward,
    "segment_norm_backward_twice(Tensor grad, Tensor rows, Tensor index, SymInt num_instances, "
    "Tensor? row_weights, Tensor? weight, Tensor? bias, int groups, float eps, str activation, "
    "float negative_slope) -> (Tensor grad_rows, Tensor grad_weight, Tensor grad_bias)",
    _backward_twice,
)
torch.library.register_autograd(
    "geonorm::segment_stats", _stats_backward, setup_context=_keep_stats, lib=_LIBRARY
)
