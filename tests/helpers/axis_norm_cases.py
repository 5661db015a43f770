"""Inputs of every layout for the tests of axis_norm, and the same norm by torch's own."""

from itertools import combinations

import torch
import torch.nn.functional as F
from conftest import TOLERANCES

from geonorm.ops import axis_norm as operator

SHAPE = (3, 5, 4, 6, 7)
AXES = [list(axes) for size in (1, 2, 3) for axes in combinations((2, 3, 4), size)]
FLOAT32 = TOLERANCES["float32 against float64"]
FLOAT64 = TOLERANCES["float64 against float64"]


def axis_norm(x, axes, weight=None, bias=None, eps=1e-5, activation="none", slope=0.01,
              residual=None):
    return operator.axis_norm(x, axes, weight, bias, eps, activation, slope, residual)


def by_torch(x, axes, weight=None, bias=None, eps=1e-5, activation="none", slope=0.01,
             residual=None):
    """Do the same by F.instance_norm: the kept axes become instances, the others one line."""
    kept = [dim for dim in range(x.ndim) if dim not in axes]
    order = kept + axes
    lines = x.permute(order)
    out = F.instance_norm(lines.reshape(1, -1, lines[(0,) * len(kept)].numel()), eps=eps)
    out = out.reshape(lines.shape).permute([order.index(dim) for dim in range(x.ndim)])
    if weight is not None:
        out = out * weight.reshape(-1, x.shape[1], *(1,) * (x.ndim - 2))
    if bias is not None:
        out = out + bias.reshape(-1, x.shape[1], *(1,) * (x.ndim - 2))
    out = out if residual is None else out + residual
    return {"none": out, "relu": F.relu(out), "leaky_relu": F.leaky_relu(out, slope)}[activation]


def with_layout(layout, mean=0.0, dtype=torch.float32):
    """Return a (3, 5, 4, 6, 7) tensor of the wanted strides."""
    generator = torch.Generator().manual_seed(1)
    b, c, t, h, w = SHAPE
    wide = torch.randn(b, 2 * c, t, h, 2 * w, generator=generator, dtype=dtype) + mean
    return {
        "contiguous": lambda: wide[:, :c, ..., :w].contiguous(),
        "channels_last_3d": lambda: wide[:, :c, ..., :w].contiguous(
            memory_format=torch.channels_last_3d),
        "sliced": lambda: wide[:, ::2, ..., 1::2],
        "sliced channels_last_3d": lambda: wide.contiguous(
            memory_format=torch.channels_last_3d)[:, ::2, ..., 1::2],
        "permuted": lambda: wide[:, :c, ..., :w].transpose(1, 3).contiguous().transpose(1, 3),
        "expanded": lambda: wide[:1, :c, ..., :w].expand(SHAPE),
    }[layout]()


LAYOUTS = [
    "contiguous", "channels_last_3d", "sliced", "sliced channels_last_3d", "permuted", "expanded"
]


def parameters(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)]


def results(function, x, axes, weight, bias, upstream, residual=None, **options):
    """Return the output and the gradients of x, weight, bias and residual under one upstream."""
    inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
    if residual is not None:
        inputs.append(residual.detach().requires_grad_())
        options["residual"] = inputs[3]
    out = function(inputs[0], axes, *inputs[1:3], **options)
    return out, *torch.autograd.grad(out, inputs, upstream)
