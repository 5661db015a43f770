"""Let a model's MinkowskiEngine convolutions run on geonorm's operator."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from torch import nn


@dataclass(frozen=True)
class SpeedUpReport:
    """The result of `speed_up`, to print.

    Attributes:
        changed: the names of the convolutions that now run on the operator.
        left: of every other module of MinkowskiEngine that has a kernel, and why it was left.
    """

    changed: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.changed)} convolutions sped up, {len(self.left)} left"]
        width = max((len(name) for name in self.left), default=0)
        lines += [f"  {name:<{width}}  left: {reason}" for name, reason in self.left.items()]
        return "\n".join(lines)


def speed_up(model: nn.Module, *, cuda: bool = False) -> SpeedUpReport:
    """Let a model's MinkowskiEngine convolutions run on geonorm's operator, in place.

    The modules stay the same objects with the same parameters, hooks and keys of the state dict;
    only their class becomes a subclass of the one they had. The results are MinkowskiEngine's up to
    rounding, faster on a CPU, the same for any number of threads, and in half precision under
    autocast.

    Args:
        model: built of MinkowskiEngine's modules.
        cuda: on CUDA tensors too. By default those go through MinkowskiEngine as before, since the
            operator is plain torch there and has not been timed on a GPU.

    Raises:
        ImportError: MinkowskiEngine cannot be imported.
        ValueError: the model has none of its convolutions.

    Pooling, channelwise and generative convolutions are left, and so are subclasses, which may do
    more than their base class; the report names them.
    """
    engine = import_module("MinkowskiEngine")
    ours = import_module("geonorm.sparse_convolution")
    successors = {
        engine.MinkowskiConvolution: ours.SparseConvolution,
        engine.MinkowskiConvolutionTranspose: ours.SparseConvolutionTranspose,
    }
    changed, left = [], {}
    for name, module in model.named_modules():
        if isinstance(module, (ours.SparseConvolution, ours.SparseConvolutionTranspose)):
            module.engine = "geonorm" if cuda else "auto"
            changed.append(name)
        elif (successor := successors.get(type(module))) is not None:
            if "forward" in vars(module):
                left[name] = "its forward was replaced"
                continue
            module.__class__ = successor
            module.engine = "geonorm" if cuda else "auto"
            changed.append(name)
        elif (reason := _reason(engine, module)) is not None:
            left[name] = reason
    if not changed and not left:
        raise ValueError(
            f"{type(model).__name__} has no convolution of MinkowskiEngine, "
            "MinkowskiConvolution or MinkowskiConvolutionTranspose"
        )
    return SpeedUpReport(tuple(changed), left)


def _reason(engine: ModuleType, module: nn.Module) -> str | None:
    """Return why a module with a kernel is left; None for modules without one."""
    kind = type(module).__name__
    if not hasattr(module, "kernel_generator"):
        return None
    if isinstance(module, engine.MinkowskiGenerativeConvolutionTranspose):
        return f"{kind} makes coordinates of its own"
    if isinstance(module, engine.MinkowskiConvolution.__base__):
        return f"{kind} is a subclass, which may do more than its base class"
    return f"{kind} is no convolution that the operator computes"
