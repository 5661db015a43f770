"""Batches for the tests of segment_norm, and the same norm by torch's own."""

import torch
import torch.nn.functional as F
from conftest import TOLERANCES

from geonorm.ops import segment_norm as operator

FLOAT32 = TOLERANCES["float32 against float64"]
FLOAT64 = TOLERANCES["float64 against float64"]
SIZES = (7, 0, 1, 40, 3, 12, 0)  # rows per instance, empty ones in the middle and at the end


def segment_norm(rows, index, instances, weight=None, bias=None, row_weights=None, groups=None,
                 eps=1e-5, activation="none", slope=0.01, residual=None):
    return operator.segment_norm(
        rows, index, instances, row_weights, weight, bias, groups or rows.shape[1], eps, activation,
        slope, residual)


def by_torch(rows, index, instances, weight=None, bias=None, row_weights=None, groups=None,
             eps=1e-5, activation="none", slope=0.01, residual=None):
    """Do the same by F.instance_norm, one instance after the other; weights are repetitions."""
    out = torch.zeros_like(rows)
    for instance in range(instances):
        mine = (index == instance).nonzero().flatten()
        times = torch.ones_like(mine) if row_weights is None else row_weights[mine].long()
        lines = rows[mine].unflatten(1, (groups or rows.shape[1], -1)).permute(1, 0, 2)
        if int(times.sum()) * lines.shape[2] > 1:  # torch refuses one row, of which nothing is left
            repeated = lines.repeat_interleave(times, 1)
            normed = F.instance_norm(repeated.flatten(1)[None], eps=eps).view(repeated.shape)
            kept = normed[:, times.cumsum(0) - times]
            out = out.index_put((mine,), kept.permute(1, 0, 2).flatten(1))
    for parameter, apply in ((weight, torch.mul), (bias, torch.add)):
        if parameter is not None:
            out = apply(out, parameter[index] if parameter.dim() == 2 else parameter)
    out = out if residual is None else out + residual
    return {"none": out, "relu": F.relu(out), "leaky_relu": F.leaky_relu(out, slope)}[activation]


def batch(sizes=SIZES, channels=5, mean=0.0, dtype=torch.float32, seed=1, interleaved=True):
    """Return rows (N, C) and the instance of each."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    if interleaved:
        index = index[torch.randperm(len(index), generator=generator)]
    rows = torch.randn(len(index), channels, generator=generator, dtype=dtype) + mean
    return rows, index


def parameters(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2)]


def upstream_of(rows, seed=2**32 - 1):  # no batch's: rows as gradient leave nothing
    return torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed), dtype=rows.dtype)


def results(function, rows, index, instances, weight, bias, upstream, residual=None, **options):
    """Return the output and the gradients of rows, weight, bias and residual under one upstream."""
    inputs = [t.detach().requires_grad_() for t in (rows, weight, bias)]
    if residual is not None:
        inputs.append(residual.detach().requires_grad_())
        options["residual"] = inputs[3]
    out = function(inputs[0], index, instances, *inputs[1:3], **options)
    return out, *torch.autograd.grad(out, inputs, upstream)


def exact_results(rows, index, instances, weight, bias, upstream, **options):
    """Return what float64 arithmetic by torch gives for the same values."""
    doubles = (None if t is None else t.double()
               for t in (weight, bias, upstream, options.pop("residual", None)))
    return results(by_torch, rows.double(), index, instances, *doubles, **options)


def with_affine(norm, dtype=torch.float32):
    """Give a norm parameters that are none of them their default."""
    weight, bias = parameters(norm.num_features, dtype)
    norm.load_state_dict({"weight": weight, "bias": bias})
    return norm
