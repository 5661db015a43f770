"""Corruptions of scans: Robo3D's eight at three levels, and changes of sensor at five."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from geonorm.datasets import scan_weather
from geonorm.datasets.scan import IGNORE_INDEX, Scan
from geonorm.datasets.transforms import ScanTransform
from geonorm.names import choices

# Robo3D's eight, over which mCE and mRR are means.
ROBO3D = (
    "fog", "wet_ground", "snow", "motion_blur", "beam_missing", "crosstalk", "incomplete_echo",
    "cross_sensor",
)  # fmt: skip
Corruption = Literal[
    "fog", "wet_ground", "snow", "motion_blur", "beam_missing", "crosstalk", "incomplete_echo",
    "cross_sensor", "density", "duplication", "multiplicity", "intensity_gain", "intensity_offset",
    "range_noise", "field_of_view", "cutout",
]  # fmt: skip
# The classes of each kind in SemanticKITTI, nuScenes and the built-in streets.
GROUND = ("road", "parking", "sidewalk", "other-ground", "driveable_surface", "other_flat")
VEHICLES = (
    "car", "bicycle", "motorcycle", "truck", "other-vehicle", "bus", "construction_vehicle",
    "trailer",
)  # fmt: skip
_FEW = 10  # points of a class from which an incomplete echo takes none


class Sensor(NamedTuple):
    """What a corruption may have to know of the scans.

    Attributes:
        beams: rings of the sensor.
        classes: names of the labels, empty where they are not known.
    """

    beams: int
    classes: tuple[str, ...]


class ScanCorruption(ScanTransform):
    """A corruption of a scan, a function of the scan, the level and the random numbers alone.

    Robo3D's (Kong et al., ICCV 2023) at the levels 1 to 3, light, moderate and heavy, with its
    parameters. Points that a corruption puts somewhere else keep no label.

    - fog, wet_ground, snow: ``geonorm.datasets.scan_weather``
    - motion_blur: one move of the scan, normal with s = 0.2, 0.25, 0.3 m along each axis, and one
      of each point, with 0.1 s along x and y and 0.05 s along z
    - beam_missing: a quarter, half and three quarters of the beams are drawn among all but the
      lowest and highest few, **with replacement as the benchmark does**, so that of 64 beams not
      16, 32, 48 are missing but about 14, 24, 32
    - crosstalk: 0.6, 0.8, 1.0 % of the points move by normal noise of 3 m along each axis, and
      **their intensity by normal noise of 3**, as the benchmark's does, out of [0, 1]
    - incomplete_echo: 75, 85, 95 % of the points of each class of vehicles are gone
    - cross_sensor: every fourth, every second, three of four beams are gone, and of what remains
      every second point **in the order of the file**, which halves the steps of the azimuth

    Others, at the levels 1 to 5:

    - density: 6, 12, 18, 24, 30 % of the points are gone
    - duplication: every point stands there 2, 3, 4, 6, 8 times
    - multiplicity: every point stands there once and Poisson(1, 2, 3, 5, 7) times more
    - intensity_gain: all intensities times or through 2^(0.3 level), up to 1
    - intensity_offset: all intensities and 0.08 level more or less, within [0, 1]
    - range_noise: each distance and normal noise of 0.02, 0.04, 0.06, 0.08, 0.1 m
    - field_of_view: what lies within 105, 90, 75, 60, 45 degrees of straight ahead (x)
    - cutout: 2, 3, 5, 7, 10 times the 2 % of the points that are nearest to one of them are gone

    density, range_noise, field_of_view and cutout have the levels of Dong et al. (CVPR 2023).

    Args:
        name: one of the above.
        severity: 1 to 3 for Robo3D's, 1 to 5 for the others, or 0 for the scan as it is.
        classes: names of the labels, for wet_ground and incomplete_echo, which ask for the ground
            and for vehicles by those of SemanticKITTI, nuScenes and the built-in streets.
        beams: rings of the sensor, for beam_missing and cross_sensor. They are told apart by the
            azimuth, which starts again with each in the order of the file.

    Raises:
        ValueError: an unknown name or severity; classes among which there is none that it asks for;
            and on a scan, one without labels, intensities or rings that it asks for.

    >>> points = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    >>> scan = Scan(points, None, None, "cloud")
    >>> len(ScanCorruption("density", severity=5)(scan, np.random.default_rng(0)))
    700
    """

    def __init__(
        self, name: Corruption, severity: int = 3, classes: Sequence[str] = (), beams: int = 64
    ) -> None:
        if name not in get_args(Corruption):
            raise ValueError(f"corruption {name!r} is unknown; {choices(name, _CHANGES)}")
        if severity not in range(levels(name) + 1):
            raise ValueError(f"severity of {name} must be 0 to {levels(name)}; got {severity}")
        if beams < 16:
            raise ValueError(f"beams must be the rings of the sensor, 16 or more; got {beams}")
        asked = _ASKS.get(name, ())
        if asked and not set(asked) & set(classes):
            raise ValueError(
                f"{name} asks for the classes {', '.join(asked)} and needs one of them among "
                f"classes; got {', '.join(classes) or 'none'}. Give those of the dataset"
            )
        self.name, self.severity, self.sensor = name, severity, Sensor(beams, tuple(classes))

    def __repr__(self) -> str:
        return f"ScanCorruption({self.name!r}, severity={self.severity})"

    def __call__(self, scan: Scan, rng: np.random.Generator) -> Scan:
        if not self.severity or not len(scan):
            return scan
        if self.name in _ASKS and scan.labels is None:
            raise ValueError(
                f"{self.name} is for scans with labels, which tell what it changes; scan "
                f"{scan.name} has none. Leave this corruption out, or give labelled scans"
            )
        return _CHANGES[self.name](scan, self.severity - 1, self.sensor, rng)


# Of a scan, the level from 0, the sensor and random numbers.
_Change = Callable[[Scan, int, Sensor, np.random.Generator], Scan]


def levels(name: str) -> int:
    """Return the heaviest level of a corruption."""
    return 3 if name in ROBO3D else 5


def rings(scan: Scan, beams: int) -> np.ndarray:
    """Return the number of the ring of each point, by the order of the file.

    A new ring begins where the azimuth, counted from straight ahead (x) to the left, falls from the
    last fifth of the turn to the first, as Robo3D tells rings apart.

    Args:
        scan: in the order in which the sensor gave it, ring after ring.
        beams: rings of the sensor; further ones count for the last.

    Shape:
        - result: (N,), int64 from 0 to beams − 1

    Raises:
        ValueError: the azimuth starts again less than half or more than twice as often, as it does
            where points were shuffled or left out.
    """
    turn = np.arctan2(scan.points[:, 1], scan.points[:, 0]) / (2 * np.pi) % 1
    wraps = (turn[1:] < 0.2) & (turn[:-1] > 0.8)
    found = int(wraps.sum()) + 1
    if not beams / 2 <= found <= 2 * beams:
        raise ValueError(
            f"scan {scan.name} has no {beams} rings in the order of its points: their azimuth "
            f"starts again {found} times. Give the scan as the sensor wrote it, and its beams"
        )
    return np.concatenate([[0], wraps.cumsum()]).clip(max=beams - 1)


def without_labels(scan: Scan, moved: np.ndarray) -> np.ndarray | None:
    """Return the labels of a scan, those of moved points being none."""
    return None if scan.labels is None else np.where(moved, IGNORE_INDEX, scan.labels)


def of_classes(scan: Scan, classes: Sequence[str], kind: Sequence[str]) -> list[np.ndarray]:
    """Return which points are of each class of a kind that there is, (N,) bool each."""
    numbers = [number for number, name in enumerate(classes) if name in kind]
    labels: Any = scan.labels  # they are there: `ScanCorruption` asked for them
    return [labels == number for number in numbers]


def _fog(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    alpha = rng.choice(scan_weather.EXTINCTIONS)
    seen = scan_weather.in_fog(scan, alpha, (0.008, 0.05, 0.2)[level], rng)
    return replace(
        scan,
        points=seen.points,
        intensity=seen.intensity,
        labels=without_labels(scan, seen.moved),
    )


def _wet_ground(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    ground = np.any(of_classes(scan, sensor.classes, GROUND), axis=0)
    water, noise = ((0.2, 0.3), (1.0, 0.3), (1.2, 0.7))[level]
    intensity, kept = scan_weather.on_wet_ground(scan, ground, water, noise)
    return replace(scan, intensity=intensity).take(kept)


def _snow(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    rate, speed = ((0.5, 2.0), (1.0, 1.6), (2.5, 1.6))[level]
    seen = scan_weather.in_snow(scan, rate, speed, rng)
    labels = without_labels(scan, seen.moved)
    snowy = replace(scan, points=seen.points, intensity=seen.intensity, labels=labels)
    return snowy.take(~seen.lost)


def _motion_blur(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    deviation = (0.2, 0.25, 0.3)[level]

    together = deviation * rng.standard_normal(3)
    apart = deviation * np.array([0.1, 0.1, 0.05]) * rng.standard_normal((len(scan), 3))
    return replace(scan, points=(scan.points + together + apart).astype(np.float32))


def _beam_missing(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    beams = sensor.beams
    candidates = np.arange(beams // 16, beams - -(-5 * beams // 64))
    missing = rng.choice(candidates, beams * (level + 1) // 4)  # with replacement
    return scan.take(~np.isin(rings(scan, beams), missing))


def _crosstalk(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    hit = np.zeros(len(scan), dtype=bool)
    hit[rng.choice(len(scan), int(len(scan) * (0.006, 0.008, 0.01)[level]), replace=False)] = True
    noise = 3 * rng.standard_normal((len(scan), 4)).astype(np.float32)
    noise[~hit] = 0
    intensity = None if scan.intensity is None else scan.intensity + noise[:, 3]
    return replace(scan, points=scan.points + noise[:, :3], intensity=intensity,
                   labels=without_labels(scan, hit))  # fmt: skip


def _incomplete_echo(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    share, gone = (0.75, 0.85, 0.95)[level], np.zeros(len(scan), dtype=bool)
    for members in of_classes(scan, sensor.classes, VEHICLES):
        rows = members.nonzero()[0]
        if len(rows) > _FEW:
            gone[rng.choice(rows, int(share * len(rows)), replace=False)] = True
    return scan.take(~gone)


def _cross_sensor(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    dropped = np.arange(1, sensor.beams, (4, 2, 1.33)[level]).astype(int)
    fewer = scan.take(~np.isin(rings(scan, sensor.beams), dropped))
    return fewer.take(np.arange(0, len(fewer), 2))


def _density(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    gone = rng.choice(len(scan), int(len(scan) * 0.06 * (level + 1)), replace=False)
    return scan.take(np.delete(np.arange(len(scan)), gone))


def _duplication(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    return scan.take(np.repeat(np.arange(len(scan)), (2, 3, 4, 6, 8)[level]))


def _multiplicity(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    times = 1 + rng.poisson((1, 2, 3, 5, 7)[level], len(scan))
    return scan.take(np.repeat(np.arange(len(scan)), times))


def _intensity_gain(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    gain = 2.0 ** (0.3 * (level + 1) * rng.choice((-1, 1)))
    return _with_intensity(scan, scan.feature("intensity")[:, 0] * gain)


def _intensity_offset(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    offset = 0.08 * (level + 1) * rng.choice((-1, 1))
    return _with_intensity(scan, scan.feature("intensity")[:, 0] + offset)


def _with_intensity(scan: Scan, intensity: np.ndarray) -> Scan:
    return replace(scan, intensity=intensity.clip(0, 1).astype(np.float32))


def _range_noise(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    ranges = np.linalg.norm(scan.points, axis=1)
    longer = 1 + 0.02 * (level + 1) * rng.standard_normal(len(scan)) / ranges.clip(min=1e-6)
    return replace(scan, points=(scan.points * longer[:, None]).astype(np.float32))


def _field_of_view(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    azimuth = np.degrees(np.arctan2(scan.points[:, 1], scan.points[:, 0]))
    return scan.take(abs(azimuth) <= (105, 90, 75, 60, 45)[level])


def _cutout(scan: Scan, level: int, sensor: Sensor, rng: np.random.Generator) -> Scan:
    size = max(1, len(scan) // 50)
    for _ in range((2, 3, 5, 7, 10)[level]):
        if len(scan) <= size:
            break
        middle = scan.points[rng.integers(len(scan))]
        far = np.square(scan.points - middle).sum(1)
        scan = scan.take(np.sort(np.argpartition(far, size)[size:]))
    return scan


_CHANGES: dict[str, _Change] = {
    "fog": _fog,
    "wet_ground": _wet_ground,
    "snow": _snow,
    "motion_blur": _motion_blur,
    "beam_missing": _beam_missing,
    "crosstalk": _crosstalk,
    "incomplete_echo": _incomplete_echo,
    "cross_sensor": _cross_sensor,
    "density": _density,
    "duplication": _duplication,
    "multiplicity": _multiplicity,
    "intensity_gain": _intensity_gain,
    "intensity_offset": _intensity_offset,
    "range_noise": _range_noise,
    "field_of_view": _field_of_view,
    "cutout": _cutout,
}
_ASKS = {"wet_ground": GROUND, "incomplete_echo": VEHICLES}
