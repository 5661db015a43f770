"""Averages over the neighbourhood of every position, for the norms that compare a position with it.

A pool maps features (N, C) or (B, C, …) to their averages over the neighbourhood of each position,
of the same shape or broadcast against it. What it averages over is the window that exists: padding
and empty voxels do not count.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import product
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geonorm import checks
from geonorm.inputs import Input
from geonorm.ops import axis_norm as _axis
from geonorm.ops import segment_norm as _segment
from geonorm.ops.backends import checks_values

Pool = Callable[[Tensor], Tensor]

CELLS = 2**26  # of the grid for rows at most, for each channel

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
    axes = x.ndim - 2
    margins = [width // 2] * 2 * axes

    def padded(z: Tensor) -> Tensor:
        z = nn.functional.pad(z, margins)
        for axis in range(axes):  # apart they read width · axes elements, together width ** axes
            z = average(z, [width if each == axis else 1 for each in range(axes)], 1)
        return z

    share = padded(x.new_ones((1, 1, *x.shape[2:]), dtype=checks.statistics_dtype(x)))
    return lambda z: padded(z) / share


def scales_of(surround: Any) -> tuple[float, ...] | Literal["mean"] | None:
    """Return the scales of a surround's Gaussians, or the "mean" or None that was given.

    Raises:
        ValueError: neither these nor one number above 0 or more.
    """
    if surround is None:
        return None
    if isinstance(surround, str) and surround == "mean":
        return "mean"
    scales = (surround,) if isinstance(surround, int | float | str) else tuple(surround)
    if not scales or not all(isinstance(s, int | float) and s > 0 for s in scales):
        raise ValueError(
            f'surround must be "mean", None, or one scale or more, above 0; got {surround!r}'
        )
    return scales


def over_gaussians(given: Input, sigma: float) -> Pool:
    """Return the pool whose weights fall with the distance as a Gaussian.

    A dense tensor is pooled over its last two dimensions, each frame of a clip by itself; a sparse
    one over all coordinates.

    Args:
        given: what is pooled.
        sigma: of the Gaussian, in positions or in units of the coordinates.

    Raises:
        TypeError: a sparse tensor that does not tell positions.
        ValueError: positions so far apart, in sigmas, that they do not fit into memory.
    """
    if given.instance is not None:
        return _over_scattered(given, given.instance, sigma)
    falls = [_fall(size, sigma, given.features) for size in given.features.shape[2:][-2:]]
    falls = [fall / fall.sum(1, keepdim=True) for fall in falls]
    return lambda z: _blurred(z, falls)


def _fall(size: int, sigma: float, features: Tensor) -> Tensor:
    """Return the Gaussian of the distance between any two of `size` places in a row."""
    place = torch.arange(size, device=features.device, dtype=checks.statistics_dtype(features))
    return (-(place[:, None] - place).square() / (2 * sigma**2)).exp()


def _blurred(z: Tensor, falls: Sequence[Tensor]) -> Tensor:
    """Return z with each of its last dimensions multiplied by a matrix of weights."""
    for number, fall in enumerate(reversed(falls), 1):
        z = (z.transpose(-number, -1) @ fall.T).transpose(-number, -1)
    return z


def _over_scattered(given: Input, instance: Tensor, sigma: float) -> Pool:
    """Return the Gaussian pool of rows: they are shared out to a grid, blurred, and read back."""
    place = _positions(given)
    if not len(place):
        return lambda z: z
    whole = not place.is_floating_point()
    # Cells of a third of sigma: sharing out and reading back linearly adds cell²/3 to the variance.
    # Between whole numbers in cells of one nothing is shared out.
    cell = max(1.0, sigma / 3) if whole else sigma / 3
    variance = sigma**2 - (0 if whole and cell == 1 else cell**2 / 3)
    place = (place - place.amin(0)).to(checks.statistics_dtype(given.features)) / cell
    low = place.floor()
    beyond = place - low
    sizes = [int(size) + 2 for size in low.amax(0).tolist()]
    if given.num_instances * prod(sizes) > CELLS:
        raise ValueError(
            f"a surround of {sigma:g} needs a grid of {' x '.join(map(str, sizes))} cells for each "
            f"of {given.num_instances} instances, above the {CELLS:,} that are allowed: take a "
            "larger one, or leave out what lies far away"
        )
    cells, shares = [], []
    for corner in product((0, 1), repeat=len(sizes)):
        index = instance
        for axis, size in enumerate(sizes):
            index = index * size + low[:, axis].long() + corner[axis]
        cells.append(index)
        shares.append(torch.where(beyond.new_tensor(corner) > 0, beyond, 1 - beyond).prod(1))
    where, share = torch.cat(cells), torch.stack(shares).unsqueeze(2)
    falls = [_fall(size, variance**0.5 / cell, given.features) for size in sizes]

    def gathered(z: Tensor) -> Tensor:
        grid = z.new_zeros(given.num_instances * prod(sizes), z.shape[1])
        grid = grid.index_add(0, where, (share * z).flatten(0, 1))
        grid = _blurred(grid.view(-1, *sizes, z.shape[1]).movedim(-1, 1), falls)
        rows = grid.movedim(1, -1).reshape(-1, z.shape[1]).index_select(0, where)
        return (share * rows.view(*share.shape[:2], -1)).sum(0)

    mass = gathered(place.new_ones(len(place), 1))
    return lambda z: gathered(z) / mass


def _positions(given: Input) -> Tensor:
    """Return the position of each row, (N, D)."""
    x = given.source
    if hasattr(x, "coordinate_manager"):  # MinkowskiEngine's
        found: Tensor = x.C[:, 1:]
    elif hasattr(x, "replace_feature"):  # spconv's
        found = x.indices[:, 1:]
    elif getattr(x, "pos", None) is not None:  # torch_geometric's
        found = x.pos
    else:
        raise TypeError(
            "a surround needs a dense tensor or one that tells positions: MinkowskiEngine's, "
            "spconv's, or torch_geometric's Data with pos; got "
            f'{type(x).__name__}. Use surround="mean"'
        )
    return found


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


def check_divisive(
    kernel_size: int | None, exponent: float, eps: float, semi_saturation: float
) -> None:
    """Refuse a window, an exponent or constants that `geonorm.DivisiveNorm` does not take.

    Raises:
        ValueError: for any of them.
    """
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise ValueError(f"kernel_size must be odd, or None for all; got {kernel_size}")
    if not exponent >= 1:
        raise ValueError(f"exponent must be 1 or more; got {exponent}")
    checks.positive(eps=eps)
    if not semi_saturation >= 0:
        raise ValueError(f"semi_saturation must be 0 or more; got {semi_saturation}")


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
