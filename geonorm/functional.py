"""One function per operator: it checks its input and calls the operator; no parameters, no math."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from geonorm.ops.axis_norm import op as _axis_norm  # noqa: F401 (registers the operator)

Activation = Literal["none", "relu", "leaky_relu"]
ACTIVATIONS = ("none", "relu", "leaky_relu")


def axis_instance_norm(
    x: Tensor,
    *,
    axes: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation = "none",
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalize a dense tensor over any of its axes, each instance and channel by itself.

        y = act((x − mean) / √(var + eps) · weight + bias)

    The mean and the biased variance are taken over `axes`, separately for each index of every other
    dimension. The output has the dtype and the memory format of `x`; statistics are float32, or
    float64 for float64 `x`.

    Args:
        x: floating point, batch first, channels second.
        axes: the dimensions to normalize over, each from 2 on (or counted from the end).
        weight: multiplies each channel, (C,), or each channel of each instance, (B, C).
        bias: is added to each channel, (C,) or (B, C).
        eps: added to the variance.
        activation: what follows in the same pass: "none", "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        x (B, C, …) -> (B, C, …); B may be 0

    Raises:
        ValueError: for a shape, axis, eps or activation that does not fit, or an empty axis.
        TypeError: where x is not floating point.

    An instance of one element, or of equal ones, gives the bias and zero gradients.

    From instance normalization (Ulyanov et al., 2016).

    >>> clip = torch.randn(2, 3, 8, 16, 16)
    >>> out = axis_instance_norm(clip, axes=(2, 3, 4))
    >>> torch.allclose(axis_instance_norm(clip * 5 + 2, axes=(2, 3, 4)), out, atol=1e-4)
    True
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point; got {x.dtype}. Convert it first: x.float()")
    if x.ndim < 3:
        raise ValueError(f"x must be (B, C, …) with 3 or more dimensions; got {tuple(x.shape)}")
    dims = _dims(x, axes)
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight, bias = (
        _per_channel(name, parameter, x, dtype)
        for name, parameter in (("weight", weight), ("bias", bias))
    )
    _check_tail(eps, activation)
    out: Tensor = torch.ops.geonorm.axis_norm(
        x, dims, weight, bias, eps, activation, negative_slope
    )[0]
    return out


def _dims(x: Tensor, axes: int | Sequence[int]) -> list[int]:
    """Return the axes ascending and counted from the front, each from 2 on and not empty."""
    given = [axes] if isinstance(axes, int) else [*axes]
    dims = sorted(axis + x.ndim if axis < 0 else axis for axis in given)
    if not dims or dims[0] < 2 or dims[-1] >= x.ndim or len({*dims}) != len(dims):
        raise ValueError(
            f"axes must be one or more of the dimensions 2 to {x.ndim - 1}, each once; got {axes} "
            f"for x of shape {tuple(x.shape)}"
        )
    for dim in dims:
        if x.shape[dim] == 0:
            raise ValueError(
                f"there is nothing to normalize along axis {dim}: x has shape {tuple(x.shape)}"
            )
    return dims


def _per_channel(
    name: str, parameter: Tensor | None, x: Tensor, dtype: torch.dtype
) -> Tensor | None:
    """Return weight or bias contiguous in the statistics' dtype, (C,) or (B, C)."""
    if parameter is None:
        return None
    if parameter.shape not in (x.shape[1:2], x.shape[:2]):
        raise ValueError(
            f"{name} must be (C,) = {tuple(x.shape[1:2])} or (B, C) = {tuple(x.shape[:2])}; got "
            f"{tuple(parameter.shape)}"
        )
    if parameter.device != x.device:
        raise ValueError(f"{name} is on {parameter.device} and x on {x.device}; move one of them")
    return parameter.to(dtype).contiguous()


def _check_tail(eps: float, activation: str) -> None:
    """Refuse an eps that is not positive and an activation that does not exist."""
    if not eps > 0:
        raise ValueError(f"eps must be positive; got {eps}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}; got {activation!r}")
