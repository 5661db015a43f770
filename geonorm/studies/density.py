"""Scans with other densities, and row weights that make up for them."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from geonorm.datasets.scan import Scan
from geonorm.norms.instance_norm import InstanceNorm

# Metres within which thinning by range lets a sensor's points become fewer as it comes nearer.
EVEN_FROM = 20.0


def ranges(scan: Scan) -> np.ndarray:
    """Return the distance of each point from the sensor in metres, (N,)."""
    distances: np.ndarray = np.linalg.norm(scan.points, axis=1)
    return distances


def nearer_half(scan: Scan) -> np.ndarray:
    """Return which points are nearer to the sensor than its median range, (N,) bool."""
    distances = ranges(scan)
    near: np.ndarray = distances < np.median(distances)
    return near


def rings(scan: Scan) -> np.ndarray:
    """Return the beam of each point, (N,) int64, of a scan stored beam by beam.

    A beam turns once around; where the azimuth falls back from 360 to 0 degrees the next begins.
    """
    azimuth = np.arctan2(scan.points[:, 1], scan.points[:, 0]) % (2 * np.pi)
    begins = np.diff(azimuth, prepend=azimuth[:1]) < -np.pi
    beams: np.ndarray = begins.cumsum()
    return beams


def random_share(share: float) -> Callable[[Scan, np.random.Generator], np.ndarray]:
    """Return a thinning that keeps a share of the points at random."""

    def keep(scan: Scan, rng: np.random.Generator) -> np.ndarray:
        kept = np.zeros(len(scan), dtype=bool)
        kept[rng.permutation(len(scan))[: round(share * len(scan))]] = True
        return kept

    return keep


def every_beam(step: int) -> Callable[[Scan, np.random.Generator], np.ndarray]:
    """Return a thinning that keeps every so many-th beam, beginning with any."""
    return lambda scan, rng: rings(scan) % step == rng.integers(step)


def by_range(scan: Scan, rng: np.random.Generator) -> np.ndarray:
    """Keep points so that surfaces nearer than `EVEN_FROM` are as dense as those at it."""
    return rng.random(len(scan)) < (ranges(scan) / EVEN_FROM) ** 2


# Returns which points stay, (N,) bool.
THINNINGS: dict[str, Callable[[Scan, np.random.Generator], np.ndarray]] = {
    "random half": random_share(0.5),
    "random tenth": random_share(0.1),
    "random hundredth": random_share(0.01),
    "every 2nd beam": every_beam(2),
    "every 4th beam": every_beam(4),
    "thinned by range": by_range,
    "nearer half alone": lambda scan, rng: nearer_half(scan),
}


def uneven_quarter(scan: Scan, power: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a quarter of the points without replacement, weighted by a power of their range.

    The largest keys, log weight plus Gumbel noise, are such a draw (Efraimidis and Spirakis, 2006).
    """
    keys = power * np.log(ranges(scan)) + rng.gumbel(size=len(scan))
    kept = np.zeros(len(scan), dtype=bool)
    kept[np.argpartition(keys, -(len(scan) // 4))[-(len(scan) // 4) :]] = True
    return kept


def neighbour_weights(points: np.ndarray, radius: float) -> Tensor:
    """Return 1 over the number of points within a radius in metres, itself included, (N,)."""
    from scipy.spatial import cKDTree

    counts = cKDTree(points).query_ball_point(points, radius, return_length=True)
    return torch.from_numpy(1 / counts).float()


@lru_cache(maxsize=32)
def scan_weights(scan: Scan, radius: float) -> Tensor:
    """Return the weights of a scan's points."""
    return neighbour_weights(scan.points, radius)


# The norms of a network share the weights of each of its coordinate maps.
_WEIGHTS: WeakKeyDictionary[Any, dict[str, Tensor]] = WeakKeyDictionary()


class NeighbourInstanceNorm(InstanceNorm):
    """Instance norm of a sparse tensor's voxels, each weighted by 1 over its neighbours.

    Args:
        num_features: number of channels.
        voxel_size: of the tensor's coordinates, metres.
        radius: of the neighbourhood, metres.
    """

    def __init__(self, num_features: int, voxel_size: float, radius: float) -> None:
        super().__init__(num_features)
        self.voxel_size, self.radius = voxel_size, radius

    def forward(self, x: Any, batch_index: Tensor | None = None, **options: Any) -> Any:
        """Return x normalized; further arguments as of `InstanceNorm`."""
        of_maps = _WEIGHTS.setdefault(x.coordinate_manager, {})
        key = str(x.coordinate_map_key)
        if key not in of_maps:
            places = x.C.numpy() * self.voxel_size
            places[:, 0] = x.C[:, 0] * 1e6  # scans of a batch are no neighbours
            of_maps[key] = neighbour_weights(places, self.radius)
        return super().forward(x, batch_index, point_weights=of_maps[key], **options)


def _places(coordinates: Tensor) -> np.ndarray:
    """Return one number for each voxel of a scan, (M,) int64."""
    x, y, z = (coordinates[:, 1:].numpy().astype(np.int64) + 2**20).T
    numbers: np.ndarray = (x << 42) | (y << 21) | z
    return numbers


class Voxels:
    """A batch of scans as voxels, and which of them are the first scan's.

    Args:
        scans: the batch.
        size: edge of a voxel in metres.
    """

    def __init__(self, scans: list[Scan], size: float) -> None:
        from geonorm.datasets.voxelize import collate_scans

        self.batch = collate_scans(scans, size)
        self.size = size
        self.first = torch.nonzero(self.batch.coordinates[:, 0] == 0).flatten()
        self.places = _places(self.batch.coordinates[self.first])

    def common(self, other: "Voxels") -> tuple[Tensor, Tensor]:
        """Return the rows of the voxels that the first scans of both have."""
        _, mine, theirs = np.intersect1d(self.places, other.places, return_indices=True)
        return self.first[torch.from_numpy(mine)], other.first[torch.from_numpy(theirs)]
