"""Recognize the norms of torch, torchvision, timm, MinkowskiEngine, spconv and this library."""

from collections import OrderedDict
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import is_parametrized

from geonorm.convert.transfer import AFFINE, HOOKS, carry, entries
from geonorm.functional import Activation
from geonorm.norms.activated import Activated
from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.base import Norm
from geonorm.norms.batch_norm import BatchNorm, SyncBatchNorm
from geonorm.norms.divisive_norm import DivisiveNorm
from geonorm.norms.group_norm import GroupNorm
from geonorm.norms.instance_batch_norm import InstanceBatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.layer_norm import LayerNorm

OURS = (
    InstanceNorm, AxisInstanceNorm, GroupNorm, LayerNorm, DivisiveNorm, BatchNorm, SyncBatchNorm,
    InstanceBatchNorm, Activated,
)
TORCHS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
MINKOWSKIS = ("MinkowskiBatchNorm", "MinkowskiSyncBatchNorm", "MinkowskiInstanceNorm")
# Subclasses of torch's norms whose forward is their own: what goes in, channels first or last.
KNOWN_FORWARDS = {
    ("timm", "BatchNormAct2d"): "channels first",
    ("timm", "SyncBatchNormAct"): "channels first",
    ("timm", "GroupNorm"): "channels first",
    ("timm", "GroupNorm1"): "channels first",
    ("timm", "GroupNormAct"): "channels first",
    ("timm", "GroupNorm1Act"): "channels first",
    ("timm", "LayerNorm2d"): "channels first",
    ("timm", "LayerNormAct2d"): "channels first",
    ("timm", "LayerNorm"): None,
    ("timm", "LayerNormAct"): None,
    ("torchvision", "LayerNorm2d"): "channels first",
}
FROZEN = ("FrozenBatchNorm2d", "FrozenBatchNormAct2d")  # torchvision's and timm's, buffers alone
TRACKING = (_BatchNorm, InstanceBatchNorm)  # what updates running statistics while it trains


@dataclass(frozen=True)
class Source:
    """A norm that may be replaced.

    Attributes:
        module: the norm.
        channels: number of channels it normalizes.
        layout: "channels first", "sparse", "spconv" (inside its SparseSequential, which must be
            told to hand over the whole tensor), or None where the norm does not tell.
        obstacle: why it cannot be replaced, or None.
    """

    module: nn.Module
    channels: int
    layout: str | None
    obstacle: str | None = None

    @property
    def activation(self) -> Activation | None:
        """The activation inside a norm of ours."""
        return self.module.activation if isinstance(self.module, Norm) else None

    def replace(self, new: nn.Module, *, copy: bool = False) -> tuple[nn.Module, str, str]:
        """Carry all that means the same over to a new norm.

        Returns:
            What stands in the old norm's place, what became of weight and bias, and what else was
            carried over, in words.

        Raises:
            ValueError: the new norm has an activation of its own, or would unfreeze statistics.
        """
        old = self.module
        if getattr(new, "activation", None) is not None:
            raise ValueError(
                f"{type(new).__name__} was built with an activation; leave it out: the activation "
                "of the norm that is replaced is carried over"
            )
        if type(old).__name__ in FROZEN and isinstance(new, TRACKING):
            raise ValueError(
                f"a {type(old).__name__} has frozen statistics, which {type(new).__name__} would "
                "update; leave it out with where="
            )
        affine = carry(old, new, copy=copy)
        words = ["hooks"] if any(getattr(old, name, None) for name in HOOKS) else []
        if self.activation is not None:
            words.insert(0, f"activation {self.activation}")
            new = self._with_activation(new)
        elif isinstance(act := getattr(old, "act", None), nn.Module):
            drop = getattr(old, "drop", None)
            tail = OrderedDict(norm=new, drop=drop, act=act)
            kept = {key: part for key, part in tail.items()
                    if part is not None and not isinstance(part, nn.Identity)}
            words[:0] = [type(part).__name__ for part in list(kept.values())[1:]]
            new = nn.Sequential(OrderedDict(kept)) if len(kept) > 1 else new
        if self.layout == "spconv":
            new = import_module("geonorm.convert.for_spconv").WholeTensor(new)
        return new, affine, ", ".join(words)

    def _with_activation(self, new: nn.Module) -> nn.Module:
        old: Any = self.module
        if not isinstance(new, Norm):
            new = Activated(new, self.channels).train(old.training)
        new.set_activation(old.activation, old.negative_slope)
        return new


def source_of(module: nn.Module, parent: nn.Module | None) -> Source | None:
    """Return what a module is as a norm, or None where it is none."""
    kind = type(module)
    if kind.__name__ in MINKOWSKIS:
        return _checked(module, _width(getattr(module, "bn", module)), "sparse")
    if kind.__name__ in FROZEN:
        return Source(module, _width(module), "channels first")
    in_spconv = kind.__module__.startswith("spconv.") or (
        type(parent).__name__ == "SparseSequential"
    )
    if isinstance(module, _BatchNorm) and in_spconv:
        return _checked(module, _width(module), "spconv")
    if isinstance(module, AxisInstanceNorm):
        first = module.layout.startswith("BC")
        return _checked(module, module.num_features, "channels first" if first else None)
    if isinstance(module, OURS):
        return _checked(module, _width(module), "channels first")
    if not isinstance(module, TORCHS):
        return None
    library = (kind.__module__.partition(".")[0], kind.__name__)
    if library in KNOWN_FORWARDS:
        return _checked(module, _width(module), KNOWN_FORWARDS[library], own_forward=True)
    # BatchNorm1d and the base classes take rows of unknown instances too.
    plain = (nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d,
             nn.InstanceNorm3d, nn.GroupNorm)
    return _checked(module, _width(module), "channels first" if isinstance(module, plain) else None)


def _checked(
    module: nn.Module, channels: int, layout: str | None, *, own_forward: bool = False
) -> Source:
    """Return a source with what stands in the way of replacing it."""
    kind, obstacle = type(module), None
    parameters = {name.removeprefix("bn.") for name, _ in module.named_parameters()}
    base = next(c for c in kind.__mro__ if c in _BASES or c.__name__ in MINKOWSKIS)
    if is_parametrized(module):
        obstacle = "it is parametrized; call torch.nn.utils.parametrize.remove_parametrizations"
    elif not isinstance(module, Norm) and parameters - {*AFFINE}:
        obstacle = f"it has parameters of its own, {sorted(parameters - {*AFFINE})}"
    elif "forward" in vars(module):
        obstacle = "its forward was replaced on the instance"
    elif not own_forward and getattr(kind, "forward", None) is not getattr(base, "forward", None):
        obstacle = f"its forward is not {base.__name__}'s, and what else it does is not known"
    elif channels == 0:
        obstacle = "it is lazy and has seen no input yet; run the model once"
    return Source(module, channels, layout, obstacle)


_BASES = {
    *OURS, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d,
    nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, _BatchNorm,
    _InstanceNorm,
}


def _width(norm: Any) -> int:
    if hasattr(norm, "num_features"):
        return int(norm.num_features)
    if hasattr(norm, "num_channels"):
        return int(norm.num_channels)
    if hasattr(norm, "normalized_shape"):
        return int(norm.normalized_shape[-1])
    return len(next(iter(entries(norm).values())))


def batch_norm_as(kind: type[SyncBatchNorm], module: nn.Module, **options: Any) -> nn.Module:
    """Return a batch norm as another kind of batch norm, with the same tensors.

    Raises:
        ValueError: its forward does what cannot be carried over.
    """
    source = source_of(module, None)
    if source is None or source.obstacle is not None:
        reason = "it is no batch norm" if source is None else source.obstacle
        raise ValueError(f"{type(module).__name__} cannot become {kind.__name__}: {reason}")
    affine = bool(getattr(module, "affine", True))
    return source.replace(kind(source.channels, affine=affine, **options))[0]
