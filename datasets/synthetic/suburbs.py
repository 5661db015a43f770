"""Suburbs: roads that bend, climb and cross in open ground, as a car's LiDAR records them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from geonorm.datasets.synthetic import garden_objects as garden
from geonorm.datasets.synthetic import street_objects as things
from geonorm.datasets.synthetic.meshes import Mesh, boxes, heightfield, lathe, merge
from geonorm.datasets.synthetic.street_objects import ALBEDO, StreetClass

REACH = 80.0  # metres from the middle within which things stand; the ground ends at 72
OWN = -1  # label of the car that carries the sensor, whose points recordings leave out
# Lowest and highest albedo about 905 nm, where chlorophyll takes up nothing: grass and leaves are
# bright, asphalt stays dark.
INFRARED = {
    StreetClass.ROAD: (0.07, 0.2),
    StreetClass.SIDEWALK: (0.2, 0.42),
    StreetClass.TERRAIN: (0.3, 0.6),
    StreetClass.BUILDING: (0.2, 0.75),
    StreetClass.FENCE: (0.2, 0.6),
    StreetClass.VEGETATION: (0.3, 0.65),
    StreetClass.TRUNK: (0.2, 0.5),
    StreetClass.POLE: (0.15, 0.7),
    StreetClass.PERSON: (0.25, 0.8),
    StreetClass.CAR: (0.03, 0.7),
    StreetClass.TRUCK: (0.1, 0.8),
}


class View(NamedTuple):
    """What stands around a sensor, and where it stands.

    Attributes:
        mesh: the world; triangles of the car itself have the label `OWN`.
        position: of the sensor, (3,), metres.
        yaw: heading of the car in radians.
    """

    mesh: Mesh
    position: np.ndarray
    yaw: float


@dataclass(frozen=True)
class Road:
    """A road: a point on its centre line, its heading (rad), its bend (1/m) and half width (m)."""

    x: float
    y: float
    yaw: float
    bend: float
    half: float

    def along(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far along the road points are and how far to its left, in metres."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        ahead = cos * (x - self.x) + sin * (y - self.y)
        left = cos * (y - self.y) - sin * (x - self.x)
        return ahead, left - self.bend / 2 * ahead**2

    def place(self, ahead: float, left: float) -> tuple[float, float, float]:
        """Return x, y and the road's heading at a place told as `along` does."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        aside = left + self.bend / 2 * ahead**2
        x, y = self.x + cos * ahead - sin * aside, self.y + sin * ahead + cos * aside
        return x, y, self.yaw + np.arctan(self.bend * ahead)


class Ground:
    """The lie of the land about some roads.

    Args:
        rng: source of all that is drawn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        half = rng.uniform(2.4, 5.0)
        self.roads = [Road(0.0, 0.0, 0.0, rng.uniform(-1, 1) / 90, half)]
        for _ in range(rng.choice([0, 1, 2], p=[0.2, 0.5, 0.3])):
            x, yaw = rng.uniform(-45, 45), rng.uniform(0.9, 2.2)
            branch = Road(x, 0.0, yaw, rng.uniform(-1, 1) / 120, rng.uniform(2.0, 4.5))
            self.roads.append(branch)
        self.ends = [0, *rng.choice([-1, 0, 1], size=len(self.roads) - 1)]
        # Left and right of the main road differ in all that follows.
        self.verge = np.where(rng.random(2) < 0.4, rng.uniform(0.6, 3.0, 2), 0.0)
        self.walk = np.where(rng.random(2) < 0.7, rng.uniform(1.2, 3.0, 2), 0.0)
        self.step = np.where(rng.random(2) < 0.75, rng.uniform(0.04, 0.16, 2), 0.0)
        self.bank = rng.normal(0, 0.08, 2)
        self.level = rng.uniform(4.0, 25.0, 2)
        self.grade = rng.normal(0, 0.025, 2)
        self.waves = [(rng.uniform(0, 2 * np.pi), 2 * np.pi / rng.uniform(*length),
                       rng.uniform(0, 2 * np.pi), rng.uniform(0, size))
                      for length, size in (((60, 150), 1.2), ((30, 60), 0.35), ((6, 14), 0.08))
                      for _ in range(2)]  # fmt: skip

    def edge(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return how far outside of all roads points are, in metres; corners are rounded."""
        each = []
        for road, end in zip(self.roads, self.ends, strict=True):
            ahead, left = road.along(x, y)
            beyond = np.abs(left) - road.half
            each.append(np.where(end * ahead < 0, np.inf, beyond) if end else beyond)
        soft = 1.5
        nearest = np.min(each, axis=0)
        rounded: np.ndarray = nearest - soft * np.log(
            sum(np.exp(-np.minimum((one - nearest) / soft, 60)) for one in each)
        )
        return rounded

    def side(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return 0 left and 1 right of the main road."""
        return (self.roads[0].along(x, y)[1] < 0).astype(int)

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the height of the ground in metres, before its roughness."""
        side, edge = self.side(x, y), self.edge(x, y)
        lift = self.grade[0] * x + self.grade[1] * y
        for heading, wave, phase, size in self.waves[:4]:
            lift = lift + size * np.sin(wave * (np.cos(heading) * x + np.sin(heading) * y) + phase)
        outside = np.clip(edge - (self.verge + self.walk)[side], 0, self.level[side])
        lift = lift + self.bank[side] * outside
        for heading, wave, phase, size in self.waves[4:]:  # hummocks, on open ground alone
            bump = np.sin(wave * (np.cos(heading) * x + np.sin(heading) * y) + phase)
            lift = lift + size * bump * np.clip(outside / 2, 0, 1)
        kerb = self.step[side] * np.clip(edge / 0.1, 0, 1)
        crown = 0.02 * np.clip(-edge, 0, 3)
        whole: np.ndarray = lift + kerb + crown
        return whole

    def kind(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the class of the ground."""
        side, edge = self.side(x, y), self.edge(x, y)
        inner, outer = self.verge[side], (self.verge + self.walk)[side]
        walk = (edge >= inner) & (edge < outer)
        beside = np.where(walk, StreetClass.SIDEWALK, StreetClass.TERRAIN)
        return np.where(edge < 0, StreetClass.ROAD, beside)

    def mesh(self, center: np.ndarray, rng: np.random.Generator) -> Mesh:
        """Return the ground about a place, finer near it."""
        steps = np.concatenate([np.full(60, 0.25), 0.25 * 1.03 ** np.arange(1, 70)])
        reach = np.cumsum(steps)
        line = np.concatenate([-reach[::-1], [0.0], reach])
        x, y = line + center[0], line + center[1]
        grid = np.meshgrid(x, y, indexing="ij")
        rough = np.array([rng.uniform(0.002, 0.01), rng.uniform(0.002, 0.012),
                          rng.uniform(0.005, 0.04)])  # fmt: skip
        z = self.height(*grid) + rough[self.kind(*grid)] * rng.standard_normal(grid[0].shape)
        ground = heightfield(x, y, z, StreetClass.TERRAIN, 0.0)
        middle = ground.vertices[ground.triangles].mean(axis=1)
        kinds = self.kind(middle[:, 0], middle[:, 1])
        base = np.array([things.albedo(kind, rng) for kind in list(StreetClass)[:3]])
        worn, wave = rng.uniform(0, 0.15), rng.uniform(0.2, 2)
        patches = worn * np.sin(middle[:, 0] * wave + rng.uniform(0, 6))
        tone = base[kinds] * (1 + patches)
        return Mesh(ground.vertices, ground.triangles, kinds.astype(np.int64), tone.astype("f4"))


def suburb(height: float, rng: np.random.Generator, *, gardens: bool = False) -> View:
    """Return a new suburb and a car in it.

    Args:
        height: of the sensor above the road in metres.
        rng: source of all that is drawn.
        gardens: with trees of several stems, beds, rails, boards and garages as well.
    """
    ground = Ground(rng)
    road = ground.roads[0]
    x, y, heading = road.place(rng.uniform(-8, 8), rng.uniform(-0.6, 0.6) * road.half)
    position = np.array([x, y, float(ground.height(np.array(x), np.array(y))) + height])
    turning = rng.random() < 0.3
    yaw = rng.uniform(-np.pi, np.pi) if turning else heading + rng.choice([0, np.pi])
    yaw = yaw + np.radians(4) * rng.standard_normal()
    free = _clear_of(position, rng.uniform(2.0, 7.0))
    parts = [ground.mesh(position, rng)]
    for grow in (_houses, _borders, _plants, _posts, _vehicles, _people):
        parts += grow(ground, free, rng)
    if gardens:
        parts += _gardens(ground, free, rng)
    parts.append(_own_car(height, rng).moved((*position,), yaw))
    return View(_infrared(merge(parts)), position.astype(np.float32), float(yaw))


Free = Callable[[float, float, float], bool]


def _clear_of(position: np.ndarray, gap: float) -> Free:
    def free(x: float, y: float, room: float) -> bool:
        return bool(np.hypot(x - position[0], y - position[1]) > gap + room)

    return free


def _infrared(mesh: Mesh) -> Mesh:
    """Return the mesh with the albedo that each class has in the near infrared."""
    tone = mesh.albedo.copy()
    for kind, (low, high) in INFRARED.items():
        own, (first, last) = mesh.labels == kind, ALBEDO[kind]
        tone[own] = low + (mesh.albedo[own] - first) * (high - low) / (last - first)
    return Mesh(mesh.vertices, mesh.triangles, mesh.labels, np.clip(tone, 0.02, 0.95))


def _put(mesh: Mesh, ground: Ground, x: float, y: float, yaw: float, sink: float = 0.0) -> Mesh:
    """Return the mesh on the ground, as low as that is within `sink` metres."""
    spots = np.array([(0, 0), (sink, 0), (-sink, 0), (0, sink), (0, -sink)])
    low = ground.height(x + spots[:, 0], y + spots[:, 1]).min()
    return mesh.moved((x, y, float(low)), yaw)


def _spots(
    ground: Ground,
    rng: np.random.Generator,
    count: int,
    low: float,
    high: float,
    reach: float = REACH - 8,
) -> list[tuple[float, float, float]]:
    """Return x, y and the nearby road's heading of places so far outside all roads, in metres."""
    found = []
    for _ in range(count):
        road = ground.roads[rng.integers(len(ground.roads))]
        aside = road.half + low + (high - low) * rng.random() ** 1.2
        x, y, yaw = road.place(rng.uniform(-reach, reach), aside * rng.choice([-1, 1]))
        edge = float(ground.edge(np.array(x), np.array(y)))
        if low - 0.3 <= edge <= high + 0.3 and max(abs(x), abs(y)) < REACH:
            found.append((x, y, yaw))
    return found


def _houses(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    parts: list[Mesh] = []
    taken: list[tuple[float, float]] = []
    low = rng.uniform(2.0, 12.0)
    for x, y, yaw in _spots(ground, rng, int(rng.integers(0, 60)), low + 4, low + 25):
        near = [np.hypot(x - u, y - v) < rng.uniform(12, 20) for u, v in taken]
        if any(near) or not free(x, y, 9):
            continue
        taken.append((x, y))
        width, depth = rng.uniform(5, 15), rng.uniform(5, 9)
        house = merge([things.building(width, depth, rng).moved((0, -depth / 2, 0)),
                       _terrace(width, depth, rng)])  # fmt: skip
        turn = yaw + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.06)
        parts.append(_put(house, ground, x, y, turn, sink=4.0).moved((0, 0, 0.5)))
    return parts


def _terrace(width: float, depth: float, rng: np.random.Generator) -> Mesh:
    """Return a terrace before a house: most of what a car's sensor sees of houses is low."""
    tone, half, out = things.albedo(StreetClass.BUILDING, rng), width / 4, rng.uniform(0.3, 2.0)
    high = (half, -depth / 2, rng.uniform(-0.2, 0.4))
    return boxes((-half, -depth / 2 - out, -1.5), high, StreetClass.BUILDING, tone)


def _borders(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    """Return fences, walls and hedges: along the roads, and across the yards."""
    parts = []
    hedges = rng.random()
    for x, y, yaw in _spots(ground, rng, int(rng.integers(4, 40)), 0.4, rng.uniform(3, 18)):
        length = rng.uniform(4, 24)
        turn = yaw + (np.pi / 2 if rng.random() < 0.25 else 0.0) + rng.normal(0, 0.05)
        pieces = int(length / 3)
        draw = rng.random()
        make = _wild_hedge if draw < hedges * 0.8 else things.fence if draw < 0.85 else _wall
        seed = int(rng.integers(2**31))
        for piece in range(pieces):
            off = (piece - (pieces - 1) / 2) * length / pieces
            u, v = x + off * np.cos(turn), y + off * np.sin(turn)
            if float(ground.edge(np.array(u), np.array(v))) < 0.3 or not free(u, v, 2):
                continue
            one = make(length / pieces, np.random.default_rng((seed, 0)))
            parts.append(_put(one, ground, u, v, turn))
    return parts


def _wall(length: float, rng: np.random.Generator) -> Mesh:
    """Return a low wall along x, centred; the labels of recordings count it as a fence."""
    thick, top = rng.uniform(0.1, 0.25), rng.uniform(0.4, 2.0)
    low, high = (-length / 2, -thick, -0.6), (length / 2, thick, top)
    return boxes(low, high, StreetClass.FENCE, things.albedo(StreetClass.FENCE, rng))


def _wild_hedge(length: float, rng: np.random.Generator) -> Mesh:
    """Return a hedge along x, centred, that nobody clips."""
    height, thick = rng.uniform(0.7, 3.2), rng.uniform(0.7, 3.0)
    ragged = rng.uniform(0.0, 0.5)
    count = int(rng.uniform(50, 110) * length * height * min(thick, 1.6))
    places = rng.uniform(-0.5, 0.5, size=(count, 3)) * (length * 1.1, thick, 1.0)
    top = height * (1 + ragged * np.sin(places[:, 0] * rng.uniform(0.8, 3) + rng.uniform(0, 6)))
    places[:, 2] = (places[:, 2] + 0.5) * top
    return things.foliage(places, rng.uniform(0.14, 0.26), rng)


def _shrub(rng: np.random.Generator) -> Mesh:
    """Return a bush of one to five lumps."""
    lumps = []
    for _ in range(rng.integers(1, 6)):
        radii = rng.uniform((0.4, 0.4, 0.4), (1.6, 1.6, 1.4))
        where = (*rng.normal(0, 1.2, 2), radii[2] * 0.6)
        count = int(rng.uniform(120, 320) * radii.prod() ** (2 / 3))
        lumps.append(_in_ball(count, rng) * radii + where)
    places = np.concatenate(lumps)
    return things.foliage(places[places[:, 2] > -0.1], rng.uniform(0.12, 0.24), rng)


def _tree(rng: np.random.Generator) -> Mesh:
    """Return a tree whose crown is filled and hangs lower than that of a street tree at times."""
    bare, radius = rng.uniform(0.8, 4.5), rng.uniform(0.06, 0.35)
    tone, lean = things.albedo(StreetClass.TRUNK, rng), rng.uniform(-0.12, 0.12, size=2)
    profile = [(radius * 1.3, -0.5), (radius, 0.4), (radius * 0.8, bare + 1), (0.0, bare + 4)]
    trunk = lathe(profile, StreetClass.TRUNK, tone, sides=7)
    trunk.vertices[:, :2] += trunk.vertices[:, 2:] * lean
    radii = rng.uniform((0.9, 0.9, 1.0), (3.5, 3.5, 3.0))
    center = np.array([*(lean * bare), bare + radii[2] * rng.uniform(0.7, 1.0)])
    count = int(rng.uniform(80, 220) * radii.prod() ** (2 / 3))
    return merge([trunk, things.foliage(_in_ball(count, rng) * radii + center, 0.24, rng)])


def _in_ball(count: int, rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * rng.random((count, 1)) ** 0.5


def _plants(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    parts = []
    for make, most, near in ((_tree, 90, 0.6), (_shrub, 110, 0.8)):
        count = int(rng.integers(5, most))
        for x, y, _ in _spots(ground, rng, count, near, rng.uniform(10, 50)):
            if free(x, y, 2.0):
                parts.append(_put(make(rng), ground, x, y, rng.uniform(0, 2 * np.pi)))
    return parts


def _posts(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    return [
        _put(things.pole(rng), ground, x, y, yaw + rng.integers(4) * np.pi / 2)
        for x, y, yaw in _spots(ground, rng, int(rng.integers(4, 30)), 0.3, rng.uniform(1, 6))
        if free(x, y, 0.0)
    ]


def _gardens(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    """Return what stands in gardens: of each kind as many as drawn, along the roads and beyond."""
    parts = []
    for make, most, near, far, gap in (
        (garden.fan_tree, 30, 0.8, 25.0, 2.5), (garden.bed, 25, 0.6, 20.0, 3.0),
        (garden.board, 12, 0.4, 8.0, 1.0), (garden.rail, 12, 0.4, 15.0, 3.0),
        (garden.garage, 10, 4.0, 25.0, 5.0),
    ):  # fmt: skip
        for x, y, yaw in _spots(ground, rng, int(rng.integers(0, most + 1)), near, far):
            if free(x, y, gap):
                turn = yaw + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.2)
                parts.append(_put(make(rng), ground, x, y, turn))
    return parts


def _vehicles(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    """Return vehicles in the lanes, at the kerbs and in yards, none where another stands."""
    parts: list[Mesh] = []
    taken: list[tuple[float, float]] = []
    for low, high, most in ((-1.5, -0.8, 30), (-3.5, -1.5, 6), (1.5, 12.0, 16)):
        for x, y, yaw in _spots(ground, rng, int(rng.integers(0, most)), low, high):
            small = rng.random() < 0.88
            room = 3.0 if small else 6.0
            beside = any(np.hypot(x - u, y - v) < room + 2.8 for u, v in taken)
            if beside or not free(x, y, room):
                continue
            taken.append((x, y))
            turn = yaw + rng.normal(0, 0.06) + rng.choice([0, np.pi])
            turn += rng.integers(4) * np.pi / 2 if low > 0 else 0.0
            parts.append(_put((things.car if small else things.truck)(rng), ground, x, y, turn))
    return parts


def _people(ground: Ground, free: Free, rng: np.random.Generator) -> list[Mesh]:
    return [
        _put(things.person(rng), ground, x, y, rng.uniform(0, 2 * np.pi))
        for x, y, _ in _spots(ground, rng, int(rng.integers(0, 14)), 0.0, 3.0, reach=35)
        if free(x, y, 0.0)
    ]


def _own_car(height: float, rng: np.random.Generator) -> Mesh:
    """Return what a sensor sees of its car, itself at the origin: roof, bonnet and racks."""
    drop = rng.uniform(0.35, 0.5)
    side, front, back = rng.uniform(0.7, 0.85), rng.uniform(0.8, 1.1), rng.uniform(1.2, 1.6)
    low = np.array([(-back, -side, -height + 0.3), (-back - 0.8, -side, -height + 0.3),
                    (-back - 0.8, -side, -height + 0.3)])  # fmt: skip
    high = np.array([(front, side, -drop), (front + 1.3, side, -height + 0.95),
                     (-back, side, -height + 1.0)])  # fmt: skip
    racks = rng.integers(0, 4)
    angle, far = rng.uniform(0, 2 * np.pi, racks), rng.uniform(0.4, 0.75, racks)
    spot = np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1)
    wide, top = rng.uniform(0.03, 0.12, (racks, 1)), rng.uniform(-0.3, -0.12, racks)
    low = np.concatenate([low, np.column_stack([spot - wide, np.full(racks, -drop)])])
    high = np.concatenate([high, np.column_stack([spot + wide, top])])
    return boxes(low, high, OWN, 0.3)
