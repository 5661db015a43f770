"""The things that stand in a street, each drawn anew from a generator, resting on z = 0."""

from enum import IntEnum

import numpy as np

from geonorm.datasets.synthetic.meshes import Mesh, boxes, ellipsoid, lathe, leaves, merge


class StreetClass(IntEnum):
    """Classes of the points of a street; the values are the train ids."""

    ROAD = 0
    SIDEWALK = 1
    TERRAIN = 2
    BUILDING = 3
    FENCE = 4
    VEGETATION = 5
    TRUNK = 6
    POLE = 7
    CAR = 8
    TRUCK = 9
    PERSON = 10


# Lowest and highest albedo of each class: typical, and overlapping between most of them.
ALBEDO = {
    StreetClass.ROAD: (0.08, 0.22),
    StreetClass.SIDEWALK: (0.4, 0.65),
    StreetClass.TERRAIN: (0.14, 0.3),
    StreetClass.BUILDING: (0.2, 0.65),
    StreetClass.FENCE: (0.1, 0.35),
    StreetClass.VEGETATION: (0.2, 0.6),
    StreetClass.TRUNK: (0.08, 0.25),
    StreetClass.POLE: (0.4, 0.85),
    StreetClass.PERSON: (0.25, 0.8),
    StreetClass.CAR: (0.1, 0.6),
    StreetClass.TRUCK: (0.4, 0.85),
}

_LEG = lathe([(0.07, 0.0), (0.09, 0.85)], label=0, albedo=0.5, sides=6)
_ARM = lathe([(0.05, 0.8), (0.06, 1.42)], label=0, albedo=0.5, sides=6)
_BODY_PARTS = (
    _LEG.moved((0, 0.1, 0)),
    _LEG.moved((0, -0.1, 0)),
    _ARM.moved((0, 0.26, 0)),
    _ARM.moved((0, -0.26, 0)),
    ellipsoid((0.16, 0.23, 0.36), label=0, albedo=0.5).moved((0, 0, 1.12)),
    ellipsoid((0.11, 0.1, 0.14), label=0, albedo=0.5).moved((0, 0, 1.62)),
)
_BODY = merge(_BODY_PARTS)
# Who walks swings the left leg with the right arm: how far forward each vertex goes.
_SWING = np.array([1, -1, -1, 1, 0, 0], dtype=np.float32)
_STRIDE = np.repeat(_SWING, [len(part.vertices) for part in _BODY_PARTS])
_WHEEL = lathe([(0, -0.1), (1, -0.1), (1, 0.1), (0, 0.1)], label=0, albedo=0.08, sides=10).upended()


def albedo(kind: StreetClass, rng: np.random.Generator) -> float:
    """Return an albedo that a thing of this class may have."""
    return rng.uniform(*ALBEDO[kind])


def building(width: float, depth: float, rng: np.random.Generator) -> Mesh:
    """Return a house, from garage to four storeys; its front lies on y = 0, width along x (m)."""
    label, tone = StreetClass.BUILDING, albedo(StreetClass.BUILDING, rng)
    storeys = int(rng.choice([1, 1, 2, 3, 4]))
    top = storeys * rng.uniform(2.4, 3.0)
    half, foot = width / 2, -1.0
    parts = [boxes((-half, 0, foot), (half, depth, top), label, tone)]
    columns = max(1, int(width / rng.uniform(1.8, 3.2)))
    across = np.linspace(-half, half, 2 * columns + 1)[1::2]
    sills = 0.9 + (top / storeys) * np.arange(storeys)
    x, z = (grid.ravel() for grid in np.meshgrid(across, sills))
    shown = rng.random(len(x)) < 0.8
    low = np.stack([x - 0.5, np.full_like(x, -rng.uniform(0.02, 0.12)), z], axis=1)[shown]
    high = np.stack([x + 0.5, np.zeros_like(x), z + 1.3], axis=1)[shown]
    parts.append(boxes(low, high, label, rng.uniform(0.05, 0.9)))
    if rng.random() < 0.5:
        parts.append(boxes((-0.6, -rng.uniform(0.1, 0.8), foot), (0.6, 0, 2.2), label, tone * 0.6))
    if storeys > 1 and rng.random() < 0.5:
        floor = top / storeys
        parts.append(boxes((-half * 0.6, -1.1, floor), (half * 0.4, 0, floor + 1.0), label, tone))
    parts.append(boxes((-half - 0.2, -0.3, top), (half + 0.2, depth, top + 0.2), label, tone * 0.7))
    return merge(parts)


def fence(length: float, rng: np.random.Generator) -> Mesh:
    """Return a fence along x, centred: posts and rails with slats, boards, or wire between (m)."""
    label, tone = StreetClass.FENCE, albedo(StreetClass.FENCE, rng)
    height, half = rng.uniform(0.9, 2.3), length / 2
    posts = np.arange(-half, half, rng.uniform(1.5, 2.5))
    thick = rng.uniform(0.04, 0.07)
    parts = [_uprights(posts, thick, -thick, thick, -0.5, height + 0.1, label, tone)]
    rails = np.array([0.15, 0.85]) * height
    low = np.array([(-half, -0.02, z - 0.04) for z in rails])
    high = np.array([(half, 0.02, z + 0.04) for z in rails])
    parts.append(boxes(low, high, label, tone))
    kind = rng.choice(["slats", "boards", "planks"])
    if kind == "slats":
        wide = rng.uniform(0.04, 0.07)
        slats = np.arange(-half, half, wide * rng.uniform(2.8, 4.0))
        parts.append(_uprights(slats, wide / 2, -0.04, -0.02, 0.05, height, label, tone))
    elif kind == "boards":
        boards = np.arange(-half, half, 0.24)
        side = np.where(np.arange(len(boards)) % 2 == 0, -0.06, 0.06)
        parts.append(_uprights(boards, 0.1, side - 0.01, side + 0.01, 0.05, height, label, tone))
    else:
        planks = np.arange(0.1, height, 0.16 + rng.uniform(0.06, 0.14))
        low = np.stack([np.full_like(planks, -half), np.full_like(planks, -0.05), planks], 1)
        parts.append(boxes(low, low + np.array([length, 0.03, 0.14]), label, tone))
    return merge(parts)


def foliage(centers: np.ndarray, size: float, rng: np.random.Generator) -> Mesh:
    """Return leaves of this size at centers (K, 3), of one plant (m)."""
    label = StreetClass.VEGETATION
    return leaves(centers, size, label, albedo(label, rng), rng)


def hedge(length: float, rng: np.random.Generator) -> Mesh:
    """Return a clipped hedge along x, centred: dense leaves around twigs (m)."""
    height, thick = rng.uniform(0.8, 2.4), rng.uniform(0.6, 1.2)
    count = int(80 * length * height)
    centers = rng.uniform(-0.5, 0.5, size=(count, 3)) * (length, thick, height)
    bumps = 1 + 0.15 * np.sin(centers[:, :1] * rng.uniform(1, 3) + rng.uniform(0, 6))
    centers = centers * np.concatenate([np.ones_like(bumps), bumps, np.ones_like(bumps)], axis=1)
    centers[:, 2] += height / 2
    return foliage(centers, 0.16, rng)


def bush(rng: np.random.Generator) -> Mesh:
    """Return a round bush."""
    radii = rng.uniform((0.5, 0.5, 0.4), (1.3, 1.3, 1.1))
    centers = _in_ball(int(200 * radii.prod() ** (2 / 3)), rng) * radii + (0, 0, radii[2] * 0.7)
    return foliage(centers, 0.16, rng)


def tree(rng: np.random.Generator) -> Mesh:
    """Return a tree: a tapered trunk, forked where the crown begins."""
    bare, radius = rng.uniform(1.8, 3.4), rng.uniform(0.14, 0.32)
    tone = albedo(StreetClass.TRUNK, rng)
    lean = rng.uniform(-0.15, 0.15, size=2)
    profile = [(radius * 1.3, -0.3), (radius, 0.4), (radius * 0.8, bare), (0.0, bare + 1.5)]
    trunk = lathe(profile, StreetClass.TRUNK, tone, sides=7)
    trunk.vertices[:, :2] += trunk.vertices[:, 2:] * lean
    radii = rng.uniform((1.2, 1.2, 1.0), (2.4, 2.4, 2.2))
    center = np.array([*(lean * bare), bare + radii[2] * 0.75])
    crown = _in_ball(int(160 * radii.prod() ** (2 / 3)), rng) * radii + center
    return merge([trunk, foliage(crown, 0.26, rng)])


def pole(rng: np.random.Generator) -> Mesh:
    """Return a lamp, a sign on its post, or a bollard."""
    label, tone = StreetClass.POLE, albedo(StreetClass.POLE, rng)
    kind = rng.choice(["lamp", "sign", "bollard"], p=[0.45, 0.4, 0.15])
    if kind == "bollard":
        return lathe([(0.1, -0.3), (0.1, rng.uniform(0.8, 1.1)), (0, 1.1)], label, tone)
    height = rng.uniform(4.5, 7.0) if kind == "lamp" else rng.uniform(2.2, 3.2)
    radius = rng.uniform(0.07, 0.13) if kind == "lamp" else rng.uniform(0.04, 0.06)
    parts = [lathe([(radius * 1.2, -0.3), (radius, height)], label, tone)]
    if kind == "lamp":
        parts.append(boxes((0, -0.05, height - 0.1), (1.5, 0.05, height), label, tone))
    else:
        side = rng.uniform(0.25, 0.4)
        low, high = (-side, radius, height - 2 * side), (side, radius + 0.02, height)
        parts.append(boxes(low, high, label, rng.uniform(0.4, 0.95)))
    return merge(parts)


def person(rng: np.random.Generator) -> Mesh:
    """Return someone standing or walking."""
    body = _BODY.painted(StreetClass.PERSON, albedo(StreetClass.PERSON, rng))
    body = body.moved(scale=(1.0, 1.0, rng.uniform(0.85, 1.1)))
    body.vertices[:, 0] += rng.uniform(0.0, 0.25) * _STRIDE
    return body


def car(rng: np.random.Generator) -> Mesh:
    """Return a car, from hatchback to small van, headed along x."""
    label, paint = StreetClass.CAR, albedo(StreetClass.CAR, rng)
    long, wide = rng.uniform(3.6, 5.0), rng.uniform(1.65, 1.9)
    deck, roof = rng.uniform(0.8, 1.05), rng.uniform(1.4, 1.95)
    cabin = np.array(  # where the cabin begins and ends, as shares of the length, low and high
        [(0.02, 0.75), (0.06, 0.6)] if rng.random() < 0.5 else [(0.15, 0.75), (0.28, 0.58)]
    )
    body = boxes((-long / 2, -wide / 2, 0.25), (long / 2, wide / 2, deck), label, paint)
    glass = boxes((0, -wide / 2, deck), (1, wide / 2, roof), label, paint * 0.6)
    upper = glass.vertices[:, 2] > deck
    back, front = np.where(upper[:, None], cabin[1], cabin[0]).T
    glass.vertices[:, 0] = (np.where(glass.vertices[:, 0] < 0.5, back, front) - 0.5) * long
    glass.vertices[upper, 1] *= 0.82
    return merge([body, glass, *_wheels(long, wide, 0.32, 2, label)])


def truck(rng: np.random.Generator) -> Mesh:
    """Return a truck with a box or flat body, or a bus, headed along x."""
    label, paint = StreetClass.TRUCK, albedo(StreetClass.TRUCK, rng)
    long, wide, top = rng.uniform(6.0, 10.0), rng.uniform(2.2, 2.5), rng.uniform(2.6, 3.6)
    front, side = long / 2, wide / 2
    axles = _wheels(long, wide, 0.5, 2 if long < 8 else 3, label)
    if rng.random() < 0.3:
        parts = [boxes((-front, -side, 0.35), (front, side, top), label, paint)]
        panes = np.arange(-front + 0.4, front - 1.2, 1.5)
        pane = (0.55, -side - 0.02, side + 0.02, 1.3, top - 0.5)
        parts.append(_uprights(panes + 0.6, *pane, label, 0.1))
        return merge([*parts, *axles])
    cab = front - rng.uniform(1.6, 2.2)
    chassis = boxes((-front, -side * 0.4, 0.55), (front, side * 0.4, 0.95), label, 0.2)
    head = boxes((cab, -side * 0.95, 0.45), (front, side * 0.95, top * 0.85), label, paint)
    bed = top if rng.random() < 0.8 else 1.6
    load = boxes((-front, -side, 0.95), (cab - 0.4, side, bed), label, albedo(label, rng))
    return merge([chassis, head, load, *axles])


def _wheels(long: float, wide: float, radius: float, axles: int, label: int) -> list[Mesh]:
    wheel = _WHEEL.painted(label, 0.08).moved(scale=(radius, 1.0, radius))
    along = np.linspace(-0.32, 0.32, axles) * long
    return [wheel.moved((x, y, radius)) for x in along for y in (0.1 - wide / 2, wide / 2 - 0.1)]


def _uprights(
    x: np.ndarray,
    half: float,
    near: float | np.ndarray,
    far: float | np.ndarray,
    bottom: float,
    top: float,
    label: int,
    tone: float,
) -> Mesh:
    """Return one upright board per x, ``half`` to either side of it, from near to far in y."""
    low = np.stack(np.broadcast_arrays(x - half, near, bottom), axis=1)
    high = np.stack(np.broadcast_arrays(x + half, far, top), axis=1)
    return boxes(low, high, label, tone)


def _in_ball(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return points of the unit ball, denser towards its surface, as leaves are."""
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * rng.uniform(0.5, 1.0, size=(count, 1))
