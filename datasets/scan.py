"""One LiDAR scan, as every point-cloud dataset of this package yields it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import numpy as np

IGNORE_INDEX = 255
# What a scan may know of each point beside its place and intensity, and how many numbers that is.
EXTRA = {"color": 3, "normal": 3, "echo": 1}


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
        intensity: returned intensity in [0, 1], float32; None where the sensor gives none.
        labels: train ids with 255 = ignore, int64; None where there is no ground truth.
        name: where the scan comes from, unique within its dataset.
        dropped: number of points removed because a coordinate or intensity was not finite.
        kept: which points of the file these were when it was read, bool; None for all of them.
        offset: x, y, z in metres that were subtracted from the file's coordinates in float64:
            ``points + np.array(offset)`` gives them back.
        domain: number of the sensor or data set it comes from, as domain norms count them; None
            where nobody said.
        extra: further features, float32: `color` (red, green, blue in [0, 1]), `normal` (of length
            1) and `echo` (number of the return, from 1), where they are known.

    Shape:
        - points: (N, 3)
        - intensity, labels: (N,)
        - extra: (N, 3) for color and normal, (N, 1) for echo
        - kept: (points of the file,)

    Raises:
        ValueError: an array of another shape, or an unknown further feature.
        TypeError: an array of another dtype.

    Example:
        >>> points = np.zeros((5, 3), dtype=np.float32)
        >>> scan = Scan(points, np.ones(5, dtype=np.float32), None, "street")
        >>> len(scan)
        5
    """

    points: np.ndarray
    intensity: np.ndarray | None
    labels: np.ndarray | None
    name: str
    dropped: int = 0
    kept: np.ndarray | None = None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    domain: int | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise ValueError(f"points must be (N, 3); got {self.points.shape}")
        unknown = self.extra.keys() - EXTRA.keys()
        if unknown:
            raise ValueError(f"extra may be {', '.join(EXTRA)}; got {', '.join(sorted(unknown))}")
        rows = len(self.points)
        columns = [
            ("points", self.points, np.float32, (rows, 3)),
            ("intensity", self.intensity, np.float32, (rows,)),
            ("labels", self.labels, np.int64, (rows,)),
            *((name, array, np.float32, (rows, EXTRA[name])) for name, array in self.extra.items()),
        ]
        for name, array, dtype, shape in columns:
            if array is None:
                continue
            if array.dtype != dtype:
                raise TypeError(f"{name} must be {np.dtype(dtype)}; got {array.dtype}")
            if array.shape != shape:
                raise ValueError(f"{name} must be {shape}, one per point; got {array.shape}")

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
        return replace(
            self,
            points=self.points[rows],
            intensity=None if self.intensity is None else self.intensity[rows],
            labels=None if self.labels is None else self.labels[rows],
            extra={name: array[rows] for name, array in self.extra.items()},
        )

    @property
    def features(self) -> tuple[str, ...]:
        """The names of what is known of each point."""
        intensity = () if self.intensity is None else ("intensity",)
        return ("position", "height", *intensity, *self.extra)

    def feature(self, name: str) -> np.ndarray:
        """Return a feature of every point by its name, (N, C) float32.

        Args:
            name: `intensity`, `color`, `normal`, `echo`, `position` (x, y, z in metres) or `height`
                (metres above the scan's lowest point).

        Raises:
            ValueError: the scan does not know it (naming the scan and what it knows).

        Example:
            >>> points = np.array([[0, 0, 1], [5, 0, 3]], dtype=np.float32)
            >>> Scan(points, None, None, "room").feature("height")[:, 0]
            array([0., 2.], dtype=float32)
        """
        if name not in self.features:
            raise ValueError(
                f"scan {self.name} has no feature {name!r}; it has {', '.join(self.features)}"
            )
        match name:
            case "position":
                return self.points
            case "height":
                z = self.points[:, 2:]
                height: np.ndarray = z - z.min(initial=np.inf)
                return height
            case "intensity" if self.intensity is not None:
                return self.intensity[:, None]
        return self.extra[name]

    @classmethod
    def from_raw(
        cls,
        points: np.ndarray,
        intensity: np.ndarray | None,
        labels: np.ndarray | None,
        name: str,
        offset: tuple[float, float, float] = (0.0, 0.0, 0.0),
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> Self:
        """Return the scan without the points that have a NaN or infinite value, counting them.

        Args:
            points: positions in metres, (N, 3), any floating dtype.
            intensity: returned intensity in [0, 1], (N,), any floating dtype, or None.
            labels: train ids, (N,), any integer dtype, or None.
            name: where the scan comes from.
            offset: what was subtracted from the points, metres.
            extra: further features, as `Scan.extra`, any floating dtype.

        Raises:
            ValueError: an intensity or a colour outside [0, 1].

        Example:
            >>> points = np.array([[0.0, 0.0, 1.0], [np.nan, 0.0, 1.0]])
            >>> scan = Scan.from_raw(points, np.ones(2), np.array([3, 4]), "street")
            >>> len(scan), scan.dropped, scan.labels
            (1, 1, array([3]))
        """
        points = np.asarray(points, dtype=np.float32)
        labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        extra = {key: np.asarray(each, dtype=np.float32) for key, each in (extra or {}).items()}
        if intensity is not None:
            intensity = np.asarray(intensity, dtype=np.float32)
        whole = cls(points, intensity, labels, name, offset=offset, extra=extra)
        finite = np.isfinite(points).all(axis=1)
        for array in extra.values():
            finite &= np.isfinite(array).all(axis=1)
        if intensity is not None:
            finite &= np.isfinite(intensity)
            _check_share(name, "intensity", intensity[finite])
        if "color" in extra:
            _check_share(name, "color", extra["color"][finite])
        if finite.all():
            return whole
        return replace(whole.take(finite), dropped=int(len(points) - finite.sum()), kept=finite)


def _check_share(scan: str, name: str, values: np.ndarray) -> None:
    """Refuse values outside [0, 1]."""
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > 1:
        raise ValueError(
            f"{scan}: {name} must be in [0, 1]; got {low:g} to {high:g}. Divide it by the "
            "sensor's largest value (read_scan: intensity_max=255); values beyond reason mean "
            "a damaged file"
        )
