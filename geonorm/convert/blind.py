"""Find norms beside a global pool, where instance norm leaves nothing of the input."""

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.instance_norm import InstanceNorm

_MEANS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_MAXIMA = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_TIMMS = "SelectAdaptivePool2d"
# A mean of their output is the mean of their input, or near it.
_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_PERMUTE = "Permute"  # torchvision's


def blind_norms(model: nn.Module, norms: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return the instance norms directly before a global mean or behind a pool, and each's pool.

    A mean over the positions that were normalized is the bias, whatever the input; so is what is
    normalized over the one position that a global mean or maximum leaves. The order is that of an
    `nn.Sequential`, or else that in which a module's own children were defined: most networks
    call them so, but one whose `forward` puts a function between the two is not blind there.

    Args:
        model: the network.
        norms: which of its modules to look at, by name.
    """
    found = {}
    for name, parent in model.named_modules():
        steps = [step for step in _steps(name, parent) if not _passes(step[1])]
        for i, (place, module) in enumerate(steps):
            if place not in norms or not _takes_the_mean(module):
                continue
            before = [pool for pool, other in steps[i + 1 : i + 2] if _global(other) == "mean"]
            behind = [pool for pool, other in steps[max(i - 1, 0) : i] if _global(other)]
            if pools := [*before, *behind]:
                found[place] = pools[0]
    return found


def _steps(name: str, parent: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module's children in order of definition, an `nn.Sequential`'s own in its place."""
    for key, child in parent.named_children():
        path = f"{name}.{key}" if name else key
        if type(child).forward is nn.Sequential.forward:
            yield from _steps(path, child)
        else:
            yield path, child


def _passes(module: nn.Module) -> bool:
    name = type(module).__name__
    none = name == _TIMMS and not module.pool_type
    return none or name == _PERMUTE or isinstance(module, _PASSING)


def _takes_the_mean(module: nn.Module) -> bool:
    """Tell whether a norm leaves every instance and channel a mean of its own: its bias."""
    kinds = (InstanceNorm, AxisInstanceNorm, _InstanceNorm)
    return isinstance(module, kinds) and getattr(module, "activation", None) is None


def _global(module: nn.Module) -> str | None:
    """Return "mean" or "other" for a pool that leaves one position, None for anything else."""
    name = type(module).__name__
    if name.startswith("MinkowskiGlobal") and hasattr(module, "pooling_mode"):
        return "mean" if "AVG" in str(module.pooling_mode) else "other"
    if name == _TIMMS:
        return "mean" if module.pool_type in ("fast", "avg", "fastavg") else "other"
    if not isinstance(module, _MEANS + _MAXIMA):
        return None
    size = module.output_size
    if any(side != 1 for side in (size if isinstance(size, tuple) else (size,))):
        return None
    return "mean" if isinstance(module, _MEANS) else "other"
