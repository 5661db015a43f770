"""Averages over the neighbourhood of every position, for the norms that compare a position with it.

A pool maps features (N, C) or (B, C, …) to their averages over the neighbourhood of each position,
of the same shape or broadcast against it. What it averages over is the window that exists: padding
and empty voxels do not count.
"""

from collections.abc import Callable
from importlib import import_module

from torch import Tensor, nn

from geonorm import checks
from geonorm.inputs import Input
from geonorm.ops import axis_norm as _axis
from geonorm.ops import segment_norm as _segment
from geonorm.ops.backends import checks_values

Pool = Callable[[Tensor], Tensor]

_AVERAGE: tuple[Callable[..., Tensor], ...] = (
    nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d
)


def moments(given: Input) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel of each instance, (B, C), differentiable.

    They are float32, or float64 for float64 x. An instance without rows has mean and variance 0.
    """
    if given.instance is None:
        shift, mean, var = _axis.moments(given.features, [*range(2, given.features.ndim)])
        return (shift + mean).flatten(1), var.flatten(1)
    mean, var = _segment.segment_stats(
        given.features, given.instance, given.num_instances, None, given.features.shape[1]
    )
    return mean, var


def over_instances(given: Input) -> Pool:
    """Return the pool over all positions of an instance."""
    return lambda z: given.spread(moments(given.with_features(z))[0])


def over_windows(given: Input, kernel_size: int) -> Pool:
    """Return the pool over a window around each position, `kernel_size` wide.

    Raises:
        ValueError: a dense tensor of too many dimensions.
        TypeError: a sparse tensor of no engine that finds neighbours.
    """
    x = given.source
    if given.instance is None:
        if x.ndim > 5:
            raise ValueError(
                "a window needs (B, C, L), (B, C, H, W) or (B, C, T, H, W); got "
                f"{tuple(x.shape)}. Use kernel_size=None"
            )
        return _dense_window(_AVERAGE[x.ndim - 3], kernel_size, x)
    if not (hasattr(x, "coordinate_manager") and hasattr(x, "coordinate_map_key")):
        raise TypeError(
            "a window needs a dense tensor or a MinkowskiEngine SparseTensor, whose engine "
            f"finds neighbours; got {type(x).__name__}. Use kernel_size=None"
        )
    average_pooling = import_module("MinkowskiEngine").MinkowskiAvgPooling
    local = average_pooling(kernel_size, stride=1, dimension=x.D)

    def pool(z: Tensor) -> Tensor:
        features: Tensor = local(given.rebuild(z), x.coordinate_map_key).F
        return features

    return pool


def _dense_window(average: Callable[..., Tensor], width: int, x: Tensor) -> Pool:
    """Return what averages over the elements of a window that exist, of any size against x's."""
    # torch's own padding will not do: avg_pool3d takes no input smaller than its window.
    margins = [width // 2] * 2 * (x.ndim - 2)

    def pad(z: Tensor) -> Tensor:
        return average(nn.functional.pad(z, margins), width, 1)

    share = pad(x.new_ones((1, 1, *x.shape[2:]), dtype=checks.statistics_dtype(x)))
    return lambda z: pad(z) / share


def over_channels(pool: Pool, num_groups: int, weights: Tensor | None) -> Pool:
    """Return a pool that averages over each group of channels as well.

    Args:
        pool: over positions.
        num_groups: groups of successive channels; it divides them.
        weights: how much each channel counts in its group, (C,); None for all the same.
    """

    def pool_channels(z: Tensor) -> Tensor:
        grouped = z.unflatten(1, (num_groups, -1))
        if weights is None:
            one = grouped.mean(2)
        else:
            shares = weights.to(z.dtype).view(num_groups, -1, *(1,) * (z.ndim - 2))
            one = (grouped * (shares / shares.sum(1, keepdim=True))).sum(2)
        # Averages over channels and over positions commute, and groups are fewer than channels.
        return pool(one).repeat_interleave(grouped.shape[2], 1)

    return pool_channels


def check_groups(channels: int, num_groups: int | None, weights: Tensor | None) -> None:
    """Refuse groups that do not divide the channels, and channel weights that do not fit.

    Raises:
        ValueError: for either.
    """
    if num_groups is None:
        if weights is not None:
            raise ValueError("channel_weights weigh the channels of a group; give num_groups too")
        return
    if num_groups < 1 or channels % num_groups:
        raise ValueError(f"num_groups must divide the {channels} channels; got {num_groups}")
    if weights is None:
        return
    if weights.shape != (channels,):
        raise ValueError(
            f"channel_weights must be (C,) = {(channels,)}; got {tuple(weights.shape)}"
        )
    if checks_values(weights.device):
        if not bool(((weights >= 0) & weights.isfinite()).all()):
            raise ValueError(
                f"channel_weights must be finite and not negative; got {weights.tolist()}"
            )
        hollow = weights.view(num_groups, -1).sum(1) == 0
        if hollow.any():
            raise ValueError(
                f"channel_weights are all zero in group {int(hollow.nonzero()[0])}; give one of "
                "its channels a weight"
            )
