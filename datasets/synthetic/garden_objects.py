"""The things that a real suburb had and the first built-in ones did not, resting on z = 0."""

import numpy as np

from geonorm.datasets.synthetic.meshes import Mesh, boxes, lathe, merge
from geonorm.datasets.synthetic.street_objects import StreetClass, albedo, foliage


def fan_tree(rng: np.random.Generator) -> Mesh:
    """Return a tree of several stems that lean outwards from one foot, in leaf or nearly bare."""
    label, tone = StreetClass.TRUNK, albedo(StreetClass.TRUNK, rng)
    foot, fork = rng.uniform(0.08, 0.5), rng.uniform(0.0, 1.4)
    parts = [lathe([(foot * 1.3, -0.5), (foot, 0.3), (foot * 0.9, fork + 0.3)], label, tone)]
    tips = []
    for turn in np.arange(count := rng.integers(3, 9)) * 2 * np.pi / count:
        heading = np.array([np.cos(turn), np.sin(turn)])
        lean, long = rng.uniform(0.05, 0.6), rng.uniform(2.0, 5.0)
        thick = min(rng.uniform(0.03, 0.14), foot)
        stem = lathe([(thick, 0.0), (thick * 0.7, long * 0.6), (0.0, long)], label, tone, sides=6)
        stem.vertices[:, :2] += stem.vertices[:, 2:] * lean * heading
        parts.append(stem.moved((*(heading * foot * 0.6), fork)))
        tips.append([*(heading * (foot * 0.6 + long * 0.7 * lean)), fork + long * 0.7])
    spread = rng.uniform(0.4, 1.3)
    many = int(rng.uniform(0, 150) * len(tips) * spread**2)
    places = np.repeat(tips, -(-many // len(tips)), axis=0)[:many]
    crown = places + rng.normal(0, spread * 0.5, size=(many, 3))
    parts.append(foliage(crown[crown[:, 2] > 0.2], 0.2, rng))
    return merge(parts)


def board(rng: np.random.Generator) -> Mesh:
    """Return a board between the tops of two posts, along x."""
    label, tone = StreetClass.POLE, albedo(StreetClass.POLE, rng)
    half, thick = rng.uniform(0.25, 0.8), rng.uniform(0.02, 0.04)
    low = rng.uniform(0.6, 1.4)
    top = low + rng.uniform(0.4, 1.0)
    posts = [lathe([(thick, -0.3), (thick, top)], label, tone, sides=6).moved((x, 0, 0))
             for x in (-half, half)]  # fmt: skip
    panel = boxes((-half, thick, low), (half, thick + 0.02, top), label, rng.uniform(0.4, 0.95))
    return merge([*posts, panel])


def bed(rng: np.random.Generator) -> Mesh:
    """Return low shrubs that cover a rectangle."""
    long, wide = rng.uniform(1.5, 8.0), rng.uniform(0.8, 5.0)
    height, ragged = rng.uniform(0.2, 1.1), rng.uniform(0.0, 0.5)
    count = int(rng.uniform(40, 110) * long * wide)
    places = rng.uniform(-0.5, 0.5, size=(count, 3)) * (long, wide, 1.0)
    waves = rng.uniform(0.8, 4.0, 2)
    bumps = np.sin(places[:, :2] * waves + rng.uniform(0, 6, 2)).sum(axis=1) / 2
    places[:, 2] = height * (1 + ragged * bumps) * (0.5 + places[:, 2]) ** 0.4
    return foliage(places, rng.uniform(0.1, 0.2), rng)


def rail(rng: np.random.Generator) -> Mesh:
    """Return a low fence along x of posts and one bar or two, with nothing between."""
    label, tone = StreetClass.FENCE, albedo(StreetClass.FENCE, rng)
    half, top, thick = rng.uniform(1.0, 6.0), rng.uniform(0.35, 1.1), rng.uniform(0.03, 0.06)
    posts = np.arange(-half, half + 0.1, rng.uniform(1.2, 2.5))
    bars = np.array([top, top * 0.5])[: rng.integers(1, 3)]
    low = [(x - thick, -thick, -0.5) for x in posts] + [(-half, -thick, z - 0.05) for z in bars]
    high = [(x + thick, thick, top) for x in posts] + [(half, thick, z + 0.05) for z in bars]
    return boxes(low, high, label, tone)


def garage(rng: np.random.Generator) -> Mesh:
    """Return a garage or a shed, centred, its door along x."""
    label, tone = StreetClass.BUILDING, albedo(StreetClass.BUILDING, rng)
    half = np.array([rng.uniform(1.2, 3.4), rng.uniform(1.2, 3.4)])
    top, eaves = rng.uniform(1.8, 2.9), rng.uniform(0.0, 0.3)
    walls = boxes((*-half, -1.0), (*half, top), label, tone)
    roof = boxes((*(-half - eaves), top), (*(half + eaves), top + 0.15), label, tone * 0.7)
    return merge([walls, roof])
