"""Tensors of MinkowskiEngine, strided ones with interleaved rows."""

import pytest
import torch

ME = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")


def coordinates(sizes=(300, 500, 200), spread=14, seed=1):
    """Return unique coordinates (N, 4), scan by scan; an empty scan leaves its number out."""
    generator = torch.Generator().manual_seed(seed)
    scans = [
        torch.randint(0, spread, (size, 3), generator=generator).unique(dim=0) for size in sizes
    ]
    numbers = torch.arange(len(sizes)).repeat_interleave(torch.tensor([*map(len, scans)]))
    return torch.cat([numbers[:, None], torch.cat(scans)], 1).int()


def sparse_tensor(places, channels=4):
    rows = torch.randn(len(places), channels, generator=torch.Generator().manual_seed(2))
    return ME.SparseTensor(rows * 2 + 3, places)


def strided(x, channels=4):
    torch.manual_seed(3)
    return ME.MinkowskiConvolution(channels, channels, 3, stride=2, dimension=3)(x)
