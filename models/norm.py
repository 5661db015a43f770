"""The `norm` argument of every backbone, and a norm with the ReLU that follows it."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.functional import Activation, finish
from geonorm.inputs import read
from geonorm.names import choices
from geonorm.norms.base import Norm as GeonormNorm
from geonorm.norms.registry import NORMS, PLACED, Build

Norm = str | Build | Mapping[str, str | Build]
InputNorm = str | Build | Mapping[int, str | Build]
MakeNorm = Callable[..., Any]  # of a number of channels and perhaps place=, activation=

DEFAULT = "default"


def resolve(
    norm: Norm,
    stage: str,
    num_features: int,
    stages: Mapping[str, str],
    place: str = "inner",
    activation: Activation | None = None,
    names: Mapping[str, Build] = NORMS,
) -> nn.Module | None:
    """Build the norm that `norm` asks for at one stage of a backbone.

    A mapping is read from the particular to the general: the stage itself, then its group, then
    `"default"`. Every key of it is checked, so a misspelt one is never ignored.

    Args:
        norm: a name in the registry; a callable taking the number of channels and returning a
            module; or a mapping whose values are either and whose keys are stages, groups or
            `"default"`.
        stage: the stage being built, a key of `stages`.
        num_features: channels of the features to normalize.
        stages: every stage of the backbone and the group it belongs to.
        place: where in the network, as in `geonorm.norms.registry.Placed`; a norm after the sum is
            None unless the name asks for one there.
        activation: what follows the norm there. A norm of this library takes it over; after any
            other norm it is left to `norm_act`.
        names: what each name builds, given the number of channels.

    Raises:
        ValueError: for an unknown name or stage (listing the known ones and the nearest), or a
            mapping that says nothing about this stage; for a callable that builds a norm with an
            activation of its own.
        TypeError: for any other kind of `norm`, or a callable that does not return a module.

    Example:
        >>> stages = {"stem": "stem", "layer1": "encoder", "layer2": "encoder"}
        >>> norm = {"default": "batch", "layer2": "none"}
        >>> resolve(norm, "layer2", 8, stages, activation="relu")
        NoNorm(8, activation='relu')
    """
    if isinstance(norm, Mapping):
        norm = _of_stage(norm, stage, stages)
    if isinstance(norm, str):
        build = _named(norm, place, names)
    elif callable(norm):
        build = None if place == "sum" else norm
    else:
        raise TypeError(
            f"norm must be a name, a callable taking the number of channels, or a mapping from "
            f"stage to either; got {type(norm).__name__}"
        )
    if build is None:
        return None
    module = build(num_features)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"norm must return a torch.nn.Module when called with the number of channels; "
            f"{norm!r} returned {type(module).__name__}"
        )
    if getattr(module, "activation", None) is not None:
        raise ValueError(
            f"norm built {type(module).__name__} with activation={module.activation!r}; the "
            "network adds its own: leave it out"
        )
    if isinstance(module, GeonormNorm):
        module.set_activation(activation)
    return module


class ChannelNorms(nn.Module):
    """Norms of some channels of an input, each seeing one channel; the others stay as they are.

    Args:
        norms: each built for one channel, by the number of its channel.

    Shape:
        Dense (B, C, …) or anything sparse that these norms take, and the same kind again.
    """

    def __init__(self, norms: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({str(channel): norm for channel, norm in norms.items()})

    def forward(self, x: Any, point_weights: Tensor | None = None) -> Any:
        """Return x with these channels normalized.

        Args:
            x: the input.
            point_weights: how often each point counts, for norms that take them.
        """
        given = read(x)
        channels = [*given.features.split(1, dim=1)]
        for channel, norm in self.norms.items():
            one = given.rebuild(channels[int(channel)])
            channels[int(channel)] = read(norm(one, **weights_for(norm, point_weights))).features
        return given.rebuild(torch.cat(channels, dim=1))


def weights_for(norm: nn.Module, weights: Tensor | None) -> dict[str, Tensor]:
    """Return the weights of points as an argument of a norm, if there are any and it takes them."""
    if weights is None or "point_weights" not in signature(norm.forward).parameters:
        return {}
    return {"point_weights": weights}


def resolve_input(
    norm: InputNorm | None, num_features: int, names: Mapping[str, Build] = NORMS
) -> nn.Module | None:
    """Build the norm of a backbone's raw input, or None where there shall be none.

    A norm inside a network cannot undo the gain of one of several input channels, which the first
    convolution has mixed with the others; one of the input takes it out of each.

    Args:
        norm: a name in the registry; a callable taking the number of channels; or a mapping from
            the number of a channel to either, which then is for this channel alone.
        num_features: channels of the input.
        names: what each name builds.

    Raises:
        ValueError: for an unknown name, or a channel that the input does not have.
        TypeError: for any other kind of norm, or a callable that does not return a module.

    >>> resolve_input("instance", 3)
    InstanceNorm(3, eps=1e-05, affine=True)
    """
    if norm is None:
        return None
    if not isinstance(norm, Mapping):
        return resolve(norm, "input", num_features, {"input": "input"}, names=names)
    for channel, one in norm.items():
        if type(channel) is not int or not (isinstance(one, str) or callable(one)):
            raise TypeError(
                "input_norm must be a name, a callable taking the number of channels, or a mapping "
                f"from numbers of channels to either; got {{{channel!r}: {one!r}}}"
            )
        if not 0 <= channel < num_features:
            raise ValueError(
                f"input_norm is for channels 0 to {num_features - 1} of the input; got {channel}"
            )
    if not norm:
        raise ValueError("input_norm must name at least one channel; got an empty mapping")
    built = {channel: resolve_input(one, 1, names) for channel, one in sorted(norm.items())}
    return ChannelNorms({channel: one for channel, one in built.items() if one is not None})


def _of_stage(norm: Mapping[str, str | Build], stage: str, stages: Mapping[str, str]) -> Any:
    """Return what a mapping says of a stage."""
    for key in norm:
        if key not in (known := {*stages, *stages.values(), DEFAULT}):
            raise ValueError(f"norm has no stage {key!r}; {choices(key, known)}")
    keys = [key for key in (stage, stages[stage], DEFAULT) if key in norm]
    if not keys:
        raise ValueError(
            f"norm, a mapping with keys {sorted(norm)}, says nothing about stage {stage!r}; "
            f"add {stages[stage]!r} or {DEFAULT!r} to it"
        )
    return norm[keys[0]]


def _named(name: str, place: str, names: Mapping[str, Build]) -> Build | None:
    """Return what builds the norm of a name at a place; None where there is no norm."""
    if name not in {*names, *PLACED}:
        raise ValueError(f"norm {name!r} is unknown; {choices(name, {*names, *PLACED})}")
    placed = PLACED.get(name)
    if placed is None:
        return None if place == "sum" else names[name]
    if place in placed.at:
        return placed.at[place]
    return None if place == "sum" else names[placed.default]


def norm_act(norm: nn.Module, x: Any, residual: Any = None, **options: Any) -> Any:
    """Return relu(norm(x) + residual), in one pass where the norm does it all.

    A norm whose activation is "relu" does; after any other, residual and ReLU follow separately.

    Args:
        norm: of this library or any other.
        x: what it takes.
        residual: of x's kind and shape; None for none.
        options: further arguments of the norm.
    """
    if getattr(norm, "activation", None) == "relu":
        if residual is not None:
            options["residual"] = residual
        return norm(x, **options)
    given = read(norm(x, **options))
    return finish(given, given.features, residual, "relu", 0.0)
