"""Measure the error of each norm's output and gradient against float64, at large means."""

from collections.abc import Callable

import MinkowskiEngine as ME
import torch
from torch import Tensor, nn

from geonorm import SparseInstanceNorm, SpatioTemporalInstanceNorm

MEANS = (0.0, 1e2, 1e4, 1e6)
ROWS, CHANNELS, EPS = 40_000, 32, 1e-5


def accuracy_rows(dtypes: list[str]) -> list[dict[str, object]]:
    """Return CSV rows of relative errors, standard deviation 1 and the mean as the shape says.

    The input is what is left after rounding to the dtype; float64 sees the same.
    """
    rows = []
    for dtype in dtypes:
        for mean in MEANS:
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(ROWS, CHANNELS, generator=generator, dtype=torch.float64) + mean
            x, upstream = x.to(getattr(torch, dtype)), torch.randn(x.shape, generator=generator)
            exact = _results(_by_axis(nn.InstanceNorm1d(CHANNELS, eps=EPS)), x.double(), upstream)
            for name, norm in _norms(dtype).items():
                found = _results(norm, x, upstream)
                for work, a, b in zip(("forward", "backward"), found, exact, strict=True):
                    error = ((a.double() - b).norm() / b.norm()).item()
                    rows.append({
                        "suite": "accuracy", "shape": f"mean/std {mean:g}", "dtype": dtype,
                        "work": work, "contender": name, "error": f"{error:.2e}",
                    })  # fmt: skip
    return rows


def show(rows: list[dict[str, object]]) -> None:
    """Print the errors of every norm."""
    print("\naccuracy: relative error to float64")
    for row in rows:
        print(f"  {row['dtype']:10}{row['shape']:18}{row['work']:10}{row['contender']:32}"
              f"{row['error']:>10}", flush=True)  # fmt: skip


def _by_axis(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return what a norm of (B, C, L) does to rows (L, C)."""
    return lambda rows: norm(rows.t()[None])[0].t()


def _results(norm: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    out = norm(leaf)
    return [out.detach(), *torch.autograd.grad(out, leaf, upstream.to(out.dtype))]


def _norms(dtype: str) -> dict[str, Callable[[Tensor], Tensor]]:
    index = torch.zeros(ROWS, dtype=torch.long)
    coordinates = torch.stack([index, torch.arange(ROWS), index, index], 1).int()
    sparse, dense = SparseInstanceNorm(CHANNELS, eps=EPS), SpatioTemporalInstanceNorm(CHANNELS)
    clip = (1, CHANNELS, ROWS, 1, 1)
    norms = {
        "ours, rows": lambda rows: sparse(rows, index),
        "ours, clips": lambda rows: dense(rows.t().reshape(clip)).view(CHANNELS, ROWS).t(),
        "torch InstanceNorm1d": _by_axis(nn.InstanceNorm1d(CHANNELS, eps=EPS)),
        "torch GroupNorm(C, C)": _by_axis(nn.GroupNorm(CHANNELS, CHANNELS, eps=EPS)),
    }
    if dtype == "float32":
        theirs = ME.MinkowskiInstanceNorm(CHANNELS)
        norms["MinkowskiInstanceNorm"] = lambda rows: theirs(ME.SparseTensor(rows, coordinates)).F
    return norms
