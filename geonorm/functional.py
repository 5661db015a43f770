"""One function per operator: it checks its input and calls the operator; no parameters, no math."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

import geonorm.ops.axis_norm
import geonorm.ops.segment_norm  # noqa: F401 (registers the operator)
from geonorm import checks

Activation = Literal["none", "relu", "leaky_relu"]
ACTIVATIONS = ("none", "relu", "leaky_relu")


def sparse_instance_norm(
    features: Tensor,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    offsets: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    point_weights: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation = "none",
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalize the rows of each instance, channel by channel, by that instance's own statistics.

        y = act((x − mean) / √(var + eps) · weight + bias)

    The mean and the biased variance are taken over the rows of an instance, each row counting by
    its point weight. Rows may come in any order. The output is contiguous in the dtype of
    `features`; statistics are float32, or float64 for float64 features.

    Args:
        features: floating point, one row per point or voxel.
        batch_index: the instance of each row, int64 or int32 in [0, num_instances).
        num_instances: instances in the batch, empty ones included. By default one more than the
            largest index, which only the CPU can read cheaply: on CUDA and under torch.compile it
            must be given.
        offsets: instead of `batch_index`, for rows sorted by instance: where each instance starts,
            and the number of rows at the end.
        weight: multiplies each channel, (C,), or each channel of each instance, (B, C).
        bias: is added to each channel, (C,) or (B, C).
        point_weights: how often each row counts, ≥ 0: the points of a voxel, or 1/multiplicity of
            duplicated points. They get no gradient.
        eps: added to the variance, in squared units of the features.
        activation: what follows in the same pass: "none", "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        features (N, C), batch_index (N,) or offsets (B + 1,), point_weights (N,) -> (N, C)

    Raises:
        ValueError: for a shape, a device, an index, offsets, weights or an eps that do not fit.
        TypeError: for a dtype that does not fit, or point weights that require a gradient.

    Values (not shapes, dtypes and devices) are checked on the CPU in eager mode and on CUDA after
    `geonorm.validate(True)`. An instance of one row, or of equal rows, gives the bias.

    From instance normalization (Ulyanov et al., 2016).

    >>> features, scan = torch.randn(5, 8), torch.tensor([0, 1, 0, 1, 1])
    >>> out = sparse_instance_norm(features, scan)
    >>> torch.allclose(out[scan == 1].mean(0), torch.zeros(8), atol=1e-6)
    True
    """
    checks.features(features)
    if (batch_index is None) == (offsets is None):
        given = "neither" if offsets is None else "both"
        raise ValueError(f"give exactly one of batch_index and offsets; got {given}")
    if batch_index is not None:
        index = checks.batch_index(batch_index, features)
        instances = checks.num_instances(num_instances, index)
    elif offsets is not None:
        index, instances = checks.offsets(offsets, num_instances, features)
    return normalize_rows(
        features, index, instances, weight=weight, bias=bias, point_weights=point_weights, eps=eps,
        activation=activation, negative_slope=negative_slope,
    )


def normalize_rows(
    features: Tensor,
    index: Tensor,
    instances: int,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    point_weights: Tensor | None,
    eps: float,
    activation: Activation,
    negative_slope: float,
) -> Tensor:
    """Do what `sparse_instance_norm` does with an int64 index that is known to be right."""
    checks.features(features)
    weights = checks.point_weights(point_weights, features, index, instances)
    weight = checks.per_channel("weight", weight, features, instances)
    bias = checks.per_channel("bias", bias, features, instances)
    _check_tail(eps, activation)
    out: Tensor = torch.ops.geonorm.segment_norm(
        features, index, instances, weights, weight, bias, features.shape[1], eps, activation,
        negative_slope,
    )[0]
    return out


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
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor (B, C, …); got {type(x).__name__}")
    checks.floating(x)
    if x.ndim < 3:
        raise ValueError(f"x must be (B, C, …) with 3 or more dimensions; got {tuple(x.shape)}")
    return normalize_axes(
        x, _dims(x, axes), weight, bias, eps, activation, negative_slope
    )


def normalize_axes(
    x: Tensor, dims: list[int], weight: Tensor | None, bias: Tensor | None, eps: float,
    activation: Activation, negative_slope: float,
) -> Tensor:
    """Do what `axis_instance_norm` does over ascending dimensions that are known to be right."""
    weight = checks.per_channel("weight", weight, x, x.shape[0])
    bias = checks.per_channel("bias", bias, x, x.shape[0])
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


def _check_tail(eps: float, activation: str) -> None:
    """Refuse an eps that is not positive and an activation that does not exist."""
    if not eps > 0:
        raise ValueError(f"eps must be positive; got {eps}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}; got {activation!r}")
