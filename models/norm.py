"""The `norm` argument of every backbone: a name, a callable, or a mapping from stage to either."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from geonorm import InstanceBatchNorm, InstanceNorm
from geonorm.norms.registry import NORMS

NormFactory = Callable[[int], nn.Module]
Norm = str | NormFactory | Mapping[str, str | NormFactory]

DEFAULT = "default"


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
    at: Mapping[str, NormFactory]


Names = Mapping[str, NormFactory | Placed]

# The names that mean the same in every backbone. Its own table adds "instance" and "batch".
FAMILY: dict[str, NormFactory | Placed] = {
    **{name: NORMS[name] for name in ("divisive", "group", "layer", "none", "sync-batch")},
    "ibn-a": Placed("batch", {"first": InstanceBatchNorm}),
    "ibn-b": Placed("batch", {"stem": InstanceNorm, "sum": InstanceNorm}),
}


def resolve(
    norm: Norm,
    stage: str,
    num_features: int,
    names: Names,
    stages: Mapping[str, str],
    place: str = "inner",
) -> nn.Module | None:
    """Build the norm that `norm` asks for at one stage of a backbone.

    A mapping is read from the particular to the general: the stage itself, then its group, then
    `"default"`. Every key of it is checked, so a misspelt one is never ignored.

    Args:
        norm: a key of `names`; a callable taking the number of channels and returning a module;
            or a mapping whose values are either and whose keys are stages, groups or `"default"`.
        stage: the stage being built, a key of `stages`.
        num_features: channels of the features to normalize.
        names: what each name builds, given the number of channels.
        stages: every stage of the backbone and the group it belongs to.
        place: where in the network, as in `Placed`; a norm after the sum is None unless the name
            asks for one there.

    Raises:
        ValueError: for an unknown name or stage (listing the known ones and the nearest), or a
            mapping that says nothing about this stage.
        TypeError: for any other kind of `norm`, or a callable that does not return a module.

    Example:
        >>> names = {"batch": nn.BatchNorm3d, "none": lambda channels: nn.Identity()}
        >>> stages = {"stem": "stem", "layer1": "encoder", "layer2": "encoder"}
        >>> norm = {"default": "batch", "layer2": "none"}
        >>> resolve(norm, "layer2", 8, names, stages)
        Identity()
    """
    if isinstance(norm, Mapping):
        for key in norm:
            if key not in (known := {*stages, *stages.values(), DEFAULT}):
                raise ValueError(f"norm has no stage {key!r}; {_choices(key, known)}")
        keys = [key for key in (stage, stages[stage], DEFAULT) if key in norm]
        if not keys:
            raise ValueError(
                f"norm, a mapping with keys {sorted(norm)}, says nothing about stage {stage!r}; "
                f"add {stages[stage]!r} or {DEFAULT!r} to it"
            )
        norm = norm[keys[0]]
    if isinstance(norm, str):
        if norm not in names:
            raise ValueError(f"norm {norm!r} is unknown; {_choices(norm, names)}")
        placed = names[norm]
        if isinstance(placed, Placed):
            if place in placed.at:
                return placed.at[place](num_features)
            norm = placed.default
        return None if place == "sum" else names[norm](num_features)
    if not callable(norm):
        raise TypeError(
            f"norm must be a name, a callable taking the number of channels, or a mapping from "
            f"stage to either; got {type(norm).__name__}"
        )
    if place == "sum":
        return None
    module = norm(num_features)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"norm must return a torch.nn.Module when called with the number of channels; "
            f"{norm!r} returned {type(module).__name__}"
        )
    return module


def _choices(wrong: object, known: Iterable[str]) -> str:
    """List the known names and, where one is near, say which was probably meant."""
    known = sorted(known)
    near = get_close_matches(str(wrong), known, n=1)
    return f"choose from {known}" + (f". Did you mean {near[0]!r}?" if near else "")
