"""Scans whose every ring, range and number of a point is known."""

import numpy as np

from geonorm.datasets.scan import Scan

CLASSES = ("road", "car", "truck", "building", "person")


def ring_scan(beams=64, steps=100, seed=0):
    """Return a scan of whole rings, from high to low, each from straight ahead to the left.

    The classes are those of CLASSES at random, and `echo` is the number of the point.
    """
    rng = np.random.default_rng(seed)
    elevation = np.radians(np.linspace(3, -25, beams)).repeat(steps)
    azimuth = np.tile((np.arange(steps) + 0.5) * 2 * np.pi / steps, beams)
    way = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth),
         np.sin(elevation)], axis=1,
    )  # fmt: skip
    rows = beams * steps
    return Scan(
        (way * rng.uniform(2, 60, (rows, 1))).astype(np.float32),
        rng.uniform(0.1, 0.9, rows).astype(np.float32),
        rng.integers(0, len(CLASSES), rows),
        "rings",
        extra={"echo": np.arange(rows, dtype=np.float32)[:, None]},
    )


def ray_scan(ranges, intensity=0.5):
    """Return points straight ahead at these ranges in metres."""
    points = np.zeros((len(ranges), 3), dtype=np.float32)
    points[:, 0] = ranges
    return Scan(points, np.full(len(ranges), intensity, dtype=np.float32), None, "ray")
