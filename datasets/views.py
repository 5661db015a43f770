"""A scan seen several times for one prediction: overlapping chunks, turned, mirrored and moved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic.lidar import rotation
from geonorm.datasets.transforms import mapped
from geonorm.datasets.voxelize import ScanBatch, collate_scans

_MARGIN = 1e-6  # metres, for the rounding of a chunk's end
# Multiples of these spread evenly over a voxel along each axis (Roberts, 2018).
_STEPS = np.array([0.8191725134, 0.6710436067, 0.5497004779])


@dataclass(frozen=True)
class Viewing:
    """How often and in which pieces a scan is seen for one prediction; the scores are averaged.

    Args:
        votes: views of each piece: the first as it is, then turned by 90, 180 and 270 degrees, from
            the fifth on mirrored too, and all but the first moved by a part of a voxel.
        chunk: edge in metres of the squares, seen from above, that a scan is cut into; None leaves
            it whole.
        overlap: least share of a chunk's edge that lies in the next one too.

    Raises:
        ValueError: votes below 1, a chunk that is not positive, an overlap outside [0, 1).
    """

    votes: int = 1
    chunk: float | None = None
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ValueError(f"votes must be 1 or more; got {self.votes}")
        if self.chunk is not None and not self.chunk > 0:
            raise ValueError(f"chunk must be a positive number of metres; got {self.chunk}")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be a share in [0, 1); got {self.overlap}")

    @property
    def several(self) -> bool:
        """Whether a scan may be seen in more than one piece or way."""
        return self.votes > 1 or self.chunk is not None

    def pieces(self, points: np.ndarray) -> list[np.ndarray]:
        """Return the numbers of the points of each piece; every point is in at least one.

        Args:
            points: x, y, z in metres, (N, 3).
        """
        if self.chunk is None:
            return [np.arange(len(points))]
        return chunks(points, self.chunk, self.overlap)


class Views:
    """The views of some scans as batches of one view each, made one at a time when asked for.

    Args:
        scans: what is seen.
        viewing: how.
        voxels: further arguments of `collate_scans`.
    """

    def __init__(self, scans: Sequence[Scan], viewing: Viewing, voxels: dict[str, Any]) -> None:
        self.scans, self.viewing, self.voxels = list(scans), viewing, voxels

    def __iter__(self) -> Iterator[tuple[int, ScanBatch, Tensor]]:
        """Yield the number of the vote, a batch, and where its points stand among all points."""
        pieces = [self.viewing.pieces(scan.points) for scan in self.scans]
        for vote in range(self.viewing.votes):
            start = 0
            for scan, each in zip(self.scans, pieces, strict=True):
                for rows in each:
                    view = seen(scan.take(rows), vote, self.voxels["voxel_size"])
                    yield vote, collate_scans([view], **self.voxels), torch.from_numpy(rows + start)
                start += len(scan)


def collate_views(scans: Sequence[Scan], viewing: Viewing, **voxels: Any) -> ScanBatch:
    """Put scans into one batch, with the views from which they are to be predicted.

    Args:
        scans: at least one scan, each with at least one point.
        viewing: how they are seen.
        voxels: further arguments of `collate_scans`.
    """
    return collate_scans(scans, **voxels)._replace(views=Views(scans, viewing, voxels))


def chunks(points: np.ndarray, size: float, overlap: float = 0.5) -> list[np.ndarray]:
    """Return the numbers of the points in each of overlapping squares, seen from above.

    The squares stand evenly from one end of the scan to the other; empty ones are left out.

    Args:
        points: x, y, z in metres, (N, 3).
        size: edge of a square in metres.
        overlap: least share of an edge that lies in the next square too.

    >>> points = np.array([[0.0, 0, 0], [2, 0, 0], [3, 0, 0]])
    >>> [rows.tolist() for rows in chunks(points, size=2)]
    [[0, 1], [1, 2]]
    """
    starts = []
    for values in points[:, :2].astype(np.float64).T:
        room = max(values.max() - values.min() - size, 0.0)
        number = int(np.ceil(room / (size * (1 - overlap)) - _MARGIN)) + 1
        starts.append(values.min() + np.linspace(0, room, number))
    found = []
    for x in starts[0]:
        column = _within(points[:, 0], x, size).nonzero()[0]
        for y in starts[1]:
            rows = column[_within(points[column, 1], y, size)]
            if len(rows):
                found.append(rows)
    return found


def _within(values: np.ndarray, start: float, size: float) -> np.ndarray:
    inside: np.ndarray = (values >= start - _MARGIN) & (values <= start + size + _MARGIN)
    return inside


def seen(scan: Scan, vote: int, voxel_size: float) -> Scan:
    """Return a scan as one vote sees it; vote 0 sees it as it is.

    Args:
        scan: any scan.
        vote: number of the vote.
        voxel_size: edge of a voxel in metres, within which the points are moved.
    """
    if vote == 0:
        return scan
    turn = rotation(vote % 4 * np.pi / 2, 0, 0).round()
    mirror = np.diag([1, -1 if vote // 4 % 2 else 1, 1])
    turned = mapped(scan, turn @ mirror)
    move = (vote * _STEPS % 1 * voxel_size).astype(np.float32)
    return replace(turned, points=turned.points + move)
