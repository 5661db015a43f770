"""The names of norms, one table for `geonorm.convert`, the backbones, configurations and docs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd

from torch import nn

from geonorm.names import choices
from geonorm.norms.batch_norm import BatchNorm, SyncBatchNorm
from geonorm.norms.divisive_norm import DivisiveNorm
from geonorm.norms.group_norm import GroupNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.layer_norm import LayerNorm
from geonorm.norms.no_norm import NoNorm

Build = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Placed:
    """A norm that depends on its place in a residual network.

    Args:
        default: the name of the norm at every place that `at` leaves out.
        at: what is built at "stem", after the stem's convolution; "first", after the first
            convolution of a residual block; "shortcut", on its projection; and "sum", between the
            last addition of a stage and its ReLU, where there is none unless it is said here.
    """

    default: str
    at: Mapping[str, Build]


def group_norm(channels: int) -> nn.Module:
    """Return a group norm of the most groups up to the usual 32 that divide the channels."""
    return GroupNorm(channels, num_groups=gcd(32, channels))


NORMS: dict[str, Build] = {
    "batch": BatchNorm,
    "divisive": DivisiveNorm,
    "group": group_norm,
    "ibn-a": InstanceBatchNorm,
    "instance": InstanceNorm,
    "layer": LayerNorm,
    "none": NoNorm,
    "sync-batch": SyncBatchNorm,
}
# In a backbone these are IBN-Net's two designs (Pan et al., 2018).
PLACED: dict[str, Placed] = {
    "ibn-a": Placed("batch", {"first": InstanceBatchNorm}),
    "ibn-b": Placed("batch", {"stem": InstanceNorm, "sum": InstanceNorm}),
}


def builder(name: str) -> Build:
    """Return what builds the norm of a name, given the number of channels.

    Raises:
        ValueError: an unknown name (listing the known ones and the nearest).
    """
    if name not in NORMS:
        raise ValueError(f"norm {name!r} is unknown; {choices(name, NORMS)}")
    return NORMS[name]
