"""Losses of style transfer on every kind of input: content, style, Gram matrices, variation."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from geonorm.inputs import Input, read
from geonorm.kernel_maps import of_minkowski
from geonorm.style import StyleStatistics, fit_style, style_statistics


def content_loss(x: Any, target: Any, batch_index: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of features at the same positions.

    Args:
        x: a dense tensor, rows or any sparse kind.
        target: of x's kind with the same positions, or a tensor of the shape of its features.
        batch_index: the instance of each row, for rows alone.

    Shape:
        (B, C, …) or rows (N, C) twice -> ()

    Raises:
        ValueError: another shape, or other coordinates.
        TypeError: no known kind, or not floating point.

    From Huang and Belongie (2017), equation 12, whose target is what `AdaptiveInstanceNorm` puts
    out.

    >>> float(content_loss(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 3.0)))
    9.0
    """
    features, wanted = read(x, batch_index).with_residual(target)
    return F.mse_loss(features, wanted)


def style_loss(
    x: Any, style: Any, batch_index: Tensor | None = None, *, num_instances: int | None = None
) -> Tensor:
    """Return how far means and deviations of channels are from a style's, squared, in the mean.

    Args:
        x: a dense tensor, rows or any sparse kind.
        style: `geonorm.style.StyleStatistics` of one instance or of as many as x has, or what they
            are taken of: a dense tensor or any sparse kind.
        batch_index: the instance of each row of x, for rows alone.
        num_instances: instances of x; needed for rows on CUDA.

    Shape:
        (B, C, …) or rows (N, C) -> ()

    Raises:
        ValueError: other channels, another number of instances, or an instance without positions.
        TypeError: no known kind, or not floating point.

    From Huang and Belongie (2017), equation 13, for the features of one layer: add those of
    several.

    >>> x = torch.randn(1, 3, 8, 8)
    >>> float(style_loss(x + 2, x)) - 4 < 1e-5
    True
    """
    wanted = style if isinstance(style, StyleStatistics) else style_statistics(style)
    found = style_statistics(x, batch_index, num_instances)
    std, mean = fit_style(wanted, found.mean, len(found.mean))
    return F.mse_loss(found.mean, mean) + F.mse_loss(found.std, std)


def gram_loss(
    x: Any, style: Any, batch_index: Tensor | None = None, *, num_instances: int | None = None
) -> Tensor:
    """Return the mean squared difference of the Gram matrices of channels.

    An instance's matrix is the mean over its positions of the products of two channels each.

    Args:
        x: a dense tensor, rows or any sparse kind.
        style: a dense tensor or any sparse kind of one instance, or of as many as x has.
        batch_index: the instance of each row of x, for rows alone.
        num_instances: instances of x; needed for rows on CUDA.

    Shape:
        (B, C, …) or rows (N, C) -> ()

    Raises:
        ValueError: other channels, or another number of instances.
        TypeError: no known kind, or not floating point.

    From Gatys, Ecker and Bethge (2016).

    >>> x = torch.randn(1, 3, 8, 8)
    >>> float(gram_loss(x.flip(-1), x)) < 1e-10  # where things are makes no difference
    True
    """
    found, wanted = _gram(read(x, batch_index, num_instances)), _gram(read(style))
    if found.shape[1:] != wanted.shape[1:] or len(wanted) not in (1, len(found)):
        raise ValueError(
            f"style must have {found.shape[1]} channels and one instance or {len(found)}; got "
            f"{wanted.shape[1]} channels and {len(wanted)} instances"
        )
    return F.mse_loss(found, wanted.expand_as(found))


def total_variation_loss(x: Any) -> Tensor:
    """Return the mean absolute difference between neighbours.

    Args:
        x: a dense tensor or a MinkowskiEngine SparseTensor, whose neighbours are the voxels one
            stride away along one axis; a missing voxel has no difference.

    Shape:
        (B, C, …) or features (N, C) -> (); 0 where there are no neighbours

    Raises:
        TypeError: another kind: rows without coordinates have no neighbours.

    From Rudin, Osher and Fatemi (1992), anisotropic.

    >>> float(total_variation_loss(torch.tensor([[[0.0, 1.0, 3.0]]])))
    1.5
    """
    given = read(x)
    if given.instance is None:
        steps = [x.diff(dim=axis).flatten() for axis in range(2, x.ndim)]
    elif hasattr(x, "coordinate_manager") and hasattr(x, "coordinate_map_key"):
        steps = [_sparse_steps(x, given.features)]
    else:
        raise TypeError(
            "neighbours need a dense tensor or a MinkowskiEngine SparseTensor; got "
            f"{type(x).__name__}"
        )
    differences = torch.cat(steps).abs()
    return differences.sum() / max(differences.numel(), 1)


def _sparse_steps(x: Any, features: Tensor) -> Tensor:
    """Return the differences between neighbouring voxels, each pair once."""
    # The engine's own HYPER_CROSS joins the first offsets of the cube on a CPU, not the axes'.
    cube = import_module("MinkowskiEngine").KernelGenerator(kernel_size=3, dimension=x.D)
    key = x.coordinate_map_key
    source, target = of_minkowski(x.coordinate_manager, key, key, cube, False).pairs.long()
    axes = (x.C.index_select(0, source) != x.C.index_select(0, target)).sum(1)
    once = (axes == 1) & (source < target)
    return features.index_select(0, source[once]) - features.index_select(0, target[once])


def _gram(given: Input) -> Tensor:
    """Return the mean product of two channels each, (B, C, C)."""
    x = given.features
    if given.instance is None:
        rows = x.flatten(2)
        return rows @ rows.mT / max(rows.shape[2], 1)
    products = x.unsqueeze(2) * x.unsqueeze(1)
    total = x.new_zeros(given.num_instances, *products.shape[1:])
    counts = torch.bincount(given.instance, minlength=given.num_instances).clamp(min=1)
    total = total.index_add(0, given.instance, products)
    return total / counts.to(x.dtype)[:, None, None]
