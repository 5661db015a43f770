"""Replace a model's norms in place and report how its output changes."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from geonorm.convert.blind import blind_norms
from geonorm.convert.fitting import Recalibration
from geonorm.convert.sources import Source, source_of
from geonorm.convert.transfer import entries
from geonorm.names import did_you_mean
from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.domain_norm import DomainBatchNorm
from geonorm.norms.registry import builder
from geonorm.tables import as_html

Build = Callable[[int], nn.Module]
Where = Any  # str | type | tuple[type, ...] | slice | Callable[[str, nn.Module], bool] | Iterable
SHOWN = 6


@dataclass(frozen=True)
class Conversion:
    """One norm that was replaced.

    Attributes:
        name: where in the model.
        source: the type that stood there.
        target: the type that stands there now.
        affine: "kept", "fitted" to data, "fresh" where there was nothing to keep, or "none".
        carried: what else was carried over, such as "activation relu, hooks"; else empty.
        change: how far the fit left this norm's output from the old one's on the recalibration
            data, relative to its size; None without data.
    """

    name: str
    source: str
    target: str
    affine: str
    carried: str = ""
    change: float | None = None


@dataclass(frozen=True)
class ConversionReport:
    """The result of `convert`, to print.

    Attributes:
        rows: every norm that was replaced, in the model's order.
        kept_change: ‖new − old‖ / ‖old‖ of the model's output on the data with the old weights and
            biases; None without data.
        fitted_change: the same with the fitted ones. The model has those of the smaller change.
        blind: new instance norms that stand directly before a global mean or behind a global pool,
            each with the name of that pool; nothing passes there but their bias.
    """

    rows: tuple[Conversion, ...]
    kept_change: float | None = None
    fitted_change: float | None = None
    blind: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{len(self.rows)} norms converted"]
        for row in self.rows:
            line = f"  {row.name:<{width}}  {row.source} -> {row.target}, affine {row.affine}"
            line += f", {row.carried} carried over" if row.carried else ""
            line += "" if row.change is None else f", changed by {row.change:.2g}"
            lines.append(line)
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        """Return the report as a table, for notebooks."""
        data = any(row.change is not None for row in self.rows)
        heads = ["norm", "before", "now", "affine", "carried over", *(["change"] if data else [])]
        lines = [
            [row.name, row.source, row.target, row.affine, row.carried,
             *(["" if row.change is None else f"{row.change:.2g}"] if data else [])]
            for row in self.rows
        ]  # fmt: skip
        return as_html([heads, *lines], [f"{len(self.rows)} norms converted", *self._notes()])

    def _notes(self) -> list[str]:
        """Return what is said of the whole model."""
        if self.kept_change is None or self.fitted_change is None:
            return [*self.warnings]
        return [
            f"the model's output changed by {self.kept_change:.3g} with the old affine "
            f"parameters, by {self.fitted_change:.3g} with fitted ones",
            *self.warnings,
        ]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to mend, in words."""
        return tuple(
            f"{name!r} stands beside the global pool {pool!r}: an instance norm lets nothing "
            "through there but its bias. Leave it out with where="
            for name, pool in self.blind.items()
        )


def convert(
    model: nn.Module,
    to: str | Build = "instance",
    where: Where = None,
    *,
    layout: str | None = None,
    data: Iterable[Any] | None = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> ConversionReport:
    """Replace a model's norm layers in place and report how its output changes.

    Weight and bias are per channel in batch, instance, group and layer norm alike and are carried
    over, and so are eps, activations inside a norm, hooks, and all that stands on a parameter: its
    dtype and device, `requires_grad`, ties, attributes. Running statistics go from batch norm to
    batch norm. With `data`, weight and bias are fitted instead, so that a trained model's function
    changes less: each norm's output comes as near to the old one's, in least squares per channel,
    as an affine map can bring it.

    Args:
        model: torch's, torchvision's, timm's, MinkowskiEngine's or spconv's.
        to: a name ("instance", "batch", "ibn-a", "group", "layer", "divisive", "sync-batch",
            "none") or a callable that takes the number of channels.
        where: which norms; all by default. A module's name or pattern of names ("layer1",
            "*.downsample.*"), a type or tuple of types, a slice by depth (the order of definition),
            a callable of name and module, or a list of any of these, of which one must hold.
        layout: the letters of what goes into norms that do not tell, B and C among them, such as
            "BTHWC" for the layer norms of a video transformer; to "instance" only.
        data: inputs for recalibration; the model runs on each, twice more after conversion.
        forward: calls the model on one input; `model(input)` by default.

    Raises:
        ValueError: for an unknown name; a model or a `where` without norms (listing them); norms
            whose layout cannot be known (listing them): of rows without their instances, and of
            transformers, whose channels may be first or last; norms that do more than their base
            class (naming them), such as subclasses with a forward of their own and parametrized
            ones; a model that is itself a norm; data for norms that cannot be fitted. Nothing of
            the model has changed then.
        TypeError: where `to` does not build a module.

    A norm used in several places stays one norm. Norms inside others are left to these. A
    UserWarning names every instance norm that stands directly before a global mean, such as the
    last norm of a Swin transformer, or behind a global pool, such as the first of ConvNeXt's
    classifier: nothing but its bias passes there, whatever the input. Leave it out:
    ``where=lambda name, norm: name != "norm"``.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
    >>> print(convert(model))
    1 norms converted
      1  BatchNorm2d -> InstanceNorm, affine kept
    """
    build = to if callable(to) else builder(to)
    chosen = _choose(_norms(model), where)
    sources = {name: found for name, module in chosen.items()
               if (found := source_of(module, _parent(model, name))) is not None}
    _refuse_obstacles(sources)
    _refuse_unknown(sources, layout, to)
    if data is not None:
        _refuse_unfit(sources)
    recalibration = None if data is None else Recalibration(model, data, forward)
    rows: list[Conversion] = []
    made: dict[str, nn.Module] = {}
    cores: dict[str, nn.Module] = {}
    for name, module in chosen.items():
        core = _build(build, sources[name], layout)
        new, affine, carried = sources[name].replace(core, copy=data is not None)
        made[name], cores[name] = new, core
        rows.append(Conversion(name, type(module).__name__, type(core).__name__, affine, carried))
    if recalibration is None:
        _put(model, chosen, made)
        return _warned(ConversionReport(tuple(rows), blind=blind_norms(model, cores)))
    changes = recalibration.fit(chosen, cores, lambda: _put(model, chosen, made))
    better = changes.fitted < changes.kept
    rows = [
        replace(row, affine="fitted" if better else row.affine, change=change)
        if (change := changes.norms[row.name]) is not None else row for row in rows
    ]
    blind = blind_norms(model, cores)
    return _warned(ConversionReport(tuple(rows), changes.kept, changes.fitted, blind))


def _warned(report: ConversionReport) -> ConversionReport:
    """Return a report after warning of what it found."""
    for text in report.warnings:
        warnings.warn(text, UserWarning, stacklevel=3)
    return report


def _norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return every norm of a model by its first name, but for norms inside norms."""
    found: dict[str, nn.Module] = {}
    closed: list[str] = []  # what stands inside of these is theirs
    for name, module in model.named_modules():
        if any(name.startswith(f"{outer}.") for outer in closed):
            continue
        if source_of(module, None) is not None:
            found[name] = module
        elif not isinstance(module, DomainBatchNorm):
            continue
        closed.append(name)
    if "" in found:
        raise ValueError(
            f"{type(model).__name__} is itself a norm and cannot be replaced in place; put it into "
            "a module, or build the other norm"
        )
    if not found:
        raise ValueError(f"{type(model).__name__} holds no norms")
    return found


def _choose(norms: dict[str, nn.Module], where: Where) -> dict[str, nn.Module]:
    """Return the norms that `where` selects, of which there is at least one."""
    names = [*norms]

    def holds(name: str, condition: Where) -> bool:
        if condition is None:
            return True
        if isinstance(condition, str):
            return fnmatchcase(name, condition) or name.startswith(f"{condition}.")
        if isinstance(condition, type):
            return isinstance(norms[name], condition)
        if isinstance(condition, slice):
            return name in names[condition]
        if callable(condition):
            return bool(condition(name, norms[name]))
        return any(holds(name, one) for one in condition)

    chosen = {name: norms[name] for name in names if holds(name, where)}
    if not chosen:
        raise ValueError(
            f"where={where!r} matches none of the {len(names)} norms, {_listed(names)}."
            + did_you_mean(where, names)
        )
    return chosen


def _refuse_obstacles(sources: dict[str, Source]) -> None:
    """Refuse norms that do what would be lost."""
    held = [f"{name!r} ({type(source.module).__name__}): {source.obstacle}"
            for name, source in sources.items() if source.obstacle is not None]
    if held:
        more = f", and {len(held) - SHOWN} more" if len(held) > SHOWN else ""
        raise ValueError(
            f"{len(held)} norms cannot be replaced: {'; '.join(held[:SHOWN])}{more}. Leave them "
            "out with where=, or replace them by hand"
        )


def _refuse_unfit(sources: dict[str, Source]) -> None:
    """Refuse norms that cannot be fitted to data one by one."""
    blind = [name for name, source in sources.items() if source.layout == "spconv"]
    if blind:
        raise ValueError(
            f"spconv's SparseSequential shows {_listed(blind)} features without their instances, "
            "so nothing can be fitted to data; leave data out"
        )
    owner: dict[int, str] = {}
    for name, source in sources.items():
        for value in entries(source.module).values():
            if isinstance(value, nn.Parameter) and owner.setdefault(id(value), name) != name:
                raise ValueError(
                    f"{owner[id(value)]!r} and {name!r} share a parameter, so they cannot be "
                    "fitted to data one by one; leave data out"
                )


def _refuse_unknown(sources: dict[str, Source], layout: str | None, to: str | Build) -> None:
    """Refuse norms that do not say where the channels of their input are, unless one is told."""
    unknown = [name for name, source in sources.items() if source.layout is None]
    if unknown and layout is None:
        kinds = sorted({type(sources[name].module).__name__ for name in unknown})
        raise ValueError(
            f"the layout of what goes into {len(unknown)} norms ({', '.join(kinds)}) cannot be "
            f"known: {_listed(unknown)}. Pass layout=, such as 'BCL' or 'BTHWC', or leave them out "
            "with where=; rows (N, C) on their own do not say which instance they belong to"
        )
    if unknown and to != "instance":
        raise ValueError(f"layout= serves to='instance' alone; got to={to!r}")


def _build(build: Build, source: Source, layout: str | None) -> nn.Module:
    """Return the new norm of a source, as it was built."""
    if source.layout is None and layout is not None:
        axes = "".join(letter for letter in layout if letter not in "BC")
        return AxisInstanceNorm(source.channels, layout=layout, axes=axes)
    new = build(source.channels)
    if not isinstance(new, nn.Module):
        raise TypeError(f"to must build a torch.nn.Module; got {type(new).__name__}")
    return new


def _parent(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def _put(model: nn.Module, old: dict[str, nn.Module], new: dict[str, nn.Module]) -> None:
    """Put every new norm wherever the old one stands."""
    replacement = {id(old[name]): new[name] for name in old}
    for name, module in [*model.named_modules(remove_duplicate=False)]:
        if id(module) in replacement:
            setattr(_parent(model, name), name.rpartition(".")[2], replacement[id(module)])
    _leave_fused_layers(model, {id(module) for module in new.values()})


def _leave_fused_layers(model: nn.Module, new: set[int]) -> None:
    """Let torch's transformer encoders call their norms.

    In inference a layer hands its norms' weights to one kernel, which takes layer norms for
    granted; an encoder packs padded sequences for that kernel.
    """
    changed = [layer for layer in model.modules() if isinstance(layer, nn.TransformerEncoderLayer)
               and {id(layer.norm1), id(layer.norm2)} & new]  # fmt: skip
    for layer in changed:
        layer.activation_relu_or_gelu = 0  # which stands for "some other, not fused"
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder) and {*encoder.layers} & {*changed}:
            encoder.use_nested_tensor = False


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
