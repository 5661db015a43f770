"""Augmentation by two scans: transforms that make one scan of a scan and a partner.

They stand among the other transforms (datasets/augmented.py draws the partner from the same data
and applies to it what stands before). Every point keeps its label and its features.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic.lidar import rotation
from geonorm.datasets.transforms import mapped, share


class ScanMix(ABC):
    """One scan made of a scan and a partner, a function of both and a generator alone.

    Args:
        probability: share of the scans that are mixed.
    """

    def __init__(self, probability: float) -> None:
        self.probability = share("probability", probability)

    def __call__(self, scan: Scan, partner: Scan, rng: np.random.Generator) -> Scan:
        """Return the mixed scan, or the first as it is where no point would be left.

        Raises:
            ValueError: the scans do not know the same of their points.
        """
        mixed = self._mixed(scan, partner, rng)
        return mixed if len(mixed) else scan

    @abstractmethod
    def _mixed(self, scan: Scan, partner: Scan, rng: np.random.Generator) -> Scan: ...


class Mix3D(ScanMix):
    """Put two scenes into each other: all points of both.

    Args:
        center: move the partner so that the means of both scans' points coincide, as is right for
            rooms, whose origins mean nothing. Scans of one sensor have theirs in common: false.
        probability: share of the scans that are mixed.

    Raises:
        ValueError: a probability outside [0, 1].

    Source: Nekrasov et al., "Mix3D: Out-of-Context Data Augmentation for 3D Scenes", 2021.
    """

    def __init__(self, center: bool = True, probability: float = 0.8) -> None:
        super().__init__(probability)
        self.center = center

    def _mixed(self, scan: Scan, partner: Scan, rng: np.random.Generator) -> Scan:
        if self.center and len(scan) and len(partner):
            means = [each.points.mean(axis=0, dtype=np.float64) for each in (scan, partner)]
            moved = partner.points + (means[0] - means[1])
            partner = replace(partner, points=moved.astype(np.float32))
        return _joined(scan, partner)


class LaserMix(ScanMix):
    """Take alternate bands of elevation from the two scans, from the top one of the first.

    The range of elevations is cut into bands of equal height; points beyond it belong to the band
    next to them.

    Args:
        num_areas: numbers of bands, of which one is drawn.
        pitch: lowest and highest elevation in degrees.
        probability: share of the scans that are mixed.

    Raises:
        ValueError: fewer than two bands, limits that do not rise within [-90, 90], a probability
            outside [0, 1].

    Source: Kong et al., "LaserMix for Semi-Supervised LiDAR Semantic Segmentation", 2023.
    """

    def __init__(
        self,
        num_areas: Sequence[int] = (3, 4, 5, 6),
        pitch: tuple[float, float] = (-25.0, 3.0),
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        if not num_areas or min(num_areas) < 2:
            raise ValueError(f"num_areas must be numbers of 2 bands or more; got {num_areas}")
        if len(pitch) != 2 or not -90 <= pitch[0] < pitch[1] <= 90:
            raise ValueError(f"pitch must be two rising angles in [-90, 90] degrees; got {pitch}")
        self.num_areas, self.pitch = tuple(num_areas), tuple(pitch)

    def _mixed(self, scan: Scan, partner: Scan, rng: np.random.Generator) -> Scan:
        number = int(rng.choice(self.num_areas))
        own, other = (self._bands(each.points, number) % 2 for each in (scan, partner))
        return _joined(scan.take(own == 0), partner.take(other == 1))

    def _bands(self, points: np.ndarray, number: int) -> np.ndarray:
        """Return the band of each point, 0 at the top."""
        x, y, z = points.astype(np.float64).T
        low, high = self.pitch
        share_below = (high - np.degrees(np.arctan2(z, np.hypot(x, y)))) / (high - low)
        bands: np.ndarray = np.floor(share_below * number).clip(0, number - 1).astype(np.int64)
        return bands


class PolarMix(ScanMix):
    """Swap half a turn of the scan for the partner's, then paste the partner's things thrice.

    Things are the points of some classes; they are pasted where they are and turned about the
    sensor by two angles, one drawn from each of the first two thirds of a turn.

    Args:
        instance_classes: labels of things, such as 0 to 7 of SemanticKITTI.
        swap: probability that half a turn is swapped.
        paste: probability that things are pasted.
        probability: share of the scans that are mixed.

    Raises:
        ValueError: no class, or a probability outside [0, 1]; on call, a partner without labels.

    Source: Xiao et al., "PolarMix: A General Data Augmentation Technique for LiDAR Point Clouds",
    2022.
    """

    def __init__(
        self,
        instance_classes: Sequence[int],
        swap: float = 0.5,
        paste: float = 1.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__(probability)
        if not instance_classes:
            raise ValueError("instance_classes must be the labels of things; got none")
        self.instance_classes = tuple(instance_classes)
        self.swap, self.paste = share("swap", swap), share("paste", paste)

    def _mixed(self, scan: Scan, partner: Scan, rng: np.random.Generator) -> Scan:
        if partner.labels is None:
            raise ValueError(f"PolarMix needs labels, which scan {partner.name} lacks")
        things = partner.take(np.isin(partner.labels, self.instance_classes))
        mixed = scan
        if rng.random() < self.swap:
            start = rng.uniform(-np.pi, 0)
            own, other = (_in_half_turn(each.points, start) for each in (scan, partner))
            mixed = _joined(scan.take(~own), partner.take(other))
        if rng.random() < self.paste:
            mixed = _joined(mixed, things)
            for third in range(2):
                angle = (third + rng.random()) * 2 * np.pi / 3
                mixed = _joined(mixed, mapped(things, rotation(angle, 0, 0)))
        return replace(mixed, name=f"{scan.name} + {partner.name}")


class OneOf(ScanMix):
    """Mix scans in one of several ways, each with its own probability.

    Args:
        mixes: the ways; their probabilities together are at most 1.

    Raises:
        ValueError: no way, or probabilities of more than 1 together or of 0.

    Example:
        >>> OneOf([LaserMix(probability=0.5), PolarMix([0, 1], probability=0.25)]).probability
        0.75
    """

    def __init__(self, mixes: Sequence[ScanMix]) -> None:
        total = sum(mix.probability for mix in mixes)
        if not 0 < total <= 1 + 1e-9:
            raise ValueError(
                f"the probabilities of mixes must be above 0 and at most 1 together; got {total:g} "
                f"for {len(mixes)}"
            )
        super().__init__(min(total, 1.0))
        self.mixes, self.shares = tuple(mixes), [mix.probability / total for mix in mixes]

    def _mixed(self, scan: Scan, partner: Scan, rng: np.random.Generator) -> Scan:
        return self.mixes[rng.choice(len(self.mixes), p=self.shares)](scan, partner, rng)


def _in_half_turn(points: np.ndarray, start: float) -> np.ndarray:
    """Return which points lie within half a turn from an angle, in radians from -pi to 0."""
    yaw = np.arctan2(points[:, 1], points[:, 0])
    inside: np.ndarray = (yaw >= start) & (yaw < start + np.pi)
    return inside


def _joined(scan: Scan, other: Scan) -> Scan:
    """Return the points of both scans, the first one's first."""
    if {*scan.features} != {*other.features} or (scan.labels is None) != (other.labels is None):
        known = [
            (*each.features, *(() if each.labels is None else ("labels",)))
            for each in (scan, other)
        ]
        raise ValueError(
            f"scans that are mixed must know the same of their points; {scan.name} has "
            f"{', '.join(known[0])}, {other.name} has {', '.join(known[1])}"
        )

    if scan.domain != other.domain:
        raise ValueError(
            f"scans that are mixed must be of one domain; {scan.name} is of {scan.domain}, "
            f"{other.name} of {other.domain}"
        )

    def both(one: np.ndarray | None, two: np.ndarray | None) -> np.ndarray | None:
        return None if one is None or two is None else np.concatenate([one, two])

    return Scan(
        np.concatenate([scan.points, other.points]),
        both(scan.intensity, other.intensity),
        both(scan.labels, other.labels),
        f"{scan.name} + {other.name}",
        scan.dropped + other.dropped,
        extra={name: np.concatenate([scan.extra[name], other.extra[name]]) for name in scan.extra},
        domain=scan.domain,
    )
