"""Instance norm broken on purpose: statistics over the whole batch under instance norm's name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from geonorm.functional import normalize_axes
from geonorm.inputs import Input, read
from geonorm.norms.adaptive_instance_norm import AdaptiveInstanceNorm
from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.style import StyleStatistics, fit_style, style_statistics


@contextmanager
def broken_instance_norm() -> Iterator[None]:
    """Let all instance norms, adaptive and axis norms too, mix a batch's instances meanwhile."""
    ours, along_axes = InstanceNorm.forward, AxisInstanceNorm.forward
    adaptive = AdaptiveInstanceNorm.forward

    def over_batch(self: InstanceNorm, x: Any, batch_index: Tensor | None = None, *,
                   num_instances: int | None = None, residual: Any = None,
                   point_weights: Tensor | None = None) -> Any:  # fmt: skip
        given = read(x, batch_index, num_instances, self)
        if residual is not None:
            _, residual = given.with_residual(residual)
        if given.instance is None:
            added = None if residual is None else _as_one(residual)
            return ours(self, _as_one(x), residual=added).squeeze(0).movedim(1, 0)
        together = torch.zeros_like(given.instance)
        return given.rebuild(ours(self, given.features, together, num_instances=1,
                                  residual=residual, point_weights=point_weights))

    def over_batch_and_axes(
        self: AxisInstanceNorm, x: Tensor, *, residual: Tensor | None = None
    ) -> Tensor:
        if x.ndim != len(self.layout):
            raise ValueError(f"the broken norm takes {self.layout}; got {tuple(x.shape)}")
        batch = self._ordered(x)
        added = None if residual is None else _as_one(self._ordered(residual))
        axes = [2, *(axis + 1 for axis in self._axes)]
        out = normalize_axes(_as_one(batch), axes, self.weight, self.bias, self.eps,
                             self.activation, self.negative_slope, added)
        return out.squeeze(0).movedim(1, 0).permute(self._back)

    def over_batch_in_style(
        self: AdaptiveInstanceNorm, content: Any, style: Any, batch_index: Tensor | None = None
    ) -> Any:
        given = read(content, batch_index, norm=self)
        norm = InstanceNorm(self.num_features, self.eps, affine=False)
        return in_style(given, norm(given.features, given.instance), style)

    InstanceNorm.forward = over_batch  # type: ignore[method-assign]
    AxisInstanceNorm.forward = over_batch_and_axes  # type: ignore[method-assign]
    AdaptiveInstanceNorm.forward = over_batch_in_style  # type: ignore[assignment]
    try:
        yield
    finally:
        InstanceNorm.forward = ours  # type: ignore[method-assign]
        AxisInstanceNorm.forward = along_axes  # type: ignore[method-assign]
        AdaptiveInstanceNorm.forward = adaptive  # type: ignore[method-assign]


def in_style(given: Input, plain: Tensor, style: Any) -> Any:
    """Return a content whose features are normalized already in a style.

    Args:
        given: the content.
        plain: its normalized features.
        style: `StyleStatistics`, or anything that `style_statistics` takes.
    """
    wanted = style if isinstance(style, StyleStatistics) else style_statistics(style)
    std, mean = fit_style(wanted, given.features, given.num_instances)
    if given.instance is None:
        shape = (*std.shape, *[1] * (plain.ndim - 2))
        return given.rebuild(plain * std.view(shape) + mean.view(shape))
    return given.rebuild(plain * std[given.instance] + mean[given.instance])


def _as_one(x: Tensor) -> Tensor:
    """Return (B, C, ...) as one instance, (1, C, B, ...)."""
    return x.movedim(0, 1).unsqueeze(0)
