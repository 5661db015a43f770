"""Numbers that tell what a norm meets in a batch."""

from typing import Any

import torch
from torch import Tensor

from geonorm.inputs import read
from geonorm.pooling import moments


def effective_sample_size(
    x: Any, batch_index: Tensor | None = None, num_instances: int | None = None
) -> Tensor:
    """Return how many independent positions are worth as much as a batch, for each channel.

    Batch norm averages over all positions of a batch, but those of one clip or scan are alike. Its
    mean varies from batch to batch as the mean of n_eff independent positions would:

        n_eff = B σ² / Var(m)

    with σ² the variance of a position over the whole batch, where every instance counts the same,
    and Var(m) the (unbiased) variance of the B instances' means. It is an estimate from B
    instances, so give it many more than a training batch has, and scale: a batch of b is worth
    n_eff b / B.

    Args:
        x: a dense tensor, rows or any sparse kind.
        batch_index: the instance of each row, for rows alone.
        num_instances: instances in the batch; needed for rows on CUDA.

    Shape:
        (B, C, …) or rows (N, C) -> (C,), infinite where all instances have the same mean

    Raises:
        ValueError: fewer than two instances, or one without positions.
        TypeError: x is of no known kind, or not floating point.

    From cluster sampling (Kish, 1965), where it is the sample size over the design effect.

    >>> still = torch.randn(100, 1, 1, 1).expand(100, 1, 8, 8)  # one value in each picture
    >>> round(effective_sample_size(still).item())
    99
    """
    given = read(x, batch_index, num_instances)
    if given.num_instances < 2:
        raise ValueError(
            f"expected two instances or more, whose means can differ; got {given.num_instances}"
        )
    if given.instance is None:
        empty = given.features.numel() == 0
    else:
        empty = bool((torch.bincount(given.instance, minlength=given.num_instances) == 0).any())
    if empty:
        raise ValueError("expected positions in every instance; got an empty one: leave it out")
    mean, var = moments(given)
    between = mean.var(0)
    total = var.mean(0) + mean.var(0, correction=0)
    return torch.where(between > 0, len(mean) * total / between, torch.inf)
