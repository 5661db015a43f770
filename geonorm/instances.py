"""Normalization over instances, whatever the input is: dense tensors and every sparse kind."""

from typing import Any

import torch
from torch import Tensor

from geonorm import checks
from geonorm.functional import Activation, axis_instance_norm, normalize_rows
from geonorm.ops import axis_norm as _dense
from geonorm.sparse import features_of, layout_of, with_features


def is_dense(x: Any) -> bool:
    """Return whether x is a dense tensor, whose shape says which instance an element belongs to."""
    return isinstance(x, Tensor)


def check_channels(x: Any, num_features: int, norm: object) -> Tensor:
    """Return the features of x, (N, C) or (B, C, …), once they are known to fit.

    Raises:
        ValueError: another number of channels, or a matrix without the instances of its rows.
        TypeError: not floating point, or of no known kind.
    """
    name = type(norm).__name__
    features = x if is_dense(x) else features_of(x)
    if is_dense(x) and x.ndim < 3:
        raise ValueError(
            f"{name} takes a dense tensor (B, C, …) of 3 or more dimensions; got {tuple(x.shape)}. "
            "For rows (N, C) say which instance each belongs to: (features, batch_index)"
        )
    if not features.is_floating_point():
        raise TypeError(f"features must be floating point; got {features.dtype}. Use x.float()")
    if features.ndim >= 2 and features.shape[1] != num_features:
        shape = f"(B, {num_features}, …)" if is_dense(x) else f"(N, {num_features})"
        raise ValueError(
            f"features must be {shape}; got {tuple(features.shape)}. Did you mean "
            f"{name}({features.shape[1]})?"
        )
    return features


def normalize(
    x: Any,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation = "none",
    negative_slope: float = 0.01,
    num_instances: int | None = None,
    point_weights: Tensor | None = None,
) -> Any:
    """Normalize every channel over the positions of each instance; return the kind that came."""
    tail: dict[str, Any] = {"activation": activation, "negative_slope": negative_slope}
    if is_dense(x):
        if point_weights is not None:
            raise TypeError("point_weights weigh rows; a dense tensor has none")
        return axis_instance_norm(
            x, axes=range(2, x.ndim), weight=weight, bias=bias, eps=eps, **tail
        )
    layout = layout_of(x, num_instances)
    out = normalize_rows(
        features_of(x), layout.index, layout.num_instances, weight=weight, bias=bias,
        point_weights=point_weights, eps=eps, **tail,
    )
    return with_features(x, out)


def normalize_groups(
    x: Any, groups: int, *, weight: Tensor | None, bias: Tensor | None, eps: float,
    num_instances: int | None = None,
) -> Any:
    """Normalize each group of channels over the positions of each instance together."""
    if not is_dense(x):
        layout, rows = layout_of(x, num_instances), features_of(x)
        weight, bias = (
            checks.per_channel(name, value, rows, layout.num_instances)
            for name, value in (("weight", weight), ("bias", bias))
        )
        out: Tensor = torch.ops.geonorm.segment_norm(
            rows, layout.index, layout.num_instances, None, weight, bias, groups, eps, "none", 0.0
        )[0]
        return with_features(x, out)
    # The operator takes its parameters per channel of what it normalizes, here the groups.
    wide = x.to(checks.statistics_dtype(x))
    parts = wide.unflatten(1, (groups, -1))
    normed = axis_instance_norm(parts, axes=range(2, parts.ndim), eps=eps).flatten(1, 2)
    return _dense.affine(normed, weight, bias).to(x.dtype)


def moments(x: Any, num_instances: int | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel of each instance, (B, C), differentiable.

    They are float32, or float64 for float64 x. An instance without rows has mean and variance 0.
    """
    if is_dense(x):
        shift, mean, var = _dense.moments(x, [*range(2, x.ndim)])
        return (shift + mean).flatten(1), var.flatten(1)
    layout, rows = layout_of(x, num_instances), features_of(x)
    mean, var = torch.ops.geonorm.segment_stats(
        rows, layout.index, layout.num_instances, None, rows.shape[1]
    )
    return mean, var


def laid_out_as(x: Tensor, out: Tensor) -> Tensor:
    """Return out in the memory format of x, copied where it has another."""
    return out if out.stride() == x.stride() else torch.empty_like(x).copy_(out)


def spread(values: Tensor, x: Any, num_instances: int | None = None) -> Tensor:
    """Return values (B, C) at every position of x: (N, C) for rows, (B, C, 1, …) for dense x."""
    if is_dense(x):
        return values.reshape(*values.shape, *(1,) * (x.ndim - 2))
    return values.index_select(0, layout_of(x, num_instances).index)
