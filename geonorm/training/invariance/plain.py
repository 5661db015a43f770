"""Scans and clips of known classes, drawn by numpy and torch alone: no Open3D, PyAV or network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geonorm.datasets.scan import Scan

CLASSES = ("ground", "wall", "pole", "car")
MOTIONS = ((0, 3), (0, -3), (3, 0), (-3, 0))  # pixels per frame, down and to the right


def street(seed: int, points: int = 20_000) -> Scan:
    """Return a scan of ground, two walls, poles and cars; shape alone tells the classes apart.

    Args:
        seed: of everything drawn.
        points: number of points.
    """
    rng = np.random.default_rng(seed)
    counts = np.full(len(CLASSES), points // len(CLASSES))
    counts[0] += points - counts.sum()
    ground = np.column_stack([rng.uniform(-20, 20, (counts[0], 2)), np.full(counts[0], -1.8)])
    side = rng.choice([-1, 1], counts[1]) * rng.uniform(7, 9)
    wall = np.column_stack([rng.uniform(-20, 20, counts[1]), side,
                            rng.uniform(-1.8, 3, counts[1])])  # fmt: skip
    poles = _near(rng, counts[2], number=8, extent=(0.15, 0.15, 4.8))
    cars = _near(rng, counts[3], number=6, extent=(4.0, 1.7, 1.5))
    xyz = np.concatenate([ground, wall, poles, cars]) + rng.normal(0, 0.02, (points, 3))
    gain, offset = rng.uniform(0.5, 1.5), rng.uniform(0, 0.2)
    intensity = np.clip(gain * rng.uniform(0.2, 0.6, points) + offset, 0, 1)
    labels = np.arange(len(CLASSES)).repeat(counts)
    return Scan(xyz.astype(np.float32), intensity.astype(np.float32), labels, f"street {seed}")


def _near(rng: np.random.Generator, count: int, number: int, extent: tuple[float, float, float]
          ) -> np.ndarray:
    """Return points on boxes of one size that stand on the ground."""
    corner = np.column_stack([rng.uniform(-18, 18, number), rng.uniform(-6, 5, number)])
    inside = rng.uniform(0, 1, (count, 3)) * extent
    inside[:, :2] += corner[rng.integers(0, number, count)]
    return inside - (0, 0, 1.8)


def clips(seed: int, count: int, frames: int, size: int) -> tuple[Tensor, Tensor]:
    """Return clips of random textures that drift in one of four directions, and the direction.

    A single frame tells nothing of the class.

    Shape:
        (count, 3, frames, size, size) float32 and (count,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, len(MOTIONS), (count,), generator=generator)
    coarse = torch.randn(count, 3, size // 4, size // 4, generator=generator)
    texture = torch.nn.functional.interpolate(coarse, size=(size, size))
    drift = [
        torch.stack([texture[i].roll((MOTIONS[k][0] * t, MOTIONS[k][1] * t), (1, 2))
                     for t in range(frames)], dim=1)
        for i, k in enumerate(labels.tolist())
    ]  # fmt: skip
    return torch.stack(drift), labels


def write_semantickitti(folder: Path, scans: int, points: int) -> None:
    """Write streets as sequence 00 of SemanticKITTI: float32 points and uint32 labels.

    Args:
        folder: the dataset's root, made if need be.
        scans: how many.
        points: of each.
    """
    raw = np.array([40, 50, 80, 10], dtype="<u4")  # road, building, pole, car
    sequence = folder / "sequences" / "00"
    for name in ("velodyne", "labels"):
        (sequence / name).mkdir(parents=True, exist_ok=True)
    for number in range(scans):
        scan = street(number, points)
        rows = np.column_stack([scan.points, scan.feature("intensity")]).astype("<f4")
        rows.tofile(sequence / "velodyne" / f"{number:06d}.bin")
        raw[scan.labels].tofile(sequence / "labels" / f"{number:06d}.label")
