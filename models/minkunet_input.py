"""MinkUNet's input: the engine, checks, and points averaged into voxels."""

from typing import Any

import torch

from geonorm.inputs import read

try:
    import MinkowskiEngine as ME
except ImportError as error:
    raise ImportError(
        f"MinkUNet needs MinkowskiEngine, which cannot be imported here ({error}); "
        "run `python tools/install_minkowski.py` from the geonorm checkout"
    ) from error

SUBSAMPLE = ME.SparseTensorQuantizationMode.RANDOM_SUBSAMPLE
SLICEABLE = ("UNWEIGHTED_AVERAGE", "RANDOM_SUBSAMPLE")


def with_features(x: ME.SparseTensor | ME.TensorField, features: torch.Tensor) -> Any:
    """Return x with other features."""
    return read(x).rebuild(features)


def check_input(model: torch.nn.Module, x: object, point_weights: torch.Tensor | None) -> None:
    """Refuse what the engine would meet with an assertion or a wrong answer."""
    name = type(model).__name__
    if not isinstance(x, ME.SparseTensor | ME.TensorField):
        raise TypeError(
            f"{name} takes a MinkowskiEngine SparseTensor or TensorField; got "
            f"{type(x).__name__}. Wrap features and coordinates in one of them"
        )
    if not x.F.is_floating_point():
        raise TypeError(f"features must be floating point; got {x.F.dtype}. Call .float()")
    if x.F.shape[1] != model.in_channels:
        raise ValueError(
            f"features must be (N, {model.in_channels}); got {tuple(x.F.shape)}. "
            f"Did you mean {name}(in_channels={x.F.shape[1]}, ...)?"
        )
    dimension = x.D
    if dimension != model.dimension:
        raise ValueError(
            f"coordinates must have a batch column and {model.dimension} dimensions; got "
            f"{dimension} dimensions. Did you mean {name}(..., D={dimension})?"
        )
    if isinstance(x, ME.TensorField) and x.quantization_mode.name not in SLICEABLE:
        raise ValueError(
            f"a TensorField must be quantized by one of {SLICEABLE} for its voxels to be "
            f"carried back to its points; got {x.quantization_mode.name}"
        )
    if point_weights is not None:
        _check_weights(x, point_weights)


def _check_weights(x: ME.SparseTensor | ME.TensorField, weights: torch.Tensor) -> None:
    """Refuse weights that do not weigh the points of x."""
    if not isinstance(x, ME.TensorField):
        raise TypeError("point_weights weigh the points of a TensorField; got a SparseTensor")
    if weights.shape != x.F.shape[:1] or not weights.is_floating_point():
        raise ValueError(
            f"point_weights must be floating point, ({x.F.shape[0]},), one per point; "
            f"got {weights.dtype} {tuple(weights.shape)}"
        )
    if not weights.is_cuda and not bool((weights > 0).all()):
        raise ValueError("point_weights must be positive: a voxel of weight 0 has no average")


def voxelize(points: ME.TensorField, weights: torch.Tensor | None) -> ME.SparseTensor:
    """Average the points of each voxel, each point with its weight if there are any."""
    # Any point's features will do at first: what is wanted is the map from points to voxels. The
    # engine's own average multiplies by a matrix of a kind that torch warns it will remove.
    voxels = points.sparse(quantization_mode=SUBSAMPLE)
    if points.quantization_mode == SUBSAMPLE:
        return voxels
    features = points.F
    weights = features.new_ones(len(features)) if weights is None else weights.to(features.dtype)
    voxel = points.inverse_mapping(voxels.coordinate_map_key).long()
    sums = torch.zeros_like(voxels.F).index_add(0, voxel, features * weights[:, None])
    totals = features.new_zeros(len(sums)).index_add(0, voxel, weights)
    return with_features(voxels, sums / totals[:, None])
