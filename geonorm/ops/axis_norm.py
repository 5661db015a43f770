"""axis_norm and its backward as torch operators: schema, fakes, autograd.

The schemas live here. The kernel registered for every device is a Python function that asks
backends.backend_for which one runs; geonorm._C, when built, registers its own for the CPU.
Beyond the schema, a kernel may rely on:

- x is (B, C, …) with at least 3 dimensions, B possibly 0; axes are distinct, ascending, 2 or more,
  and none of them has size 0; x and grad may have any strides, overlapping (expanded) ones too.
- weight and bias are (C,) or (B, C) and have the statistics' dtype, float32 or, for float64 x,
  float64; they are contiguous.
- out and grad_x are laid out as at::empty_like(x) would be, each statistic as at::empty_like of x
  narrowed to its first element along every axis; so dense strides and channels_last formats stay.
- shift is any number among the instance's values, such as that first element or one near their
  mean; mean is the mean of x − shift; x̂ = ((x − shift) − mean) · rstd.
- grad_weight and grad_bias are shaped as weight and bias; empty, shape (0,), where those are None.
- residual has the shape and dtype of x and any strides; it is added before the activation, in the
  statistics' dtype. Before a leaky_relu it asks for negative_slope ≥ 0: the gradient is then taken
  from the sign of the result.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geonorm.ops.backends import define
from geonorm.ops.derivatives import (
    Formula,
    Norm,
    define_derivative,
    transforms_active,
    under_transforms,
)

SCHEMAS = (
    "axis_norm(Tensor x, int[] axes, Tensor? weight, Tensor? bias, float eps, str activation, "
    "float negative_slope, Tensor? residual=None) "
    "-> (Tensor out, Tensor shift, Tensor mean, Tensor rstd)",
    "axis_norm_backward(Tensor grad, Tensor x, Tensor shift, Tensor mean, Tensor rstd, int[] axes, "
    "Tensor? weight, Tensor? bias, str activation, float negative_slope) "
    "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
)
_LIBRARY = torch.library.Library("geonorm", "FRAGMENT")


def first(x: Tensor, axes: list[int]) -> Tensor:
    """Return the first element of each instance, a view of x with the axes at size 1."""
    for axis in axes:
        x = x.narrow(axis, 0, 1)
    return x


def moments(x: Tensor, axes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return one element of each instance, the mean of what exceeds it, and the biased variance."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    shift = first(x, axes).detach().clone()
    mean = (x - shift).mean(axes, keepdim=True)
    return shift, mean, ((x - shift) - mean).square().mean(axes, keepdim=True)


def statistics(x: Tensor, axes: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return one element of each instance, the mean of what exceeds it, and 1/√(variance + eps)."""
    shift, mean, var = moments(x, axes)
    return shift, mean, (var + eps).rsqrt()


def per_channel(parameter: Tensor, x: Tensor) -> Tensor:  # (C,) or (B, C) -> (1 or B, C, 1, …)
    return parameter.to(x.dtype).reshape(-1, x.shape[1], *(1,) * (x.ndim - 2))


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * per_channel(weight, x)
    return x if bias is None else x + per_channel(bias, x)


def forward(x: Tensor, axes: list[int], weight: Tensor | None, bias: Tensor | None, eps: float,
            activation: str, negative_slope: float, residual: Tensor | None = None
            ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return act(x̂ · weight + bias + residual) and the statistics that the backward needs."""
    shift, mean, rstd = statistics(x, axes, eps)
    out = affine(((x - shift) - mean) * rstd, weight, bias)
    out = out if residual is None else out + residual
    if activation != "none":
        out = out.relu() if activation == "relu" else F.leaky_relu(out, negative_slope)
    return out.to(x.dtype), shift, mean, rstd


def backward(grad: Tensor, x: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor,
             axes: list[int], weight: Tensor | None, bias: Tensor | None, activation: str,
             negative_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias, the last two empty where there is none.

    grad_x = rstd · (γg − mean(γg) − x̂ · mean(γg · x̂)), the means over an instance's axes.
    """
    xhat = ((x - shift) - mean) * rstd
    grad = grad.to(xhat.dtype)
    if activation != "none":
        slope = 0.0 if activation == "relu" else negative_slope
        grad = torch.where(affine(xhat, weight, bias) > 0, grad, slope * grad)
    gained = affine(grad, weight, None)
    lost = xhat * (gained * xhat).mean(axes, keepdim=True)
    grad_x = (gained - gained.mean(axes, keepdim=True) - lost) * rstd
    grad_weight, grad_bias = (
        x.new_empty(0) if parameter is None
        else each.sum_to_size(per_channel(parameter, each).shape).view_as(parameter)
        for parameter, each in ((weight, grad * xhat), (bias, grad))
    )
    return grad_x.to(x.dtype), grad_weight, grad_bias


def outputs_like(x: Tensor, axes: list[int]) -> tuple[Tensor, ...]:
    """Return empty tensors with the shapes, dtypes and layouts of axis_norm's four outputs."""
    element = first(x, axes)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.empty_like(x), *(torch.empty_like(element, dtype=dtype) for _ in range(3))


def gradients_like(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    """Return empty tensors with the shapes, dtypes and layouts of the three gradients."""
    parameters = (x.new_empty(0) if p is None else torch.empty_like(p) for p in (weight, bias))
    return torch.empty_like(x), *parameters


def _laid_out(results: Sequence[Tensor], templates: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the results, those with other strides than their templates copied into these."""
    pairs = zip(results, templates, strict=True)
    return tuple(r if r.stride() == t.stride() else t.copy_(r) for r, t in pairs)


def _plain(x: Tensor, axes: list[int], *rest: Any) -> tuple[Tensor, ...]:
    return _laid_out(forward(x, axes, *rest), outputs_like(x, axes))


def _plain_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    *_, weight, bias, _activation, _slope = rest
    return _laid_out(backward(grad, x, *rest), gradients_like(x, weight, bias))


define(_LIBRARY, SCHEMAS, (_plain, _plain_backward), "geonorm.ops.triton.axis_norm")


def _fake(x: Tensor, axes: list[int], *_: Any) -> tuple[Tensor, ...]:
    return outputs_like(x, axes)


def _fake_backward(grad: Tensor, x: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor,
                   axes: list[int], weight: Tensor | None, bias: Tensor | None,
                   *_: Any) -> tuple[Tensor, ...]:
    return gradients_like(x, weight, bias)


def _backward_twice(grad: Tensor, x: Tensor, axes: list[int], weight: Tensor | None,
                    bias: Tensor | None, eps: float, activation: str, negative_slope: float
                    ) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients in plain torch, where the statistics too depend on x."""
    stats = statistics(x, axes, eps)
    return backward(grad, x, *stats, axes, weight, bias, activation, negative_slope)


class _Backward(Formula):
    """axis_norm_backward, which takes eps first; its formula takes the statistics anew."""

    @staticmethod
    def kernel(eps: float, grad: Tensor, x: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor,
               axes: Sequence[int], *rest: Any) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = torch.ops.geonorm.axis_norm_backward(
            grad, x, shift, mean, rstd, [*axes], *rest)
        return gradients

    @staticmethod
    def formula(eps: float, grad: Tensor, x: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor,
                axes: Sequence[int], weight: Tensor | None, bias: Tensor | None, *tail: Any
                ) -> tuple[Tensor, ...]:
        return _backward_twice(grad, x, [*axes], weight, bias, eps, *tail)


class AxisNorm(Norm):
    """axis_norm with its derivatives of every order and mode."""

    @staticmethod
    def kernel(x: Tensor, axes: Sequence[int], *rest: Any) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = torch.ops.geonorm.axis_norm(x, [*axes], *rest)
        return outputs

    @staticmethod
    def formula(x: Tensor, axes: Sequence[int], *rest: Any) -> tuple[Tensor, ...]:
        return forward(x, [*axes], *rest)

    @staticmethod
    def gradients(grad: Tensor, stats: Sequence[Tensor], *args: Any) -> tuple[Tensor | None, ...]:
        x, axes, weight, bias, eps, *tail = args
        grad_x, grad_weight, grad_bias = _Backward.apply(
            eps, grad, x, *stats, axes, weight, bias, *tail)
        return (grad_x, None, None if weight is None else grad_weight,
                None if bias is None else grad_bias, None, None, None)


def axis_norm(
    x: Tensor, axes: list[int], weight: Tensor | None, bias: Tensor | None, eps: float,
    activation: str, negative_slope: float, residual: Tensor | None = None,
) -> Tensor:
    """Return act(x̂ · weight + bias + residual), also under the transforms of torch.func."""
    tail = (weight, bias, eps, activation, negative_slope, residual)
    if transforms_active():  # which take lists apart, and bytes not
        out: Tensor = under_transforms(AxisNorm, x, bytes(axes), *tail)[0]
    else:
        out = _OPERATOR(x, axes, *tail)[0]
    return out


torch.library.register_fake("geonorm::axis_norm", _fake, lib=_LIBRARY)
torch.library.register_fake("geonorm::axis_norm_backward", _fake_backward, lib=_LIBRARY)
define_derivative(
    _LIBRARY, "axis_norm", AxisNorm,
    "axis_norm_backward_twice(Tensor grad, Tensor x, int[] axes, Tensor? weight, Tensor? bias, "
    "float eps, str activation, float negative_slope) "
    "-> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    _backward_twice,
)
_OPERATOR = torch.ops.geonorm.axis_norm.default  # looking it up takes as long as the checks
