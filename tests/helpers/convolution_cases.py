"""Sparse tensors, and convolutions of MinkowskiEngine beside ours of the same weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

ME: Any = pytest.importorskip("MinkowskiEngine", exc_type=ImportError)

from geonorm.sparse_convolution import (  # noqa: E402
    SparseConvolution,
    SparseConvolutionTranspose,
)

OURS = {"MinkowskiConvolution": SparseConvolution,
        "MinkowskiConvolutionTranspose": SparseConvolutionTranspose}


def places(dimension: int = 3, count: int = 120, extent: int = 6, batch: tuple[int, ...] = (0, 2),
           seed: int = 0) -> Tensor:
    """Return different places, negative ones too, of some scans of a batch, (N, 1 + dimension)."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randint(-extent, extent, (count, dimension), generator=generator)
    scan = torch.tensor(batch)[torch.randint(len(batch), (count, 1), generator=generator)]
    return torch.unique(torch.cat([scan, spread], 1), dim=0).int()


def both(kind: str, channels: tuple[int, int], **arguments: Any) -> tuple[Any, Any]:
    """Return MinkowskiEngine's module and ours, in float64 and with the same parameters."""
    theirs = getattr(ME, kind)(*channels, **arguments).double()
    ours = OURS[kind](*channels, **arguments).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def outcome(run: Callable[[Any], Any], features: Tensor, coordinates: Tensor,
            parameters: list[Tensor], tensor_stride: int) -> dict[str, Tensor]:
    """Return output, its coordinates, and the gradients of the features and of parameters.

    The coordinates are counted in tensor strides.
    """
    leaf = features.detach().requires_grad_()
    spread = coordinates * torch.tensor([1] + [tensor_stride] * (coordinates.shape[1] - 1)).int()
    out = run(ME.SparseTensor(leaf, spread, tensor_stride=tensor_stride))
    upstream = torch.cos(torch.arange(out.F.numel(), dtype=torch.float64)).view_as(out.F)
    gradients = torch.autograd.grad(out.F, [leaf, *parameters], upstream.to(out.F.dtype))
    found = {"output": out.F.detach(), "coordinates": out.C.double(), "features": gradients[0]}
    return found | {f"parameter {k}": grad for k, grad in enumerate(gradients[1:])}
