"""Augmentation of scans: small classes, each with the parameters that its field uses.

All that is random is drawn from the generator that a transform is called with; ``Augmented``
(datasets/augmented.py) makes it from (seed, epoch, index) and the transform's place in the list.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic.lidar import rotation

# Nodes along each axis of the periodic lattice of an elastic distortion.
_LATTICE = 32


class ScanTransform(ABC):
    """A random change of a scan, a function of the scan and a generator alone."""

    @abstractmethod
    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        """Return the changed scan; the one given stays as it is."""


class RandomRotation(ScanTransform):
    """Turn the scan about the sensor, by an angle drawn evenly from [-limit, limit] for each axis.

    Rooms are as a rule tilted as well, by x = y = 180/64 degrees.

    Args:
        z: largest angle about the vertical axis in degrees.
        x, y: likewise about the horizontal axes, turned before z.

    Raises:
        ValueError: an angle outside [0, 180].

    Example:
        >>> scan = Scan(np.ones((1, 3), "f4"), np.ones(1, "f4"), None, "street")
        >>> RandomRotation(z=0)(scan, np.random.default_rng(0)).points
        array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(self, z: float = 180.0, x: float = 0.0, y: float = 0.0) -> None:
        for axis, limit in {"z": z, "y": y, "x": x}.items():
            if not 0 <= limit <= 180:
                raise ValueError(f"{axis} must be an angle in [0, 180] degrees; got {limit}")
        self.limits = np.radians((z, y, x))

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        turn = rotation(*rng.uniform(-self.limits, self.limits))
        return mapped(scan, turn)


class RandomScale(ScanTransform):
    """Multiply all positions by one factor drawn evenly from [low, high].

    Args:
        low, high: limits of the factor.

    Raises:
        ValueError: unless 0 < low <= high.
    """

    def __init__(self, low: float = 0.9, high: float = 1.1) -> None:
        self.low, self.high = _positive_range("low and high", low, high)

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        return replace(scan, points=scan.points * np.float32(rng.uniform(self.low, self.high)))


class RandomFlip(ScanTransform):
    """Mirror the scan: change the sign of x, of y, of both or of neither.

    Args:
        x, y: probability of each change of sign.

    Raises:
        ValueError: a probability outside [0, 1].
    """

    def __init__(self, x: float = 0.5, y: float = 0.5) -> None:
        self.probabilities = (share("x", x), share("y", y))

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        signs = np.where(rng.random(2) < self.probabilities, -1, 1)
        return mapped(scan, np.diag([*signs, 1]))


class RandomJitter(ScanTransform):
    """Move every point by normal noise of its own along each axis.

    Args:
        sigma: standard deviation in metres.
        clip: largest move along an axis in metres.

    Raises:
        ValueError: unless sigma >= 0 and clip >= 0.
    """

    def __init__(self, sigma: float = 0.005, clip: float = 0.02) -> None:
        if not (sigma >= 0 and clip >= 0):
            raise ValueError(f"sigma and clip must be metres >= 0; got {sigma} and {clip}")
        self.sigma, self.clip = sigma, clip

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        moves = self.sigma * rng.standard_normal(scan.points.shape, dtype=np.float32)
        return replace(scan, points=scan.points + moves.clip(-self.clip, self.clip))


class RandomDrop(ScanTransform):
    """Leave out a share of the points, chosen evenly; at least one point stays.

    Args:
        ratio: share of the points that go.
        probability: share of the scans that lose any.

    Raises:
        ValueError: a share outside [0, 1].
    """

    def __init__(self, ratio: float = 0.2, probability: float = 0.2) -> None:
        self.ratio = share("ratio", ratio)
        self.probability = share("probability", probability)

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        if rng.random() >= self.probability or len(scan) == 0:
            return scan
        kept = max(1, len(scan) - int(len(scan) * self.ratio))
        return scan.take(np.sort(rng.choice(len(scan), kept, replace=False, shuffle=False)))


class ElasticDistortion(ScanTransform):
    """Bend space: add smooth random displacements, in turn at each of several granularities.

    The displacement is normal noise on a lattice, blurred twice over three nodes along each axis,
    interpolated linearly between nodes and multiplied by the magnitude. The lattice repeats every
    32 nodes, so that its cost depends on neither the extent of the scan nor stray points. The
    defaults are those of rooms at 2 cm; street scans are as a rule not distorted.

    Args:
        granularity: distances between nodes in metres.
        magnitude: as many factors in metres; blurring leaves about a ninth of it as the standard
            deviation along each axis.
        probability: share of the scans that are distorted.

    Raises:
        ValueError: lists of different lengths or none, a granularity that is not above 0, a
            negative magnitude, a probability outside [0, 1].

    Source: Simard et al., "Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis", 2003; on point clouds: Graham et al., "3D Semantic Segmentation with
    Submanifold Sparse Convolutional Networks", 2018.
    """

    def __init__(
        self,
        granularity: Sequence[float] = (0.2, 0.8),
        magnitude: Sequence[float] = (0.4, 1.6),
        probability: float = 0.95,
    ) -> None:
        if not 0 < len(granularity) == len(magnitude):
            raise ValueError(
                f"granularity and magnitude must be equally long; got {granularity}, {magnitude}"
            )
        if not (min(granularity) > 0 and min(magnitude) >= 0):
            raise ValueError(
                "granularity must be metres > 0 and magnitude metres >= 0; "
                f"got {granularity} and {magnitude}"
            )
        self.levels = list(zip(granularity, magnitude, strict=True))
        self.probability = share("probability", probability)

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        if rng.random() >= self.probability:
            return scan
        points: np.ndarray = scan.points
        for granularity, magnitude in self.levels:
            shape = (_LATTICE, _LATTICE, _LATTICE, 3)
            lattice: np.ndarray = rng.standard_normal(shape, dtype=np.float32)
            for axis in (0, 1, 2, 0, 1, 2):
                lattice = (np.roll(lattice, 1, axis) + lattice + np.roll(lattice, -1, axis)) / 3
            shift = rng.uniform(0, _LATTICE, 3)
            points = points + magnitude * interpolated(lattice, points / granularity + shift)
        return replace(scan, points=points.astype(np.float32))


def interpolated(lattice: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return values between the nodes of a lattice that repeats without end, linear in each axis.

    Args:
        lattice: values at the nodes.
        positions: in nodes.

    Shape:
        - lattice: (X, Y, Z, C)
        - positions: (N, 3)
        - result: (N, C)
    """
    low = np.floor(positions).astype(np.int64)
    part = (positions - low)[..., None]
    values = np.zeros((len(positions), lattice.shape[3]), dtype=lattice.dtype)
    for corner in np.ndindex(2, 2, 2):
        node = (low + corner) % lattice.shape[:3]
        weight = np.where(np.array(corner)[:, None], part, 1 - part).prod(axis=1)
        values += (weight * lattice[tuple(node.T)]).astype(lattice.dtype)
    return values


class RandomIntensity(ScanTransform):
    """Multiply all intensities by one factor, add one offset, and clip to [0, 1].

    Sensors differ by more than that; no convention exists, and the defaults are mild.

    Args:
        low, high: limits of the factor, drawn evenly.
        offset: largest offset, drawn evenly from [-offset, offset].

    Raises:
        ValueError: unless 0 < low <= high; an offset outside [0, 1].
    """

    def __init__(self, low: float = 0.8, high: float = 1.2, offset: float = 0.05) -> None:
        self.low, self.high = _positive_range("low and high", low, high)
        self.offset = share("offset", offset)

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        gain, offset = rng.uniform(self.low, self.high), rng.uniform(-self.offset, self.offset)
        changed = np.clip(scan.feature("intensity")[:, 0] * gain + offset, 0, 1)
        return replace(scan, intensity=changed.astype(np.float32))


class SphereCrop(ScanTransform):
    """Keep the points nearest to a point of the scan, drawn evenly; smaller scans stay whole.

    Args:
        max_points: how many points stay.

    Raises:
        ValueError: ``max_points`` below 1.
    """

    def __init__(self, max_points: int = 100_000) -> None:
        if max_points < 1:
            raise ValueError(f"max_points must be >= 1; got {max_points}")
        self.max_points = max_points

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        if len(scan) <= self.max_points:
            return scan
        offsets = scan.points - scan.points[rng.integers(len(scan))]
        distances = np.square(offsets, dtype=np.float64).sum(axis=1)
        nearest = np.argpartition(distances, self.max_points - 1)[: self.max_points]
        return scan.take(np.sort(nearest))


class ChunkCrop(ScanTransform):
    """Keep the points in a square, seen from above, about a point of the scan that is drawn evenly.

    Args:
        size: edge of the square in metres.

    Raises:
        ValueError: a size that is not positive.
    """

    def __init__(self, size: float = 6.0) -> None:
        if not size > 0:
            raise ValueError(f"size must be a positive number of metres; got {size}")
        self.size = size

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        if len(scan) == 0:
            return scan
        middle = scan.points[rng.integers(len(scan)), :2]
        return scan.take((np.abs(scan.points[:, :2] - middle) <= self.size / 2).all(axis=1))


def mapped(scan: Scan, matrix: np.ndarray) -> Scan:
    """Return the scan turned or mirrored by an orthogonal matrix, its normals with it."""
    extra = dict(scan.extra)
    if "normal" in extra:
        extra["normal"] = (extra["normal"] @ matrix.T).astype(np.float32)
    return replace(scan, points=(scan.points @ matrix.T).astype(np.float32), extra=extra)


def share(name: str, value: float) -> float:
    """Return a number in [0, 1] as it is.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1]; got {value}")
    return value


def _positive_range(names: str, low: float, high: float) -> tuple[float, float]:
    if not 0 < low <= high:
        raise ValueError(f"{names} must be 0 < low <= high; got {low} and {high}")
    return low, high
