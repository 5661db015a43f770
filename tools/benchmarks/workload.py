"""One shape to measure, and contenders that several suites share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import geonorm
from benchmarks.measure import Contender, forward, forward_backward

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# How often a tensor of the input's size has to be read or written, statistics before output and
# sums before gradient: forward reads twice and writes once, backward reads two of them twice.
UNITS = {"forward": 3.0, "forward+backward": 8.0}


@dataclass
class Workload:
    """A table to be: its names, and how to make its contenders.

    Attributes:
        suite, shape, layout, dtype, work: columns of the CSV.
        baseline: name of the contender that runs twice.
        input_bytes: of the tensor that is normalized, or convolved.
        make: returns the contenders; called only when the table is measured.
        flops: operations of the work, where they are what takes the time.
    """

    suite: str
    shape: str
    layout: str
    dtype: str
    work: str
    baseline: str
    input_bytes: int
    make: Callable[[], list[Contender]]
    flops: int | None = None

    @property
    def columns(self) -> dict[str, str]:
        """Return the CSV columns that name it."""
        return {key: getattr(self, key) for key in ("suite", "shape", "layout", "dtype", "work")}


def timed(
    name: str, work: str, module: Callable[[Any], Any], x: Any, features: Tensor, upstream: Tensor,
    parameters: Sequence[Tensor] = (),
) -> Contender:
    """Return a contender that does the work with a module.

    Args:
        name: of the contender.
        work: a key of UNITS.
        module: takes x.
        x: the features, or a sparse tensor of them.
        features: a leaf that requires a gradient.
        upstream: gradient of the output.
        parameters: further leaves, by default the module's parameters.
    """
    if work == "forward":
        return Contender(name, forward(module, x), UNITS[work])
    known = module.parameters() if isinstance(module, torch.nn.Module) else parameters
    return Contender(name, forward_backward(module, x, [features, *known], upstream), UNITS[work])


def copy(features: Tensor) -> Contender:
    """Return the limit: one tensor read, one written."""
    plain = features.detach()
    return Contender("clone()", plain.clone, 2.0)


class OnReference(torch.nn.Module):
    """Runs a norm on the reference backend, backward included."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Any) -> Any:
        """Return the norm of x; the backend stays forced for backward."""
        geonorm.force_backend("reference")
        return self.norm(x)


def released(contender: Contender) -> Contender:
    """Return the contender with the choice of backends free again after it."""

    def run() -> object:
        try:
            return contender.run()
        finally:
            geonorm.force_backend(None)

    return Contender(contender.name, run, contender.units)
