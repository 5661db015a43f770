"""The derivative of segment_norm's reference, in plain torch and itself differentiable."""

import torch
from torch import Tensor

from geonorm.ops.segment_norm.reference import affine, grouped, mass, per_row, pool


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
