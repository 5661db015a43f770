"""Instance normalization for sparse point clouds and video."""

from geonorm import functional
from geonorm._version import __version__
from geonorm.convert.conversion import convert
from geonorm.convert.norm_state import norm_state
from geonorm.convert.speed_up import speed_up
from geonorm.inputs import Rows
from geonorm.norms.adaptive_instance_norm import AdaptiveInstanceNorm
from geonorm.norms.axis_instance_norm import AxisInstanceNorm, SpatioTemporalInstanceNorm
from geonorm.norms.batch_norm import BatchNorm, SyncBatchNorm
from geonorm.norms.divisive_norm import DivisiveNorm
from geonorm.norms.domain_norm import DomainBatchNorm, DomainInstanceNorm, set_domain
from geonorm.norms.group_norm import GroupNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.instance_norm import InstanceNorm, SparseInstanceNorm
from geonorm.norms.layer_norm import LayerNorm
from geonorm.norms.retinex_norm import RetinexNorm
from geonorm.ops.backends import backends, force_backend, validate

__all__ = [
    "AdaptiveInstanceNorm",
    "AxisInstanceNorm",
    "BatchNorm",
    "DivisiveNorm",
    "DomainBatchNorm",
    "DomainInstanceNorm",
    "GroupNorm",
    "InstanceBatchNorm",
    "InstanceNorm",
    "LayerNorm",
    "RetinexNorm",
    "Rows",
    "SparseInstanceNorm",
    "SpatioTemporalInstanceNorm",
    "SyncBatchNorm",
    "__version__",
    "backends",
    "convert",
    "force_backend",
    "functional",
    "norm_state",
    "set_domain",
    "speed_up",
    "validate",
]
