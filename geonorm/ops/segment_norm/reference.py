"""The law of segment_norm in plain torch: what every kernel computes and is tested against."""

import torch
from torch import Tensor, nn


def per_row(stats: Tensor, index: Tensor, channels: int) -> Tensor:  # (B, groups) -> (N, C)
    return stats.repeat_interleave(channels // stats.shape[1], 1).index_select(0, index)


def pool(x: Tensor, index: Tensor, num_instances: int) -> Tensor:  # (N, C) -> (B, C)
    chunks = len(x) // 4096 + 1  # summed apart, then together: one long float32 sum loses digits
    slot = index * chunks + torch.arange(len(x), device=x.device) // 4096
    sums = x.new_zeros(num_instances * chunks, x.shape[1]).index_add(0, slot, x)
    return sums.view(num_instances, chunks, x.shape[1]).sum(1)


def grouped(sums: Tensor, groups: int) -> Tensor:  # (B, C) -> (B, groups)
    return sums.view(len(sums), groups, sums.shape[1] // groups).sum(2)


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
            negative_slope: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shift, mean, var = statistics(rows, index, num_instances, row_weights, groups)
    rstd, channels = (var + eps).rsqrt(), rows.shape[1]
    centred = (rows - per_row(shift, index, channels)) - per_row(mean, index, channels)
    out = affine(centred * per_row(rstd, index, channels), index, weight, bias)
    if activation != "none":
        out = out.relu() if activation == "relu" else nn.functional.leaky_relu(out, negative_slope)
    return out.to(rows.dtype).contiguous(), shift, mean, rstd
