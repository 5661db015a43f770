"""The derivative of axis_norm's reference, in plain torch and itself differentiable."""

import torch
from torch import Tensor

from geonorm.ops.axis_norm.reference import affine, per_channel


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
