"""What geonorm.convert reads off a norm of torch's, MinkowskiEngine's, spconv's or its own."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from geonorm.convert.transfer import RUNNING
from geonorm.norms.axis_instance_norm import SpatioTemporalInstanceNorm
from geonorm.norms.base import AffineNorm
from geonorm.norms.batch_norm import BatchNorm, SyncBatchNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.sparse_instance_norm import SparseInstanceNorm

MINKOWSKI_EPS = 1e-8  # what MinkowskiInstanceNorm adds to the variance; it has no attribute for it
CHANNELS_FIRST = (
    nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    BatchNorm, SyncBatchNorm, SparseInstanceNorm, SpatioTemporalInstanceNorm, InstanceBatchNorm,
    AffineNorm,
)
UNKNOWN = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Source:
    """A norm that may be replaced.

    Attributes:
        module: the norm.
        channels: number of channels it normalizes.
        layout: "channels first", "sparse", "spconv" (inside its SparseSequential, which must be
            told to hand over the whole tensor), or None where the norm does not tell.
    """

    module: nn.Module
    channels: int
    layout: str | None

    @property
    def values(self) -> nn.Module:
        """The module that holds the parameters: MinkowskiBatchNorm has its own one level down."""
        inner = getattr(self.module, "bn", None)
        return inner if isinstance(inner, nn.Module) else self.module

    @torch.no_grad()
    def carry(self, new: nn.Module) -> str:
        """Give a new norm device, dtype, mode, eps, weight, bias and running statistics."""
        old = self.values
        tensors = {name: getattr(old, name, None) for name in ("weight", "bias", *RUNNING)}
        like = next((t for t in tensors.values() if isinstance(t, Tensor)), None)
        if like is not None:
            dtype = like.dtype if like.is_floating_point() else None
            new.to(device=like.device, dtype=dtype)
        new.train(self.module.training)
        eps = getattr(old, "eps", MINKOWSKI_EPS if _named(old, "MinkowskiInstanceNorm") else None)
        parts: list[tuple[Any, slice]] = [(new, slice(None))]
        if isinstance(new, InstanceBatchNorm):
            split = 0 if new.instance is None else new.instance.num_features
            parts = [(new.instance, slice(0, split)), (new.batch, slice(split, None))]
        carried = False
        for part, where in parts:
            if eps is not None and hasattr(part, "eps"):
                part.eps = eps
            for name, value in tensors.items():
                target = getattr(part, name, None)
                if isinstance(target, Tensor) and isinstance(value, Tensor):
                    value = value.flatten()[where] if value.ndim else value
                    if value.shape == target.shape:
                        target.copy_(value)
                        carried |= name == "weight"
        if not any(True for _ in new.parameters()):
            return "none"
        return "kept" if carried else "fresh"


def source_of(module: nn.Module, parent: nn.Module | None) -> Source | None:
    """Return what a module is as a norm, or None where it is none."""
    kind = type(module)
    if kind.__name__ in ("MinkowskiBatchNorm", "MinkowskiSyncBatchNorm"):
        return Source(module, _width(module.bn), "sparse")
    if kind.__name__ == "MinkowskiInstanceNorm":
        return Source(module, _width(module), "sparse")
    in_spconv = kind.__module__.startswith("spconv.") or _named(parent, "SparseSequential")
    if isinstance(module, _BatchNorm) and in_spconv:
        return Source(module, module.num_features, "spconv")
    if isinstance(module, nn.GroupNorm):
        return Source(module, module.num_channels, "channels first")
    if isinstance(module, CHANNELS_FIRST):
        return Source(module, _width(module), "channels first")
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return Source(module, module.normalized_shape[-1], None)
    if isinstance(module, UNKNOWN):
        return Source(module, _width(module), None)
    return None


def _width(norm: Any) -> int:
    return int(norm.num_features)


def inside(source: Source, new: nn.Module) -> nn.Module:
    """Return the new norm as it can stand where the old one stood."""
    if source.layout != "spconv":
        return new
    wrapped: nn.Module = import_module("geonorm.convert.for_spconv").WholeTensor(new)
    return wrapped


def _named(module: nn.Module | None, name: str) -> bool:
    return type(module).__name__ == name
