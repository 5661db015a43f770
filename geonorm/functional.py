"""A function for every norm: it reads and checks its input, then calls an operator.

Inputs are dense tensors (B, C, …), rows (N, C) with the instance of each, or the tensors of sparse
engines (`geonorm.inputs.read`); what comes back is of the same kind. The modules in geonorm/norms
hold parameters and call these functions.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geonorm import checks
from geonorm.inputs import Input, promoted, read
from geonorm.ops import axis_norm as _axis
from geonorm.ops import segment_norm as _segment
from geonorm.ops.backends import checks_values
from geonorm.pooling import (
    check_divisive,
    check_groups,
    moments,
    over_channels,
    over_gaussians,
    over_instances,
    over_windows,
    scales_of,
)

Activation = Literal["relu", "leaky_relu"]


def instance_norm(
    x: Any,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Any = None,
    point_weights: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    negative_slope: float = 0.01,
) -> Any:
    """Normalize each channel over the positions of each instance by its own statistics.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    Mean and biased variance are those of an instance: of its rows, each counting by its point
    weight, or of all elements of a dense tensor's third and later dimensions. Rows may come in any
    order. Statistics are float32, or float64 for float64 features.

    Args:
        x: a dense tensor, rows (N, C) with `batch_index`, `geonorm.Rows`, or an engine's tensor.
        batch_index: the instance of each row, int64 or int32 in [0, num_instances).
        num_instances: instances in the batch, empty ones included. By default one more than the
            largest index, which only the CPU can read cheaply: for rows on CUDA and under
            torch.compile it must be given.
        weight: multiplies each channel, (C,), or each channel of each instance, (B, C).
        bias: is added to each channel, (C,) or (B, C).
        residual: is added before the activation: features of x's shape, or a tensor of x's kind
            with the same coordinates. The output has the dtype of the sum, as in torch.
        point_weights: how often each row counts, (N,), ≥ 0: the points of a voxel, or
            1/multiplicity of duplicated points. They get no gradient.
        eps: added to the variance, in squared units of the features.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        (B, C, …), or any sparse kind with features (N, C); the output is of the same kind and
        dtype.

    Raises:
        ValueError: for a shape, a device, an index, weights, an eps or a residual that do not fit.
        TypeError: for another kind, a dtype that does not fit, or point weights that require a
            gradient.

    Values (not shapes, dtypes and devices) are checked on the CPU in eager mode and on CUDA after
    `geonorm.validate(True)`. An instance of one row, or of equal rows, gives the bias.

    From instance normalization (Ulyanov et al., 2016).

    >>> features, scan = torch.randn(5, 8), torch.tensor([0, 1, 0, 1, 1])
    >>> out = instance_norm(features, scan)
    >>> torch.allclose(out[scan == 1].mean(0), torch.zeros(8), atol=1e-6)
    True
    """
    given = x if type(x) is Input else read(x, batch_index, num_instances)
    return normalize_instances(
        given, weight, bias, residual, point_weights, eps, activation, negative_slope
    )


def normalize_instances(
    given: Input, weight: Tensor | None, bias: Tensor | None, residual: Any,
    point_weights: Tensor | None, eps: float, activation: Activation | None, negative_slope: float,
) -> Any:
    """Do what `instance_norm` does with an input that is read already."""
    features, index, instances, source, kind = given
    tail = checks.tail(eps, activation, 0.0 if residual is None else negative_slope)
    weight, bias = checks.parameters(weight, bias, features, instances)
    if residual is not None:
        features, residual = given.with_residual(residual)
        weight, bias = checks.as_wide(weight, bias, features)
    if index is None:
        if point_weights is not None:
            raise TypeError("point_weights weigh rows; a dense tensor has none")
        axes = [*range(2, features.ndim)]
        if features.numel() == 0:
            _refuse_empty_axes(features, axes)
        out = _axis.axis_norm(
            features, axes, weight, bias, eps, tail, negative_slope, residual
        )
    else:
        if point_weights is not None:
            point_weights = checks.point_weights(point_weights, features, index, instances)
        out = _segment.segment_norm(
            features, index, instances, point_weights, weight, bias, features.shape[1], eps, tail,
            negative_slope, residual,
        )
    return kind.replace(source, out)


def axis_instance_norm(
    x: Tensor,
    *,
    axes: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    negative_slope: float = 0.01,
) -> Tensor:
    """Normalize a dense tensor over any of its axes, each instance and channel by itself.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    The mean and the biased variance are taken over `axes`, separately for each index of every other
    dimension. The output has the dtype and the memory format of `x`; statistics are float32, or
    float64 for float64 `x`.

    Args:
        x: floating point, batch first, channels second.
        axes: the dimensions to normalize over, each from 2 on (or counted from the end).
        weight: multiplies each channel, (C,), or each channel of each instance, (B, C).
        bias: is added to each channel, (C,) or (B, C).
        residual: is added before the activation, of x's shape.
        eps: added to the variance.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        x (B, C, …) -> (B, C, …); B may be 0

    Raises:
        ValueError: for a shape, axis, eps, activation or residual that does not fit, or an empty
            axis.
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
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point; got {x.dtype}. Convert it first: x.float()")
    if x.ndim < 3:
        raise ValueError(f"x must be (B, C, …) with 3 or more dimensions; got {tuple(x.shape)}")
    return normalize_axes(
        x, _dims(x, axes), weight, bias, eps, activation, negative_slope, residual
    )


def normalize_axes(
    x: Tensor, dims: list[int], weight: Tensor | None, bias: Tensor | None, eps: float,
    activation: Activation | None, negative_slope: float, residual: Tensor | None = None,
) -> Tensor:
    """Do what `axis_instance_norm` does over ascending dimensions that are known to be right."""
    tail = checks.tail(eps, activation, 0.0 if residual is None else negative_slope)
    weight, bias = checks.parameters(weight, bias, x, x.shape[0])
    if residual is not None:
        x, residual = promoted(x, residual)
        weight, bias = checks.as_wide(weight, bias, x)
    return _axis.axis_norm(x, dims, weight, bias, eps, tail, negative_slope, residual)


def group_norm(
    x: Any,
    num_groups: int,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Any = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    negative_slope: float = 0.01,
) -> Any:
    """Normalize each group of channels over the positions of each instance together.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    Args:
        num_groups: divides the number of channels.

    The other arguments, shapes and errors are those of `instance_norm`. With one channel a group it
    is instance norm; with one group, layer norm over the whole instance.

    From group normalization (Wu and He, 2018).

    >>> out = group_norm(torch.randn(5, 6), 2, torch.zeros(5).long())
    >>> torch.allclose(out[:, :3].mean(), torch.zeros(()), atol=1e-6)
    True
    """
    given = x if type(x) is Input else read(x, batch_index, num_instances)
    features, index, instances = given[:3]
    if num_groups < 1 or features.shape[1] % num_groups:
        raise ValueError(
            f"num_groups must divide the {features.shape[1]} channels; got {num_groups}"
        )
    tail = checks.tail(eps, activation, 0.0 if residual is None else negative_slope)
    weight, bias = checks.parameters(weight, bias, features, instances)
    if residual is not None and index is not None:
        features, residual = given.with_residual(residual)
        weight, bias = checks.as_wide(weight, bias, features)
    if index is not None:
        return given.rebuild(_segment.segment_norm(
            features, index, instances, None, weight, bias, num_groups, eps, tail, negative_slope,
            residual,
        ))
    # The operator takes its parameters per channel of what it normalizes, here the groups.
    wide = features.to(checks.statistics_dtype(features))
    parts = wide.unflatten(1, (num_groups, -1))
    normed = axis_instance_norm(parts, axes=range(2, parts.ndim), eps=eps).flatten(1, 2)
    out = _axis.affine(normed, weight, bias).to(features.dtype)
    return finish(given, out, residual, activation, negative_slope)


def layer_norm(
    x: Any,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Any = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    negative_slope: float = 0.01,
) -> Any:
    """Normalize each position over its own channels: `F.layer_norm` on the features.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    A position is one row, voxel or pixel; which instance it belongs to does not matter, so a matrix
    (N, C) needs no index. Arguments, shapes and errors are those of `instance_norm`.

    From layer normalization (Ba et al., 2016).

    >>> torch.allclose(layer_norm(torch.randn(2, 8, 4, 4)).mean(1), torch.zeros(2, 4, 4), atol=1e-6)
    True
    """
    given = x if type(x) is Input else read_positions(x)
    features = given.features
    checks.tail(eps, activation)
    wide = features.to(checks.statistics_dtype(features)).movedim(1, -1)
    weight, bias = checks.parameters(weight, bias, features, given.num_instances)
    fits = all(p is None or p.ndim == 1 for p in (weight, bias))  # what torch does in its pass
    both = (weight, bias) if fits else (None, None)
    out = nn.functional.layer_norm(wide, (features.shape[1],), *both, eps).movedim(-1, 1)
    out = (out if fits else _affine(given, out, weight, bias)).to(features.dtype)
    return finish(given, out, residual, activation, negative_slope)


def adaptive_instance_norm(
    content: Any,
    mean: Tensor,
    std: Tensor,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    **options: Any,
) -> Any:
    """Give a content the mean and the standard deviation of a style, channel by channel.

        y = act((x − mean(x)) / √(var(x) + eps) · std + mean + residual)

    Args:
        content: as x of `instance_norm`.
        mean, std: of the style, (C,), (1, C) or (B, C), such as `geonorm.style.style_statistics`
            tells them.
        batch_index, num_instances: as of `instance_norm`.
        options: residual, point_weights, eps, activation and negative_slope of `instance_norm`.

    From arbitrary style transfer (Huang and Belongie, 2017).

    >>> clip = torch.randn(2, 3, 4, 8, 8)
    >>> out = adaptive_instance_norm(clip, torch.zeros(3) + 5, torch.ones(3))
    >>> torch.allclose(out.mean((2, 3, 4)), torch.full((2, 3), 5.0), atol=1e-5)
    True
    """
    given = content if type(content) is Input else read(content, batch_index, num_instances)
    shape = (given.num_instances, given.features.shape[1])
    dtype = checks.statistics_dtype(given.features)
    mean, std = (each.to(dtype).expand(shape) for each in (mean, std))
    return instance_norm(given, weight=std, bias=mean, **options)


def divisive_norm(
    x: Any,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    kernel_size: int | None = 5,
    num_groups: int | None = None,
    channel_weights: Tensor | None = None,
    exponent: float = 2.0,
    center: bool = True,
    semi_saturation: float = 0.0,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Any = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    negative_slope: float = 0.01,
) -> Any:
    """Divide each response by the pooled strength of its neighbourhood.

        z = x − pool(x),  y = act(z / (eps + pool(|z|ⁿ))^(1/n) · weight + bias + residual)

    Arguments, shapes and errors are those of `geonorm.DivisiveNorm` and of `instance_norm`.
    `channel_weights` is a tensor here, which may require a gradient.

    From Carandini and Heeger (2012).

    >>> divisive_norm(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """
    check_divisive(kernel_size, exponent, eps, semi_saturation)
    given = x if type(x) is Input else read(x, batch_index, num_instances)
    features, whole = given.features, over_instances(given)
    pool = whole if kernel_size is None else over_windows(given, kernel_size)
    check_groups(features.shape[1], num_groups, channel_weights)
    if num_groups is not None:
        pool = over_channels(pool, num_groups, channel_weights)
        whole = over_channels(whole, num_groups, channel_weights)
    z = features.to(checks.statistics_dtype(features))
    if center:
        # An average of numbers far from zero loses the digits that tell them apart: what an
        # instance has in common goes first, without gradient, as none of it is left in z.
        z = z - whole(z.detach())
        z = z - pool(z)
    powers = z.square() if exponent == 2 else z.abs().pow(exponent)
    strength = pool(powers) + eps
    if semi_saturation:
        strength = strength + whole(powers) * semi_saturation**exponent
    out = z * (strength.rsqrt() if exponent == 2 else strength.pow(-1 / exponent))
    out = _affine(given, out, weight, bias).to(features.dtype)
    return finish(given, out, residual, activation, negative_slope)


def retinex_norm(
    x: Any,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    surround: float | Sequence[float] | Literal["mean"] | None,
    contrast: bool = True,
    back: bool = False,
    floor: float = 1e-3,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Any = None,
    eps: float = 1e-5,
    activation: Activation | None = None,
    negative_slope: float = 0.01,
) -> Any:
    """Take the light out of intensities: the logarithm, less that of the surround, normalized.

        z = l − surround(l), l = log(x + floor),  y = act(z / √(var(z) + eps) · weight + bias
        + residual)

    Arguments, shapes and errors are those of `geonorm.RetinexNorm` and of `instance_norm`.

    From Land and McCann (1971) and Jobson et al. (1997).

    >>> picture = torch.rand(2, 3, 16, 16)
    >>> out = retinex_norm(picture, surround=4, floor=1e-9)
    >>> torch.allclose(retinex_norm(picture * 5, surround=4, floor=1e-9), out, atol=1e-4)
    True
    """
    checks.positive(floor=floor, eps=eps)
    given = x if type(x) is Input else read(x, batch_index, num_instances)
    features = given.features
    level = features.to(checks.statistics_dtype(features)) + floor
    if checks_values(level.device) and level.numel() and not bool(level.min() > 0):
        raise ValueError(
            f"features must be intensities, above -floor = {-floor:g}; the smallest is "
            f"{float(features.min()):g}. A logarithm is taken: use another norm, or a larger floor"
        )
    z, scales = level.log(), scales_of(surround)
    if scales == "mean":
        z = z - over_instances(given)(z)
    elif scales is not None:
        z = z - sum(over_gaussians(given, sigma)(z) for sigma in scales) / len(scales)
    if contrast:
        z = z * (given.spread(moments(given.with_features(z))[1]) + eps).rsqrt()
    out = _affine(given, z, weight, bias)
    out = (out.exp() if back else out).to(features.dtype)
    return finish(given, out, residual, activation, negative_slope)


def read_positions(
    x: Any,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    norm: Any = None,
) -> Input:
    """Read the input of a norm that does not ask to which instance a position belongs.

    Args:
        x: as of `read`, or a matrix (N, C) without an index.
        batch_index, num_instances, norm: as of `read`.
    """
    if batch_index is None and isinstance(x, Tensor) and x.ndim == 2:
        return read(x, x.new_zeros(x.shape[0], dtype=torch.int64), 1, norm)
    return read(x, batch_index, num_instances, norm)


def finish(
    given: Input,
    out: Tensor,
    residual: Any,
    activation: Activation | None,
    negative_slope: float,
    *,
    inplace: bool = False,
) -> Any:
    """Add a residual, apply the activation, and return features as what was given.

    Dense features come back in the memory format in which they were given.

    Args:
        given: the norm's input.
        out: its features, normalized.
        residual: as of `instance_norm`.
        activation, negative_slope: as of `instance_norm`.
        inplace: write into `out`, which nothing else may hold, and no derivative.
    """
    if residual is not None:
        residual = given.with_features(out).with_residual(residual)[1]
        out = out.add_(residual) if inplace and out.dtype == residual.dtype else out + residual
    if checks.tail(1.0, activation) == "relu":
        out = nn.functional.relu(out, inplace)
    elif activation == "leaky_relu":
        out = nn.functional.leaky_relu(out, negative_slope, inplace)
    if given.instance is None and out.stride() != given.features.stride():
        out = torch.empty_like(given.features, dtype=out.dtype).copy_(out)
    return given.rebuild(out)


def _affine(given: Input, out: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Multiply by a weight and add a bias, per channel or per channel of each instance."""
    each = checks.parameters(weight, bias, given.features, given.num_instances)
    return _axis.affine(
        out, *(p if p is None or p.ndim == 1 or given.instance is None else given.spread(p)
               for p in each)
    )  # fmt: skip


def _dims(x: Tensor, axes: int | Sequence[int]) -> list[int]:
    """Return the axes ascending and counted from the front, each from 2 on and not empty."""
    given = [axes] if isinstance(axes, int) else [*axes]
    dims = sorted(axis + x.ndim if axis < 0 else axis for axis in given)
    if not dims or dims[0] < 2 or dims[-1] >= x.ndim or len({*dims}) != len(dims):
        raise ValueError(
            f"axes must be one or more of the dimensions 2 to {x.ndim - 1}, each once; got {axes} "
            f"for x of shape {tuple(x.shape)}"
        )
    _refuse_empty_axes(x, dims)
    return dims


def _refuse_empty_axes(x: Tensor, dims: list[int]) -> None:
    for dim in dims:
        if x.shape[dim] == 0:
            raise ValueError(
                f"there is nothing to normalize along axis {dim}: x has shape {tuple(x.shape)}"
            )
