"""Numbers that tell what a norm meets in a batch, and what it takes out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.inputs import read
from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.domain_norm import DomainInstanceNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.pooling import moments
from geonorm.style import StyleStatistics


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


def _takes_out(module: nn.Module) -> bool:
    """Return whether a norm takes the statistics of each instance and channel out."""
    if isinstance(module, InstanceBatchNorm):
        return module.instance is not None
    ours = InstanceNorm | AxisInstanceNorm | DomainInstanceNorm
    return isinstance(module, ours | nn.modules.instancenorm._InstanceNorm)


def _statistics(module: nn.Module, x: Any, *others: Any, **options: Any) -> StyleStatistics:
    eps = float(getattr(module, "eps", 0.0))
    if isinstance(module, AxisInstanceNorm):
        batch = module._ordered(x).detach().to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(batch, module._axes, correction=0, keepdim=True)
        rest = [axis for axis in range(2, batch.ndim) if axis not in module._axes]
        shape = [batch.shape[axis] for axis in (0, 1, *rest)]
        return StyleStatistics(mean.reshape(shape), (var + eps).sqrt().reshape(shape))
    index = others[0] if others and isinstance(others[0], Tensor) else None
    given = read(x, options.get("batch_index", index), options.get("num_instances"))
    if isinstance(module, InstanceBatchNorm) and module.instance is not None:
        given = given.with_features(given.features[:, : module.instance.num_features])
    mean, var = moments(given.with_features(given.features.detach()))
    return StyleStatistics(mean, (var + eps).sqrt())


@contextmanager
def removed_statistics(model: nn.Module) -> Iterator[dict[str, StyleStatistics]]:
    """Record what each instance norm of a model takes out of each instance, in the block.

    A norm subtracts the mean of a channel and divides by its deviation √(var + eps): these are what
    adaptive instance norm calls the style of an instance. Each call of the model replaces what is
    recorded. Of `InstanceBatchNorm` it is the channels under instance norm; a batch norm takes the
    same out of every instance, and is not recorded.

    Args:
        model: with norms of geonorm's or torch's that take each instance's statistics out.

    Yields:
        Statistics by the name of the norm in the model, empty before the first call.

    Shape:
        mean and std: (B, C), and with `axes` that leave some out, such as "HW", (B, C, T)

    Raises:
        ValueError: the model has no such norm.

    From arbitrary style transfer (Huang and Belongie, 2017).

    >>> from geonorm import InstanceNorm
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), InstanceNorm(8))
    >>> with removed_statistics(model) as removed:
    ...     _ = model(torch.randn(2, 3, 16, 16))
    >>> {name: tuple(each.mean.shape) for name, each in removed.items()}
    {'1': (2, 8)}
    """
    norms = {name: module for name, module in model.named_modules() if _takes_out(module)}
    inner = {name for name in norms for outer in norms if name.startswith(f"{outer}.")}
    norms = {name: module for name, module in norms.items() if name not in inner}
    if not norms:
        raise ValueError(
            "expected a model with instance norms, which take an instance's statistics out; got "
            f"{type(model).__name__}, which has none"
        )
    removed: dict[str, StyleStatistics] = {}

    def recorder(name: str) -> Any:
        def record(module: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> None:
            removed[name] = _statistics(module, *given, **options)

        return record

    handles = [
        module.register_forward_pre_hook(recorder(name), with_kwargs=True)
        for name, module in norms.items()
    ]
    try:
        yield removed
    finally:
        for handle in handles:
            handle.remove()
