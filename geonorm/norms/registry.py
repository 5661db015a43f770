"""The names under which `geonorm.convert` and the backbones build norms of any kind of input."""

from collections.abc import Callable
from math import gcd

from torch import nn

from geonorm.norms.batch_norm import BatchNorm, SyncBatchNorm
from geonorm.norms.divisive_norm import DivisiveNorm
from geonorm.norms.group_norm import PointLayerNorm, SparseGroupNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.instance_norm import InstanceNorm


def group_norm(channels: int) -> nn.Module:
    """Return a group norm of the most groups up to the usual 32 that divide both."""
    return SparseGroupNorm(gcd(32, channels), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm,
    "divisive": DivisiveNorm,
    "group": group_norm,
    "instance": InstanceNorm,
    "instance-batch": InstanceBatchNorm,
    "layer": PointLayerNorm,
    "none": lambda channels: nn.Identity(),
    "sync-batch": SyncBatchNorm,
}
