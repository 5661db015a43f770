"""Instance normalization for sparse point clouds and video."""

from geonorm._version import __version__
from geonorm.norms.axis_instance_norm import AxisInstanceNorm, SpatioTemporalInstanceNorm

__all__ = ["AxisInstanceNorm", "SpatioTemporalInstanceNorm", "__version__"]
