"""The law of axis_norm in plain torch: what every kernel computes and is tested against."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
            activation: str, negative_slope: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return act((x − mean) · rstd · weight + bias) and the statistics that the backward needs."""
    shift, mean, rstd = statistics(x, axes, eps)
    out = affine(((x - shift) - mean) * rstd, weight, bias)
    if activation != "none":
        out = out.relu() if activation == "relu" else F.leaky_relu(out, negative_slope)
    return out.to(x.dtype), shift, mean, rstd
