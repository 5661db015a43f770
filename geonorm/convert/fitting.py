"""Affine parameters for new norms that bring their outputs nearest to those of the old ones."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.inputs import read
from geonorm.modes import in_evaluation
from geonorm.norms.base import Norm

Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Changes:
    """Relative changes on the data: of the model's output, kept and fitted, and of each norm's.

    A norm that the data never reach has None.
    """

    kept: float
    fitted: float
    norms: dict[str, float | None]


class _Fit:
    """Least squares of t on z per channel: sums in float64 of z, t, z², zt and t²."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.count = 0
        self.sums = torch.zeros(5, channels, dtype=torch.float64, device=device)

    def add(self, z: Tensor, t: Tensor) -> None:
        self.count += len(z)
        z, t = z.double(), t.double()
        self.sums += torch.stack([v.sum(0) for v in (z, t, z * z, z * t, t * t)])

    def solve(self) -> tuple[Tensor, Tensor, float]:
        """Return weight, bias and what remains, relative to t."""
        z, t, zz, zt, tt = self.sums / max(self.count, 1)
        var = zz - z * z  # z is normalized: its square is no larger than its variance
        weight = torch.where(var > 1e-12, (zt - z * t) / var.clamp(min=1e-12), 0)
        bias = t - weight * z
        rest = tt - 2 * (weight * zt + bias * t) + weight * (weight * zz + 2 * bias * z) + bias**2
        return weight, bias, float((rest.clamp(min=0).sum() / tt.sum().clamp(min=1e-30)).sqrt())


class Recalibration:
    """Runs a model on data before and after its norms are replaced.

    Args:
        model: what is converted.
        data: its inputs.
        forward: calls the model on one input.
    """

    def __init__(
        self, model: nn.Module, data: Iterable[Any], forward: Forward | None
    ) -> None:
        self.model, self.data = model, [*data]
        self.forward: Forward = forward or (lambda model, item: model(item))
        if not self.data:
            raise ValueError("data for recalibration must hold one input or more; got none")

    def fit(
        self, old: dict[str, nn.Module], new: dict[str, nn.Module], put: Callable[[], None]
    ) -> Changes:
        """Fit weight and bias of every new norm to the output of the old one at its place.

        Every norm is fitted on the inputs that the unchanged model gives it. Parameters are fitted
        only where that changes the model's output less than the old ones do.
        """
        cores: dict[str, Any] = dict(new)
        _refuse_unfit(cores)
        with in_evaluation((*self.model.modules(), *cores.values())):
            return self._fitted(old, cores, put)

    def _fitted(
        self, old: dict[str, nn.Module], cores: dict[str, Any], put: Callable[[], None]
    ) -> Changes:
        before, fits = self._watched(old, cores)
        put()
        kept = _distance(self._outputs(), before)
        held = {name: (core.weight.clone(), core.bias.clone()) for name, core in cores.items()}
        norms: dict[str, float | None] = {}
        for name, core in cores.items():
            norms[name] = None
            if fits[name].count:  # a norm that the data never reach has nothing to be fitted to
                weight, bias, norms[name] = fits[name].solve()
                _set(core, weight, bias)
        fitted = _distance(self._outputs(), before)
        if not fitted < kept:
            for name, core in cores.items():
                _set(core, *held[name])
        return Changes(kept, fitted, norms)

    def _watched(
        self, old: dict[str, nn.Module], cores: dict[str, Any]
    ) -> tuple[list[Tensor], dict[str, _Fit]]:
        """Run the unchanged model; return its outputs and what every norm is to be fitted to."""
        fits = {name: _Fit(core.weight.numel(), core.weight.device)
                for name, core in cores.items()}
        hooks = [module.register_forward_hook(_watch(cores[name], fits[name]), with_kwargs=True)
                 for name, module in old.items()]
        try:
            return self._outputs(), fits
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def _outputs(self) -> list[Tensor]:
        outputs = []
        for item in self.data:
            out = self.forward(self.model, item)
            outputs.append((out if isinstance(out, Tensor) else read(out).features).double())
        return outputs


def _refuse_unfit(cores: dict[str, Any]) -> None:
    """Refuse norms without a weight and a bias per channel."""
    for name, core in cores.items():
        weight, bias = getattr(core, "weight", None), getattr(core, "bias", None)
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor) or weight.ndim != 1:
            raise ValueError(
                f"recalibration needs norms with a weight and a bias per channel; "
                f"{type(core).__name__} at {name!r} has none. Leave data out"
            )


@torch.no_grad()
def _set(core: Any, weight: Tensor, bias: Tensor) -> None:
    core.weight.copy_(weight)
    core.bias.copy_(bias)


def _watch(core: Any, fit: _Fit) -> Callable[..., None]:
    """Return a hook that adds to the sums what old and new norm make of the old one's input.

    Both without what follows them: a residual and an activation are the same for either.
    """

    @torch.no_grad()
    def hook(
        module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        weight, bias = core.weight.clone(), core.bias.clone()
        _set(core, torch.ones_like(weight), torch.zeros_like(bias))
        options = {name: value for name, value in options.items() if name != "residual"}
        with _bare(core), _bare(module):
            z, t = core.forward(*inputs, **options), module.forward(*inputs, **options)
        _set(core, weight, bias)
        fit.add(_rows(core, z), _rows(core, t))

    return hook


@contextmanager
def _bare(norm: nn.Module) -> Iterator[None]:
    """Run a norm without the activation and the dropout inside it."""
    parts = {name: part for name in ("act", "drop")
             if isinstance(part := getattr(norm, name, None), nn.Module)}
    tail = (norm.activation, norm.negative_slope) if isinstance(norm, Norm) else None
    try:
        for name in parts:
            setattr(norm, name, nn.Identity())
        if isinstance(norm, Norm):
            norm.set_activation(None)
        yield
    finally:
        for name, part in parts.items():
            setattr(norm, name, part)
        if isinstance(norm, Norm) and tail is not None:
            norm.set_activation(*tail)


def _rows(core: nn.Module, x: Any) -> Tensor:
    """Return features as a matrix with a column per channel."""
    if not isinstance(x, Tensor):
        return read(x).features
    channel = getattr(core, "layout", "BC").index("C")
    rows: Tensor = x.movedim(channel, -1).flatten(0, -2)
    return rows


def _distance(after: list[Tensor], before: list[Tensor]) -> float:
    """Return ‖after − before‖ / ‖before‖ over all outputs."""
    moved = sum(float((a - b).square().sum()) for a, b in zip(after, before, strict=True))
    size = sum(float(b.square().sum()) for b in before)
    return float((moved / max(size, 1e-30)) ** 0.5)
