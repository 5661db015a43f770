"""One LiDAR scan, as every point-cloud dataset of this package yields it."""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

IGNORE_INDEX = 255


class ScanDataset(Protocol):
    """A dataset of scans whose classes are known, as training takes them.

    Attributes:
        classes: names of the classes, in the order of the labels.
        colors: red, green and blue of each class, (K, 3) uint8.
        ignore_index: label of points that have no class.
    """

    classes: tuple[str, ...]
    colors: np.ndarray
    ignore_index: int

    def set_epoch(self, epoch: int) -> None:
        """Choose the scans of an epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> "Scan": ...


@dataclass(frozen=True, eq=False)
class Scan:
    """The points of one sensor revolution with what is known of each.

    Args:
        points: positions in metres in the sensor's frame, float32.
        intensity: returned intensity in [0, 1], float32.
        labels: train ids with 255 = ignore, int64; None where there is no ground truth.
        name: where the scan comes from, unique within its dataset.
        dropped: number of points removed because a coordinate or intensity was not finite.
        kept: which points of the file these were when it was read, bool; None for all of them.
        offset: x, y, z in metres that were subtracted from the file's coordinates in float64:
            ``points + np.array(offset)`` gives them back.

    Shape:
        - points: (N, 3)
        - intensity, labels: (N,)
        - kept: (points of the file,)

    Raises:
        ValueError: an array of another shape.
        TypeError: an array of another dtype.

    Example:
        >>> points = np.zeros((5, 3), dtype=np.float32)
        >>> scan = Scan(points, np.ones(5, dtype=np.float32), None, "street")
        >>> len(scan)
        5
    """

    points: np.ndarray
    intensity: np.ndarray
    labels: np.ndarray | None
    name: str
    dropped: int = 0
    kept: np.ndarray | None = None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise ValueError(f"points must be (N, 3); got {self.points.shape}")
        columns: dict[str, tuple[np.ndarray, type[np.generic]]] = {
            "points": (self.points, np.float32),
            "intensity": (self.intensity, np.float32),
        }
        if self.labels is not None:
            columns["labels"] = (self.labels, np.int64)
        for name, (array, dtype) in columns.items():
            if array.dtype != dtype:
                raise TypeError(f"{name} must be {np.dtype(dtype)}; got {array.dtype}")
            if name != "points" and array.shape != (len(self.points),):
                raise ValueError(
                    f"{name} must be ({len(self.points)},), one per point; got {array.shape}"
                )

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: np.ndarray) -> Self:
        """Return the scan with those points alone, in that order and as often.

        Args:
            rows: their numbers, (M,) integers, or which they are, (N,) bool.

        Example:
            >>> points = np.array([[0, 0, 1], [5, 0, 1]], dtype=np.float32)
            >>> scan = Scan(points, np.ones(2, dtype=np.float32), None, "street")
            >>> scan.take(np.array([1, 1])).points[:, 0]
            array([5., 5.], dtype=float32)
        """
        labels = None if self.labels is None else self.labels[rows]
        return replace(
            self, points=self.points[rows], intensity=self.intensity[rows], labels=labels
        )

    @classmethod
    def from_raw(
        cls,
        points: np.ndarray,
        intensity: np.ndarray,
        labels: np.ndarray | None,
        name: str,
        offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Self:
        """Return the scan without the points that have a NaN or infinite value, counting them.

        Args:
            points: positions in metres, (N, 3), any floating dtype.
            intensity: returned intensity in [0, 1], (N,), any floating dtype.
            labels: train ids, (N,), any integer dtype, or None.
            name: where the scan comes from.
            offset: what was subtracted from the points, metres.

        Raises:
            ValueError: an intensity outside [0, 1].

        Example:
            >>> points = np.array([[0.0, 0.0, 1.0], [np.nan, 0.0, 1.0]])
            >>> scan = Scan.from_raw(points, np.ones(2), np.array([3, 4]), "street")
            >>> len(scan), scan.dropped, scan.labels
            (1, 1, array([3]))
        """
        points = np.asarray(points, dtype=np.float32)
        intensity = np.asarray(intensity, dtype=np.float32)
        labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        whole = cls(points, intensity, labels, name, offset=offset)
        finite = np.isfinite(points).all(axis=1) & np.isfinite(intensity)
        low, high = intensity.min(initial=0, where=finite), intensity.max(initial=0, where=finite)
        if low < 0 or high > 1:
            raise ValueError(
                f"{name}: intensity must be in [0, 1]; got {low:g} to {high:g}. Divide it by the "
                "sensor's largest value (read_scan: intensity_max=255); values beyond reason mean "
                "a damaged file"
            )
        if finite.all():
            return whole
        return cls(
            points[finite],
            intensity[finite],
            None if labels is None else labels[finite],
            name,
            dropped=int(len(points) - finite.sum()),
            kept=finite,
            offset=offset,
        )
