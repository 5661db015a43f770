"""Instance normalization for sparse point clouds and video."""

from geonorm import functional
from geonorm._version import __version__
from geonorm.norms.axis_instance_norm import AxisInstanceNorm, SpatioTemporalInstanceNorm
from geonorm.norms.sparse_instance_norm import SparseInstanceNorm
from geonorm.ops.backends import backends, force_backend, validate

__all__ = [
    "AxisInstanceNorm",
    "SparseInstanceNorm",
    "SpatioTemporalInstanceNorm",
    "__version__",
    "backends",
    "force_backend",
    "functional",
    "validate",
]
