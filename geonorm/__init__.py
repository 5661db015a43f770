"""Instance normalization for sparse point clouds and video."""

from geonorm import functional
from geonorm._version import __version__
from geonorm.convert.conversion import ConversionReport, convert
from geonorm.norms.adaptive_instance_norm import AdaptiveInstanceNorm
from geonorm.norms.axis_instance_norm import AxisInstanceNorm, SpatioTemporalInstanceNorm
from geonorm.norms.batch_norm import BatchNorm, SyncBatchNorm
from geonorm.norms.divisive_norm import DivisiveNorm
from geonorm.norms.domain_norm import DomainBatchNorm, DomainInstanceNorm, set_domain
from geonorm.norms.group_norm import PointLayerNorm, SparseGroupNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.sparse_instance_norm import SparseInstanceNorm
from geonorm.ops.backends import backends, force_backend, validate
from geonorm.sparse import Packed
from geonorm.style import StyleStatistics, interpolate, mix_styles, style_statistics

__all__ = [
    "AdaptiveInstanceNorm",
    "AxisInstanceNorm",
    "BatchNorm",
    "ConversionReport",
    "DivisiveNorm",
    "DomainBatchNorm",
    "DomainInstanceNorm",
    "InstanceBatchNorm",
    "InstanceNorm",
    "Packed",
    "PointLayerNorm",
    "SparseGroupNorm",
    "SparseInstanceNorm",
    "SpatioTemporalInstanceNorm",
    "StyleStatistics",
    "SyncBatchNorm",
    "__version__",
    "backends",
    "convert",
    "force_backend",
    "functional",
    "interpolate",
    "mix_styles",
    "set_domain",
    "style_statistics",
    "validate",
]
