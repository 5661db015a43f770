"""Endless built-in scans: procedural streets seen by a simulated LiDAR."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch.utils.data import Dataset

from geonorm.datasets.scan import IGNORE_INDEX, Scan
from geonorm.datasets.synthetic import street_objects as things
from geonorm.datasets.synthetic.lidar import LidarSensor, cast, load_open3d, rotation, sensor_named
from geonorm.datasets.synthetic.meshes import Mesh, boxes, heightfield, merge
from geonorm.datasets.synthetic.street_objects import StreetClass
from geonorm.datasets.synthetic.suburbs import OWN, suburb
from geonorm.names import choices

Style = Literal["town", "suburb", "gardens"]
REACH = 29.0  # metres of street built before and behind the sensor
YARD_THINGS = (things.bush, things.tree, things.car, things.person)
YARD_SHARES = (0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class Side:
    """One side of a street: distances from the centre line (m), kerb height (m), bank (m/m)."""

    kerb: float
    walk: float
    yard: float
    step: float
    bank: float
    verge: bool

    def height(self, distance: float) -> float:
        """Return the height of the ground at a distance from the centre line, before roughness."""
        return self.step + self.bank * max(0.0, distance - self.yard)


class SyntheticStreets(Dataset[Scan]):
    """Scans of procedural streets, each a function of (seed, epoch, index) alone.

    Street, objects, albedos, sensor pose and noise are drawn anew for every scan. Labels are those
    of the triangles the rays met. Shapes and brightness overlap between classes on purpose: only
    a point's surroundings tell a hedge from a fence, a facade or the side of a truck.

    Args:
        num_scans: scans per epoch.
        seed: two datasets of different seed share no street.
        sensor: what looks at the street: a ``LidarSensor`` or a name in ``SENSORS``.
        style: "town" for one straight street between rows of things, "suburb" for roads that
            bend, climb and cross in open ground, seen from a car that hides what is close to it,
            or "gardens" for such a suburb with trees of several stems, beds, rails, boards and
            garages as well.

    Raises:
        ValueError: ``num_scans`` below 1, a negative seed or epoch, an unknown sensor or style.
        IndexError: an index outside [0, num_scans).
        ImportError: Open3D, which casts the rays, is missing.

    Example:
        >>> scan = SyntheticStreets(num_scans=2, seed=1, sensor="roof32")[0]
        >>> scan.name
        'street-seed1-epoch0-0'
    """

    classes = tuple(kind.name.lower() for kind in StreetClass)
    colors = np.array(
        [(128, 64, 128), (244, 35, 232), (152, 251, 152), (255, 200, 0), (190, 120, 70),
         (0, 130, 0), (110, 60, 20), (255, 240, 150), (70, 130, 240), (90, 30, 150),
         (255, 30, 30)], dtype=np.uint8,
    )  # fmt: skip
    ignore_index = IGNORE_INDEX

    def __init__(
        self,
        num_scans: int,
        seed: int = 0,
        sensor: LidarSensor | str = "roof32",
        style: Style = "town",
    ) -> None:
        if num_scans < 1:
            raise ValueError(f"num_scans must be >= 1; got {num_scans}")
        if seed < 0:
            raise ValueError(f"seed must be >= 0; got {seed}")
        if style not in get_args(Style):
            raise ValueError(f"no style {style!r}; {choices(style, get_args(Style))}")
        load_open3d()  # before workers are forked
        self.num_scans = num_scans
        self.seed = seed
        self.style = style
        self.sensor = sensor_named(sensor)
        # Shared memory, so that set_epoch also reaches workers that live on between epochs.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose which ``num_scans`` streets this dataset holds from now on."""
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0; got {epoch}")
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.num_scans

    def __getitem__(self, index: int) -> Scan:
        if not 0 <= index < self.num_scans:
            raise IndexError(f"index must be in [0, {self.num_scans}); got {index}")
        epoch = int(self._epoch)
        rng = np.random.default_rng((self.seed, epoch, index))
        name = f"street-seed{self.seed}-epoch{epoch}-{index}"
        if self.style != "town":
            return self._suburb(rng, name)
        mesh, position = street(self.sensor, rng)
        lean = np.radians(self.sensor.tilt) * rng.standard_normal(2)
        orientation = rotation(rng.uniform(-np.pi, np.pi), *lean)
        return cast(self.sensor, mesh, position, orientation, rng, name)

    def _suburb(self, rng: np.random.Generator, name: str) -> Scan:
        height = self.sensor.height + self.sensor.height_spread * rng.uniform(-1, 1)
        view = suburb(height, rng, gardens=self.style == "gardens")
        lean = np.radians(self.sensor.tilt) * rng.standard_normal(2)
        scan = cast(self.sensor, view.mesh, view.position, rotation(view.yaw, *lean), rng, name)
        return scan.take(np.asarray(scan.labels) != OWN)


def street(sensor: LidarSensor, rng: np.random.Generator) -> tuple[Mesh, np.ndarray]:
    """Return the mesh of a new street and the place of the sensor in it, (3,), in metres."""
    half = rng.uniform(3.2, 6.5)
    sides = [_side(half, rng) for _ in range(2)]
    place = rng.uniform(1.5 - half, half - 1.5)
    parts = [_road(half, rng), *_traffic(half, place, rng)]
    for mirror, side in zip((1, -1), sides, strict=True):
        built = [*_grounds(side, rng), *_lots(side, rng), *_kerbside(side, rng)]
        parts.append(merge([*built, *_people(side, rng)]).moved(scale=(1, mirror, 1)))
    bend = _relief(rng)
    height = sensor.height + sensor.height_spread * rng.uniform(-1, 1)
    position = bend(np.array([[0.0, place, height]], dtype=np.float32))[0]
    mesh = merge(parts)
    return Mesh(bend(mesh.vertices), mesh.triangles, mesh.labels, mesh.albedo), position


def _relief(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Return the map from a straight level street to one with a curve, a grade and waves."""
    curve = rng.uniform(-1, 1) / 160
    grade = rng.uniform(-0.03, 0.03, size=2) * (1, 0.5)
    wave, phase = 2 * np.pi / rng.uniform(30, 70), rng.uniform(0, 2 * np.pi)
    swell = rng.uniform(0.0, 0.2)

    def bend(points: np.ndarray) -> np.ndarray:
        x, y, z = points.T
        lift = grade[0] * x + grade[1] * y + swell * np.sin(wave * x + phase)
        return np.stack([x, y + curve / 2 * x**2, z + lift], axis=1).astype(np.float32)

    return bend


def _side(half: float, rng: np.random.Generator) -> Side:
    verge = rng.random() < 0.35
    walk = half + (rng.uniform(1.0, 2.2) if verge else 0.0)
    yard = walk + rng.uniform(1.5, 3.0)
    bank = rng.uniform(-0.02, 0.1)
    return Side(half, walk, yard, rng.uniform(0.1, 0.2), bank, verge)


def _road(half: float, rng: np.random.Generator) -> Mesh:
    x, y = np.arange(-REACH, REACH + 1, 3.0), np.linspace(-half, half, 5)
    crown = 0.02 * (half - np.abs(y)) * np.ones((len(x), 1))
    return heightfield(x, y, crown, StreetClass.ROAD, things.albedo(StreetClass.ROAD, rng))


def _grounds(side: Side, rng: np.random.Generator) -> list[Mesh]:
    """Return kerb, sidewalk, and the rough ground of yard and verge."""
    low = (-REACH, side.kerb, -0.3)
    tone = things.albedo(StreetClass.SIDEWALK, rng)
    kerb = boxes(low, (REACH, side.kerb + 0.15, side.step), StreetClass.SIDEWALK, tone)
    x = np.arange(-REACH, REACH + 1, 3.0)
    y = np.array([side.walk if side.verge else side.kerb + 0.15, side.yard])
    flat = np.full((len(x), 2), side.step)
    parts = [kerb, heightfield(x, y, flat, StreetClass.SIDEWALK, tone)]
    tone, rough = things.albedo(StreetClass.TERRAIN, rng), rng.uniform(0.05, 0.09)
    strips = [np.arange(side.yard, side.yard + 15, 0.6)]
    if side.verge:
        strips.append(np.linspace(side.kerb + 0.15, side.walk, 4))
    x = np.arange(-REACH, REACH + 0.6, 0.6)
    for y in strips:
        z = np.array([side.height(distance) for distance in y])
        bumps = z + rough * rng.standard_normal((len(x), len(y)))
        parts.append(heightfield(x, y, bumps, StreetClass.TERRAIN, tone))
    return parts


def _lots(side: Side, rng: np.random.Generator) -> list[Mesh]:
    """Return what stands behind the sidewalk: houses, fences, hedges, trees, cars in yards."""
    parts = []
    begin = -REACH + rng.uniform(0, 6)
    while begin < REACH:
        width = rng.uniform(7, 17)
        middle, inner = begin + width / 2, width - rng.uniform(0.3, 2.5)
        kind = rng.choice(["row", "yard", "park"], p=[0.2, 0.6, 0.2])
        setback = rng.uniform(0.8, 2.0) if kind == "row" else rng.uniform(4.0, 9.0)
        if kind != "park":
            house = things.building(inner, rng.uniform(5, 9), rng)
            parts.append(_placed(house, middle, side.yard + setback, side, 0.0))
        if kind != "row":
            parts += _border(inner, middle, side, rng)
            for _ in range(rng.integers(1, 5)):
                make = YARD_THINGS[rng.choice(len(YARD_THINGS), p=YARD_SHARES)]
                deep = side.yard + rng.uniform(2.0, setback - 1.0)
                where = middle + rng.uniform(-0.5, 0.5) * inner
                parts.append(_placed(make(rng), where, deep, side, rng.uniform(0, 2 * np.pi)))
        begin += width
    return parts


def _border(length: float, middle: float, side: Side, rng: np.random.Generator) -> list[Mesh]:
    """Return a fence, a hedge or nothing between sidewalk and yard."""
    make = (things.fence, things.hedge, None)[rng.choice(3, p=[0.5, 0.35, 0.15])]
    if make is None:
        return []
    gate = rng.uniform(0, 0.4) * length
    shift = rng.choice([-0.5, 0.5]) * gate
    return [_placed(make(length - gate, rng), middle + shift, side.yard + 0.7, side, 0.0)]


def _kerbside(side: Side, rng: np.random.Generator) -> list[Mesh]:
    """Return poles and trees along the kerb, and vehicles parked beside it."""
    parts = []
    for x in np.arange(-REACH + rng.uniform(0, 8), REACH, rng.uniform(5, 8)):
        make = (things.pole, things.tree)[rng.choice(2, p=[0.6, 0.4])]
        distance = side.kerb + rng.uniform(0.35, 0.8)
        where = x + rng.uniform(-2, 2)
        parts.append(_placed(make(rng), where, distance, side, -np.pi / 2))
    return parts


def _people(side: Side, rng: np.random.Generator) -> list[Mesh]:
    parts = []
    for _ in range(rng.integers(5, 12)):
        where, distance = rng.uniform(-25, 25), rng.uniform(side.kerb + 0.4, side.yard - 0.5)
        one = things.person(rng)
        parts.append(_placed(one, where, distance, side, rng.uniform(0, 2 * np.pi)))
    return parts


def _traffic(half: float, place: float, rng: np.random.Generator) -> list[Mesh]:
    """Return vehicles parked at both kerbs and driving, none where the sensor is."""
    parts = []
    lanes = [(half - 1.3, 0.55), (1.3 - half, 0.55)]
    if half > 5:
        lanes += [(1.5, 0.2), (-1.5, 0.2)]
    for lane, share in lanes:
        for x in np.arange(-REACH + rng.uniform(0, 10), REACH, 11.0):
            make = things.truck if rng.random() < 0.3 else things.car
            beside = abs(lane - place) < 2.6 and abs(x) < 8
            if rng.random() < share and not beside:
                yaw = rng.normal(0, 0.04) + (np.pi if lane > 0 else 0.0)
                parts.append(make(rng).moved((x, lane + rng.normal(0, 0.1), 0.0), yaw))
    return parts


def _placed(mesh: Mesh, x: float, distance: float, side: Side, yaw: float) -> Mesh:
    return mesh.moved((x, distance, side.height(distance)), yaw)

