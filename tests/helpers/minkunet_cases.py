"""Small scans, batches of them and models for the tests of MinkUNet."""

import pytest
import torch

ME = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")

from geonorm.models import MinkUNet14A as MinkUNet14A  # noqa: E402  (imports MinkowskiEngine)
from geonorm.models import minkunet  # noqa: E402

MUST_MOVE = 1e-2


def scan(points=300, seed=0, channels=3, extent=24):
    """Return the voxel coordinates and features of a random blob, without duplicates."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.randint(0, extent, (2 * points, 3), generator=generator)
    coordinates = torch.unique(coordinates, dim=0)
    keep = torch.randperm(len(coordinates), generator=generator)[:points]
    features = torch.randn(len(keep), channels, generator=generator)
    return coordinates[keep].int(), features * (1 + seed) + seed


def batch(*scans, kind=ME.SparseTensor):
    """Put scans into one tensor of the engine's."""
    coordinates, features = ME.utils.sparse_collate(*zip(*scans, strict=True))
    return kind(features, coordinates.float() if kind is ME.TensorField else coordinates)


def build(name="14A", norm="instance", seed=0, **arguments):
    torch.manual_seed(seed)
    return getattr(minkunet, f"MinkUNet{name}")(3, 5, norm=norm, **arguments)
